"""What a site of a Pyro trace is: drawn, observed or computed, in which plates, and how masked."""

from __future__ import annotations

__all__ = [
    "counts",
    "is_computed",
    "is_data",
    "is_delta",
    "is_random",
    "kept_entries",
    "masks_parts",
    "plates_of",
]

from collections.abc import Mapping
from typing import Any

import pyro.distributions as dist
import torch
from pyro.poutine.util import site_is_factor
from torch import Tensor


def is_delta(fn: Any) -> bool:
    """Whether a distribution has all its mass at one point."""
    return isinstance(_innermost(fn), dist.Delta)


def is_random(site: Mapping[str, Any]) -> bool:
    """Whether its value is drawn, and not observed or a function of what is."""
    return not site["is_observed"] and not is_delta(site["fn"])


def is_computed(site: Mapping[str, Any]) -> bool:
    """Whether it is a function of other sites, which traces show as observed.

    So are the sites of ``pyro.deterministic``, and those that ``poutine.reparam`` has taken the
    randomness out of: what is drawn is then another site, such as ``theta_decentered``.
    """
    return bool(site["is_observed"]) and is_delta(site["fn"])


def counts(site: Mapping[str, Any]) -> bool:
    """Whether its log-probability is a part of the program's density."""
    # Some reparameterized sites hold their own density; for others another site holds it.
    return not (is_computed(site) and getattr(site["fn"], "_mask", None) is False)


def is_data(site: Mapping[str, Any]) -> bool:
    """Whether it is observed, and neither computed nor a factor."""
    factor: bool = site_is_factor(site)  # type: ignore[arg-type]
    return bool(site["is_observed"]) and not is_computed(site) and not factor


def plates_of(site: Mapping[str, Any]) -> dict[str, int]:
    """Name and dimension of each plate that is a dimension, from the left."""
    frames = [f for f in site["cond_indep_stack"] if f.vectorized]
    return {frame.name: frame.dim for frame in sorted(frames, key=lambda f: f.dim)}


def kept_entries(site: Mapping[str, Any]) -> Tensor:
    """Which entries no mask leaves out of the density, in the site's batch shape.

    Masks are those of ``poutine.mask``, also by ``obs_mask``, and of ``distribution.mask``. A mask
    of parts of an event leaves no event out: see :func:`masks_parts`.
    """
    fn, masks = site["fn"], [site["mask"]]
    while isinstance(fn, dist.MaskedDistribution | dist.ExpandedDistribution):
        masks.append(getattr(fn, "_mask", None))
        fn = fn.base_dist
    while isinstance(fn, _WRAPPERS):  # masks inside this one cover parts of events
        mask = getattr(fn, "_mask", None)
        masks.append(mask if isinstance(mask, bool) else None)
        fn = fn.base_dist
    kept = torch.ones((), dtype=torch.bool, device=site["value"].device)
    for mask in masks:
        if mask is not None:
            kept = kept & torch.as_tensor(mask, device=kept.device).bool()
    return kept.expand(torch.broadcast_shapes(site["fn"].batch_shape, kept.shape))


def masks_parts(site: Mapping[str, Any]) -> bool:
    """Whether a mask leaves parts of an event out, by ``.mask(...).to_event(...)``."""
    fn = site["fn"]
    while isinstance(fn, dist.MaskedDistribution | dist.ExpandedDistribution):
        fn = fn.base_dist
    while isinstance(fn, _WRAPPERS):
        mask = getattr(fn, "_mask", None)
        if isinstance(mask, Tensor) and not mask.all():
            return True
        fn = fn.base_dist
    return False


_WRAPPERS = (dist.Independent, dist.MaskedDistribution, dist.ExpandedDistribution)


def _innermost(fn: Any) -> Any:
    while isinstance(fn, _WRAPPERS):
        fn = fn.base_dist
    return fn
