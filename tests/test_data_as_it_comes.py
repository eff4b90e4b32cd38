"""Files as programs and people leave them: read as what they say, or refused in a sentence."""

import numpy as np
import pytest

from ppl_vae import load_data

nan = float("nan")
SPACES = "a;b\n1\u00a0234;5,5\n12\u202f345;6,1\n"

READ = {
    "separators at every end": ("a,b,,\n1,2,,\n3,4,,\n", {}, "ab", [[1, 2], [3, 4]]),
    "separators at ends of rows": ("a,b\n1,2,\n3,4,\n", {}, "ab", [[1, 2], [3, 4]]),
    "separators, no header": ("1,2,\n3,4,\n5,6,\n", {}, "01", [[1, 2], [3, 4], [5, 6]]),
    "R, names with spaces": ('"a" "b"\n"r 1" 1 2\n"r ""2" 3 4\n', {}, "ab", [[1, 2], [3, 4]]),
    "R, one column": ('"a"\n"1",5\n"2",6\n', {}, "a", [[5], [6]]),
    "R, one column of named rows": ("a\nx,5\ny,6\n", {}, "a", [[5], [6]]),
    "one column called Na": ("Na\n1\n2\n", {}, ("Na",), [[1], [2]]),
    "all columns called NA": ("NA,None\n1,2\n3,4\n", {}, ("NA", "None"), [[1, 2], [3, 4]]),
    "a row of marks": ("?,.\n1,2\n3,4\n", {}, "01", [[nan, nan], [1, 2], [3, 4]]),
    "spaces": (
        "a;b\n1 234;5,5\n12 345;6,1\n",
        {"thousands": " "},
        "ab",
        [[1234, 5.5], [12345, 6.1]],
    ),
    "other spaces": (SPACES, {"thousands": " "}, "ab", [[1234, 5.5], [12345, 6.1]]),
    "points and commas": ("a;b\n1.234;5,5\n1.2;6\n", {}, "ab", [[1.234, 5.5], [1.2, 6]]),
    "thousands by point": (
        "a;b\n1.234,5;5,5\n1.012.345;6,1\n",
        {"thousands": "."},
        "ab",
        [[1234.5, 5.5], [1012345, 6.1]],
    ),
    "lakhs": (
        'a,b\n"12,34,567",1\n"5,000",2\n',
        {"thousands": ","},
        "ab",
        [[1234567, 1], [5000, 2]],
    ),
    "a marker with a decimal comma": (
        "a;b\n1;-999,0\n3;4,5\n",
        {"missing": "-999"},
        "ab",
        [[1, nan], [3, 4.5]],
    ),
    "a marker with thousands": (
        'a,b\n1,"-9,999"\n3,"2,000"\n',
        {"missing": "-9999", "thousands": ","},
        "ab",
        [[1, nan], [3, 2000]],
    ),
    "units of 1e-26": ("a,b\n1e-26,1\n2e-26,2\n", {}, "ab", [[1e-26, 1], [2e-26, 2]]),
    "units of 1e22": ("a,b\n1e22,1\n2e22,2\n", {}, "ab", [[1e22, 1], [2e22, 2]]),
}


@pytest.mark.parametrize(("text", "options", "names", "expected"), READ.values(), ids=READ)
def test_tables(tmp_path, text, options, names, expected):
    path = tmp_path / "t.csv"
    path.write_text(text)
    data = load_data(path, None, **options)
    assert data.feature_names == tuple(names)
    np.testing.assert_allclose(data.x, expected, rtol=1e-6, atol=0)


REFUSED = {
    "a title": ("Mauna Loa\n1959,315.98\n1960,316.91\n", {}, "is ragged.* A title above the table"),
    "a title of comments": ("% weka\n1,2\n3,4\n", {}, "is ragged: line 2 has 2 cells"),
    "falling wavenumbers": ("id,4000,3990,3980\nA,1,2,3\nB,2,3,4\n", {}, "may name the columns by"),
    "numbers of genes": (
        "id,7157,672,1956,5290,207,1017,3845,4609\n" + "A,0,2,1,5,3,0,1,4\n" * 5,
        {},
        "may name the columns by numbers",
    ),
    "thousands and millions": ('a,b\n"1,234",1\n"12,345,678",2\n', {}, "pass thousands=','"),
    "points among commas": ("a;b\n1.234;5,5\n12.345;6,1\n", {}, "points that may mark thousands"),
    "decimals called thousands": ("a;b\n1,5;1\n12,3;2\n", {"thousands": ","}, "'1,5' in line 2"),
    "no mark": ("a,b\n1,2\n", {"thousands": ""}, "thousands is ''"),
    "a digit": ("a,b\n1,2\n", {"thousands": "1"}, "thousands is '1'"),
    "NUL": ("a,b\n1,2\0\n", {}, "holds the character NUL"),
    "too small": ("a,b\n1e-46,1\n3e-46,2\n", {}, "'a' of .* at most 3e-46, too small"),
}


@pytest.mark.parametrize(("text", "options", "message"), REFUSED.values(), ids=REFUSED)
def test_refused_tables(tmp_path, text, options, message):
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_data(path, None, **options)


def test_what_may_be_a_header_is_a_row_and_a_question(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("400,390,380\n1,2,3\n2,3,4\n")
    with pytest.warns(UserWarning, match="It is read as a row"):
        assert len(load_data(path, None).x) == 3


def test_what_grows_has_no_header(tmp_path):
    """The first row of cumulated sums lies below all others, in every column."""
    path = tmp_path / "t.csv"
    sums = np.random.default_rng(0).random((50, 8)).cumsum(0)
    np.savetxt(path, sums[:, np.random.default_rng(1).permutation(8)], delimiter=",")
    assert len(load_data(path, None).x) == 50


@pytest.mark.parametrize(
    ("cells", "labels"),
    [
        (["9007199254740993", "9007199254740992"], ["9007199254740993", "9007199254740992"]),
        (["12345678901234567890123", "1"], ["12345678901234567890123", "1"]),
        (["9007199254740993", ""], ["9007199254740993", "NA"]),
        (["01234", "501"], ["01234", "501"]),
        (["0", "-1"], [0, -1]),
        (["3", "-999"], ["3", "NA"]),
    ],
)
def test_labels_are_what_was_written(tmp_path, cells, labels):
    path = tmp_path / "t.csv"
    path.write_text("x,id\n" + "".join(f"{i},{cell}\n" for i, cell in enumerate(cells)))
    assert load_data(path, None, label="id", missing="-999").labels.tolist() == labels


def test_identifiers_among_the_columns(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("id,x\n9007199254740993,1\n9007199254740992,2\n")
    with pytest.warns(UserWarning, match=r"merges their values: 'id'.*leave them out \(as names"):
        load_data(path, None)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf16_without_its_mark(tmp_path, encoding):
    path = tmp_path / "t.txt"
    path.write_bytes("größe\tb\n1\t2\n3\t4\n".encode(encoding))
    data = load_data(path, None)
    assert data.feature_names == ("größe", "b")
    assert data.x.tolist() == [[1, 2], [3, 4]]
