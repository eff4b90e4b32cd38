"""Discrete latents that a guide does not draw, summed out of a model's density."""

from __future__ import annotations

__all__ = ["summed_out"]

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import pyro.distributions as dist
import torch
from pyro.ops import packed
from pyro.ops.contract import contract_tensor_tree
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from .sites import counts


def summed_out(trace: Trace, one: Mapping[str, Any]) -> dict[str, Any]:
    """The sites of an enumerated trace without those that depend on what was enumerated.

    Their density, summed, is that of sites ``_summed_0`` and so on, one for each set of plates
    that it is left with. Latents that depend on what was enumerated stay, without a density.

    Parameters
    ----------
    trace
        With log-probabilities, of a run under ``poutine.enum``.
    one
        The sites of a run without, of which a latent's batch shape is taken.
    """
    trace.pack_tensors()
    sites: dict[str, Any] = {
        name: site
        for name, site in trace.nodes.items()
        if site["type"] == "sample" and not site_is_subsample(site) and counts(site)
    }
    symbols = {
        site["infer"]["_enumerate_symbol"]
        for site in sites.values()
        if "_enumerate_symbol" in site["infer"]
    }
    terms: OrderedDict[frozenset[Any], list[Tensor]] = OrderedDict()
    left: dict[str, Any] = {}
    for name, site in sites.items():
        log_prob = site["packed"]["log_prob"]
        if symbols.isdisjoint(log_prob._pyro_dims):
            left[name] = site
            continue
        frames = frozenset(f for f in site["cond_indep_stack"] if f.vectorized)
        terms.setdefault(frames, []).append(log_prob)
        if not site["is_observed"] and "_enumerate_symbol" not in site["infer"]:
            left[name] = _without_density(site, one[name])
    for number, (frames, parts) in enumerate(contract_tensor_tree(terms, symbols).items()):
        total = sum(packed.unpack(part, trace.symbol_to_dim) for part in parts)
        left[f"_summed_{number}"] = _factor(torch.as_tensor(total), frames)
    return left


def _without_density(site: Mapping[str, Any], one: Mapping[str, Any]) -> dict[str, Any]:
    value = site["value"]
    batch = value.shape[: value.dim() - one["fn"].event_dim]
    nothing = torch.zeros(batch, device=value.device)
    return {**site, "fn": one["fn"], "log_prob": nothing, "unscaled_log_prob": nothing}


def _factor(log_prob: Tensor, frames: frozenset[Any]) -> dict[str, Any]:
    # Packed tensors leave out dimensions of size one.
    shape = [1] * max((-frame.dim for frame in frames), default=0)
    log_prob = log_prob.expand(torch.broadcast_shapes(log_prob.shape, shape))
    return {
        "type": "sample",
        "fn": dist.Unit(log_prob),
        "value": log_prob.new_zeros((*log_prob.shape, 0)),
        "is_observed": True,
        "log_prob": log_prob,
        "unscaled_log_prob": log_prob,
        "cond_indep_stack": tuple(frames),
        "scale": 1.0,
        "mask": None,
        "infer": {},
    }
