"""The posterior of a VAE as an xarray.DataTree, the form that ArviZ reads."""

from __future__ import annotations

__all__ = ["GROUPS", "to_datatree", "write_datatree"]

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ..amortized import AmortizedModel
from ..dims import event_dims
from ..files import written_whole
from ..renamed import renamed
from ..rows import Rows
from ..workflow.draws.posterior import Draws, map_draws, sample_prior
from .stored import stored_datatree

if TYPE_CHECKING:
    import xarray as xr

    from ..store import Store

GROUPS = (
    "posterior",
    "prior",
    "posterior_predictive",
    "prior_predictive",
    "log_likelihood",
    "sample_stats",
    "observed_data",
    "constant_data",
    "fit_history",
)


# What ArviZ would make of a group, and what to do instead.
_CAUTIONS = {
    "posterior": {
        "caution": "These are draws of q(z|x), not of the posterior p(z|x): one chain of "
        "independent draws, of which R-hat and ESS say nothing. How far both are apart is said by "
        "sample_stats.log_weight, and row by row by ppl_vae.diagnose(vae, x)."
    },
    "log_likelihood": {
        "caution": "This is log p(x|z) given each row's own latents. PSIS-LOO and WAIC of it "
        "(arviz loo, waic, compare) are no estimates of held-out evidence: leaving a row out "
        "leaves its latents to the prior. ppl_vae.log_evidence(vae, x) estimates log p(x) of each "
        "row, held-out where x is."
    },
}


@renamed(context="covariates")
def to_datatree(
    vae: AmortizedModel,
    x: Tensor | Rows,
    *,
    covariates: Tensor | None = None,
    num_samples: int = 200,
    labels: Sequence[Any] | np.ndarray | None = None,
    feature_names: Sequence[str] | None = None,
    covariate_names: Sequence[str] | None = None,
    history: xr.Dataset | None = None,
    groups: Sequence[str] = GROUPS,
    seed: int = 0,
    chunk_rows: int | None = None,
    store: str | os.PathLike[str] | Store | None = None,
    progress: bool = True,
) -> xr.DataTree:
    """Draw what ArviZ looks at, for rows of data, into one DataTree.

    Parameters
    ----------
    vae
        A VAE.
    x
        Rows, shape ``(row, *event)``.
    covariates
        Shape ``(row, covariate)``, for a conditional VAE; kept in ``constant_data``.
    num_samples
        Draws for each row, and from the prior.
    labels
        One for each row, kept in ``constant_data``.
    feature_names
        Coordinates of one-dimensional rows.
    covariate_names
        Coordinates of covariates.
    history
        ``FitResult.history``, kept as ``fit_history``.
    groups
        Which groups to make; predictive ones take as much memory, or disk, as ``num_samples``
        copies of ``x``.
    seed, chunk_rows, store
        As in :func:`~ppl_vae.sample_posterior`. A store has no ``fit_history``, nor the ``prior``
        and ``prior_predictive`` of a conditional VAE, which have rows too.
    progress
        Show how it goes on standard error.

    Returns
    -------
    xarray.DataTree
        ``posterior`` and ``prior``: ``z`` (chain, draw, row, latent), the prior's without row.
        ``posterior_predictive``, ``prior_predictive`` and ``observed_data``: ``x``.
        ``log_likelihood``: ``x`` (chain, draw, row), log p(x|z). ``sample_stats``: ``log_p``,
        ``log_q`` and ``log_weight`` (chain, draw, row). All in nats, with one chain. The draws
        are of q(z|x): see ``log_weight`` for how far that is from p(z|x). What the groups do not
        say of the model is in their attribute ``caution``.

    Raises
    ------
    TypeError, ValueError
        If ``x`` or ``covariates`` is not what the VAE describes, a group is unknown, or there are
        not as many labels as rows, or the store is of other results.
    FileExistsError
        If something else is where the store would be.

    Examples
    --------
    >>> import torch
    >>> from ppl_vae import VAE, VAEConfig
    >>> vae = VAE.from_config(VAEConfig(event_shape=(8, 8), latent_dim=2, hidden=(16,)))
    >>> tree = to_datatree(vae, torch.ones(5, 8, 8), num_samples=10)
    >>> tree.posterior_predictive.x.dims
    ('chain', 'draw', 'row', 'pixel_y', 'pixel_x')
    """
    import arviz_base
    import xarray as xr

    unknown = sorted(set(groups) - set(GROUPS))
    if unknown:
        raise ValueError(f"groups has {unknown}; accepted are {', '.join(map(repr, GROUPS))}")
    data = Rows.of(x, covariates, vae)
    if labels is not None and len(labels) != len(data):
        raise ValueError(
            f"labels has {len(labels)} entries but x has {len(data)} rows; pass one each"
        )

    event = event_dims(vae.event_shape)
    coords: dict[str, Any] = {
        "row": np.arange(len(data)),
        "latent": np.arange(vae.latent_dim),
        **{dim: np.arange(n) for dim, n in zip(event, vae.event_shape, strict=True)},
    }
    if feature_names is not None:
        coords["feature"] = list(feature_names)
    if covariate_names is not None:
        coords["covariate"] = list(covariate_names)
    beside = {} if labels is None else {"label": np.asarray(labels)}
    if data.covariates is not None:
        beside["covariates"] = data.covariates.numpy(force=True)
    attrs = {
        group: {"inference_library": "ppl_vae", **_CAUTIONS.get(group, {})} for group in GROUPS
    }
    if store is not None:
        return stored_datatree(
            store,
            vae,
            data,
            groups=groups,
            coords=coords,
            beside=beside,
            attrs=attrs,
            num_samples=num_samples,
            seed=seed,
            chunk_rows=chunk_rows,
            progress=progress,
        )

    def summary(draws: Draws) -> dict[str, Tensor]:
        kept = {}
        if "posterior" in groups:
            kept["z"] = draws.z.transpose(0, 1)
        if "posterior_predictive" in groups:
            # Predictive of whole rows: the entries that x misses are drawn too.
            kept["x"] = vae.replicate(draws.z, draws.covariates).transpose(0, 1)
        kept["log_likelihood"] = draws.log_likelihood.T
        kept["log_p"], kept["log_q"] = draws.log_p.T, draws.log_q.T
        kept["log_weight"] = draws.log_weight.T
        return kept

    arrays = map_draws(
        vae,
        data,
        None,
        summary,
        num_samples=num_samples,
        seed=seed,
        chunk_rows=chunk_rows,
        progress=progress,
    )
    # (row, draw, ...) -> (chain, draw, row, ...)
    arrays = {name: np.moveaxis(array, 0, 1)[None] for name, array in arrays.items()}
    made: dict[str, dict[str, Any]] = {
        "log_likelihood": {"x": arrays["log_likelihood"]},
        "sample_stats": {name: arrays[name] for name in ("log_p", "log_q", "log_weight")},
        "observed_data": {"x": data.numbers()},
    }
    if "posterior" in groups:
        made["posterior"] = {"z": arrays["z"]}
    if "posterior_predictive" in groups:
        made["posterior_predictive"] = {"x": arrays["x"]}
    if beside:
        made["constant_data"] = beside
    if "prior" in groups or "prior_predictive" in groups:
        z, x_drawn = sample_prior(
            vae, covariates=data.covariates, num_samples=num_samples, seed=seed
        )
        made |= {"prior": {"z": z[None]}, "prior_predictive": {"x": x_drawn[None]}}

    row_dims = {name: ["row"] for name in ("log_p", "log_q", "log_weight", "label")}
    per_row = {
        "z": ["row", "latent"],
        "x": ["row", *event],
        "covariates": ["row", "covariate"],
        **row_dims,
    }
    prior_has_rows = data.covariates is not None
    prior_dims = per_row if prior_has_rows else {"z": ["latent"], "x": list(event)}
    tree = xr.DataTree()
    for group in (g for g in GROUPS if g in groups and g in made):
        tree[group] = arviz_base.from_dict(
            {group: made[group]},
            dims=prior_dims if group.startswith("prior") else per_row,
            coords=coords,
            attrs={group: attrs[group]},
        )[group]
    if "fit_history" in groups and history is not None:
        tree["fit_history"] = xr.DataTree(history)
    return tree


def write_datatree(tree: xr.DataTree | xr.Dataset, path: str | os.PathLike[str]) -> None:
    """Write a DataTree, or a Dataset, to one compressed netCDF file, whole or not at all.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    import xarray as xr

    nodes = {"/": tree} if isinstance(tree, xr.Dataset) else {n.path: n for n in tree.subtree}
    encoding = {
        path: {
            k: {"zlib": True, "complevel": 1}
            for k, v in node.data_vars.items()
            if v.dtype.kind in "biuf"
        }
        for path, node in nodes.items()
    }
    with written_whole(path) as temporary:
        if isinstance(tree, xr.Dataset):
            tree.to_netcdf(temporary, engine="h5netcdf", encoding=encoding["/"])
        else:
            tree.to_netcdf(temporary, engine="h5netcdf", encoding=encoding)
