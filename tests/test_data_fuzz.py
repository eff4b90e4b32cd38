"""Any table or array is read as the numbers that were written, or refused in one line."""

import gzip
import io
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from ppl_vae import load_data

# The same examples each time: a new fault is a new test, and no surprise to somebody else.
fuzz = settings(
    derandomize=True,
    deadline=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
NAMES = [
    "a",
    "b",
    "Na",
    "height (cm)",
    "größe",
    "x,y",
    "a;b",
    'the "q"',
    "2020",
    "1.5",
    "None",
    "é",
]
MARKS = ["", "NA", "nan", "?", "N/A", "null", "-999"]

numbers = st.one_of(
    st.integers(-(10**6), 10**6).map(float),
    st.floats(-1e4, 1e4, allow_nan=False).map(lambda value: round(value, 3)),
    st.floats(-1e25, 1e25, allow_nan=False, allow_subnormal=False),
    st.just(0.0),
)


@st.composite
def tables(draw):
    """What to write, the numbers that it stands for, and how to say so to load_data."""
    rows, columns = draw(st.integers(2, 12)), draw(st.integers(1, 5))
    values = np.array(
        [[draw(numbers) for _ in range(columns)] for _ in range(rows)], dtype=np.float64
    )
    mark = draw(st.sampled_from(MARKS))
    gaps = draw(
        st.lists(st.tuples(st.integers(0, rows - 1), st.integers(0, columns - 1)), max_size=4)
    )
    if mark == "-999" and (values == -999).any():
        mark = "NA"
    for row, column in gaps:
        values[row, column] = np.nan
    # A column or a row without a value is refused, which is another test.
    assume(not np.isnan(values).all(0).any() and not np.isnan(values).all(1).any())
    separator = draw(st.sampled_from([",", ";", "\t", "|"]))
    header = draw(st.booleans())
    names = draw(st.permutations(NAMES))[:columns]
    # Decimal commas in a single column are two columns to anybody.
    comma = separator in ";\t" and columns > 1 and draw(st.booleans())

    def written(value):
        if np.isnan(value):
            return mark
        text = draw(st.sampled_from(["{!r}", "{:.17g}", "{:.17e}"])).format(float(value))
        return text.replace(".", ",") if comma else text

    quoted = draw(st.booleans())
    cell = (lambda text: '"' + text.replace('"', '""') + '"') if quoted else str
    lines = [separator.join(cell(written(value)) for value in row) for row in values]
    if header:
        safe = ['"' + name.replace('"', '""') + '"' for name in names]
        lines.insert(0, separator.join(safe))
    lines = [f"# {draw(st.sampled_from(['made by R', 'x', '']))}"] * draw(st.integers(0, 2)) + lines
    if draw(st.booleans()):
        lines.append("")
    text = draw(st.sampled_from(["\n", "\r\n"])).join(lines)
    encoding = draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "latin-1"]))
    options = {"header": header}
    if mark == "-999":
        options["missing"] = "-999"
    return text, encoding, values, names if header else None, options, comma, mark


def refused(error: Exception, *, allowed: bool = True) -> None:
    """In one line, and only where that is allowed."""
    assert allowed, error
    assert "\n" not in str(error)


def read(path: Path, **options):
    with warnings.catch_warnings():
        # Columns so far from zero that single precision would merge their values.
        warnings.filterwarnings("ignore", ".*columns so far from zero")
        return load_data(path, split=None, **options)


# A number far from all others may be asked about.
@pytest.mark.filterwarnings("ignore:.*far from all other values:UserWarning")
@fuzz
@given(tables())
def test_tables(tmp_path, table):
    text, encoding, values, names, options, comma, mark = table
    path = tmp_path / "t.csv"
    path.write_bytes(text.encode(encoding))
    try:
        data = read(path, **options)
    except ValueError as error:
        # What cannot be told apart may be refused. All else has to be read.
        ambiguous = values.shape[1] == 1 or comma or encoding == "latin-1" or mark == ""
        far = np.abs(values[~np.isnan(values)]).max() > 3e38
        tiny = "too small for single precision" in str(error)
        refused(error, allowed=ambiguous or far or tiny)
        return
    found = data.x.numpy().astype(np.float64)
    assert found.shape == values.shape
    np.testing.assert_array_equal(np.isnan(found), np.isnan(values))
    np.testing.assert_allclose(found, values, rtol=1e-6, atol=1e-37)
    if names is not None:
        assert list(data.feature_names) == list(names)


@fuzz
@given(st.binary(max_size=200), st.sampled_from(["t.csv", "t.npy", "t.npz", "t.tsv"]))
def test_any_bytes(tmp_path, content, name):
    path = tmp_path / name
    path.write_bytes(content)
    try:
        read(path)
    except ValueError as error:
        refused(error)


@fuzz
@given(
    st.text(st.sampled_from(list("0123456789.,;|\t \n\"'#-eEnaNAx")), max_size=80),
    st.sampled_from([None, True, False]),
)
def test_any_text(tmp_path, text, header):
    path = tmp_path / "t.csv"
    path.write_text(text)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what a first line may be
            data = load_data(path, split=None, header=header)
    except ValueError as error:
        refused(error)
        return
    assert data.x.dim() == 2
    assert not data.x.isinf().any()
    assert len(data.x) <= text.count("\n") + 1


KINDS = ["?", "<i1", "<u1", "<i2", ">i4", "<i8", "<u8", "<f2", "<f4", ">f4", "<f8", ">f8"]
REFUSED = ["<c8", "<U3", "<M8[s]", "O"]


@fuzz
@given(
    st.sampled_from([*KINDS, *REFUSED]),
    st.lists(st.integers(0, 6), min_size=0, max_size=5),
    st.sampled_from("CF"),
    st.sampled_from(["npy", "npz"]),
    st.integers(0, 2**16),
)
def test_arrays(tmp_path, kind, shape, order, suffix, seed):
    drawn = np.random.default_rng(seed).integers(0, 100, size=shape)
    array = np.asarray(drawn.astype(kind) if kind != "O" else drawn.astype(object), order=order)
    path = tmp_path / f"t.{suffix}"
    if suffix == "npy":
        np.save(path, array)
    else:
        np.savez(path, x=array)
    try:
        data = read(path)
    except ValueError as error:
        usable = kind in KINDS and len(shape) in (2, 3) and array.size
        refused(error, allowed=not usable)
        return
    assert kind in KINDS
    found = data.x.numpy()
    assert len(found) == shape[0]
    expected = array.astype(np.float64)
    if found.shape != array.shape:  # channels last, or one channel
        assert sorted(found.shape) == sorted(s for s in array.shape) or 1 in array.shape
    np.testing.assert_allclose(np.sort(found.ravel()), np.sort(expected.ravel()), rtol=1e-6)
    if found.shape == array.shape:
        np.testing.assert_allclose(found, expected, rtol=1e-6)


@fuzz
@given(st.integers(1, 400), st.sampled_from(["npy", "npz"]))
def test_truncated_arrays(tmp_path, size, suffix):
    whole = io.BytesIO()
    array = np.arange(40.0).reshape(10, 4)
    if suffix == "npy":
        np.save(whole, array)
    else:
        np.savez(whole, x=array)
    content = whole.getvalue()
    path = tmp_path / f"t.{suffix}"
    path.write_bytes(content[:size])
    if size < len(content):
        with pytest.raises(ValueError, match=r"truncated|not a NumPy file"):
            read(path)


def test_a_compressed_table_says_what_to_do(tmp_path):
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(b"a,b\n1,2\n3,4\n"))
    with pytest.raises(ValueError, match=r"t\.csv\.gz"):
        load_data(tmp_path / "t.csv.gz", split=None)
