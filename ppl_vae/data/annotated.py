"""Counts of single cells in an AnnData: a matrix, names of genes, and what is said of cells."""

from __future__ import annotations

__all__ = ["ANNOTATED", "is_annotated", "read_annotated"]

from pathlib import Path
from typing import Any

import numpy as np
import torch

from .coding import LIBRARY
from .dataset import Dataset, abbreviated, checked
from .lines import MISSING
from .numerals import labels_of, texts_or_numbers
from .precision import in_single_precision
from .reading import Reading

ANNOTATED = ".h5ad"
# Entries that a matrix may have when it is dense: 4 GB in single precision.
_MOST_ENTRIES = 2**30
# Entries of a sparse matrix that are made dense at a time.
_AT_A_TIME = 2**24


def is_annotated(x: Any) -> bool:
    """Whether something is an AnnData, which is not imported for that."""
    return all(hasattr(x, name) for name in ("X", "obs", "var_names", "layers"))


def read_annotated(source: Any, reading: Reading, called: str) -> Dataset:
    """Read the counts of an AnnData or a .h5ad file; labels and context are columns of ``obs``.

    Of a file nothing but the matrix and ``obs`` is read. A sparse matrix becomes dense a few rows
    at a time, in single precision.

    Raises
    ------
    ValueError
        If the file is damaged, there is no such layer or column, or the matrix is too large to be
        dense or holds no numbers.
    """
    if reading.dropped or reading.column or reading.header is not None or reading.thousands:
        raise ValueError(
            f"drop, column, header and thousands are of tables, and {called} is an AnnData; leave "
            "them out, and leave genes out with adata[:, genes]"
        )
    if isinstance(source, Path):
        return _of_file(source, reading)
    layers = {**source.layers}
    matrix = source.X if reading.layer is None else layers.get(reading.layer)
    return _dataset(matrix, source.obs, source.var_names, list(layers), reading, called)


def _of_file(path: Path, reading: Reading) -> Dataset:
    try:
        import h5py
        from anndata.io import read_elem, sparse_dataset
    except ImportError as error:
        raise ValueError(
            f"{path} is an AnnData, which needs anndata; install it with "
            "python -m pip install 'ppl_vae[anndata]'"
        ) from error
    try:
        with h5py.File(path, "r") as file:
            layers = list(file.get("layers", ()))
            where = "X" if reading.layer is None else f"layers/{reading.layer}"
            stored = file.get(where)
            obs, names = read_elem(file["obs"]), read_elem(file["var"]).index
            matrix = stored
            if isinstance(stored, h5py.Group):
                by_row = stored.attrs.get("encoding-type") == "csr_matrix"
                matrix = sparse_dataset(stored) if by_row else read_elem(stored)
            return _dataset(matrix, obs, names, layers, reading, str(path))
    except (OSError, KeyError) as error:
        raise ValueError(f"{path} cannot be read as an AnnData ({error}); save it again") from error


def _dataset(
    matrix: Any, obs: Any, genes: Any, layers: list[str], reading: Reading, called: str
) -> Dataset:
    if matrix is None:
        has = f"its layers are {abbreviated(layers)}" if layers else "it has no layers"
        what = "no X" if reading.layer is None else f"no layer={reading.layer!r} (--layer)"
        raise ValueError(f"{called} has {what}; {has}")
    values = _dense(matrix, called)
    names = [str(name) for name in genes]
    # A library size that is no column is the total of a row.
    context = [name for name in reading.beside if name != LIBRARY or name in obs.columns]
    columns = [name for name in (reading.label, *context) if name is not None]
    for name in columns:
        if name not in obs.columns:
            raise ValueError(
                f"{name!r} (label or context) is no column of obs of {called}, which has "
                f"{abbreviated([str(column) for column in obs.columns]) or 'none'}"
            )
    markers = [*sorted(MISSING), *reading.marks]
    # Texts of obs become categories when an AnnData is written, and are such before.
    kept = {name: obs[name] for name in context}
    kept = {n: c if c.dtype.kind in "biuf" else c.astype("category") for n, c in kept.items()}
    beside = {name: texts_or_numbers(column, None, markers) for name, column in kept.items()}
    layer = "" if reading.layer is None else f", layer {reading.layer}"
    data = Dataset(
        Path(called).stem,
        torch.from_numpy(in_single_precision(values, called, names=names)),
        None if reading.label is None else labels_of(obs[reading.label]),
        tuple(names),
        called + layer,
        context=beside or None,
    )
    return checked(data)


def _dense(matrix: Any, called: str) -> np.ndarray:
    """A matrix ``(cell, gene)``, sparse, dense or in a file, as an array of its own precision."""
    rows, columns = matrix.shape
    if np.dtype(matrix.dtype).kind not in "biuf":
        raise ValueError(f"{called} has a matrix of {matrix.dtype}; accepted are real numbers")
    if not rows or not columns:
        raise ValueError(f"{called} is empty: its shape is {(rows, columns)}")
    if rows * columns > _MOST_ENTRIES:
        raise ValueError(
            f"{called} has {rows} cells of {columns} genes, too many to be held dense; choose "
            "genes, such as the 2000 that vary most, with adata[:, genes]"
        )
    single = np.can_cast(matrix.dtype, np.float32) or np.dtype(matrix.dtype).kind in "iu"
    found = np.empty((rows, columns), np.float32 if single else matrix.dtype)
    if hasattr(matrix, "tocsr"):
        matrix = matrix.tocsr()
    step = max(1, _AT_A_TIME // columns)
    for start in range(0, rows, step):
        part = matrix[start : start + step]
        found[start : start + step] = part.toarray() if hasattr(part, "toarray") else part
    return found
