"""Tables in text files: which columns there are, and what becomes of each."""

from __future__ import annotations

__all__ = ["TABLES", "chosen", "read_table", "tabled"]

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .coding import LIBRARY
from .columns import coded_column, kinds_of, told_of
from .dataset import Dataset, abbreviated, checked
from .kinds import ColumnKind
from .levels import OddColumnError
from .lines import MISSING, Lines, read_lines
from .marks import warn_of_marks
from .numerals import (
    DECIMAL_COMMA,
    THOUSANDS,
    check_mark,
    labels_of,
    numbers_of,
    numbers_with_commas,
    refuse_points,
    texts_or_numbers,
    ungrouped,
)
from .precision import in_single_precision, merged_by_double
from .reading import Column, Reading

TABLES = (".csv", ".tsv", ".txt", ".data")


@dataclass(frozen=True)
class Chosen:
    """Which columns of a table are what: by number.

    Attributes
    ----------
    kept
        Columns that are modeled.
    labeled
        The column of labels, if any.
    besides
        Columns that rows are conditional on, by name.
    """

    kept: list[int]
    labeled: int | None
    besides: dict[str, int]


def chosen(names: list[str], reading: Reading, source: str, *, index: bool = False) -> Chosen:
    """The columns to model, to keep as labels and to keep beside the rows.

    Raises
    ------
    ValueError
        If one that is named is no column, or is asked for twice, or none is left.
    """
    removed = {_column(name, names, "drop", source) for name in reading.dropped}
    if index:
        removed.add(0)
    label = reading.label
    labeled = None if label is None else _column(label, names, "label", source)
    if labeled is not None and labeled in removed:
        raise ValueError(f"label={label!r} is also in drop=; it is not modeled in any case")
    besides = {
        name: _column(name, names, "context", source)
        for name in reading.beside
        if name != LIBRARY or name in names  # else the total of a row
    }
    for name, column in besides.items():
        if column in removed:
            raise ValueError(f"context={name!r} is also in drop=; it is not modeled in any case")
    removed |= {*besides.values()} | (set() if labeled is None else {labeled})
    kept = [i for i in range(len(names)) if i not in removed]
    if not kept:
        raise ValueError(f"{source} has no columns left after label= and drop=")
    return Chosen(kept, labeled, besides)


def read_table(path: Path, reading: Reading) -> Dataset:
    """Read the columns of a table, but for those left out and those beside the rows.

    Raises
    ------
    ValueError
        The table is ragged, empty or in an unknown encoding, a column cannot be modeled or has no
        value at all, or one that is named is no column.
    """
    import pandas as pd

    table = read_lines(path, reading.header)
    names, lines = table.names, table.numbers
    markers = [*sorted(MISSING), *reading.marks]
    check_mark(reading.thousands)
    columns = chosen(names, reading, str(path), index=table.index)
    kept = columns.kept
    told = told_of(reading.column, [names[i] for i in kept], str(path))

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

    # Names of rows and levels are texts, whatever they look like: 007, or more digits than a
    # number holds.
    as_text = {i: str for i in kept if names[i] in told}
    if columns.labeled is not None:
        as_text[columns.labeled] = str
    try:
        frame = cells(as_text if reading.thousands is None else str)
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise ValueError(
            f"{path} cannot be read as a table ({error}); look for a stray quote"
        ) from error
    if reading.thousands is not None:
        for i in range(len(names)):
            frame[i] = ungrouped(frame[i], reading.thousands, names[i], lines, path)
    labels = None if columns.labeled is None else labels_of(frame.iloc[:, columns.labeled])
    beside = {
        name: texts_or_numbers(frame.iloc[:, column], table.separator, markers)
        for name, column in columns.besides.items()
    }
    decimal_commas: set[int] = set()
    commas: dict[str, str] = {}

    def parsed(i: int) -> tuple[np.ndarray, np.ndarray]:
        numbers, wrong = numbers_of(frame.iloc[:, i], markers)
        if wrong.any():
            numbers, wrong = numbers_with_commas(frame.iloc[:, i], table.separator, markers)
            decimal_commas.update(() if wrong.any() else (i,))
        if wrong.any():
            odd = frame.iloc[wrong, i].astype(str).str.strip()
            if (odd.str.fullmatch(DECIMAL_COMMA) | odd.str.fullmatch(THOUSANDS)).all():
                row = int(wrong.argmax())
                commas[names[i]] = (
                    f"{frame.iat[row, i]!r} in line {lines[row]} of column {names[i]!r}"
                )
        return numbers, wrong

    numbers = {i: parsed(i) for i in kept}
    if commas:
        points = table.separator != "," and "thousands='.' if points mark thousands, "
        raise ValueError(
            f"{path} has commas in the numbers of columns {abbreviated(list(commas))}: "
            f"{next(iter(commas.values()))}; pass {points or ''}thousands=',' if commas "
            "do (--thousands); decimal commas are read where the separator is a semicolon or a tab"
        )
    values, kinds = tabled(
        frame.iloc[:, kept].set_axis([names[i] for i in kept], axis=1),
        [numbers[i] for i in kept],
        told,
        reading.unseen,
        str(path),
        lambda row: f"line {lines[row]}",
        "" if table.header else " (a header needs distinct names, none of them a number)",
    )
    if decimal_commas and reading.thousands is None:
        plain = [i for i in kept if i not in decimal_commas]
        refuse_points(cells(str), plain, names, lines, path)
    features = tuple(names[i] for i in kept)
    huge = [i for i, c in enumerate(kept) if merged_by_double(frame.iloc[:, c].to_numpy())]
    x = torch.from_numpy(in_single_precision(values, str(path), names=features, merged=huge))
    data = Dataset(path.stem, x, labels, features, str(path), context=beside or None, columns=kinds)
    return warn_of_marks(checked(data, lines))


def tabled(
    frame: Any,
    numbers: Sequence[tuple[np.ndarray, np.ndarray]],
    told: dict[str, Any],
    unseen: str,
    source: str,
    place: Callable[[int], str],
    hint: str = "",
) -> tuple[np.ndarray, tuple[ColumnKind, ...] | None]:
    """The numbers of a table's columns, ``(row, column)``, and what each was taken for.

    Parameters
    ----------
    frame
        The columns to model.
    numbers
        Of each, its cells as numbers, and which are text.
    told, unseen
        As in :func:`~ppl_vae.data.columns.coded_column`, by name.
    source, place, hint
        What errors call the table and its rows, and what they say of its header.

    Raises
    ------
    ValueError
        If columns cannot be modeled; it names all of them, and a cell of the first.
    """
    values = np.empty((len(frame), len(frame.columns)), np.float64)
    kinds: list[ColumnKind | None] = []
    odd: dict[str, OddColumnError] = {}
    for at, name in enumerate(frame.columns):
        try:
            with np.errstate(over="ignore"):
                values[:, at], kind = coded_column(
                    frame.iloc[:, at], name, numbers[at], told.get(name), unseen=unseen
                )
            kinds.append(kind)
        except OddColumnError as error:
            odd[name] = error
    if odd:
        name, first = next(iter(odd.items()))
        what = "text in columns" if name not in told else "cells that cannot be read in columns"
        raise ValueError(
            f"{source} has {what} {abbreviated(list(odd))}: {first.cell!r} in {place(first.row)} "
            f"of column {name!r}{hint}; it {first.what}; keep one as labels with label= (--label), "
            "leave others out with drop=[...] (--drop)"
        )
    return values, kinds_of(list(frame.columns), values, kinds, told)


def _first_row(table: Lines) -> int:
    """How many lines of the text come before the first row."""
    if not table.header:
        return 0
    reader = csv.reader(io.StringIO(table.text), delimiter=table.separator or " ")
    for cells in reader:
        if any(cell.strip() for cell in cells):
            break
    return reader.line_num


def _column(which: Column, names: list[str], argument: str, source: str) -> int:
    if which in names:
        return names.index(str(which))
    if str(which).removeprefix("-").isdecimal() and -len(names) <= int(which) < len(names):
        return int(which) % len(names)
    raise ValueError(
        f"{argument}={which!r} is no column of {source}, which has {abbreviated(names)}"
    )
