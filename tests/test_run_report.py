"""The report: one file that needs nothing else."""

import re
import shutil

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
    for heading in (
        *("Data", "Model", "Fit", "How well", "Latents", "Verdict", "What to do next"),
        *("What the words mean", "Settings"),
    ):
        assert f"<h2>{heading}" in page
    assert page.count("data:image/png;base64,") == 3
    assert not re.search(r"(src|href)=['\"](?!data:|#)", page)
    assert "<script" not in page
    assert f"ppl-vae diagnose {run}" in page
    assert f"ppl-vae pictures {run}" in page


def test_links_and_lists_of_a_report_lead_somewhere(run):
    page = write_report(run).read_text()
    for target in re.findall(r"(?:href='#|aria-labelledby=')([^']+)'", page):
        assert f"id='{target}'" in page
    assert page.count("<li>") == page.count("</li>")
    assert all(term in page for term in ("<dt>k-hat</dt>", "<dt>ELBO</dt>"))
    assert "prefers-color-scheme: dark" in page


def test_the_map_holds_the_test_rows_and_their_labels(run):
    page = write_report(run).read_text()
    assert len(re.findall(r"<use href='#m\d' x=", page)) == 359
    assert len(set(re.findall(r"<li><svg.*?href='#(m\d)' class='(label\d)'", page))) == 10
    assert "by-khat' checked" not in page


def test_pictures_are_said(run):
    said = re.findall(r"<img alt='([^']*)'", write_report(run).read_text())
    assert len(said) == 3
    assert re.match(r"The ELBO from epoch 1 to epoch 2: training, -[\d.]+ nats to -[\d.]+", said[0])
    assert all(len(text) > 40 for text in said)


def test_a_run_without_a_map_shows_the_picture_of_it(run, tmp_path):
    old = tmp_path / "old"
    shutil.copytree(run, old)
    (old / "map.nc").write_bytes(b"no netCDF")
    page = write_report(old).read_text()
    assert "Test rows as points" in page
    (old / "map.nc").unlink()
    assert write_report(old).read_text() == page


def test_report_has_the_verdict_once_there_is_one(run):
    (run / "diagnosis.txt").write_text(
        "Which of 3 rows can be believed <&>:\n"
        "     as it is       2   67%  draws from the encoder can be used as they are\n"
        "          not       1   33%  only NUTS will do\n\n"
        "Gaps: none <&>.\n\n"
        "What would help, and what it wins in nats per row with all else as it is:\n"
        "  >= 1.25 +- 0.10  a prior that is learned (--prior flow)\n"
    )
    for name in ("diagnosis.png", "calibration.png"):
        (run / name).write_bytes((run / "losses.png").read_bytes())
    page = write_report(run).read_text()
    assert "believed &lt;&amp;&gt;" in page
    assert "<strong>67&nbsp;%</strong> of them can be used" in page
    assert "<strong>as it is: 2 rows, 67&nbsp;%</strong>" in page
    assert "<strong>Gaps:</strong> none &lt;&amp;&gt;." in page
    assert page.count("a prior that is learned (--prior flow)") == 2  # found, and to be done
    assert "refine(vae, x, method='nuts')" in page
    assert page.count("data:image/png;base64,") == 5


def test_an_incomplete_run_is_an_error_and_leaves_no_report(run, tmp_path):
    (tmp_path / "config.json").write_text((run / "config.json").read_text())
    with pytest.raises(FileNotFoundError, match=r"metrics\.json"):
        write_report(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["config.json"]
