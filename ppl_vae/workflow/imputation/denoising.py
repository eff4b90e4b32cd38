"""What rows would be without the noise of the likelihood, such as expression without sampling."""

from __future__ import annotations

__all__ = ["denoise"]

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ...amortized import AmortizedModel
from ...dims import event_dims
from ...progress import Progress
from ...rows import Rows, rows_within_budget
from ...sink import MemorySink
from ...sources import as_tensor
from ..draws.latents import density, draw
from ..draws.posterior import evaluating
from ..draws.resampling import resampled
from ..weights.khat import khat, reliable_khat

if TYPE_CHECKING:
    import xarray as xr

# Means, and their order, are in memory together.
_COPIES = 3
_FEWEST_DRAWS = 30


def denoise(
    vae: AmortizedModel,
    x: Any,
    *,
    covariates: Tensor | None = None,
    as_if: Any = None,
    total: float | None = None,
    num_samples: int = 500,
    level: float = 0.9,
    seed: int = 0,
    chunk_rows: int | None = None,
    progress: bool = True,
) -> xr.Dataset:
    r"""Find what the decoder's mean of each row is, given the row, with how uncertain that is.

    .. math:: m(z, c) = \operatorname{E}[x \mid z, c], \quad z \sim p(z \mid x, c_x), \quad
        \text{or} \quad t \, m_i(z, c) \Big/ \sum_j m_j(z, c)

    Of counts of genes this is denoised expression: with ``total``, of cells that were all sequenced
    as deeply; with ``as_if``, of cells that were all of one batch. Draws are those of the encoder,
    resampled by their weights.

    Parameters
    ----------
    vae
        A VAE whose likelihood has a mean.
    x
        Rows, shape ``(row, *event)``; a Dataset brings its covariates.
    covariates
        What the rows are conditional on, shape ``(row, covariate)``.
    as_if
        What their means are to be conditional on in place of that: shape ``(covariate,)``, for all
        rows, or ``(row, covariate)``.
    total
        What the means of a row are to add up to, such as 10,000; None leaves them as they are.
    num_samples
        Draws for each row.
    level
        The probability of intervals, between 0 and 1.
    seed, chunk_rows
        Decide the draws together.
    progress
        Show how it goes on standard error.

    Returns
    -------
    xarray.Dataset
        Over ``row`` and the dimensions of a row ``mean`` and ``sd`` of these means over the
        posterior, and ``low`` and ``high``, the ends of an equal-tailed interval. Over ``row``
        ``pareto_k`` of the weights, and ``weights_usable``, whether that is at most the attribute
        ``threshold``: where not, draws are rather those of the encoder. A zero-inflated mean
        counts the zeros in.

    Raises
    ------
    TypeError, ValueError
        If ``x``, ``covariates`` or ``as_if`` is not what the VAE describes, a number is not
        accepted, or the likelihood has no mean.

    Notes
    -----
    Source: Lopez et al. (2018), scVI, for denoised expression, which takes draws of the encoder as
    they are.

    Examples
    --------
    >>> from ppl_vae import VAE, VAEConfig
    >>> x = torch.poisson(torch.full((20, 5), 3.0))
    >>> vae = VAE.from_config(VAEConfig.for_data(x, latent_dim=2))
    >>> found = denoise(vae, x, total=100.0, num_samples=50, progress=False)
    >>> bool(abs(found["mean"].sum("feature") - 100).max() < 1e-2), found.sd.shape
    (True, (20, 5))
    """
    if num_samples < _FEWEST_DRAWS:
        raise ValueError(
            f"num_samples is {num_samples}, too few to see the tail of the weights; pass at least "
            f"{_FEWEST_DRAWS}, better 500"
        )
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; pass a probability between 0 and 1, such as 0.9")
    if total is not None and not 0 < total < np.inf:
        raise ValueError(f"total is {total}; pass a positive number, or None")
    names = getattr(x, "feature_names", None)
    data = Rows.of(x, covariates, vae)
    data.check(vae)
    shown = _shown(vae, data, as_if)
    threshold, sink = reliable_khat(num_samples), MemorySink(len(data))
    size = rows_within_budget(vae.event_shape, _COPIES * num_samples, chunk_rows=chunk_rows)
    beyond = int((1 - level) / 2 * num_samples)
    with evaluating(vae, seed), Progress(len(data), "denoise", show=progress) as bar:
        for rows, batch in data.chunks(size, vae.like):
            q = vae.posterior(*batch)
            z = draw(q, (num_samples,))
            log_weight = vae.log_joint(z, *batch) - density(q, z)
            given = batch.covariates
            if shown is not None:
                given = shown[rows] if len(shown) > 1 else shown.expand(len(batch.x), -1)
            means = _means(vae, resampled(z, log_weight), given, total)  # (draw, row, *event)
            k = khat(log_weight)
            ordered = means.sort(0).values
            found = {
                "mean": means.mean(0),
                "sd": means.std(0),
                "low": ordered[beyond],
                "high": ordered[num_samples - 1 - beyond],
                "pareto_k": k,
                "weights_usable": k <= threshold,
            }
            for name, value in found.items():
                sink.write(name, rows, value)
            bar.advance(len(batch.x))
    import xarray as xr

    dims = event_dims(vae.event_shape)
    coords: dict[str, Any] = {"row": range(len(data))}
    if names is not None and dims == ("feature",):
        coords["feature"] = list(names)
    return xr.Dataset(
        {name: (("row", *dims)[: array.ndim], array) for name, array in sink.arrays().items()},
        coords=coords,
        attrs={
            "num_samples": num_samples,
            "level": level,
            "total": np.nan if total is None else total,
            "threshold": threshold,
            "seed": seed,
        },
    )


def _shown(vae: AmortizedModel, data: Rows, as_if: Any) -> Tensor | None:
    """What means are to be conditional on, of one row or of each; None leaves what rows are."""
    if as_if is None:
        return None
    width = None if data.covariates is None else data.covariates.shape[-1]
    shown = torch.atleast_2d(as_tensor(as_if, "as_if").to(vae.like))
    if width is None or shown.shape[-1] != width or len(shown) not in (1, len(data)):
        raise ValueError(
            f"as_if has shape {tuple(shown.shape)}, and the rows have "
            + ("no covariates; leave it out" if width is None else f"{width} covariates; pass ")
            + ("" if width is None else f"one row of {width}, or one for each of {len(data)} rows")
        )
    return shown


def _means(vae: AmortizedModel, z: Tensor, given: Tensor | None, total: float | None) -> Tensor:
    """The decoder's means at latents ``(draw, row, latent)``: shape ``(draw, row, *event)``."""
    try:
        means = vae.likelihood(z, given).mean.to(z)
    except NotImplementedError:
        means = z.new_full((1,), torch.nan)
    if means.isnan().any() and not z.isnan().any():
        raise ValueError(
            "this likelihood has no mean, as of categories, so that there is none to be found; "
            "look at sample_posterior, or at impute for missing entries"
        )
    if total is None:
        return means
    event = tuple(range(-len(vae.event_shape), 0))
    return means * (total / means.sum(event, keepdim=True))
