"""Draws from q(z|x) for any number of rows, with the log-weights that say how good they are."""

from __future__ import annotations

__all__ = [
    "Draws",
    "evaluating",
    "map_draws",
    "map_posterior",
    "posterior_means",
    "sample_posterior",
    "sample_prior",
]

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..amortized import AmortizedModel
from ..isolation import isolated
from ..progress import Progress
from ..renamed import renamed
from ..rows import Batch, Rows, rows_within_budget
from ..sink import MemorySink, Sink
from ..sources import as_tensor
from .latents import density, draw, moments

if TYPE_CHECKING:
    import xarray as xr

_MOMENT_ROWS = 1024


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
def evaluating(vae: AmortizedModel, seed: int) -> Iterator[None]:
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
    vae: AmortizedModel,
    x: Tensor | Rows,
    covariates: Tensor | None,
    summary: Callable[[Draws], Mapping[str, Tensor]],
    *,
    num_samples: int,
    seed: int,
    chunk_rows: int | None = None,
    label: str = "draw",
    progress: bool = True,
    sink: Sink | None = None,
) -> dict[str, np.ndarray]:
    """Draw from q(z|x) some rows at a time, and keep only a summary, so that memory is bounded.

    ``summary`` turns the draws of a chunk into tensors whose first dimension is the row. They are
    written to ``sink``, by default memory, whose arrays come back and have all the rows. The other
    arguments, and errors, are those of :func:`sample_posterior`.
    """
    data = Rows.of(x, covariates)
    data.check(vae)
    if num_samples < 1:
        raise ValueError(f"num_samples is {num_samples}; pass at least 1")
    size = rows_within_budget(vae.event_shape, num_samples, chunk_rows=chunk_rows)
    sink = MemorySink(len(data)) if sink is None else sink
    with evaluating(vae, seed), Progress(len(data), label, show=progress) as bar:
        for rows, batch in data.chunks(size, vae.like):
            q = vae.posterior(*batch)
            z = draw(q, (num_samples,))  # (draw, row, latent)
            draws = Draws(
                *batch,
                z=z,
                log_likelihood=vae.log_likelihood(z, *batch),
                log_prior=vae.prior_at(batch.covariates).log_prob(z),
                log_q=density(q, z),
            )
            for name, value in summary(draws).items():
                sink.write(name, rows, value)
            bar.advance(len(batch.x))
    return sink.arrays()


def sample_posterior(
    vae: AmortizedModel,
    x: Tensor | Rows,
    *,
    covariates: Tensor | None = None,
    num_samples: int = 1000,
    seed: int = 0,
    chunk_rows: int | None = None,
    progress: bool = True,
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
    progress
        Show how it goes on standard error.

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
    >>> from ppl_vae import VAE, VAEConfig
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
        progress=progress,
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


def map_posterior(
    vae: AmortizedModel,
    data: Rows,
    summary: Callable[[Any, Batch], Mapping[str, Tensor]],
    *,
    seed: int,
    chunk_rows: int | None,
    label: str,
    progress: bool,
) -> dict[str, np.ndarray]:
    """Summaries of q(z|x) some rows at a time, at most 1024, without the decoder.

    ``summary`` turns q(z|x) of a batch into tensors whose first dimension is the row.
    """
    size = rows_within_budget(vae.event_shape, chunk_rows=chunk_rows)
    size = size if chunk_rows else min(size, _MOMENT_ROWS)
    sink = MemorySink(len(data))
    with evaluating(vae, seed), Progress(len(data), label, show=progress) as bar:
        for rows, batch in data.chunks(size, vae.like):
            for name, value in summary(vae.posterior(*batch), batch).items():
                sink.write(name, rows, value)
            bar.advance(len(batch.x))
    return sink.arrays()


def posterior_means(
    vae: AmortizedModel,
    x: Tensor | Rows,
    covariates: Tensor | None = None,
    *,
    seed: int = 0,
    chunk_rows: int | None = None,
    label: str = "encode",
    progress: bool = False,
) -> np.ndarray:
    """The mean of q(z|x) of each row, shape ``(row, latent)``; of draws where it has no formula."""
    return map_posterior(
        vae,
        Rows.of(x, covariates),
        lambda q, _: {"mean": moments(q)[0]},
        seed=seed,
        chunk_rows=chunk_rows,
        label=label,
        progress=progress,
    )["mean"]


@renamed(context="covariates")
def sample_prior(
    vae: AmortizedModel,
    *,
    covariates: Tensor | None = None,
    num_samples: int = 1000,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw z from p(z) and x from p(x|z).

    Returns
    -------
    ``z``, shape ``(draw, latent)``, and ``x``, shape ``(draw, *event)``; with covariates, which has
    rows, ``(draw, row, latent)`` and ``(draw, row, *event)``.

    Examples
    --------
    >>> from ppl_vae import VAE, VAEConfig
    >>> vae = VAE.from_config(VAEConfig(event_shape=(8, 8), latent_dim=2, hidden=(16,)))
    >>> z, x = sample_prior(vae, num_samples=3)
    >>> z.shape, x.shape
    ((3, 2), (3, 8, 8))
    """
    if num_samples < 1:
        raise ValueError(f"num_samples is {num_samples}; pass at least 1")
    given = None if covariates is None else as_tensor(covariates).to(vae.like)
    with evaluating(vae, seed):
        prior = vae.prior_at(given)
        z = draw(prior, (num_samples,), rows=None if given is None else len(given))
        return z.cpu().numpy(), vae.replicate(z, given).cpu().numpy()
