"""Pareto k-hat of any number of rows: whether the encoder covers their posteriors."""

from __future__ import annotations

__all__ = ["pareto_khat"]

from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from ...amortized import AmortizedModel
from ...renamed import renamed
from ...rows import Rows
from ..draws.posterior import map_draws
from .khat import khat, reliable_khat

if TYPE_CHECKING:
    import xarray as xr


@renamed(context="covariates")
def pareto_khat(
    vae: AmortizedModel,
    x: Tensor | Rows,
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
    >>> import torch
    >>> from ppl_vae import VAE, VAEConfig
    >>> vae = VAE.from_config(VAEConfig(event_shape=(8, 8), latent_dim=2, hidden=(16,)))
    >>> k = pareto_khat(vae, torch.ones(5, 8, 8), num_samples=100)
    >>> k.dims, bool((k.needed_samples >= 10).all())
    (('row',), True)
    """
    import xarray as xr

    if num_samples < 30:
        raise ValueError(
            f"num_samples is {num_samples}, too few to see the tail of the weights; pass at least "
            "30, better 500"
        )
    arrays = map_draws(
        vae,
        x,
        covariates,
        lambda draws: {"k": khat(draws.log_weight)},
        num_samples=num_samples,
        seed=seed,
        chunk_rows=chunk_rows,
        label="k-hat",
        progress=progress,
    )
    k = xr.DataArray(
        arrays["k"], dims="row", coords={"row": range(len(arrays["k"]))}, name="pareto_k"
    )
    room = (1 - k.clip(min=0)).clip(min=0)
    with np.errstate(divide="ignore", over="ignore"):
        needed = 10 ** (1 / room.values)
    threshold = reliable_khat(num_samples)
    k = k.assign_coords(needed_samples=("row", needed))
    return k.assign_attrs(num_samples=num_samples, seed=seed, threshold=threshold)
