"""A table in a text file with its missing cells filled, and all else as it was."""

from __future__ import annotations

__all__ = ["filled_table", "level_of"]

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .dates import SINCE, dates_like
from .kinds import ColumnKind
from .lines import is_number, read_lines, rows_of

# Significant digits of a cell that is filled in.
_DIGITS = 6


def filled_table(
    path: Path,
    columns: Sequence[str],
    values: np.ndarray,
    missing: np.ndarray,
    *,
    header: bool | None = None,
    kinds: Sequence[ColumnKind] = (),
) -> str:
    """The text of the table in ``path``, with values where cells of some columns are missing.

    Other cells, columns and lines stay as they are, but for comments, which are left out. Numbers
    have a decimal comma where the others of their column have one.

    Parameters
    ----------
    path
        A file that :func:`~ppl_vae.load_data` reads.
    columns
        Names of columns of the file.
    values, missing
        What to fill in, and where: shape ``(row, column)``.
    header
        As in :func:`~ppl_vae.load_data`.
    kinds
        What columns were taken for: levels and dates are written as such.

    Raises
    ------
    ValueError
        If the file has not as many rows, or cannot be read, or a value lies between levels.
    """
    import pandas as pd

    table = read_lines(path, header)
    rows = [cells for _, cells in rows_of(table.text, table.separator)]
    first, rows = rows[: table.header], rows[table.header :]
    if len(rows) != len(values):
        raise ValueError(
            f"{path} has {len(rows)} rows where {len(values)} were read from it; it was changed "
            "meanwhile: impute it again"
        )
    kind_of = {kind.name: kind for kind in kinds}
    for at, name in enumerate(columns):
        column = table.names.index(name)
        written = [cells[column].strip() for cells in rows]
        comma = table.separator != "," and any(
            "," in cell and is_number(cell.replace(".", "").replace(",", ".")) for cell in written
        )
        gone, kind = missing[:, at].nonzero()[0], kind_of.get(name)
        if kind is not None and kind.unit == SINCE:
            known = pd.Series(written)[~missing[:, at]]
            dates = dates_like(values[gone, at].astype(np.float64), known)
            for row, date in zip(gone, dates, strict=True):
                rows[row][column] = date
            continue
        for row in gone:
            number = _cell(float(values[row, at]), kind)
            rows[row][column] = number.replace(".", ",") if comma else number
    text = io.StringIO()
    csv.writer(text, delimiter=table.separator or " ", lineterminator="\n").writerows(first + rows)
    return text.getvalue()


def level_of(value: float, kind: ColumnKind) -> str:
    """The name of a level by its code; of two levels, or levels in order, the nearest.

    Raises
    ------
    ValueError
        If the value lies between levels that have no order, or beyond them.

    Examples
    --------
    >>> level_of(0.7, ColumnKind("sex", "binary", ("f", "m")))
    'm'
    """
    levels = kind.levels or ()
    code = round(value)
    if code == value or len(levels) == 2 or kind.kind == "ordinal":
        return levels[min(max(code, 0), len(levels) - 1)]
    raise ValueError(
        f"column {kind.name!r} would be filled with {value:.3g}, which is none of its "
        f"{len(levels)} levels; fill it with draws (--fill draw, draw=), or fit it as levels, with "
        "the likelihood mixed"
    )


def _cell(value: float, kind: ColumnKind | None) -> str:
    """A value as a table has it: a level by its name, a date, or a number."""
    if kind is not None and kind.levels is not None:
        return level_of(value, kind)
    return np.format_float_positional(value, precision=_DIGITS, fractional=False, trim="-")
