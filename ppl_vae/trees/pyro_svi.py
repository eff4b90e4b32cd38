"""Any Pyro model and guide as an xarray.DataTree, the form that ArviZ reads."""

from __future__ import annotations

__all__ = ["from_pyro_svi"]

import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..programs.pair import Pair
from ..programs.sites import is_random, kept_entries
from ..programs.traced import Program, undisturbed
from ..progress import Progress
from .names import checked_coords, dataset, site_dims, variables

if TYPE_CHECKING:
    import xarray as xr

_GROUPS = (
    "posterior",
    "prior",
    "posterior_predictive",
    "prior_predictive",
    "log_likelihood",
    "sample_stats",
    "observed_data",
    "fit_history",
)

# What ArviZ would make of draws of a guide, and of latents that every row has of its own.
_OF_GUIDE = (
    "These are independent draws of the guide, not of the posterior: R-hat and ESS of them say "
    "nothing, and PSIS-LOO takes them for posterior draws. sample_stats.log_weight says how far "
    "both are apart: judge it by its Pareto k-hat, and reweight by it where that is low."
)
_OF_ROWS = (
    "Each row has latents of its own, so that PSIS-LOO and WAIC of this (arviz loo, waic, compare) "
    "are no estimates of held-out evidence: leaving a row out leaves its latents to the prior. The "
    "log of the mean of exp(sample_stats.log_weight) over draws estimates log p of each row: "
    "scipy.special.logsumexp(log_weight[0], 0) - numpy.log(log_weight.sizes['draw'])."
)
# Entries of the largest site that a chunk may hold for all its draws.
_ENTRIES = 2**22


def from_pyro_svi(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    *,
    model_args: Sequence[Any] = (),
    model_kwargs: Mapping[str, Any] | None = None,
    num_samples: int = 1000,
    losses: Iterable[float] | None = None,
    coords: Mapping[str, Sequence[Any]] | None = None,
    dims: Mapping[str, Sequence[str]] | None = None,
    groups: Collection[str] = _GROUPS,
    parallel: bool | None = None,
    seed: int = 0,
    chunk_draws: int | None = None,
    progress: bool = True,
) -> xr.DataTree:
    r"""Draw what ArviZ looks at from a Pyro model and its fitted guide, into one DataTree.

    Works with Pyro's autoguides, with hand-written guides and with amortized ones. Dimensions
    are named after plates. The log-weights

    .. math:: \log w = \log p(x, z) - \log q(z), \quad z \sim q(z)

    say how far the guide is from the posterior, and the mean of :math:`w` estimates p(x).

    Parameters
    ----------
    model, guide
        Pyro programs, the guide fitted: its parameters are read from Pyro's param store. Modules,
        and methods of modules, run in evaluation mode; others that a program calls run as they are.
    model_args, model_kwargs
        What both are called with, data included.
    num_samples
        Draws from the guide, and from the prior.
    losses
        What ``svi.step`` returned, step by step.
    coords
        Labels of dimensions, such as ``{"school": names}``.
    dims
        Names of a site's dimensions: of those that no plate names, or of all. Others are called
        ``<site>_dim_0`` and so on.
    groups
        Which groups to make.
    parallel
        Run a program once for all draws of a chunk, as ``Predictive(parallel=True)`` does. None
        tries it, compares it with the program run by itself at the first and last of the draws,
        and where it fails runs draw by draw, with a warning. False runs draw by draw.
    seed
        Decides the draws, together with ``chunk_draws`` and ``parallel``.
    chunk_draws
        Draws at a time; by default as many as keep the largest site within about 16 MB.
    progress
        Show how it goes on standard error.

    Returns
    -------
    xarray.DataTree
        With one chain. ``posterior`` and ``prior``: latent and deterministic sites (chain, draw,
        plates, event). ``posterior_predictive``, ``prior_predictive`` and ``observed_data``:
        observed sites. ``log_likelihood``: these sites' log-probabilities (chain, draw, plates).
        ``sample_stats``: ``log_p``, ``log_q`` and ``log_weight`` (chain, draw), and by row too
        where every site of model and guide is in the same plate, as in a VAE.
        ``fit_history``: ``loss`` (step). Log-probabilities are in nats.

    Raises
    ------
    ValueError
        If model and guide do not have the same latent sites, one that Pyro would enumerate
        included; if a plate is subsampled, a site scaled, an observed site reparameterized, or a
        latent masked that something else depends on or that the guide draws together with others,
        so that weights would be of another model; if a site or plate is called as ArviZ's own
        dimensions are; or if an option is not accepted.

    Notes
    -----
    Entries that a mask takes out of the model's density, as ``obs_mask`` and ``poutine.mask`` do,
    are NaN in ``posterior``, ``log_likelihood`` and ``observed_data``, and count in no weight.
    Sites that ``poutine.reparam`` computes from others are in ``posterior`` beside these.
    A DataTree keeps "/" for its groups: ``scope``'s site "left/z" is the variable "left.z".

    Latents that the guide fixes at one point, as ``AutoDelta`` does, have no density: a warning
    names them, the attribute ``point_estimates`` of ``sample_stats`` too, and the weights judge
    the others, given these. Where all are fixed there are no weights.

    Auxiliary sites of a guide (``infer={"is_auxiliary": True}``) count in ``log_q``, which is
    the guide's density of the model's latents where these are an invertible function of the
    auxiliary ones and carry the Jacobian, as autoguides' do.

    Source: Yao et al. (2018), *Yes, but did it work?*, for the weights; the signature is that of
    ``arviz_base.from_numpyro_svi``.

    Examples
    --------
    >>> import pyro
    >>> import pyro.distributions as dist
    >>> import torch
    >>> from pyro.infer.autoguide import AutoNormal
    >>> def model(y):
    ...     mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    ...     with pyro.plate("school", len(y)):
    ...         pyro.sample("y", dist.Normal(mu, 1.0), obs=y)
    >>> tree = from_pyro_svi(model, AutoNormal(model), model_args=(torch.ones(8),))
    >>> tree.posterior_predictive.y.dims
    ('chain', 'draw', 'school')
    """
    import xarray as xr

    unknown = sorted(set(groups) - set(_GROUPS))
    if unknown:
        raise ValueError(f"groups has {unknown}; accepted are {', '.join(map(repr, _GROUPS))}")
    for option, value in (("num_samples", num_samples), ("chunk_draws", chunk_draws)):
        if value is not None and value < 1:
            raise ValueError(f"{option} is {value}; pass at least 1")
    kwargs = dict(model_kwargs or {})
    with undisturbed(seed, model, guide):
        q = Program("guide", guide, parallel, args=model_args, kwargs=kwargs)
        p = Program("model", model, parallel, q.first, args=model_args, kwargs=kwargs)
        pair = Pair(p, q)
        shown = variables(p)
        axes = site_dims(p, dims or {})
        drawn = _draw(pair, num_samples, groups, chunk_draws, progress)

    stats, points = drawn["sample_stats"], pair.point_estimates(drawn["posterior"])
    if not any(is_random(site) for site in q.sites.values()):
        del stats["log_q"], stats["log_weight"]
    if losses is not None:
        drawn["fit_history"] = {"loss": np.array([float(loss) for loss in losses])}
    drawn = {
        group: {shown.get(name, name): values for name, values in arrays.items()}
        for group, arrays in drawn.items()
    }
    names = {shown[site]: axes[site] for site in axes}
    batches = {shown[n]: axes[n][: len(p.sites[n]["fn"].batch_shape)] for n in p.observed}
    dims_of: dict[str, Mapping[str, list[str]]] = {
        **dict.fromkeys(_GROUPS, names),
        "log_likelihood": batches,
        "sample_stats": {name: [shown[plate] for plate in pair.plates] for name in stats},
        "fit_history": {"loss": ["step"]},
    }
    labels = checked_coords(coords or {}, drawn, dims_of)
    tree = xr.DataTree()
    for group in (g for g in _GROUPS if g in groups and drawn.get(g)):
        tree[group] = xr.DataTree(dataset(group, drawn[group], dims_of[group], labels))
    if "posterior" in tree.children:
        tree["posterior"].attrs["caution"] = _OF_GUIDE
    if "log_likelihood" in tree.children and len(stats.get("log_weight", np.zeros(0)).shape) > 1:
        tree["log_likelihood"].attrs["caution"] = _OF_ROWS
    if points:
        warnings.warn(
            f"the guide fixes {', '.join(points)} at one point, without a density: log_weight, "
            "where there is one, judges only the other latents, given these",
            stacklevel=2,
        )
        if "sample_stats" in groups:
            tree["sample_stats"].attrs["point_estimates"] = ", ".join(points)
    return tree


def _draw(
    pair: Pair, num_samples: int, groups: Collection[str], chunk_draws: int | None, progress: bool
) -> dict[str, dict[str, np.ndarray]]:
    p, q, latents = pair.model, pair.guide, pair.latents
    sites = [*p.sites.values(), *q.sites.values()]
    p.nesting = q.nesting = max(p.nesting, q.nesting)
    chunk = chunk_draws or max(1, _ENTRIES // max(s["value"].numel() + 1 for s in sites))
    sizes = [min(chunk, num_samples - start) for start in range(0, num_samples, chunk)]
    of_posterior = [name for name in p.sites if name in latents or name in p.computed]

    posterior_too = bool(p.observed) and "posterior_predictive" in groups
    prior_too = not {"prior", "prior_predictive"}.isdisjoint(groups)
    drawn: dict[str, list[dict[str, Tensor]]] = {group: [] for group in _GROUPS}
    given: list[dict[str, Tensor]] = []
    runs = num_samples * (2 + posterior_too + prior_too)
    with Progress(runs, "draw", show=progress) as bar:
        for size in sizes:
            guided = q.draw(size, bar)
            given.append({name: guided[name].value for name in latents})
            joint = p.draw(size, bar, given[-1])
            log_p, log_q = pair.log_densities(joint, guided)
            out = {name: pair.missing(name, joint) for name in (*of_posterior, *p.observed)}
            drawn["posterior"].append({n: _without(joint[n].value, out[n]) for n in of_posterior})
            drawn["log_likelihood"].append(
                {n: _without(joint[n].log_prob, out[n]) for n in p.observed}
            )
            drawn["sample_stats"].append(
                {"log_p": log_p, "log_q": log_q, "log_weight": log_p - log_q}
            )
        # This follows the guide's draws, so that these do not depend on the groups asked for.
        if posterior_too:
            for size, values in zip(sizes, given, strict=True):
                again = p.draw(size, bar, values, resample=True)
                drawn["posterior_predictive"].append({n: again[n].value for n in p.observed})
        if prior_too:
            for size in sizes:
                try:
                    prior = p.draw(size, bar, resample=True)
                except NotImplementedError as error:
                    reason = str(error).split("\n")[0]
                    raise ValueError(
                        f"the model's prior cannot be drawn from: {reason}; leave 'prior' and "
                        "'prior_predictive' out of groups"
                    ) from error
                drawn["prior"].append({name: prior[name].value for name in of_posterior})
                drawn["prior_predictive"].append({n: prior[n].value for n in p.observed})
    arrays = {
        group: {name: torch.cat([c[name] for c in chunks]).cpu().numpy() for name in chunks[0]}
        for group, chunks in drawn.items()
        if chunks
    }
    arrays["observed_data"] = {
        name: _without(p.sites[name]["value"], ~kept_entries(p.sites[name])).cpu().numpy()
        for name in p.observed
    }
    return arrays


def _without(values: Tensor, out: Tensor) -> Tensor:
    """NaN for the entries that a mask leaves ``out``, of which there are ``(*batch, *event)``."""
    if not out.any():
        return values
    numbers = values if values.is_floating_point() else values.to(torch.get_default_dtype())
    event = values.dim() - out.dim()
    return torch.where(out.reshape(*out.shape, *(1,) * event), torch.nan, numbers)
