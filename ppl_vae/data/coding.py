"""How a column beside the rows becomes numbers."""

from __future__ import annotations

__all__ = ["LIBRARY", "Coding"]

from dataclasses import dataclass

import numpy as np

# The covariate whose logarithm counts are relative to: the library size of a cell.
LIBRARY = "library"
# Levels of a column of text that are accepted; more are rather names of rows.
_MOST_LEVELS = 1000


@dataclass(frozen=True)
class Coding:
    """How a column becomes covariates: text by one number for each level, numbers by one.

    Attributes
    ----------
    name
        Of the column.
    levels
        The different texts of the column, sorted. A covariate says of each whether it is the
        row's. Without levels the column holds numbers.
    center, spread
        What is subtracted from numbers, and what they are divided by: mean and standard deviation
        of the rows that the coding was made from.
    log
        Whether the logarithm of numbers is taken before, as of library sizes, the column
        ``"library"``.

    Examples
    --------
    >>> coding = Coding.of("island", np.array(["Dream", "Biscoe", "Dream"]), "penguins.csv")
    >>> coding.names
    ('island=Biscoe', 'island=Dream')
    >>> coding.encode(np.array(["Dream"]), "new.csv").tolist()
    [[0.0, 1.0]]
    """

    name: str
    levels: tuple[str, ...] = ()
    center: float = 0.0
    spread: float = 1.0
    log: bool = False

    @classmethod
    def of(cls, name: str, values: np.ndarray, source: str) -> Coding:
        """The coding that suits a column, shape ``(row,)``, of texts or numbers.

        Raises
        ------
        ValueError
            If a value is missing, all are the same, or there are too many levels.
        """
        _refuse_missing(name, values, source)
        different = np.unique(values)
        if len(different) < 2:
            raise ValueError(
                f"context {name!r} of {source} is {different[0]!s} in every row, so that nothing "
                "can depend on it; leave it out"
            )
        if values.dtype.kind not in "US":
            log = name == LIBRARY
            values = _logarithms(name, values, source) if log else values
            return cls(name, (), float(values.mean()), float(values.std()), log)
        if len(different) > min(_MOST_LEVELS, max(2, len(values) // 2)):
            raise ValueError(
                f"context {name!r} of {source} has {len(different)} different texts in "
                f"{len(values)} rows, as names of rows have; leave it out with drop= (--drop), or "
                "join some of its levels"
            )
        return cls(name, tuple(map(str, different)))

    @property
    def names(self) -> tuple[str, ...]:
        """A name for each covariate."""
        return tuple(f"{self.name}={level}" for level in self.levels) or (self.name,)

    def encode(self, values: np.ndarray, source: str) -> np.ndarray:
        """The covariates of a column ``(row,)``, shape ``(row, covariate)``.

        Raises
        ------
        ValueError
            If a value is missing, of another kind, or a level that the coding does not have.
        """
        _refuse_missing(self.name, values, source)
        if (values.dtype.kind in "US") != bool(self.levels):
            kinds = ("texts", "numbers") if self.levels else ("numbers", "texts")
            raise ValueError(
                f"context {self.name!r} of {source} holds {kinds[1]}, where the fit had {kinds[0]}"
            )
        if self.log:
            values = _logarithms(self.name, values, source)
        if not self.levels:
            return ((values.astype(np.float64) - self.center) / self.spread)[:, None]
        unknown = ~np.isin(values, self.levels)
        if unknown.any():
            row = int(unknown.argmax())
            raise ValueError(
                f"context {self.name!r} of {source} is {str(values[row])!r} in row {row}, which "
                f"the fit had not: it had {', '.join(map(repr, self.levels[:20]))}"
            )
        return (values[:, None] == np.array(self.levels)).astype(np.float64)


def _logarithms(name: str, values: np.ndarray, source: str) -> np.ndarray:
    """Logarithms of numbers ``(row,)``, all of which have to be positive."""
    low = values <= 0
    if low.any():
        row = int(low.argmax())
        raise ValueError(
            f"context {name!r} of {source} is {values[row]:g} in row {row}, but library sizes are "
            "positive numbers; correct it, or leave the row out"
        )
    return np.log(values.astype(np.float64))


def _refuse_missing(name: str, values: np.ndarray, source: str) -> None:
    gone = values == "" if values.dtype.kind in "US" else ~np.isfinite(values.astype(np.float64))
    if gone.any():
        raise ValueError(
            f"context {name!r} of {source} is missing in {int(gone.sum())} rows, the first of them "
            f"row {int(gone.argmax())}; fill it in, or leave these rows out"
        )
