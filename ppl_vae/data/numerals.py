"""Numbers as people write them: decimal commas, thousands, marks of missing cells."""

from __future__ import annotations

__all__ = [
    "DECIMAL_COMMA",
    "THOUSANDS",
    "check_mark",
    "in_another_notation",
    "labels_of",
    "numbers_of",
    "numbers_with_commas",
    "refuse_points",
    "texts_or_numbers",
    "ungrouped",
]

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .lines import MISSING, is_number

THOUSANDS = re.compile(r"[-+]?\d{1,3}(,\d{2,3})*,\d{3}(\.\d+)?")
# Numbers of Fortran, of accountants and of other programs, with marks between thousands.
_NOTATION = re.compile(
    r"['(]?[-+]?(\d[\d_]*|\d{1,3}([ ',.\u2019]\d{2,3})*[ ',.\u2019]\d{3})([.,]\d*)?"
    r"( ?(d|e|[x*\u00d7] ?10 ?\^?) ?[-+]?\d+)?[')]?|0x[0-9a-f]+",
    re.IGNORECASE,
)
# Where commas are decimal marks, points between just three digits mark thousands.
_THOUSANDS_BY_POINT = re.compile(r"[-+]?\d{1,3}(\.\d{3})+")
DECIMAL_COMMA = re.compile(r"[-+]?[\d.]*,\d+(e[-+]?\d+)?", re.IGNORECASE)


def in_another_notation(text: str) -> bool:
    """Whether a text that is not read as a number is one nevertheless.

    Examples
    --------
    >>> [in_another_notation(text) for text in ("1.5D+03", "1 234", "(2.5)", "\u22121", "0x1F")]
    [True, True, True, True, True]
    >>> [in_another_notation(text) for text in ("18-25", "12:00", "A1", "<5", "1 apple")]
    [False, False, False, False, False]
    """
    plain = unicodedata.normalize("NFKC", text).replace("\u2212", "-")
    return _NOTATION.fullmatch(plain.strip()) is not None


def check_mark(thousands: str | None) -> None:
    """Refuse what cannot stand between thousands."""
    if thousands is not None and (len(thousands) != 1 or thousands in '+-"' or thousands.isalnum()):
        raise ValueError(
            f"thousands is {thousands!r} (--thousands); pass the one character that stands between "
            "thousands, such as a comma, a point or a space"
        )


def ungrouped(column: Any, mark: str, name: str, lines: Sequence[int], path: Path) -> Any:
    """Cells without the mark between their thousands.

    Raises
    ------
    ValueError
        If a number has the mark elsewhere, as decimals have.
    """
    spaces = "[ \u00a0\u202f]" if mark == " " else re.escape(mark)
    point = "," if mark == "." else r"\."
    whole = rf"[-+]?\d{{1,3}}(?:{spaces}\d{{2,3}})*{spaces}\d{{3}}(?:{point}\d*)?"
    cells = column.str.strip()
    bare = cells.str.replace(re.compile(spaces), "", regex=True)
    marked = (bare != cells) & bare.str.fullmatch(r"[-+]?[\d.,]*\d[\d.,]*").fillna(False)
    odd = (marked & ~cells.str.fullmatch(whole).fillna(False)).to_numpy(bool)
    if odd.any():
        row = int(odd.argmax())
        raise ValueError(
            f"{path} has {column.iat[row]!r} in line {lines[row]} of column {name!r}, where "
            f"{mark!r} does not stand before three digits, as thousands={mark!r} (--thousands) "
            "says; leave it out, or write all numbers alike"
        )
    return column.where(~marked, bare)


def refuse_points(
    text: Any, columns: list[int], names: list[str], lines: Sequence[int], path: Path
) -> None:
    """Refuse points that may mark thousands, in a table whose decimals have commas."""
    for i in columns:
        cells = text[i].dropna().str.strip()
        grouped = cells.str.fullmatch(_THOUSANDS_BY_POINT)
        if grouped.any() and (grouped | cells.str.fullmatch(r"[-+]?\d*")).all():
            row = grouped.idxmax()
            raise ValueError(
                f"{path} has decimal commas, and in column {names[i]!r} points that may mark "
                f"thousands: {cells[row]!r} in line {lines[row]}; pass thousands='.' "
                "(--thousands), or write all decimals alike"
            )


def numbers_of(column: Any, markers: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of a column with NaN for missing, and where there is text instead."""
    import pandas as pd

    marks = np.array([float(marker) for marker in markers if is_number(marker)])
    if pd.api.types.is_numeric_dtype(column):
        values = column.to_numpy(dtype=np.float64, na_value=np.nan)
        if str(column.dtype).lower() in ("float32", "float16"):  # -999.9 is another number there
            marks = marks.astype(column.dtype.name.lower())
        return np.where(np.isin(values, marks), np.nan, values), np.zeros(len(column), bool)
    cells = column.astype(object).map(lambda cell: cell.strip() if isinstance(cell, str) else cell)
    gone = cells.isna() | cells.map(lambda cell: str(cell).lower() in {m.lower() for m in markers})
    numbers = pd.to_numeric(cells.where(~gone, None), errors="coerce").astype(np.float64)
    wrong = (numbers.isna() & ~gone).to_numpy()
    # -999 marks -999,0 too.
    found = numbers.mask(numbers.isin(marks))
    return found.to_numpy(), wrong


def numbers_with_commas(
    column: Any, separator: str | None, markers: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """The same, with commas read as decimal marks where the separator is another.

    Where every comma stands before just three digits, thousands could be meant as well.
    """
    numbers, wrong = numbers_of(column, markers)
    cells = column[wrong].astype(str).str.strip()
    clear = cells.str.fullmatch(DECIMAL_COMMA).all() and not cells.str.fullmatch(THOUSANDS).all()
    points = column[~wrong].astype(str).str.contains(".", regex=False).any()
    if separator == "," or not clear or points:
        return numbers, wrong
    plain = column.astype(str).str.replace(".", "", regex=False).str.replace(",", ".")
    return numbers_of(plain, [*markers, "nan"])


def texts_or_numbers(column: Any, separator: str | None, markers: Sequence[str]) -> np.ndarray:
    """A column as numbers if all its cells are, else as texts; NaN or "" for missing cells."""
    # Categories are levels, whatever they are called.
    if str(column.dtype) != "category":
        numbers, wrong = numbers_of(column, markers)
        if wrong.any():
            numbers, wrong = numbers_with_commas(column, separator, markers)
        if not wrong.any():
            return numbers
    cells = column.astype(object).map(lambda cell: str(cell).strip())
    gone = column.isna() | cells.str.lower().isin([marker.lower() for marker in markers])
    return np.where(gone, "", cells.to_numpy(dtype=object)).astype(str)


def labels_of(column: Any) -> np.ndarray:
    """Integers, if every cell is one as a number would be written; else texts."""
    numbers, wrong = numbers_of(column, sorted(MISSING))
    texts = column.astype(object).map(lambda cell: "NA" if cell != cell else str(cell).strip())
    whole = not wrong.any() and np.isfinite(numbers).all() and (numbers == np.round(numbers)).all()
    if whole and np.abs(numbers).max() < 2**53 and not texts.str.match(r"[-+]?0\d").any():
        return numbers.astype(np.int64)
    return texts.to_numpy(dtype=object).astype(str)
