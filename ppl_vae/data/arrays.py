"""Arrays in .npy and .npz files: dense, sparse in the form of scipy, or split beforehand."""

from __future__ import annotations

__all__ = ["ARRAYS", "read_array"]

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .dataset import Dataset, Split, channels_first, checked
from .marks import unmarked, warn_of_marks
from .precision import in_single_precision, merged_by_double

ARRAYS = (".npy", ".npz")
# The columns of its latents_values, whose names are among Python objects.
_DSPRITES = ("color", "shape", "scale", "orientation", "x", "y")
# Entries that a sparse matrix may have when it is dense: 4 GB in single precision.
_MOST_ENTRIES = 2**30


def read_array(
    path: Path, context: Sequence[str] = (), marks: Sequence[str] = ()
) -> dict[Split, Dataset]:
    """Read train and test rows where the file splits them, else all rows, under None.

    ``context`` names arrays to read beside the rows, and ``marks`` are numbers that stand for
    missing entries.

    Raises
    ------
    ValueError
        The file is damaged, or holds several arrays that could be the rows, Python objects, text
        or infinite values.
    """
    arrays = _load(path)
    arrays |= {n: unmarked(arrays[n], marks, f"{n} in {path}") for n in context if n in arrays}
    keys = {key.lower(): key for key in arrays}
    if {"x_train", "x_test"} <= keys.keys():
        train, test = (
            _dataset(
                unmarked(arrays[keys[f"x_{part}"]], marks, str(path)),
                arrays,
                keys.get(f"y_{part}", ""),
                path,
                context,
                part,
            )
            for part in ("train", "test")
        )
        shapes = [f"{tuple(data.x.shape[1:])} {data.x.dtype}" for data in (train, test)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"{path} has rows of {shapes[0]} in x_train, but of {shapes[1]} in x_test; save "
                "both with one shape and dtype"
            )
        return {
            "train": warn_of_marks(checked(train)),
            "test": warn_of_marks(checked(test, partly=True)),
        }
    if {"data", "indices", "indptr", "shape"} <= arrays.keys():
        rows = _dense(arrays, path)
    else:
        rest = {key: array for key, array in arrays.items() if key not in context}
        named = [key for key in rest if key.lower() in ("x", "images", "imgs", "data")]
        found = named or [k for k, a in rest.items() if a.ndim > 1 and a.dtype.kind in "biuf"]
        found = found or list(arrays)
        if len(found) != 1:
            shapes = [f"{key} {arrays[key].shape}" for key in found]
            raise ValueError(
                f"{path} holds {', '.join(shapes) or 'no arrays'}; save one array of rows, under "
                "the name x, or two, under x_train and x_test"
            )
        rows = arrays[found[0]]
    rows = unmarked(rows, marks, str(path))
    data = _dataset(rows, arrays, "y labels label targets", path, context)
    return {None: warn_of_marks(checked(data))}


def _load(path: Path) -> dict[str, np.ndarray]:
    # The file is opened here, because numpy leaves a damaged archive open.
    with path.open("rb") as file:
        try:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return {"": loaded}
            return {key: loaded[key] for key in loaded.files if not _is_objects(loaded, key)}
        except Exception as error:  # damage surfaces as errors of zip, zlib, tokenize and more
            what = "is truncated or not a NumPy file"
            if "Object arrays" in str(error):
                what = "holds Python objects, which are not read"
            raise ValueError(
                f"{path} {what} ({error}); save it again with numpy.save or numpy.savez"
            ) from error


def _is_objects(archive: Any, key: str) -> bool:
    """Whether an array of an archive holds Python objects, such as its description."""
    with archive.zip.open(f"{key}.npy") as member:
        version = np.lib.format.read_magic(member)
        read = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        return read(member)[2].hasobject


def _dataset(
    rows: np.ndarray,
    arrays: dict[str, np.ndarray],
    label_keys: str,
    path: Path,
    context: Sequence[str],
    part: str = "",
) -> Dataset:
    source = f"x_{part} in {path}" if part else str(path)
    x = _to_rows(rows, source)

    def vector(keys: str, size: int, kinds: str) -> np.ndarray | None:
        # Keras saves some labels as a column, of shape (row, 1).
        found = (arrays[key] for key in keys.split() if key in arrays)
        fits = (a for a in found if a.shape in ((size,), (size, 1)) and a.dtype.kind in kinds)
        return next((a.reshape(size) for a in fits), None)

    labels = vector(label_keys, len(x), "biuU")
    meanings = arrays.get("label_names")
    if labels is not None and labels.dtype.kind != "U":
        # Identifiers beyond the largest integer are texts.
        labels = labels.astype(str if labels.max() > np.iinfo(np.int64).max else np.int64)
        classes = meanings if labels.dtype.kind == "i" else None
        if classes is not None and 0 <= labels.min() <= labels.max() < len(classes):
            labels = classes[labels]
    names = vector("feature_names features genes columns", x.shape[1], "U") if x.ndim == 2 else None
    features = None if names is None else tuple(names.tolist())
    beside = {}
    for name in context:
        key = f"{name}_{part}" if part else name
        if key in arrays:
            beside[name] = _beside(arrays[key], len(x), f"{key} in {path}")
    factors = _factors(arrays, len(x))
    return Dataset(path.stem, x, labels, features, source, factors, context=beside or None)


def _factors(arrays: dict[str, np.ndarray], size: int) -> dict[str, np.ndarray] | None:
    """What the rows were made from: the columns of ``factors``, or of dSprites' own array."""
    for key, known in (("factors", ()), ("latents_values", _DSPRITES)):
        table = arrays.get(key, np.empty(0))
        if table.ndim != 2 or len(table) != size:
            continue
        names = arrays.get("factor_names", np.array(known))
        if names.shape != table.shape[1:]:
            names = np.array([f"factor {i}" for i in range(table.shape[1])])
        columns = zip(names.tolist(), table.T, strict=True)
        # What is the same in every row, as the color of dSprites, is no factor.
        return {name: column for name, column in columns if (column != column[0]).any()} or None
    return None


def _beside(array: np.ndarray, rows: int, source: str) -> np.ndarray:
    """An array beside the rows, ``(row,)``, of texts or of double precision.

    Raises
    ------
    ValueError
        If it is of another shape or kind.
    """
    if array.shape not in ((rows,), (rows, 1)) or array.dtype.kind not in "biufUS":
        raise ValueError(
            f"context {source} has shape {array.shape} and dtype {array.dtype}; save one number or "
            f"text for each of the {rows} rows, and several columns under a name each"
        )
    return array.reshape(rows).astype(str if array.dtype.kind in "US" else np.float64)


def _dense(arrays: dict[str, np.ndarray], path: Path) -> np.ndarray:
    from scipy import sparse

    form = arrays["format"].item() if "format" in arrays else "csr"
    form = form.decode() if isinstance(form, bytes) else form
    if form not in ("csr", "csc"):
        raise ValueError(f"{path} is a sparse matrix in form {form!r}; save it as csr or csc")
    triple = (arrays["data"], arrays["indices"], arrays["indptr"])
    rows, columns = (int(size) for size in arrays["shape"])
    if rows * columns > _MOST_ENTRIES:
        raise ValueError(
            f"{path} is a sparse matrix of {rows} x {columns} entries, too many to be held dense; "
            "leave columns out, or save it in parts"
        )
    try:
        matrix = getattr(sparse, f"{form}_matrix")(triple, shape=tuple(arrays["shape"]))
        matrix.check_format(full_check=True)
    except ValueError as error:
        raise ValueError(f"{path} is not a consistent sparse matrix ({error})") from error
    return matrix.toarray()


def _to_rows(array: np.ndarray, source: str) -> Tensor:
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{source} has dtype {array.dtype}; accepted are real numbers and bool")
    if array.ndim < 2:
        hint = "; reshape it to (rows, 1)" if array.ndim else ""
        raise ValueError(f"{source} has shape {array.shape}, but needs rows and features{hint}")
    if array.size == 0:
        raise ValueError(f"{source} is empty: its shape is {array.shape}")
    if array.ndim == 2 or array.dtype != np.uint8:
        by_feature = array if array.ndim == 2 else array.reshape(-1, 1)
        huge = [i for i, column in enumerate(by_feature.T) if merged_by_double(column)]
        array = in_single_precision(array, source, merged=huge)
    return channels_first(torch.from_numpy(np.ascontiguousarray(array))).contiguous()
