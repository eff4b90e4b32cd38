"""What rows are read from, such as tensors, arrays and memory maps, and what is refused."""

from __future__ import annotations

__all__ = [
    "ArrayLike",
    "PackedBits",
    "as_tensor",
    "check_rows",
    "checked_weights",
    "covariates_beside",
    "in_memory",
    "read",
    "rows_together",
    "source_of",
]

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from math import prod
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from .parts import RowsInParts, opened, rows_together
from .tensors import as_tensor, check_dtype

# Up to here whole numbers are exact in single precision.
_EXACT = 2**24


class ArrayLike(Protocol):
    """What rows may be read from: a NumPy array, a memory map, a zarr array."""

    shape: tuple[int, ...]
    dtype: Any

    def __getitem__(self, rows: Any, /) -> Any: ...


def source_of(x: Any) -> Tensor | ArrayLike:
    """``x`` as a tensor if it is in memory, else as it is, to be read when rows are taken.

    Parameters
    ----------
    x
        A tensor; a NumPy array, of whole numbers too, in which a masked entry is missing; a
        DataFrame of pandas or polars, in which a missing entry is NaN or null; what ``load_data``
        returns; a memory map, a zarr array, or anything else with a shape, a dtype and slicing; the
        path of a .npy file, of a zarr array (.zarr) or of Parquet (.parquet), which are read as
        they are needed; a data set of torch, or a DataLoader, of which the data set is taken.

    Raises
    ------
    TypeError
        If it is none of these, sparse, or a table with columns that hold no numbers.
    ValueError, OSError
        If it holds no real numbers, or a file is not what its path says, or is not there.

    Examples
    --------
    >>> source_of(np.ones((3, 2))).dtype
    torch.float64
    """
    if _is_dataset(x):
        x = x.x
    x = opened(x)
    if hasattr(x, "columns") and hasattr(x, "to_numpy"):
        x = _numbers(x)
    sparse = hasattr(x, "toarray") or hasattr(x, "todense")
    if isinstance(x, Tensor) or sparse:
        return as_tensor(x)
    if isinstance(x, np.ndarray) and not isinstance(x, np.memmap):
        tensor = as_tensor(x)
        if tensor.is_floating_point() or tensor.dtype == torch.uint8:
            return tensor
        large = tensor.dtype.itemsize > 2 and bool((tensor.double().abs() > _EXACT).any())
        return tensor.to(torch.float64 if large else torch.get_default_dtype())
    if all(hasattr(x, name) for name in ("shape", "dtype", "__getitem__")):
        check_dtype(x.dtype)
        return x
    raise TypeError(
        f"x is a {type(x).__name__}; pass rows as a torch.Tensor, a NumPy or zarr array, a "
        "DataFrame, what load_data returns, a data set of torch, or the path of a .npy, .zarr or "
        ".parquet file"
    )


def covariates_beside(x: Any) -> Any:
    """The covariates that a Dataset brings; None of anything else, or where it has none."""
    return getattr(x, "covariates", None) if _is_dataset(x) else None


def _is_dataset(x: Any) -> bool:
    # A DataFrame may have a column called x, which is no tensor; what a data set of torch has under
    # this name need not be what its items are.
    other = isinstance(x, torch.utils.data.Dataset)
    return not other and isinstance(getattr(x, "x", None), Tensor)


def in_memory(x: Any) -> Tensor:
    """All rows of ``x``, whatever it is of what :func:`source_of` takes, as one tensor.

    Raises
    ------
    TypeError
        As :func:`source_of`.
    """
    source = source_of(x)
    return source if isinstance(source, Tensor) else as_tensor(source[:])


def _numbers(table: Any) -> np.ndarray:
    """A DataFrame's numbers, (row, feature), with NaN for what is missing."""
    columns = []
    for i, name in enumerate(table.columns):
        column = table.iloc[:, i] if hasattr(table, "iloc") else table[name]
        values = column.to_numpy()
        try:
            if values.dtype.kind in "mMc":
                # NumPy would count nanoseconds, and leave imaginary parts out.
                raise TypeError
            try:
                numbers = np.asarray(values, dtype=np.float64)
            except (TypeError, ValueError):
                # pandas's own mark of a missing entry is no number.
                numbers = column.to_numpy(dtype=np.float64, na_value=np.nan)
        except (TypeError, ValueError):
            raise TypeError(
                f"x is a {type(table).__name__} whose column {name!r} holds no numbers, such as "
                f"{values[0] if len(values) else None!r}; leave it out, or turn it into numbers"
            ) from None
        columns.append(numbers)
    return np.stack(columns, 1) if columns else np.empty((len(table), 0))


def read(source: Tensor | ArrayLike, rows: slice | Tensor) -> Tensor:
    """Rows of a source by a slice or by indices ``(row,)``, as it has them."""
    if isinstance(source, Tensor):
        if isinstance(rows, slice):
            return source[rows]
        # This is several times as fast as indexing, which copies entry by entry.
        return source.index_select(0, rows.to(source.device))
    if isinstance(rows, slice):
        with _decoding(source):
            return as_tensor(source[rows])
    # Stores are read in order and each row once: some accept nothing else.
    wanted, back = np.unique(rows.cpu().numpy(), return_inverse=True)
    if isinstance(source, (np.ndarray, PackedBits, RowsInParts)):
        found = source[wanted]
    elif hasattr(source, "oindex"):
        with _decoding(source):
            found = source.oindex[wanted]
    else:
        found = np.concatenate([np.asarray(source[i : i + 1]) for i in wanted.tolist()])
    return as_tensor(np.asarray(found)[back])


@contextmanager
def _decoding(source: ArrayLike) -> Iterator[None]:
    """Say whose rows are damaged: codecs raise RuntimeError of bytes that are not theirs."""
    try:
        yield
    except RuntimeError as error:
        raise OSError(f"rows of {source!r} cannot be read: {error}") from error


def check_rows(
    x: Tensor, name: str = "x", *, intensities: bool = True, dtype: torch.dtype | None = None
) -> None:
    """Refuse what no VAE could describe, whatever its shape and likelihood.

    ``dtype`` is that of the model, by default torch's default, in which numbers have to be finite.
    With ``intensities``, bytes of which none is above 1 are refused too: they are rather zeros and
    ones. Of rows for a model that knows what its bytes are, all may be dark.

    Raises
    ------
    TypeError
        If ``x`` is no tensor.
    ValueError
        If its dtype is neither floating point nor uint8, or it has no rows or no entries,
        infinite values or such as are too large for the model's precision, or rows in which every
        entry is missing.

    Examples
    --------
    >>> check_rows(torch.rand(3, 2))
    >>> check_rows(torch.tensor([[0.0, torch.inf]]))
    Traceback (most recent call last):
        ...
    ValueError: x has infinite values, the first in row 0; ...
    """
    if not isinstance(x, Tensor):
        raise TypeError(
            f"{name} is a {type(x).__name__}; pass a torch.Tensor, such as torch.as_tensor({name})"
        )
    as_tensor(x, name)
    if not (x.is_floating_point() or x.dtype == torch.uint8):
        raise ValueError(
            f"{name} has dtype {x.dtype}; accepted are floating point, with NaN for missing "
            f"entries, and uint8 for pixel intensities: pass {name}.float()"
        )
    if x.dim() < 2 or x.numel() == 0:
        raise ValueError(
            f"{name} has shape {tuple(x.shape)}; it needs at least one row of at least one entry: "
            "(row, feature) or (row, height, width)"
        )
    if x.dtype == torch.uint8:
        if intensities and x.max() <= 1:
            raise ValueError(
                f"{name} is uint8, which means intensities from 0 to 255, but none is above 1; "
                f"pass {name}.float() if these are zeros and ones"
            )
        return
    dtype = dtype or torch.get_default_dtype()
    if torch.finfo(x.dtype).max > (largest := torch.finfo(dtype).max):
        large = ((x > largest) | (x < -largest)) & x.isfinite()
        if large.any():
            row = int(large.flatten(1).any(1).nonzero()[0])
            raise ValueError(
                f"{name} has numbers beyond the largest of {dtype}, {largest:.3g}, such as "
                f"{x[large][0].item():.3g} in row {row}; divide them by a constant, as in another "
                "unit, or take their logarithms"
            )
    if not x.isfinite().all():
        rows = x.flatten(1)
        infinite = rows.isinf().any(1).nonzero().flatten()
        if len(infinite):
            raise ValueError(
                f"{name} has infinite values, the first in row {infinite[0]}; "
                "mark missing entries with NaN and leave out or correct the others"
            )
        empty = rows.isnan().all(1).nonzero().flatten().tolist()
        if empty:
            raise ValueError(
                f"{name} has no observed entry in {len(empty)} rows, such as {empty[:10]}; "
                "drop these rows"
            )


def checked_weights(weights: Tensor, rows: int) -> Tensor:
    """Weights of rows in double precision, over their mean."""
    weights = weights.double()
    if weights.shape != (rows,):
        raise ValueError(
            f"row_weights has shape {tuple(weights.shape)}; pass one number for each of the {rows} "
            "rows"
        )
    if not (weights.isfinite().all() and (weights >= 0).all() and weights.sum() > 0):
        raise ValueError(
            "row_weights has entries that are negative or not finite, or are all zero; pass "
            "numbers of at least 0"
        )
    return weights / weights.mean()


class PackedBits:
    """Zeros and ones in the memory of an eighth of their bytes, some of which may be missing.

    Parameters
    ----------
    bits
        Blocks of rows, ``(row, *event)``, of zeros, ones and NaN.

    Examples
    --------
    >>> bits = PackedBits([torch.tensor([[0.0, 1.0, 1.0]]), torch.tensor([[1.0, 0.0, 0.0]])])
    >>> bits.shape, bits[1:2].tolist()
    ((2, 3), [[True, False, False]])
    """

    def __init__(self, bits: Iterable[Tensor]) -> None:
        ones, missing, gaps = [], [], False
        for block in bits:
            event = tuple(block.shape[1:])
            flat = block.flatten(1).cpu()
            ones.append(np.packbits((flat == 1).numpy(), axis=1))
            missing.append(np.packbits(flat.isnan().numpy(), axis=1))
            gaps = gaps or bool(missing[-1].any())
        self._ones = np.concatenate(ones)
        self._missing = np.concatenate(missing) if gaps else None
        self.shape = (len(self._ones), *event)
        self.dtype = np.dtype(np.float32 if gaps else bool)

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        bits = self._unpacked(self._ones[rows])
        if self._missing is None:
            return bits
        return np.where(self._unpacked(self._missing[rows]), np.float32(np.nan), bits)

    def _unpacked(self, packed: np.ndarray) -> np.ndarray:
        event = self.shape[1:]
        bits = np.unpackbits(packed, axis=1, count=prod(event)).astype(bool)
        return bits.reshape(-1, *event)
