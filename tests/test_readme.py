"""What the README and CONTRIBUTING show runs as it is written."""

import doctest
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from ppl_vae.components.decoders import DECODERS
from ppl_vae.components.encoders import ENCODERS
from ppl_vae.components.networks import NETWORKS
from ppl_vae.components.priors import PRIORS
from ppl_vae.inference.objectives import OBJECTIVES

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_the_two_commands_are_there():
    assert "\npython -m pip install -e . && ppl-vae fit\n" in README
    assert '\npython -m pip install -e ".[test]" && pytest\n' in README


def test_its_python_runs(capsys, brief):
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert blocks
    names: dict = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    assert "Which of 100 rows can be believed" in capsys.readouterr().out


def test_it_is_a_front_page():
    """What it does that nobody else does is said before anything else, and it ends soon."""
    title, first, *_ = README.split("\n\n")
    assert title == "# ppl_vae"
    assert first.startswith("**Which rows' posteriors can be believed?**")
    assert "row by row" in first.replace("*", "")
    assert len(README.splitlines()) < 120
    assert README.count("![") == 1


def test_its_commands_run_on_a_table_of_ones_own(command, tmp_path, brief):
    """At the size of a smoke test; `fit` and `diagnose` of the digits are in test_cli.py."""
    rng = np.random.default_rng(0)
    cells = [f"{value:.3f}" if i % 5 else "" for i, value in enumerate(rng.normal(size=60))]
    lines = [f"{i},{cells[i]},{rng.gamma(2):.3f},{'yn'[i % 2]}" for i in range(60)]
    (tmp_path / "table.csv").write_text("\n".join(["id,a,b,outcome", *lines]))
    bash = "".join(re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL))
    typed = [line for line in bash.splitlines() if line.startswith("ppl-vae")]
    assert [line for line in typed if "digits" in line] == ["ppl-vae diagnose runs/digits"]
    for line in typed:
        if "digits" not in line:
            code, _, errors = command(*shlex.split(line)[1:])
            assert code == 0, errors
    assert (tmp_path / "runs" / "table" / "report.html").exists()
    assert ",," not in (tmp_path / "filled.csv").read_text()


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)#:]+)\)", README))
def test_its_links_lead_somewhere(target):
    assert (Path(__file__).parents[1] / target).exists()


def test_a_part_of_each_kind():
    """And the registries are as before, so that other tests do not meet these parts."""
    registries = (DECODERS, ENCODERS, NETWORKS, OBJECTIVES, PRIORS)
    before = [dict(registry._classes) for registry in registries]
    try:
        found = doctest.testfile(
            str(Path(__file__).parents[1] / "CONTRIBUTING.md"), module_relative=False
        )
    finally:
        for registry, classes in zip(registries, before, strict=True):
            registry._classes = classes
    assert found.attempted > 15
    assert found.failed == 0
