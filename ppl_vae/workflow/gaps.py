"""What the ELBO of a row loses to one encoder for all rows, and what to its family."""

from __future__ import annotations

__all__ = ["amortization_gap", "gaps_in_words"]

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..amortized import AmortizedModel
from ..progress import Progress
from ..renamed import renamed
from ..rows import Rows
from .gaussian import Gaussian
from .khat import reliable_khat
from .local_normal import LocalPosterior, chunks, local_posterior, log_weight
from .posterior import evaluating
from .weights import average_weight

if TYPE_CHECKING:
    import xarray as xr


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
    :func:`~ppl_vae.workflow.local_normal.local_posterior`, in hundreds of steps with gradients:
    pass some rows, not all. A richer family mends the first gap, a larger encoder or longer
    training the second. What amortization costs is split into steps from the encoder's normal to
    the best one: its location, then its standard deviations, then, if the family has them, its
    correlations. An encoder whose draws look too narrow may have the right scales in the wrong
    places.

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
        ``low`` says where that is above :math:`\min(1 - 1 / \log_{10} S, 0.7)`: the evidence is
        then likely too low, and with it the approximation gap. All share their noise, so that
        errors largely cancel.

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

    data = Rows.of(x, covariates)
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
            for name, value in _gaps(*weights, threshold=threshold).items():
                parts.setdefault(name, []).append(value.cpu())
            bar.advance(len(batch.x))
    return xr.Dataset(
        {
            name: (
                "row",
                torch.cat(values).numpy(),
                {} if name in ("pareto_k", "low") else {"unit": "nats"},
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
    # Adding zero turns -0.00 into 0.00.
    means = {name: round(float(gaps[name].values[finite].mean()), 2) + 0.0 for name in names}

    def with_error(name: str) -> str:
        if size < 2:
            return f"{means[name]:.2f} +- {gaps[f'{name}_error'].values[finite][0]:.2f}"
        return f"{means[name]:.2f} +- {gaps[name].values[finite].std(ddof=1) / size**0.5:.2f}"

    split = [f"{means['location']:.2f} by its location", f"{means['scale']:.2f} by its scale"]
    if (gaps.correlation != 0).any():
        split.append(f"{means['correlation']:.2f} by its correlations")
    words = (
        f"mean of {size} rows: {with_error('amortization')} nats are lost because one encoder "
        f"serves all rows ({', '.join(split)}), {with_error('approximation')} because of its family"
    )
    if lost:
        words += f"; less {lost} rows in which they are not finite"
    low = int(gaps.low.values[finite].sum())
    if low:
        words += (
            f"; of {low} rows k-hat is above {gaps.attrs['threshold']:.2f}, so that the last "
            "number is likely too low"
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
    encoder: Tensor, moved: Tensor, *stretched: Tensor, threshold: float
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
    found = {
        "approximation": evidence["log_evidence"] - best.mean(0),
        "approximation_error": (influence - best).std(0) / size**0.5,
    }
    for name, difference in differences.items():
        found[name] = difference.mean(0)
        found[f"{name}_error"] = difference.std(0) / size**0.5
    return found | {
        "log_evidence": evidence["log_evidence"],
        "pareto_k": evidence["pareto_k"],
        "low": ~(evidence["pareto_k"] <= threshold),
    }
