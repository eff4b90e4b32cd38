"""The aggregate posterior beside the prior: what a learned prior would win."""

from __future__ import annotations

__all__ = ["prior_gap"]

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from torch import Tensor

from ...amortized import AmortizedModel
from ...distributions import draw
from ...renamed import renamed
from ...rows import Batch, Rows
from ..draws.posterior import map_posterior

if TYPE_CHECKING:
    import xarray as xr

# Draws of all rows together that mixtures are fitted to, and draws of one row at most.
_DRAWS, _MOST = 10_000, 20
# Mixtures that are fitted: the number of normals, and the form of their covariances.
_MIXTURES = ((1, "full"), (8, "full"), (32, "diag"))
# Rows from which on half of them are enough to fit a normal to.
_FEWEST = 20


@renamed(context="covariates")
def prior_gap(
    vae: AmortizedModel,
    x: Tensor | Rows,
    *,
    covariates: Tensor | None = None,
    training: Tensor | Rows | None = None,
    seed: int = 0,
    chunk_rows: int | None = None,
    progress: bool = True,
) -> xr.Dataset:
    r"""What the ELBO of each row would win if the prior were where the encoder puts the rows.

    The ELBO, averaged over rows, holds :math:`-\operatorname{KL}(q(z) \,\|\, p(z))`, where
    :math:`q(z)` is the aggregate posterior, the mean of q(z|x) over rows. A prior that is equal to
    it makes that term zero. Here mixtures of normals r(z) are fitted to draws of other rows, and

    .. math:: \operatorname{E}_{q(z)}[\log r(z) - \log p(z)]
        \le \operatorname{KL}(q(z) \,\|\, p(z))

    is taken over the rows. So it is what a learned prior wins at least, with encoder and decoder as
    they are; the more rows a mixture is fitted to, the closer it comes. A fit of all three together
    may end elsewhere.

    Parameters
    ----------
    vae
        A VAE, with any prior.
    x
        Rows, shape ``(row, *event)``; 20 of them say something, and hundreds are better.
    covariates
        Shape ``(row, covariate)``, for a conditional VAE.
    training
        Rows to fit mixtures to, best those that the VAE was fitted to; ``Rows`` where there are
        covariates. Without them one half of ``x`` serves the other, and the other way round.
    seed
        Decides the draws, the halves and where mixtures start.
    chunk_rows
        Rows at a time; by default at most 1024.
    progress
        Show how it goes on standard error.

    Returns
    -------
    xarray.Dataset
        Over ``row``: ``gain``, nats, whose mean over rows is the bound above. NaN where latents are
        discrete or not finite, or rows fewer than 20. The attribute ``mixture`` says which
        mixtures gave it.

    Raises
    ------
    TypeError, ValueError
        If ``x`` or ``covariates`` is not what the VAE describes, or ``chunk_rows`` is below 1.

    Notes
    -----
    Source: Hoffman & Johnson (2016), *ELBO surgery*; Tomczak & Welling (2018), section 2, for the
    optimal prior.

    Examples
    --------
    >>> import torch
    >>> from ppl_vae import VAE, VAEConfig
    >>> vae = VAE.from_config(VAEConfig(event_shape=(8, 8), latent_dim=2, hidden=(16,)))
    >>> gap = prior_gap(vae, (torch.rand(50, 8, 8) < 0.5).float(), progress=False)
    >>> dict(gap.sizes), gap.gain.unit
    ({'row': 50}, 'nats')
    """
    import xarray as xr

    data = Rows.of(x, covariates, vae)
    data.check(vae)
    options: dict[str, Any] = {"seed": seed, "chunk_rows": chunk_rows, "progress": progress}
    z, log_prior = _draws(vae, data, **options)
    size = len(data)
    gain, mixtures = np.full(size, np.nan), list[str]()
    usable = np.isfinite(z).all((0, 2))
    discrete = np.array_equal(z, np.round(z))
    if usable.sum() >= _FEWEST and not discrete:
        z, log_prior = z[:, usable], log_prior[:, usable]
        if training is None:
            log_r, mixtures = _crossed(z, seed)
        else:
            others = Rows.of(training, None, vae)
            others.check(vae, name="training")
            log_r, mixtures = _fitted(_draws(vae, others, **options)[0], z, seed)
        gain[usable] = (log_r - log_prior).mean(0)
    return xr.Dataset(
        {"gain": ("row", gain, {"unit": "nats"})},
        coords={"row": range(size)},
        attrs={"mixture": "; ".join(mixtures), "num_samples": len(z), "seed": seed},
    )


def _draws(vae: AmortizedModel, data: Rows, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    """Draws of q(z|x), (draw, row, latent), and their log p(z), (draw, row)."""
    num_draws = min(_MOST, max(1, _DRAWS // len(data)))

    def summary(q: Any, batch: Batch) -> dict[str, Tensor]:
        z = draw(q, (num_draws,))
        log_prior = vae.prior_at(batch.covariates).log_prob(z)
        return {"z": z.double().transpose(0, 1), "log_prior": log_prior.double().T}

    found = map_posterior(vae, data, summary, label="prior", **options)
    return found["z"].swapaxes(0, 1), found["log_prior"].T


def _crossed(z: np.ndarray, seed: int) -> tuple[np.ndarray, list[str]]:
    """log r(z) of draws (draw, row, latent) under mixtures fitted to the other half of the rows.

    Which mixture serves a half is decided by the other half, so that the choice has no bias.
    """
    rows = np.random.default_rng(seed).permutation(z.shape[1])
    halves = rows[: len(rows) // 2], rows[len(rows) // 2 :]
    values = np.full((len(_MIXTURES), *z.shape[:2]), -np.inf)
    for half, other in (halves, halves[::-1]):
        for i, mixture in enumerate(_MIXTURES):
            values[i][:, other] = _log_density(z[:, half], z[:, other], mixture, seed)
    log_r, mixtures = np.empty(z.shape[:2]), []
    for half, other in (halves, halves[::-1]):
        best = int(values[:, :, half].mean((1, 2)).argmax())
        log_r[:, other] = values[best][:, other]
        mixtures.append(_name(*_MIXTURES[best]))
    return log_r, list(dict.fromkeys(mixtures))


def _fitted(training: np.ndarray, z: np.ndarray, seed: int) -> tuple[np.ndarray, list[str]]:
    """log r(z) of draws (draw, row, latent) under the mixture that suits the training rows."""
    training = training[:, np.isfinite(training).all((0, 2))]
    rows = np.random.default_rng(seed).permutation(training.shape[1])
    asked, kept = rows[: len(rows) // 5], rows[len(rows) // 5 :]
    values = [
        _log_density(training[:, kept], training[:, asked], mixture, seed).mean()
        for mixture in _MIXTURES
    ]
    best = _MIXTURES[int(np.argmax(values))]
    return _log_density(training, z, best, seed), [_name(*best)]


def _name(normals: int, covariance: str) -> str:
    return f"{normals} normal{'s'[: normals > 1]} with {covariance} covariance"


def _log_density(
    fitted_to: np.ndarray, z: np.ndarray, mixture: tuple[int, str], seed: int
) -> np.ndarray:
    """The log-density (draw, row) of a mixture fitted to draws (draw, row, latent), at others."""
    normals, covariance = mixture
    if normals > 1 and normals * 10 > fitted_to.shape[1]:
        return np.full(z.shape[:2], -np.inf)  # too few rows for so many normals
    fitted_to = fitted_to.reshape(-1, fitted_to.shape[2])
    center, spread = fitted_to.mean(0), fitted_to.std(0) + 1e-12
    model = GaussianMixture(normals, covariance_type=covariance, max_iter=50, random_state=seed)
    with warnings.catch_warnings():
        # A mixture that is not quite fitted is a density all the same, and wins a little less.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit((fitted_to - center) / spread)
    scores = model.score_samples(((z - center) / spread).reshape(-1, z.shape[2]))
    return scores.reshape(z.shape[:2]) - np.log(spread).sum()
