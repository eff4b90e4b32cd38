"""Draws from q(z|x) for any number of rows, with the log-weights that say how good they are."""

from __future__ import annotations

__all__ = [
    "Draws",
    "encoded_at_once",
    "evaluating",
    "map_draws",
    "map_posterior",
    "posterior_means",
    "sample_posterior",
    "sample_prior",
]

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ...amortized import AmortizedModel
from ...isolation import isolated
from ...progress import Progress
from ...renamed import renamed
from ...rows import Batch, Rows, rows_within_budget
from ...sink import MemorySink, Sink
from ...sources import as_tensor
from .chunked import sink_for, through
from .latents import density, draw, moments

if TYPE_CHECKING:
    import xarray as xr

    from ...store import Contents, Store

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
    data = Rows.of(x, covariates, vae)
    data.check(vae)
    if num_samples < 1:
        raise ValueError(f"num_samples is {num_samples}; pass at least 1")
    size = rows_within_budget(vae.event_shape, num_samples, chunk_rows=chunk_rows)
    sink = MemorySink(len(data)) if sink is None else sink
    with evaluating(vae, seed), Progress(len(data), label, show=progress) as bar:
        for rows, batch in through(data, size, vae.like, sink, seed=seed, bar=bar):
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
    store: str | os.PathLike[str] | Store | None = None,
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
    store
        The path of a zarr store, or a :class:`~ppl_vae.Store`, to write to chunk by chunk in place
        of memory. One that was not finished is gone on with, and ends the same bit for bit.
    progress
        Show how it goes on standard error.

    Returns
    -------
    xarray.Dataset
        ``z`` (draw, row, latent), and in nats ``log_p``, ``log_q`` and ``log_weight`` (draw, row).
        Weighted by ``exp(log_weight)`` the draws are of p(z|x) itself. Of a ``store`` they are read
        when they are needed.

    Raises
    ------
    TypeError, ValueError
        If ``x`` or ``covariates`` is not what the VAE describes, a number is below 1, or the store
        is of other results.
    FileExistsError
        If something else is where the store would be.

    Examples
    --------
    >>> from ppl_vae import VAE, VAEConfig
    >>> vae = VAE.from_config(VAEConfig(event_shape=(8, 8), latent_dim=2, hidden=(16,)))
    >>> draws = sample_posterior(vae, torch.ones(5, 8, 8), num_samples=100)
    >>> draws.z.dims, draws.log_weight.shape
    (('draw', 'row', 'latent'), (100, 5))
    """
    import xarray as xr

    def summary(draws: Draws) -> dict[str, Tensor]:
        return {
            "z": draws.z.transpose(0, 1),
            "log_p": draws.log_p.T,
            "log_q": draws.log_q.T,
            "log_weight": draws.log_weight.T,
        }

    data, sink = Rows.of(x, covariates, vae), None
    if store is not None:
        sink = sink_for(
            store,
            vae,
            data,
            _contents(),
            size=rows_within_budget(vae.event_shape, num_samples, chunk_rows=chunk_rows),
            numbers=num_samples * (vae.latent_dim + 3),
            what="sample_posterior",
            num_samples=num_samples,
            seed=seed,
        )
    arrays = map_draws(
        vae,
        data,
        None,
        summary,
        num_samples=num_samples,
        seed=seed,
        chunk_rows=chunk_rows,
        progress=progress,
        sink=sink,
    )
    if sink is not None:
        return sink.close().open()
    dims = ("row", "draw", "latent")
    draws = xr.Dataset(
        {
            name: (dims[: array.ndim], array, {} if name == "z" else {"unit": "nats"})
            for name, array in arrays.items()
        },
        coords={dim: range(n) for dim, n in zip(dims, arrays["z"].shape, strict=True)},
    )
    return draws.transpose("draw", "row", "latent")


def _contents() -> Contents:
    """What a store of draws holds."""
    from ...store import Contents, Variable

    nats = {"unit": "nats"}
    densities = {
        name: Variable(name, ("draw", "row"), nats) for name in ("log_p", "log_q", "log_weight")
    }
    return Contents({"z": Variable("z", ("draw", "row", "latent")), **densities})


def encoded_at_once(vae: AmortizedModel, chunk_rows: int | None) -> int:
    """How many rows the encoder is given at a time, at most 1024 unless ``chunk_rows`` says so."""
    size = rows_within_budget(vae.event_shape, chunk_rows=chunk_rows)
    return size if chunk_rows else min(size, _MOMENT_ROWS)


def map_posterior(
    vae: AmortizedModel,
    data: Rows,
    summary: Callable[[Any, Batch], Mapping[str, Tensor]],
    *,
    seed: int,
    chunk_rows: int | None,
    label: str,
    progress: bool,
    sink: Sink | None = None,
) -> dict[str, np.ndarray]:
    """Summaries of q(z|x) some rows at a time, at most 1024, without the decoder.

    ``summary`` turns q(z|x) of a batch into tensors whose first dimension is the row.
    """
    size = encoded_at_once(vae, chunk_rows)
    sink = MemorySink(len(data)) if sink is None else sink
    with evaluating(vae, seed), Progress(len(data), label, show=progress) as bar:
        for rows, batch in through(data, size, vae.like, sink, seed=seed, bar=bar):
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
        Rows.of(x, covariates, vae),
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
    given = None if covariates is None else as_tensor(covariates, "covariates").to(vae.like)
    with evaluating(vae, seed):
        prior = vae.prior_at(given)
        z = draw(prior, (num_samples,), rows=None if given is None else len(given))
        return z.cpu().numpy(), vae.replicate(z, given).cpu().numpy()
