"""Simulated data: do truths rank among the guide's draws as they would among the posterior's?"""

from __future__ import annotations

__all__ = ["calibrated", "is_amortized", "recalibrated"]

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pyro
import torch
from torch import Tensor, nn

from ..progress import Progress
from ..workflow.checks.ranks import judge_ranks, rank_among
from ..workflow.draws.sampling import stage_seed
from ..workflow.weights.khat import khat
from .data import Arguments
from .pair import Pair
from .sampler import Sampler, Values, entry_names
from .sites import is_random
from .traced import Drawn

if TYPE_CHECKING:
    import xarray as xr

# A weight so many nats above what the largest of all draws should have says that q was not there,
# in rows whose weights look good: see ppl_vae.workflow.verdict.missed.
_UNSEEN, _GOOD = 2.0, 0.5
# Random signs that the symmetry of ranks is tested with.
_SIGNS = 999


def is_amortized(pair: Pair, arguments: Arguments, bar: Progress, seed: int) -> bool:
    """Whether the guide depends on the data that it is called with.

    Raises
    ------
    NotFoundError
        If the model does not observe other data that it is called with.
    """
    torch.manual_seed(seed)
    values = {n: v[0] for n, v in _simulated(pair, 1, {}, bar).items()}
    arguments.check({name: values[name] for name in pair.model.observed})
    traces = []
    for program in (pair.guide, pair.guide.with_arguments(*arguments.of(values))):
        torch.manual_seed(seed)
        traces.append(program.trace({}))
    before, after = traces
    return not all(torch.equal(before[n]["value"], after[n]["value"]) for n in pair.latents)


def calibrated(
    sampler: Sampler, arguments: Arguments, num_simulations: int, num_samples: int, seed: int
) -> xr.Dataset:
    """Rank simulated latents of rows among draws of an amortized guide.

    Rows are simulated given draws of what they share, as the guide draws it from the data at hand.

    Parameters
    ----------
    sampler, arguments
        Of a guide that is amortized, and rows of a plate.
    num_simulations
        Rows to simulate, at least.
    num_samples
        Draws of the guide for each of them.
    seed
        Decides the draws.

    Returns
    -------
    xarray.Dataset
        As of :func:`~ppl_vae.calibrate`, without the search. The attribute ``simulated_rows`` says
        how many of them have weights that look good, and ``hidden_rows`` of how many of these the
        truth is where the guide puts no draws.
    """
    structure, bar = sampler.structure, sampler.bar
    plates = [str(structure.plate)]
    torch.manual_seed(seed)
    times = max(1, math.ceil(num_simulations / sampler.num_rows))
    shared = sampler.shared(times)
    given = {name: shared[name] for name in structure.shared}
    simulated = _simulated(sampler.pair, times, given, bar)
    ranks, hidden, good = [], 0, 0
    for index in range(times):
        truth = {name: value[index : index + 1] for name, value in simulated.items()}
        pair = sampler.pair.with_arguments(*arguments.of({n: v[0] for n, v in truth.items()}))
        of_all = {name: value[index : index + 1] for name, value in shared.items()}
        fixed = {name: v.expand(num_samples, *v.shape[1:]) for name, v in of_all.items()}
        guided = pair.guide.draw(num_samples, bar, fixed)
        joint = _together(pair, truth, guided, bar)
        values = [*sampler.values_by_row(joint).unbind(-1), *_densities(pair, joint, plates)]
        every = torch.stack([value.double() for value in values], -1)  # (draw, row, quantity)
        ranks.append(rank_among(every[0], every[1:]))
        if all(n in pair.guide.sites and is_random(pair.guide.sites[n]) for n in structure.local):
            latents = {name: truth[name] for name in structure.local}
            at_truth = pair.guide.draw(1, bar, of_all | latents)
            own = pair.log_densities(_part(joint, slice(1)), at_truth, plates)
            log_p, log_q = pair.log_densities(_part(joint, slice(1, None)), guided, plates)
            looks_good = khat(log_p - log_q) <= _GOOD
            unseen = (own[0] - own[1])[0] > (log_p - log_q).logsumexp(0) + _UNSEEN
            good += int(looks_good.sum())
            hidden += int((looks_good & unseen).sum())
    names = sampler.row_names()
    names += ["log_likelihood", "log_joint"][len(names) - every.shape[-1] :]
    found = _dataset(torch.cat(ranks), names, len(names) - len(sampler.row_names()), num_samples)
    return found.assign_attrs(method="simulated rows", simulated_rows=good, hidden_rows=hidden)


def recalibrated(
    sampler: Sampler,
    arguments: Arguments,
    refit: Callable[..., Any] | None,
    num_refits: int,
    num_samples: int,
    seed: int,
) -> xr.Dataset:
    r"""Rank simulated latents among draws of a guide that is fitted to each simulated data set.

    .. math:: \theta \sim p(\theta), \quad y \sim p(y \mid \theta), \quad
        q_y = \text{refit}(y), \quad p = \Pr_{q_y}(\theta' < \theta)

    Parameters
    ----------
    sampler, arguments
        Of the programs.
    refit
        Called with the programs' arguments, with simulated data in place: fits the guide, whose
        parameters are given back as they were afterwards, or returns another. None calls an
        amortized guide as it is.
    num_refits
        Data sets to simulate.
    num_samples
        Draws of the guide for each of them.
    seed
        Decides the draws.

    Returns
    -------
    xarray.Dataset
        As of :func:`~ppl_vae.calibrate`, without the search; ``asymmetry`` (quantity), the mean of
        p less one half, and ``asymmetry_p_value``, that p and 1 - p are distributed alike: where
        they are not, the guide's location is off, and too high if ``asymmetry`` is negative.

    Notes
    -----
    Source: Yao et al. (2018), *Yes, but did it work?*, algorithm 2, for the symmetry of p. Its
    p-value is here that of random signs, as p and 1 - p are no two samples.
    """
    bar = sampler.bar
    torch.manual_seed(seed)
    simulated = _simulated(sampler.pair, num_refits, {}, bar)
    ranks = []
    for index in range(num_refits):
        truth = {name: value[index : index + 1] for name, value in simulated.items()}
        args, kwargs = arguments.of({n: v[0] for n, v in truth.items()})
        pair = sampler.pair.with_arguments(args, kwargs)
        torch.manual_seed(stage_seed(seed, index))
        with _fitted_again(pair, refit) as guide:
            pair.guide.run = guide
            guided = pair.guide.draw(num_samples, bar)
            joint = _together(pair, truth, guided, bar)
        values = [*sampler.values(joint, pair.latents).unbind(-1), *_densities(pair, joint, [])]
        every = torch.stack([value.double() for value in values], -1)  # (draw, quantity)
        ranks.append(rank_among(every[0], every[1:]))
    first = sampler.pair.model.first
    names = [entry for n in sampler.pair.latents for entry in entry_names(n, first[n].shape)]
    number = every.shape[-1] - len(names)
    names += ["log_likelihood", "log_joint"][-number:]
    found = _dataset(torch.stack(ranks), names, number, num_samples)
    p = (found["rank"].values + 0.5) / (num_samples + 1) - 0.5
    return found.assign(
        asymmetry=("quantity", p.mean(0)), asymmetry_p_value=("quantity", _asymmetry(p, seed))
    ).assign_attrs(method="simulated data" if refit is None else "VSBC")


def _simulated(pair: Pair, size: int, given: Mapping[str, Tensor], bar: Progress) -> Values:
    """Latents and data drawn from the model, ``(draw, *value)``."""
    drawn = pair.model.draw(size, bar, given, resample=True)
    wanted = (*pair.latents, *pair.model.observed)
    return {name: drawn[name].value for name in wanted}


def _together(
    pair: Pair, truth: Mapping[str, Tensor], guided: Mapping[str, Drawn], bar: Progress
) -> dict[str, Drawn]:
    """The model at the truth, first, and at draws: evaluated together, they are rounded alike."""
    latents = {n: torch.cat([truth[n], guided[n].value.to(truth[n])]) for n in pair.latents}
    return pair.model.draw(len(next(iter(latents.values()))), bar, latents)


def _part(joint: Mapping[str, Drawn], some: slice) -> dict[str, Drawn]:
    return {name: Drawn(*(part[some] for part in drawn)) for name, drawn in joint.items()}


def _densities(pair: Pair, joint: Mapping[str, Drawn], plates: Sequence[str]) -> list[Tensor]:
    """log p(y|z), unless something is summed out, and log p(y, z): ``(draw, *plates)``."""
    model = pair.model
    joined = model.log_prob(joint, plates)
    if model.summed:
        return [joined]
    latents = {
        n: joint[n]._replace(log_prob=torch.zeros_like(joint[n].log_prob)) for n in pair.latents
    }
    return [model.log_prob({**joint, **latents}, plates), joined]


def _dataset(rank: Tensor, names: list[str], densities: int, num_samples: int) -> xr.Dataset:
    import xarray as xr

    ranks = rank.cpu().numpy()
    found = judge_ranks(ranks, num_samples + 1, num_densities=densities)
    found["shape"] = found["shape"].astype(str)
    return xr.Dataset(
        {
            "rank": (("simulation", "quantity"), ranks),
            **{name: ("quantity", values) for name, values in found.items()},
        },
        coords={"simulation": range(len(ranks)), "quantity": names},
        attrs={"num_samples": num_samples, "num_densities": densities},
    )


def _asymmetry(p: np.ndarray, seed: int) -> np.ndarray:
    """p-values of symmetry about 0, of values ``(simulation, quantity)``, by random signs.

    The statistic is the largest distance between the distribution functions of p and -p.
    """
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(_SIGNS + 1, len(p)))
    signs[0] = 1.0
    order = np.argsort(-np.abs(p), axis=0)
    found = []
    for column in range(p.shape[1]):
        side = np.sign(p[order[:, column], column])
        # From the largest |p| on, how many more are above than below.
        distance = np.abs(np.cumsum(signs[:, order[:, column]] * side, axis=1)).max(1)
        found.append((distance >= distance[0]).mean())
    return np.array(found)


@contextmanager
def _fitted_again(pair: Pair, refit: Callable[..., Any] | None) -> Iterator[Callable[..., Any]]:
    """A guide fitted to the arguments of a pair; afterwards every parameter is as it was."""
    store, guide, model = pyro.get_param_store(), pair.guide.run, pair.model
    if refit is None:
        yield guide
        return
    owners = [getattr(program, "__self__", program) for program in (guide, model.run)]
    modules = [owner for owner in owners if isinstance(owner, nn.Module)]
    state = store.get_state()
    tensors = [*state["params"].values()]
    for module in modules:
        tensors += [*module.parameters(), *module.buffers()]
    before = [tensor.detach().clone() for tensor in tensors]
    try:
        with store.scope(state):
            for module in modules:
                module.train()
            with torch.enable_grad():
                other = refit(*model.args, **model.kwargs)
            for module in modules:
                module.eval()
            yield other if callable(other) else guide
    finally:
        with torch.no_grad():
            for tensor, value in zip(tensors, before, strict=True):
                tensor.copy_(value)
