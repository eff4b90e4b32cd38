"""Covariates from columns: how they are coded, and what every command makes of them."""

import csv
import json

import numpy as np
import pandas as pd
import pytest
import torch

from ppl_vae import VAE, Coding, VAEConfig, fit, load_data, log_evidence
from ppl_vae.data import load_splits
from ppl_vae.run import Run


def rows(size=200, seed=0):
    """Two columns whose means depend on an island and on a year."""
    generator = np.random.default_rng(seed)
    island = generator.choice(["Biscoe", "Dream", "Torgersen"], size)
    year = generator.choice([2007, 2008, 2009], size)
    shift = 5.0 * (island == "Dream") + 2.0 * (year - 2008)
    mass = shift + generator.normal(size=size)
    bill = -shift + generator.normal(size=size)
    return [
        {"mass": f"{m:.3f}", "island": i, "bill": f"{b:.3f}", "year": str(y)}
        for m, i, b, y in zip(mass, island, bill, year, strict=True)
    ]


def write(path, table, names=("mass", "island", "bill", "year")):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(table)
    return path


@pytest.fixture
def table(tmp_path):
    return write(tmp_path / "birds.csv", rows())


def test_texts_are_levels_and_numbers_are_standardized(table):
    data = load_data(table, None, context=["island", "year"])
    assert data.feature_names == ("mass", "bill")
    assert [coding.names for coding in data.codings] == [
        ("island=Biscoe", "island=Dream", "island=Torgersen"),
        ("year",),
    ]
    assert data.covariates.shape == (200, 4)
    assert (data.covariates[:, :3].sum(1) == 1).all()
    assert abs(data.covariates[:, 3].mean()) < 1e-5
    assert data.covariates[:, 3].std(correction=0) == pytest.approx(1, abs=1e-5)
    first = rows()[0]
    assert data.context["island"][0] == first["island"]
    assert data.covariates[0, ["Biscoe", "Dream", "Torgersen"].index(first["island"])] == 1


def test_splits_are_coded_alike_and_keep_their_rows(table):
    train, test = load_splits(table, context="island")
    assert train.codings == test.codings
    for part in (train, test, load_data(table, "test", context="island")):
        levels = part.codings[0].levels
        assert [levels[i] for i in part.covariates.argmax(1)] == part.context["island"].tolist()
        assert len(part.covariates) == len(part.x)


def test_another_table_is_coded_as_the_first(table, tmp_path):
    data = load_data(table, None, context=["island", "year"])
    few = write(tmp_path / "few.csv", rows()[:3])
    again = load_data(few, None, context=data.codings)
    torch.testing.assert_close(again.covariates, data.covariates[:3])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"island": ""}, "context 'island' of .* is missing in 1 rows, the first of them row 4"),
        ({"island": "NA"}, "context 'island' of .* is missing in 1 rows"),
        ({"year": ""}, "context 'year' of .* is missing in 1 rows"),
    ],
)
def test_missing_context_is_refused(tmp_path, change, message):
    changed = rows()
    changed[4].update(change)
    with pytest.raises(ValueError, match=message):
        load_data(write(tmp_path / "gaps.csv", changed), context=["island", "year"])


def test_bad_context_is_refused(table, tmp_path):
    for options, message in (
        ({"context": "beak"}, "context='beak' is no column of"),
        ({"context": ["year", "year"]}, "names a column twice"),
        ({"context": "year", "drop": "year"}, "context='year' is also in drop="),
    ):
        with pytest.raises(ValueError, match=message):
            load_data(table, **options)
    same = [{**row, "year": "2007"} for row in rows()]
    with pytest.raises(ValueError, match=r"'year' of .* is 2007.0 in every row"):
        load_data(write(tmp_path / "same.csv", same), context="year", drop="island")
    names = [{**row, "island": f"bird {i}"} for i, row in enumerate(rows())]
    with pytest.raises(ValueError, match="200 different texts in 200 rows"):
        load_data(write(tmp_path / "names.csv", names), context="island", drop="year")
    unknown = [{**rows()[0], "island": "Anvers"}, *rows()[:3]]
    codings = load_data(table, None, context="island", drop="year").codings
    with pytest.raises(ValueError, match="is 'Anvers' in row 0, which the fit had not: it had 'Bi"):
        load_data(write(tmp_path / "new.csv", unknown), None, context=codings, drop="year")
    with pytest.raises(ValueError, match="holds numbers, where the fit had texts"):
        Coding("year", ("a", "b")).encode(np.array([1.0]), "new.csv")
    with pytest.raises(ValueError, match=r"context='size' .* it has 'label'"):
        load_data("digits", context="size")


def test_labels_may_be_context_too(table):
    data = load_data(table, None, label="island", context="island")
    assert data.labels.tolist() == data.context["island"].tolist()


def test_classes_and_factors_are_context():
    digits = load_data("digits", "test", context="label")
    assert digits.covariates.shape == (359, 10)
    np.testing.assert_array_equal(digits.covariates.argmax(1), digits.labels)
    sprites = load_data("sprites", "test", context=["size", "x"])
    assert sprites.covariates.shape == (len(sprites.x), 2)


@pytest.mark.parametrize("split", [False, True])
def test_arrays_beside_the_rows(tmp_path, split):
    x = np.random.default_rng(0).normal(size=(30, 4))
    kind = np.array(["a", "b", "c"] * 10)
    dose = np.arange(30.0)
    path = tmp_path / "cells.npz"
    if split:
        parts = {"train": slice(0, 20), "test": slice(20, 30)}
        arrays = {"x": x, "kind": kind, "dose": dose}
        given = {f"{k}_{p}": a[rows] for k, a in arrays.items() for p, rows in parts.items()}
        np.savez(path, **given)
    else:
        np.savez(path, x=x, kind=kind, dose=dose)
    data = load_data(path, None, context=["kind", "dose"])
    expected = np.column_stack([kind[:, None] == ["a", "b", "c"], (dose - 14.5) / dose.std()])
    np.testing.assert_allclose(data.covariates, expected, rtol=1e-5)
    if not split:
        np.savez(path, x=x, dose=dose[:7])
        with pytest.raises(ValueError, match=r"context dose .* has shape \(7,\)"):
            load_data(path, context="dose")


def test_a_dataset_brings_its_covariates(table):
    train, test = load_splits(table, context=["island", "year"])
    config = VAEConfig.for_data(train, latent_dim=1, hidden=(8,))
    assert config.covariate_dim == 4
    both = []
    for given in ((train,), (train.x, train.covariates)):
        vae = VAE.from_config(config)
        x, *covariates = given
        options = {"covariates": covariates[0]} if covariates else {}
        fit(vae, x, epochs=2, progress=False, **options)
        both.append(log_evidence(vae, test, num_samples=50, progress=False).log_evidence)
    np.testing.assert_array_equal(*both)


@pytest.fixture(scope="module")
def conditional(run_command, tmp_path_factory):
    """A run that is conditional on island and year."""
    folder = tmp_path_factory.mktemp("conditional")
    path = write(folder / "birds.csv", rows(300))
    arguments = (
        *("fit", path, "--context", "island", "--context", "year", "--out", folder / "run"),
        *("--prior", "conditional:hidden=(8,)", "--latent-dim", 2, "--epochs", 20, "--hidden", 16),
        *("--draws", 100),
    )
    code, printed, error = run_command(*arguments)
    assert code == 0, error
    assert "birds.csv: 240 rows to fit to, conditional on island, year\n" in printed
    return folder


def test_the_command_line_says_what_python_says(run_command, conditional):
    """The evidence of test rows is that of the same VAE given the same covariates."""
    run = Run(conditional / "run")
    train, test = load_splits(conditional / "birds.csv", context=["island", "year"])
    assert run.codings == train.codings
    vae = run.vae()
    assert vae.config.covariate_dim == 4
    code, printed, error = run_command("evaluate", conditional / "run", "--draws", 100, "--json")
    assert code == 0, error
    found = json.loads(printed)["log_evidence"]["nats_per_row"]
    options = {"num_samples": 100, "progress": False}
    given = log_evidence(vae, test.x, covariates=test.covariates, **options)
    assert found == pytest.approx(float(given.log_evidence.mean()), abs=1e-4)
    # Islands and years decide the means, so that other ones describe the rows far worse.
    wrong = log_evidence(vae, test.x, covariates=test.covariates.roll(1, 0), **options)
    assert wrong.log_evidence.mean() < given.log_evidence.mean() - 1


def test_encode_takes_columns_by_name(run_command, conditional, tmp_path):
    import xarray as xr

    trees = []
    for i, names in enumerate(
        [("mass", "island", "bill", "year"), ("year", "bill", "island", "mass")]
    ):
        path = write(tmp_path / f"new{i}.csv", rows(20, seed=5), names)
        code, _, error = run_command(
            "encode", conditional / "run", path, "--out", tmp_path / f"new{i}.nc"
        )
        assert code == 0, error
        trees.append(xr.open_datatree(tmp_path / f"new{i}.nc").load())
    assert trees[0]["sample_stats"].equals(trees[1]["sample_stats"])
    # What the draws are given is beside them, by name.
    data = load_data(tmp_path / "new0.csv", None, context=Run(conditional / "run").codings)
    given = trees[0]["constant_data"]["covariates"]
    assert given.covariate.values.tolist() == list(data.covariate_names)
    np.testing.assert_array_equal(given, data.covariates)
    lost = write(tmp_path / "lost.csv", rows(20), ("mass", "bill", "year"))
    code, _, error = run_command("encode", conditional / "run", lost, "--out", tmp_path / "lost.nc")
    assert code == 2
    assert "--context island is no column of" in error
    assert len(error.splitlines()) == 1
    new = write(tmp_path / "level.csv", [{**row, "island": "Anvers"} for row in rows(20)])
    code, _, error = run_command("encode", conditional / "run", new, "--out", tmp_path / "level.nc")
    assert code == 2
    assert "'Anvers' in row 0" in error


def test_draws_are_conditional(run_command, conditional, tmp_path):
    out = tmp_path / "draws.npz"
    arguments = ("sample", conditional / "run", "--num-samples", 200, "--out", out)
    code, _, error = run_command(*arguments)
    assert code == 0, error
    mixed = np.load(out)
    assert mixed["x"].shape == (200, 2)
    assert len(np.unique(mixed["covariates"], axis=0)) > 4
    means = {}
    for island in ("Dream", "Biscoe"):
        given = ("--context", f"island={island}", "--context", "year=2008", "--force")
        code, _, error = run_command(*arguments, *given)
        assert code == 0, error
        means[island] = np.load(out)["x"][:, 0].mean()
    assert means["Dream"] - means["Biscoe"] > 2.5  # 5 in truth, of 200 draws of sd 1
    for wrong, message in (
        (("--context", "island=Dream"), "says nothing of year"),
        (("--context", "beak=3"), "with a column of the fit: island, year"),
        (("--context", "island=Anvers", "--context", "year=2008"), "'Anvers' in row 0"),
        (("--context", "island=Dream", "--context", "year=soon"), "year is a number"),
    ):
        code, _, error = run_command(*arguments, *wrong, "--force")
        assert code == 2
        assert message in error


def test_pictures_and_report_of_a_conditional_run(run_command, conditional):
    code, _, error = run_command("pictures", conditional / "run")
    assert code == 0, error
    assert (conditional / "run" / "traversals.png").stat().st_size > 0
    code, _, error = run_command("report", conditional / "run")
    assert code == 0, error
    assert "conditional on island, year" in (conditional / "run" / "report.html").read_text()


def test_diagnose_a_conditional_run(run_command, conditional):
    import xarray as xr

    code, printed, error = run_command("diagnose", conditional / "run", "--draws", 60)
    assert code == 0, error
    assert "Which of 60 rows can be believed" in printed
    found = xr.open_datatree(conditional / "run" / "diagnosis.nc").load()
    vae, test = Run(conditional / "run").vae(), Run(conditional / "run").splits()[1]
    exact = log_evidence(vae, test, num_samples=4000, seed=5, progress=False)
    difference = found["rows"].log_evidence.values - exact.log_evidence.values
    assert abs(difference.mean()) < 0.1  # with another row's covariates it is off by more than 1


def test_resume_a_conditional_run(run_command, conditional, tmp_path, monkeypatch):
    """It ends as it would have in one piece, and goes on with no other context."""
    import ppl_vae.run.afterwards as module

    fit_it = ("fit", conditional / "birds.csv", "--out", tmp_path / "run", "--latent-dim", 2)
    fit_it = (*fit_it, "--epochs", 4, "--hidden", 8, "--draws", 50, "--quiet")
    context = ("--context", "island", "--context", "year")

    def interrupted(*args, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "evaluate", interrupted)
        assert run_command(*fit_it, *context)[0] == 130
    swapped = ("--context", "year", "--context", "island")
    code, _, error = run_command(*fit_it, *swapped, "--resume")
    assert code == 2
    assert "is of another fit: " in error
    assert run_command(*fit_it, *context, "--resume") == (0, "", "")
    resumed = Run(tmp_path / "run")
    assert [coding.name for coding in resumed.codings] == ["island", "year"]
    weights = resumed.vae().state_dict()
    assert run_command(*fit_it, *context, "--force") == (0, "", "")
    for name, weight in resumed.vae().state_dict().items():
        assert weight.equal(weights[name])


def test_a_changed_context_is_noticed(run_command, conditional, tmp_path):
    path = conditional / "birds.csv"
    before = path.read_text()
    lines = before.splitlines()
    lines[5] = lines[5].replace("Dream", "Torgersen").replace("Biscoe", "Torgersen")
    lines[6] = lines[6].replace("Torgersen", "Dream").replace("Biscoe", "Dream")
    assert lines != before.splitlines()
    path.write_text("\n".join(lines) + "\n")
    try:
        code, _, error = run_command("evaluate", conditional / "run")
    finally:
        path.write_text(before)
    assert code == 2
    assert "was changed after the fit" in error


def test_both_parts_of_a_split_file_are_joined_with_all_beside_them(tmp_path):
    x, kind = np.random.default_rng(0).normal(size=(30, 4)), np.array(["a", "b", "c"] * 10)
    size = np.arange(30.0)[:, None]
    parts = {"train": slice(0, 15), "test": slice(15, 30)}
    arrays = {
        f"{k}_{p}": a[rows] for k, a in {"x": x, "kind": kind}.items() for p, rows in parts.items()
    }
    np.savez(tmp_path / "cells.npz", factors=size[:15], **arrays)
    data = load_data(tmp_path / "cells.npz", None, context="kind")
    assert data.context["kind"].tolist() == kind.tolist()
    assert len(data.factors["factor 0"]) == len(data.x)


def test_a_table_with_columns_called_x_and_covariates_is_no_dataset():
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(20, 2)), columns=["x", "covariates"])
    assert VAEConfig.for_data(frame).covariate_dim == 0
