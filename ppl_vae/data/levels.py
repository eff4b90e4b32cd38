"""Levels of a column: which there are, in which order, and the codes of cells by them."""

from __future__ import annotations

__all__ = [
    "MOST_LEVELS",
    "SAID",
    "TRUTH",
    "OddColumnError",
    "Wish",
    "by_levels",
    "levels_told",
    "warn_of_cases",
    "written",
]

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .dataset import abbreviated
from .kinds import ColumnKind
from .lines import is_number

# Levels of a column that are accepted; more are rather names of rows.
MOST_LEVELS = 1000
# Steps between whole numbers that grades may have.
_MOST_GRADES = 50
TRUTH = ("false", "true")
SAID = "as told (--column)"


class OddColumnError(ValueError):
    """A column that cannot be modeled: the row and the text of a cell, and what to do."""

    def __init__(self, row: int, cell: Any, what: str) -> None:
        self.row, self.cell, self.what = row, written(cell), what
        super().__init__(f"{self.cell!r} {what}")


@dataclass(frozen=True)
class Wish:
    """What a caller said of a column: a kind, and levels in order where it has some."""

    kind: str
    levels: tuple[str, ...] | None = None


def levels_told(
    cells: Any, values: np.ndarray, wrong: np.ndarray, told: Wish | ColumnKind
) -> tuple[tuple[str, ...], str]:
    """Levels of a column that is told to have some: those told, or those that it holds."""
    import pandas as pd

    if told.levels is not None:
        return told.levels, SAID
    if isinstance(cells.dtype, pd.CategoricalDtype):
        levels = tuple(map(written, cells.cat.categories))
        ordered = bool(cells.cat.ordered)
    else:
        levels, ordered = _levels_held(cells, values, wrong, told.kind)
    row = int(wrong.argmax())
    if told.kind == "ordinal" and not ordered:
        raise OddColumnError(
            row,
            cells.iloc[row],
            "is a text whose place among the others is not known: name the levels in order, as in "
            f"ordinal:{','.join(levels[:3])}",
        )
    if told.kind == "binary" and len(levels) != 2:
        raise OddColumnError(
            row,
            cells.iloc[row],
            f"is one of {len(levels)} levels, where binary takes 2: {abbreviated(levels, 5)}",
        )
    if not 2 <= len(levels) <= MOST_LEVELS:
        raise OddColumnError(
            row, cells.iloc[row], f"is one of {len(levels)} levels; accepted are 2 to 1000"
        )
    return levels, SAID


def _levels_held(
    cells: Any, values: np.ndarray, wrong: np.ndarray, kind: str
) -> tuple[tuple[str, ...], bool]:
    """Levels that a column holds, and whether their order is known."""
    present = cells[~np.isnan(values) | wrong].map(written)
    if wrong.any() or present.str.match(r"[-+]?0\d").any():
        return tuple(sorted(set(present))), False
    found = np.unique(values[~np.isnan(values)])
    low, high = (found[0], found[-1]) if len(found) else (0, 0)
    whole = (found == np.round(found)).all() and high - low <= _MOST_GRADES
    if kind == "ordinal" and whole:
        # A grade that none of these rows has can be given to others.
        found = np.arange(low, high + 1)
    return tuple(map(written, found)), True


def warn_of_cases(levels: Sequence[str], name: str) -> None:
    folded: dict[str, str] = {}
    for level in levels:
        other = folded.setdefault(" ".join(level.lower().split()), level)
        if other != level:
            warnings.warn(
                f"levels {other!r} and {level!r} of column {name!r} differ only in case or spaces, "
                "and are kept apart; write them alike if they are one",
                UserWarning,
                stacklevel=6,
            )


def by_levels(
    cells: Any, values: np.ndarray, wrong: np.ndarray, kind: ColumnKind, unseen: str
) -> np.ndarray:
    """Codes of cells by the levels of a column."""
    assert kind.levels is not None
    codes = {level: float(code) for code, level in enumerate(kind.levels)}
    truth = kind.levels == TRUTH
    # Categories are no numbers to pandas, and are all "wrong" or all missing by their cells.
    gone = (np.isnan(values) & ~wrong) | cells.isna().to_numpy()
    texts = cells.astype(object).map(written)
    known: dict[str, float] = {}
    for text, value in dict(zip(texts[~gone], values[~gone], strict=True)).items():
        number = float(text) if is_number(text) else value  # of 1,5 the reader knows the value
        plain = text if np.isnan(number) else written(number)
        again = text.lower() if truth else plain
        again = {"1": "true", "0": "false"}.get(again, again) if truth else again
        known[text] = codes.get(text, codes.get(again, np.nan))
    found = np.where(gone, np.nan, texts.map(known).to_numpy(np.float64, na_value=np.nan))
    unknown = np.isnan(found) & ~gone
    if unknown.any() and unseen == "refuse":
        row = int(unknown.argmax())
        raise OddColumnError(
            row,
            texts.iloc[row],
            f"is none of the levels of this column, {abbreviated(kind.levels)}: read such cells as "
            "missing with unseen='missing' (--unseen missing), or correct them",
        )
    return found


def written(value: Any) -> str:
    """The name of a level: whole numbers without a point, texts without spaces around them."""
    if isinstance(value, bool | np.bool_):
        return str(value).lower()
    if isinstance(value, int | np.integer):
        return str(value)
    if isinstance(value, float | np.floating):
        number = float(value)
        whole = number.is_integer() and abs(number) < 2**53
        return str(int(number)) if whole else repr(number)
    return str(value).strip()
