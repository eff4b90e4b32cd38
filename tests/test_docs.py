"""Commands and Python in the documentation run as written, and links lead somewhere."""

import doctest
import inspect
import re
import shlex
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as pyplot
import pytest
import typer

import ppl_vae.sklearn
from ppl_vae.cli import app

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [p for p in sorted(DOCS.rglob("*.md")) if (DOCS / "notebooks") not in p.parents]
NAMES = [str(page.relative_to(DOCS).with_suffix("")) for page in PAGES]
PROGRAM = typer.main.get_command(app)
BLOCK = re.compile(r"^```(python|bash)\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)
DOCUMENTED = re.compile(r"^\.\. (?:auto|py:)\w+:: (\w+)$", flags=re.MULTILINE)
RUNNING = [name for page, name in zip(PAGES, NAMES, strict=True) if BLOCK.search(page.read_text())]
# Pages whose blocks take a second or two each at smoke size; the others run with the slow tests.
QUICK = ["how_to/arviz", "how_to/counts", "how_to/tables", "how_to/watching", "parts", "questions"]
# Results of functions, whose examples show them too.
SHOWN_BY = {
    "Comparison": "compare",
    "Diagnosis": "diagnose",
    "FitResult": "fit",
    "ProgramCheck": "check_svi",
}


def blocks(name):
    """The language and the text of each block of a page; of bash the words of each line."""
    for language, block in BLOCK.findall((DOCS / f"{name}.md").read_text()):
        if language == "python":
            yield language, compile(block, f"docs/{name}.md", "exec")
        else:
            for line in block.strip().splitlines():
                words = shlex.split(line, comments=True)
                yield language, [word for word in words if not re.match(r"[A-Z_]+=", word)]


def run_page(name, command):
    """Run the blocks of a page in order, in one namespace and one folder."""
    names: dict = {"__name__": "__main__"}
    for language, block in blocks(name):
        if language == "python":
            exec(block, names)
        elif block[:2] == ["ppl-vae", "explore"]:  # which serves until it is interrupted
            assert (Path(block[2]) / "config.json").exists()
        elif block[0] == "ppl-vae" and "DIR" not in block:  # which stands for data not at hand
            code, _, errors = command(*block[1:])
            assert code == 0, errors


@pytest.mark.parametrize("name", RUNNING)
def test_commands_are_understood(name):
    """Python compiles, `ppl-vae` has these options, and the README and the scripts are there."""
    for language, words in blocks(name):
        if language == "python":
            continue
        if words[0] == "ppl-vae":
            if "--config" in words:  # a file that the page writes
                at = words.index("--config")
                del words[at : at + 2]
            with typer.Context(PROGRAM) as context:
                _, command, rest = PROGRAM.resolve_command(context, words[1:])
            command.make_context(words[1], rest).close()
        elif words[:4] == ["python", "-m", "pip", "install"]:
            assert shlex.join(words).replace("'", '"') in (ROOT / "README.md").read_text()
        else:  # a benchmark, which takes minutes
            script = (ROOT / words[1]).read_text()
            assert words[0] == "python"
            assert all(f'"{word}"' in script for word in words if word.startswith("--"))


@pytest.fixture
def closing():
    yield
    pyplot.close("all")


@pytest.mark.parametrize("name", QUICK)
def test_pages_run(name, command, brief, closing):
    run_page(name, command)


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNNING)
def test_pages_run_as_written(name, command, closing):
    run_page(name, command)


def slugs(page):
    """The anchors that headings get, as on GitHub, those of included pages with them."""
    text = page.read_text()
    for included in re.findall(r"^```\{include\} (\S+)", text, flags=re.MULTILINE):
        text += (page.parent / included).read_text()
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", prose, flags=re.MULTILINE)
    kept = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {heading.replace(" ", "-") for heading in kept}


@pytest.mark.parametrize("page", [*PAGES, ROOT / "benchmarks" / "README.md"], ids=str)
def test_links_lead_somewhere(page):
    text = page.read_text()
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        found = page.parent / path if path else page
        if "notebooks/" in path and not path.endswith((".png", ".gif")):
            found = ROOT / "notebooks" / Path(path).name  # the build copies them
        assert found.exists(), target
        assert not anchor or anchor in slugs(found), target


def test_every_page_is_in_a_table_of_contents():
    listed = {DOCS / "index.md"}
    for page in PAGES:
        for block in re.findall(r"```\{toctree\}\n(.*?)```", page.read_text(), flags=re.DOTALL):
            entries = [line for line in block.splitlines() if line and not line.startswith(":")]
            targets = [re.sub(r".*<(.*)>", r"\1", line) for line in entries]
            listed |= {(page.parent / f"{target}.md").resolve() for target in targets}
    assert set(PAGES) <= listed


def test_every_public_name_is_in_the_reference():
    of = {page.stem: DOCUMENTED.findall(page.read_text()) for page in (DOCS / "api").glob("*.md")}
    assert sorted(of.pop("sklearn")) == ppl_vae.sklearn.__all__
    assert sorted(name for names in of.values() for name in names) == ppl_vae.__all__


@pytest.mark.parametrize("name", [name for name in ppl_vae.__all__ if name != "PRESETS"])
def test_every_public_name_has_an_example(name):
    shown = getattr(ppl_vae, SHOWN_BY.get(name, name))
    assert ">>> " in inspect.getdoc(shown)


def test_the_example_of_presets_is_true():
    """It stands on the page, as a mapping has no docstring."""
    found = doctest.testfile(str(DOCS / "api" / "models.md"), module_relative=False)
    assert (found.attempted, found.failed) == (2, 0)


@pytest.mark.slow
def test_the_site_is_built_and_its_links_lead_somewhere(tmp_path):
    """Warnings are errors; and pages as a browser sees them, with the references in docstrings."""
    pytest.importorskip("sphinx", reason="needs: pip install -e '.[docs]'")
    command = [sys.executable, "-m", "sphinx", "-W", "-q", str(DOCS), str(tmp_path)]
    assert subprocess.run(command).returncode == 0
    built = [path.resolve() for path in tmp_path.rglob("*.html") if "_static" not in path.parts]
    pages = {path: path.read_text() for path in built}
    assert len(pages) > len(PAGES)
    ids = {path: set(re.findall(r'\bid="([^"]+)"', text)) for path, text in pages.items()}
    for path, text in pages.items():
        for target in re.findall(r'\b(?:href|src)="([^"]+)"', text):
            if re.match(r"[a-z]+:", target):
                continue
            where, _, anchor = target.partition("#")
            found = (path.parent / where.partition("?")[0]).resolve() if where else path
            assert found.exists(), f"{path.name}: {target}"
            assert not anchor or found not in ids or anchor in ids[found], f"{path.name}: {target}"
