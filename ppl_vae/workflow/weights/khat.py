"""Pareto k-hat of importance weights: whether averages under them can be trusted."""

from __future__ import annotations

__all__ = ["generalized_pareto", "khat", "largest_weights", "reliable_khat", "smoothed_tail_index"]

import math

import numpy as np
import torch
from torch import Tensor

# Below it exp underflows in double precision: such a weight carries nothing.
_SMALLEST = math.log(np.finfo(np.float64).tiny)
# Weights in a tail that a generalized Pareto distribution can be fitted to.
_FEWEST = 5
# Log-weights that rounding may change by more, nats, are not known.
_COARSE = 0.1
# Rows whose tails are fitted at once: about 40 MB for 1,000 draws each.
_ROWS = 1024


def reliable_khat(num_samples: int) -> float:
    """The k-hat up to which so many draws make weights that can be used.

    Source: Vehtari et al. (2024), *Pareto smoothed importance sampling*, section 3.2.4.

    Examples
    --------
    >>> round(reliable_khat(500), 2), reliable_khat(10_000)
    (0.63, 0.7)
    """
    return min(1 - 1 / math.log10(num_samples), 0.7)


def khat(log_weight: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Pareto k-hat of each row of log-weights ``(draw, row)``: see :func:`smoothed_tail_index`.

    Infinite too where the log-weights are so large that rounding in ``dtype``, by default theirs,
    changes them by more than a tenth of a nat, as in single precision from 800,000 nats on: all
    draws may then seem to weigh the same.
    """
    eps = torch.finfo(dtype or log_weight.dtype).eps
    k = torch.as_tensor(smoothed_tail_index(log_weight.double().T.cpu().numpy()))
    coarse = log_weight.nan_to_num(nan=0.0, neginf=0.0).abs().amax(0).double() * eps > _COARSE
    return k.to(log_weight.device).masked_fill(coarse & ~k.isnan().to(coarse.device), torch.inf)


def smoothed_tail_index(log_weight: np.ndarray) -> np.ndarray:
    r"""Pareto k-hat of each row of log-weights, shape ``(row, draw)``.

    A generalized Pareto distribution is fitted to the largest :math:`\min(S / 5, 3 \sqrt S)`
    of S weights, relative to the largest of all and in double precision.

    Returns
    -------
    Shape ``(row,)``. NaN where a weight is NaN or infinite. Infinite where fewer than five weights
    carry the tail, because the others vanish beside the largest: so few draws stand for all. 0
    where all weights agree within a thousandth of a nat, as the tail of rounding errors says
    nothing.

    Notes
    -----
    Source: Zhang & Stephens (2009), *A new and efficient estimation method for the generalized
    Pareto distribution*, with the prior of Vehtari et al. (2024), appendix C, that counts for ten
    weights at k = 0.5. Where the largest weights are tied, so that fewer than five stand out, it is
    the index of Hill (1975).

    Examples
    --------
    >>> log_weight = np.random.default_rng(0).normal(size=(1, 500)) * [[1.0], [1000.0]]
    >>> smoothed_tail_index(log_weight).round(2)
    array([0.28,  inf])
    """
    log_weight = np.asarray(log_weight, dtype=np.float64)
    k = np.full(len(log_weight), np.nan)
    for start in range(0, len(log_weight), _ROWS):
        rows = slice(start, start + _ROWS)
        largest = largest_weights(log_weight[rows])
        k[rows] = _tail_index(largest)
        with np.errstate(invalid="ignore"):  # infinity less infinity
            spread = largest[:, -1] - log_weight[rows].min(1)
        k[rows][spread <= 1e-3] = 0.0
    k[np.isneginf(log_weight).all(1)] = np.inf
    k[np.isnan(log_weight).any(1) | np.isposinf(log_weight).any(1)] = np.nan
    return k


def largest_weights(log_weight: np.ndarray) -> np.ndarray:
    """The tail of log-weights ``(row, draw)`` and the one below it, ascending: (row, tail + 1)."""
    size = log_weight.shape[1]
    tail = math.floor(min(size / 5, 3 * math.sqrt(size)))
    return np.sort(np.partition(log_weight, size - tail - 1, axis=1)[:, -tail - 1 :])


def _tail_index(largest: np.ndarray) -> np.ndarray:
    """k-hat from the largest log-weights of each row, the cutoff first, in ascending order."""
    with np.errstate(all="ignore"):  # rows of NaN and infinity are told apart afterwards
        relative = largest - largest[:, -1:]
        cutoff, tail = np.maximum(relative[:, :1], _SMALLEST), relative[:, 1:]
        above = tail > cutoff
        count = above.sum(1)
        excess = np.where(above, np.exp(tail) - np.exp(cutoff), 0.0)
        k, _ = generalized_pareto(excess, above, count)
        tied = (relative >= cutoff).sum(1) >= _FEWEST
        hill = np.maximum(tail - cutoff, 0.0).mean(1)
    return np.where(count >= _FEWEST, k, np.where(tied, hill, np.inf))


def generalized_pareto(
    excess: np.ndarray, above: np.ndarray, count: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Fit excesses over a cutoff ``(row, tail)``, ascending, of which ``count`` are ``above`` 0.

    Returns
    -------
    The shape k, drawn towards 0.5 as by ten weights more, and the scale: ``(row,)`` each.
    """
    count = np.maximum(count, 1)
    last = excess.shape[1]
    quartile = np.take_along_axis(
        excess, (last - count + (count / 4 + 0.5).astype(int) - 1)[:, None], axis=1
    )
    # Candidates for -k / sigma; rows with shorter tails have fewer of them.
    sizes = 30 + np.sqrt(count).astype(int)
    number = np.arange(1, sizes.max() + 1)
    usable = number <= sizes[:, None]  # (row, candidate)
    theta = 1 - np.sqrt(sizes[:, None] / (number - 0.5))
    theta = theta / (3 * quartile) + 1 / excess[:, -1:]

    def shape(theta: np.ndarray) -> np.ndarray:
        # The mean over the tail of log(1 - theta x): (row, candidate).
        logs = np.log1p(-theta[:, :, None] * excess[:, None])
        return np.where(above[:, None], logs, 0.0).sum(2) / count[:, None]

    k = shape(theta)
    profile = count[:, None] * (np.log(-theta / k) - k - 1)
    profile = np.where(usable & np.isfinite(profile), profile, -np.inf)
    weight = np.exp(profile - profile.max(1, keepdims=True))
    weight /= weight.sum(1, keepdims=True)
    weight[weight < 10 * np.finfo(np.float64).eps] = 0.0
    weight /= weight.sum(1, keepdims=True)
    best = (np.where(usable, theta, 0.0) * weight).sum(1, keepdims=True)
    k = shape(best)[:, 0]
    return (count * k + 5) / (count + 10), -k / best[:, 0]
