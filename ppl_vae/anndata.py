"""Cells of an AnnData with their latents, and what can be believed of each, beside them."""

from __future__ import annotations

__all__ = ["annotate"]

from typing import Any

import pandas as pd
from torch import Tensor

from .amortized import AmortizedModel
from .workflow.draws.encoding import encode
from .workflow.imputation.denoising import denoise
from .workflow.verdict.judging import CODED, judge_rows


def annotate(
    adata: Any,
    vae: AmortizedModel,
    x: Any,
    *,
    covariates: Tensor | None = None,
    key: str = "X_vae",
    denoised: str | None = None,
    total: float = 1e4,
    num_samples: int = 2000,
    seed: int = 0,
    progress: bool = True,
) -> None:
    """Write latents of cells, with a verdict for each cell, into an AnnData.

    ``obsm[key]`` gets the means of q(z|x), ``(cell, latent)``, and ``obsm[key + "_sd"]`` the
    standard deviations; ``obs["vae_verdict"]`` whether a cell's posterior can be used
    ``"as it is"``, ``"reweighted"`` or ``"not"``, by :func:`~ppl_vae.judge_rows`, and
    ``obs["vae_pareto_k"]`` the k-hat of its weights.

    Parameters
    ----------
    adata
        Cells, which are written to in place.
    vae
        A VAE.
    x
        The rows of these cells in their order, as ``load_data(adata, None, ...)`` returns them.
    covariates
        Shape ``(cell, covariate)``; a Dataset brings its own.
    key
        What the latents are called.
    denoised
        The name of a layer to write denoised expression to, :func:`~ppl_vae.denoise`; None writes
        none.
    total
        What denoised expression adds up to in each cell.
    num_samples
        Draws for each cell that the verdict is by.
    seed
        Decides the draws.
    progress
        Show how it goes on standard error.

    Raises
    ------
    TypeError, ValueError
        If ``x`` or ``covariates`` is not what the VAE describes, there are more or fewer rows than
        cells, or more or fewer entries than genes where expression is to be written.

    Examples
    --------
    What has the attributes of an AnnData does for one:

    >>> import torch
    >>> from types import SimpleNamespace
    >>> from ppl_vae import VAE, VAEConfig
    >>> x = torch.poisson(torch.full((20, 5), 3.0))
    >>> vae = VAE.from_config(VAEConfig.for_data(x, latent_dim=2))
    >>> cells = SimpleNamespace(n_obs=20, n_vars=5, obs=pd.DataFrame(index=range(20)), obsm={})
    >>> annotate(cells, vae, x, num_samples=100, progress=False)
    >>> cells.obsm["X_vae"].shape, list(cells.obs)
    ((20, 2), ['vae_verdict', 'vae_pareto_k'])
    """
    given: dict[str, Any] = {"covariates": covariates, "seed": seed, "progress": progress}
    latents = encode(vae, x, **given)
    if latents.sizes["row"] != adata.n_obs:
        raise ValueError(
            f"x has {latents.sizes['row']} rows and adata {adata.n_obs} cells; pass the rows of "
            "all cells, load_data(adata, None, ...)"
        )
    if denoised is not None and vae.event_shape != (adata.n_vars,):
        raise ValueError(
            f"denoised={denoised!r} is to be a layer of {adata.n_vars} genes, and the VAE "
            f"describes rows of shape {vae.event_shape}; leave it out, or keep adata[:, genes] of "
            "the fit"
        )
    judged = judge_rows(vae, x, num_samples=num_samples, **given)
    words = [CODED[code] for code in judged.verdict.values.tolist()]
    adata.obsm[key] = latents["mean"].values
    adata.obsm[f"{key}_sd"] = latents["sd"].values
    adata.obs["vae_verdict"] = pd.Categorical(words, CODED)
    adata.obs["vae_pareto_k"] = judged.pareto_k.values
    if denoised is not None:
        adata.layers[denoised] = denoise(vae, x, total=total, **given)["mean"].values
