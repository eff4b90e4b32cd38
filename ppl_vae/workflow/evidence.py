"""log p(x) of each row: how well the VAE describes data that it was not fitted to."""

from __future__ import annotations

__all__ = [
    "average_weight",
    "evidence_dataset",
    "independent_log_prob",
    "log_evidence",
    "smoothed_tail_index",
]

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..components.decoders import Decoder
from ..renamed import renamed
from ..rows import to_float
from ..vae import VAE
from .posterior import map_draws
from .weights import average_weight, smoothed_tail_index

if TYPE_CHECKING:
    import xarray as xr


@renamed(context="covariates")
def log_evidence(
    vae: VAE,
    x: Tensor,
    *,
    covariates: Tensor | None = None,
    method: str = "importance",
    num_samples: int | None = None,
    num_temperatures: int | None = None,
    seed: int = 0,
    chunk_rows: int | None = None,
    progress: bool = True,
) -> xr.Dataset:
    r"""Estimate log p(x) of each row by importance sampling from the encoder, or by annealing.

    .. math:: \log p(x) \approx \log \frac{1}{S} \sum_{s=1}^S
        \frac{p(x, z_s)}{q(z_s \mid x)}, \quad z_s \sim q(z \mid x)

    On average the estimate is a lower bound, which rises to log p(x) with the number of draws;
    where Pareto k-hat is above 0.7 it may be far below, whatever its standard error says. There
    annealed importance sampling is the method to use: some hundred times the work for a draw.

    Parameters
    ----------
    vae
        A VAE.
    x
        Rows, shape ``(row, *event)``. Missing entries are integrated out.
    covariates
        Shape ``(row, covariate)``, for a conditional VAE.
    method
        ``"importance"``, or ``"ais"``: :func:`~ppl_vae.workflow.annealing.anneal`, which
        has more options.
    num_samples
        Draws for each row; by default 1000, or 16 chains of annealing.
    num_temperatures
        Of annealing; 100 by default.
    seed, chunk_rows
        As in :func:`~ppl_vae.sample_posterior`.
    progress
        Show how it goes on standard error.

    Returns
    -------
    xarray.Dataset
        Over ``row``, in nats: ``log_evidence``; ``standard_error``, by the delta method; ``elbo``,
        the mean of the log-weights. And ``pareto_k``, the tail index of the weights; it is 0 where
        all weights are equal, as they are when q(z|x) is exact, and NaN for fewer than 30 chains.

    Raises
    ------
    TypeError, ValueError
        If ``x`` or ``covariates`` is not what the VAE describes, or an option is not accepted.

    Notes
    -----
    Source: Rezende et al. (2014), appendix E; Burda et al. (2016), equation 8, for the bound;
    Vehtari et al. (2024), *Pareto smoothed importance sampling*, for k-hat.

    Examples
    --------
    >>> from ppl_vae import VAEConfig
    >>> vae = VAE.from_config(VAEConfig(event_shape=(8, 8), latent_dim=2, hidden=(16,)))
    >>> evidence = log_evidence(vae, torch.ones(5, 8, 8), num_samples=100, progress=False)
    >>> bool((evidence.log_evidence > evidence.elbo).all())
    True
    """
    if method == "ais":
        from .annealing import anneal

        return anneal(
            vae,
            x,
            covariates=covariates,
            num_chains=16 if num_samples is None else num_samples,
            num_temperatures=100 if num_temperatures is None else num_temperatures,
            seed=seed,
            chunk_rows=chunk_rows,
            progress=progress,
        )
    if method != "importance":
        raise ValueError(f"method is {method!r}; accepted are 'importance', 'ais'")
    if num_temperatures is not None:
        raise ValueError(
            f"num_temperatures={num_temperatures} was given to method='importance', which has "
            "none; leave it out, or use method='ais'"
        )
    num_samples = 1000 if num_samples is None else num_samples
    if num_samples < 30:
        raise ValueError(
            f"num_samples is {num_samples}, too few to see the tail of the weights; pass at least "
            "30, better 500"
        )
    arrays = map_draws(
        vae,
        x,
        covariates,
        lambda draws: average_weight(draws.log_weight),
        num_samples=num_samples,
        seed=seed,
        chunk_rows=chunk_rows,
        label="evidence",
        progress=progress,
    )
    return evidence_dataset(arrays, method=method, num_samples=num_samples, seed=seed)


def evidence_dataset(arrays: Mapping[str, np.ndarray], **attrs: str | int) -> xr.Dataset:
    """Arrays over rows, in nats but for ``pareto_k``, with how they came about."""
    import xarray as xr

    units = {name: {} if name == "pareto_k" else {"unit": "nats"} for name in arrays}
    return xr.Dataset(
        {name: ("row", values, units[name]) for name, values in arrays.items()},
        coords={"row": range(len(arrays["log_evidence"]))},
        attrs=attrs,
    )


def independent_log_prob(decoder: Decoder, train: Tensor, test: Tensor) -> Tensor:
    r"""log p(x) of each test row under entries that are independent: what any VAE should beat.

    The decoder's own likelihood with one constant for each entry in place of its network, fitted
    to training rows (10,000 at most) by maximum a posteriori, under a weak
    :math:`\mathcal{N}(0, 5^2)` prior that keeps pixels which never vary finite.

    Parameters
    ----------
    decoder
        Its likelihood is copied and not changed.
    train, test
        Rows, shape ``(row, *event)``, with NaN for missing entries.

    Returns
    -------
    Nats, shape ``(row,)``.
    """
    decoder = copy.deepcopy(decoder).double().cpu()
    decoder.network = torch.nn.Identity()
    train, test = (to_float(x.cpu(), torch.float64) for x in (train[:10_000], test))
    raw = torch.zeros(decoder.event_shape, dtype=torch.float64, requires_grad=True)
    parameters = [raw, *decoder.parameters()]
    optimizer = torch.optim.LBFGS(parameters, max_iter=100, line_search_fn="strong_wolfe")

    def entries(x: Tensor) -> Tensor:
        observed = ~x.isnan()
        return decoder.likelihood(raw).log_prob(x.nan_to_num(nan=0.0)) * observed

    def loss() -> Tensor:
        optimizer.zero_grad()
        penalty = sum((p / 5).square().sum() for p in parameters) / 2
        value = (penalty - entries(train).sum()) / len(train)
        value.backward()
        return value

    optimizer.step(loss)
    with torch.no_grad():
        return torch.cat([entries(x).flatten(1).sum(1) for x in test.split(1000)])
