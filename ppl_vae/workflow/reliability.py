"""How far the encoder can be believed: k-hat, latents in use, what amortization costs."""

from __future__ import annotations

__all__ = ["active_units", "amortization_gap", "pareto_khat"]

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..progress import Progress
from ..renamed import renamed
from ..vae import VAE
from .evidence import log_evidence
from .local_normal import chunks, local_posterior, log_weight
from .posterior import evaluating, posterior_means
from .weights import average_weight

if TYPE_CHECKING:
    import xarray as xr


@renamed(context="covariates")
def pareto_khat(
    vae: VAE,
    x: Tensor,
    *,
    covariates: Tensor | None = None,
    num_samples: int = 1000,
    seed: int = 0,
    chunk_rows: int | None = None,
    progress: bool = True,
) -> xr.DataArray:
    r"""Pareto k-hat of each row's importance weights: whether q(z|x) covers p(z|x).

    Below 0.5 the weights have a variance and q(z|x) is close; up to 0.7 it serves as a proposal;
    above, averages over its draws, weighted or not, cannot be relied on. Weights that are all
    equal, those of an exact encoder, have k-hat 0. One k-hat for a batch, the sum of its rows'
    log-weights, would not say which rows are at fault, and grows with their number.

    Parameters
    ----------
    vae
        A VAE.
    x
        Rows, shape ``(row, *event)``.
    covariates
        Shape ``(row, covariate)``, for a conditional VAE.
    num_samples
        Draws for each row.
    seed, chunk_rows
        As in :func:`~ppl_vae.sample_posterior`.
    progress
        Show how it goes on standard error.

    Returns
    -------
    xarray.DataArray
        Over ``row``, with the coordinate ``needed_samples`` (row): :math:`10^{1 / (1 - k)}`, with
        k at least 0, how many draws make weighted averages of that row reliable; infinite from k
        of 1 on. Its attribute ``threshold``, :math:`\min(1 - 1 / \log_{10} S, 0.7)`, is the
        largest k for which ``num_samples`` are enough.

    Raises
    ------
    TypeError, ValueError
        If ``x`` or ``covariates`` is not what the VAE describes, or there are fewer than 30 draws.

    Notes
    -----
    Source: Vehtari et al. (2024), *Pareto smoothed importance sampling*; Yao et al. (2018), *Yes,
    but did it work?*, for variational posteriors.

    Examples
    --------
    >>> from ppl_vae import VAEConfig
    >>> vae = VAE.from_config(VAEConfig(event_shape=(8, 8), latent_dim=2, hidden=(16,)))
    >>> k = pareto_khat(vae, torch.ones(5, 8, 8), num_samples=100)
    >>> k.dims, bool((k.needed_samples >= 10).all())
    (('row',), True)
    """
    k = log_evidence(
        vae,
        x,
        covariates=covariates,
        num_samples=num_samples,
        seed=seed,
        chunk_rows=chunk_rows,
        progress=progress,
    ).pareto_k
    room = (1 - k.clip(min=0)).clip(min=0)
    with np.errstate(divide="ignore", over="ignore"):
        needed = 10 ** (1 / room.values)
    threshold = min(1 - 1 / np.log10(num_samples), 0.7)
    k = k.assign_coords(needed_samples=("row", needed))
    return k.assign_attrs(num_samples=num_samples, seed=seed, threshold=threshold)


@renamed(context="covariates")
def active_units(
    vae: VAE, x: Tensor, *, covariates: Tensor | None = None, threshold: float = 0.01
) -> xr.Dataset:
    r"""Which latents the encoder uses: those whose posterior mean varies between rows.

    .. math:: A_d = \operatorname{Var}_x \bigl(\operatorname{E}_{q(z \mid x)}[z_d]\bigr)

    An inactive latent is one that the encoder leaves alone, because the decoder does not use it,
    or because the encoder has not learnt to infer it.

    Parameters
    ----------
    vae
        A VAE.
    x
        Rows, shape ``(row, *event)``, at least two.
    covariates
        Shape ``(row, covariate)``, for a conditional VAE.
    threshold
        A latent of a larger variance is active.

    Returns
    -------
    xarray.Dataset
        Over ``latent``: ``variance`` and ``active``.

    Raises
    ------
    TypeError, ValueError
        If ``x`` or ``covariates`` is not what the VAE describes, or ``x`` has one row.

    Notes
    -----
    Source: Burda et al. (2016), section 5.2.

    Examples
    --------
    >>> from ppl_vae import VAEConfig
    >>> vae = VAE.from_config(VAEConfig(event_shape=(8, 8), latent_dim=2, hidden=(16,)))
    >>> units = active_units(vae, (torch.rand(50, 8, 8) < 0.5).float())
    >>> dict(units.sizes), int(units.active.sum()) <= 2
    ({'latent': 2}, True)
    """
    import xarray as xr

    vae.check(x, covariates)
    if len(x) < 2:
        raise ValueError("x has 1 row, and a variance over rows needs at least 2; pass more rows")
    # Of single precision, squares of an outlier may overflow.
    variance = posterior_means(vae, x, covariates).astype(np.float64).var(axis=0, ddof=1)
    return xr.Dataset(
        {"variance": ("latent", variance), "active": ("latent", variance > threshold)},
        coords={"latent": range(len(variance))},
        attrs={"threshold": threshold, "num_rows": len(x)},
    )


@renamed(context="covariates")
def amortization_gap(
    vae: VAE,
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
    >>> from ppl_vae import VAEConfig
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
