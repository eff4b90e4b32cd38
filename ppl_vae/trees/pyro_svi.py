"""Any Pyro model and guide as an xarray.DataTree, the form that ArviZ reads."""

from __future__ import annotations

__all__ = ["from_pyro_svi"]

import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pyro
import torch
from torch import Tensor, nn

from ..isolation import seeded
from ..progress import Progress
from .traced import Program, is_delta, is_deterministic, is_random, plates_of

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
        included; if a plate is subsampled or a site scaled, so that weights would be of another
        model; or if an option is not accepted.

    Notes
    -----
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
    >>> import pyro.distributions as dist
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
    store = pyro.get_param_store()
    with seeded(seed), store.scope(store.get_state()), torch.no_grad(), _evaluation(model, guide):
        q = Program("guide", lambda: guide(*model_args, **kwargs), parallel)
        p = Program("model", lambda: model(*model_args, **kwargs), parallel, q.first)
        _check_pair(p, q)
        names = _site_dims(p, dims or {})
        drawn = _draw(p, q, num_samples, groups, chunk_draws, progress)

    stats, points = drawn["sample_stats"], _point_estimates(q, drawn["posterior"])
    if not any(is_random(site) for site in q.sites.values()):
        del stats["log_q"], stats["log_weight"]
    if losses is not None:
        drawn["fit_history"] = {"loss": np.array([float(loss) for loss in losses])}
    plates = _shared_plates(p, q)
    batches = {name: names[name][: len(p.sites[name]["fn"].batch_shape)] for name in p.observed}
    dims_of: dict[str, Mapping[str, list[str]]] = {
        **dict.fromkeys(_GROUPS, names),
        "log_likelihood": batches,
        "sample_stats": dict.fromkeys(stats, plates),
        "fit_history": {"loss": ["step"]},
    }
    labels = _checked_coords(coords or {}, drawn, dims_of)
    tree = xr.DataTree()
    for group in (g for g in _GROUPS if g in groups and drawn.get(g)):
        tree[group] = xr.DataTree(_dataset(group, drawn[group], dims_of[group], labels))
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
    p: Program,
    q: Program,
    num_samples: int,
    groups: Collection[str],
    chunk_draws: int | None,
    progress: bool,
) -> dict[str, dict[str, np.ndarray]]:
    sites = [*p.sites.values(), *q.sites.values()]
    p.nesting = q.nesting = max(p.nesting, q.nesting)
    chunk = chunk_draws or max(1, _ENTRIES // max(s["value"].numel() + 1 for s in sites))
    sizes = [min(chunk, num_samples - start) for start in range(0, num_samples, chunk)]
    plates = _shared_plates(p, q)
    latents = [name for name in p.first if name in q.sites]
    of_posterior = [name for name in p.sites if name in latents or name in p.deterministic]

    posterior_too = bool(p.observed) and "posterior_predictive" in groups
    prior_too = not {"prior", "prior_predictive"}.isdisjoint(groups)
    drawn: dict[str, list[dict[str, Tensor]]] = {group: [] for group in _GROUPS}
    runs = num_samples * (2 + posterior_too + prior_too)
    with Progress(runs, "draw", show=progress) as bar:
        for size in sizes:
            guided = q.draw(size, bar)
            given = {name: guided[name].value for name in latents}
            joint = p.draw(size, bar, given)
            log_p, log_q = p.log_prob(joint, plates), q.log_prob(guided, plates)
            drawn["posterior"].append({name: joint[name].value for name in of_posterior})
            drawn["log_likelihood"].append({name: joint[name].log_prob for name in p.observed})
            drawn["sample_stats"].append(
                {"log_p": log_p, "log_q": log_q, "log_weight": log_p - log_q}
            )
        # After the guide's draws, which do so not depend on the groups asked for.
        if posterior_too:
            for size, values in zip(sizes, drawn["posterior"], strict=True):
                given = {name: values[name] for name in latents}
                again = p.draw(size, bar, given, resample=True)
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
    arrays["observed_data"] = {n: p.sites[n]["value"].cpu().numpy() for n in p.observed}
    return arrays


def _shared_plates(p: Program, q: Program) -> list[str]:
    """Plates that hold every site, so that the log-weights are those of their rows."""
    each = [plates_of(s) for s in (*p.sites.values(), *q.sites.values()) if not is_deterministic(s)]
    return [name for name in each[0] if all(name in plates for plates in each)]


def _point_estimates(q: Program, posterior: Mapping[str, np.ndarray]) -> list[str]:
    deltas = {
        name: values
        for name, values in posterior.items()
        if name in q.sites and is_delta(q.sites[name]["fn"])
    }
    # A Delta that an autoguide makes of an auxiliary draw moves from draw to draw.
    fixed = not any(is_random(site) for site in q.sites.values())
    return [n for n, v in deltas.items() if fixed or (len(v) > 1 and (v == v[:1]).all())]


def _check_pair(p: Program, q: Program) -> None:
    for program in (p, q):
        for name, site in program.sites.items():
            for frame in site["cond_indep_stack"]:
                if frame.full_size is not None and frame.full_size != frame.size:
                    raise ValueError(
                        f"the {program.label} takes {frame.size} of the {frame.full_size} rows of "
                        f"plate {frame.name!r} and multiplies their log-probabilities to make up "
                        "for it; such sums are no log-weights. Pass programs that see every row "
                        "(no subsample_size), or the rows of a batch as if they were all"
                    )
            scale = torch.as_tensor(site["scale"])
            if not is_deterministic(site) and not (scale == 1).all():
                raise ValueError(
                    f"the {program.label} scales the log-probability of site {name!r} by "
                    f"{scale.flatten()[0].item():g}, so that weights would be of another model; "
                    "pass programs without poutine.scale"
                )
    if not p.first:
        raise ValueError("the model draws nothing: every site is observed; there is no posterior")
    missing = [name for name in p.first if name not in q.sites]
    summed = [name for name in missing if p.sites[name]["infer"].get("enumerate")]
    if summed:
        raise ValueError(
            f"the model enumerates {', '.join(summed)}, of which the guide draws nothing; sum them "
            "out in the model, for a mixture with dist.MixtureSameFamily, or draw them in the guide"
        )
    if missing:
        raise ValueError(
            f"the guide has no site {', '.join(missing)}, which the model draws; add it to the "
            "guide, or if it is data, pass it in model_args so that it is observed"
        )
    extra = [
        name
        for name, site in q.sites.items()
        if not (name in p.first or site["is_observed"] or site["infer"].get("is_auxiliary"))
    ]
    if extra:
        raise ValueError(
            f"the model does not draw {', '.join(extra)}, which the guide has; rename it, or mark "
            'it with infer={"is_auxiliary": True}'
        )


def _site_dims(p: Program, dims: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    unknown = sorted(dims.keys() - p.sites.keys())
    if unknown:
        raise ValueError(
            f"dims has {unknown}, which are no sites of the model; it has {', '.join(p.sites)}"
        )
    names: dict[str, list[str]] = {}
    for name, site in p.sites.items():
        frames, shape = plates_of(site), site["value"].shape
        if not frames.keys().isdisjoint({"chain", "draw"}):
            raise ValueError(
                "the model has a plate called 'chain' or 'draw', which is what ArviZ calls its own "
                "dimensions; rename the plate"
            )
        axes = dict.fromkeys(range(len(shape)), "")
        axes |= {dim: plate for plate, dim in _batch_axes(site, frames, shape).items()}
        given = list(dims.get(name, ()))
        free = [axis for axis, plate in axes.items() if not plate]
        if len(given) not in {0, len(free), len(shape)}:
            raise ValueError(
                f"dims[{name!r}] has {len(given)} names, but {name} has {len(shape)} dimensions, "
                f"of which plates name {len(shape) - len(free)}; pass {len(free)} or {len(shape)}"
            )
        given = given or [f"{name}_dim_{i}" for i in range(len(free))]
        axes |= dict(zip(free if len(given) == len(free) else axes, given, strict=True))
        names[name] = list(axes.values())
    return names


def _batch_axes(
    site: Mapping[str, Any], frames: Mapping[str, int], shape: torch.Size
) -> dict[str, int]:
    """Which axis of a site's value each plate is."""
    event_dim = site["fn"].event_dim
    if not is_deterministic(site) or event_dim < len(shape):
        choices: Iterable[int] = [event_dim]
    else:  # pyro.deterministic counts all dimensions as the event's unless told
        choices = range(len(shape))
    for event in choices:
        axes = {plate: len(shape) - event + dim for plate, dim in frames.items()}
        sizes = {f.name: f.size for f in site["cond_indep_stack"]}
        if all(axis >= 0 and shape[axis] == sizes[plate] for plate, axis in axes.items()):
            return axes
    return {}


def _checked_coords(
    coords: Mapping[str, Sequence[Any]],
    drawn: Mapping[str, Mapping[str, np.ndarray]],
    dims: Mapping[str, Mapping[str, Sequence[str]]],
) -> dict[str, Sequence[Any]]:
    sizes = {
        dim: size
        for group, arrays in drawn.items()
        for name, array in arrays.items()
        for dim, size in zip(reversed(dims[group][name]), reversed(array.shape), strict=False)
    }
    for dim, labels in coords.items():
        if dim not in sizes:
            raise ValueError(f"coords has {dim!r}; the dimensions are {', '.join(sizes)}")
        if len(labels) != sizes[dim]:
            raise ValueError(
                f"coords[{dim!r}] has {len(labels)} labels, but {dim} is of size {sizes[dim]}"
            )
    return dict(coords)


def _dataset(
    group: str,
    arrays: Mapping[str, np.ndarray],
    dims: Mapping[str, Sequence[str]],
    coords: Mapping[str, Sequence[Any]],
) -> xr.Dataset:
    import arviz_base

    sampled = group not in {"observed_data", "fit_history"}
    return arviz_base.dict_to_dataset(
        {name: array[None] if sampled else array for name, array in arrays.items()},
        dims={name: list(dims[name]) for name in arrays},
        coords=dict(coords),
        sample_dims=["chain", "draw"] if sampled else [],
        inference_library=pyro,
    )


@contextmanager
def _evaluation(*programs: Callable[..., Any]) -> Iterator[None]:
    """Evaluation mode, of programs that are modules or methods of modules."""
    owners = [getattr(program, "__self__", program) for program in programs]
    modules = [m for owner in owners if isinstance(owner, nn.Module) for m in owner.modules()]
    were = [module.training for module in modules]
    for module in modules:
        module.training = False
    try:
        yield
    finally:
        for module, training in zip(modules, were, strict=True):
            module.training = training
