"""What the ELBO of a row loses to one encoder for all rows, and what to its family."""

from __future__ import annotations

__all__ = ["amortization_gap"]

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..amortized import AmortizedModel
from ..progress import Progress
from ..renamed import renamed
from .local_normal import chunks, local_posterior, log_weight
from .posterior import evaluating
from .weights import average_weight

if TYPE_CHECKING:
    import xarray as xr


@renamed(context="covariates")
def amortization_gap(
    vae: AmortizedModel,
    x: Tensor,
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
    training the second.

    Parameters
    ----------
    vae
        A VAE whose encoder returns normals, independent or with a full covariance.
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
        Over ``row``, in nats: ``approximation`` and ``amortization``, with
        ``approximation_error`` and ``amortization_error``, their standard errors;
        ``log_evidence``. And its ``pareto_k``. The evidence is importance sampled from the better
        of the two proposals, the encoder's and the best of its family: the one with the smaller
        standard error if both have k-hat below 0.7, else the one with the lower k-hat. Where that
        is above 0.7 the evidence is likely too low, and with it the approximation gap. All share
        their noise, so that errors largely cancel.

    Raises
    ------
    TypeError, ValueError
        If ``x`` or ``covariates`` is not what the VAE describes, the encoder returns something else
        than normals, or there are fewer than 30 draws.

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

    vae.check(x, covariates)
    if num_samples < 30:
        raise ValueError(
            f"num_samples is {num_samples}, too few to see the tail of the weights; pass at least "
            "30, better 500"
        )
    parts: dict[str, list[Tensor]] = {}
    with evaluating(vae, seed), Progress(len(x), "gaps", show=progress) as bar:
        for rows, given in chunks(vae, x, covariates, chunk_rows):
            encoder, best = local_posterior(vae, rows, given, max_steps=max_steps)
            noise = best.noise(num_samples)
            weights = [log_weight(vae, rows, given, q, noise).double() for q in (encoder, best)]
            for name, value in _gaps(*weights).items():
                parts.setdefault(name, []).append(value.cpu())
            bar.advance(len(rows))
    return xr.Dataset(
        {
            name: ("row", torch.cat(values).numpy(), {} if name == "pareto_k" else {"unit": "nats"})
            for name, values in parts.items()
        },
        coords={"row": range(len(x))},
        attrs={"num_samples": num_samples, "seed": seed},
    )


def _gaps(encoder: Tensor, best: Tensor) -> dict[str, Tensor]:
    """From log-weights (draw, row) of the encoder and of the best of its family."""
    size = len(best)
    (k, error), (k_best, error_best) = (
        (made["pareto_k"].to(best.device).clamp(min=0.7), made["standard_error"])
        for made in map(average_weight, (encoder, best))
    )
    # A wide proposal has light tails and may yet waste most draws: k decides only above 0.7.
    chosen = (k_best < k) | ((k_best == k) & (error_best <= error))
    better = torch.where(chosen, best, encoder)
    evidence = average_weight(better)
    # What each draw adds to the estimate of log p(x), by the delta method.
    influence = (better - evidence["log_evidence"]).exp()
    return {
        "approximation": evidence["log_evidence"] - best.mean(0),
        "approximation_error": (influence - best).std(0) / size**0.5,
        "amortization": (best - encoder).mean(0),
        "amortization_error": (best - encoder).std(0) / size**0.5,
        "log_evidence": evidence["log_evidence"],
        "pareto_k": evidence["pareto_k"],
    }
