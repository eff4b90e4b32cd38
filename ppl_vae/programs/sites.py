"""What a site of a Pyro trace is: drawn, observed or computed, in which plates, and how masked."""

from __future__ import annotations

__all__ = [
    "batch_axes",
    "counts",
    "is_computed",
    "is_data",
    "is_delta",
    "is_random",
    "kept_entries",
    "masks_parts",
    "plates_of",
]

from collections.abc import Iterable, Mapping
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


def batch_axes(site: Mapping[str, Any]) -> dict[str, int]:
    """Which axis of a site's value each plate is; none where the value does not tell."""
    frames, shape = plates_of(site), site["value"].shape
    event_dim = site["fn"].event_dim
    if not is_computed(site) or event_dim < len(shape):
        choices: Iterable[int] = [event_dim]
    else:  # pyro.deterministic counts all dimensions as the event's unless told
        choices = range(len(shape))
    # A plate without a size, pyro.plate("data"), has -1.
    sizes = {f.name: f.size for f in site["cond_indep_stack"]}
    for event in choices:
        axes = {plate: len(shape) - event + dim for plate, dim in frames.items()}
        if all(axis >= 0 and sizes[plate] in (-1, shape[axis]) for plate, axis in axes.items()):
            return axes
    return {}


def kept_entries(site: Mapping[str, Any]) -> Tensor:
    """Which entries no mask leaves out of the density, in the site's batch shape.

    Masks are those of ``poutine.mask``, also by ``obs_mask``, and of ``distribution.mask``. A mask
    of parts of an event leaves no event out: see :func:`masks_parts`.
    """
    fn, masks = site["fn"], [site["mask"]]
    while isinstance(fn, dist.MaskedDistribution | dist.ExpandedDistribution):
        masks.append(getattr(fn, "_mask", None))
        fn = fn.base_dist
    kept = torch.ones((), dtype=torch.bool, device=site["value"].device)
    for mask in masks:
        if mask is not None:
            kept = kept & torch.as_tensor(mask, device=kept.device).bool()
    for mask, inside in _inner_masks(fn):
        kept = kept & _by_event(mask, inside).any(-1)
    return kept.expand(torch.broadcast_shapes(site["fn"].batch_shape, kept.shape))


def masks_parts(site: Mapping[str, Any]) -> bool:
    """Whether a mask leaves parts of an event out, by ``.mask(...).to_event(...)``.

    One that is the same for all parts of each event leaves whole events out.
    """
    fn = site["fn"]
    while isinstance(fn, dist.MaskedDistribution | dist.ExpandedDistribution):
        fn = fn.base_dist
    for mask, inside in _inner_masks(fn):
        by_event = _by_event(mask, inside)
        if (by_event.any(-1) & ~by_event.all(-1)).any():
            return True
    return False


def _inner_masks(fn: Any) -> list[tuple[Tensor, int]]:
    """Masks below ``to_event``, and how many dimensions of an event each of them is below of."""
    found, inside = [], 0
    while isinstance(fn, _WRAPPERS):
        mask = getattr(fn, "_mask", None)
        if mask is not None:
            # The dimensions that the distribution below has as an event already are no mask's.
            mask = torch.as_tensor(mask).bool()
            found.append((mask.expand(torch.broadcast_shapes(mask.shape, fn.batch_shape)), inside))
        inside += getattr(fn, "reinterpreted_batch_ndims", 0)
        fn = fn.base_dist
    return found


def _by_event(mask: Tensor, inside: int) -> Tensor:
    """``(*batch, parts)``"""
    return mask.flatten(mask.dim() - inside) if inside else mask[..., None]


_WRAPPERS = (dist.Independent, dist.MaskedDistribution, dist.ExpandedDistribution)


def _innermost(fn: Any) -> Any:
    while isinstance(fn, _WRAPPERS):
        fn = fn.base_dist
    return fn
