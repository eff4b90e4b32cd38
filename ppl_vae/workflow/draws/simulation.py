"""Rows drawn from the model, as many as a disk holds: z from the prior, x from the decoder."""

from __future__ import annotations

__all__ = ["simulate"]

import os
from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ...amortized import AmortizedModel
from ...dims import event_dims
from ...progress import Progress
from ...rows import Rows, rows_within_budget
from ...sink import MemorySink, Sink
from ...sources import as_tensor
from .chunked import asked, sink_for
from .posterior import evaluating

if TYPE_CHECKING:
    import xarray as xr

    from ...store import Store


def simulate(
    vae: AmortizedModel,
    num_rows: int,
    *,
    covariates: Tensor | None = None,
    covariate_names: Sequence[str] | None = None,
    seed: int = 0,
    chunk_rows: int | None = None,
    store: str | os.PathLike[str] | Store | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """Draw rows from a VAE, each with the latents that it was made from.

    Parameters
    ----------
    vae
        A VAE.
    num_rows
        How many.
    covariates
        Shape ``(given, covariate)``, for a conditional VAE; rows are given each in turn.
    covariate_names
        Coordinates of covariates.
    seed, chunk_rows, store, progress
        As in :func:`~ppl_vae.sample_posterior`.

    Returns
    -------
    xarray.Dataset
        ``z`` (row, latent) and ``x`` (row, *event); with covariates, ``covariates`` (row,
        covariate) too.

    Raises
    ------
    ValueError
        If ``num_rows`` is below 1, or the store is of other results.
    FileExistsError
        If something else is where the store would be.

    Examples
    --------
    >>> from ppl_vae import VAE, VAEConfig
    >>> vae = VAE.from_config(VAEConfig(event_shape=(8, 8), latent_dim=2, hidden=(16,)))
    >>> simulate(vae, 5).x.sizes
    Frozen({'row': 5, 'pixel_y': 8, 'pixel_x': 8})
    """
    import xarray as xr

    from ...store import Contents, Variable

    if num_rows < 1:
        raise ValueError(f"num_rows is {num_rows}; pass at least 1")
    given = None if covariates is None else as_tensor(covariates, "covariates")
    size = rows_within_budget(vae.event_shape, chunk_rows=chunk_rows)
    variables = {
        "z": Variable("z", ("row", "latent")),
        "x": Variable("x", ("row", *event_dims(vae.event_shape))),
        "covariates": Variable("covariates", ("row", "covariate")),
    }
    coords = {} if covariate_names is None else {"covariate": np.asarray(covariate_names)}
    to: Sink
    if store is None:
        to, kept = MemorySink(num_rows), None
    else:
        to = kept = sink_for(
            store,
            vae,
            None if given is None else Rows(given),
            Contents(variables, coords=coords),
            num_rows=num_rows,
            size=size,
            numbers=prod(vae.event_shape) + vae.latent_dim,
            rows=size,
            what="simulate",
            seed=seed,
        )
    with evaluating(vae, seed), Progress(num_rows, "sample", show=progress) as bar:
        bar.resume(num_rows - sum(r.stop - r.start for r in to.regions()))
        for rows in asked(to, size, seed):
            number = rows.stop - rows.start
            turn = None
            if given is not None:
                turn = given[torch.arange(rows.start, rows.stop) % len(given)]
            z, x, used = vae.simulate(number, turn)
            to.write("z", rows, z)
            to.write("x", rows, x)
            if used is not None:
                to.write("covariates", rows, used)
            bar.advance(number)
    if kept is not None:
        return kept.close().open()
    dataset = xr.Dataset({name: (variables[name].dims, a) for name, a in to.arrays().items()})
    return dataset.assign_coords(
        {dim: coords.get(str(dim), np.arange(n)) for dim, n in dataset.sizes.items()}
    )
