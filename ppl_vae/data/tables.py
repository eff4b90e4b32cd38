"""Tables in text files: separators, headers, missing markers, labels."""

from __future__ import annotations

__all__ = ["TABLES", "Column", "read_table"]

import csv
import io
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .dataset import Dataset, abbreviated, checked

Column = str | int


TABLES = (".csv", ".tsv", ".txt", ".data")
_MISSING = frozenset({"", "na", "n/a", "<na>", "nan", "null", "none", "?", "."})
_DECIMAL_COMMA = re.compile(r"[-+]?\d*,\d+(e[-+]?\d+)?", re.IGNORECASE)


def read_table(path: Path, label: Column | None, drop: list[Column]) -> Dataset:
    """Read the columns of a table, but for those in ``drop`` and the one of the labels.

    Raises
    ------
    ValueError
        The table is ragged, empty or not in UTF-8, a column holds text or no value at all, or
        ``label`` or ``drop`` is no column.
    """
    import pandas as pd

    try:
        text = path.read_text(encoding="utf-8-sig")
        separator = _sniff(text)
        layout = list(_layout(text, separator, path))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is not a table in UTF-8 ({error})") from error
    first = [cell.strip() for cell in layout[0][1]] if layout else []
    names = [str(i) for i in range(len(first))]
    blank = bool(first) and not first[0]
    header = len(set(first)) == len(first) and all(map(_is_text, first[blank:])) and any(first)
    header = header or (len(first) > 2 + blank and first[blank:] == names[: len(first) - blank])
    if header:
        names = first
    lines = [line for line, _ in layout[header:]]
    if not lines:
        raise ValueError(f"{path} has no rows")
    try:
        frame = pd.read_csv(
            io.StringIO(text),
            sep=separator or r"\s+",
            header=0 if header else None,
            names=names,
            index_col=False,
            na_values=sorted(_MISSING),
            skipinitialspace=True,
            low_memory=False,
        )
    except pd.errors.ParserError as error:
        raise ValueError(
            f"{path} cannot be read as a table ({error}); look for a stray quote"
        ) from error
    removed = {_column(name, names, "drop", path) for name in drop}
    if header and blank:
        removed.add(0)
    labels = None
    if label is not None:
        column = _column(label, names, "label", path)
        if column in removed:
            raise ValueError(f"label={label!r} is also in drop=; it is not modelled in any case")
        removed.add(column)
        labels = _labels(frame.iloc[:, column])
    kept = [i for i in range(len(names)) if i not in removed]
    if not kept:
        raise ValueError(f"{path} has no columns left after label= and drop=")
    values = np.empty((len(frame), len(kept)), np.float32)
    texts: dict[str, str] = {}
    commas: dict[str, str] = {}
    for place, i in enumerate(kept):
        numbers, wrong = _numbers(frame.iloc[:, i])
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
            f"{path} has decimal commas in columns {abbreviated(list(commas))}: "
            f"{next(iter(commas.values()))}; decimal commas are not read, write decimal points"
        )
    if texts:
        hint = " (a header needs distinct names, none of them a number)" if not header else ""
        raise ValueError(
            f"{path} has text in columns {abbreviated(list(texts))}: "
            f"{next(iter(texts.values()))}{hint}; "
            "keep one as labels with label= (--label), leave others out with drop=[...] (--drop)"
        )
    features = tuple(names[i] for i in kept)
    x = torch.from_numpy(values)
    return checked(Dataset(path.stem, x, labels, features, str(path)), lines)


def _layout(text: str, separator: str | None, path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line numbers, and the cells of the first line."""
    first = None
    for line, cells in _rows(text, separator):
        first = first or cells
        if len(cells) != len(first):
            raise ValueError(
                f"{path} is ragged: line {line} has {len(cells)} cells, the first has {len(first)} "
                f"(separated by {separator or 'space'!r})"
            )
        yield line, cells if cells is first else []


def _rows(text: str, separator: str | None) -> Iterator[tuple[int, list[str]]]:
    """Line number, counted from one, and cells of every line that is not blank."""
    if separator is None:
        yield from ((i, line.split()) for i, line in enumerate(text.split("\n"), 1) if line.strip())
        return
    reader = csv.reader(io.StringIO(text), delimiter=separator, skipinitialspace=True)
    for cells in reader:
        if len(cells) > 1 or (cells and cells[0].strip()):
            yield reader.line_num, cells


def _sniff(text: str) -> str | None:
    """The separator of a table; None is whitespace."""
    # The comma last: it is also a decimal mark, and stands in text.
    candidates = ("\t", ";", "|", ",", None)
    widths = {s: [len(cells) for _, cells in islice(_rows(text, s), 100)] for s in candidates}
    for separator, found in widths.items():
        if len(set(found)) == 1 and found[0] > 1:
            return separator
    # Ragged, if most lines have it; else a single column, which the comma reads.
    split = {s: sum(width > 1 for width in found) for s, found in widths.items()}
    best = max((",", "\t", ";", "|", None), key=lambda s: split[s])
    return best if 2 * split[best] > len(widths[best]) else ","


def _is_text(cell: str) -> bool:
    if cell.lower() in _MISSING:
        return False
    try:
        float(cell)
    except ValueError:
        return True
    return False


def _column(which: Column, names: list[str], argument: str, path: Path) -> int:
    if which in names:
        return names.index(str(which))
    if str(which).removeprefix("-").isdecimal() and -len(names) <= int(which) < len(names):
        return int(which) % len(names)
    raise ValueError(f"{argument}={which!r} is no column of {path}, which has {abbreviated(names)}")


def _numbers(column: Any) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of a column with NaN for missing, and where there is text instead."""
    import pandas as pd

    if pd.api.types.is_numeric_dtype(column):
        return column.to_numpy(dtype=np.float64, na_value=np.nan), np.zeros(len(column), bool)
    cells = column.astype(object).map(lambda cell: cell.strip() if isinstance(cell, str) else cell)
    missing = cells.isna() | cells.map(lambda cell: str(cell).lower() in _MISSING)
    numbers = pd.to_numeric(cells.where(~missing, None), errors="coerce").astype(np.float64)
    return numbers.to_numpy(), (numbers.isna() & ~missing).to_numpy()


def _labels(column: Any) -> np.ndarray:
    numbers, wrong = _numbers(column)
    if not wrong.any() and np.isfinite(numbers).all() and (numbers == np.round(numbers)).all():
        return numbers.astype(np.int64)
    missing = column.isna()
    return np.array(
        ["NA" if gone else str(cell) for cell, gone in zip(column, missing, strict=True)]
    )
