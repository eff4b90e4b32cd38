"""`ppl-vae watch` says when a fit no longer describes new rows, and `fit --continue` goes on."""

import json
from unittest import mock

import numpy as np
import pytest
import torch

from ppl_vae import VAE
from ppl_vae.run import Run, making, write_report

FIT = ["--epochs", "2", "--hidden", "8", "--draws", "30", "--quiet"]


def table(path, rows, seed, columns=("height", "width", "kind"), scale=1.0):
    rng = np.random.default_rng(seed)
    kind = rng.integers(2, size=rows)
    cells = {
        "height": 100 + 10 * rng.normal(scale=scale, size=rows) + 20 * kind,
        "width": rng.normal(scale=scale, size=rows),
        "kind": np.array(["ash", "oak"])[kind],
    }
    lines = [",".join(str(cells[name][i]) for name in columns) for i in range(rows)]
    path.write_text("\n".join([",".join(columns), *lines]) + "\n")


@pytest.fixture(scope="module")
def trees(tmp_path_factory, run_command):
    """A run that is conditional on a column, with nothing made after the fit."""
    folder = tmp_path_factory.mktemp("trees")
    table(folder / "trees.csv", 160, seed=0)
    with mock.patch.object(making, "afterwards", return_value=()):
        fit = ["fit", folder / "trees.csv", "--context", "kind", "--latent-dim", "2"]
        assert run_command(*fit, *FIT, "--out", folder / "run")[0] == 0
    return folder


@pytest.fixture
def fitted(trees, monkeypatch, tmp_path, run_command):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(making, "afterwards", lambda *_: ())
    return lambda *arguments: run_command("fit", *arguments, "--continue", trees / "run")


def weights(folder):
    return VAE.load(folder / "vae.safetensors").state_dict()


def test_a_fit_goes_on_with_new_rows_as_they_were_read_before(fitted, trees, tmp_path):
    """Columns in another order, and levels in other parts; at no learning rate nothing changes."""
    table(tmp_path / "more.csv", 90, 1, ("kind", "width", "height"))
    still = ["--learning-rate", "1e-30", "--average", "0.1"]
    assert fitted("more.csv", *still, "--quiet", "--out", "still") == (0, "", "")
    for name, value in weights(trees / "run").items():
        torch.testing.assert_close(weights(tmp_path / "still")[name], value)
    before, after = Run(trees / "run"), Run(tmp_path / "still")
    assert after.settings["continues"] == str((trees / "run").resolve())
    assert (after.codings, after.columns) == (before.codings, before.columns)
    assert after.settings["features"] == ["height", "width"]
    given = {"epochs": 2, "average": 0.1, "learning_rate": 1e-30}
    assert after.settings["fit"].items() >= given.items()
    train, test = after.splits()  # by fingerprints those of the fit
    assert (len(train.x), len(test.x)) == (72, 18)
    assert train.feature_names == ("height", "width")
    after_all = Run(trees / "run").splits()[0].covariates
    assert after_all.unique(dim=0).tolist() == train.covariates.unique(dim=0).tolist()
    assert fitted("more.csv", "--quiet", "--out", "moved")[0] == 0
    moved = weights(tmp_path / "moved")
    assert any((moved[name] != value).any() for name, value in weights(trees / "run").items())


def test_a_fit_goes_on_with_its_own_rows_for_more_epochs(fitted, trees, tmp_path):
    assert fitted("--epochs", "3", "--quiet") == (0, "", "")
    run = Run(tmp_path / "runs" / "run")
    assert run.settings["data"]["name_or_path"] == str(trees / "trees.csv")
    assert run.settings["fingerprints"] == Run(trees / "run").settings["fingerprints"]
    assert json.loads((run.folder / "metrics.json").read_text())["fit"]["epochs"] == 3
    assert f"It went on with the VAE in {trees}" in write_report(run.folder).read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--latent-dim", "3"], "--latent-dim came with --continue"),
        (["--preset", "aevb", "--hidden", "9"], "--hidden and --preset came with --continue"),
        (["--context", "kind"], "--context came with --continue, which reads columns as"),
        (["other.csv"], "has no column 'height' and has 'depth', which the fit had not"),
        (["levels.csv"], "context 'kind' of"),
    ],
)
def test_what_does_not_go_on_is_refused(fitted, tmp_path, arguments, message):
    table(tmp_path / "trees.csv", 40, seed=2)
    for name, old, new in (("other", "height", "depth"), ("levels", "oak", "elm")):
        (tmp_path / f"{name}.csv").write_text(
            (tmp_path / "trees.csv").read_text().replace(old, new)
        )
    code, _, error = fitted(*arguments)
    assert (code, error.count("\n")) == (2, 1)
    assert message in error
    assert not list(tmp_path.glob("runs/*"))


def test_only_a_run_goes_on(run_command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, error = run_command("fit", "--continue", "nowhere")
    assert code == 2
    assert error.startswith("ppl-vae: RUN is 'nowhere', which is no run folder")


def test_new_rows_are_watched(trees, run_command, tmp_path):
    """One batch in 100 is an alarm by chance."""
    table(tmp_path / "same.csv", 120, seed=4)
    table(tmp_path / "wider.csv", 120, seed=5, scale=3.0)
    watch = ["watch", trees / "run"]
    options = ["--size", "60", "--draws", "50"]
    code, out, error = run_command(*watch, tmp_path / "same.csv", *options)
    assert (code, error) == (0, "")
    assert "No alarm: these rows are such as the run was judged by." in out
    code, out, _ = run_command(*watch, tmp_path / "wider.csv", *options)
    assert code == 0
    assert "log p(x) is lower" in out
    assert f"The first alarm is at row 0. To go on with the fit: ppl-vae fit {tmp_path}" in out
    found = json.loads(run_command(*watch, tmp_path / "wider.csv", *options, "--json")[1])
    assert (found["alarm"], found["rate"]) == (True, 0.01)
    assert [batch["first"] for batch in found["batches"]] == [0, 60]
    code, _, error = run_command(*watch, tmp_path / "same.csv", "--rate", "2")
    assert (code, error.count("\n")) == (2, 1)
    assert "rate is 2.0; pass a probability" in error
