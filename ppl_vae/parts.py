"""Rows that are read a part at a time: files by their path, Parquet, and data sets of torch."""

from __future__ import annotations

__all__ = ["DatasetRows", "ParquetRows", "RowsInParts", "opened", "rows_together"]

import abc
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .tensors import as_tensor

# What a path may lead to.
_SUFFIXES = (".npy", ".zarr", ".parquet")


class RowsInParts(abc.ABC):
    """Rows somewhere else, that can be asked for by a slice or by indices that rise.

    Attributes
    ----------
    shape, dtype
        Of all rows together.
    together
        How many rows are read at once whichever is asked for; None where each is by itself.
    """

    shape: tuple[int, ...]
    dtype: Any
    together: int | None = None

    @abc.abstractmethod
    def take(self, rows: np.ndarray) -> np.ndarray:
        """The rows at some indices, which rise."""

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(self.shape[0]))
        if not len(rows):
            return np.empty((0, *self.shape[1:]), self.dtype)
        return self.take(np.asarray(rows))


class ParquetRows(RowsInParts):
    """The columns of a Parquet file, or of a folder of them, as rows of numbers.

    A missing entry is NaN. Row groups are read as they are needed, one at a time.

    Parameters
    ----------
    path
        The file, or the folder of files with the same columns, which are taken in their order.
    columns
        Which columns, in which order; None takes all.

    Raises
    ------
    ModuleNotFoundError
        Without pyarrow: ``pip install ppl_vae[disk]``.
    FileNotFoundError, ValueError
        If there is no such file, it is no Parquet, or a column is missing or holds no numbers.

    Examples
    --------
    >>> import tempfile, pandas
    >>> path = Path(tempfile.mkdtemp(), "rows.parquet")
    >>> pandas.DataFrame({"a": [1.0, 2.0], "b": [3, None]}).to_parquet(path)
    >>> ParquetRows(path)[0:2].tolist()
    [[1.0, 3.0], [2.0, nan]]
    """

    def __init__(self, path: str | os.PathLike[str], columns: Sequence[str] | None = None) -> None:
        try:
            import pyarrow
            from pyarrow import parquet
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "reading Parquet needs pyarrow: pip install 'ppl_vae[disk]'"
            ) from error
        path = Path(path)
        paths = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
        if not (paths and paths[0].exists()):
            raise FileNotFoundError(f"x is {str(path)!r}, where there is no Parquet file")
        try:
            self._files = [parquet.ParquetFile(one) for one in paths]
        except (pyarrow.ArrowInvalid, OSError) as error:
            raise ValueError(
                f"x is {str(path)!r}, which is no whole Parquet file: {error}"
            ) from error
        schema = self._files[0].schema_arrow
        names = list(schema.names if columns is None else columns)
        for file, one in zip(self._files, paths, strict=True):
            lost = [name for name in names if name not in file.schema_arrow.names]
            if lost:
                raise ValueError(
                    f"{str(one)!r} has no column {lost[0]!r}; it has "
                    f"{', '.join(map(repr, file.schema_arrow.names[:10]))}"
                )
        types = pyarrow.types
        for name in names:
            kind = schema.field(name).type
            if not (types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)):
                raise ValueError(
                    f"column {name!r} of {str(path)!r} holds {kind}, no numbers; leave it out: "
                    "ParquetRows(path, columns=[...])"
                )
        single = all(schema.field(name).type == pyarrow.float32() for name in names)
        self.dtype = np.dtype(np.float32 if single else np.float64)
        self.names = names
        groups = [
            (file, group, file.metadata.row_group(group).num_rows)
            for file in self._files
            for group in range(file.metadata.num_row_groups)
        ]
        self._groups = [(file, group) for file, group, _ in groups]
        sizes = [size for *_, size in groups]
        self._starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self.shape = (int(self._starts[-1]), len(names))
        self.together = max(sizes, default=1)
        self._last: tuple[int, np.ndarray] | None = None

    def take(self, rows: np.ndarray) -> np.ndarray:
        """The rows at some indices, which rise."""
        found = []
        groups = np.searchsorted(self._starts, rows, side="right") - 1
        for group in np.unique(groups):
            found.append(self._group(int(group))[rows[groups == group] - self._starts[group]])
        return np.concatenate(found)

    def _group(self, index: int) -> np.ndarray:
        last = self._last
        if last is None or last[0] != index:
            file, group = self._groups[index]
            table = file.read_row_group(group, columns=self.names)
            columns = [np.asarray(table[name].to_numpy(), dtype=self.dtype) for name in self.names]
            last = index, np.stack(columns, 1)
            self._last = last
        return last[1]


class DatasetRows(RowsInParts):
    """The rows of a map-style data set of torch: its items, or the first part of each.

    Parameters
    ----------
    dataset
        Items are tensors or arrays ``(*event,)``, or tuples such as (image, label), whose first
        part they are.

    Raises
    ------
    TypeError
        If an item is no tensor.
    ValueError
        If reading an item draws from torch's random state, so that it is another each time.
    """

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset
        before = torch.get_rng_state()
        first = self._item(0)
        if not torch.equal(before, torch.get_rng_state()):
            torch.set_rng_state(before)
            raise ValueError(
                f"x is a {type(dataset).__name__} whose items are drawn at random when they are "
                "read, so that each is another every time; leave the random transforms out"
            )
        self.shape = (len(dataset), *first.shape)
        self.dtype = first.dtype

    def take(self, rows: np.ndarray) -> np.ndarray:
        """The rows at some indices, which rise."""
        items = [self._item(row) for row in rows.tolist()]
        for row, item in zip(rows.tolist(), items, strict=True):
            if item.shape != self.shape[1:]:
                raise ValueError(
                    f"x has rows of several shapes: row {row} has {item.shape}, the first "
                    f"{self.shape[1:]}"
                )
        return np.stack(items)

    def _item(self, row: int) -> np.ndarray:
        item = self._dataset[row]
        if isinstance(item, tuple | list) and len(item):
            item = item[0]
        if not isinstance(item, torch.Tensor | np.ndarray):
            raise TypeError(
                f"x is a {type(self._dataset).__name__} whose items are of type "
                f"{type(item).__name__}; they have to be tensors, or tuples that begin with one"
            )
        return as_tensor(item).numpy(force=True)


def opened(x: Any) -> Any:
    """What is at a path, or the rows of a data set of torch; all else as it is.

    Raises
    ------
    TypeError, ValueError, OSError
        If it cannot be gone through in any order, or is not what it is called.
    """
    if isinstance(x, str | os.PathLike):
        return _at(Path(x))
    if isinstance(x, torch.utils.data.DataLoader):
        x = x.dataset
    if isinstance(x, torch.utils.data.IterableDataset) or hasattr(x, "__next__"):
        raise TypeError(
            f"x is a {type(x).__name__}, which can be gone through once and in one order; a fit "
            "and its checks need rows by number: write them to a .npy file (numpy.lib.format."
            "open_memmap) or a zarr array, and pass its path"
        )
    if isinstance(x, torch.utils.data.TensorDataset):
        return x.tensors[0]
    if isinstance(x, torch.utils.data.Dataset) and not hasattr(x, "shape"):
        return DatasetRows(x)
    return x


def _at(path: Path) -> Any:
    if path.suffix not in _SUFFIXES:
        raise ValueError(
            f"x is {str(path)!r}; accepted are paths that end in {', '.join(_SUFFIXES)}, which are "
            "read as they are needed: read others with load_data"
        )
    if not path.exists():
        raise FileNotFoundError(f"x is {str(path)!r}, where there is nothing")
    if path.suffix == ".npy":
        try:
            return np.load(path, mmap_mode="r")
        except ValueError as error:
            raise ValueError(f"x is {str(path)!r}, which is no whole array: {error}") from error
    if path.suffix == ".parquet":
        return ParquetRows(path)
    import zarr

    found = zarr.open(path, mode="r")
    if not isinstance(found, zarr.Array):
        names = ", ".join(repr(name) for name, _ in found.arrays())
        raise ValueError(
            f"x is {str(path)!r}, a group of zarr arrays ({names}); pass the path of one, or "
            "zarr.open(path)[name]"
        )
    return found


def rows_together(source: Any) -> int | None:
    """How many rows of a source are read at once whichever is asked for; None if each is alone."""
    if isinstance(source, RowsInParts):
        return source.together
    chunks = getattr(source, "shards", None) or getattr(source, "chunks", None)
    if isinstance(chunks, tuple) and chunks and isinstance(chunks[0], int):
        return chunks[0]
    return None
