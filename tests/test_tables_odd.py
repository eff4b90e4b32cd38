"""Odd and broken tables: each is read right, or refused in one sentence that says what to do."""

import sys
import warnings

import numpy as np
import pandas as pd
import pytest

from ppl_vae import load_data
from ppl_vae.data import ColumnKind

nan = float("nan")


def days(date):
    return float((np.datetime64(date) - np.datetime64("1970-01-01")) / np.timedelta64(1, "D"))


# The text, options, the expected kinds (None: plain numbers), and the cells.
READ = {
    "text becomes levels": (
        "sex,mass\nmale,1.5\nfemale,2.5\n,3.5\nmale,4.5\nfemale,1\n",
        {},
        [("binary", ("female", "male")), ("real", None)],
        [[1, 1.5], [0, 2.5], [nan, 3.5], [1, 4.5], [0, 1]],
    ),
    "levels hold separators, quotes and newlines": (
        'a,b\n"x, ""y""",1\n"u\nv",2\nw,3\n"u\nv",4\n"x, ""y""",5\nw,6\n',
        {},
        [("categorical", ("u\nv", "w", 'x, "y"')), ("real", None)],
        [[2, 1], [0, 2], [1, 3], [0, 4], [2, 5], [1, 6]],
    ),
    "semicolons, decimal commas, a mark before all and spaces around levels": (
        "\ufefftype; größe\n rot ;1,5\n blau;2,25\nrot;?\nblau ;3,0\n",
        {},
        [("binary", ("blau", "rot")), ("real", None)],
        [[1, 1.5], [0, 2.25], [1, nan], [0, 3]],
    ),
    "true and false beside numbers": (
        "a,b\n1.5,TRUE\n2,false\n3,\n",
        {},
        [("real", None), ("binary", ("false", "true"))],
        [[1.5, 1], [2, 0], [3, nan]],
    ),
    "true and false alone stay bits": ("a,b\n1,true\n0,false\n", {}, None, [[1, 1], [0, 0]]),
    "dates": (
        "day,b\n2021-03-04,1\n2021-03-05,2\n,3\n",
        {},
        [("real", None), ("real", None)],
        [[days("2021-03-04"), 1], [days("2021-03-05"), 2], [nan, 3]],
    ),
    "dates between points": (
        "day;b\n4.3.2021;1,5\n05.03.2021;2,5\n",
        {},
        [("real", None), ("real", None)],
        [[days("2021-03-04"), 1.5], [days("2021-03-05"), 2.5]],
    ),
    "dates with the month first, as one cell shows": (
        "day,b\n3/4/2021,1\n3/25/2021,2\n",
        {},
        [("real", None), ("real", None)],
        [[days("2021-03-04"), 1], [days("2021-03-25"), 2]],
    ),
    "days of other centuries": (
        "day,b\n1066-10-14,1\n9999-12-31,2\n2021-03-04,3\n",
        {},
        [("real", None), ("real", None)],
        [[days("1066-10-14"), 1], [days("9999-12-31"), 2], [days("2021-03-04"), 3]],
    ),
    "times in a zone": (
        "t,b\n2021-03-04T12:00:00Z,1\n2021-03-04 18:00+06:00,2\n",
        {},
        [("real", None), ("real", None)],
        [[days("2021-03-04") + 0.5, 1], [days("2021-03-04") + 0.5, 2]],
    ),
    "no header, since its cells recur below": (
        "red,small\nblue,small\nred,large\nblue,large\nred,small\n",
        {},
        [("binary", ("blue", "red")), ("binary", ("large", "small"))],
        [[1, 1], [0, 1], [1, 0], [0, 0], [1, 1]],
    ),
    "a first cell that a spreadsheet could not compute is missing, and no comment": (
        "a,b\n#N/A,1\n2,3\n",
        {},
        None,
        [[nan, 1], [2, 3]],
    ),
    "grades, as told": (
        "g,b\n1,1.5\n3,2\n1,\n?,4\n",
        {"column": {"g": "ordinal"}},
        [("ordinal", ("1", "2", "3")), ("real", None)],
        [[0, 1.5], [2, 2], [0, nan], [nan, 4]],
    ),
    "codes, as told": (
        "g,b\n10,1\n2,0\n10,1\n2,1\n",
        {"column": {"g": "categorical"}},
        [("categorical", ("2", "10")), ("binary", ("0", "1"))],
        [[1, 1], [0, 0], [1, 1], [0, 1]],
    ),
    "levels in order, as told": (
        "s,b\nlow,1.5\nhigh,2\nmid,3\nlow,4\n",
        {"column": {"s": "ordinal:low,mid,high"}},
        [("ordinal", ("low", "mid", "high")), ("real", None)],
        [[0, 1.5], [2, 2], [1, 3], [0, 4]],
    ),
    "levels with decimal commas, as told": (
        "g;b\n1,5;1\n2;0\n1,5;1\n",
        {"column": {"g": "categorical"}},
        [("categorical", ("1.5", "2")), ("binary", ("0", "1"))],
        [[0, 1], [1, 0], [0, 1]],
    ),
    "truth values are numbers, as told": (
        "g,b\ntrue,1.5\nFalse,2\n",
        {"column": {"g": "real"}},
        [("real", None), ("real", None)],
        [[1, 1.5], [0, 2]],
    ),
    "postal codes keep their zeros, as told": (
        "zip,b\n01234,1.5\n501,2\n01234,3\n",
        {"column": {"zip": "categorical"}},
        [("categorical", ("01234", "501")), ("real", None)],
        [[0, 1.5], [1, 2], [0, 3]],
    ),
    "counts, as told": (
        "n,b\n3,1.5\n0,2\n",
        {"column": {"n": "count"}},
        [("count", None), ("real", None)],
        [[3, 1.5], [0, 2]],
    ),
}


@pytest.mark.parametrize(("text", "options", "kinds", "cells"), READ.values(), ids=READ)
def test_read(tmp_path, text, options, kinds, cells):
    path = tmp_path / "t.csv"
    path.write_text(text)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = load_data(path, None, **options)
    np.testing.assert_allclose(data.x, cells, rtol=1e-6)
    assert kinds == (data.columns and [(kind.kind, kind.levels) for kind in data.columns])
    for kind, name in zip(data.columns or (), data.feature_names, strict=False):
        assert kind.name == name
        assert kind.why


TEN = "".join(f"{i}.5,{'xy'[i % 2]}\n" for i in range(10))
REFUSED = {
    "names of rows": (
        "name,b\n" + "".join(f"Mr {chr(65 + i)},{i}\n" for i in range(10)),
        {},
        r"text in columns 'name': 'Mr A' in line 2 .* one of 10 different .*drop=\[\.\.\.\]",
    ),
    "a stray text": ("a,b\n" + TEN + "oops,x\n", {}, "'oops' in line 12 .*among numbers.*missing="),
    "below the limit of detection": ("a,b\n1.5,2\n<0.5,3\n", {}, "'<0.5' in line 3 .*among num"),
    "units": (
        "w,b\n" + "".join(f"{i % 3} kg,{i}\n" for i in range(9)),
        {},
        "'0 kg' in line 2 .*number with its unit",
    ),
    "percentages": (
        "w,b\n" + "".join(f"{i % 3}%,{i}\n" for i in range(9)),
        {},
        "'0%' in line 2 .*number with its unit",
    ),
    "currencies": (
        "w;b\n" + "".join(f"1.23{i},50 €;{i}\n" for i in range(9)),
        {},
        "'1.230,50 €' in line 2 .*number with its unit",
    ),
    "degrees": (
        "w,b\n" + "".join(f"{i % 3} °C,{i}\n" for i in range(9)),
        {},
        "'0 °C' in line 2 .*number with its unit",
    ),
    "one level": ("a,b\n1,x\n2,x\n3,\n", {}, "'x' in line 2 .*is its only value"),
    "a day or a month": (
        "d,b\n3/4/2021,1\n5/6/2021,2\n",
        {},
        "'3/4/2021' .*day or the month first",
    ),
    "dates in two ways": (
        "d,b\n2021-03-04,1\n4.3.2021,2\n2021-03-04,1\n4.3.2021,2\n",
        {},
        "'2021-03-04' in line 2 .*others are written in another way",
    ),
    "no such day": (
        "d,b\n2021-02-28,1\n2021-02-30,2\n",
        {},
        "'2021-02-30' in line 3 .*no date of the calendar.*--missing",
    ),
    "a header in the middle": ("a,b\n1,2\n3,4\na,b\n5,6\n", {}, "line 4 of .* repeats the header"),
    "an order that is not known": (
        "s,b\nlow,1\nhigh,2\nmid,3\nlow,4\n",
        {"column": {"s": "ordinal"}},
        "'low' in line 2 .*name the levels in order",
    ),
    "three levels for binary": (
        "s,b\n1,1\n2,2\n3,3\n",
        {"column": {"s": "binary"}},
        "'1' .*one of 3 levels, where binary takes 2",
    ),
    "a level that was not told": (
        "s,b\nlow,1\nhigh,2\nlow,4\n",
        {"column": {"s": "ordinal:low,mid"}},
        "'high' in line 3 .*none of the levels of this column, 'low', 'mid'.*--unseen missing",
    ),
    "a negative count": (
        "n,b\n3,1\n-1,2\n",
        {"column": {"n": "count"}},
        "'-1' in line 3 .*not among whole numbers of at least 0",
    ),
    "a share of 1.5": (
        "n,b\n0.5,1\n1.5,2\n",
        {"column": {"n": "proportion"}},
        "'1.5' in line 3 .*not among numbers from 0 to 1",
    ),
    "text that is told to be numbers": (
        "n,b\nx,1\ny,2\nx,3\n",
        {"column": {"n": "positive"}},
        "'x' in line 2 .*text where positive takes numbers",
    ),
    "no such column": ("a,b\n1,2\n", {"column": {"c": "real"}}, "column='c' .*which has 'a', 'b'"),
    "a column left out": (
        "a,b\n1,2\n",
        {"column": {"b": "real"}, "drop": "b"},
        "column='b' .*which has 'a'",
    ),
    "no such kind": (
        "a,b\n1,2\n",
        {"column": {"a": "integer"}},
        "'a' is told to be 'integer' .*accepted are binary, categorical",
    ),
    "levels of numbers": (
        "a,b\n1,2\n",
        {"column": {"a": "real:1,2"}},
        "'a' is told to be 'real:1,2' .*accepted are",
    ),
    "no such way": (
        "a,b\n1,2\n",
        {"unseen": "keep"},
        "unseen is 'keep' .*accepted are",
    ),
    "kinds of an image set": (None, {"column": {"a": "real"}}, "choose columns of a table"),
}


@pytest.mark.parametrize(("text", "options", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(tmp_path, text, options, message):
    path = "digits"
    if text is not None:
        path = tmp_path / "t.csv"
        path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        load_data(path, None, **options)
    assert "\n" not in str(caught.value)


def test_numbers_stay_numbers(tmp_path):
    """A table of numbers is what it was before columns had kinds."""
    path = tmp_path / "t.csv"
    path.write_text("a,b,c\n1,0,2\n2,1,3.5\n3,0,\n")
    data = load_data(path, None)
    assert data.columns is None
    assert (data.x[:2].tolist(), str(data.x.dtype)) == ([[1, 0, 2], [2, 1, 3.5]], "torch.float32")


def test_levels_that_differ_in_case_are_told(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("s,b\nMale,1\nmale,2\nMale,3\nmale,4\nother,5\nother,6\n")
    with pytest.warns(UserWarning, match=r"'Male' and 'male' of column 's' differ only in case"):
        assert load_data(path, None).columns[0].levels == ("Male", "male", "other")


def test_other_rows_are_coded_by_the_levels_of_the_first(tmp_path):
    (tmp_path / "a.csv").write_text(
        "s,day,t,b\n" + "x,2021-03-04,true,1\ny,2021-03-05,false,2\n" * 3
    )
    first = load_data(tmp_path / "a.csv", None)
    (tmp_path / "b.csv").write_text("t,s,day,b\nTRUE,y,2021-03-06,5\n")
    again = load_data(tmp_path / "b.csv", None, column=first.columns)
    assert again.x.tolist() == [[1, 1, days("2021-03-06"), 5]]
    assert again.columns == tuple(first.columns[i] for i in (2, 0, 1, 3))
    (tmp_path / "c.csv").write_text("s,day,t,b\nz,2021-03-06,TRUE,5\n")
    with pytest.raises(ValueError, match=r"'z' in line 2 .*none of the levels .* 'x', 'y'"):
        load_data(tmp_path / "c.csv", None, column=first.columns)
    unseen = load_data(tmp_path / "c.csv", None, column=first.columns, unseen="missing", drop="s")
    assert unseen.x.tolist() == [[days("2021-03-06"), 1, 5]]
    (tmp_path / "d.csv").write_text("s,day,t,b\ny,17,TRUE,5\n")
    with pytest.raises(ValueError, match=r"'17' in line 2 .*is no date, which the fit had"):
        load_data(tmp_path / "d.csv", None, column=first.columns)
    (tmp_path / "e.csv").write_text("s,day,t,b\ny,2021-03-06,TRUE,2021-03-06\n")
    with pytest.raises(ValueError, match=r"'2021-03-06' .* where the fit had numbers"):
        load_data(tmp_path / "e.csv", None, column=first.columns)


FRAME = pd.DataFrame(
    {
        "category": pd.Categorical(["b", "a", None, "b"], categories=["b", "a", "c"]),
        "grade": pd.Categorical(["lo", "hi", "lo", "hi"], categories=["lo", "hi"], ordered=True),
        "flag": [True, False, True, True],
        "maybe": pd.array([True, None, False, True], "boolean"),
        "text": pd.array(["u", "v", None, "u"], "string"),
        "whole": pd.array([1, None, 3, 4], "Int64"),
        "number": [0.5, 1.5, nan, 2.5],
        "day": [pd.Timestamp(t) for t in ("2021-03-04", "2021-03-05", None, "2021-03-04 12:00")],
        "zone": pd.to_datetime(["2021-03-04"] * 4).tz_localize("Asia/Tokyo"),
        "wait": pd.to_timedelta(["1 days", "36 hours", None, "0 days"]),
        "written": ["1.5", "2.5", "NA", "3.5"],
    }
)
CODES = [
    *[[0, 1, nan, 0], [0, 1, 0, 1], [1, 0, 1, 1], [1, nan, 0, 1], [0, 1, nan, 0]],
    *[[1, nan, 3, 4], [0.5, 1.5, nan, 2.5]],
    [days("2021-03-04"), days("2021-03-05"), nan, days("2021-03-04") + 0.5],
    *[[days("2021-03-04") - 9 / 24] * 4, [1, 1.5, nan, 0], [1.5, 2.5, nan, 3.5]],
]


def test_frames_are_read_by_their_types():
    data = load_data(FRAME, None)
    np.testing.assert_allclose(data.x.T, CODES, rtol=1e-6)
    kinds = {kind.name: (kind.kind, kind.levels, kind.unit) for kind in data.columns}
    assert kinds == {
        "category": ("categorical", ("b", "a", "c"), ""),
        "grade": ("ordinal", ("lo", "hi"), ""),
        "flag": ("binary", ("false", "true"), ""),
        "maybe": ("binary", ("false", "true"), ""),
        "text": ("binary", ("u", "v"), ""),
        "whole": ("real", None, ""),
        "number": ("real", None, ""),
        "day": ("real", None, "days since 1970-01-01"),
        "zone": ("real", None, "days since 1970-01-01"),
        "wait": ("real", None, "days"),
        "written": ("real", None, ""),
    }
    kept = load_data(FRAME, None, label="category", context="grade", drop=["text"])
    assert kept.labels.tolist() == ["b", "a", "NA", "b"]
    assert kept.covariates.tolist() == [[0, 1], [1, 0], [0, 1], [1, 0]]
    told = load_data(FRAME, None, column={"whole": "categorical"}).columns
    assert told[5] == ColumnKind("whole", "categorical", ("1", "3", "4"), "as told (--column)")


def test_other_frames_and_files_are_read_alike(tmp_path):
    pytest.importorskip("pyarrow")
    expected = load_data(FRAME, None)
    FRAME.to_parquet(tmp_path / "t.parquet")
    read = [load_data(tmp_path / "t.parquet", None)]
    try:
        import polars
    except ImportError:
        pass
    else:
        read.append(load_data(polars.from_pandas(FRAME), None))
    for data in read:
        np.testing.assert_allclose(data.x, expected.x, rtol=1e-6)
        levels = [c.levels for c in expected.columns]
        if data.name == "DataFrame":  # polars keeps no category that no row has
            levels[0] = ("b", "a")
        assert [c.levels for c in data.columns] == levels
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"broken.parquet cannot be read as Parquet"):
        load_data(tmp_path / "broken.parquet")


def test_frames_of_polars_without_pyarrow(monkeypatch):
    polars = pytest.importorskip("polars")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    frame = polars.DataFrame({"a": [1.5, None], "b": [1, 2]})
    np.testing.assert_array_equal(load_data(frame, None).x, [[1.5, 1], [nan, 2]])
    with pytest.raises(
        ValueError, match="columns that are no plain numbers, 's', which needs pyarrow"
    ):
        load_data(polars.DataFrame({"s": ["x", "y"]}))


@pytest.mark.parametrize(
    ("frame", "options", "message"),
    [
        (pd.DataFrame({"a": [1.0], "b": [[2.0]]}), {}, "'b': .* neither a number nor text"),
        (pd.DataFrame({"a": [1j, 2j]}), {}, "complex numbers in column 'a'"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), {}, "several columns 'a'; rename them"),
        (pd.DataFrame({"a": []}), {}, "DataFrame has no rows"),
        (pd.DataFrame({"a": [1, 2]}), {"thousands": ","}, "thousands=',' .* is of tables in text"),
        (pd.DataFrame({"a": [1, "x", 2]}), {}, "'x' in row 1 .*among numbers"),
        (pd.DataFrame({"a": [1, 2]}), {"layer": "raw"}, "layer='raw' .* of an AnnData"),
        (pd.DataFrame({"a": pd.Categorical(["x", "x"])}), {}, "'x' .* its only category"),
    ],
)
def test_odd_frames(frame, options, message):
    with pytest.raises(ValueError, match=message):
        load_data(frame, None, **options)
