"""What the cells of a column are taken for: numbers, dates, truth values or levels, and why."""

from __future__ import annotations

__all__ = ["Told", "coded_column", "kinds_of", "plain", "told_of"]

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .dataset import abbreviated
from .dates import SINCE, days_of, days_written
from .kinds import KINDS, ColumnKind
from .levels import (
    MOST_LEVELS,
    SAID,
    TRUTH,
    OddColumnError,
    Wish,
    by_levels,
    levels_told,
    warn_of_cases,
    written,
)
from .numerals import in_another_notation

Told = Mapping[str, str] | Sequence[ColumnKind]

# Share of different values from which whole numbers may be names of rows.
_NAMES = 0.8
# Different whole numbers of a column of which it is said that they may be codes.
_FEW = 12
_WITH_UNIT = re.compile(
    r"([^\w\s.,+-]?) ?[-+]?\d[\d.,]*(?:e[-+]?\d+)? ?([^\w\s.,+-]?[^\W\d]{0,4}[^\w\s.,+-]?)",
    re.I,
)
_DOMAINS: Mapping[str, tuple[Callable[[Any], Any], str]] = {
    "count": (lambda v: (v >= 0) & (v == np.round(v)), "whole numbers of at least 0"),
    "positive": (lambda v: v > 0, "numbers above 0"),
    "proportion": (lambda v: (v >= 0) & (v <= 1), "numbers from 0 to 1"),
}


def told_of(column: Told, names: Sequence[str], source: str) -> dict[str, Wish | ColumnKind]:
    """What is told of columns, by name: kinds in words, or columns of other rows to keep to.

    Raises
    ------
    ValueError
        If a kind is unknown, or a column is not among ``names``.
    """
    if not isinstance(column, Mapping):
        return {kind.name: kind for kind in column}
    found: dict[str, Wish | ColumnKind] = {}
    for name, text in column.items():
        if name not in names:
            raise ValueError(
                f"column={name!r} (--column) is no column to be modeled of {source}, which has "
                f"{abbreviated(list(names))}"
            )
        kind, _, levels = str(text).partition(":")
        named = tuple(level.strip() for level in levels.split(",")) if levels else None
        if kind not in KINDS or (named and kind not in ("binary", "categorical", "ordinal")):
            raise ValueError(
                f"column {name!r} is told to be {text!r} (--column); accepted are "
                f"{', '.join(KINDS)}, and with levels in order ordinal:low,middle,high"
            )
        if named and (len(set(named)) < len(named) or len(named) < 2):
            raise ValueError(
                f"column {name!r} is told to be {text!r} (--column); name two levels or more, each "
                "once"
            )
        found[name] = Wish(kind, named)
    return found


def coded_column(
    cells: Any,
    name: str,
    numbers: tuple[np.ndarray, np.ndarray],
    told: Wish | ColumnKind | None = None,
    *,
    unseen: str = "refuse",
) -> tuple[np.ndarray, ColumnKind | None]:
    """The numbers that stand for the cells of a column, and what it was taken for.

    Parameters
    ----------
    cells
        A column of pandas, of any type, with NaN where missing.
    name
        Of the column.
    numbers
        Its cells as numbers ``(row,)``, NaN where missing or text, and which are text.
    told
        What it is told to be, or was in the rows of a fit; None looks.
    unseen
        ``"refuse"``, or ``"missing"``, a level that those rows had not.

    Returns
    -------
    Shape ``(row,)``, with NaN where missing; and the kind, None of plain numbers.

    Raises
    ------
    OddColumnError
        If cells cannot be modeled, or are not what they are told to be.
    """
    values, wrong = numbers
    if isinstance(told, ColumnKind) and told.levels is not None:
        return by_levels(cells, values, wrong, told, unseen), told
    dates = cells.dtype.kind in "mM" or str(cells.dtype).startswith("period")
    days, unit = days_of(cells) if dates else (None, "")
    if (
        days is None
        and wrong.any()
        and (told is None or told.kind not in ("categorical", "binary"))
    ):
        days, unit = _written_days(cells, wrong, values), SINCE
    if days is not None and (told is None or told.kind == "real"):
        if isinstance(told, ColumnKind):
            if told.unit != unit:
                raise OddColumnError(0, cells.iloc[0], "is a date where the fit had numbers")
            return days, told
        what = "durations" if unit == "days" else "dates"
        return days, ColumnKind(name, "real", None, f"{what}, as {unit}", unit)
    if told is None:
        return _looked_at(cells, name, values, wrong)
    if told.kind in ("binary", "categorical", "ordinal"):
        levels, why = levels_told(cells, values, wrong, told)
        kind = ColumnKind(name, told.kind, levels, why)
        return by_levels(cells, values, wrong, kind, unseen), kind
    if isinstance(told, ColumnKind) and told.unit:
        raise OddColumnError(0, cells.iloc[0], f"is no date, which the fit had: {told.unit}")
    if wrong.any() and cells[wrong].astype(str).str.strip().str.lower().isin(TRUTH).all():
        truth = cells[wrong].astype(str).str.strip().str.lower() == TRUTH[1]
        values, wrong = values.copy(), wrong.copy()
        values[wrong], wrong[:] = truth.to_numpy(np.float64), False
    if wrong.any():
        row = int(wrong.argmax())
        raise OddColumnError(row, cells.iloc[row], f"is text where {told.kind} takes numbers")
    if told.kind in _DOMAINS:
        accepts, words = _DOMAINS[told.kind]
        out = ~np.isnan(values) & ~accepts(values)
        if out.any():
            row = int(out.argmax())
            raise OddColumnError(row, values[row], f"is not among {words}, as {told.kind} is")
    if isinstance(told, ColumnKind):
        return values, told
    return values, ColumnKind(name, told.kind, None, SAID)


def _looked_at(
    cells: Any, name: str, values: np.ndarray, wrong: np.ndarray
) -> tuple[np.ndarray, ColumnKind | None]:
    import pandas as pd

    if isinstance(cells.dtype, pd.CategoricalDtype):
        levels = tuple(map(written, cells.cat.categories))
        if len(levels) < 2:
            raise OddColumnError(0, cells.iloc[0], "is its only category: there is nothing to fit")
        kind = "ordinal" if cells.cat.ordered else "categorical" if len(levels) > 2 else "binary"
        ordered = "ordered " if cells.cat.ordered else ""
        codes = cells.cat.codes.to_numpy(np.float64)
        made = ColumnKind(name, kind, levels, f"its dtype: {ordered}category")
        return np.where(codes < 0, np.nan, codes), made
    present = cells.dropna()
    if pd.api.types.is_bool_dtype(cells.dtype) or (
        len(present)
        and cells.dtype == object
        and all(isinstance(c, bool | np.bool_) for c in present)
    ):
        return values, ColumnKind(name, "binary", TRUTH, "only true and false")
    if not wrong.any():
        return values, None
    return _of_texts(cells, name, values, wrong)


def _of_texts(
    cells: Any, name: str, values: np.ndarray, wrong: np.ndarray
) -> tuple[np.ndarray, ColumnKind]:
    row = int(wrong.argmax())
    cell = str(cells.iloc[row]).strip()
    if not isinstance(cells.iloc[row], str):
        raise OddColumnError(row, cell, "is neither a number nor text")
    texts = cells[wrong].astype(str).str.strip()
    if texts.map(in_another_notation).all():
        raise OddColumnError(
            row,
            cell,
            "is a number in a notation that is not read: write -1234.5 or 1.2e3, or say what "
            "stands between thousands, with thousands= (--thousands), or that the column is "
            f"categorical, with column={{{name!r}: 'categorical'}} (--column)",
        )
    if (~np.isnan(values)).any():
        raise OddColumnError(
            row,
            cell,
            f"stands among numbers: mark it as missing with missing={cell!r} (--missing), or say "
            f"what the column is, as with column={{{name!r}: 'categorical'}} (--column)",
        )
    affixes = {m.groups() if (m := _WITH_UNIT.fullmatch(text)) else ("", "") for text in texts}
    if len(affixes) == 1 and affixes != {("", "")}:
        raise OddColumnError(
            row,
            cell,
            "is a number with its unit: write the number alone, or say that the column is "
            f"categorical, with column={{{name!r}: 'categorical'}} (--column)",
        )
    levels = tuple(sorted(set(texts)))
    if len(levels) == 1 and len(texts) > 1:
        raise OddColumnError(row, cell, "is its only value, so that there is nothing to fit")
    if len(levels) > min(MOST_LEVELS, max(2, len(texts) // 2)) or len(levels) == len(texts):
        raise OddColumnError(
            row,
            cell,
            f"is one of {len(levels)} different texts in {len(texts)} cells, like a name",
        )
    kind = ColumnKind(
        name,
        "binary" if len(levels) == 2 else "categorical",
        levels,
        f"text of {len(levels)} levels in {len(texts)} cells",
    )
    warn_of_cases(levels, name)
    return by_levels(cells, values, wrong, kind, "refuse"), kind


def _written_days(cells: Any, wrong: np.ndarray, values: np.ndarray) -> np.ndarray | None:
    """Days of texts that are all dates, NaN where missing; else None."""
    if (~np.isnan(values)).any() or not isinstance(cells.dropna().iloc[0], str):
        return _python_days(cells, wrong)
    texts = cells[wrong].str.strip()
    row = int(wrong.argmax())
    try:
        days = days_written(texts)
    except ValueError as error:
        raise OddColumnError(row, texts.iloc[0], str(error)) from error
    if days is None:
        return None
    if np.isnan(days).any():
        row = int(np.flatnonzero(wrong)[np.isnan(days).argmax()])
        cell = str(cells.iloc[row]).strip()
        raise OddColumnError(
            row, cell, f"is no date of the calendar: mark it with missing={cell!r} (--missing)"
        )
    found = np.full(len(cells), np.nan)
    found[wrong] = days
    return found


def _python_days(cells: Any, wrong: np.ndarray) -> np.ndarray | None:
    """Days of Python's own dates in a column of objects."""
    import datetime

    import pandas as pd

    kinds = (datetime.date, datetime.datetime)
    if not all(isinstance(cell, kinds) for cell in cells.dropna()):
        return None
    return days_of(pd.Series(pd.to_datetime(cells.astype(object), utc=True)))[0]


def plain(name: str, values: np.ndarray) -> ColumnKind:
    """What a column of numbers ``(row,)`` is taken for, beside columns that are none."""
    different = np.unique(values[~np.isnan(values)])
    if len(different) and np.isin(different, (0, 1)).all():
        return ColumnKind(name, "binary", ("0", "1"), "only 0 and 1")
    why = "numbers"
    whole = (different == np.round(different)).all()
    if len(different) <= _FEW and whole and len(values) > 2 * len(different):
        why = f"numbers, {len(different)} different whole ones"
    elif whole and len(different) > _NAMES * len(values) > _FEW:
        why = "whole numbers that nearly all differ"
    return ColumnKind(name, "real", None, why)


def kinds_of(
    names: Sequence[str], values: np.ndarray, found: Sequence[ColumnKind | None], told: Any
) -> tuple[ColumnKind, ...] | None:
    """The kinds of all columns ``(row, column)``; None where all hold plain numbers.

    Truth values among zeros and ones are plain numbers as well, unless something was told.
    """
    if all(kind is None for kind in found):
        return None
    bits = all(kind is None or kind.levels == TRUTH for kind in found) and not told
    if bits and np.isin(values[~np.isnan(values)], (0, 1)).all():
        return None
    columns = zip(names, values.T, found, strict=True)
    return tuple(kind or plain(name, column) for name, column, kind in columns)
