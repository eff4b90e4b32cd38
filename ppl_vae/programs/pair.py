"""What a model and its guide have to agree on, and the weights of the guide's draws."""

from __future__ import annotations

__all__ = ["Pair"]

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .sites import (
    counts,
    is_computed,
    is_data,
    is_delta,
    is_random,
    kept_entries,
    masks_parts,
    plates_of,
)
from .traced import Drawn, Program

# ``poutine.reparam`` draws another site in place of one, and gives it one of these endings.
_DRAWN_INSTEAD = ("base", "decentered", "dct", "haar", "normal", "split_0", "uniform")
# Autoguides give these endings to sites from which they compute one latent.
_OF_ONE = ("unconstrained", "aux")


class Pair:
    """A model and its guide, of whose draws the weights are those of the model's posterior.

    A mask on a latent takes entries out of the model's density that the guide draws all the same,
    as ``obs_mask`` does with those that are observed. The guide's density leaves out the same
    entries, so that the mean weight is p(x): they integrate to one, whatever they depend on.

    Parameters
    ----------
    model, guide
        The programs, traced; the model at the guide's first draw.
    summing
        Sum discrete latents out that the model enumerates and the guide does not draw.

    Raises
    ------
    ValueError
        If weights would not be of this model: see :func:`~ppl_vae.from_pyro_svi`.
    """

    def __init__(self, model: Program, guide: Program, *, summing: bool = False) -> None:
        self.model = model
        self.guide = guide
        for program in (model, guide):
            _check_density(program)
        missing = [name for name in model.first if name not in guide.sites]
        enumerated = [name for name in missing if model.sites[name]["infer"].get("enumerate")]
        if summing and enumerated:
            model.sum_out(enumerated)
        _check_sites(model, guide)
        # The latent that each site of the guide draws.
        self.owner = {name: name for name in model.first}
        for name in model.first:
            owned = (f"{name}_{ending}" for ending in _OF_ONE)
            self.owner.update({site: name for site in owned if site in guide.sites})
        # A reparameterization whose density other sites bring along is no mask of ours.
        self.carried = self._carried()

    def with_arguments(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Pair:
        """The same programs called with other data, of the same shapes."""
        other = copy(self)
        other.model = self.model.with_arguments(args, kwargs)
        other.guide = self.guide.with_arguments(args, kwargs)
        return other

    @property
    def latents(self) -> list[str]:
        """Sites that the guide draws for the model."""
        return list(self.model.first)

    @property
    def plates(self) -> list[str]:
        """Plates that hold every site, so that the log-weights are those of their rows."""
        sites = (*self.model.sites.values(), *self.guide.sites.values())
        each = [plates_of(site) for site in sites if counts(site)]
        return [name for name in each[0] if all(name in plates for plates in each)]

    def log_densities(
        self,
        joint: Mapping[str, Drawn],
        guided: Mapping[str, Drawn],
        plates: Sequence[str] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """log p(x, z) and log q(z), each ``(draw, *plates)``, of entries that the model counts.

        Of the sites in all these plates; by default those that hold every site.
        """
        plates = self.plates if plates is None else plates
        both = dict(guided)
        for name, site in self.guide.sites.items():
            if counts(site) and (is_random(site) or name in self.owner):
                both[name] = self._as_counted(name, guided[name], joint)
        return self.model.log_prob(joint, plates), self.guide.log_prob(both, plates)

    def missing(self, name: str, joint: Mapping[str, Drawn]) -> Tensor:
        """Entries of a model's site that are no part of its density, ``(draw, *batch)``."""
        if name in self.carried or not counts(self.model.sites[name]):
            return torch.zeros_like(joint[name].kept)
        return ~joint[name].kept

    def values(self, name: str, joint: Mapping[str, Drawn]) -> Tensor:
        """A latent's values, ``(draw, *value)``, 0 where a mask leaves an entry out."""
        value, out = joint[name].value, self.missing(name, joint)
        if not out.any():
            return value
        out = out.reshape(*out.shape, *(1,) * (value.dim() - out.dim()))
        return torch.where(out, torch.zeros_like(value), value)

    def point_estimates(self, posterior: Mapping[str, np.ndarray]) -> list[str]:
        """Latents that the guide fixes at one point."""
        deltas = {
            name: values
            for name, values in posterior.items()
            if name in self.guide.sites and is_delta(self.guide.sites[name]["fn"])
        }
        # A Delta that an autoguide makes of an auxiliary draw moves from draw to draw.
        fixed = not any(is_random(site) for site in self.guide.sites.values())
        return [n for n, v in deltas.items() if fixed or (len(v) > 1 and (v == v[:1]).all())]

    def _as_counted(self, name: str, drawn: Drawn, joint: Mapping[str, Drawn]) -> Drawn:
        """A site of the guide without the entries that a mask takes out of the model's."""
        owner = self.owner.get(name)
        out = {n: gone for n in self.latents if (gone := self.missing(n, joint)).any()}
        if owner is None:
            if out:
                raise ValueError(
                    f"the model masks entries of {', '.join(out)}, which the guide draws together "
                    f"with others in {name!r}, so that its density cannot leave them out; use a "
                    "guide that draws each entry by itself, such as AutoNormal"
                )
            gone = torch.zeros_like(drawn.kept)
        else:
            gone = out.get(owner, torch.zeros_like(joint[owner].kept))
        if gone.shape != drawn.log_prob.shape:
            by_draw = gone.flatten(1)
            if (by_draw != by_draw[:, :1]).any():
                raise ValueError(
                    f"the model masks some entries of {owner}, which the guide draws as one event "
                    f"in {name!r}; draw them in the model's plate, as AutoNormal does"
                )
            gone = by_draw[:, 0].reshape(-1, *(1,) * (drawn.log_prob.dim() - 1))
        if (~drawn.kept & ~gone).any():
            raise ValueError(
                f"the guide masks entries of {name!r} that the model does not, so that weights "
                "would lack their density; mask them in both or in none"
            )
        return drawn._replace(log_prob=torch.where(gone, 0.0, drawn.log_prob))

    def _carried(self) -> set[str]:
        """Masked latents whose density computed sites bring along, as under NeuTraReparam.

        Raises
        ------
        ValueError
            If anything else in the model depends on an entry that a mask takes out.
        """
        model, carried = self.model, set()
        other = {n: s["value"] for n, s in self.guide.trace({}).items() if n in model.first}
        for name, first in model.first.items():
            kept = kept_entries(model.sites[name])
            if kept.all():
                continue
            site = model.sites[name]
            shape = kept.shape + (1,) * site["fn"].event_dim  # (*batch, *event)
            moved = torch.where(kept.reshape(shape), first, other[name])
            sites = model.trace({**model.first, name: moved})
            touched = [
                n
                for n, s in sites.items()
                if counts(s) and not torch.equal(s["log_prob"], model.sites[n]["log_prob"])
            ]
            if touched and name.endswith("_shared_latent"):
                carried.add(name)
            elif touched:
                raise ValueError(
                    f"the model masks entries of {name}, and yet {', '.join(touched)} depends on "
                    "them, so that its density is of no joint distribution; mask what depends on "
                    "them too, or leave the mask out"
                )
        return carried


def _check_density(program: Program) -> None:
    for name, site in program.sites.items():
        for frame in site["cond_indep_stack"]:
            if frame.name not in program.rows and frame.full_size not in (None, frame.size):
                raise ValueError(
                    f"the {program.label} takes {frame.size} of the {frame.full_size} rows of "
                    f"plate {frame.name!r} and multiplies their log-probabilities to make up "
                    "for it; such sums are no log-weights. Pass programs that see every row "
                    "(no subsample_size), or the rows of a batch as if they were all"
                )
        if not site["is_observed"] and masks_parts(site):
            raise ValueError(
                f"the {program.label} masks parts of an event of site {name!r}, by "
                ".mask(...).to_event(...); mask whole events, or put the parts into a plate"
            )
        scale = torch.as_tensor(site["scale"])
        if counts(site) and not (scale == 1).all():
            raise ValueError(
                f"the {program.label} scales the log-probability of site {name!r} by "
                f"{scale.flatten()[0].item():g}, so that weights would be of another model; "
                "pass programs without poutine.scale"
            )


def _check_sites(p: Program, q: Program) -> None:
    if not p.first:
        raise ValueError("the model draws nothing: every site is observed; there is no posterior")
    for name in p.computed:
        instead = [f"{name}_{ending}" for ending in _DRAWN_INSTEAD]
        data = [other for other in instead if other in p.sites and is_data(p.sites[other])]
        if data:
            raise ValueError(
                f"the model reparameterizes the observed site {name!r}, and has the density of "
                f"{data[0]!r} in place of its own; leave observed sites out of poutine.reparam"
            )
    for name in p.first:
        of = name.removesuffix("_aux")
        if of != name and p.sites[name]["infer"].get("is_auxiliary") and of in p.computed:
            raise ValueError(
                f"the model draws {name!r} as StructuredReparam does, whose density has the "
                "guide's in it; pass the model without it, with the guide that it was made of"
            )
    missing = [name for name in p.first if name not in q.sites]
    summed = [name for name in missing if p.sites[name]["infer"].get("enumerate")]
    if summed:
        raise ValueError(
            f"the model enumerates {', '.join(summed)}, of which the guide draws nothing; sum them "
            "out in the model, for a mixture with dist.MixtureSameFamily, or draw them in the "
            "guide; check_svi sums them out"
        )
    if missing:
        raise ValueError(
            f"the guide has no site {', '.join(missing)}, which the model draws; add it to the "
            "guide, or if it is data, pass it in model_args so that it is observed"
        )
    fixed = [n for n, s in q.sites.items() if is_data(s) or (n in p.first and is_computed(s))]
    if fixed:
        raise ValueError(
            f"the guide does not draw {', '.join(fixed)}, which it observes or computes, so that "
            "its density is not that of the model's latents; condition or reparameterize the "
            "model, not the guide"
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
