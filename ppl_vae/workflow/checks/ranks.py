"""Ranks of simulated truths among draws: are they uniform, and what is wrong if not?"""

from __future__ import annotations

__all__ = ["OPEN", "judge_ranks", "rank_among"]

import numpy as np
import torch
from torch import Tensor

OPEN = "too narrow or misplaced"  # both make ranks pile up at the ends
_MOMENTS = 4  # polynomials of the ranks that are tested together
_LEVEL = 0.01  # the p-value of all quantities together below which a shape is put into words


def rank_among(truth: Tensor, draws: Tensor) -> Tensor:
    """How many draws, (draw, ...), lie below the truth, (...); equal ones do so at random."""
    below, equal = (draws < truth).sum(0), (draws == truth).sum(0)
    return below + (torch.rand(equal.shape, device=equal.device) * (equal + 1)).long()


def judge_ranks(rank: np.ndarray, size: int, num_densities: int = 0) -> dict[str, np.ndarray]:
    """What ranks from 0 to ``size - 1``, shape ``(simulation, quantity)``, say of each quantity.

    Parameters
    ----------
    rank, size
        The ranks, and how many there can be.
    num_densities
        How many of the quantities, the last ones, are log-densities.

    Returns
    -------
    ``p_value``, ``offset``, ``spread`` and ``shape`` as of :func:`~ppl_vae.calibrate`, each
    ``(quantity,)``.

    Examples
    --------
    >>> even = np.arange(1000)[:, None] % 100
    >>> judge_ranks(even, 100)["shape"]
    array(['uniform'], dtype=object)
    """
    p_value = _p_value(rank, size)
    fraction = (rank + 0.5) / size
    offset = fraction.mean(0) - 0.5
    spread = 12 * fraction.var(0) / (1 - float(size) ** -2)
    shape = _shape(p_value, offset, spread, len(rank)).astype(object)
    # Draws are wide or narrow, and their densities high or low.
    of_density = np.arange(len(shape)) >= len(shape) - num_densities
    shape[of_density & np.isin(shape, [OPEN, "too wide"])] = "other"
    return {"p_value": p_value, "offset": offset, "spread": spread, "shape": shape}


def _p_value(rank: np.ndarray, size: int) -> np.ndarray:
    """Neyman's smooth test of ranks in 0 to size - 1, shape (simulation, quantity)."""
    from scipy.stats import chi2

    # Orthonormal over the ranks themselves, so that few draws need no correction.
    powers = np.vander(np.linspace(-1, 1, size), _MOMENTS + 1, increasing=True)
    polynomials = np.linalg.qr(powers)[0][:, 1:] * np.sqrt(size)  # (rank, moment)
    scores = polynomials[rank].sum(0) / np.sqrt(len(rank))  # (quantity, moment)
    return np.asarray(chi2.sf(np.square(scores).sum(-1), _MOMENTS))


def _shape(p_value: np.ndarray, offset: np.ndarray, spread: np.ndarray, size: int) -> np.ndarray:
    """Describe ranks in words; uniform ones have Var[offset] = 1 / 12n, Var[spread] = 4 / 5n."""
    shift, width = offset * np.sqrt(12 * size), (spread - 1) * np.sqrt(5 / 4 * size)
    narrow = np.where(width > 0, OPEN, "too wide")
    fault = np.where(np.abs(shift) > np.abs(width), "shifted", narrow)
    fault = np.where(np.maximum(np.abs(shift), np.abs(width)) > 3, fault, "other")
    return np.where(p_value < _LEVEL / len(p_value), fault, "uniform")
