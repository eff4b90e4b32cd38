"""Named data sets and file readers: digits, image sets, arrays, tables and folders as tensors."""

from __future__ import annotations

import csv
import difflib
import inspect
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

__all__ = ["Dataset", "binarize", "load_data", "load_splits", "to_float"]

Split = Literal["train", "test"] | None
Column = str | int

_ARRAYS = (".npy", ".npz")
_TABLES = (".csv", ".tsv", ".txt", ".data")
_IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")
_MISSING = frozenset({"", "na", "n/a", "<na>", "nan", "null", "none", "?", "."})

# torchvision's sets for detection, flow, stereo, captions and video are not rows of images.
_IMAGE_SETS = (
    *("MNIST", "FashionMNIST", "KMNIST", "QMNIST", "EMNIST", "USPS", "SEMEION", "Omniglot"),
    *("CIFAR10", "CIFAR100", "SVHN", "STL10", "CelebA", "LFWPeople", "EuroSAT", "PCAM"),
    *("Caltech101", "Caltech256", "CLEVRClassification", "Country211", "DTD", "FER2013"),
    *("FGVCAircraft", "Flowers102", "Food101", "GTSRB", "ImageNet", "Imagenette"),
    *("OxfordIIITPet", "Places365", "RenderedSST2", "StanfordCars", "SUN397"),
)
_SPLIT_NAMES = {
    "CLEVRClassification": ("train", "val"),
    "FGVCAircraft": ("trainval", "test"),
    "ImageNet": ("train", "val"),
    "Imagenette": ("train", "val"),
    "OxfordIIITPet": ("trainval", "test"),
    "Places365": ("train-standard", "val"),
}
_EXTRA_ARGUMENTS = {"EMNIST": {"split": "balanced"}, "CelebA": {"target_type": "identity"}}


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    r"""Rows of data, with what is known about them.

    Attributes
    ----------
    name : str
        "digits", a torchvision set in lower case, or the stem of the file.
    x : Tensor
        Shape (row, \*event). uint8 holds pixel intensities 0 to 255; all else is float32, in which
        a missing entry is NaN. Grayscale images have event (H, W), colour images (3, H, W).
    labels : ndarray or None
        Shape (row,), integers or strings.
    feature_names : tuple of str or None
        One name for each entry of a one-dimensional event, where they are known.
    source : str
        One line: where the rows came from.
    """

    name: str
    x: Tensor
    labels: np.ndarray | None
    feature_names: tuple[str, ...] | None
    source: str

    def __repr__(self) -> str:
        labels = "None" if self.labels is None else f"{len(np.unique(self.labels))} distinct"
        return f"Dataset({self.name!r}, x={tuple(self.x.shape)} {self.x.dtype}, labels={labels})"


def load_data(
    name_or_path: str | os.PathLike[str] = "digits",
    split: Split = "train",
    *,
    root: str | os.PathLike[str] | None = None,
    test_fraction: float = 0.2,
    seed: int = 0,
    label: Column | None = None,
    drop: Column | Sequence[Column] = (),
    image_size: int | None = None,
) -> Dataset:
    """Read one split of a named data set, a file or a folder of images.

    A name wins over a path of the same spelling: write ``./mnist`` for a folder called mnist.
    The first line of a table is its header if its cells are distinct and each is text, neither a
    number nor a missing marker; or if they are 0, 1, 2, ..., as pandas writes by default. A first
    column whose header is blank is a row index and is left out. Missing markers are an empty cell,
    NA, N/A, NaN, null, None, ? and a lone dot, in any case; true and false are read as 1 and 0.

    Parameters
    ----------
    name_or_path : str or path, default "digits"
        "digits" (8x8, from scikit-learn); an image set of torchvision in any case, such as "mnist"
        or "cifar10", downloaded if need be; a .npy or .npz array (also a sparse matrix in scipy's
        form); a table in .csv, .tsv, .txt or .data; a folder of images, where subfolders, if there
        are any, are the labels.
    split : {"train", "test", None}, default "train"
        None is every row. Sets that bring their own split keep it (Omniglot: background and
        evaluation); any other source is split at random.
    root : path, optional
        Folder of downloaded sets; else the environment variable PPL_VAE_DATA, else
        ``~/.cache/ppl_vae``.
    test_fraction, seed : float, int
        Share of the test rows and the seed, where the split is random. The rows of a random split
        come in permuted order.
    label : str or int, optional
        Column of a table, by name or number, that is kept as labels and not modelled: integers if
        every cell is one, else strings, with "NA" where missing.
    drop : column or sequence of columns
        Columns of a table to leave out.
    image_size : int, optional
        Resize the shorter side to this, then crop the centre: every event becomes a square.

    Returns
    -------
    Dataset

    Raises
    ------
    ValueError
        The name is unknown, or the contents cannot be modelled (text, infinite values, ragged
        rows, a column without a value, images of several sizes, a truncated file).
    FileNotFoundError
        There is no file or folder at a path.
    OSError
        A set is not under `root` and could not be downloaded.

    Examples
    --------
    >>> load_data("digits", "test")
    Dataset('digits', x=(359, 8, 8) torch.float32, labels=10 distinct)
    """
    (part,) = _read_splits(
        name_or_path, (split,), root, test_fraction, seed, label, drop, image_size
    )
    return part


def load_splits(
    name_or_path: str | os.PathLike[str] = "digits",
    *,
    root: str | os.PathLike[str] | None = None,
    test_fraction: float = 0.2,
    seed: int = 0,
    label: Column | None = None,
    drop: Column | Sequence[Column] = (),
    image_size: int | None = None,
) -> tuple[Dataset, Dataset]:
    """Read the train and test rows, going through the source once.

    Takes the arguments of `load_data` but for the split, and raises what it raises.

    Returns
    -------
    train, test : Dataset

    Examples
    --------
    >>> train, test = load_splits("digits", test_fraction=0.1)
    >>> len(train.x), len(test.x)
    (1617, 180)
    """
    train, test = _read_splits(
        name_or_path, ("train", "test"), root, test_fraction, seed, label, drop, image_size
    )
    return train, test


def to_float(x: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Turn pixel intensities 0 to 255 into numbers in [0, 1]; cast any other dtype.

    Images stay uint8 in memory, a quarter of their size as floats, until they are a batch: MNIST
    takes 47 MB instead of 188, and a batch is a cheap conversion away.

    Parameters
    ----------
    x : Tensor
        Any shape; uint8 means intensities.
    dtype : torch.dtype, default torch.float32

    Returns
    -------
    Tensor
        The shape of `x`.

    Examples
    --------
    >>> to_float(torch.tensor([0, 51, 255], dtype=torch.uint8))
    tensor([0.0000, 0.2000, 1.0000])
    """
    return x.to(dtype).div_(255) if x.dtype == torch.uint8 else x.to(dtype)


def binarize(
    x: Tensor,
    method: Literal["none", "static", "dynamic", "threshold"],
    *,
    seed: int | None = None,
) -> Tensor:
    """Turn intensities into zeros and ones.

    Missing entries stay NaN. With uint8 there is nothing to check, and "dynamic" draws whole
    bytes, in which P(1) = x / 255 is exact, faster than floats; so pass batches as uint8.

    Parameters
    ----------
    x : Tensor
        Any shape: uint8 in 0 to 255, or numbers in [0, 1].
    method : {"none", "static", "dynamic", "threshold"}
        "none" is `to_float`; "static" draws from Bernoulli(x), the same for the same seed
        (Salakhutdinov and Murray, 2008); "dynamic" draws afresh at each call from torch's global
        random state; "threshold" is x > 0.5.
    seed : int, optional
        For "static" only, where it defaults to 0; the global random state is left alone.

    Returns
    -------
    Tensor
        The shape of `x`; its dtype if that is a float, else float32.

    Raises
    ------
    ValueError
        `method` is unknown, `x` leaves [0, 1], or a seed is given to "dynamic".

    Examples
    --------
    >>> binarize(torch.tensor([0.0, 0.4, 0.6, 1.0]), "threshold")
    tensor([0., 0., 1., 1.])
    """
    methods = ("none", "static", "dynamic", "threshold")
    if method not in methods:
        raise ValueError(f"method is {method!r}; accepted are {', '.join(methods)}")
    if method == "dynamic" and seed is not None:
        raise ValueError(
            f"seed={seed} was given to method='dynamic', which draws from torch's global random "
            "state; leave seed out, or use method='static'"
        )
    dtype = x.dtype if x.is_floating_point() else torch.float32
    if method == "none":
        return to_float(x, dtype)
    if method == "dynamic" and x.dtype == torch.uint8:
        # 0 to 254 leaves 255 values, of which x lie below x.
        return (torch.randint_like(x, 0, 255) < x).to(dtype)

    p = to_float(x, dtype)
    missing = x.dtype != torch.uint8 and _check_unit_interval(p)
    if method == "threshold":
        ones = p > 0.5
    elif method == "dynamic":
        ones = torch.rand_like(p) < p
    else:
        # Drawn on the CPU, so that a seed means the same on every device.
        generator = torch.Generator().manual_seed(0 if seed is None else seed)
        ones = torch.rand(p.shape, generator=generator, dtype=dtype).to(p.device) < p
    return torch.where(p.isnan(), p, ones.to(dtype)) if missing else ones.to(dtype)


def _check_unit_interval(x: Tensor) -> bool:
    """Whether `x` has missing entries; an error if any other entry leaves [0, 1]."""
    if x.numel() == 0:
        return False
    low, high = (end.item() for end in torch.aminmax(x))  # NaN if any entry is
    missing = low != low
    if missing:
        present = x[~x.isnan()]
        low, high = (end.item() for end in torch.aminmax(present)) if len(present) else (0.0, 1.0)
    if low < 0 or high > 1:
        raise ValueError(
            f"x ranges from {low:g} to {high:g}, but its entries are probabilities in [0, 1]; "
            "pass intensities 0..255 as uint8, rescale x, or use method='none'"
        )
    return missing


def _read_splits(
    name_or_path: str | os.PathLike[str],
    splits: tuple[Split, ...],
    root: str | os.PathLike[str] | None,
    test_fraction: float,
    seed: int,
    label: Column | None,
    drop: Column | Sequence[Column],
    image_size: int | None,
) -> tuple[Dataset, ...]:
    for split in splits:
        if split not in ("train", "test", None):
            raise ValueError(
                f"split is {split!r}; accepted are 'train', 'test' and None (all rows)"
            )
    if not 0 < test_fraction < 1:
        raise ValueError(f"test_fraction is {test_fraction}; give a share between 0 and 1")
    if image_size is not None and image_size < 1:
        raise ValueError(f"image_size is {image_size}; give the side in pixels, at least 1")
    dropped = [drop] if isinstance(drop, str | int) else list(drop)
    source = _resolve(name_or_path)
    if isinstance(source, Path) and source.is_file() and source.suffix.lower() in _TABLES:
        whole = _read_table(source, label, dropped)
    elif label is not None or dropped:
        raise ValueError(
            f"label={label!r} and drop={dropped!r} choose columns of a table "
            f"({', '.join(_TABLES)}), and {os.fspath(name_or_path)!r} is not one; leave them out"
        )
    elif isinstance(source, type):
        folder = os.environ.get("PPL_VAE_DATA", "~/.cache/ppl_vae") if root is None else root
        place = Path(folder).expanduser()
        if _parameters(source) & {"train", "split", "background"}:
            both: tuple[Split, ...] = ("train", "test")
            wanted = both if None in splits else splits
            parts = {s: _read_torchvision(source, place, s, image_size) for s in wanted}
            return tuple(parts[s] if s else _join([parts[p] for p in both]) for s in splits)
        whole = _read_torchvision(source, place, None, image_size)
    elif isinstance(source, Path):
        whole = _read_folder(source, image_size) if source.is_dir() else _read_array(source)
    else:
        whole = _read_digits()
    whole = replace(whole, x=_resize(whole, image_size))
    return tuple(_take(whole, s, test_fraction, seed) for s in splits)


def _take(whole: Dataset, split: Split, test_fraction: float, seed: int) -> Dataset:
    if split is None:
        return whole
    size = len(whole.x)
    if size < 2:
        raise ValueError(f"{whole.source} has {size} row, too few to split; pass split=None")
    # numpy's generator and not torch's, so that a seed does not depend on the torch release.
    order = np.random.default_rng(seed).permutation(size)
    cut = size - min(max(round(size * test_fraction), 1), size - 1)
    rows = order[:cut] if split == "train" else order[cut:]
    labels = None if whole.labels is None else whole.labels[rows]
    return replace(whole, x=whole.x[torch.from_numpy(rows)], labels=labels)


def _join(parts: list[Dataset]) -> Dataset:
    shapes = {tuple(part.x.shape[1:]) for part in parts}
    if len(shapes) > 1:
        raise ValueError(f"{parts[0].name} has images of shapes {shapes}; pass image_size=")
    labels = [part.labels for part in parts if part.labels is not None]
    joined = np.concatenate(labels) if len(labels) == len(parts) else None
    return replace(parts[0], x=torch.cat([part.x for part in parts]), labels=joined)


def _resize(data: Dataset, image_size: int | None) -> Tensor:
    x = data.x
    if image_size is None:
        return x
    if x.ndim < 3:
        raise ValueError(f"image_size={image_size} was given, but {data.source} holds no images")
    if x.shape[-2:] == (image_size, image_size):
        return x
    from torchvision.transforms import functional

    return functional.center_crop(functional.resize(x, image_size, antialias=True), image_size)


def _resolve(name_or_path: str | os.PathLike[str]) -> str | Path | type:
    given = os.fspath(name_or_path)
    path = Path(given).expanduser()
    key = given.lower().replace("-", "").replace("_", "")
    if isinstance(name_or_path, str):
        if key == "digits":
            return "digits"
        named = next((name for name in _IMAGE_SETS if name.lower() == key), None)
        if named is not None:
            from torchvision import datasets

            return getattr(datasets, named)
    if path.exists():
        if path.is_file() and path.suffix.lower() not in _ARRAYS + _TABLES:
            raise ValueError(
                f"{path} is a file of an unknown kind; accepted are {', '.join(_ARRAYS + _TABLES)} "
                "and a folder of images"
            )
        return path
    if not isinstance(name_or_path, str) or path.suffix or "/" in given or os.sep in given:
        raise FileNotFoundError(f"there is no file or folder {path} (from {Path.cwd()})")
    from torchvision import datasets

    if key in {name.lower() for name in datasets.__all__}:
        raise ValueError(
            f"{given!r} is in torchvision, but is not a set of single images; accepted are, for "
            f"example, {', '.join(_IMAGE_SETS[:14]).lower()}; or pass a folder of images"
        )
    close = difflib.get_close_matches(key, ["digits", *(name.lower() for name in _IMAGE_SETS)])
    raise ValueError(
        f"unknown data set {given!r}"
        + (f": did you mean {' or '.join(close)}?" if close else "")
        + f" Names are digits, {', '.join(_IMAGE_SETS[:14]).lower()}; "
        "a path to a .npy, .npz or .csv file, or to a folder of images, works too"
    )


def _read_digits() -> Dataset:
    from sklearn.datasets import load_digits

    digits = load_digits()
    x = torch.from_numpy(digits.images / 16).float()  # (row, 8, 8)
    return Dataset("digits", x, digits.target, None, "scikit-learn's load_digits, 0..16 over 16")


def _parameters(kind: type) -> set[str]:
    # Over all bases, because EMNIST and QMNIST take MNIST's arguments as **kwargs.
    return {name for base in kind.__mro__ for name in inspect.signature(base).parameters}


def _read_torchvision(kind: Any, root: Path, split: Split, image_size: int | None) -> Dataset:
    name, parameters = kind.__name__, _parameters(kind)
    arguments: dict[str, Any] = {"root": root, **_EXTRA_ARGUMENTS.get(name, {})}
    first = split == "train"
    if split and "train" in parameters:
        arguments["train"] = first
    elif split and "background" in parameters:
        arguments["background"] = first
    elif split:
        arguments["split"] = _SPLIT_NAMES.get(name, ("train", "test"))[0 if first else 1]
    downloads = {"download"} & parameters
    try:
        try:
            images = kind(**arguments, **dict.fromkeys(downloads, False))
        except Exception:  # what torchvision raises for absent files differs from set to set
            if not downloads:
                raise
            images = kind(**arguments, download=True)
    except Exception as error:
        raise OSError(
            f"{name.lower()} is not complete under root={str(root)!r} and could not be downloaded; "
            f"put the files there by hand, as torchvision.datasets.{name} lays them out, or name "
            f"their folder with root= or PPL_VAE_DATA. The reason: {error}"
        ) from error

    labels: Any = None
    if isinstance(getattr(images, "data", None), np.ndarray | Tensor):
        labels = getattr(images, "targets", getattr(images, "labels", None))
        x = _channels_first(torch.as_tensor(images.data))
        x = x.mT.contiguous() if name == "EMNIST" else x.contiguous()  # EMNIST's files are sideways
    else:
        labels = []
        x = _stack(_pairs(images, labels), len(images), image_size)
    codes = np.asarray(labels)
    if name == "QMNIST":
        codes = codes[:, 0]  # the class; the other columns say who wrote it
    if name == "Omniglot" and split == "test":
        codes = codes + 964  # other characters than the 964 of the background set
    source = f"torchvision.datasets.{name}, {split or 'all'} rows, under {root}"
    whole = Dataset(name.lower(), x, codes if codes.dtype.kind in "iu" else None, None, source)
    return replace(whole, x=_resize(whole, image_size))


def _pairs(images: Any, labels: list[Any]) -> Iterator[tuple[str, Any]]:
    for row in range(len(images)):
        image, target = images[row]
        labels.append(target.item() if isinstance(target, Tensor) else target)
        yield f"image {row}", image


def _stack(images: Iterable[tuple[str, Any]], size: int, image_size: int | None) -> Tensor:
    """Stack PIL images: (row, H, W) if all are gray, else (row, 3, H, W); alpha is dropped."""
    from torchvision.transforms import functional

    x, first = torch.empty(0), ""
    for row, (name, image) in enumerate(images):
        if image.mode in ("I", "F") or image.mode.startswith("I;"):
            raise ValueError(f"{name} has pixels of mode {image.mode}; convert it to 8 bits")
        gray = image.mode in ("1", "L", "LA")
        if image.mode == "P":
            image = image.convert("RGBA")  # Pillow warns about transparency on the direct way
        image = image.convert("L" if gray else "RGB")
        if image_size is not None:
            image = functional.center_crop(functional.resize(image, image_size), image_size)
        pixels = torch.from_numpy(np.array(image))  # (H, W) or (H, W, 3)
        if row == 0:
            shape = (size, *pixels.shape[:2]) if gray else (size, 3, *pixels.shape[:2])
            x, first = torch.empty(shape, dtype=torch.uint8), name
        if x.shape[-2:] != pixels.shape[:2]:
            raise ValueError(
                f"images differ in size: {first} is {tuple(x.shape[-2:])} and {name} is "
                f"{tuple(pixels.shape[:2])}, height by width; pass image_size= to make them equal"
            )
        if x.ndim == 3 and not gray:
            x = x[:, None].repeat(1, 3, 1, 1)
        x[row] = pixels if gray else pixels.permute(2, 0, 1)
    return x


def _read_folder(folder: Path, image_size: int | None) -> Dataset:
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in _IMAGES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    if not files:
        raise ValueError(f"the folder {folder} holds no images; accepted are {', '.join(_IMAGES)}")
    classes = [path.relative_to(folder).parts[0] for path in files if path.parent != folder]
    if 0 < len(classes) < len(files):
        raise ValueError(
            f"the folder {folder} holds images both directly and in subfolders ({classes[0]}); "
            "move all into subfolders, whose names are the labels, or none"
        )
    x = _stack(_open_images(files), len(files), image_size)
    labels = np.array(classes) if classes else None
    return Dataset(folder.resolve().name, x, labels, None, f"{len(files)} images in {folder}")


def _open_images(files: list[Path]) -> Iterator[tuple[str, Any]]:
    from PIL import Image, ImageOps

    for path in files:
        try:
            with Image.open(path) as image:
                upright = ImageOps.exif_transpose(image)
        except (OSError, SyntaxError, ValueError) as error:
            raise ValueError(f"{path} is not a readable image ({error}); remove it") from error
        yield str(path), upright


def _read_array(path: Path) -> Dataset:
    # Opened here, because numpy leaves a damaged archive open.
    with path.open("rb") as file:
        try:
            loaded = np.load(file, allow_pickle=False)
            arrays = {"": loaded} if isinstance(loaded, np.ndarray) else dict(loaded)
        except Exception as error:  # damage surfaces as errors of zip, zlib, tokenize and more
            what = "is truncated or not a NumPy file"
            if "Object arrays" in str(error):
                what = "holds Python objects, which are not read"
            raise ValueError(
                f"{path} {what} ({error}); save it again with numpy.save or numpy.savez"
            ) from error
    if arrays.keys() >= {"data", "indices", "indptr", "shape"}:
        array = _dense(arrays, path)
    else:
        named = [key for key in arrays if key.lower() in ("x", "images", "data")]
        found = named or [k for k, a in arrays.items() if a.ndim > 1 and a.dtype.kind in "biuf"]
        found = found or list(arrays)
        if len(found) != 1:
            shapes = ", ".join(f"{key} {arrays[key].shape}" for key in found) or "no arrays"
            raise ValueError(f"{path} holds {shapes}; save one array of rows, under the name x")
        array = arrays[found[0]]
    x = _to_rows(array, path)

    def vector(names: str, size: int, kinds: str) -> np.ndarray | None:
        found = (arrays[key] for key in names.split() if key in arrays)
        return next((a for a in found if a.shape == (size,) and a.dtype.kind in kinds), None)

    labels = vector("y labels label targets", len(x), "biuU")
    meanings = arrays.get("label_names")
    if labels is not None and labels.dtype.kind != "U":
        labels = labels.astype(np.int64)
        if meanings is not None and labels.min() >= 0 and labels.max() < len(meanings):
            labels = meanings[labels]
    names = vector("feature_names features genes columns", x.shape[1], "U") if x.ndim == 2 else None
    features = None if names is None else tuple(names.tolist())
    return _checked(Dataset(path.stem, x, labels, features, str(path)))


def _dense(arrays: dict[str, np.ndarray], path: Path) -> np.ndarray:
    from scipy import sparse

    form = arrays["format"].item().decode() if "format" in arrays else "csr"
    if form not in ("csr", "csc"):
        raise ValueError(f"{path} is a sparse matrix in form {form!r}; save it as csr or csc")
    triple = (arrays["data"], arrays["indices"], arrays["indptr"])
    try:
        matrix = getattr(sparse, f"{form}_matrix")(triple, shape=tuple(arrays["shape"]))
        matrix.check_format(full_check=True)
    except ValueError as error:
        raise ValueError(f"{path} is not a consistent sparse matrix ({error})") from error
    return matrix.toarray()


def _to_rows(array: np.ndarray, path: Path) -> Tensor:
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{path} has dtype {array.dtype}; accepted are real numbers and bool")
    if array.ndim < 2:
        hint = "; reshape it to (rows, 1)" if array.ndim else ""
        raise ValueError(f"{path} has shape {array.shape}, but needs rows and features{hint}")
    if array.size == 0:
        raise ValueError(f"{path} is empty: its shape is {array.shape}")
    if array.ndim == 2 or array.dtype != np.uint8:
        with np.errstate(over="ignore"):  # what does not fit becomes infinite, and is reported
            array = array.astype(np.float32)
    return _channels_first(torch.from_numpy(np.ascontiguousarray(array))).contiguous()


def _channels_first(x: Tensor) -> Tensor:
    if x.ndim == 4 and x.shape[3] in (1, 3) and x.shape[1] not in (1, 3):
        x = x.permute(0, 3, 1, 2)  # (row, H, W, C) -> (row, C, H, W)
    return x[:, 0] if x.ndim == 4 and x.shape[1] == 1 else x


def _checked(data: Dataset, lines: Sequence[int] = ()) -> Dataset:
    """The data, unless an entry is infinite or a whole feature missing."""
    infinite = data.x.isinf().nonzero()
    if len(infinite):
        row, *rest = infinite[0].tolist()
        where = f"row {row}, entry {tuple(rest)}"
        if lines and data.feature_names:
            where = f"line {lines[row]}, column {data.feature_names[rest[0]]!r}"
        raise ValueError(
            f"{data.source} has {len(infinite)} infinite entries (or too large for float32), the "
            f"first in {where}; write a missing entry as NaN, and rescale large ones"
        )
    if data.x.ndim == 2 and (gone := data.x.isnan().all(0).nonzero().flatten().tolist()):
        names = [data.feature_names[i] if data.feature_names else str(i) for i in gone]
        raise ValueError(
            f"{data.source} has columns without a single value: {_some(names)}; remove them, or "
            "leave them out of a table with drop= (--drop)"
        )
    return data


def _some(names: Sequence[str], most: int = 20) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + more


def _read_table(path: Path, label: Column | None, drop: list[Column]) -> Dataset:
    import pandas as pd

    try:
        text = path.read_text(encoding="utf-8-sig")
        separator = _sniff(text)
        layout = list(_layout(text, separator, path))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is not a table in UTF-8 ({error})") from error
    cells = [cell.strip() for cell in layout[0][1]] if layout else []
    names = [str(i) for i in range(len(cells))]
    blank = bool(cells) and not cells[0]
    header = len(set(cells)) == len(cells) and all(map(_is_text, cells[blank:])) and any(cells)
    header = header or (len(cells) > 2 + blank and cells[blank:] == names[: len(cells) - blank])
    if header:
        names = cells
    lines = [line for line, _ in layout[header:]]
    if not lines:
        raise ValueError(f"{path} has no rows")
    try:
        frame = pd.read_csv(
            io.StringIO(text),
            sep=separator or r"\s+",
            header=0 if header else None,
            names=names,
            index_col=False,
            na_values=sorted(_MISSING),
            skipinitialspace=True,
            low_memory=False,
        )
    except pd.errors.ParserError as error:
        raise ValueError(
            f"{path} cannot be read as a table ({error}); look for a stray quote"
        ) from error
    removed = {_column(name, names, "drop", path) for name in drop}
    if header and blank:
        removed.add(0)
    labels = None
    if label is not None:
        column = _column(label, names, "label", path)
        if column in removed:
            raise ValueError(f"label={label!r} is also in drop=; it is not modelled in any case")
        removed.add(column)
        labels = _labels(frame.iloc[:, column])
    kept = [i for i in range(len(names)) if i not in removed]
    if not kept:
        raise ValueError(f"{path} has no columns left after label= and drop=")
    values, texts = np.empty((len(frame), len(kept)), np.float32), {}
    for place, i in enumerate(kept):
        numbers, wrong = _numbers(frame.iloc[:, i])
        if wrong.any():
            row = int(wrong.argmax())
            texts[names[i]] = f"{frame.iat[row, i]!r} in line {lines[row]} of column {names[i]!r}"
        with np.errstate(over="ignore"):
            values[:, place] = numbers
    if texts:
        hint = " (a header needs distinct names, none of them a number)" if not header else ""
        raise ValueError(
            f"{path} has text in columns {_some(list(texts))}: {next(iter(texts.values()))}{hint}; "
            "keep one as labels with label= (--label), leave others out with drop=[...] (--drop)"
        )
    features = tuple(names[i] for i in kept)
    x = torch.from_numpy(values)
    return _checked(Dataset(path.stem, x, labels, features, str(path)), lines)


def _layout(text: str, separator: str | None, path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line numbers, and the cells of the first line."""
    first = None
    for line, cells in _rows(text, separator):
        first = first or cells
        if len(cells) != len(first):
            raise ValueError(
                f"{path} is ragged: line {line} has {len(cells)} cells, the first has {len(first)} "
                f"(separated by {separator or 'space'!r})"
            )
        yield line, cells if cells is first else []


def _rows(text: str, separator: str | None) -> Iterator[tuple[int, list[str]]]:
    """Line number, counted from one, and cells of every line that is not blank."""
    if separator is None:
        yield from ((i, line.split()) for i, line in enumerate(text.split("\n"), 1) if line.strip())
        return
    reader = csv.reader(io.StringIO(text), delimiter=separator, skipinitialspace=True)
    for cells in reader:
        if len(cells) > 1 or (cells and cells[0].strip()):
            yield reader.line_num, cells


def _sniff(text: str) -> str | None:
    """The separator of a table; None is whitespace."""
    # The comma last: it is also a decimal mark, and stands in text.
    candidates = ("\t", ";", "|", ",", None)
    widths = {s: [len(cells) for _, cells in islice(_rows(text, s), 100)] for s in candidates}
    for separator, found in widths.items():
        if len(set(found)) == 1 and found[0] > 1:
            return separator
    # Ragged, if most lines have it; else a single column, which the comma reads.
    split = {s: sum(width > 1 for width in found) for s, found in widths.items()}
    best = max((",", "\t", ";", "|", None), key=lambda s: split[s])
    return best if 2 * split[best] > len(widths[best]) else ","


def _is_text(cell: str) -> bool:
    if cell.lower() in _MISSING:
        return False
    try:
        float(cell)
    except ValueError:
        return True
    return False


def _column(which: Column, names: list[str], argument: str, path: Path) -> int:
    if which in names:
        return names.index(str(which))
    if str(which).removeprefix("-").isdecimal() and -len(names) <= int(which) < len(names):
        return int(which) % len(names)
    raise ValueError(f"{argument}={which!r} is no column of {path}, which has {_some(names)}")


def _numbers(column: Any) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of a column with NaN for missing, and where there is text instead."""
    import pandas as pd

    if pd.api.types.is_numeric_dtype(column):
        return column.to_numpy(dtype=np.float64, na_value=np.nan), np.zeros(len(column), bool)
    cells = column.astype(object).map(lambda cell: cell.strip() if isinstance(cell, str) else cell)
    missing = cells.isna() | cells.map(lambda cell: str(cell).lower() in _MISSING)
    numbers = pd.to_numeric(cells.where(~missing, None), errors="coerce").astype(np.float64)
    return numbers.to_numpy(), (numbers.isna() & ~missing).to_numpy()


def _labels(column: Any) -> np.ndarray:
    numbers, wrong = _numbers(column)
    if not wrong.any() and np.isfinite(numbers).all() and (numbers == np.round(numbers)).all():
        return numbers.astype(np.int64)
    missing = column.isna()
    return np.array(
        ["NA" if gone else str(cell) for cell, gone in zip(column, missing, strict=True)]
    )
