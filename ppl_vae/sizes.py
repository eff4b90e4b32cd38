"""How many latents, how wide a network and how long a fit suit some rows, where nobody says."""

from __future__ import annotations

__all__ = ["hidden_for", "latents_for", "passes_for"]

import math
from collections.abc import Sequence

_MOST_LATENTS = 50
# Entries of a row from which networks are wider.
_LONG = 100
# Rows of a table below which two layers fit the rows at hand better and new ones worse.
_FEW = 1000


def latents_for(event_shape: Sequence[int]) -> int:
    r"""The number of latents of rows of a shape: from 2 to 50.

    Of the p columns of a table, the most factors k that a linear model can tell apart, the bound
    :math:`(p - k)^2 \ge p + k`: from there on, with a scale for each column, it has any covariance.
    A latent too many costs little, as the encoder returns the prior for it; what one too few cannot
    say, nothing else makes up for. Of images, whose pixels are far more than what they show, an
    eighth of the entries.

    Source: Ledermann (1937), *On the rank of the reduced correlational matrix in multiple-factor
    analysis*.

    Examples
    --------
    >>> [latents_for((columns,)) for columns in (3, 8, 11, 30, 200)], latents_for((8, 8))
    ([2, 4, 6, 22, 50], 8)
    """
    size = math.prod(event_shape)
    found = size // 8
    if len(event_shape) == 1:
        found = math.floor(size + 0.5 - math.sqrt(2 * size + 0.25))
    return min(_MOST_LATENTS, max(2, found))


def hidden_for(event_shape: Sequence[int], rows: int) -> tuple[int, ...]:
    """Widths of a network's hidden layers: one layer of 128 for tables of fewer than 1,000 rows.

    Two layers of 256 have tens of thousands of weights more than such a table has cells, and
    learn its rows by heart.

    Examples
    --------
    >>> hidden_for((30,), 455), hidden_for((30,), 5000), hidden_for((28, 28), 60000)
    ((128,), (256, 256), (500, 500))
    """
    if math.prod(event_shape) > _LONG:
        return (500, 500)
    return (128,) if len(event_shape) == 1 and rows < _FEW else (256, 256)


def passes_for(rows: int, batch_size: int) -> int:
    """How often to go through rows: about 2,000 steps, but from 20 to 200 passes.

    Examples
    --------
    >>> passes_for(344, 34), passes_for(1294, 128), passes_for(60000, 128)
    (182, 182, 20)
    """
    return min(200, max(20, math.ceil(2000 / math.ceil(rows / batch_size))))
