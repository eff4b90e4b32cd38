"""Verdicts on rows whose truth is known: those that the model simulates itself."""

from __future__ import annotations

__all__ = ["ENOUGH", "Simulated", "simulated"]

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ...amortized import AmortizedModel
from ...progress import Progress
from ...rows import Rows, rows_within_budget
from ..draws.latents import NO_INVERSE, density, draw
from ..draws.posterior import evaluating
from ..weights.khat import khat
from .judgement import judge

# Draws of each row, and k-hat up to which they look as if they covered the posterior.
_DRAWS, _GOOD = 500, 0.5
# A weight so many nats above what the largest of all draws should have says that q was not there.
_UNSEEN = 2.0
# Rows believed that say something of all of them, and how often they do so by chance.
ENOUGH, _CHANCE = 30, 0.001
# What ranks have where means are off by 0.1 sd and sds by 10 %, as rows that are believed may be:
# the mean's distance from the middle is 0.1 / 2 sqrt(pi), and the variance, times 12, that of a
# normal's distribution function at 1.1 times its argument.
_OFFSET = 0.1 / (2 * math.sqrt(math.pi))
_SPREAD = 6 / math.pi * math.asin(1.1**2 / (1 + 1.1**2)) - 1


@dataclass(frozen=True)
class Simulated:
    """What the truths of simulated rows say of verdicts.

    Attributes
    ----------
    good
        Rows whose k-hat is at most 0.5.
    hidden
        Of these, rows whose truth is where q(z|x) puts next to no draws.
    believed
        Rows that would be used as they are or reweighted.
    against
        What speaks against that, in words: of these rows, where truths lie among the draws.
    """

    good: int = 0
    hidden: int = 0
    believed: int = 0
    against: str = ""


def simulated(
    vae: AmortizedModel,
    covariates: Tensor | None,
    *,
    num_rows: int,
    tolerance: float,
    seed: int = 0,
    progress: bool = True,
) -> Simulated:
    r"""Judge simulated rows as others are judged, and ask their truths whether that is right.

    A z drawn together with its x is an exact draw from p(z|x), from whichever mode. Where the
    weights of S draws from q look good, a truth whose own weight is more than :math:`e^2 S` times
    their mean is in a place that they have no chance to see. This is a
    :func:`~ppl_vae.sandwich` of one temperature, in which such a row has a gap
    of many nats.

    And the share of draws, weighted where they would be, that lie below the truth is uniform if
    draws are from the posterior: the calibration of verdicts. Rows are selected by their draws
    alone, which leaves it uniform; hidden ones, of which an exact q has none, speak for themselves.
    It is tested for each latent whether these shares show more
    than the errors that rows believed may have, 0.1 sd and 10 %: by chance in 1 of 1,000 sets of
    rows.

    Parameters
    ----------
    vae, covariates
        A model, and what its rows are conditional on.
    num_rows
        How many rows to simulate, with 500 draws each.
    tolerance
        As in :func:`~ppl_vae.workflow.verdict.judgement.judge`.
    seed, progress
        As in :func:`~ppl_vae.diagnose`.

    Returns
    -------
    What was found; nothing where the density of q is known at its own draws alone.

    Notes
    -----
    Source: Talts et al. (2018), algorithm 1; Yao et al. (2018), *Yes, but did it work?*, section
    3.2, for the test of the mean rank.
    """
    size = rows_within_budget((max(math.prod(vae.event_shape), 8 * vae.latent_dim),), _DRAWS)
    hidden = good = believed = 0
    shares = []
    with evaluating(vae, seed), Progress(num_rows, "simulated rows", show=progress) as bar:
        z, x, given = vae.simulate(num_rows, covariates)
        for rows, batch in Rows(x, given).chunks(size, vae.like):
            q, truth = vae.posterior(*batch), z[rows][None]
            draws = draw(q, (_DRAWS,))
            log_weight = (vae.log_joint(draws, *batch) - density(q, draws)).double()
            try:
                log_q = q.log_prob(truth)
            except NO_INVERSE:
                return Simulated()
            own = (vae.log_joint(truth, *batch) - log_q)[0].double()
            looks_good = khat(log_weight) <= _GOOD
            unseen = own > log_weight.logsumexp(0) + _UNSEEN
            good += int(looks_good.sum())
            hidden += int((looks_good & unseen).sum())
            found = judge(log_weight, draws, tolerance=tolerance, most=_DRAWS)
            raw = found["raw_close"] == 1
            usable = raw | (found["weights_usable"] == 1)
            weight = torch.where(raw, 1.0 / _DRAWS, log_weight.softmax(0))  # (draw, row)
            below = _share(weight, draws, truth)  # (row, latent)
            believed += int(usable.sum())
            shares.append(below[usable & ~(looks_good & unseen)])
            bar.advance(len(batch.x))
    return Simulated(good, hidden, believed, _against(torch.cat(shares), vae.latent_names))


def _share(weight: Tensor, draws: Tensor, truth: Tensor) -> Tensor:
    """Weight of the draws below the truth, ``(row, latent)``; of equal ones a random part."""
    below = torch.einsum("sr,srl->rl", weight, (draws < truth).to(weight))
    equal = torch.einsum("sr,srl->rl", weight, (draws == truth).to(weight))
    return below + torch.rand_like(equal) * equal


def _against(share: Tensor, names: tuple[str, ...]) -> str:
    """What shares ``(row, latent)`` say of the latent that is furthest from uniform, in words."""
    size = len(share)
    if size < ENOUGH:
        return ""
    errors = torch.special.ndtri(torch.tensor(1 - _CHANCE / (4 * len(names)))).item()
    offset = share.mean(0) - 0.5
    spread = 12 * share.var(0) - 1
    # In standard errors, beyond what is allowed.
    shift = (offset.abs() - _OFFSET) * math.sqrt(12 * size)
    width = (spread.abs() - _SPREAD) * math.sqrt(5 / 4 * size)
    if max(shift.max(), width.max()) <= errors:
        return ""
    at = int(torch.maximum(shift, width).argmax())
    if shift[at] >= width[at]:
        where = "above their draws" if offset[at] > 0 else "below their draws"
    else:
        where = "outside their draws" if spread[at] > 0 else "in the middle of their draws"
    return f"the truth of {names[at]} lies {where} too often"
