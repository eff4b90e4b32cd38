"""Marks of missing cells that nobody announced, such as -999, and those that were."""

from __future__ import annotations

__all__ = ["unmarked", "warn_of_marks"]

import re
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from .dataset import Dataset
from .lines import is_number

# -99, 999, 998 and their like, eights, also with decimals, -1, -9, and the least of 16 or 32 bits.
_USUAL = re.compile(r"-?(9+[5-9]|8{2,})(\.[98]+)?|-[19]|-32768|-2147483648")
# Fill values of NetCDF, GRIB and their like.
_LARGEST = 1e19
# Positive values up to which one cell is no mark: counts reach them.
_COUNTED = 99.9
# How far a usual mark, and a value that repeats, is from the others, in ranges of these.
_FAR, _FARTHER = 3.0, 10.0
# Different values beside it of which a range says something.
_ENOUGH = 5
_SHOWN = 3


def unmarked(values: np.ndarray, marks: Sequence[str], source: str) -> np.ndarray:
    """An array with NaN where it holds one of the marks of missing entries.

    Raises
    ------
    ValueError
        If a mark is no number, or the entries are intensities in bytes, which have no NaN.
    """
    if not marks or values.dtype.kind not in "biuf":
        return values
    if odd := [mark for mark in marks if not is_number(mark)]:
        raise ValueError(
            f"missing={odd[0]!r} (--missing) is no number, and {source} holds nothing else; pass "
            "the number that marks missing entries"
        )
    with np.errstate(over="ignore"):
        numbers = np.array([float(mark) for mark in marks])
        if values.dtype.kind == "f":
            numbers = numbers.astype(values.dtype)
    found = np.isin(values, numbers)
    if not found.any():
        return values
    if values.dtype == np.uint8 and values.ndim > 2:
        raise ValueError(
            f"{source} holds intensities in bytes, of which none can be missing; save it as "
            "floating-point numbers, with NaN where it is"
        )
    kept = values.dtype if values.dtype.kind == "f" else np.float64
    return np.where(found, np.array(np.nan, kept), values.astype(kept))


def warn_of_marks(data: Dataset) -> Dataset:
    """Give the data back, and say in one line which values look like marks of missing entries.

    Warns
    -----
    UserWarning
        If the least or the largest value of a column is far from all others, and is one that is
        usual for it, such as -999, or stands in several rows.
    """
    found = []
    for name, column in _columns(data):
        for value in _marks(column):
            found.append((name, value, int((column == value).sum())))
    if not found:
        return data
    said = [
        f"{_text(value)} in {count} {'cell' if count == 1 else 'cells'}" + (name and f" of {name}")
        for name, value, count in found[:_SHOWN]
    ]
    more = len(found) - len(said)
    marks = list(dict.fromkeys(_text(value) for _, value, _ in found))
    options = " ".join(f"--missing {mark}" for mark in marks[:_SHOWN])
    warnings.warn(
        f"{data.source} has {', '.join(said)}{f' and {more} more' if more else ''}, far from all "
        f"other values: if that marks what is missing, pass missing={marks[:_SHOWN]} ({options}), "
        "or it is modeled as a number",
        UserWarning,
        stacklevel=5,
    )
    return data


def _columns(data: Dataset) -> Iterator[tuple[str, np.ndarray]]:
    """The numbers of each column, or of all entries, by what a message calls it."""
    x = data.x.numpy()
    if x.dtype.kind == "f" and x.ndim == 2:
        names = data.feature_names or tuple(map(str, range(x.shape[1])))
        kinds = data.columns or (None,) * len(names)
        for name, kind, column in zip(names, kinds, x.T, strict=True):
            if kind is None or kind.levels is None:
                yield f"column {name!r}", column
    elif x.dtype.kind == "f":
        yield "", x.reshape(-1)
    for name, values in (data.context or {}).items():
        if values.dtype.kind == "f":
            yield f"context {name!r}", values


def _marks(column: np.ndarray) -> list[np.floating[Any]]:
    """The values of a column that look like marks: usual ones at its ends, or one that repeats."""
    lowest, highest = _ends(column), [-value for value in _ends(-column)]
    if len(lowest) < 2:
        return []
    found = [value for value in dict.fromkeys(lowest + highest) if _is_usual(value)]
    while found:
        others = column[~np.isin(column, found) & ~np.isnan(column)]
        near = [
            value
            for value in found
            if not _is_far(value, others) or (0 < value <= _COUNTED and (column == value).sum() < 2)
        ]
        if not near:
            return found
        found = [value for value in found if value not in near]
    for value in (lowest[0], highest[0]):
        others = column[(column != value) & ~np.isnan(column)]
        several = (column == value).sum() > 1 and len(np.unique(others)) >= _ENOUGH
        if several and _away(value, others) > _FARTHER * (others.max() - others.min()):
            return [value]
    return []


def _ends(column: np.ndarray) -> list[np.floating[Any]]:
    """The few least values of a column."""
    found: list[np.floating[Any]] = []
    for _ in range(_SHOWN):
        rest = column[column > found[-1]] if found else column[~np.isnan(column)]
        if not len(rest):
            break
        found.append(rest.min())
    return found


def _is_usual(value: np.floating[Any]) -> bool:
    return bool(abs(value) >= _LARGEST) or _USUAL.fullmatch(_text(value)) is not None


def _is_far(value: np.floating[Any], others: np.ndarray) -> bool:
    if not len(others):
        return False
    low, high = float(others.min()), float(others.max())
    return bool(value <= -9 and low >= 0) or _away(value, others) > _FAR * (high - low) > 0


def _away(value: np.floating[Any], others: np.ndarray) -> float:
    return max(float(others.min()) - float(value), float(value) - float(others.max()))


def _text(value: np.floating[Any]) -> str:
    """A value as a file has it: the shortest number that is read as it."""
    return str(value) if abs(value) >= _LARGEST else np.format_float_positional(value, trim="-")
