"""What draws and their weights show of a row: errors of raw and of weighted averages, and KL."""

from __future__ import annotations

__all__ = ["CLOSE", "judge", "reasons", "verdict_of"]

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..weights.khat import khat, reliable_khat

# What draws that are used as they are may be off by: the mean in posterior standard deviations,
# the logarithm of the standard deviation, and the mass of the interval that should hold 90 %.
CLOSE = {"mean": 0.1, "sd": math.log(1.1), "interval": 0.05}
# KL(q || p), nats, that goes with it: in all, and for each latent that is off by so much. More
# says that latents are right one by one and wrong together.
_CLOSE_NATS = (0.05, 0.015)
# Around the mean, in standard deviations: 90 % of a normal.
_INTERVAL = 1.6449
# A k-hat rests on the few largest weights; the mean over batches of so many draws rests on more.
_BATCH = 2000
# Standard errors by which k-hat must differ from its threshold before all draws are spent: fewer
# draws see too few of the largest weights, and k-hat then comes out low with a small error.
_SURE = 3.0
# Deviation of the logarithm of what a batch says weighted means are off by, from batch to batch.
_BETWEEN = 0.3


class _Off(NamedTuple):
    """By how much something is off, and its standard error: ``(row, latent)``."""

    value: Tensor
    error: Tensor

    def at_most(self, errors: float) -> Tensor:
        return (self.value.abs() + errors * self.error).amax(-1)

    def at_least(self, errors: float) -> Tensor:
        return (self.value.abs() - errors * self.error).amax(-1)

    def worst(self) -> tuple[Tensor, Tensor]:
        """Of the latent that is furthest off, with its sign: ``(row,)`` each."""
        where = self.value.abs().argmax(-1, keepdim=True)
        return self.value.gather(-1, where)[..., 0], self.error.gather(-1, where)[..., 0]


def judge(
    log_weight: Tensor,
    z: Tensor,
    *,
    tolerance: float,
    most: int,
    dtype: torch.dtype | None = None,
) -> dict[str, Tensor]:
    r"""Judge draws of z from q by their log-weights, log p(x, z) - log q(z).

    Everything comes in pairs: what the same draws say raw and weighted. The noise of both largely
    cancels where q is close to the posterior, and is gone where it is exact. Standard errors are
    those of influence functions, such as

    .. math:: \psi_\text{mean} = (z - \mu_q) - \tilde w (z - \mu_p), \qquad
        \psi_\text{KL} = \tilde w - \log w

    with weights :math:`\tilde w` of mean one.

    Parameters
    ----------
    log_weight
        Shape ``(draw, row)``, nats.
    z
        Shape ``(draw, row, latent)``.
    tolerance
        The standard error, in posterior standard deviations, that weighted means may have.
    most
        How many draws could be had; with these, nothing stays open.
    dtype
        In which log-weights were computed, by default theirs.

    Returns
    -------
    dict
        Of shape ``(row,)``:

        - ``kl``, log p(x) minus ELBO, and ``kl_error``, nats;
        - of the latent that is furthest off, ``raw_mean_off`` (posterior sds), ``raw_sd_off``
          (logarithm of q's sd over the posterior's) and ``raw_interval_off`` (posterior mass,
          less that of q, within 1.64 of q's sds), each with its ``..._error``;
        - ``weighted_mean_error`` (posterior sds) and ``weighted_sd_error`` (relative): standard
          errors of averages under the weights, the largest of all latents; and
          ``weighted_mean_typical``, the first as the median batch of 2000 draws foresees it,
          which is the one that decides: heavy weights have a variance of a few draws, another one
          for every seed;
        - ``relative_ess``, ``pareto_k``, ``pareto_k_error`` and ``pareto_k_threshold``;
        - ``raw_close`` and ``weights_usable``: 1 where shown, -1 where refuted or never shown, 0
          where open; ``raw_far``, whether raw averages were shown to be off.
    """
    size, _, latents = z.shape
    k, k_error, threshold = _tail(log_weight, dtype)
    log_weight = log_weight.double()
    z = z if z.is_floating_point() else z.to(log_weight)
    total = log_weight.logsumexp(0)
    weight = (log_weight - total + math.log(size)).exp()  # (draw, row), of mean one
    off, claimed = _averages(weight, z)
    kl = total - math.log(size) - log_weight.mean(0)
    kl_error = (weight - log_weight).std(0) / size**0.5

    final = size >= most
    lost = ~total.isfinite() | k.isnan()
    # A k-hat that may be above the threshold counts as above once all draws are spent. Before, an
    # answer must be so sure that the draws still to come would give it as well.
    low = (k + (1 if final else 2) * k_error < threshold) | (k <= 0)
    sure = low if final else (k + _SURE * k_error < threshold) | (k <= 0)
    high = ~low if final else k - _SURE * k_error > threshold
    typical, noise = _typical(weight, z)
    enough = typical * (noise if not final else 1.0) <= tolerance
    foreseen = typical / noise * min(1.0, size / most) ** 0.5
    never = ~enough if final else foreseen > tolerance

    # If nothing is off, the largest of so many errors exceeds this many standard errors in 2.5 %.
    errors = torch.special.ndtri(torch.tensor(1 - 0.025 / (2 * latents + 1))).item()
    limit = _CLOSE_NATS[0] + _CLOSE_NATS[1] * latents
    close = low & (kl + 2 * kl_error <= limit)
    far = kl - 2 * kl_error > limit
    for name, one in off.items():
        close = close & (one.at_most(errors) <= CLOSE[name])
        far = far | (one.at_least(errors) > CLOSE[name])
    refuted = torch.full_like(far, final) | far | high | lost
    found = {
        "kl": kl,
        "kl_error": kl_error,
        "weighted_mean_error": claimed[0],
        "weighted_sd_error": claimed[1],
        "weighted_mean_typical": typical,
        "relative_ess": 1 / weight.square().mean(0),
        "pareto_k": k,
        "pareto_k_error": k_error,
        "pareto_k_threshold": torch.full_like(k, threshold),
        "raw_far": far & ~lost,
        "raw_close": _answer(close & ~lost, refuted),
        "weights_usable": _answer(sure & enough & ~lost, high | never | lost),
    }
    for name, one in off.items():
        found[f"raw_{name}_off"], found[f"raw_{name}_error"] = one.worst()
    return found


def verdict_of(found: Mapping[str, np.ndarray]) -> np.ndarray:
    """``"as it is"``, ``"reweighted"``, ``"not"``, or ``""`` where more draws would decide."""
    raw, usable = found["raw_close"], found["weights_usable"]
    return np.select(
        [raw == 1, (raw == -1) & (usable == 1), (raw == -1) & (usable == -1)],
        ["as it is", "reweighted", "not"],
        "",
    )


def reasons(found: dict[str, np.ndarray], tolerance: float) -> np.ndarray:
    """Why a verdict is not a better one, in words: (row,)."""
    k, threshold = found["pareto_k"], found["pareto_k_threshold"]
    raw, usable = found["raw_close"] == 1, found["weights_usable"] == 1
    above = k + found["pareto_k_error"] >= threshold
    words = []
    for i in range(len(k)):
        if raw[i]:
            words.append("raw draws were shown to be close")
        elif usable[i]:
            off = ", ".join(
                f"{name} by {abs(found[f'raw_{name}_off'][i]):.2g} {unit}"
                for name, unit in (("mean", "sd"), ("sd", "in logarithm"), ("interval", "of mass"))
            )
            words.append(
                f"raw draws are off: {off}; KL {found['kl'][i]:.2g} nats"
                if found["raw_far"][i]
                else "raw draws may be close, but this was not shown"
            )
        elif not k[i] < threshold[i]:
            words.append(f"k-hat is {k[i]:.2f}, above {threshold[i]:.2f}")
        elif above[i]:
            words.append(f"k-hat is {k[i]:.2f} and may be above {threshold[i]:.2f}")
        else:
            words.append(
                f"weighted means have an error of {found['weighted_mean_typical'][i]:.2g} sd, "
                f"above {tolerance:g}"
            )
    return np.array(words, dtype=object)


def _answer(shown: Tensor, refuted: Tensor) -> Tensor:
    return torch.where(shown, 1, torch.where(refuted, -1, 0))


def _tail(log_weight: Tensor, dtype: torch.dtype | None) -> tuple[Tensor, Tensor, float]:
    """k-hat of each row, its standard error, and the threshold for batches of this size."""
    size = len(log_weight)
    parts = max(1, size // _BATCH)
    batch = size // parts
    some = log_weight[: parts * batch].unflatten(0, (batch, parts))  # (draw, part, row)
    k = khat(some.flatten(1), dtype).unflatten(0, (parts, -1)).mean(0)
    error = (1 + k.clamp(min=0.0)) / math.sqrt(parts * min(batch / 5, 3 * batch**0.5))
    return k, torch.where(k.isfinite(), error, 0.0), reliable_khat(batch)


def _typical(weight: Tensor, z: Tensor) -> tuple[Tensor, float]:
    """The standard error of weighted means as most batches see it, and a factor for its noise.

    The variance of a mean under heavy weights is that of a few draws, and another for every seed,
    however many these are. The median of batches is alike for all seeds: ``(row,)``, the largest of
    all latents, posterior standard deviations.
    """
    parts = max(1, len(z) // _BATCH)
    batch = len(z) // parts
    errors = []
    for part in range(parts):
        some = slice(part * batch, (part + 1) * batch)
        share = weight[some] / weight[some].sum(0)
        values = z[some].to(share)
        mean = torch.einsum("sr,srl->rl", share, values)
        away = (values - mean).square_()
        variance = torch.einsum("sr,srl->rl", share, away)
        error = torch.einsum("sr,srl->rl", share.square(), away)
        errors.append(torch.where(variance > 0, error / variance, 0.0).amax(-1))
    middle = torch.stack(errors).quantile(0.5, dim=0)
    return (middle / parts).sqrt(), math.exp(2 * _BETWEEN / parts**0.5)


def _averages(weight: Tensor, z: Tensor) -> tuple[dict[str, _Off], tuple[Tensor, Tensor]]:
    """What raw draws are off by, and the standard errors of weighted mean and sd, the largest."""
    size = len(z)
    loc, scale = z.mean(0), z.std(0, correction=0)
    y = (z - loc) / torch.where(scale > 0, scale, 1.0)  # (draw, row, latent), of sd one
    powers = torch.stack([torch.ones_like(weight), weight, weight.square()]).to(y)

    def mean(values: Tensor) -> Tensor:
        """Unweighted, weighted, and by squared weights: (3, row, latent)."""
        return torch.einsum("asr,srl->arl", powers, values).double() / size

    squares = y * y
    one, two = mean(y), mean(squares)
    three, four = mean(squares * y), mean(squares * squares)
    square_weight = powers.double().mean(1)[2][:, None]  # (row, 1)
    m = one[1]
    v = (two[1] - m * m).clamp(min=0.0)
    sd = v.sqrt()
    # Expectations of psi^2, as polynomials in the moments of y, whose raw mean is 0 and sd is 1.
    around = two[2] - 2 * m * one[2] + m * m * square_weight  # w^2 (y - m)^2
    mean_error = (two[0] - 2 * (two[1] - m * one[1]) + around).clamp(min=0.0)
    rest = m * m - v  # (y - m)^2 - v = y^2 - 2 m y + rest
    spread = (
        four[2]
        - 4 * m * three[2]
        + (4 * m * m + 2 * rest) * two[2]
        - 4 * m * rest * one[2]
        + rest * rest * square_weight
    )
    both = four[1] - 2 * m * three[1] + (rest - 1) * two[1] + 2 * m * one[1] - rest
    sd_error = (four[0] - 1 - 2 * both / v + spread / (v * v)).clamp(min=0.0)
    inside = mean((y.abs() <= _INTERVAL).to(y))
    raw, true = inside[0], inside[1]
    # The square of an indicator is the indicator itself.
    mass_error = (
        raw * (1 - raw)
        - 2 * (true * (1 - true - raw) + raw * true)
        + inside[2] * (1 - 2 * true)
        + true * true * square_weight
    ).clamp(min=0.0)
    off = {
        "mean": _Off(-m / sd, (mean_error / size).sqrt() / sd),
        "sd": _Off(-sd.log(), 0.5 * (sd_error / size).sqrt()),
        "interval": _Off(true - raw, (mass_error / size).sqrt()),
    }
    # A discrete latent whose draws all agree is not off by anything that they could tell.
    varies = scale > 0
    off = {name: _Off(*(torch.where(varies, x, 0.0) for x in one)) for name, one in off.items()}
    sd, v = torch.where(varies, sd, 1.0), torch.where(varies, v, 1.0)
    claimed = (
        ((around.clamp(min=0.0) / size).sqrt() / sd).amax(-1),
        (0.5 * (spread.clamp(min=0.0) / size).sqrt() / v).amax(-1),
    )
    return off, claimed
