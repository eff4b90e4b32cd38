"""The posterior of a VAE as a zarr store of groups, which ArviZ reads a selection of."""

from __future__ import annotations

__all__ = ["stored_datatree"]

import os
from collections.abc import Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ..amortized import AmortizedModel
from ..dims import event_dims
from ..rows import Rows, rows_within_budget
from ..store import Contents, Store, Variable
from ..workflow.draws.chunked import sink_for
from ..workflow.draws.posterior import Draws, map_draws, sample_prior

if TYPE_CHECKING:
    import xarray as xr


def stored_datatree(
    store: str | os.PathLike[str] | Store,
    vae: AmortizedModel,
    data: Rows,
    *,
    groups: Sequence[str],
    coords: Mapping[str, Any],
    beside: Mapping[str, np.ndarray],
    attrs: Mapping[str, Mapping[str, Any]],
    num_samples: int,
    seed: int,
    chunk_rows: int | None,
    progress: bool,
) -> xr.DataTree:
    """Write what :func:`~ppl_vae.to_datatree` makes into a store, chunk by chunk, and open it.

    ``beside`` is what ``constant_data`` holds, ``attrs`` are those of groups; all else as there.
    """
    event = event_dims(vae.event_shape)
    variables = _variables(groups, event)
    whole = {}
    if "constant_data" in groups:
        dims = {"label": ("row",), "covariates": ("row", "covariate")}
        whole = {f"constant_data/{name}": (dims[name], values) for name, values in beside.items()}
    if {"prior", "prior_predictive"} & set(groups) and data.covariates is None:
        z, x = sample_prior(vae, num_samples=num_samples, seed=seed)
        whole["prior/z"] = ("chain", "draw", "latent"), z[None]
        whole["prior_predictive/x"] = ("chain", "draw", *event), x[None]
        whole = {path: held for path, held in whole.items() if path.split("/")[0] in groups}
    entries = prod(vae.event_shape)
    widths = {"z": num_samples * vae.latent_dim, "x": num_samples * entries, "observed": entries}
    sink = sink_for(
        store,
        vae,
        data,
        Contents(
            variables,
            coords={name: np.asarray(values) for name, values in coords.items()},
            beside=whole,
            attrs=attrs,
        ),
        size=rows_within_budget(vae.event_shape, num_samples, chunk_rows=chunk_rows),
        numbers=sum(widths.get(name, num_samples) for name in variables),
        what="to_datatree",
        groups=sorted(groups),
        num_samples=num_samples,
        seed=seed,
    )

    def summary(draws: Draws) -> dict[str, Tensor]:
        found = {
            "log_likelihood": draws.log_likelihood.T,
            "log_p": draws.log_p.T,
            "log_q": draws.log_q.T,
            "log_weight": draws.log_weight.T,
            "z": draws.z.transpose(0, 1),
            "observed": draws.x,
        }
        if "x" in variables:
            found["x"] = vae.replicate(draws.z, draws.covariates).transpose(0, 1)
        return {name: found[name] for name in variables}

    map_draws(
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
    return sink.close().open_tree()


def _variables(groups: Sequence[str], event: Sequence[str]) -> dict[str, Variable]:
    """Where results of rows go, of the groups that are asked for."""
    drawn = ("chain", "draw", "row")
    every = {
        "z": Variable("posterior/z", (*drawn, "latent")),
        "x": Variable("posterior_predictive/x", (*drawn, *event)),
        "log_likelihood": Variable("log_likelihood/x", drawn),
        "log_p": Variable("sample_stats/log_p", drawn),
        "log_q": Variable("sample_stats/log_q", drawn),
        "log_weight": Variable("sample_stats/log_weight", drawn),
        "observed": Variable("observed_data/x", ("row", *event)),
    }
    return {name: found for name, found in every.items() if found.path.split("/")[0] in groups}
