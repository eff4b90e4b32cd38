"""Tests of ppl_vae.data: named sets, file readers and splits."""

from __future__ import annotations

import bz2
import gzip
import pickle
import shutil
import struct
import subprocess
import sys
from math import nan
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from ppl_vae import VAEConfig
from ppl_vae.data import Dataset, load_data, load_splits


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every download fails, as it does without a network."""

    def fail(*args: Any, **kwargs: Any) -> None:
        raise URLError("no network in tests")

    monkeypatch.setattr("urllib.request.urlopen", fail)


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def write_idx(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


def write_image(
    path: Path, height: int = 4, width: int = 6, mode: str = "L", value: Any = 7
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (width, height), value).save(path)


def test_digits_are_floats_in_the_unit_interval() -> None:
    digits = load_data("digits", None)
    assert digits.x.shape == (1797, 8, 8)
    assert digits.x.dtype == torch.float32
    assert (digits.x.min(), digits.x.max()) == (0, 1)


def test_digits_labels_are_integers() -> None:
    digits = load_data("digits", None)
    assert digits.labels is not None
    assert set(digits.labels.tolist()) == set(range(10))


def test_default_is_the_train_split_of_digits() -> None:
    assert len(load_data().x) == 1438


def test_name_ignores_case() -> None:
    assert load_data("Digits", "test").name == "digits"


def test_repr_is_short() -> None:
    assert repr(load_data("digits", None)) == (
        "Dataset('digits', x=(1797, 8, 8) torch.float32, labels=10 distinct)"
    )


def numbered(tmp_path: Path, rows: int = 50) -> Path:
    np.savez(tmp_path / "rows.npz", x=np.arange(rows)[:, None], y=np.arange(rows))
    return tmp_path / "rows.npz"


def test_splits_are_disjoint_and_complete(tmp_path: Path) -> None:
    train, test = load_splits(numbered(tmp_path))
    assert sorted(torch.cat([train.x, test.x]).flatten().tolist()) == list(range(50))
    assert len(test.x) == 10


def test_labels_follow_their_rows(tmp_path: Path) -> None:
    train, _ = load_splits(numbered(tmp_path))
    np.testing.assert_array_equal(train.labels, train.x.flatten().numpy())


def test_rows_are_permuted(tmp_path: Path) -> None:
    train, _ = load_splits(numbered(tmp_path))
    assert train.x.flatten().tolist() != sorted(train.x.flatten().tolist())


def test_split_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    path = numbered(tmp_path)
    first, second = load_data(path, seed=3), load_data(path, seed=3)
    assert torch.equal(first.x, second.x)


def test_split_differs_between_seeds(tmp_path: Path) -> None:
    path = numbered(tmp_path)
    assert not torch.equal(load_data(path, seed=3).x, load_data(path, seed=4).x)


@pytest.mark.parametrize("part", [0, 1])
def test_load_data_and_load_splits_agree(tmp_path: Path, part: int) -> None:
    path = numbered(tmp_path)
    alone = load_data(path, ("train", "test")[part], test_fraction=0.3, seed=5)
    assert torch.equal(alone.x, load_splits(path, test_fraction=0.3, seed=5)[part].x)


def test_split_none_keeps_the_order(tmp_path: Path) -> None:
    assert load_data(numbered(tmp_path), None).x.flatten().tolist() == list(range(50))


def test_splitting_leaves_the_global_random_state_alone(tmp_path: Path) -> None:
    path = numbered(tmp_path)
    state = torch.get_rng_state()
    legacy = np.random.get_state(legacy=False)["state"]["key"].copy()
    load_splits(path, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(np.random.get_state(legacy=False)["state"]["key"], legacy)


@pytest.mark.parametrize("fraction", [0.001, 0.999])
def test_neither_part_is_ever_empty(tmp_path: Path, fraction: float) -> None:
    train, test = load_splits(numbered(tmp_path), test_fraction=fraction)
    assert min(len(train.x), len(test.x)) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "valid"}, "split is 'valid'; accepted are 'train', 'test' and None"),
        ({"test_fraction": 0.0}, "test_fraction is 0.0; give a share between 0 and 1"),
        ({"test_fraction": 1}, "test_fraction is 1"),
        ({"image_size": 0}, "image_size is 0; give the side in pixels"),
        ({"label": "a"}, "label='a' and drop=.* 'digits' is not one; leave them out"),
        ({"drop": ["a"]}, "choose columns of a table"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_data("digits", **options)


def test_one_row_cannot_be_split(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.ones((1, 3)))
    with pytest.raises(ValueError, match=r"1 row, too few to split.*split=None"):
        load_data(tmp_path / "one.npy")


def test_unknown_name_offers_close_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown data set 'mnits': did you mean .*mnist.*\.npz"):
        load_data("mnits")


def test_unknown_name_lists_names() -> None:
    with pytest.raises(ValueError, match="Names are digits, sprites, mnist, fashionmnist"):
        load_data("zzzzqqqq")


@pytest.mark.parametrize("name", ["no/such/place", "absent.csv", Path("absent")])
def test_absent_path_is_named(name: str | Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no file or folder .*(place|absent)"):
        load_data(name)


@pytest.mark.parametrize("name", ["CocoDetection", "kitti", "sintel", "Kinetics", "VOCDetection"])
def test_sets_that_are_not_images_are_refused(name: str | Path) -> None:
    with pytest.raises(ValueError, match="is not a set of single images; accepted are, for"):
        load_data(name)


def test_unknown_kind_of_file_lists_the_known(tmp_path: Path) -> None:
    path = write(tmp_path / "a.xlsx", "")
    with pytest.raises(ValueError, match=r"unknown kind; accepted are \.npy, \.npz, \.csv"):
        load_data(path)


@pytest.mark.parametrize("name", ["mnist", "FashionMNIST", "svhn", "cifar10", "usps", "omniglot"])
def test_failed_download_says_what_to_do(tmp_path: Path, offline: None, name: str) -> None:
    with pytest.raises(OSError, match=rf"(?s){name.lower()} is not complete under root=.*by hand"):
        load_data(name, root=tmp_path)


def test_failed_download_gives_the_reason(tmp_path: Path, offline: None) -> None:
    with pytest.raises(OSError, match="no network in tests"):
        load_data("kmnist", root=tmp_path)


@pytest.mark.parametrize("name", ["fer2013", "imagenet"])
def test_set_that_cannot_be_downloaded(tmp_path: Path, offline: None, name: str) -> None:
    with pytest.raises(OSError, match=f"{name} is not complete"):
        load_data(name, root=tmp_path)


def test_download_is_tried_when_files_are_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(url: str, root: str | Path, filename: str, md5: str) -> None:
        write_usps(Path(root) / filename)

    monkeypatch.setattr("torchvision.datasets.usps.download_url", download)
    tmp_path.joinpath("new").mkdir()
    assert load_data("usps", root=tmp_path / "new").x.shape == (5, 16, 16)


def write_usps(path: Path, rows: int = 5) -> None:
    line = " ".join(f"{i + 1}:{-1 if i else 1}" for i in range(256))
    path.write_bytes(bz2.compress("".join(f"{i + 1} {line}\n" for i in range(rows)).encode()))


def test_root_defaults_to_the_environment_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_usps(tmp_path / "usps.bz2")
    monkeypatch.setenv("PPL_VAE_DATA", str(tmp_path))
    usps = load_data("USPS")
    assert usps.x.dtype == torch.uint8
    assert usps.x[0, 0, :2].tolist() == [255, 0]
    assert usps.labels is not None
    assert usps.labels.tolist() == [0, 1, 2, 3, 4]


def test_mnist_agrees_with_torchvision(shared_data: Path) -> None:
    from torchvision.datasets import MNIST

    ours, theirs = load_data("MNIST", "test", root=shared_data), MNIST(shared_data, train=False)
    assert torch.equal(ours.x, theirs.data)
    assert ours.x.dtype == torch.uint8
    np.testing.assert_array_equal(ours.labels, theirs.targets.numpy())
    assert ours.name == "mnist"


def test_mnist_keeps_its_own_split(shared_data: Path) -> None:
    train, test = load_splits("mnist", root=shared_data)
    assert (train.x.shape, test.x.shape) == ((60000, 28, 28), (10000, 28, 28))


def test_mnist_without_split_is_all_rows(shared_data: Path) -> None:
    whole = load_data("mnist", None, root=shared_data)
    assert whole.x.shape == (70000, 28, 28)
    assert whole.labels is not None
    assert whole.labels.shape == (70000,)


def test_image_size_resizes_a_set(shared_data: Path) -> None:
    mnist = load_data("mnist", "test", root=shared_data, image_size=32)
    assert mnist.x.shape == (10000, 32, 32)
    assert mnist.x.dtype == torch.uint8


def test_emnist_is_put_upright(tmp_path: Path) -> None:
    image = np.arange(6).reshape(1, 2, 3)
    raw = tmp_path / "EMNIST" / "raw"
    write_idx(raw / "emnist-balanced-train-images-idx3-ubyte", image)
    write_idx(raw / "emnist-balanced-train-labels-idx1-ubyte", np.array([4]))
    emnist = load_data("emnist", root=tmp_path)
    assert emnist.x[0].tolist() == image[0].T.tolist()
    assert emnist.x.is_contiguous()


def test_qmnist_labels_are_the_classes(tmp_path: Path) -> None:
    raw = tmp_path / "QMNIST" / "raw"
    raw.mkdir(parents=True)
    images = struct.pack(">HBB3I", 0, 8, 3, 2, 28, 28) + bytes(2 * 28 * 28)
    labels = struct.pack(">HBB2I", 0, 12, 2, 2, 8) + struct.pack(">16i", *range(16))
    for name, content in [("images-idx3", images), ("labels-idx2", labels)]:
        (raw / f"qmnist-test-{name}-{'ubyte' if 'images' in name else 'int'}").write_bytes(content)
        (raw / f"qmnist-test-{name}-ubyte.gz").write_bytes(gzip.compress(content))
    qmnist = load_data("qmnist", "test", root=tmp_path)
    assert qmnist.labels is not None
    assert qmnist.labels.tolist() == [0, 8]


def test_cifar_is_channel_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import CIFAR10

    folder = tmp_path / CIFAR10.base_folder
    folder.mkdir()
    pixels = np.arange(2 * 3072, dtype=np.int64).astype(np.uint8).reshape(2, 3072)
    (folder / "test_batch").write_bytes(pickle.dumps({"data": pixels, "labels": [3, 1]}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *a: True)
    cifar = load_data("cifar-10", "test", root=tmp_path)
    assert cifar.x.flatten(1).tolist() == pixels.tolist()
    assert cifar.x.shape == (2, 3, 32, 32)
    assert cifar.labels is not None
    assert cifar.labels.tolist() == [3, 1]


def test_svhn_uses_its_split_argument(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from scipy.io import savemat

    images = np.zeros((32, 32, 3, 2), np.uint8)
    images[0, 0, :, 1] = [1, 2, 3]
    savemat(tmp_path / "test_32x32.mat", {"X": images, "y": np.array([[10], [4]])})
    monkeypatch.setattr("torchvision.datasets.svhn.check_integrity", lambda *a: True)
    svhn = load_data("svhn", "test", root=tmp_path)
    assert svhn.x[1, :, 0, 0].tolist() == [1, 2, 3]
    assert svhn.labels is not None
    assert svhn.labels.tolist() == [0, 4]


@pytest.fixture
def omniglot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for folder in ("images_background", "images_evaluation"):
        for i in range(2):
            write_image(tmp_path / "omniglot-py" / folder / "Greek" / f"c{i}" / "a.png", 8, 8)
    monkeypatch.setattr(
        "torchvision.datasets.omniglot.Omniglot._check_integrity", lambda self: True
    )
    return tmp_path


def test_omniglot_images_are_stacked(omniglot: Path) -> None:
    assert load_data("omniglot", root=omniglot).x.shape == (2, 8, 8)


def test_omniglot_characters_of_the_two_parts_differ(omniglot: Path) -> None:
    whole = load_data("omniglot", None, root=omniglot)
    assert whole.labels is not None
    assert sorted(whole.labels.tolist()) == [0, 1, 964, 965]


def test_celeba_labels_are_identities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "celeba"
    for i in range(2):
        write_image(folder / "img_align_celeba" / f"{i}.png", 8, 8, "RGB", (i, 2, 3))
    write(folder / "list_eval_partition.txt", "0.png 0\n1.png 0\n2.png 2\n")
    write(folder / "identity_CelebA.txt", "0.png 77\n1.png 5\n2.png 5\n")
    for name in ("list_bbox_celeba", "list_landmarks_align_celeba", "list_attr_celeba"):
        write(folder / f"{name}.txt", "3\na b\n0.png 1 1\n1.png 1 -1\n2.png 1 1\n")
    monkeypatch.setattr("torchvision.datasets.CelebA._check_integrity", lambda self: True)
    celeba = load_data("CelebA", root=tmp_path)
    assert celeba.x[1, :, 0, 0].tolist() == [1, 2, 3]
    assert celeba.labels is not None
    assert celeba.labels.tolist() == [77, 5]


def test_set_without_a_split_is_split_at_random(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(10):
        write_image(tmp_path / "eurosat" / "2750" / "River" / f"{i}.png", 8, 8, "RGB", (i, 0, 0))
    train, test = load_splits("eurosat", root=tmp_path)
    assert (train.x.shape, test.x.shape) == ((8, 3, 8, 8), (2, 3, 8, 8))


def test_set_with_several_sizes_needs_image_size(tmp_path: Path) -> None:
    for i in range(3):
        write_image(tmp_path / "eurosat" / "2750" / "River" / f"{i}.png", 8, 8 + i)
    with pytest.raises(
        ValueError, match=r"image 0 is \(8, 8\) and image 1 is \(8, 9\).*image_size="
    ):
        load_data("eurosat", root=tmp_path)


def test_set_with_several_sizes_is_resized(tmp_path: Path) -> None:
    for i in range(3):
        write_image(tmp_path / "eurosat" / "2750" / "River" / f"{i}.png", 8, 8 + i)
    assert load_data("eurosat", None, root=tmp_path, image_size=5).x.shape == (3, 3, 5, 5)


@pytest.mark.parametrize(
    ("array", "shape", "dtype"),
    [
        (np.ones((5, 3)), (5, 3), torch.float32),
        (np.ones((5, 3), ">f8"), (5, 3), torch.float32),
        (np.ones((5, 3), np.uint8), (5, 3), torch.float32),
        (np.ones((5, 3), bool), (5, 3), torch.float32),
        (np.ones((5, 3, 2), np.int64), (5, 3, 2), torch.float32),
        (np.full((5, 4, 6), 7, np.uint8), (5, 4, 6), torch.uint8),
        (np.full((5, 4, 6, 3), 7, np.uint8), (5, 3, 4, 6), torch.uint8),
        (np.full((5, 4, 6, 1), 7, np.uint8), (5, 4, 6), torch.uint8),
        (np.full((5, 3, 4, 6), 7, np.uint8), (5, 3, 4, 6), torch.uint8),
        (np.ones((5, 4, 6, 3), np.float64), (5, 3, 4, 6), torch.float32),
        (np.ones((3, 5)).T, (5, 3), torch.float32),
    ],
)
def test_npy_shape_and_dtype(
    tmp_path: Path, array: np.ndarray, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    np.save(tmp_path / "a.npy", array)
    x = load_data(tmp_path / "a.npy", None).x
    assert (x.shape, x.dtype) == (shape, dtype)
    assert x.is_contiguous()


def test_channel_last_values_move_with_their_channels(tmp_path: Path) -> None:
    array = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)
    np.save(tmp_path / "a.npy", array)
    x = load_data(tmp_path / "a.npy", None).x
    np.testing.assert_array_equal(x.numpy(), array.transpose(0, 3, 1, 2))


def test_missing_entries_of_an_array_stay_nan(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([[1.0, np.nan], [2.0, 3.0]]))
    assert load_data(str(tmp_path / "a.npy"), None).x.isnan().sum() == 1


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.float64(3), r"shape \(\), but needs rows and features"),
        (np.ones(4), r"shape \(4,\), but needs rows and features; reshape it to \(rows, 1\)"),
        (np.ones((0, 4)), r"a\.npy is empty: its shape is \(0, 4\)"),
        (np.ones((4, 0)), r"is empty: its shape is \(4, 0\)"),
        (np.ones((4, 2), complex), "dtype complex128; accepted are real numbers and bool"),
        (np.array([["a", "b"]]), "dtype <U1; accepted are real"),
        (np.array([[1, np.inf], [np.nan, 1]]), r"infinite .* row 0, entry \(1,\)"),
        (np.array([[1, 2], [1e300, 1]]), r"too large for float32.* row 1, entry \(0,\)"),
        (np.array([[1, np.nan], [2, np.nan]]), "columns without a single value: '1'"),
    ],
)
def test_unusable_array_is_explained(tmp_path: Path, array: np.ndarray, message: str) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(ValueError, match=message):
        load_data(tmp_path / "a.npy", None)


def test_python_objects_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([[{}]], object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"a\.npy holds Python objects, which are not read"):
        load_data(tmp_path / "a.npy")


@pytest.mark.parametrize("kind", ["npy", "npz"])
@pytest.mark.parametrize("damage", ["truncated", "garbage", "empty", "overwritten"])
def test_damaged_array_is_named(tmp_path: Path, kind: str, damage: str) -> None:
    path = tmp_path / f"a.{kind}"
    if kind == "npy":
        np.save(path, np.arange(1000.0).reshape(100, 10))
    else:
        np.savez_compressed(path, x=np.arange(1000.0).reshape(100, 10))
    content = path.read_bytes()
    damaged = {
        "truncated": content[:-99],
        "garbage": b"x,y\n1,2\n",
        "empty": b"",
        "overwritten": content[:20] + bytes(40) + content[60:300] + bytes(40) + content[340:],
    }
    path.write_bytes(damaged[damage])
    with pytest.raises(ValueError, match=rf"a\.{kind} is truncated or not a NumPy file"):
        load_data(path)


@pytest.mark.parametrize("key", ["x", "X", "images", "data", "anything"])
def test_npz_array_is_found(tmp_path: Path, key: str) -> None:
    arrays: Any = {key: np.ones((4, 2))}
    np.savez(tmp_path / "a.npz", **arrays)
    assert load_data(tmp_path / "a.npz", None).x.shape == (4, 2)


@pytest.mark.parametrize("key", ["y", "labels", "label", "targets"])
def test_npz_labels_are_found(tmp_path: Path, key: str) -> None:
    arrays: Any = {"x": np.ones((4, 2)), key: np.array(list("abca"))}
    np.savez(tmp_path / "a.npz", **arrays)
    labels = load_data(tmp_path / "a.npz", None).labels
    assert labels is not None
    assert labels.tolist() == list("abca")


def test_npz_labels_of_another_length_are_left(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.ones((4, 2)), y=np.arange(3))
    assert load_data(tmp_path / "a.npz", None).labels is None


def test_npz_with_several_arrays_lists_them(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", a=np.ones((4, 2)), b=np.ones((3, 2)))
    with pytest.raises(ValueError, match=r"holds a \(4, 2\), b \(3, 2\); save one array of rows"):
        load_data(tmp_path / "a.npz")


KERAS: dict[str, np.ndarray] = {
    "x_train": np.arange(6.0).reshape(3, 2),
    "y_train": np.array([[5], [6], [7]]),
    "x_test": np.array([[8.0, np.nan]]),
    "y_test": np.array([4]),
}


def test_npz_keeps_its_own_split(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **KERAS)
    train, test = load_splits(tmp_path / "a.npz", test_fraction=0.9)
    assert train.x.tolist() == KERAS["x_train"].tolist()
    assert test.x[0, 0] == 8
    assert test.x.isnan().sum() == 1
    assert train.labels is not None
    assert train.labels.tolist() == [5, 6, 7]
    assert test.labels is not None
    assert test.labels.tolist() == [4]


def test_npz_with_its_own_split_is_joined(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **KERAS)
    whole = load_data(tmp_path / "a.npz", None)
    assert whole.x[:, 0].tolist() == [0, 2, 4, 8]
    assert whole.labels is not None
    assert whole.labels.tolist() == [5, 6, 7, 4]
    assert "x_train in" in whole.source
    assert "x_test in" in whole.source


def test_npz_with_its_own_split_in_capitals_and_without_labels(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", X_train=np.ones((3, 2)), X_test=np.zeros((1, 2)))
    test = load_data(tmp_path / "a.npz", "test")
    assert test.x.tolist() == [[0, 0]]
    assert test.labels is None


def test_images_of_npz_with_its_own_split_are_resized(tmp_path: Path) -> None:
    images = np.ones((3, 8, 8), np.uint8)
    np.savez(tmp_path / "a.npz", x_train=images, x_test=images[:1])
    train, test = load_splits(tmp_path / "a.npz", image_size=4)
    assert (train.x.shape, test.x.shape) == ((3, 4, 4), (1, 4, 4))


@pytest.mark.parametrize(
    ("part", "array", "message"),
    [
        ("x_test", np.ones((1, 3)), r"rows of \(2,\) .*x_train, but of \(3,\) .*x_test; save both"),
        ("x_test", np.array([[1, np.inf]]), r"x_test in .* infinite .* row 0, entry \(1,\)"),
        ("x_train", np.array([[1, np.nan]]), "x_train in .* columns without a single value: '1'"),
        ("x_train", np.ones(3), r"x_train in .* has shape \(3,\), but needs rows and features"),
        ("x_test", np.ones((0, 2)), r"x_test in .* is empty: its shape is \(0, 2\)"),
    ],
)
def test_unusable_part_of_npz_is_named(
    tmp_path: Path, part: str, array: np.ndarray, message: str
) -> None:
    np.savez(tmp_path / "a.npz", **{**KERAS, part: array})
    with pytest.raises(ValueError, match=message):
        load_splits(tmp_path / "a.npz")


def test_empty_npz_is_explained(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz")
    with pytest.raises(ValueError, match="holds no arrays"):
        load_data(tmp_path / "a.npz")


@pytest.mark.parametrize("form", ["csr", "csc"])
def test_sparse_matrix_is_made_dense(tmp_path: Path, form: str) -> None:
    from scipy import sparse

    dense = np.array([[0, 2, 0], [1, 0, 3]])
    sparse.save_npz(tmp_path / "a.npz", sparse.csr_matrix(dense).asformat(form))
    np.testing.assert_array_equal(load_data(tmp_path / "a.npz", None).x.numpy(), dense)


def test_sparse_matrix_in_another_form(tmp_path: Path) -> None:
    from scipy import sparse

    sparse.save_npz(tmp_path / "a.npz", sparse.bsr_matrix(np.eye(4)))
    with pytest.raises(ValueError, match="sparse matrix in form 'bsr'; save it as csr or csc"):
        load_data(tmp_path / "a.npz")


def test_inconsistent_sparse_matrix(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", data=[1, 2], indices=[0, 9], indptr=[0, 1, 2], shape=[2, 3])
    with pytest.raises(ValueError, match="not a consistent sparse matrix"):
        load_data(tmp_path / "a.npz")


def test_frey_faces_stay_bytes(shared_data: Path) -> None:
    faces = load_data(shared_data / "frey_faces.npz", None)
    assert (faces.x.shape, faces.x.dtype) == ((1965, 28, 20), torch.uint8)
    assert faces.name == "frey_faces"


def test_array_of_images_is_resized(shared_data: Path) -> None:
    assert load_data(shared_data / "frey_faces.npz", image_size=16).x.shape == (1572, 16, 16)


def test_image_size_needs_images(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"image_size=3 was given, but .* holds no images"):
        load_data(numbered(tmp_path), image_size=3)


def test_cell_counts_are_whole_numbers_with_names(shared_data: Path) -> None:
    cells = load_data(shared_data / "counts" / "pbmc68k_reduced_counts.npz", None)
    assert cells.x.shape == (700, 765)
    assert torch.equal(cells.x, cells.x.round())
    assert cells.feature_names is not None
    assert (len(cells.feature_names), cells.feature_names[0]) == (765, "HES4")
    assert cells.labels is not None
    assert "CD4+/CD45RO+ Memory" in cells.labels


def table(tmp_path: Path, text: str, suffix: str = "csv", **options: Any) -> Dataset:
    return load_data(write(tmp_path / f"t.{suffix}", text), None, **options)


@pytest.mark.parametrize(
    "text",
    [
        "a,b\n1,2\n3,4\n",
        "a;b\n1;2\n3;4\n",
        "a\tb\n1\t2\n3\t4\n",
        "a|b\n1|2\n3|4",
        "a b\n1 2\n3 4\n",
        "  a   b \n 1   2  \n3 \t 4\n",
        '"a","b"\r\n"1","2"\r\n3,4\r\n',
        "\ufeffa,b\n1,2\n3,4\n",
        "a, b\n1 , 2 \n\n   \n3, 4\n\n",
        ",a,b\n0,1,2\n1,3,4\n",
        '"","a","b"\n"r1",1,2\n"r2",3,4\n',
    ],
)
def test_table_is_read(tmp_path: Path, text: str) -> None:
    data = table(tmp_path, text)
    assert data.feature_names == ("a", "b")
    assert data.x.tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize("suffix", ["csv", "tsv", "txt", "data"])
def test_suffix_does_not_decide_the_separator(tmp_path: Path, suffix: str) -> None:
    assert table(tmp_path, "1;2\n3;4\n", suffix).x.shape == (2, 2)


@pytest.mark.parametrize("name", ["height", "height in cm"])
def test_table_of_one_column(tmp_path: Path, name: str) -> None:
    assert table(tmp_path, f"{name}\n1\n2\n3\n").x.tolist() == [[1], [2], [3]]


@pytest.mark.parametrize("text", ["1,2\n3,4\n", "?,2\n3,4\n", ",2\n3,4\n"])
def test_table_without_header_has_numbers_for_names(tmp_path: Path, text: str) -> None:
    data = table(tmp_path, text)
    assert data.feature_names == ("0", "1")
    assert len(data.x) == 2


@pytest.mark.parametrize("text", ["0,1,2\n5,6,7\n", ",0,1,2\n0,5,6,7\n"])
def test_header_of_column_numbers(tmp_path: Path, text: str) -> None:
    data = table(tmp_path, text)
    assert data.x.tolist() == [[5, 6, 7]]
    assert data.feature_names == ("0", "1", "2")


MARKERS = ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "?", ".", '""', " ? ", "Na"]


@pytest.mark.parametrize("marker", MARKERS)
def test_missing_marker_becomes_nan(tmp_path: Path, marker: str) -> None:
    x = table(tmp_path, f"a,b,c\n1,2,3\n4,{marker},6\n").x
    assert x.isnan().tolist() == [[False, False, False], [False, True, False]]


@pytest.mark.parametrize("cells", [("true", "false"), ("True", "False"), ("TRUE", "NA")])
def test_truth_values_are_numbers(tmp_path: Path, cells: Any) -> None:
    x = table(tmp_path, f"a,b\n1,{cells[0]}\n2,{cells[1]}\n").x
    assert x[0, 1] == 1
    assert x[1, 1] == 0 or x[1, 1].isnan()


def test_large_integers_are_numbers(tmp_path: Path) -> None:
    x = table(tmp_path, "a,b\n1,99999999999999999999999\n2,3\n").x
    assert x[0, 1] == pytest.approx(1e23)


@pytest.mark.parametrize("label", ["kind", 1, -2, "1"])
def test_label_column_is_kept_out(tmp_path: Path, label: str | int) -> None:
    data = table(tmp_path, "a,kind,c\n1,x,3\n4,y,6\n", label=label)
    assert data.feature_names == ("a", "c")
    assert data.labels is not None
    assert data.labels.tolist() == ["x", "y"]


@pytest.mark.parametrize(
    ("cells", "labels"),
    [
        (["1", "2"], [1, 2]),
        (["1.0", "2.0"], [1, 2]),
        (["1.5", "2"], ["1.5", "2"]),
        (["x", "NA"], ["x", "NA"]),
    ],
)
def test_labels_are_integers_or_strings(tmp_path: Path, cells: Any, labels: list[Any]) -> None:
    data = table(tmp_path, f"a,b\n1,{cells[0]}\n2,{cells[1]}\n", label="b")
    assert data.labels is not None
    assert data.labels.tolist() == labels


@pytest.mark.parametrize("drop", ["b", ["b"], ("b",), 1, [1], [-1]])
def test_dropped_column_is_left_out(tmp_path: Path, drop: Any) -> None:
    assert table(tmp_path, "a,b\n1,x\n2,y\n", drop=drop).feature_names == ("a",)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (
            "a,b\n1,2\n\n3,x\n",
            {},
            r"text in columns 'b': 'x' in line 4 of column 'b'; .*label= \(--l",
        ),
        ("a,b,c\nx,1,y\n", {}, r"columns 'a', 'c': 'x' in line 2 .*drop=\[\.\.\.\] \(--drop\)"),
        ("a,a\n1,2\n", {}, "'a' in line 1 of column '0' .a header needs distinct names"),
        ("a;b\n1,234;1\n5,678;2\n", {}, "commas in the numbers of columns 'a': .*thousands=','"),
        ('a,b\n"1,234",5.5\n', {}, "commas in the numbers of columns 'a': .*thousands=','"),
        ("a;b\n1;5,5\n1;1,5,2\n", {}, "has text in columns 'b': '5,5' in line 2"),
        ("a,b\n1,\n2,NA\n", {}, r"columns without a single value: 'b'.*drop= \(--drop\)"),
        ("a,b\n1,2\n3,4,5\n", {}, "ragged: line 3 has 3 cells, the first has 2"),
        ("a,b\n1,2\n3\n", {}, "ragged: line 3 has 1 cells, the first has 2"),
        ("1 2\n1 2 3\n1 2\n", {}, "ragged: line 2 has 3 cells, the first has 2"),
        ("a,b\n1,2\n", {"label": "z"}, "label='z' is no column of .*which has 'a', 'b'"),
        ("a,b\n1,2\n", {"drop": ["a", 7]}, "drop=7 is no column"),
        ("a,b\n1,2\n", {"label": "a", "drop": "a"}, "label='a' is also in drop="),
        ("a\n1\n", {"drop": "a"}, "no columns left after label= and drop="),
        ("a,b\n1,2\n\n3,inf\n", {}, "infinite .* line 4, column 'b'"),
        ("a,b\n1,2\n3,1e99\n", {}, "too large for float32.* line 3, column 'b'"),
        ("a,b\n", {}, r"t\.csv has no rows"),
        ('1,2\n3,"4\n5,6\n', {}, "look for a stray quote"),
        ("", {}, r"t\.csv has no rows"),
        ("a,b\n1,2\n", {"image_size": 4}, "holds no images"),
        ("a,b\n1,2\n3,4\n", {"image_size": 2}, "holds no images"),
    ],
)
def test_unusable_table_is_explained(
    tmp_path: Path, text: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        table(tmp_path, text, **options)


def test_decimal_commas_among_labels_are_text(tmp_path: Path) -> None:
    data = table(tmp_path, "a;b\n1;5,5\n2;6\n", label="b")
    assert data.labels is not None
    assert data.labels.tolist() == ["5,5", "6"]


def test_table_in_another_encoding(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("a,b\n1,é\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"t\.csv is not a table in UTF-8"):
        load_data(tmp_path / "t.csv")


def test_many_columns_are_abbreviated(tmp_path: Path) -> None:
    text = ",".join(f"c{i}" for i in range(30)) + "\n" + ",".join("1" * 30) + "\n"
    with pytest.raises(ValueError, match="'c19' and 10 more"):
        table(tmp_path, text, label="z")


def test_penguins_account_for_every_missing_cell(shared_data: Path) -> None:
    path = shared_data / "tabular" / "penguins.csv"
    penguins = load_data(path, None, label="species", drop=["island", "sex"])
    assert penguins.x.shape == (344, 5)
    sexes = load_data(path, None, label="sex", drop=["island", "species"]).labels
    assert sexes is not None
    assert int(penguins.x.isnan().sum()) + int((sexes == "NA").sum()) == 19


def test_penguins_labels_are_the_species(shared_data: Path) -> None:
    penguins = load_data(
        shared_data / "tabular" / "penguins.csv", label="species", drop=["island", "sex"]
    )
    assert penguins.labels is not None
    assert set(penguins.labels) == {"Adelie", "Chinstrap", "Gentoo"}
    assert penguins.feature_names is not None
    assert penguins.feature_names[0] == "bill_length_mm"


def test_penguins_text_columns_are_levels(shared_data: Path) -> None:
    penguins = load_data(shared_data / "tabular" / "penguins.csv", None)
    levels = {kind.name: kind.levels for kind in penguins.columns if kind.levels}
    assert levels["species"] == ("Adelie", "Chinstrap", "Gentoo")
    assert set(levels) == {"species", "island", "sex"}


def test_horse_colic_has_no_header(shared_data: Path) -> None:
    horses = load_data(shared_data / "tabular" / "horse-colic.csv", None)
    assert horses.x.shape == (300, 28)
    assert horses.x.isnan().sum() == 1605
    assert horses.feature_names == tuple(map(str, range(28)))


def test_breast_cancer_has_no_header(shared_data: Path) -> None:
    path = shared_data / "tabular" / "breast-cancer-wisconsin.data"
    cells = load_data(path, None, label=10, drop=0)
    assert cells.x.shape == (699, 9)
    assert cells.x.isnan().sum() == 16
    assert cells.labels is not None
    assert set(cells.labels.tolist()) == {2, 4}


@pytest.mark.parametrize("suffix", ["png", "jpg", "JPEG", "bmp", "gif", "webp", "tif"])
def test_folder_reads_every_format(tmp_path: Path, suffix: str) -> None:
    write_image(tmp_path / f"a.{suffix}", mode="RGB", value=(9, 9, 9))
    assert load_data(tmp_path, None).x.shape == (1, 3, 4, 6)


def test_gray_folder_is_height_by_width_in_order(tmp_path: Path) -> None:
    for name, value in [("b", 2), ("a", 1), ("c", 3)]:
        write_image(tmp_path / f"{name}.png", value=value)
    data = load_data(tmp_path, None)
    assert (data.x.shape, data.x.dtype) == ((3, 4, 6), torch.uint8)
    assert data.x[:, 0, 0].tolist() == [1, 2, 3]
    assert data.labels is None


def test_one_colour_image_makes_all_colour(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", value=5)
    write_image(tmp_path / "b.png", mode="RGB", value=(1, 2, 3))
    write_image(tmp_path / "c.png", value=6)
    x = load_data(tmp_path, None).x
    assert x[:, :, 0, 0].tolist() == [[5, 5, 5], [1, 2, 3], [6, 6, 6]]


@pytest.mark.parametrize(("mode", "value"), [("RGBA", (1, 2, 3, 4)), ("P", 0)])
def test_alpha_and_palettes_become_colour(tmp_path: Path, mode: str, value: Any) -> None:
    write_image(tmp_path / "a.png", mode=mode, value=value)
    assert load_data(tmp_path, None).x.shape == (1, 3, 4, 6)


def test_palette_with_transparency(tmp_path: Path) -> None:
    Image.new("P", (6, 4), 0).save(tmp_path / "a.png", transparency=b"\x00\x10")
    assert load_data(tmp_path, None).x.shape == (1, 3, 4, 6)


def test_subfolders_are_labels(tmp_path: Path) -> None:
    write_image(tmp_path / "dog" / "deep" / "1.png")
    write_image(tmp_path / "cat" / "2.png")
    write_image(tmp_path / ".hidden" / "3.png")
    labels = load_data(tmp_path, None).labels
    assert labels is not None
    assert labels.tolist() == ["cat", "dog"]


def test_images_in_and_beside_subfolders(tmp_path: Path) -> None:
    write_image(tmp_path / "dog" / "1.png")
    write_image(tmp_path / "2.png")
    with pytest.raises(ValueError, match=r"both directly and in subfolders \(dog\)"):
        load_data(tmp_path)


def test_two_sizes_are_named(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", 4, 6)
    write_image(tmp_path / "b.png", 5, 6)
    with pytest.raises(
        ValueError, match=r"a\.png is \(4, 6\) and .*b\.png is \(5, 6\).*image_size="
    ):
        load_data(tmp_path)


def test_image_size_makes_sizes_equal(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", 4, 6)
    write_image(tmp_path / "b.png", 9, 5)
    assert load_data(tmp_path, None, image_size=3).x.shape == (2, 3, 3)


def test_broken_image_is_named(tmp_path: Path) -> None:
    write(tmp_path / "a.png", "not an image")
    with pytest.raises(ValueError, match=r"a\.png is not a readable image"):
        load_data(tmp_path)


def test_truncated_image_is_named(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"a\.png is not a readable image"):
        load_data(tmp_path)


def deep(size: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 65_536, (size, 6, 4), dtype=np.uint16)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("byte_order", ["<", ">"])
def test_images_of_16_bits_are_intensities_of_65535(
    tmp_path: Path, suffix: str, byte_order: str
) -> None:
    pixels = deep(3)
    for i, image in enumerate(pixels):
        Image.fromarray(image.astype(f"{byte_order}u2")).save(tmp_path / f"{i}{suffix}")
    x = load_data(tmp_path, None).x
    assert x.dtype == torch.float32
    np.testing.assert_array_equal(np.rint(x.double().numpy() * 65_535), pixels)
    assert VAEConfig.for_data(x).likelihood == "continuous_bernoulli"
    assert load_data(tmp_path, None, image_size=2).x.shape == (3, 2, 2)


def test_frames_of_16_bits(tmp_path: Path) -> None:
    first, *others = map(Image.fromarray, deep(5))
    first.save(tmp_path / "a.tif", save_all=True, append_images=others)
    x = load_data(tmp_path / "a.tif", None).x
    np.testing.assert_array_equal(np.rint(x.double().numpy() * 65_535), deep(5))


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_images_of_8_and_16_bits_are_in_one_unit(tmp_path: Path, order: tuple[int, ...]) -> None:
    bytewise = np.random.default_rng(1).integers(0, 256, (6, 4), dtype=np.uint8)
    color = np.repeat(bytewise[..., None], 3, -1)
    for i, image in zip(order, (bytewise, bytewise.astype(np.uint16) * 257, color), strict=True):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    x = load_data(tmp_path, None).x
    expected = torch.from_numpy(bytewise).float().div(255).expand(3, 3, 6, 4)
    torch.testing.assert_close(x, expected)


def test_images_of_12_bits_are_said_to_be_dark(tmp_path: Path) -> None:
    Image.fromarray(deep(1)[0] // 16).save(tmp_path / "a.png")
    with pytest.warns(UserWarning, match=r"within 0 and 0\.059.*--likelihood normal"):
        load_data(tmp_path, None)


def test_images_of_real_numbers_are_kept(tmp_path: Path) -> None:
    heights = np.random.default_rng(0).normal(0, 1e3, (6, 4)).astype(np.float32)
    heights[0, 0] = np.nan
    Image.fromarray(heights).save(tmp_path / "a.tif")
    np.testing.assert_array_equal(load_data(tmp_path, None).x[0], heights)
    Image.fromarray(deep(1)[0]).save(tmp_path / "b.tif")
    with pytest.raises(ValueError, match=r"a\.tif holds real numbers, and .*b\.tif intensities"):
        load_data(tmp_path, None)


def test_infinite_pixels_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((6, 4), np.inf, np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match="24 infinite entries"):
        load_data(tmp_path, None)


def test_images_of_32_bits_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((6, 4), 70_000, np.int32)).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=r"a\.tif has pixels of 32 bits .*save it with 8 or 16"):
        load_data(tmp_path, None)


def test_folder_without_images(tmp_path: Path) -> None:
    write(tmp_path / "notes.md", "")
    with pytest.raises(ValueError, match=r"holds no images; accepted are \.png, \.jpg"):
        load_data(tmp_path)


def test_heavy_libraries_wait_until_they_are_needed() -> None:
    code = (
        "import sys, ppl_vae.data; "
        "print(sorted({'torchvision', 'pandas', 'sklearn', 'scipy', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


TABLES_AS_THEY_COME = {
    "decimal commas": ("a;b\n1;2,5\n2;NA\n3;-,5e1\n", {}, "ab", [[1, 2.5], [2, nan], [3, -5]]),
    "thousands": (
        'a,b\n"1,234",5\n"12,345",6\n',
        {"thousands": ","},
        "ab",
        [[1234, 5], [12345, 6]],
    ),
    "comments": ("# a line\n# another\na,b\n1,2\n# and one\n3,4\n", {}, "ab", [[1, 2], [3, 4]]),
    "a header in a comment": ("#a\tb\n1\t2\n3\t4\n", {}, "ab", [[1, 2], [3, 4]]),
    "a separator that is stated": ("sep=;\na;b\n1;2\n3;4\n", {}, "ab", [[1, 2], [3, 4]]),
    "row names, as R writes": ("a,b\nr1,1,2\nr2,3,4\n", {}, "ab", [[1, 2], [3, 4]]),
    "a comma at the header's end": ("a,b,\n1,2\n3,4\n", {}, "ab", [[1, 2], [3, 4]]),
    "a comma at each line's end": ("a,b,\n1,2,\n3,4,\n", {}, "ab", [[1, 2], [3, 4]]),
    "sodium": ("Na,b\n1,2\n3,4\n", {}, ("Na", "b"), [[1, 2], [3, 4]]),
    "a column called None": ("x,None\n1,2\n3,4\n", {}, ("x", "None"), [[1, 2], [3, 4]]),
    "one's own marker": ("a,b\n1,-999\n3,4\n", {"missing": "-999"}, "ab", [[1, nan], [3, 4]]),
    "numbers as names": ("1,2,30\n5,6,7\n", {"header": True}, ("1", "2", "30"), [[5, 6, 7]]),
    "old line ends": ("a,b\r1,2\r3,4\r", {}, "ab", [[1, 2], [3, 4]]),
}


@pytest.mark.parametrize(
    ("text", "options", "names", "expected"), TABLES_AS_THEY_COME.values(), ids=TABLES_AS_THEY_COME
)
def test_tables_as_they_come(tmp_path, text, options, names, expected):
    path = tmp_path / "table.csv"
    path.write_bytes(text.encode())
    data = load_data(path, None, **options)
    assert data.feature_names == tuple(names)
    np.testing.assert_allclose(data.x, expected)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_encodings_that_say_what_they_are(tmp_path, encoding):
    path = tmp_path / "excel.txt"
    path.write_bytes("größe\tb\n1\t2\n3\t4\n".encode(encoding))
    assert load_data(path, None).feature_names == ("größe", "b")


def test_numbers_that_may_be_names_are_asked_about(tmp_path):
    path = tmp_path / "spectra.csv"
    path.write_text("sample,400,410,420\nA,0.1,0.2,0.3\nB,0.2,0.3,0.4\n")
    with pytest.raises(ValueError, match="may name the columns by numbers or be a row"):
        load_data(path, None, label=0)
    data = load_data(path, None, label="sample", header=True)
    assert data.feature_names == ("400", "410", "420")
    assert data.labels.tolist() == ["A", "B"]


def test_lines_longer_than_a_cell_of_csv(tmp_path):
    path = tmp_path / "wide.csv"
    path.write_text(
        "\n".join([",".join(f"{'gene' * 20}{i}" for i in range(2000)), ",".join(["1"] * 2000)])
    )
    assert load_data(path, None).x.shape == (1, 2000)


def test_times_that_single_precision_would_merge(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("time,a\n" + "".join(f"{1_700_000_000 + i},{i % 7}\n" for i in range(50)))
    with pytest.warns(UserWarning, match="single precision merges their values: 'time'"):
        x = load_data(path, None).x
    assert len(x[:, 0].unique()) == 50


def test_folders_of_splits(tmp_path):
    for split, count in (("train", 3), ("test", 2)):
        for kind in ("cat", "dog"):
            folder = tmp_path / "pets" / split / kind
            folder.mkdir(parents=True)
            for i in range(count):
                Image.new("L", (6, 4), 200 if split == "test" else i).save(folder / f"{i}.png")
    train, test = load_splits(tmp_path / "pets")
    assert (len(train.x), len(test.x)) == (6, 4)
    assert not (train.x == 200).any()
    assert set(train.labels) == {"cat", "dog"}
    shutil.rmtree(tmp_path / "pets" / "test")
    with pytest.raises(ValueError, match="no other split"):
        load_splits(tmp_path / "pets")


@pytest.mark.parametrize("channels", [2, 4, 13])
def test_channels_that_come_last(tmp_path, channels):
    np.save(tmp_path / "a.npy", np.zeros((20, 32, 32, channels), "u1") + 7)
    assert load_data(tmp_path / "a.npy", None).x.shape[1:] == (channels, 32, 32)


def test_archives_that_also_hold_objects(tmp_path):
    np.savez(
        tmp_path / "sprites.npz",
        metadata=np.array({"title": "sprites"}, dtype=object),
        imgs=np.arange(2 * 64, dtype="u1").reshape(2, 8, 8),
        latents_values=np.ones((2, 6)),
    )
    assert load_data(tmp_path / "sprites.npz", None).x.shape == (2, 8, 8)


def test_a_sparse_matrix_that_claims_too_much(tmp_path):
    np.savez(
        tmp_path / "big.npz",
        data=np.ones(1),
        indices=np.zeros(1, "i4"),
        indptr=np.array([0, 1]),
        shape=np.array([10**5, 10**5]),
    )
    with pytest.raises(ValueError, match="too many to be held dense"):
        load_data(tmp_path / "big.npz", None)


def test_a_first_line_of_nothing_but_numbers_is_a_row_and_a_question(tmp_path):
    path = tmp_path / "spectra.csv"
    path.write_text("400.5,410.5,420.5\n0.1,0.2,0.3\n0.2,0.3,0.4\n")
    with pytest.warns(UserWarning, match="may name the columns by numbers .* read as a row"):
        assert len(load_data(path, None).x) == 3
    assert len(load_data(path, None, header=True).x) == 2


def test_bytes_of_zero_and_one_are_masks(tmp_path):
    np.save(tmp_path / "masks.npy", np.eye(8, dtype="u1")[None].repeat(20, 0))
    x = load_data(tmp_path / "masks.npy", None).x
    assert x.dtype == torch.float32
    assert VAEConfig.for_data(x).likelihood == "bernoulli"


def test_a_config_for_a_table_as_it_is_in_memory():
    frame = pd.DataFrame({"a": [1.5, 2.5, -1.0], "b": [1.0, np.nan, 3.5]})
    config = VAEConfig.for_data(frame)
    assert (config.event_shape, config.missing, config.likelihood) == ((2,), True, "normal")
    with pytest.raises(ValueError, match=r"never varies in features \['b'\]"):
        VAEConfig.for_data(frame.assign(b=2.0))


def test_factors_come_with_their_rows(tmp_path: Path) -> None:
    factors = np.array([[1, 5, 0.5], [1, 6, 0.5], [1, 7, 0.25], [1, 8, 0.5]])
    x = np.arange(12.0).reshape(4, 3)
    np.savez(tmp_path / "a.npz", x=x, factors=factors, factor_names=["same", "place", "size"])
    data = load_data(tmp_path / "a.npz", None)
    assert data.factors is not None
    assert {name: v.tolist() for name, v in data.factors.items()} == {
        "place": [5, 6, 7, 8],
        "size": [0.5, 0.5, 0.25, 0.5],
    }
    test = load_data(tmp_path / "a.npz", "test", test_fraction=0.5)
    assert test.factors is not None
    assert (test.factors["place"] - 5 == test.x[:, 0].numpy() / 3).all()


@pytest.mark.parametrize(
    ("arrays", "names"),
    [
        ({"factors": [[0, 1], [1, 1], [2, 2]]}, ["factor 0", "factor 1"]),
        ({"latents_values": np.eye(3, 6, 1)}, ["shape", "scale", "orientation"]),
        ({"factors": [[0, 1], [1, 1]]}, None),
        ({"factors": [0, 1, 2]}, None),
        ({"factors": np.ones((3, 2))}, None),
    ],
)
def test_factors_are_one_row_each(tmp_path: Path, arrays: dict[str, Any], names: Any) -> None:
    np.savez(tmp_path / "a.npz", x=np.eye(3), **arrays)
    factors = load_data(tmp_path / "a.npz", None).factors
    assert (factors and list(factors)) == names


@pytest.mark.parametrize("kind", ["tif", "gif"])
def test_every_frame_of_a_stack_is_a_row(tmp_path, kind):
    """A TIFF of many pages or an animated GIF: only its first frame was read, without a word."""
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 10), dtype=np.uint8)
    frames = [Image.fromarray(frame) for frame in pixels]
    path = tmp_path / f"cells.{kind}"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    data = load_data(path, None)
    assert data.x.shape[0] == 6
    assert data.source == f"6 frames in {path}"
    if kind == "tif":
        np.testing.assert_array_equal(data.x, pixels)

    folder = tmp_path / "plate"
    for well, some in (("a", frames[:4]), ("b", frames[4:])):
        (folder / well).mkdir(parents=True)
        some[0].save(folder / well / f"stack.{kind}", save_all=True, append_images=some[1:])
    data = load_data(folder, None)
    assert data.labels.tolist() == ["a"] * 4 + ["b"] * 2
    assert data.source.startswith("6 frames of 2 images in ")


def test_one_image_is_no_data_set(tmp_path):
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "one.png")
    with pytest.raises(ValueError, match=r"1 frame in .*too few to split"):
        load_data(tmp_path / "one.png")
    (tmp_path / "bad.tif").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"bad.tif is not a readable image"):
        load_data(tmp_path / "bad.tif")
