"""Files as programs and people leave them: read as what they say, or refused in a sentence."""

import numpy as np
import pytest
import torch
from PIL import Image

from ppl_vae import VAE, VAEConfig, fit, load_data, log_evidence
from ppl_vae.data import load_splits
from ppl_vae.run import Run

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


NOTATIONS = {
    "minus signs": ("\u22121.5", "\u22122", "3"),
    "spaces": ("1 234", "2 345", "12 345"),
    "spaces that do not break": ("1\u00a0234", "2\u202f345", "12\u00a0345"),
    "apostrophes": ("1'234", "2\u2019345", "12'345"),
    "Fortran": ("1.5D+03", "2.0D+01", "1.0D-2"),
    "accountants": ("(1.5)", "(2.5)", "3"),
    "wide digits": ("\uff11", "\uff12", "\uff13"),
    "hexadecimal": ("0x1F", "0x20", "0x21"),
    "programs": ("1_000", "2_000", "12_000"),
    "quotes": ("'1'", "'2'", "'3.5'"),
    "powers": ("1.5x10^3", "2\u00d710^4", "3*10^-2"),
    "lakhs": ('"12,34,567"', '"2,34,567"', '"5,000"'),
}


@pytest.mark.parametrize("cells", NOTATIONS.values(), ids=NOTATIONS)
def test_numbers_in_other_notations_are_no_levels(tmp_path, cells):
    """However often they repeat; and no advice to mark them as missing."""
    path = tmp_path / "t.csv"
    path.write_text("a,b\n" + "".join(f"{cells[i % 3]},{i}\n" for i in range(30)))
    with pytest.raises(ValueError, match=r"notation that is not read|pass thousands=") as refused:
        load_data(path, None)
    assert "mark it as missing" not in str(refused.value)
    assert load_data(path, None, label="a").x.shape == (30, 1)


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


def test_times_in_arrays(tmp_path):
    """As in tables: nothing is merged in silence, whatever the shape."""
    values = 1e9 + np.random.default_rng(0).normal(size=(50, 4))
    for shape in ((50, 4), (50, 2, 2)):
        np.save(tmp_path / "t.npy", values.reshape(shape))
        with pytest.warns(UserWarning, match="single precision merges their values"):
            x = load_data(tmp_path / "t.npy", None).x
        np.testing.assert_array_equal(x, values.reshape(shape))
    np.save(tmp_path / "ids.npy", 2**60 + np.arange(20).reshape(10, 2))
    with pytest.warns(UserWarning, match="merges their values: '0', '1'; .*leave them out"):
        load_data(tmp_path / "ids.npy", None)
    np.save(tmp_path / "small.npy", values * 1e-60)
    with pytest.raises(ValueError, match=r"column '0' of .* too small for single precision"):
        load_data(tmp_path / "small.npy", None)


@pytest.mark.parametrize("unit", [1e-26, 1e22, 1e-3])
def test_units_change_nothing_but_the_density(unit):
    """Moments are of double precision: squares of 1e22 are beyond single precision."""
    x = torch.randn(60, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = x * torch.tensor([1.0, 2.0, 3.0]) + torch.tensor([0.0, 50.0, -3.0])
    found = []
    for factor in (1.0, unit):
        rows = (x * factor).float()
        vae = VAE.from_config(VAEConfig.for_data(rows, latent_dim=2, hidden=(8,)), seed=0)
        fit(vae, rows, epochs=3, progress=False)
        evidence = log_evidence(vae, rows, num_samples=50, progress=False).log_evidence
        found.append(evidence.values + 3 * np.log(factor))
    np.testing.assert_allclose(*found, atol=1e-3)


def test_identifiers_in_archives(tmp_path):
    ids = np.arange(10, dtype="u8") + 2**63
    np.savez(tmp_path / "t.npz", x=np.zeros((10, 2)), y=ids)
    assert load_data(tmp_path / "t.npz", None).labels.tolist() == [str(i) for i in ids]


def write_images(folder, count, value=0):
    folder.mkdir(parents=True)
    for i in range(count):
        pixels = np.full((4, 4), 10 * i + value, np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")


@pytest.mark.parametrize(
    ("names", "sizes"),
    [
        ({"training": 3, "testing": 2}, (3, 2)),
        ({"Train": 3, "Validation": 2}, (3, 2)),
        ({"train_images": 3, "test_images": 2}, (3, 2)),
        ({"train": 3, "val": 2, "test": 1, "__MACOSX": 1}, (5, 1)),
    ],
)
def test_names_of_splits(tmp_path, names, sizes):
    for value, (name, count) in enumerate(names.items()):
        write_images(tmp_path / "set" / name, count, value)
    parts = load_splits(tmp_path / "set")
    assert tuple(len(part.x) for part in parts) == sizes
    assert all(part.labels is None for part in parts)
    if "val" in names:  # it is among the rows to fit to, of which some are held out
        assert sorted({int(row[0, 0]) % 10 for row in parts[0].x}) == [0, 1]


@pytest.mark.parametrize("names", [("data/train", "data/test"), ("a/train/x", "a/test/x")])
def test_splits_that_lie_deeper_are_not_mixed(tmp_path, names):
    for name in names:
        write_images(tmp_path / "set" / name, 3)
    with pytest.raises(ValueError, match="which look like splits; give the folder that they lie"):
        load_splits(tmp_path / "set")


def test_dark_images_beside_a_fit_to_bytes_are_no_masks(command, tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "bytes.npy", rng.integers(0, 256, (60, 4, 4)).astype("u1"))
    np.save(tmp_path / "dark.npy", rng.integers(0, 2, (5, 4, 4)).astype("u1"))
    quick = ("--epochs", 1, "--hidden", 4, "--latent-dim", 2, "--draws", 50, "--quiet")
    assert command("fit", "bytes.npy", "--out", "run", *quick)[0] == 0
    assert load_data(tmp_path / "dark.npy", None).x.max() == 1
    x = Run(tmp_path / "run").rows(load_data(tmp_path / "dark.npy", None))
    assert x.max() == 1 / torch.tensor(255.0)
    assert command("encode", "run", "dark.npy", "--draws", 30, "--quiet")[0] == 0


def test_images_of_whole_numbers_say_what_they_may_be(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 4096, (20, 4, 4)).astype("u2")
    np.save(tmp_path / "t.npy", pixels)
    assert "if these are pixels" in VAEConfig.for_data(load_data(tmp_path / "t.npy", None).x).reason


def test_an_image_that_is_too_large_is_said_to_be(tmp_path, monkeypatch):
    write_images(tmp_path / "set", 2)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 7)
    with pytest.raises(ValueError, match=r"0\.png is too large .*make it smaller"):
        load_data(tmp_path / "set", None)
