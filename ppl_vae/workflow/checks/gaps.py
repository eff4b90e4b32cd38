"""What the ELBO of a row loses to one encoder for all rows, and what to its family."""

from __future__ import annotations

__all__ = ["amortization_gap", "gaps_in_words"]

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ...amortized import AmortizedModel
from ...progress import Progress
from ...renamed import renamed
from ...rows import Batch, Rows, rows_within_budget
from ..draws.gaussian import Gaussian
from ..draws.posterior import evaluating
from ..refinement.local_normal import LocalPosterior, chunks, local_posterior, log_weight
from ..weights.averages import average_chains, average_weight
from ..weights.chains import Path, annealed
from ..weights.khat import reliable_khat

if TYPE_CHECKING:
    import xarray as xr

# Weights with a tail, of a proposal further than so many nats from the posterior, miss some of it;
# among rows whose tails look light they miss most, so that only bounded weights are believed.
_HEAVY, _CLOSE = 0.0, 0.1
# Share of the approximation gap, from which on what the search leaves is much.
_MUCH = 0.1
_CHAINS, _TEMPERATURES = 16, 100
_NORMAL = 1.96  # standard errors from a 95 % interval's middle to its end
# Draws at a time whose gradients are taken, and how many of them at most.
_GRADIENTS, _MOST_GRADIENTS = 16, 1000


@renamed(context="covariates")
def amortization_gap(
    vae: AmortizedModel,
    x: Tensor | Rows,
    *,
    covariates: Tensor | None = None,
    num_samples: int = 1000,
    max_steps: int = 1000,
    seed: int = 0,
    chunk_rows: int | None = None,
    progress: bool = True,
) -> xr.Dataset:
    r"""What the ELBO of each row loses to the encoder's family, and what to its network.

    .. math:: \log p(x) - \operatorname{ELBO}(q_x)
        = \underbrace{\log p(x) - \max_q \operatorname{ELBO}(q)}_\text{approximation}
        + \underbrace{\max_q \operatorname{ELBO}(q) - \operatorname{ELBO}(q_x)}_\text{amortization}

    The maximum over the encoder's family is found for each row by
    :func:`~ppl_vae.workflow.refinement.local_normal.local_posterior`, in hundreds of steps with
    gradients: pass some rows, not all. A richer family mends the first gap, a larger encoder or
    longer training the second. What amortization costs is split into steps from the encoder's
    normal to the best one: its location, then its standard deviations, then, if the family has
    them, its correlations. An encoder whose draws look too narrow may have the right scales in
    the wrong places.

    Parameters
    ----------
    vae
        A VAE, with any encoder.
    x
        Rows, shape ``(row, *event)``.
    covariates
        Shape ``(row, covariate)``, for a conditional VAE.
    num_samples
        Draws that each ELBO and the evidence are averages of.
    max_steps
        Steps of the search before its learning rate falls, at most.
    seed
        Decides all draws, together with ``chunk_rows``.
    chunk_rows
        Rows at a time; by default as many as keep memory to some tens of MB.
    progress
        Show how it goes on standard error.

    Returns
    -------
    xarray.Dataset
        Over ``row``, in nats: ``approximation`` and ``amortization``, and the parts of the latter,
        ``location``, ``scale`` and ``correlation``, which add up to it; each with its standard
        error, ``..._error``. And ``log_evidence`` with its ``pareto_k``: importance sampled from
        the better of the two proposals, the encoder's and the best of its family: the one with the
        smaller standard error if both have k-hat below 0.7, else the one with the lower k-hat.
        Where that is above 0, and the proposal 0.1 nats or more from the posterior, it is annealed
        from the best of the family by 16 chains instead, and ``annealed`` says so. ``low`` says
        where these chains show no upper end: the approximation gap is then at least what is given,
        and its standard error infinite. ELBOs share their noise, so that their errors largely
        cancel.

        Errors include ``search``, what the search leaves: the nats that one more Newton step would
        win, from gradients at fresh draws. Where that is not small, the amortization gap may be
        larger, and the approximation gap smaller, by as much.

    Raises
    ------
    TypeError, ValueError
        If ``x`` or ``covariates`` is not what the VAE describes, the latents are discrete, or
        there are fewer than 30 draws.

    Notes
    -----
    Source: Cremer et al. (2018), *Inference suboptimality in variational autoencoders*.

    Examples
    --------
    >>> from ppl_vae import VAE, VAEConfig
    >>> vae = VAE.from_config(VAEConfig(event_shape=(8, 8), latent_dim=2, hidden=(16,)))
    >>> gaps = amortization_gap(vae, torch.ones(5, 8, 8), num_samples=100, max_steps=50)
    >>> dict(gaps.sizes), gaps.amortization.unit
    ({'row': 5}, 'nats')
    """
    import xarray as xr

    data = Rows.of(x, covariates, vae)
    data.check(vae)
    if num_samples < 30:
        raise ValueError(
            f"num_samples is {num_samples}, too few to see the tail of the weights; pass at least "
            "30, better 500"
        )
    threshold = reliable_khat(num_samples)
    parts: dict[str, list[Tensor]] = {}
    with evaluating(vae, seed), Progress(len(data), "gaps", show=progress) as bar:
        for batch in chunks(vae, data, chunk_rows=chunk_rows):
            steps = _steps(*local_posterior(vae, *batch, max_steps=max_steps))
            noise = steps[-1].noise(num_samples)
            weights = [log_weight(vae, *batch, q, noise).double() for q in steps]
            left = _left(vae, batch, steps[-1], num_samples)
            found = _gaps(*weights, left=left)
            _anneal(vae, batch, steps[-1], weights[-1], found)
            for name, value in found.items():
                parts.setdefault(name, []).append(value.cpu())
            bar.advance(len(batch.x))
    return xr.Dataset(
        {
            name: (
                "row",
                torch.cat(values).numpy(),
                {} if name in ("pareto_k", "low", "annealed") else {"unit": "nats"},
            )
            for name, values in parts.items()
        },
        coords={"row": range(len(data))},
        attrs={"num_samples": num_samples, "seed": seed, "threshold": threshold},
    )


def gaps_in_words(gaps: xr.Dataset) -> str:
    """Means over rows with their errors, what they are made of, and whether they are low."""
    names = ("amortization", "location", "scale", "correlation", "approximation")
    finite = np.logical_and.reduce([np.isfinite(gaps[name].values) for name in names])
    size, lost = int(finite.sum()), int((~finite).sum())
    if not size:
        return f"not finite in any of {lost} rows."
    # What the search leaves has the same sign in all rows, and does not average out.
    left = float(gaps.search.values[finite].mean())
    # Adding zero turns -0.00 into 0.00.
    means = {name: round(float(gaps[name].values[finite].mean()), 2) + 0.0 for name in names}

    def with_error(name: str) -> str:
        if size < 2:
            return f"{means[name]:.2f} +- {gaps[f'{name}_error'].values[finite][0]:.2f}"
        error = gaps[name].values[finite].std(ddof=1) / size**0.5
        return f"{means[name]:.2f} +- {np.hypot(error, left):.2f}"

    split = [f"{means['location']:.2f} by its location", f"{means['scale']:.2f} by its scale"]
    if (gaps.correlation != 0).any():
        split.append(f"{means['correlation']:.2f} by its correlations")
    low = int(gaps.low.values[finite].sum())
    words = (
        f"mean of {size} rows: {with_error('amortization')} nats are lost because one encoder "
        f"serves all rows ({', '.join(split)}), {'at least ' if low else ''}"
        f"{with_error('approximation')} because of its family"
    )
    if lost:
        words += f"; less {lost} rows in which they are not finite"
    if left > max(_CLOSE, _MUCH * means["approximation"]):
        words += (
            f"; the search for the best posteriors did not end, and the first number may be larger "
            f"and the last smaller by {left:.2f} nats"
        )
    if low:
        words += (
            f"; of {low} rows the last number is a lower bound, as neither weights nor annealed "
            "chains reach log p(x)"
        )
    return words + "."


def _steps(encoder: LocalPosterior, best: LocalPosterior) -> tuple[LocalPosterior, ...]:
    """From the encoder's posterior to the best: its location, its scales, its correlations."""
    at_best = Gaussian(best.loc, encoder.scale)
    steps = [encoder, replace(best, normal=at_best)]
    if encoder.scale.dim() == 3:
        sd, sd_best = (q.scale.square().sum(-1).sqrt() for q in (encoder, best))  # (row, latent)
        stretched = Gaussian(best.loc, encoder.scale * (sd_best / sd)[..., None])
        steps.append(replace(best, normal=stretched))
    return (*steps, best)


def _gaps(
    encoder: Tensor, moved: Tensor, *stretched: Tensor, left: tuple[Tensor, Tensor]
) -> dict[str, Tensor]:
    """From log-weights (draw, row) of the encoder's posterior, the steps between, and the best."""
    size, best = len(encoder), stretched[-1]
    (k, error), (k_best, error_best) = (
        (made["pareto_k"].to(best.device).clamp(min=0.7), made["standard_error"])
        for made in map(average_weight, (encoder, best))
    )
    # A wide proposal has light tails and may yet waste most draws: k decides only above 0.7.
    chosen = (k_best < k) | ((k_best == k) & (error_best <= error))
    better = torch.where(chosen, best, encoder)
    evidence = average_weight(better)
    # By the delta method, each draw adds this to the estimate of log p(x).
    influence = (better - evidence["log_evidence"]).exp()
    differences = {
        "amortization": best - encoder,
        "location": moved - encoder,
        "scale": stretched[0] - moved,
        "correlation": best - stretched[0],
    }
    of_location, of_scale = left
    none = torch.zeros_like(of_scale)
    unsearched = {
        "amortization": of_location + of_scale,
        "location": of_location,
        "scale": of_scale,
        "correlation": of_scale if len(stretched) > 1 else none,
    }
    drawn = (influence - best).std(0) / size**0.5
    # Of heavier weights, the fitted tail knows more of the error than these draws do.
    width = (evidence["log_evidence_high"] - evidence["log_evidence_low"]) / (2 * _NORMAL)
    drawn = torch.where(width.isfinite(), torch.fmax(drawn, width), drawn)
    far = evidence["log_evidence"] - better.mean(0) > _CLOSE
    found = {
        "approximation": evidence["log_evidence"] - best.mean(0),
        "approximation_error": torch.hypot(drawn, of_location + of_scale),
    }
    for name, difference in differences.items():
        found[name] = difference.mean(0)
        found[f"{name}_error"] = torch.hypot(difference.std(0) / size**0.5, unsearched[name])
    return found | {
        "log_evidence": evidence["log_evidence"],
        "pareto_k": evidence["pareto_k"],
        "search": of_location + of_scale,
        "annealed": far & ~(evidence["pareto_k"].to(far.device) <= _HEAVY),
        "low": torch.zeros_like(chosen),
    }


def _left(
    vae: AmortizedModel, batch: Batch, best: LocalPosterior, num_samples: int
) -> tuple[Tensor, Tensor]:
    r"""The nats that the search left in location and in scale, ``(row,)`` each, or their error.

    In units of its own scale, the ELBO of a normal that is nearly the best has curvature 1 in
    locations, 2 in logarithms of scales and 1 in what is between latents. Half of the squared
    gradient over the curvature is what a Newton step wins; the gradient's noise is taken out, and
    what it leaves open is counted as error.
    """
    size = min(num_samples, _MOST_GRADIENTS) // 2
    sums: list[Tensor] = []
    for start in range(0, size, _GRADIENTS):
        half = best.noise(min(_GRADIENTS, size - start))
        noise = torch.cat([half, -half])
        slope = _slopes(vae, batch, best, noise).double()  # (draw, row, latent)
        if best.scale.dim() == 3:
            inner = torch.einsum("sri,srj->srij", slope, noise.double()).tril().flatten(2)
        else:
            inner = slope * noise
        pairs = [(part[: len(half)] + part[len(half) :]) / 2 for part in (slope, inner)]
        moments = [power for part in pairs for power in (part.sum(0), part.square().sum(0))]
        sums = [old + new for old, new in zip(sums, moments, strict=True)] if sums else moments
    mean, square, mean_inner, square_inner = (total / size for total in sums)
    curvature = torch.ones_like(mean_inner)
    if best.scale.dim() == 3:
        curvature[:, :: best.loc.shape[1] + 1] = 2.0  # the diagonal
    else:
        curvature *= 2.0
    return (
        _decrement(mean, square, size, torch.ones_like(mean)),
        _decrement(mean_inner, square_inner, size, curvature),
    )


def _slopes(vae: AmortizedModel, batch: Batch, q: LocalPosterior, noise: Tensor) -> Tensor:
    """Gradients of log-weights with respect to the noise of q, ``(draw, row, latent)``."""
    with torch.enable_grad():
        noise = noise.detach().requires_grad_()
        u = q.normal.at(noise)
        z, log_det = q.coordinates.map(u)
        value = vae.log_joint(z, *batch) + log_det - q.normal.distribution.log_prob(u)
        return torch.autograd.grad(value.sum(), noise)[0]


def _decrement(mean: Tensor, square: Tensor, size: int, curvature: Tensor) -> Tensor:
    noise = ((square - mean.square()).clamp(min=0.0) / size) / curvature
    wins = (mean.square() / curvature - noise).sum(-1).clamp(min=0.0)
    return 0.5 * torch.hypot(wins, (2 * noise.square()).sum(-1).sqrt())


def _anneal(
    vae: AmortizedModel,
    batch: Batch,
    best: LocalPosterior,
    log_weight: Tensor,
    found: dict[str, Tensor],
) -> None:
    """Anneal the evidence of rows that ask for it, and the approximation gap with it."""
    rows = found["annealed"].nonzero()[:, 0]
    most = rows_within_budget(vae.event_shape, _CHAINS, gradients=True)
    elbo_error = log_weight.std(0) / len(log_weight) ** 0.5
    for some in rows.split(most) if len(rows) else ():
        x, covariates = batch.x[some], None
        if batch.covariates is not None:
            covariates = batch.covariates[some]
        start = (
            Gaussian(best.loc[some], best.scale[some]).distribution
            if best.coordinates.identical
            else "encoder"
        )
        try:
            path = Path(vae, x, covariates, start=start)
        except ValueError:  # a density that is known at its own draws alone
            found["annealed"][some], found["low"][some] = False, True
            found["approximation_error"][some] = torch.inf
            continue
        _, weights = annealed(path, _CHAINS, _TEMPERATURES)
        made = average_chains(weights, _TEMPERATURES)
        found["log_evidence"][some] = made["log_evidence"]
        found["approximation"][some] = made["log_evidence"] - log_weight.mean(0)[some]
        # Of a search that did not end, the gap is no lower bound either.
        ended = found["search"][some] <= _MUCH * found["approximation"][some]
        found["low"][some] = ~made["weights_usable"] & ended
        drawn = torch.hypot(made["standard_error"], elbo_error[some])
        found["approximation_error"][some] = torch.hypot(drawn, found["search"][some])
