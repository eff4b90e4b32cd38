"""Mean and standard deviation of q(z|x) for any number of rows, without the decoder."""

from __future__ import annotations

__all__ = ["encode"]

import os
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ...amortized import AmortizedModel
from ...rows import Batch, Rows
from .chunked import sink_for
from .latents import moments
from .posterior import encoded_at_once, map_posterior

if TYPE_CHECKING:
    import xarray as xr

    from ...store import Store

# Rows that are written to a store together.
_REGION = 2**14


def encode(
    vae: AmortizedModel,
    x: Tensor | Rows,
    *,
    covariates: Tensor | None = None,
    seed: int = 0,
    chunk_rows: int | None = None,
    store: str | os.PathLike[str] | Store | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """Mean and standard deviation of q(z|x) of each row.

    Parameters
    ----------
    vae
        A VAE.
    x
        Rows, shape ``(row, *event)``.
    covariates
        Shape ``(row, covariate)``, for a conditional VAE.
    seed
        Of the 1000 draws by which moments without a formula, as of flows, are found.
    chunk_rows
        Rows at a time; 1024 by default, fewer where they are large.
    store
        As in :func:`~ppl_vae.sample_posterior`.
    progress
        Show how it goes on standard error.

    Returns
    -------
    xarray.Dataset
        ``mean`` and ``sd`` (row, latent).

    Raises
    ------
    TypeError, ValueError
        If ``x`` or ``covariates`` is not what the VAE describes, or the store is of other results.
    FileExistsError
        If something else is where the store would be.

    Examples
    --------
    >>> import torch
    >>> from ppl_vae import VAE, VAEConfig
    >>> vae = VAE.from_config(VAEConfig(event_shape=(8, 8), latent_dim=2, hidden=(16,)))
    >>> encode(vae, torch.ones(5, 8, 8)).sd.sizes
    Frozen({'row': 5, 'latent': 2})
    """
    import xarray as xr

    data, sink = Rows.of(x, covariates, vae), None
    data.check(vae)
    if store is not None:
        from ...store import Contents, Variable

        sink = sink_for(
            store,
            vae,
            data,
            Contents({name: Variable(name, ("row", "latent")) for name in ("mean", "sd")}),
            size=encoded_at_once(vae, chunk_rows),
            numbers=2 * vae.latent_dim,
            rows=_REGION,
            what="encode",
            seed=seed,
        )

    def summary(q: Any, _: Batch) -> dict[str, Tensor]:
        return dict(zip(("mean", "sd"), moments(q), strict=True))

    arrays = map_posterior(
        vae,
        data,
        summary,
        seed=seed,
        chunk_rows=chunk_rows,
        label="encode",
        progress=progress,
        sink=sink,
    )
    if sink is not None:
        return sink.close().open()
    dims = ("row", "latent")
    return xr.Dataset(
        {name: (dims, array) for name, array in arrays.items()},
        coords={dim: range(n) for dim, n in zip(dims, arrays["mean"].shape, strict=True)},
    )
