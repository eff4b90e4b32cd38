"""How many rows are in memory together."""

from __future__ import annotations

__all__ = ["rows_within_budget"]

from collections.abc import Sequence
from math import prod

# Entries of data that a chunk may hold for all its draws: about 64 MB in single precision.
_BUDGET = 2**24
# With gradients about this many times as much memory is kept.
_GRADIENT_COPIES = 4


def rows_within_budget(
    event_shape: Sequence[int],
    num_samples: int = 1,
    *,
    gradients: bool = False,
    chunk_rows: int | None = None,
) -> int:
    """How many rows to take at a time, with ``num_samples`` draws of each.

    Parameters
    ----------
    event_shape
        The shape of a row.
    num_samples
        Draws, chains or replicates of a row that are in memory together.
    gradients
        Whether gradients with respect to the draws are taken.
    chunk_rows
        What the user asked for, which is checked and taken; None chooses.

    Raises
    ------
    ValueError
        If ``chunk_rows`` is below 1.

    Examples
    --------
    >>> rows_within_budget((28, 28), 1000)
    21
    >>> rows_within_budget((28, 28), 1000, chunk_rows=5)
    5
    """
    if chunk_rows is None:
        budget = _BUDGET // _GRADIENT_COPIES if gradients else _BUDGET
        return max(1, budget // (num_samples * prod(event_shape)))
    if chunk_rows < 1:
        raise ValueError(f"chunk_rows is {chunk_rows}; pass at least 1, or None to choose")
    return chunk_rows
