"""Find what a name or a path stands for, read it and split it."""

from __future__ import annotations

__all__ = ["load_data", "load_splits"]

import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from .arrays import ARRAYS, read_array
from .coding import Coding
from .covariates import coded
from .dataset import Dataset, Split, resized
from .images import (
    IMAGE_SETS,
    IMAGES,
    has_own_split,
    read_digits,
    read_folders,
    read_stack,
    read_torchvision,
)
from .sprites import SIDE, read_sprites
from .tables import TABLES, Column, read_table

# Sets that need no file and no network.
_MADE = ("digits", "sprites")


def load_data(
    name_or_path: str | os.PathLike[str] = "digits",
    split: Split = "train",
    *,
    root: str | os.PathLike[str] | None = None,
    test_fraction: float = 0.2,
    seed: int = 0,
    label: Column | None = None,
    drop: Column | Sequence[Column] = (),
    header: bool | None = None,
    missing: str | Sequence[str] = (),
    thousands: str | None = None,
    context: str | Coding | Sequence[str | Coding] = (),
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
    name_or_path
        ``"digits"`` (8x8, from scikit-learn); ``"sprites"`` (32x32, made here, whose ``factors``
        are shape, size, angle, x and y); an image set of torchvision in any case, such as
        ``"mnist"`` or ``"cifar10"``, downloaded if need be; a .npy or .npz array (also a sparse
        matrix in scipy's form); a table in .csv, .tsv, .txt or .data; a folder of images, where
        subfolders, if there are any, are the labels; an image file of many frames, such as a TIFF
        of many pages. Every frame is a row, in folders too.
    split
        ``"train"``, ``"test"`` or None, which is every row. Sets that bring their own split keep
        it (Omniglot: background and evaluation), and so does a .npz that holds ``x_train`` and
        ``x_test``, with labels ``y_train`` and ``y_test``; any other source is split at random.
    root
        Folder of downloaded sets; else the environment variable ``PPL_VAE_DATA``, else
        ``~/.cache/ppl_vae``.
    test_fraction, seed
        Share of the test rows and the seed, where the split is random. The rows of a random split
        come in permuted order.
    label
        Column of a table, by name or number, that is kept as labels and not modeled: integers if
        every cell is one (of at most 15 digits, none of them a leading zero), else strings as they
        are written, with ``"NA"`` where missing.
    drop
        Column or columns of a table to leave out.
    header
        Whether the first line of a table names its columns; None looks. It has to be said where a
        first line of numbers, such as wavelengths, could be either.
    missing
        What marks a missing cell of a table besides the usual marks, such as ``"-999"``.
    thousands
        What stands between thousands in the numbers of a table, such as ``","``; numbers that
        have it elsewhere are refused. A space stands for those that do not break lines, too.
    context
        Columns that the rows are conditional on and that are not modeled: of a table by name or
        number, of a .npz file arrays with one entry or row for each row (of a split file called
        ``name_train`` and ``name_test``), of sprites their factors, and of any set with classes
        ``"label"``. They become ``covariates``: text and classes one number for each level,
        numbers less their mean over their standard deviation. A ``Coding`` of another data set
        codes its column as there.
    image_size
        Resize the shorter side to this, then crop the center: every event becomes a square.

    Returns
    -------
    The rows, with their labels and the names of their features where they are known.

    Raises
    ------
    ValueError
        The name is unknown, or the contents cannot be modeled (text, infinite values, ragged
        rows, a column without a value, images of several sizes, a truncated file), or a context
        is not there, has missing entries or never varies.
    FileNotFoundError
        There is no file or folder at a path.
    OSError
        A set is not under ``root`` and could not be downloaded.

    Examples
    --------
    >>> load_data("digits", "test")
    Dataset('digits', x=(359, 8, 8) torch.float32, labels=10 distinct)
    """
    (part,) = _read_splits(
        name_or_path,
        (split,),
        root,
        test_fraction,
        seed,
        label,
        drop,
        image_size,
        header,
        missing,
        thousands,
        context,
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
    header: bool | None = None,
    missing: str | Sequence[str] = (),
    thousands: str | None = None,
    context: str | Coding | Sequence[str | Coding] = (),
    image_size: int | None = None,
) -> tuple[Dataset, Dataset]:
    """Read the train and test rows, going through the source once.

    Takes the arguments of ``load_data`` but for the split, and raises what it raises.

    Returns
    -------
    The train rows and the test rows.

    Examples
    --------
    >>> train, test = load_splits("digits", test_fraction=0.1)
    >>> len(train.x), len(test.x)
    (1617, 180)
    """
    train, test = _read_splits(
        name_or_path,
        ("train", "test"),
        root,
        test_fraction,
        seed,
        label,
        drop,
        image_size,
        header,
        missing,
        thousands,
        context,
    )
    return train, test


def _read_splits(
    name_or_path: str | os.PathLike[str],
    splits: tuple[Split, ...],
    root: str | os.PathLike[str] | None,
    test_fraction: float,
    seed: int,
    label: Column | None,
    drop: Column | Sequence[Column],
    image_size: int | None,
    header: bool | None,
    missing: str | Sequence[str],
    thousands: str | None,
    context: str | Coding | Sequence[str | Coding],
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
    beside = [context] if isinstance(context, str | Coding) else list(context)
    names = [column.name if isinstance(column, Coding) else column for column in beside]
    if len(set(names)) < len(names):
        raise ValueError(f"context={names!r} (--context) names a column twice; name each once")
    source = _resolve(name_or_path)
    parts: dict[Split, Dataset]
    if isinstance(source, Path) and source.is_file() and source.suffix.lower() in TABLES:
        markers = [missing] if isinstance(missing, str) else list(missing)
        parts = {
            None: read_table(
                source,
                label,
                dropped,
                names,
                header=header,
                missing=markers,
                thousands=thousands,
            )
        }
    elif label is not None or dropped:
        raise ValueError(
            f"label={label!r} and drop={dropped!r} choose columns of a table "
            f"({', '.join(TABLES)}), and {os.fspath(name_or_path)!r} is not one; leave them out"
        )
    elif isinstance(source, type):
        folder = os.environ.get("PPL_VAE_DATA", "~/.cache/ppl_vae") if root is None else root
        place = Path(folder).expanduser()
        # Context is coded by all rows, so that it is coded alike whatever split is asked for.
        own: tuple[Split, ...] = ("train", "test") if None in splits or beside else splits
        wanted = own if has_own_split(source) else (None,)
        parts = {s: read_torchvision(source, place, s, image_size) for s in wanted}
    elif isinstance(source, Path) and source.is_dir():
        parts = read_folders(source, image_size)
    elif isinstance(source, Path) and source.suffix.lower() in IMAGES:
        parts = {None: read_stack(source, image_size)}
    elif isinstance(source, Path):
        parts = read_array(source, names)
    elif source == "sprites":
        parts = {None: read_sprites(image_size or SIDE)}
    else:
        parts = {None: read_digits()}
    parts = {split: resized(part, image_size) for split, part in parts.items()}
    bytewise = all(part.x.dtype == torch.uint8 for part in parts.values())
    if bytewise and max(int(part.x.max()) for part in parts.values()) == 1:
        # These are masks, whose bytes are no intensities.
        parts = {s: replace(part, x=part.x.float(), masks=True) for s, part in parts.items()}
    if beside:
        parts = coded(parts, beside, os.fspath(name_or_path))
    return tuple(_choose(parts, split, test_fraction, seed) for split in splits)


def _choose(parts: dict[Split, Dataset], split: Split, test_fraction: float, seed: int) -> Dataset:
    if split in parts:
        return parts[split]
    if split is None:
        return _join(parts["train"], parts["test"])
    return _take(parts[None], split, test_fraction, seed)


def _resolve(name_or_path: str | os.PathLike[str]) -> str | Path | type:
    given = os.fspath(name_or_path)
    path = Path(given).expanduser()
    key = given.lower().replace("-", "").replace("_", "")
    if isinstance(name_or_path, str):
        if key in _MADE:
            return key
        named = next((name for name in IMAGE_SETS if name.lower() == key), None)
        if named is not None:
            from torchvision import datasets

            return getattr(datasets, named)
    if path.exists():
        if path.is_file() and path.suffix.lower() not in ARRAYS + TABLES + IMAGES:
            raise ValueError(
                f"{path} is a file of an unknown kind; accepted are {', '.join(ARRAYS + TABLES)}, "
                "a stack of images (.tif, .gif) and a folder of images"
            )
        return path
    if not isinstance(name_or_path, str) or path.suffix or "/" in given or os.sep in given:
        raise FileNotFoundError(f"there is no file or folder {path} (from {Path.cwd()})")
    from torchvision import datasets

    if key in {name.lower() for name in datasets.__all__}:
        raise ValueError(
            f"{given!r} is in torchvision, but is not a set of single images; accepted are, for "
            f"example, {', '.join(IMAGE_SETS[:14]).lower()}; or pass a folder of images"
        )
    close = difflib.get_close_matches(key, [*_MADE, *(name.lower() for name in IMAGE_SETS)])
    raise ValueError(
        f"unknown data set {given!r}"
        + (f": did you mean {' or '.join(close)}?" if close else "")
        + f" Names are {', '.join(_MADE)}, {', '.join(IMAGE_SETS[:14]).lower()}; "
        "a path to a .npy, .npz or .csv file, or to a folder of images, works too"
    )


def _take(whole: Dataset, split: Split, test_fraction: float, seed: int) -> Dataset:
    size = len(whole.x)
    if size < 2:
        raise ValueError(f"{whole.source} has {size} row, too few to split; pass split=None")
    # numpy's generator and not torch's, so that a seed does not depend on the torch release.
    order = np.random.default_rng(seed).permutation(size)
    cut = size - min(max(round(size * test_fraction), 1), size - 1)
    rows = order[:cut] if split == "train" else order[cut:]
    return whole.at(rows)


def _join(train: Dataset, test: Dataset) -> Dataset:
    shapes = [tuple(part.x.shape[1:]) for part in (train, test)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"{train.name} has images of shape {shapes[0]} to train on and {shapes[1]} to test; "
            "pass image_size= to make them equal"
        )
    labels, covariates = None, None
    if train.labels is not None and test.labels is not None:
        labels = np.concatenate([train.labels, test.labels])
    if train.covariates is not None and test.covariates is not None:
        covariates = torch.cat([train.covariates, test.covariates])

    def joined(
        first: Mapping[str, np.ndarray] | None, second: Mapping[str, np.ndarray] | None
    ) -> Mapping[str, np.ndarray] | None:
        if first is None or second is None:
            return None
        shared = [name for name in first if name in second]
        return {name: np.concatenate([first[name], second[name]]) for name in shared} or None

    return replace(
        train,
        x=torch.cat([train.x, test.x]),
        labels=labels,
        covariates=covariates,
        factors=joined(train.factors, test.factors),
        context=joined(train.context, test.context),
        source=f"{train.source}; {test.source}",
    )
