"""What the README shows runs as it is written."""

import re
from pathlib import Path

import pytest

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
