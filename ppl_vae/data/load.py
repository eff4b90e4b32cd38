"""Find what a name or a path stands for, read it and split it."""

from __future__ import annotations

__all__ = ["load_data", "load_splits"]

import difflib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from .annotated import ANNOTATED, is_annotated, read_annotated
from .arrays import ARRAYS, read_array
from .coding import Coding
from .columns import Told
from .covariates import coded
from .dataset import Dataset, Split, resized
from .frames import PARQUET, is_frame, name_of, read_frame
from .images import (
    IMAGE_SETS,
    IMAGES,
    has_own_split,
    read_digits,
    read_folders,
    read_stack,
    read_torchvision,
)
from .reading import Column, Reading
from .splitting import part_of
from .sprites import SIDE, read_sprites
from .tables import TABLES, read_table

Source = str | os.PathLike[str] | Any
_FILES = (*ARRAYS, *TABLES, *PARQUET, ANNOTATED, *IMAGES)
# Sets that need no file and no network.
_MADE = ("digits", "sprites")


def load_data(
    name_or_path: Source = "digits",
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
    column: Told = (),
    unseen: str = "refuse",
    layer: str | None = None,
    image_size: int | None = None,
) -> Dataset:
    """Read one split of a named data set, a file or a folder of images.

    A name wins over a path of the same spelling: write ``./mnist`` for a folder called mnist.
    The first line of a table is its header if its cells are distinct and each is text, neither a
    number nor a missing marker; or if they are 0, 1, 2, ..., as pandas writes by default. A first
    column whose header is blank is a row index and is left out. Missing markers are an empty cell,
    NA, N/A, NaN, null, None, ? and a lone dot, in any case. Columns of text become codes 0, 1, ...
    of their levels, dates become days since 1970, true and false 1 and 0; ``columns`` then says
    what each column was taken for, and why.

    Parameters
    ----------
    name_or_path
        ``"digits"`` (8x8, from scikit-learn); ``"sprites"`` (32x32, made here, whose ``factors``
        are shape, size, angle, x and y); an image set of torchvision in any case, such as
        ``"mnist"`` or ``"cifar10"``, downloaded if need be; a .npy or .npz array (also a sparse
        matrix in scipy's form); a table in .csv, .tsv, .txt, .data or .parquet; a DataFrame of
        pandas or polars, whose types say what columns are; an AnnData or .h5ad, whose columns of
        ``obs`` can be labels and context; a folder of images, where subfolders, if there are any,
        are the labels; an image file of many frames, such as a TIFF of many pages. Every frame is
        a row, in folders too. Gray images of 16 bits become numbers in [0, 1], pixels over 65535;
        those of real numbers stay as they are, and colors have 8 bits.
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
        What marks a missing cell of a table besides the usual marks, such as ``"-999"``, or a
        missing entry of an array. A warning says which values look like it and were not named.
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
    column
        What columns of a table are, where that is not seen: a kind by name, ``{"grade":
        "ordinal"}``, of binary, categorical, ordinal, count, positive, proportion and real, also
        with levels in order, ``"ordinal:low,middle,high"``; or the ``columns`` of another data
        set, whose levels these rows are coded by.
    unseen
        ``"refuse"`` a level that the other data set had not, or read it as ``"missing"``.
    layer
        Of an AnnData, the layer of counts; None is X.
    image_size
        Resize the shorter side to this, then crop the center: every event becomes a square.

    Returns
    -------
    The rows, with their labels and the names of their features where they are known.

    Raises
    ------
    ValueError
        The name is unknown, or the contents cannot be modeled (text among numbers, or of which
        nearly every cell is another, infinite values, ragged rows, a column without a value,
        images of several sizes, a truncated file), or a context is not there, has missing entries
        or never varies.
    FileNotFoundError
        There is no file or folder at a path.
    OSError
        A set is not under ``root`` and could not be downloaded.

    Examples
    --------
    >>> load_data("digits", "test")
    Dataset('digits', x=(359, 8, 8) torch.float32, labels=10 distinct)
    """
    reading = Reading(
        root=root,
        test_fraction=test_fraction,
        seed=seed,
        label=label,
        drop=drop,
        header=header,
        missing=missing,
        thousands=thousands,
        context=context,
        column=column,
        unseen=unseen,
        layer=layer,
        image_size=image_size,
    )
    (part,) = _read_splits(name_or_path, (split,), reading)
    return part


def load_splits(name_or_path: Source = "digits", **options: Any) -> tuple[Dataset, Dataset]:
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
    train, test = _read_splits(name_or_path, ("train", "test"), Reading(**options))
    return train, test


def _read_splits(
    name_or_path: Source, splits: tuple[Split, ...], reading: Reading
) -> tuple[Dataset, ...]:
    for split in splits:
        if split not in ("train", "test", None):
            raise ValueError(
                f"split is {split!r}; accepted are 'train', 'test' and None (all rows)"
            )
    called = name_of(name_or_path)
    parts = _read(name_or_path, splits, reading, called)
    parts = {split: resized(part, reading.image_size) for split, part in parts.items()}
    bytewise = all(part.x.dtype == torch.uint8 for part in parts.values())
    if bytewise and max(int(part.x.max()) for part in parts.values()) == 1:
        # These are masks, whose bytes are no intensities.
        parts = {s: replace(part, x=part.x.float(), masks=True) for s, part in parts.items()}
    if reading.contexts:
        parts = coded(parts, reading.contexts, called)
    return tuple(part_of(parts, split, reading) for split in splits)


def _read(
    name_or_path: Source, splits: tuple[Split, ...], reading: Reading, called: str
) -> dict[Split, Dataset]:
    """What a source holds, by the splits that it brings, or under None."""
    if is_annotated(name_or_path):
        return {None: read_annotated(name_or_path, reading, called)}
    framed = is_frame(name_or_path)
    source: Any = name_or_path if framed else _resolve(name_or_path)
    suffix = source.suffix.lower() if isinstance(source, Path) and source.is_file() else ""
    if suffix == ANNOTATED:
        return {None: read_annotated(source, reading, called)}
    if reading.layer is not None:
        raise ValueError(
            f"layer={reading.layer!r} (--layer) chooses a layer of an AnnData ({ANNOTATED}), and "
            f"{called!r} is none; leave it out"
        )
    if framed:
        return {None: read_frame(source, reading, called)}
    if suffix in TABLES:
        return {None: read_table(source, reading)}
    if suffix in PARQUET:
        return {None: read_frame(source, reading, called)}
    if reading.label is not None or reading.dropped or reading.column:
        given = {"label": reading.label, "drop": reading.dropped, "column": reading.column}
        said = " and ".join(f"{k}={v!r}" for k, v in given.items() if v or k != "column")
        raise ValueError(
            f"{said} choose columns of a table ({', '.join(TABLES + PARQUET)}), and "
            f"{called!r} is not one; leave them out"
        )
    if reading.header is not None or reading.thousands is not None:
        raise ValueError(
            f"header and thousands are of tables in text ({', '.join(TABLES)}), and {called!r} is "
            "not one; leave them out"
        )
    if suffix in ARRAYS:
        return read_array(source, reading.beside, reading.marks)
    if reading.marks:
        raise ValueError(
            f"missing={reading.missing!r} (--missing) marks cells of tables and entries of arrays, "
            f"and {called!r} holds images, of which none is missing; leave it out"
        )
    size = reading.image_size
    if isinstance(source, type):
        # Context is coded by all rows, so that it is coded alike whatever split is asked for.
        every = None in splits or reading.contexts
        own: tuple[Split, ...] = ("train", "test") if every else splits
        wanted = own if has_own_split(source) else (None,)
        return {s: read_torchvision(source, reading.place, s, size) for s in wanted}
    if isinstance(source, Path):
        if source.is_dir():
            return read_folders(source, size)
        return {None: read_stack(source, size)}
    return {None: read_sprites(size or SIDE) if source == "sprites" else read_digits()}


def _resolve(name_or_path: Source) -> Any:
    if not isinstance(name_or_path, str | os.PathLike):
        raise TypeError(
            f"name_or_path is a {type(name_or_path).__name__}; pass a name, a path, a DataFrame or "
            "an AnnData: arrays and tensors go to fit and the checks as they are"
        )
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
        if path.is_file() and path.suffix.lower() not in _FILES:
            raise ValueError(
                f"{path} is a file of an unknown kind; accepted are "
                f"{', '.join(_FILES[: -len(IMAGES)])}, "
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
