"""Intervals made as wide as held-out entries say: split conformal prediction."""

from __future__ import annotations

__all__ = ["hidden_entries", "margins"]

import math

import numpy as np
import torch
from torch import Tensor

# The share of observed entries that is hidden.
_HIDDEN = 0.2


def hidden_entries(x: Tensor, seed: int) -> Tensor:
    """Which observed entries of rows to hide, at random: a fifth, ``(row, *event)``."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(x.shape, generator=generator) < _HIDDEN).to(x.device) & ~x.isnan()


def margins(low: np.ndarray, high: np.ndarray, truth: np.ndarray, level: float) -> np.ndarray:
    r"""By how much to widen the intervals of each feature, negative to narrow them.

    .. math:: \max(l_i - x_i,\; x_i - h_i)

    of n entries has as its quantile at :math:`\lceil (n + 1) \cdot \text{level} \rceil / n` what
    has to be added at both ends for a new entry to lie within with a probability of at least
    ``level``.

    Parameters
    ----------
    low, high, truth
        Shape ``(row, *event)``; NaN where there is no interval or nothing was hidden.
    level
        The probability to reach.

    Returns
    -------
    Shape ``(*event,)``: infinite where n is too small for that level, as 8 is for 0.9; zero where
    there are no intervals at all.

    Notes
    -----
    Source: Romano et al. (2019), *Conformalized quantile regression*, theorem 1.

    Examples
    --------
    >>> truth = np.arange(100.0)[:, None]
    >>> margins(np.full((100, 1), 0.0), np.full((100, 1), 49.0), truth, 0.9)
    array([41.])
    """
    score = np.maximum(low - truth, truth - high)
    count = np.isfinite(score).sum(0)
    ordered = np.sort(score, axis=0)  # NaN comes last
    rank = np.ceil((count + 1) * level).astype(int)
    at = np.clip(rank - 1, 0, max(0, len(score) - 1))
    found = np.take_along_axis(ordered, at[None], axis=0)[0]
    margin = np.where(rank <= count, found, math.inf)
    return np.where(np.isfinite(low).any(0), margin, 0.0)
