"""Factors that rows were made from: checked, and as levels and numbers."""

from __future__ import annotations

__all__ = ["Factor", "factors_of"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

# Numbers of which fewer rows than this share a value are cut into levels.
_ROWS_OF_A_VALUE = 5


@dataclass(frozen=True)
class Factor:
    """What rows were made from, one of its kind.

    Attributes
    ----------
    levels
        Which of its values each row has, from 0 on, ``(row,)``; of continuous numbers, in which of
        as many bins as the latents' with equally many rows each.
    numbers
        The values themselves, ``(row,)``; None where they are names without an order.
    """

    levels: np.ndarray
    numbers: np.ndarray | None

    @property
    def shares(self) -> np.ndarray:
        """The share of rows at each level."""
        return np.bincount(self.levels) / len(self.levels)


def factors_of(
    factors: Mapping[str, Any] | np.ndarray | Tensor,
    rows: int,
    *,
    categories: Sequence[str] = (),
    bins: int = 20,
) -> dict[str, Factor]:
    """Factors by name, as levels and numbers; arguments and errors of
    :func:`~ppl_vae.disentanglement`.

    Examples
    --------
    >>> factors_of({"kind": ["b", "a", "b"], "size": [0.5, 0.5, 2.0]}, 3)["kind"].levels.tolist()
    [1, 0, 1]
    """
    if not hasattr(factors, "items"):
        columns = np.asarray(factors)
        if columns.ndim != 2:
            raise ValueError(
                f"factors has shape {columns.shape}; pass (row, factor), or a mapping of names to "
                "one value for each row"
            )
        factors = {f"factor {i}": column for i, column in enumerate(columns.T)}
    if len(list(factors)) < 2:
        raise ValueError(
            f"factors has {len(list(factors))} factors, and the scores ask which of several a "
            "latent stands for; pass at least 2"
        )
    unknown = sorted(set(categories) - set(factors))
    if unknown or isinstance(categories, str):
        raise ValueError(
            f"categories is {categories!r}; accepted is a list of names of factors: "
            f"{', '.join(map(repr, factors))}"
        )
    return {
        str(name): _factor(str(name), np.asarray(values), rows, name in categories, bins)
        for name, values in factors.items()
    }


def _factor(name: str, values: np.ndarray, rows: int, is_category: bool, bins: int) -> Factor:
    if values.shape != (rows,):
        raise ValueError(
            f"factors[{name!r}] has shape {values.shape}; pass one value for each of {rows} rows"
        )
    is_number = values.dtype.kind in "iuf"
    if is_number and not np.isfinite(values).all():
        raise ValueError(
            f"factors[{name!r}] has values that are missing or infinite; leave these rows out"
        )
    kinds, levels = np.unique(values if is_number else values.astype(str), return_inverse=True)
    if len(kinds) < 2:
        raise ValueError(
            f"factors[{name!r}] is {kinds[0]} in every row, so that no latent can stand for it; "
            "leave it out"
        )
    numbers = values.astype(np.float64) if is_number and not is_category else None
    if len(kinds) > max(bins, rows / _ROWS_OF_A_VALUE):
        if numbers is None:
            raise ValueError(
                f"factors[{name!r}] has {len(kinds)} categories in {rows} rows, too few rows of "
                "each; pass more rows, or leave it out"
            )
        inner = np.quantile(numbers, np.arange(1, bins) / bins)
        levels = np.unique(np.searchsorted(inner, numbers), return_inverse=True)[1]
    return Factor(levels, numbers)
