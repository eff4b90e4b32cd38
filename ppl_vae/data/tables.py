"""Tables in text files: separators, headers, missing markers, labels."""

from __future__ import annotations

__all__ = ["TABLES", "Column", "read_table"]

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .dataset import Dataset, abbreviated, checked
from .lines import MISSING, Lines, is_number, read_lines
from .precision import in_single_precision, merged_by_double

Column = str | int


TABLES = (".csv", ".tsv", ".txt", ".data")
_THOUSANDS = re.compile(r"[-+]?\d{1,3}(,\d{3})+(\.\d+)?")
# Where commas are decimal marks, points between just three digits mark thousands.
_THOUSANDS_BY_POINT = re.compile(r"[-+]?\d{1,3}(\.\d{3})+")
_DECIMAL_COMMA = re.compile(r"[-+]?[\d.]*,\d+(e[-+]?\d+)?", re.IGNORECASE)


def read_table(
    path: Path,
    label: Column | None,
    drop: list[Column],
    context: Sequence[str] = (),
    *,
    header: bool | None = None,
    missing: Sequence[str] = (),
    thousands: str | None = None,
) -> Dataset:
    """Read the columns of a table, but for ``drop``, the labels, and the ``context`` beside them.

    Raises
    ------
    ValueError
        The table is ragged, empty or in an unknown encoding, a column holds text or no value at
        all, or ``label``, ``drop`` or ``context`` is no column.
    """
    import pandas as pd

    table = read_lines(path, header)
    names, header, lines = table.names, table.header, table.numbers
    markers = [*sorted(MISSING), *map(str, missing)]
    _check_mark(thousands)
    removed = {_column(name, names, "drop", path) for name in drop}
    if table.index:
        removed.add(0)
    labeled = None if label is None else _column(label, names, "label", path)
    if labeled is not None and labeled in removed:
        raise ValueError(f"label={label!r} is also in drop=; it is not modeled in any case")
    besides = {name: _column(name, names, "context", path) for name in context}
    for name, column in besides.items():
        if column in removed:
            raise ValueError(f"context={name!r} is also in drop=; it is not modeled in any case")
    removed |= {*besides.values()} | (set() if labeled is None else {labeled})

    def cells(dtype: Any) -> Any:
        return pd.read_csv(
            io.StringIO(table.text),
            sep=table.separator or r"\s+",
            header=None,
            skiprows=_first_row(table),
            names=range(table.width),
            index_col=False,
            na_values=markers,
            skipinitialspace=True,
            skip_blank_lines=table.width > 1,
            low_memory=False,
            dtype=dtype,
        ).iloc[: len(lines), : len(names)]  # blank lines at the end are no rows

    # Names of rows are texts, whatever they look like: 007, or more digits than a number holds.
    as_text: Any = {} if labeled is None else {labeled: str}
    try:
        frame = cells(as_text if thousands is None else str)
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise ValueError(
            f"{path} cannot be read as a table ({error}); look for a stray quote"
        ) from error
    if thousands is not None:
        for i in range(len(names)):
            frame[i] = _ungrouped(frame[i], thousands, names[i], lines, path)
    labels = None if labeled is None else _labels(frame.iloc[:, labeled])
    beside = {
        name: _texts_or_numbers(frame.iloc[:, column], table.separator, markers)
        for name, column in besides.items()
    }
    kept = [i for i in range(len(names)) if i not in removed]
    if not kept:
        raise ValueError(f"{path} has no columns left after label= and drop=")
    values = np.empty((len(frame), len(kept)), np.float64)
    texts: dict[str, str] = {}
    commas: dict[str, str] = {}
    decimal_commas: set[int] = set()
    for place, i in enumerate(kept):
        numbers, wrong = _numbers(frame.iloc[:, i], markers)
        if wrong.any():
            numbers, wrong = _with_commas(frame.iloc[:, i], table.separator, markers)
            decimal_commas |= set() if wrong.any() else {i}
        if wrong.any():
            row = int(wrong.argmax())
            odd = frame.iloc[wrong, i].astype(str).str.strip()
            marked = odd.str.fullmatch(_DECIMAL_COMMA) | odd.str.fullmatch(_THOUSANDS)
            (commas if marked.all() else texts)[names[i]] = (
                f"{frame.iat[row, i]!r} in line {lines[row]} of column {names[i]!r}"
            )
        with np.errstate(over="ignore"):
            values[:, place] = numbers
    if commas:
        points = table.separator != "," and "thousands='.' if points mark thousands, "
        raise ValueError(
            f"{path} has commas in the numbers of columns {abbreviated(list(commas))}: "
            f"{next(iter(commas.values()))}; pass {points or ''}thousands=',' if commas "
            "do (--thousands); decimal commas are read where the separator is a semicolon or a tab"
        )
    if texts:
        hint = " (a header needs distinct names, none of them a number)" if not header else ""
        raise ValueError(
            f"{path} has text in columns {abbreviated(list(texts))}: "
            f"{next(iter(texts.values()))}{hint}; "
            "keep one as labels with label= (--label), leave others out with drop=[...] (--drop)"
        )
    if decimal_commas and thousands is None:
        _refuse_points(cells(str), [i for i in kept if i not in decimal_commas], names, lines, path)
    features = tuple(names[i] for i in kept)
    huge = [i for i, c in enumerate(kept) if merged_by_double(frame.iloc[:, c].to_numpy())]
    x = torch.from_numpy(in_single_precision(values, str(path), names=features, merged=huge))
    data = Dataset(path.stem, x, labels, features, str(path), context=beside or None)
    return checked(data, lines)


def _first_row(table: Lines) -> int:
    """How many lines of the text come before the first row."""
    if not table.header:
        return 0
    reader = csv.reader(io.StringIO(table.text), delimiter=table.separator or " ")
    for cells in reader:
        if any(cell.strip() for cell in cells):
            break
    return reader.line_num


def _column(which: Column, names: list[str], argument: str, path: Path) -> int:
    if which in names:
        return names.index(str(which))
    if str(which).removeprefix("-").isdecimal() and -len(names) <= int(which) < len(names):
        return int(which) % len(names)
    raise ValueError(f"{argument}={which!r} is no column of {path}, which has {abbreviated(names)}")


def _check_mark(thousands: str | None) -> None:
    if thousands is not None and (len(thousands) != 1 or thousands in '+-"' or thousands.isalnum()):
        raise ValueError(
            f"thousands is {thousands!r} (--thousands); pass the one character that stands between "
            "thousands, such as a comma, a point or a space"
        )


def _ungrouped(column: Any, mark: str, name: str, lines: Sequence[int], path: Path) -> Any:
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


def _refuse_points(
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


def _numbers(column: Any, markers: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of a column with NaN for missing, and where there is text instead."""
    import pandas as pd

    if pd.api.types.is_numeric_dtype(column):
        return column.to_numpy(dtype=np.float64, na_value=np.nan), np.zeros(len(column), bool)
    cells = column.astype(object).map(lambda cell: cell.strip() if isinstance(cell, str) else cell)
    gone = cells.isna() | cells.map(lambda cell: str(cell).lower() in {m.lower() for m in markers})
    numbers = pd.to_numeric(cells.where(~gone, None), errors="coerce").astype(np.float64)
    wrong = (numbers.isna() & ~gone).to_numpy()
    # -999 marks -999,0 too.
    found = numbers.mask(numbers.isin([float(m) for m in markers if is_number(m)]))
    return found.to_numpy(), wrong


def _with_commas(
    column: Any, separator: str | None, markers: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """The same, with commas read as decimal marks where the separator is another.

    Where every comma stands before just three digits, thousands could be meant as well.
    """
    numbers, wrong = _numbers(column, markers)
    cells = column[wrong].astype(str).str.strip()
    clear = cells.str.fullmatch(_DECIMAL_COMMA).all() and not cells.str.fullmatch(_THOUSANDS).all()
    points = column[~wrong].astype(str).str.contains(".", regex=False).any()
    if separator == "," or not clear or points:
        return numbers, wrong
    plain = column.astype(str).str.replace(".", "", regex=False).str.replace(",", ".")
    return _numbers(plain, [*markers, "nan"])


def _texts_or_numbers(column: Any, separator: str | None, markers: Sequence[str]) -> np.ndarray:
    """A column as numbers if all its cells are, else as texts; NaN or "" for missing cells."""
    numbers, wrong = _numbers(column, markers)
    if wrong.any():
        numbers, wrong = _with_commas(column, separator, markers)
    if not wrong.any():
        return numbers
    cells = column.astype(object).map(lambda cell: str(cell).strip())
    gone = column.isna() | cells.str.lower().isin([marker.lower() for marker in markers])
    return np.where(gone, "", cells.to_numpy(dtype=object)).astype(str)


def _labels(column: Any) -> np.ndarray:
    """Integers, if every cell is one as a number would be written; else texts."""
    numbers, wrong = _numbers(column, sorted(MISSING))
    texts = column.astype(object).map(lambda cell: "NA" if cell != cell else str(cell).strip())
    whole = not wrong.any() and np.isfinite(numbers).all() and (numbers == np.round(numbers)).all()
    if whole and np.abs(numbers).max() < 2**53 and not texts.str.match(r"[-+]?0\d").any():
        return numbers.astype(np.int64)
    return texts.to_numpy(dtype=object).astype(str)
