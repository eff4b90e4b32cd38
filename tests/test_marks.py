"""Marks of missing cells, such as -999: said where nobody announced them, and kept to if so."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from ppl_vae import load_data
from ppl_vae.cli import app
from ppl_vae.data.dataset import Dataset
from ppl_vae.data.marks import warn_of_marks

RNG = np.random.default_rng(0)
AROUND = RNG.normal(20, 5, 200)
AGES = RNG.integers(0, 90, 200).astype(float)
GRADES = RNG.integers(1, 6, 200).astype(float)


def column(values: np.ndarray) -> Dataset:
    return Dataset("a", torch.from_numpy(values)[:, None], None, None, "a.csv")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("values", "marks", "said"),
    [
        (AROUND, [-999], "-999 in 1 cell of column '0', far from all other values"),
        (AROUND, [-999, -999, -998], "-999 in 2 cells of column '0', -998 in 1 cell of column"),
        (AROUND, [-999, 999], "999 in 1 cell of column"),
        (AROUND, [999.9], "999.9 in 1 cell"),
        (AROUND, [1e20], r"1e\+20 in 1 cell.*missing=\['1e\+20'\] \(--missing 1e\+20\)"),
        (AROUND, [-32768], "-32768 in"),
        (AROUND + 1000, [0, 0, 0], "0 in 3 cells"),
        (AGES, [-9], "-9 in"),
        (AGES, [-99], "-99 in"),
        (GRADES, [99, 99], "99 in 2 cells"),
        (np.exp(AROUND), [-999], "-999 in 1 cell"),
    ],
)
def test_a_mark_that_nobody_announced_is_said(values, marks, said, dtype):
    data = column(np.concatenate([values, marks]).astype(dtype))
    with pytest.warns(UserWarning, match=said):
        warn_of_marks(data)


@pytest.mark.parametrize(
    "values",
    [
        AROUND,
        AGES,
        GRADES,
        np.r_[AROUND, 500.0],
        np.r_[GRADES, 9.0, 9.0],
        np.r_[RNG.poisson(3, 200), 99.0],
        np.r_[GRADES, -1.0],
        RNG.standard_cauchy(2000),
        np.exp(AROUND),
        np.array([0.0, 1.0, 1.0]),
        np.array([0.0, 1e6, np.nan]),
        np.full(5, np.nan),
        np.full(5, -999.0),
    ],
)
def test_other_values_are_left_alone(values):
    assert warn_of_marks(column(values)) is not None


def save(path: Path, values: np.ndarray) -> Path:
    frame = pd.DataFrame(values, columns=list("abc"))
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    elif path.suffix == ".parquet":
        frame.to_parquet(path)
    elif path.suffix == ".npz":
        np.savez(path, x_train=values, x_test=values)
    else:
        np.save(path, values)
    return path


@pytest.mark.parametrize("name", ["a.csv", "a.parquet", "a.npy", "a.npz"])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i8"])
def test_a_mark_is_said_and_kept_to_wherever_it_stands(tmp_path: Path, name: str, dtype: str):
    values = np.rint(RNG.normal(0, 20, (50, 3))).astype(dtype)
    values[3, 1] = -999
    path = save(tmp_path / name, values)
    with pytest.warns(UserWarning, match=r"-999 in 1 cell of column '[1b]'.*--missing -999"):
        load_data(path)
    x = load_data(path, None, missing="-999").x
    assert x.isnan().sum() == (2 if name == "a.npz" else 1)
    assert x[3, 1].isnan()


def test_a_mark_in_single_precision_is_known(tmp_path: Path):
    frame = pd.DataFrame({"a": np.float32([1.5, 2.5, -999.9]), "b": np.float32([1, 2, 3])})
    assert load_data(frame, None, missing="-999.9").x.isnan().sum() == 1


def test_marks_of_what_rows_are_conditional_on_are_said(tmp_path: Path):
    np.savez(tmp_path / "a.npz", x=RNG.normal(size=(50, 3)), c=np.r_[RNG.normal(size=49), -999])
    with pytest.warns(UserWarning, match="-999 in 1 cell of context 'c'"):
        load_data(tmp_path / "a.npz", None, context="c")
    with pytest.raises(ValueError, match=r"context 'c' of .* is missing in 1 rows"):
        load_data(tmp_path / "a.npz", None, context="c", missing="-999")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"missing": "x"}, r"missing='x' .* is no number"),
        ({"header": True}, "header and thousands are of tables in text"),
        ({"thousands": ","}, "header and thousands are of tables in text"),
    ],
)
def test_options_that_an_array_has_no_use_for_are_refused(tmp_path: Path, options, said):
    np.save(tmp_path / "a.npy", np.ones((3, 2)))
    with pytest.raises(ValueError, match=said):
        load_data(tmp_path / "a.npy", **options)


def test_images_have_no_missing_entries(tmp_path: Path):
    np.save(tmp_path / "a.npy", RNG.integers(0, 256, (9, 4, 4), dtype=np.uint8))
    with pytest.raises(ValueError, match="intensities in bytes"):
        load_data(tmp_path / "a.npy", missing="0")
    with pytest.raises(ValueError, match="'digits' holds images"):
        load_data("digits", missing="0")


def test_the_command_takes_it(tmp_path: Path):
    values = RNG.normal(size=(50, 3))
    values[:2, 0] = -999
    path = save(tmp_path / "a.csv", values)
    with pytest.warns(UserWarning, match="-999 in 2 cells"):
        done = CliRunner().invoke(app, ["fit", str(path), "--dry-run"])
    assert done.exit_code == 0
    done = CliRunner().invoke(app, ["fit", str(path), "--dry-run", "--missing", "-999"])
    assert done.exit_code == 0


def test_precision_is_judged_without_marks(tmp_path: Path):
    seconds = np.r_[1.7e9 + np.arange(100.0), -999]
    np.save(tmp_path / "a.npy", np.c_[seconds, RNG.normal(size=101)])
    with (
        pytest.warns(UserWarning, match="-999 in 1 cell"),
        pytest.warns(UserWarning, match="single precision merges their values: '0'"),
    ):
        x = load_data(tmp_path / "a.npy", None).x
    assert len(x[:, 0].unique()) == 101


@pytest.mark.parametrize("given", [2, 3])
def test_numbered_columns_one_of_which_was_named_have_a_header(tmp_path: Path, given: int):
    """Of just two numbers, 0 and 1, it is asked: they may be values."""
    frame = pd.DataFrame(RNG.normal(size=(20, given))).assign(kind=["u", "v"] * 10)
    frame.to_csv(tmp_path / "a.csv", index=False)
    if given == 2:
        with pytest.raises(ValueError, match="may name the columns by numbers or be a row"):
            load_data(tmp_path / "a.csv", None)
    data = load_data(tmp_path / "a.csv", None, header=True if given == 2 else None)
    assert data.feature_names == (*map(str, range(given)), "kind")
    assert data.x.shape == (20, given + 1)


@pytest.mark.parametrize("text", ["0,1,u\n1,0,v\n2,1,u", "0,1,Ann\n1,0,Bob\n2,1,Cy"])
def test_rows_that_begin_with_0_and_1_are_rows(tmp_path: Path, text: str):
    (tmp_path / "a.csv").write_text(text)
    assert len(load_data(tmp_path / "a.csv", None, label=-1).x) == 3
