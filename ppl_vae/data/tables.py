"""Tables in text files: separators, headers, missing markers, labels."""

from __future__ import annotations

__all__ = ["TABLES", "Column", "read_table"]

import csv
import io
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .dataset import Dataset, abbreviated, checked
from .lines import MISSING, Lines, read_lines

Column = str | int


TABLES = (".csv", ".tsv", ".txt", ".data")
_THOUSANDS = re.compile(r"[-+]?\d{1,3}(,\d{3})+(\.\d+)?")
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
    try:
        frame = pd.read_csv(
            io.StringIO(table.text),
            sep=table.separator or r"\s+",
            header=None,
            skiprows=_first_row(table),
            names=range(table.width),
            index_col=False,
            na_values=markers,
            thousands=thousands,
            skipinitialspace=True,
            skip_blank_lines=table.width > 1,
            low_memory=False,
        ).iloc[:, : len(names)]
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise ValueError(
            f"{path} cannot be read as a table ({error}); look for a stray quote"
        ) from error
    if table.width == 1:  # blank lines at the end are no rows
        frame = frame.iloc[: len(lines)]
    blank = table.index
    removed = {_column(name, names, "drop", path) for name in drop}
    if blank:
        removed.add(0)
    labels = None
    if label is not None:
        column = _column(label, names, "label", path)
        if column in removed:
            raise ValueError(f"label={label!r} is also in drop=; it is not modeled in any case")
        removed.add(column)
        labels = _labels(frame.iloc[:, column])
    beside = {}
    for name in context:
        column = _column(name, names, "context", path)
        if column in removed and (label is None or column != _column(label, names, "label", path)):
            raise ValueError(f"context={name!r} is also in drop=; it is not modeled in any case")
        removed.add(column)
        beside[name] = _texts_or_numbers(frame.iloc[:, column], table.separator, markers)
    kept = [i for i in range(len(names)) if i not in removed]
    if not kept:
        raise ValueError(f"{path} has no columns left after label= and drop=")
    values = np.empty((len(frame), len(kept)), np.float64)
    texts: dict[str, str] = {}
    commas: dict[str, str] = {}
    for place, i in enumerate(kept):
        numbers, wrong = _numbers(frame.iloc[:, i], markers)
        if wrong.any():
            numbers, wrong = _with_commas(frame.iloc[:, i], table.separator, markers)
        if wrong.any():
            row = int(wrong.argmax())
            cells = frame.iloc[wrong, i].astype(str).str.strip()
            (commas if cells.str.fullmatch(_DECIMAL_COMMA).all() else texts)[names[i]] = (
                f"{frame.iat[row, i]!r} in line {lines[row]} of column {names[i]!r}"
            )
        with np.errstate(over="ignore"):
            values[:, place] = numbers
    if commas:
        raise ValueError(
            f"{path} has commas in the numbers of columns {abbreviated(list(commas))}: "
            f"{next(iter(commas.values()))}; pass thousands=',' (--thousands) if they mark "
            "thousands; decimal commas are read where the separator is a semicolon or a tab"
        )
    if texts:
        hint = " (a header needs distinct names, none of them a number)" if not header else ""
        raise ValueError(
            f"{path} has text in columns {abbreviated(list(texts))}: "
            f"{next(iter(texts.values()))}{hint}; "
            "keep one as labels with label= (--label), leave others out with drop=[...] (--drop)"
        )
    features = tuple(names[i] for i in kept)
    x = torch.from_numpy(_in_single_precision(values, features, path))
    read = Dataset(path.stem, x, labels, features, str(path), context=beside or None)
    return checked(read, lines)


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


def _numbers(column: Any, markers: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of a column with NaN for missing, and where there is text instead."""
    import pandas as pd

    if pd.api.types.is_numeric_dtype(column):
        return column.to_numpy(dtype=np.float64, na_value=np.nan), np.zeros(len(column), bool)
    cells = column.astype(object).map(lambda cell: cell.strip() if isinstance(cell, str) else cell)
    gone = cells.isna() | cells.map(lambda cell: str(cell).lower() in {m.lower() for m in markers})
    numbers = pd.to_numeric(cells.where(~gone, None), errors="coerce").astype(np.float64)
    return numbers.to_numpy(), (numbers.isna() & ~gone).to_numpy()


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


def _in_single_precision(values: np.ndarray, names: Sequence[str], path: Path) -> np.ndarray:
    """Single precision, unless that would merge values of a column that are different."""
    with np.errstate(over="ignore"):
        single = values.astype(np.float32)
    merged = []
    for i, name in enumerate(names):
        present = values[~np.isnan(values[:, i]), i]
        far = np.ptp(present) < 1e-4 * np.abs(present).max() if len(present) else False
        if far and len(np.unique(present)) > len(np.unique(present.astype(np.float32))):
            merged.append(name)
    if not merged:
        return single
    warnings.warn(
        f"{path} has columns so far from zero for their spread that single precision merges their "
        f"values: {abbreviated(merged)}; subtract a constant from them (as a time in seconds since "
        "the first), or the model will not see their differences",
        UserWarning,
        stacklevel=4,
    )
    return values


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
    numbers, wrong = _numbers(column, sorted(MISSING))
    if not wrong.any() and np.isfinite(numbers).all() and (numbers == np.round(numbers)).all():
        return numbers.astype(np.int64)
    missing = column.isna()
    return np.array(
        ["NA" if gone else str(cell) for cell, gone in zip(column, missing, strict=True)]
    )
