"""The rooms of the package: who may import whom, and what a check may not touch."""

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "ppl_vae"
FILES = sorted(PACKAGE.rglob("*.py"))
# From the ground up; a room imports from floors below its own, and from itself.
FLOORS = (
    (
        "files",
        "isolation",
        "progress",
        "renamed",
        "dims",
        "processor",
        "processes",
        "distributions",
        "tensors",
    ),
    ("ahead", "parts"),
    ("budget", "intensities", "sources", "sink", "store"),
    ("amortized", "components"),
    ("data",),
    ("rows", "column_likelihoods", "sizes"),
    ("config", "batches"),
    ("saving",),
    ("vae",),
    ("presets",),
    ("inference", "workflow"),
    ("programs",),
    ("trees", "sklearn", "anndata"),
    ("pictures",),
    ("run",),
    ("explorer",),
    ("cli",),
)
FLOOR = {room: i for i, rooms in enumerate(FLOORS) for room in rooms}
# The rooms of workflow/, downstairs first.
CHECKS = ("draws", "weights", "refinement", "checks", "imputation", "verdict")
# Parts of a VAE and insides of distributions, which a check has no business with.
INSIDES = {"prior", "decoder", "encoder", "base_dist"}


def module(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module(path): path for path in FILES}


def imports(path: Path) -> set[str]:
    """The modules of the package that a file imports, wherever it does so."""
    own = module(path).split(".") if module(path) else []
    package = own if path.name == "__init__.py" else own[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        base = package[: len(package) + 1 - node.level] + (
            node.module.split(".") if node.module else []
        )
        for alias in node.names:
            whole = ".".join([*base, alias.name])
            found.add(whole if whole in MODULES else ".".join(base))
    return found - {""}


def room(name: str) -> str:
    return name.split(".")[0]


@pytest.mark.parametrize("path", FILES, ids=module)
def test_nothing_imports_upwards(path):
    name = module(path)
    if not name:
        return  # the package's own names, which are imported on first use
    for other in imports(path):
        below = FLOOR[room(other)] < FLOOR[room(name)]
        assert below or room(other) == room(name), f"{name} imports {other}"


@pytest.mark.parametrize("path", [p for p in FILES if room(module(p)) == "workflow"], ids=module)
def test_no_check_imports_from_upstairs(path):
    """What says how far a row can be believed stands on checks, and these on weights of draws."""
    _, *inner = module(path).split(".")
    for other in imports(path):
        if inner and other.startswith("workflow."):
            assert CHECKS.index(other.split(".")[1]) <= CHECKS.index(inner[0]), other


def test_no_circles():
    """Two modules that import each other, over however many between, are one in two files."""
    arrows = {name: imports(path) for name, path in MODULES.items() if name}
    done: set[str] = set()

    def follow(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " -> ".join([*way[way.index(name) :], name])
        if name not in done:
            for other in arrows[name]:
                follow(other, (*way, name))
            done.add(name)

    for name in arrows:
        follow(name, ())


@pytest.mark.parametrize("path", [p for p in FILES if room(module(p)) == "workflow"], ids=module)
def test_checks_know_only_the_model_as_a_whole(path):
    assert not {room(other) for other in imports(path)} & {"components", "pictures", "trees", "vae"}
    touched = {
        node.attr
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in INSIDES
    }
    assert not touched


@pytest.mark.parametrize("path", FILES, ids=module)
def test_files_are_of_one_noun(path):
    assert len(path.read_text().splitlines()) <= 400
    assert path.stem not in {"utils", "util", "helpers", "misc", "common"}


def test_tests_that_are_named_exist():
    """tests/README.md says which test holds each fault that was once shown."""
    here = Path(__file__).parent
    named = re.findall(r"`(test_\w+\.py)::(\w+)`", (here / "README.md").read_text())
    assert len(named) > 60
    for file, test in named:
        assert f"def {test}(" in (here / file).read_text(), f"{file} has no {test}"
