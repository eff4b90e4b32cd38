"""What the README and CONTRIBUTING show runs as it is written."""

import doctest
import re
from pathlib import Path

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


def test_its_python_runs(capsys):
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(blocks) >= 3
    names: dict = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    assert "z[0, 0]" in capsys.readouterr().out


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
