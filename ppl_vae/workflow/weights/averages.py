"""Importance weights of a row: what they say of its log p(x), with errors and intervals."""

from __future__ import annotations

__all__ = ["EVIDENCE", "average_chains", "average_weight", "evidence_contents", "evidence_dataset"]

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from .khat import generalized_pareto, khat, largest_weights, reliable_khat

if TYPE_CHECKING:
    import xarray as xr

    from ...store import Contents

# What is said of log p(x) itself: the estimate, its error, and the ends of its interval.
EVIDENCE = ("log_evidence", "standard_error", "log_evidence_low", "log_evidence_high")
# Roundings of a log-density, a sum of many terms, that intervals allow for.
_ROUNDINGS = 16.0
_NORMAL = 1.959964  # the standard normal leaves 2.5 % beyond it on each side
# Below so many weights there is no tail to fit a distribution to.
_FEW = 30
# From this k-hat on, intervals use a fitted tail and not the drawn one.
_HEAVY = 0.3
# What a fitted k-hat of so much is too small by: of tails whose limit is 0.75 it was 0.65.
_VERY, _STEEPER = 0.7, 0.1
# The fitted tail's mean is infinite from 1 on.
_LARGEST = 0.95
# Log-weights so far below the median, in nats and median deviations, are of chains that got stuck.
_STUCK_NATS, _STUCK_DEVIATIONS = 5.0, 9.0
# The standard deviation of the other log-weights, nats, up to which few of them show the mean.
_LARGEST_SPREAD = 3.0
_FEWEST_LIVE = 4
# Annealed chains, from so many on, show the mean of their weights by themselves.
_MANY = 200
# Their log-weights are close to normal if they are sums over so many temperatures.
_SUMMED = 10
# What the skewness of annealed log-weights varies by from row to row: up to 0.9 was seen.
_SKEWNESS = 0.3
# Log-weights that vary by less, in nats squared, are equal.
_TINY = 1e-24
# Draws of mean, variance and skewness that such intervals are quantiles of, and rows at once.
_PIVOTS = 2000
_ROWS = 512


def average_weight(log_weight: Tensor, usable: Tensor | None = None) -> dict[str, Tensor]:
    r"""What weights of shape ``(draw, row)`` say of each row's log p(x).

    Parameters
    ----------
    log_weight
        Log-weights of mean p(x), nats.
    usable
        Whether the weights of a row can be used, ``(row,)``, best found with *other* draws: rows
        that are selected for what their own weights look like have estimates that are too low, as
        the large weight that is missing is what k-hat would have seen. None asks these weights.

    Returns
    -------
    Shape ``(row,)``, nats: ``log_evidence``, the logarithm of the mean weight; ``standard_error``,
    by the delta method, or of fewer than 30 weights from the interval; ``log_evidence_low`` and
    ``log_evidence_high``, a 95 % interval; ``elbo``. And ``pareto_k``, which is NaN for fewer than
    30 draws.

    Where weights are not usable there is no upper end, and the lower one is that of a bound: the
    mean weight is 40 times too large with a probability of at most 1 / 40 (Markov), and no ELBO is
    above log p(x).

    Notes
    -----
    From k-hat 0.3 on the interval is that of a mean whose tail is generalized Pareto, with the
    errors of its parameters, as weights yet unseen count for much of it, and reaches further up
    than down; below, of a mean that is
    normal. Coverage: ``benchmarks/verdicts.py``. For fewer than 30 draws, chains of annealing,
    log-weights are sums of many and close to normal, and the interval is the generalized one of a
    log-normal mean, in which their skewness g, that of the sample drawn towards 0, adds
    :math:`g \sigma^3 / 6`.

    Source: Vehtari et al. (2024) for the smoothed tail; Johansson (2003), *Estimating the mean of
    heavy-tailed distributions*; Krishnamoorthy & Mathew (2003), *Inferences on the means of
    lognormal distributions using generalized p-values and generalized confidence intervals*.
    """
    return _averaged(log_weight, usable, few=_FEW)


def average_chains(log_weight: Tensor, num_temperatures: int) -> dict[str, Tensor]:
    """What the weights of annealed chains, ``(chain, row)``, say of each row's log p(x).

    As :func:`average_weight`, and ``weights_usable``, which is false where log-weights spread over
    more than 3 nats from chain to chain, or fewer than four chains got anywhere: then there is no
    upper end, and the standard error is infinite.

    Up to 200 chains of at least ten temperatures, the interval is that of fewer than 30 weights:
    k-hat of some tens of chains says little, and the largest few of them do not show their mean.
    """
    found = _averaged(log_weight, None, few=_MANY if num_temperatures >= _SUMMED else _FEW)
    return found | {"weights_usable": found["log_evidence_high"].isfinite()}


def _averaged(log_weight: Tensor, usable: Tensor | None, few: int) -> dict[str, Tensor]:
    size = len(log_weight)
    k = (
        torch.full(log_weight.shape[1:], torch.nan, dtype=torch.float64)
        if size < _FEW
        else khat(log_weight)
    )
    # The error of rounding, which matters where all weights are equal.
    largest = log_weight.nan_to_num(neginf=0.0).abs().amax(0)
    rounding = _ROUNDINGS * torch.finfo(log_weight.dtype).eps * (1 + largest)
    log_weight, rounding = log_weight.double(), rounding.double()
    total = log_weight.logsumexp(0)
    share = (log_weight - total).exp()  # (draw, row), sums to one over draws
    # Var(mean weight) / (mean weight)^2, with the shares' mean being 1 / size.
    error = ((share - 1 / size).square().sum(0) * size / (size - 1)).sqrt()
    estimate, elbo = total - math.log(size), log_weight.mean(0)
    if size < few:
        ends = _log_normal(log_weight.T.cpu().numpy())
        low, high = (torch.as_tensor(end).to(total) for end in ends)
        low = torch.where(high.isposinf(), estimate - math.log(40.0), low)
        # So few weights say too little of their own spread: two errors reach the interval's ends.
        error = torch.fmax(error, torch.fmax(high - estimate, estimate - low) / _NORMAL)
        usable = None
    else:
        low, high = (
            estimate + torch.as_tensor(end).to(total)
            for end in _smoothed((log_weight - estimate).T.cpu().numpy(), error.cpu().numpy())
        )
        usable = k <= reliable_khat(size) if usable is None else usable.to(k.device)
    low, high = low - rounding, high + rounding
    if usable is not None:
        bound = elbo - _NORMAL * log_weight.std(0) / size**0.5
        bound = torch.fmax(bound, estimate - math.log(40.0))
        low = torch.where(usable, low, bound)
        high = torch.where(usable | estimate.isnan(), high, torch.inf)
    return {
        "log_evidence": estimate,
        "standard_error": error,
        "log_evidence_low": low,
        "log_evidence_high": high,
        "pareto_k": k.to(total.device),
        "elbo": elbo,
    }


def evidence_contents(**attrs: str | int | float) -> Contents:
    """What a store of evidence holds: as :func:`evidence_dataset`."""
    from ...store import Contents, Variable

    names = (*EVIDENCE, "elbo", "pareto_k", "weights_usable")
    return Contents(
        {name: Variable(name, ("row",), _unit(name)) for name in names}, attrs={"": attrs}
    )


def _unit(name: str) -> dict[str, str]:
    return {} if name in ("pareto_k", "weights_usable") else {"unit": "nats"}


def evidence_dataset(arrays: Mapping[str, np.ndarray], **attrs: str | int | float) -> xr.Dataset:
    """Arrays over rows, in nats where they are numbers of these, with how they came about."""
    import xarray as xr

    return xr.Dataset(
        {name: ("row", values, _unit(name)) for name, values in arrays.items()},
        coords={"row": range(len(arrays["log_evidence"]))},
        attrs=attrs,
    )


def _smoothed(log_weight: np.ndarray, error: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ends of intervals for the logarithm of the mean of weights ``(row, draw)`` of mean 1."""
    size = log_weight.shape[1]
    with np.errstate(all="ignore"):  # rows of NaN and infinity stay what they are
        ends = -_NORMAL * error, _NORMAL * error
        largest = np.exp(largest_weights(log_weight))
        cutoff, tail = largest[:, 0], largest[:, 1:]
        above = tail > cutoff[:, None]
        number = tail.shape[1]
        excess = np.where(above, tail - cutoff[:, None], 0.0)
        k, scale = generalized_pareto(excess, above, above.sum(1))
        heavy = (k > _HEAVY) & above.all(1)
        k = np.minimum(k, _LARGEST)
        mean_tail = cutoff + scale / (1 - k)
        # From the parameters' asymptotic covariance, (1 + k) [[1 + k, -scale], [., 2 scale^2]].
        slope = scale / (1 - k) ** 2
        of_tail = (1 + k) * (
            slope**2 * (1 + k) + 2 * (scale / (1 - k)) ** 2 - 2 * slope * scale / (1 - k)
        )
        share = number / size
        body = (size - tail.sum(1)) / (size - number)
        squares = np.exp(2 * log_weight).sum(1) - np.square(tail).sum(1)
        of_body = np.maximum(squares / (size - number) - body**2, 0.0)
        between = share * (1 - share) * (mean_tail - body) ** 2
        of_rest = ((1 - share) * of_body + between) / size
        of_tail = share**2 * of_tail / number
        mean = (1 - share) * body + share * mean_tail
        low = np.log(mean) - _NORMAL * np.sqrt(of_rest + of_tail) / mean
        # Upwards the tail's mean errs as its logarithm, and its index is likely too small: tails
        # are Pareto's only in the limit.
        over = share * scale / (1 - k)
        errs = over * np.expm1(_NORMAL * np.sqrt(of_tail) / over)
        steeper = np.minimum(
            k + _STEEPER * np.clip((k - _HEAVY) / (_VERY - _HEAVY), 0, 1), _LARGEST
        )
        missing = share * scale * (1 / (1 - steeper) - 1 / (1 - k))
        high = np.log(mean + np.hypot(_NORMAL * np.sqrt(of_rest), errs) + missing)
        return np.where(heavy, low, ends[0]), np.where(heavy, high, ends[1])


def _log_normal(log_weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ends of intervals for the logarithm of the mean of a few weights ``(row, draw)``.

    Chains that got stuck on the way, far below the others, have no weight: their share is a
    proportion, and the others' weights are log-normal but for a skewness. Where these spread too
    much for so few to show how much, the upper end is infinite.
    """
    size = log_weight.shape[1]
    rng = np.random.default_rng(0)
    low, high = np.full((2, len(log_weight)), np.nan)
    with np.errstate(all="ignore"):  # rows of NaN and infinity stay what they are
        middle = np.median(log_weight, axis=1, keepdims=True)
        deviation = np.median(np.abs(log_weight - middle), axis=1, keepdims=True)
        live = ~(log_weight < middle - _STUCK_NATS - _STUCK_DEVIATIONS * deviation)
        numbers = live.sum(1)
        for number in np.unique(numbers):
            normal = rng.normal(size=_PIVOTS)[:, None]
            spread = (number - 1) / rng.chisquare(max(1, number - 1), size=_PIVOTS)[:, None]
            share = rng.beta(number + 0.5, size - number + 0.5, size=_PIVOTS)[:, None]
            log_share = np.log(share) if number < size else 0.0
            # Normal prior, and a normal likelihood of variance 6 / n.
            shrink = _SKEWNESS**2 / (_SKEWNESS**2 + 6 / max(1, number))
            unknown = _SKEWNESS * math.sqrt(1 - shrink) * rng.normal(size=_PIVOTS)[:, None]
            found = np.flatnonzero(numbers == number)
            for start in range(0, len(found), _ROWS):
                rows = found[start : start + _ROWS]
                values = log_weight[rows]
                mean = np.where(live[rows], values, 0.0).sum(1) / number
                away = np.where(live[rows], values - mean[:, None], 0.0)
                variance = np.square(away).sum(1) / (number - 1)
                skewness = (away**3).sum(1) / number / np.maximum(variance, _TINY) ** 1.5
                widths = variance * spread  # (pivot, row)
                ends = mean - normal * np.sqrt(widths / number) + widths / 2 + log_share
                ends += (shrink * skewness + unknown) * widths**1.5 / 6
                low[rows], high[rows] = np.quantile(ends, [0.025, 0.975], axis=0)
                hopeless = (variance > _LARGEST_SPREAD**2) | (number < _FEWEST_LIVE)
                high[rows[hopeless]] = np.inf
    return low, high
