"""Which latents of a model belong to the rows of a plate, and which are shared by all rows."""

from __future__ import annotations

__all__ = ["Structure", "programs", "structure_of"]

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .pair import Pair
from .sites import batch_axes, counts, is_random, plates_of
from .traced import Program, agree


@dataclass(frozen=True)
class Structure:
    """How the latents of a model and its guide hang together.

    Attributes
    ----------
    plate
        The plate whose rows can be judged one by one, if there is one.
    local, shared
        Latents of its rows, and the others.
    reason
        Why rows cannot be judged one by one, where latents lie in a plate; else empty.
    batches
        Of a plate that takes a subsample, indices that cover every row, and how many are new.
    """

    plate: str | None
    local: tuple[str, ...]
    shared: tuple[str, ...]
    reason: str = ""
    batches: tuple[tuple[Tensor, int], ...] = ()


def programs(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    parallel: bool | None,
    tell: Callable[[str], Any] | None = None,
) -> tuple[Pair, tuple[tuple[Tensor, int], ...]]:
    """Model and guide, traced, and batches of rows where a plate takes a subsample.

    Raises
    ------
    ValueError
        As :class:`~ppl_vae.programs.pair.Pair`, or if more than one plate takes a subsample.
    """
    rows: dict[str, Tensor] = {}
    batches: tuple[tuple[Tensor, int], ...] = ()
    for _ in range(2):  # again, if a plate takes a subsample, with the same rows in both
        called: dict[str, Any] = {"args": args, "kwargs": kwargs, "rows": rows, "tell": tell}
        q = Program("guide", guide, parallel, **called)
        p = Program("model", model, parallel, q.first, **called)
        taken = {
            frame.name: (frame.full_size, frame.size)
            for program in (p, q)
            for site in program.sites.values()
            for frame in site["cond_indep_stack"]
            if frame.full_size not in (None, frame.size)
        }
        if not taken or rows:
            break
        if len(taken) > 1:
            raise ValueError(
                f"plates {', '.join(taken)} each take a subsample of their rows, and every row is "
                "gone through for one plate only; pass programs that see all rows of the others"
            )
        ((name, (size, part)),) = taken.items()
        starts = range(0, size, part)
        batches = tuple((torch.arange(s, s + part) % size, min(part, size - s)) for s in starts)
        rows = {name: batches[0][0]}
    return Pair(p, q, summing=True), batches


def structure_of(
    pair: Pair, plate: str | None, batches: tuple[tuple[Tensor, int], ...] = ()
) -> Structure:
    """Find the plate whose rows can be judged one by one: the one with most of the sites.

    Parameters
    ----------
    plate
        The plate to take.

    Raises
    ------
    ValueError
        If it is no plate of the model, or if rows are taken by a subsample and cannot be judged
        one by one.
    """
    model, guide = pair.model, pair.guide
    of = {name: plates_of(model.sites[name]) for name in pair.latents}
    every = [plates_of(s) for q in (model, guide) for s in q.sites.values() if counts(s)]
    number = Counter(name for plates in every for name in plates)
    known = list(number)
    if plate is not None and plate not in known:
        raise ValueError(
            f"plate is {plate!r}; the model's are {', '.join(known) if known else 'none'}"
        )
    # Of nested plates the outer one holds more, or, of as many, comes first.
    found = [name for name in number if any(name in plates for plates in of.values())]
    found = sorted(found, key=lambda name: -number[name]) if plate is None else [plate]
    if batches:
        found = [next(iter(model.rows))]
    reason = ""
    for name in found:
        local = tuple(n for n in pair.latents if name in of[n])
        why = _inseparable(pair, name, local)
        if not why:
            shared = tuple(n for n in pair.latents if n not in local)
            return Structure(name, local, shared, batches=batches)
        reason = reason or why
    if batches:
        raise ValueError(
            f"plate {found[0]!r} takes a subsample, and {reason}, so that rows that are left out "
            "cannot be made up for; pass programs that see every row"
        )
    return Structure(None, (), tuple(pair.latents), reason)


def _inseparable(pair: Pair, plate: str, local: tuple[str, ...]) -> str:
    """Why the rows of a plate cannot be judged one by one; empty if they can."""
    model, guide = pair.model, pair.guide
    for name in local:
        drawn = [
            site
            for site, owner in pair.owner.items()
            if owner == name and site in guide.sites and is_random(guide.sites[site])
        ]
        if not drawn:
            return (
                f"the guide does not draw {name} by itself, but together with others or at one "
                "point"
            )
        if not all(plate in plates_of(guide.sites[site]) for site in drawn):
            return f"the guide draws {name} outside of plate {plate!r}"
    other = guide.trace({})
    moved = {}
    for name in local:
        axes = batch_axes(model.sites[name])
        if plate not in axes:
            return f"the rows of {name} are no dimension of its value"
        first = model.first[name]
        odd = torch.arange(first.shape[axes[plate]], device=first.device) % 2 == 1
        odd = odd.reshape(-1, *(1,) * (first.dim() - axes[plate] - 1))
        moved[name] = torch.where(odd, other[name]["value"], first)
    for name, site in model.trace({**model.first, **moved}).items():
        if not counts(site):
            continue
        pair_of = model.sites[name]["log_prob"], site["log_prob"]
        frames = plates_of(site)
        if plate in frames:
            pair_of = tuple(part.movedim(frames[plate], 0)[::2] for part in pair_of)
            if not agree(*pair_of):
                return f"{name} of a row depends on latents of other rows"
        elif not agree(*pair_of):
            return f"{name}, outside of plate {plate!r}, depends on latents in it"
    return ""
