"""What a column of a table was taken for, and why."""

from __future__ import annotations

__all__ = ["KINDS", "ColumnKind"]

from dataclasses import dataclass

KINDS = ("binary", "categorical", "ordinal", "count", "positive", "proportion", "real")


@dataclass(frozen=True)
class ColumnKind:
    """A column of a table: what its cells are.

    In rows, cells of binary, categorical and ordinal columns are codes 0, 1, ..., which number
    the levels; a missing cell is NaN.

    Attributes
    ----------
    name
        Of the column.
    kind
        ``"binary"``, ``"categorical"``, ``"ordinal"``, ``"count"``, ``"positive"``,
        ``"proportion"`` or ``"real"``.
    levels
        Names of the categories, in the order of their codes; None for numbers.
    why
        What it was taken for this because of, in words.
    unit
        What its numbers count, where they were made here, such as ``"days since 1970-01-01"``.

    Examples
    --------
    >>> ColumnKind("sex", "binary", ("female", "male"), "text of 2 levels").levels[1]
    'male'
    """

    name: str
    kind: str
    levels: tuple[str, ...] | None = None
    why: str = ""
    unit: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(
                f"column {self.name!r} is told to be {self.kind!r} (--column); accepted are "
                f"{', '.join(KINDS)}"
            )
