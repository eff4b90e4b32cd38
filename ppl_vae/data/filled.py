"""A table in a text file with its missing cells filled, and all else as it was."""

from __future__ import annotations

__all__ = ["filled_table"]

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

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

    Raises
    ------
    ValueError
        If the file has not as many rows, or cannot be read.
    """
    table = read_lines(path, header)
    rows = [cells for _, cells in rows_of(table.text, table.separator)]
    first, rows = rows[: table.header], rows[table.header :]
    if len(rows) != len(values):
        raise ValueError(
            f"{path} has {len(rows)} rows where {len(values)} were read from it; it was changed "
            "meanwhile: impute it again"
        )
    for at, name in enumerate(columns):
        column = table.names.index(name)
        written = [cells[column].strip() for cells in rows]
        comma = table.separator != "," and any(
            "," in cell and is_number(cell.replace(".", "").replace(",", ".")) for cell in written
        )
        for row in missing[:, at].nonzero()[0]:
            number = np.format_float_positional(
                values[row, at], precision=_DIGITS, fractional=False, trim="-"
            )
            rows[row][column] = number.replace(".", ",") if comma else number
    text = io.StringIO()
    csv.writer(text, delimiter=table.separator or " ", lineterminator="\n").writerows(first + rows)
    return text.getvalue()
