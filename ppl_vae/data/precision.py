"""Numbers in single precision, where that leaves them different."""

from __future__ import annotations

__all__ = ["in_single_precision", "merged_by_double"]

import warnings
from collections.abc import Sequence

import numpy as np

from .dataset import abbreviated

# Below this part of its size the spread of a feature is looked at value by value.
_FAR = 1e-4
# Values by which that is judged.
_LOOKED_AT = 10**6


def in_single_precision(
    values: np.ndarray,
    source: str,
    *,
    names: Sequence[str] | None = None,
    merged: Sequence[int] = (),
) -> np.ndarray:
    """Rows in single precision, unless that would merge values of a feature that are different.

    Parameters
    ----------
    values
        Shape ``(row, *event)``, NaN where missing. One-dimensional rows are judged by feature,
        others over all entries.
    source
        What errors call the rows.
    names
        Of the features of one-dimensional rows.
    merged
        Positions of features whose values double precision merged already.

    Raises
    ------
    ValueError
        If a feature is so small that single precision leaves nothing of it, or only a few digits.

    Warns
    -----
    UserWarning
        If values were merged, or would be: the rows stay in double precision then.

    Examples
    --------
    >>> in_single_precision(np.array([[0.5], [2.0]]), "x").dtype
    dtype('float32')
    """
    with np.errstate(over="ignore"):  # what is too large is infinite, and refused as such
        single = values.astype(np.float32)
    by_feature = values.ndim == 2
    columns = values if by_feature else values.reshape(-1, 1)
    low, high = np.fmin.reduce(columns, 0), np.fmax.reduce(columns, 0)  # NaN left out
    with np.errstate(invalid="ignore", over="ignore"):
        size = np.maximum(np.abs(low.astype(np.float64)), np.abs(high.astype(np.float64)))

    def called(i: int) -> str:
        return str(i) if names is None else names[i]

    tiny = np.flatnonzero((size > 0) & (size < float(np.finfo(np.float32).tiny)))
    if len(tiny):
        where = f"column {called(tiny[0])!r} of {source}" if by_feature else source
        raise ValueError(
            f"{where} has numbers of at most {size[tiny[0]]:.2g}, too small for single precision; "
            "multiply it by a constant, as in another unit"
        )
    found = [*merged]
    lossless = np.can_cast(values.dtype, np.float32)
    for i in [] if lossless else _far_from_zero(columns):
        present = columns[:, i][~np.isnan(columns[:, i])]
        if len(np.unique(present)) > len(np.unique(present.astype(np.float32))):
            found.append(i)
    if not found:
        return single
    said = [called(i) for i in sorted(set(found))] if by_feature else []
    warnings.warn(
        f"{source} has {'columns' if by_feature else 'values'} so far from zero for their spread "
        f"that single precision merges their values{f': {abbreviated(said)}' if said else ''}; "
        "subtract a constant from them (as a time in seconds since the first), or leave them out "
        "(as names of rows), or the model will not see their differences",
        UserWarning,
        stacklevel=5,
    )
    return values.astype(np.float64)


def _far_from_zero(columns: np.ndarray) -> list[int]:
    """Columns most of whose values are far from zero for their spread."""
    some = np.sort(columns[:: len(columns) // _LOOKED_AT + 1].astype(np.float64), axis=0)
    last = np.maximum((~np.isnan(some)).sum(0) - 1, 0)  # NaN come last
    # A mark of missing values may lie far from all others.
    low, high = (
        np.take_along_axis(some, np.rint(share * last).astype(int)[None], 0)[0]
        for share in (0.1, 0.9)
    )
    with np.errstate(invalid="ignore", over="ignore"):
        far = high - low < _FAR * np.maximum(np.abs(low), np.abs(high))
    found: list[int] = np.flatnonzero(far).tolist()
    return found


def merged_by_double(values: np.ndarray) -> bool:
    """Whether there are whole numbers among values that double precision cannot tell apart.

    Examples
    --------
    >>> merged_by_double(np.array([2**53, 2**53 + 1]))
    True
    """
    if values.dtype.kind not in "iu" or not values.size:
        return False
    if max(abs(int(values.min())), int(values.max())) <= 2**53:
        return False
    return len(np.unique(values)) > len(np.unique(values.astype(np.float64)))
