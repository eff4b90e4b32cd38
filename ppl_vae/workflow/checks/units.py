"""Latents in use: by the encoder, whose means vary, and by the decoder."""

from __future__ import annotations

__all__ = ["active_units", "loss_without", "several_rows"]

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ...amortized import AmortizedModel
from ...renamed import renamed
from ...rows import Rows
from ..draws.posterior import evaluating, posterior_means

if TYPE_CHECKING:
    import xarray as xr


@renamed(context="covariates")
def active_units(
    vae: AmortizedModel,
    x: Tensor | Rows,
    *,
    covariates: Tensor | None = None,
    threshold: float = 0.01,
    seed: int = 0,
    chunk_rows: int | None = None,
    progress: bool = False,
) -> xr.Dataset:
    r"""Which latents the encoder uses: those whose posterior mean varies between rows.

    .. math:: A_d = \operatorname{Var}_x \bigl(\operatorname{E}_{q(z \mid x)}[z_d]\bigr)

    An inactive latent is one that the encoder leaves alone, because the decoder does not use it,
    or because the encoder has not learned to infer it.

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
    seed
        Decides the draws that means are taken of where the encoder's has no formula, as a flow's.
    chunk_rows
        Rows at a time, as in :func:`~ppl_vae.sample_posterior`.
    progress
        Show how it goes on standard error.

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
    >>> from ppl_vae import VAE, VAEConfig
    >>> vae = VAE.from_config(VAEConfig(event_shape=(8, 8), latent_dim=2, hidden=(16,)))
    >>> units = active_units(vae, (torch.rand(50, 8, 8) < 0.5).float())
    >>> dict(units.sizes), int(units.active.sum()) <= 2
    ({'latent': 2}, True)
    """
    import xarray as xr

    data = Rows.of(x, covariates, vae)
    data.check(vae)
    if len(data) < 2:
        raise ValueError("x has 1 row, and a variance over rows needs at least 2; pass more rows")
    means = posterior_means(
        vae, data, seed=seed, chunk_rows=chunk_rows, label="units", progress=progress
    )
    # In single precision, squares of an outlier may overflow.
    variance = means.astype(np.float64).var(axis=0, ddof=1)
    return xr.Dataset(
        {"variance": ("latent", variance), "active": ("latent", variance > threshold)},
        coords={"latent": range(len(variance))},
        attrs={"threshold": threshold, "num_rows": len(data)},
    )


def several_rows(
    vae: AmortizedModel,
    data: Rows,
    others: Tensor | Rows | None,
    *,
    seed: int,
    num_simulations: int = 200,
) -> Rows:
    """Rows that a variance can be taken over: others, or simulated ones, in place of one alone."""
    if len(data) > 1:
        return data
    if others is not None and len(others) > 1:
        return Rows.of(others, None, vae)
    with evaluating(vae, seed):
        _, x, covariates = vae.simulate(num_simulations, data.covariates)
    return Rows(x, covariates)


def loss_without(
    vae: AmortizedModel,
    covariates: Tensor | None = None,
    *,
    num_simulations: int = 200,
    seed: int = 0,
) -> np.ndarray:
    """Nats by which log p(x|z) of simulated rows falls when one latent is drawn anew: (latent,)."""
    with evaluating(vae, seed):
        z, x, given = vae.simulate(num_simulations, covariates)
        other, _, _ = vae.simulate(num_simulations, covariates)
        before = vae.log_likelihood(z[None], x, given)  # (1, row)
        falls = []
        for part in torch.eye(vae.latent_dim, dtype=torch.bool, device=z.device).split(8):
            replaced = torch.where(part[:, None], other, z)  # (latent, row, latent)
            falls.append((before - vae.log_likelihood(replaced, x, given)).mean(1))
    return torch.cat(falls).cpu().numpy()
