"""The lines of a table in a text file: its encoding, separator, comments and header."""

from __future__ import annotations

__all__ = ["MISSING", "Lines", "is_number", "read_lines", "rows_of"]

import codecs
import csv
import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path

MISSING = frozenset({"", "na", "n/a", "<na>", "nan", "null", "none", "?", "."})
# Byte order marks and their encodings; UTF-32's begins with UTF-16's, so it comes first.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# What a spreadsheet writes where it could not compute, which is a cell and no comment.
_ERRORS = re.compile(r"#(N/A|NA|DIV/0!|VALUE!|REF!|NUM!|NULL!|NAME\?)", re.IGNORECASE)
# Below this a first line unlike all others is asked about.
_CHANCE = 1e-3
# Rows by which a first line is judged.
_LOOKED_AT = 1000
# A cell between spaces, which in quotes may hold spaces itself.
_QUOTED = re.compile(r'"(?:[^"]|"")*"(?=\s|$)|\S+')


@dataclass
class Lines:
    """A table as text.

    Attributes
    ----------
    text
        The table's text without comments.
    separator
        What separates cells; None is whitespace.
    header
        Whether the first line names the columns.
    names
        The names of the columns, or their numbers where there is no header.
    index
        Whether the first column is the name of a row, which its header leaves out or blank.
    numbers
        For each row, its line in the file.
    width
        Cells that a row has in the file, of which trailing empty ones may be no columns.
    """

    text: str
    separator: str | None
    header: bool
    names: list[str]
    index: bool
    numbers: list[int]
    width: int


def read_lines(path: Path, header: bool | None) -> Lines:
    """Read the text of a table and find out how it is laid out.

    Raises
    ------
    ValueError
        If it is ragged or empty, in an unknown encoding, or its first line could be a header of
        numbers as well as a row.
    """
    text, separator, skipped = _without_comments(_decoded(path))
    with _any_width():
        try:
            separator = _sniff(text) if separator is None else separator
            rows = [(skipped[line - 1], cells) for line, cells in rows_of(text, separator)]
        except csv.Error as error:
            raise ValueError(f"{path} cannot be read as a table ({error})") from error
    if not rows:
        raise ValueError(f"{path} has no rows")
    first = [cell.strip() for cell in rows[0][1]]
    named = len(first)
    widths = {len(cells) for _, cells in rows[1:]} or {named}
    width = max(widths)
    unnamed = False
    if len(widths) == 1:
        # Some programs end lines with separators, in the first line or in all of them.
        width = _columns(first, rows[1:])
        first = first[:width] if not any(first[width:]) else first
        # R leaves the name of the column of row names out.
        unnamed = len(first) == width - 1 and header is not False
    ragged = len(widths) > 1 or len(first) != width - unnamed
    found = not ragged and _has_header(first, rows[1:], path, header)
    if unnamed and len(first) == 1 and header is None:
        found = found and _name_rows([cells[0].strip() for _, cells in rows[1:]])
    if ragged or (unnamed and not found):
        line, cells = next((row for row in rows if len(row[1]) != named), rows[-1])
        title = (
            " A title above the table is no comment unless it begins with #." if named == 1 else ""
        )
        raise ValueError(
            f"{path} is ragged: line {line} has {len(cells)} cells, the first has {named} "
            f"(separated by {separator or 'space'!r}).{title}"
        )
    again = [
        line
        for line, cells in rows[1:]
        if cells[0].strip() == first[0] and [cell.strip() for cell in cells] == first
    ]
    if found and len(first) > 1 and again:
        raise ValueError(
            f"line {again[0]} of {path} repeats the header, as of several tables in one file; "
            "remove it"
        )
    names = first if found else [str(i) for i in range(len(first))]
    if unnamed:
        names = ["", *names]
    if len(rows) == found:
        raise ValueError(f"{path} has no rows")
    return Lines(
        text=text,
        separator=separator,
        header=found,
        names=names,
        index=found and not names[0],
        numbers=[line for line, _ in rows[found:]],
        width=max(len(cells) for _, cells in rows),
    )


def _columns(first: list[str], rows: list[tuple[int, list[str]]]) -> int:
    """How many columns rows of one width have, without nameless ones that are blank in all."""
    width = len(rows[0][1]) if rows else len(first)
    while width > 1 and not (
        any(first[width - 1 : width]) or any(cells[width - 1].strip() for _, cells in rows)
    ):
        width -= 1
    return width


def _name_rows(cells: list[str]) -> bool:
    """Whether cells are names of rows, as of a table of one column: words, or 1, 2, 3, ..."""
    return not any(map(is_number, cells)) or cells == [str(i) for i in range(1, len(cells) + 1)]


def _decoded(path: Path) -> str:
    content = path.read_bytes()
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8-sig")
    if encoding == "utf-8-sig" and b"\0" in content:
        # UTF-16 without its mark: every other byte of what is no letter of another alphabet.
        zeros = [content[start::2].count(0) for start in (0, 1)]
        if max(zeros) > len(content) // 4 and not min(zeros):
            encoding = "utf-16-be" if zeros[0] else "utf-16-le"
        else:
            raise ValueError(
                f"{path} holds the character NUL, which no table in text has; look for damage, or "
                "save it again in UTF-8"
            )
    try:
        return content.decode(encoding).replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not a table in UTF-8 ({error}); save it in UTF-8, which Excel calls "
            "'CSV UTF-8'"
        ) from error


def _without_comments(text: str) -> tuple[str, str | None, list[int]]:
    """Text less its comments, a separator that it states, and the file's line of each line.

    A comment begins with #. One before the first row that has as many cells as that is a header.
    """
    separator = None
    kept: list[str] = []
    numbers: list[int] = []
    comment: tuple[int, str] | None = None
    for number, line in enumerate(text.split("\n"), 1):
        if number == 1 and line.strip().lower().startswith("sep=") and len(line.strip()) == 5:
            separator = line.strip()[4]
        elif line.startswith("#") and not _ERRORS.match(line):
            comment = (number, line.lstrip("#").strip()) if not kept else comment
        else:
            if not kept and comment and line.strip() and _alike(comment[1], line):
                kept.append(comment[1])
                numbers.append(comment[0])
            kept.append(line)
            numbers.append(number)
    return "\n".join(kept), separator, numbers


def _alike(header: str, row: str) -> bool:
    """Whether a comment has as many cells as the row below it, more than one."""
    return any(
        header.count(mark) == row.count(mark) > 0 for mark in ("\t", ";", "|", ",")
    ) and not any(is_number(cell) for cell in header.replace(";", ",").split(","))


@contextmanager
def _any_width() -> Iterator[None]:
    """Lift the limit on a cell's length: a line is one cell until its separator is known."""
    before = csv.field_size_limit(2**31 - 1)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def rows_of(text: str, separator: str | None) -> Iterator[tuple[int, list[str]]]:
    """Line number, counted from one, and cells of every line that is not blank."""
    if separator is None:
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                cells = _QUOTED.findall(line) if '"' in line else line.split()
                yield number, [_unquoted(cell) for cell in cells]
        return
    reader = csv.reader(io.StringIO(text), delimiter=separator, skipinitialspace=True)
    for cells in reader:
        # An empty cell in quotes is a missing entry of a single column, and no blank line.
        if len(cells) > 1 or (cells and (cells[0].strip() or _quoted(text, reader.line_num))):
            yield reader.line_num, cells


def _unquoted(cell: str) -> str:
    return cell[1:-1].replace('""', '"') if cell[:1] == '"' == cell[-1:] and len(cell) > 1 else cell


def _quoted(text: str, line: int) -> bool:
    return '"' in text.split("\n", line)[line - 1]


def _sniff(text: str) -> str | None:
    """The separator of a table; None is whitespace."""
    # The comma comes last: it is also a decimal mark, and occurs in text.
    candidates = ("\t", ";", "|", ",", None)
    widths = {s: [len(cells) for _, cells in islice(rows_of(text, s), 100)] for s in candidates}
    for separator, found in widths.items():
        # The header of row names may be left out, and end with a separator.
        alike = found and len(set(found[1:] or found)) == 1 and abs(found[0] - found[-1]) <= 1
        if alike and found[-1] > 1:
            return separator
    # Ragged, if most lines have it; else a single column, which the comma reads.
    split = {s: sum(width > 1 for width in found) for s, found in widths.items()}
    best = max((",", "\t", ";", "|", None), key=lambda s: split[s])
    return best if 2 * split[best] > len(widths[best]) else ","


def _has_header(
    first: list[str], rows: list[tuple[int, list[str]]], path: Path, asked: bool | None
) -> bool:
    if asked is not None:
        return asked
    named = first[1:] if first and not first[0] else first
    numbers = [str(i) for i in range(len(first))]
    if len(named) > 2 - bool(named is not first) and named == numbers[: len(named)]:
        return True
    if len(set(first)) != len(first) or not any(first):
        return False
    text = [not is_number(cell) for cell in named]
    if all(text):
        if _among_rows(first, [cells for _, cells in rows[:_LOOKED_AT]]):
            return False
        # A column may be called Na or None; a line of marks such as ? names nothing.
        return any(cell.lower() not in MISSING or cell.isalpha() for cell in named)
    numbered = _numbered(first, rows)
    if numbered and text.count(False) > 2:
        return True
    if numbered or _could_name([cell for cell in named if is_number(cell)], first, rows):
        said = (
            f"the first line of {path}, {', '.join(map(repr, first[:5]))}, ..., may name the "
            "columns by numbers or be a row; say which with header=True (--header) or header=False "
            "(--no-header)"
        )
        if any(text):
            raise ValueError(said)
        warnings.warn(f"{said}. It is read as a row", UserWarning, stacklevel=5)
    return False


def _numbered(first: list[str], rows: list[tuple[int, list[str]]]) -> bool:
    """Whether a first line numbers its columns, but for some that were given a name later.

    So do tables of pandas: 0, 1, 2, ..., kind.
    """
    text = [i for i, cell in enumerate(first) if not is_number(cell)]
    numbers = [cell for cell in first if is_number(cell)]
    if not text or len(numbers) < 2 or numbers != [str(i) for i in range(len(numbers))]:
        return False
    for i in text:
        below = [cells[i].strip() for _, cells in rows[:_LOOKED_AT]]
        # A name among others, each of another row, is a row's.
        names = 2 * len(set(below)) > len(below) and not all(map(is_number, below))
        if first[i] in below or names:
            return False
    return True


def _among_rows(first: list[str], rows: list[list[str]]) -> bool:
    """Whether a first line of text is a row: other rows have all its cells, each in its column."""
    others = [row for cells in rows if (row := [cell.strip() for cell in cells]) != first]
    columns = zip(*others, strict=False)
    return len(first) > 1 and len(others) > 0 and all(map(_is_in, first, columns))


def _is_in(cell: str, column: tuple[str, ...]) -> bool:
    return cell in column and not any(map(is_number, column))


def _could_name(cells: list[str], first: list[str], rows: list[tuple[int, list[str]]]) -> bool:
    """Whether a first line of numbers could name columns.

    Either they rise or fall, as wavelengths and years do, and lie outside of what their columns
    hold; or they lie so far outside, as numbers of genes do, that this is no chance.
    """
    values = [float(cell) for cell in cells]
    rows = rows[:_LOOKED_AT]
    outside = far = 0
    for cell, value in zip(cells, values, strict=True):
        column = first.index(cell)
        below = [float(c[column]) for _, c in rows if column < len(c) and is_number(c[column])]
        if not below:
            continue
        low, high = min(below), max(below)
        outside += not low <= value <= high
        far += not 2 * low - high <= value <= 2 * high - low
    steps = [b - a for a, b in pairwise(values)]
    if len(values) > 2 and (min(steps) > 0 or max(steps) < 0):
        return outside > 0.9 * len(values)
    # The first of n + 1 rows in any order is outside of all the others by this chance.
    chance = (2 / (len(rows) + 1)) ** len(values)
    return len(values) > 1 and chance < _CHANCE and far == len(values)


def is_number(cell: str) -> bool:
    """Whether a cell is a number, or a mark of a missing one that is not a word."""
    try:
        return float(cell) == float(cell)  # "nan" may be the name of a column
    except ValueError:
        return False
