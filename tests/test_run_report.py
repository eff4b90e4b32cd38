"""The report: one file that needs nothing else."""

import re

import pytest

from ppl_vae.run import Recipe, make_run
from ppl_vae.run.report import write_report


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "digits"
    recipe = Recipe(choices={"hidden": (16,)}, epochs=2, num_samples=50, device="cpu")
    make_run(recipe, folder, force=False, resume=False, progress=False)
    return folder


def test_report_is_self_contained_and_tells_the_story(run):
    page = write_report(run).read_text()
    for heading in ("Data", "Model", "Fit", "How well", "Latents", "Verdict", "Settings"):
        assert f"<h2>{heading}" in page
    assert page.count("data:image/png;base64,") == 4
    assert not re.search(r"(src|href)=['\"](?!data:)", page)
    assert "<script" not in page
    assert "ppl-vae diagnose" in page


def test_report_has_the_verdict_once_there_is_one(run):
    (run / "diagnosis.txt").write_text("Which of 3 rows can be believed <&>\n")
    for name in ("diagnosis.png", "calibration.png"):
        (run / name).write_bytes((run / "losses.png").read_bytes())
    page = write_report(run).read_text()
    assert "believed &lt;&amp;&gt;" in page
    assert page.count("data:image/png;base64,") == 6


def test_an_incomplete_run_is_an_error_and_leaves_no_report(run, tmp_path):
    (tmp_path / "config.json").write_text((run / "config.json").read_text())
    with pytest.raises(FileNotFoundError, match=r"metrics\.json"):
        write_report(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["config.json"]
