"""Draws from q(z|x) for any number of rows, with the log-weights that say how good they are."""

from __future__ import annotations

__all__ = [
    "Draws",
    "evaluating",
    "map_draws",
    "posterior_means",
    "sample_posterior",
    "sample_prior",
]

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..isolation import isolated
from ..progress import Progress
from ..renamed import renamed
from ..rows import to_float
from ..vae import VAE

if TYPE_CHECKING:
    import xarray as xr

# Entries of data that a chunk may hold for all its draws: about 64 MB in single precision.
_ENTRIES = 2**24


@dataclass(frozen=True)
class Draws:
    """Draws for some rows: ``z`` is ``(draw, row, latent)``, the rest ``(draw, row)``, in nats."""

    x: Tensor
    covariates: Tensor | None
    z: Tensor
    log_likelihood: Tensor
    log_prior: Tensor
    log_q: Tensor

    @property
    def log_p(self) -> Tensor:
        """log p(x, z)."""
        return self.log_likelihood + self.log_prior

    @property
    def log_weight(self) -> Tensor:
        """log p(x, z) - log q(z|x)."""
        return self.log_p - self.log_q


@contextmanager
def evaluating(vae: VAE, seed: int) -> Iterator[None]:
    """Run a VAE as it will be used: without dropout or gradients, drawing from ``seed``."""
    vae.check_programs()
    was_training = vae.training
    vae.eval()
    try:
        with isolated(seed), torch.no_grad():
            yield
    finally:
        vae.train(was_training)


def map_draws(
    vae: VAE,
    x: Tensor,
    covariates: Tensor | None,
    summary: Callable[[Draws], Mapping[str, Tensor]],
    *,
    num_samples: int,
    seed: int,
    chunk_rows: int | None = None,
    label: str = "draw",
    progress: bool = True,
) -> dict[str, np.ndarray]:
    """Draw from q(z|x) some rows at a time, and keep only a summary, so that memory is bounded.

    ``summary`` turns the draws of a chunk into tensors whose first dimension is the row; the
    arrays that come back have all the rows. Arguments and errors as in :func:`sample_posterior`.
    """
    vae.check(x, covariates)
    if num_samples < 1:
        raise ValueError(f"num_samples is {num_samples}; pass at least 1")
    if chunk_rows is None:
        chunk_rows = max(1, _ENTRIES // (num_samples * prod(vae.event_shape)))
    elif chunk_rows < 1:
        raise ValueError(f"chunk_rows is {chunk_rows}; pass at least 1, or None to choose")
    like = next(vae.parameters())
    arrays: dict[str, np.ndarray] = {}
    with evaluating(vae, seed), Progress(len(x), label, show=progress) as bar:
        for start in range(0, len(x), chunk_rows):
            rows = slice(start, start + chunk_rows)
            x_chunk = to_float(x[rows].to(like.device), like.dtype)
            given = None if covariates is None else covariates[rows].to(like)
            q = vae.posterior(x_chunk, given)
            z = q.sample((num_samples,))  # (draw, row, latent)
            draws = Draws(
                x=x_chunk,
                covariates=given,
                z=z,
                log_likelihood=vae.log_likelihood(z, x_chunk, given),
                log_prior=vae.prior_at(given).log_prob(z),
                log_q=q.log_prob(z),
            )
            for name, value in summary(draws).items():
                chunk = value.cpu().numpy()
                if name not in arrays:
                    arrays[name] = np.empty((len(x), *chunk.shape[1:]), chunk.dtype)
                arrays[name][rows] = chunk
            bar.advance(len(x_chunk))
    return arrays


def sample_posterior(
    vae: VAE,
    x: Tensor,
    *,
    covariates: Tensor | None = None,
    num_samples: int = 1000,
    seed: int = 0,
    chunk_rows: int | None = None,
) -> xr.Dataset:
    """Draw latents from q(z|x), with log p(x, z), log q(z|x) and their difference.

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
    seed
        Decides the draws, together with ``chunk_rows``.
    chunk_rows
        Rows at a time; by default as many as keep a chunk within about 64 MB.

    Returns
    -------
    xarray.Dataset
        ``z`` (draw, row, latent), and in nats ``log_p``, ``log_q`` and ``log_weight`` (draw, row).
        Weighted by ``exp(log_weight)`` the draws are of p(z|x) itself.

    Raises
    ------
    TypeError, ValueError
        If ``x`` or ``covariates`` is not what the VAE describes, or a number is below 1.

    Examples
    --------
    >>> from ppl_vae import VAEConfig
    >>> vae = VAE.from_config(VAEConfig(event_shape=(8, 8), latent_dim=2, hidden=(16,)))
    >>> draws = sample_posterior(vae, torch.ones(5, 8, 8), num_samples=100)
    >>> draws.z.dims, draws.log_weight.shape
    (('draw', 'row', 'latent'), (100, 5))
    """
    import xarray as xr

    arrays = map_draws(
        vae,
        x,
        covariates,
        lambda draws: {
            "z": draws.z.transpose(0, 1),
            "log_p": draws.log_p.T,
            "log_q": draws.log_q.T,
            "log_weight": draws.log_weight.T,
        },
        num_samples=num_samples,
        seed=seed,
        chunk_rows=chunk_rows,
    )
    dims = ("row", "draw", "latent")
    draws = xr.Dataset(
        {
            name: (dims[: array.ndim], array, {} if name == "z" else {"unit": "nats"})
            for name, array in arrays.items()
        },
        coords={dim: range(n) for dim, n in zip(dims, arrays["z"].shape, strict=True)},
    )
    return draws.transpose("draw", "row", "latent")


def posterior_means(vae: VAE, x: Tensor, covariates: Tensor | None = None) -> np.ndarray:
    """The mean of q(z|x) of each row, shape ``(row, latent)``."""
    like = next(vae.parameters())
    means = []
    with evaluating(vae, seed=0):
        for start in range(0, len(x), 1024):
            rows = slice(start, start + 1024)
            given = None if covariates is None else covariates[rows].to(like)
            means.append(vae.posterior(to_float(x[rows].to(like.device), like.dtype), given).mean)
    return torch.cat(means).cpu().numpy()


@renamed(context="covariates")
def sample_prior(
    vae: VAE, *, covariates: Tensor | None = None, num_samples: int = 1000, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Draw z from p(z) and x from p(x|z).

    Returns
    -------
    ``z``, shape ``(draw, latent)``, and ``x``, shape ``(draw, *event)``; with covariates, which has
    rows, ``(draw, row, latent)`` and ``(draw, row, *event)``.

    Examples
    --------
    >>> from ppl_vae import VAEConfig
    >>> vae = VAE.from_config(VAEConfig(event_shape=(8, 8), latent_dim=2, hidden=(16,)))
    >>> z, x = sample_prior(vae, num_samples=3)
    >>> z.shape, x.shape
    ((3, 2), (3, 8, 8))
    """
    if num_samples < 1:
        raise ValueError(f"num_samples is {num_samples}; pass at least 1")
    given = None if covariates is None else covariates.to(next(vae.parameters()))
    with evaluating(vae, seed):
        prior = vae.prior_at(given)
        rows = () if given is None or prior.batch_shape else (len(given),)
        z = prior.sample((num_samples, *rows))
        return z.cpu().numpy(), vae.likelihood(z, given).sample().cpu().numpy()
