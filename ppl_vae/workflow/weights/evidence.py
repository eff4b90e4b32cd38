"""log p(x) of each row: how well the VAE describes data that it was not fitted to."""

from __future__ import annotations

__all__ = [
    "average_weight",
    "evidence_dataset",
    "independent_log_prob",
    "log_evidence",
    "smoothed_tail_index",
]

import os
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ...amortized import AmortizedModel
from ...renamed import renamed
from ...rows import Rows, rows_within_budget
from ..draws.chunked import sink_for
from ..draws.posterior import Draws, map_draws
from .annealing import anneal
from .averages import average_weight, evidence_contents, evidence_dataset
from .baseline import independent_log_prob
from .khat import khat, reliable_khat, smoothed_tail_index

if TYPE_CHECKING:
    import xarray as xr

    from ...store import Store

# Draws that judge the weights, apart from those that log p(x) is estimated with.
_JUDGING = 500


@renamed(context="covariates")
def log_evidence(
    vae: AmortizedModel,
    x: Tensor | Rows,
    *,
    covariates: Tensor | None = None,
    method: str = "importance",
    num_samples: int | None = None,
    num_temperatures: int | None = None,
    seed: int = 0,
    chunk_rows: int | None = None,
    store: str | os.PathLike[str] | Store | None = None,
    progress: bool = True,
) -> xr.Dataset:
    r"""Estimate log p(x) of each row by importance sampling from the encoder, or by annealing.

    .. math:: \log p(x) \approx \log \frac{1}{S} \sum_{s=1}^S
        \frac{p(x, z_s)}{q(z_s \mid x)}, \quad z_s \sim q(z \mid x)

    On average the estimate is a lower bound, which rises to log p(x) with the number of draws.
    Whether weights can be used at all is judged by Pareto k-hat of draws apart from those that the
    estimate is of: among rows selected by their own weights estimates are too low. Where weights
    are not usable an estimate may be far off, whatever its standard error says; annealed
    importance sampling is then the method to use, at some hundred times the work for a draw.

    Parameters
    ----------
    vae
        A VAE.
    x
        Rows, shape ``(row, *event)``. Missing entries are integrated out.
    covariates
        Shape ``(row, covariate)``, for a conditional VAE.
    method
        ``"importance"``, or ``"ais"``: :func:`~ppl_vae.workflow.weights.annealing.anneal`, which
        has more options.
    num_samples
        Draws for each row that the estimate is of; by default 1000, or 16 chains of annealing. By
        importance sampling as many more judge the weights, at most 500.
    num_temperatures
        Temperatures of annealing; 100 by default.
    seed, chunk_rows, store
        As in :func:`~ppl_vae.sample_posterior`.
    progress
        Show how it goes on standard error.

    Returns
    -------
    xarray.Dataset
        Over ``row``, in nats: ``log_evidence``; ``standard_error``, by the delta method;
        ``log_evidence_low`` and ``log_evidence_high``, a 95 % interval; ``elbo``, the mean of the
        log-weights. And ``pareto_k``, the tail index of the weights, of other draws: 0 where all
        weights are equal, as they are when q(z|x) is exact. And ``weights_usable``, whether it is
        at most the attribute ``threshold``, :math:`\min(1 - 1 / \log_{10} S, 0.7)` for the S
        draws that judge; where weights are not usable, ``log_evidence_high`` is infinite, as these
        draws give no upper bound, and ``log_evidence_low`` is a bound that holds for 95 %. Of
        annealing ``pareto_k`` is NaN for fewer than 30 chains.

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
    >>> import torch
    >>> from ppl_vae import VAE, VAEConfig
    >>> vae = VAE.from_config(VAEConfig(event_shape=(8, 8), latent_dim=2, hidden=(16,)))
    >>> evidence = log_evidence(vae, torch.ones(5, 8, 8), num_samples=100, progress=False)
    >>> bool((evidence.log_evidence > evidence.elbo).all())
    True
    """
    if method == "ais":
        return anneal(
            vae,
            x,
            covariates=covariates,
            num_samples=16 if num_samples is None else num_samples,
            num_temperatures=100 if num_temperatures is None else num_temperatures,
            seed=seed,
            chunk_rows=chunk_rows,
            store=store,
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
    judging = min(num_samples, _JUDGING)
    threshold = reliable_khat(judging)

    def summary(draws: Draws) -> dict[str, Tensor]:
        judged, estimated = draws.log_weight.split([judging, num_samples])
        k = khat(judged)
        found = average_weight(estimated, k <= threshold)
        return found | {"pareto_k": k, "weights_usable": k <= threshold}

    data, sink = Rows.of(x, covariates, vae), None
    attrs: dict[str, Any] = {
        "method": method,
        "num_samples": num_samples,
        "threshold": threshold,
        "seed": seed,
    }
    drawn = judging + num_samples
    if store is not None:
        size = rows_within_budget(vae.event_shape, drawn, chunk_rows=chunk_rows)
        contents = evidence_contents(**attrs)
        sink = sink_for(store, vae, data, contents, size=size, numbers=7, what="evidence", **attrs)
    arrays = map_draws(
        vae,
        data,
        None,
        summary,
        num_samples=drawn,
        seed=seed,
        chunk_rows=chunk_rows,
        label="evidence",
        progress=progress,
        sink=sink,
    )
    return evidence_dataset(arrays, **attrs) if sink is None else sink.close().open()
