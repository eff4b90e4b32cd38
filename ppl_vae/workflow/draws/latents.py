r"""Coordinates in which q(z|x) is normal: for any distribution, exactly or by moments."""

from __future__ import annotations

__all__ = [
    "EXACT",
    "MOMENTS",
    "NO_INVERSE",
    "Coordinates",
    "coordinates",
    "density",
    "draw",
    "moments",
]

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributions as td
from torch import Tensor

from ...distributions import batch_shape, density, draw, drawn_moments, inside, moments
from .gaussian import Gaussian

EXACT = "exact coordinates of the encoder"
MOMENTS = "a normal with the draws' moments"
# What transforms raise that cannot be inverted: torch's and zuko's, Pyro's planar flow, and Pyro's
# autoregressive ones in double precision.
NO_INVERSE = (NotImplementedError, KeyError, RuntimeError)
# A latent that does not vary among draws gets this width: a normal needs some.
_LEAST_SPREAD = 1e-3


class _Map(abc.ABC):
    """How coordinates become latents, one to one, for all draws and rows at once."""

    @abc.abstractmethod
    def __call__(self, u: Tensor) -> tuple[Tensor, Tensor | float]:
        """Latents of ``u`` (*draw, row, latent), and their log volume per u, ``(*draw, row)``."""

    @abc.abstractmethod
    def back(self, z: Tensor) -> Tensor:
        """The coordinates of latents."""


@dataclass(frozen=True)
class Coordinates:
    r"""A normal over u, and how u becomes latents: :math:`z = T(u)`.

    Attributes
    ----------
    normal
        Over u of each row. Where it is exact, q(z|x) is the distribution of T(u).
    exact
        Whether it is, or the normal only has the moments of draws from q(z|x).
    """

    normal: Gaussian
    exact: bool
    map: _Map

    @property
    def family(self) -> str:
        """What a normal over u is, in words."""
        return EXACT if self.exact else MOMENTS

    @property
    def identical(self) -> bool:
        """Whether u is the latents themselves."""
        return isinstance(self.map, _Same)


def coordinates(q: Any, rows: int) -> Coordinates:
    """Coordinates of ``q``, a distribution over the latents of ``rows`` rows.

    They are exact for normals, diagonal, of low rank or with a full covariance, for what invertible
    transforms make of these, such as a normalizing flow of Pyro, torch or zuko, and for chains of
    any of these: distributions with ``links``, of which ``links[i](*blocks)`` is that of the next
    block of latents, and ``sizes``, those of the blocks. Of anything else the normal has the
    moments of draws, in coordinates without bounds.

    Raises
    ------
    ValueError
        If the latents are discrete.

    Examples
    --------
    >>> q = td.Independent(td.LogNormal(torch.zeros(3, 2), 1.0), 1)
    >>> found = coordinates(q, 3)
    >>> z, log_det = found.map(torch.ones(1, 3, 2))
    >>> found.family, z[0, 0, 0].item(), log_det[0, 0].item()
    ('exact coordinates of the encoder', 2.718..., 2.0)
    >>> coordinates(td.Independent(td.Laplace(torch.zeros(3, 2), 1.0), 1), 3).family
    "a normal with the draws' moments"
    """
    support = _support(q)
    if getattr(support, "is_discrete", False):
        raise ValueError(
            f"q(z|x) is a {type(q).__name__} over discrete latents, which have no density to climb "
            "or gradient to follow; refine such rows by enumerating their latents"
        )
    found = _exact(q)
    exact = found is not None
    normal, mapped = found if found is not None else _by_moments(q, support)
    size = normal.loc.shape[-1]
    scale = (size, size) if _is_dense(normal) else (size,)
    normal = Gaussian(normal.loc.expand(rows, size), normal.scale.expand(rows, *scale))
    return Coordinates(normal, exact, mapped)


class _Same(_Map):
    def __call__(self, u: Tensor) -> tuple[Tensor, Tensor | float]:
        return u, 0.0

    def back(self, z: Tensor) -> Tensor:
        return z


class _Transformed(_Map):
    """What transforms make of latents that another map made."""

    def __init__(self, inner: _Map, transforms: Sequence[Any]) -> None:
        self.inner = inner
        self.transforms = transforms

    def __call__(self, u: Tensor) -> tuple[Tensor, Tensor | float]:
        z, log_det = self.inner(u)
        for transform in self.transforms:
            y = transform(z)
            each = transform.log_abs_det_jacobian(z, y)
            # A transform of single latents returns it by latent, others by draw and row.
            log_det = log_det + (each.sum(-1) if each.dim() == u.dim() else each)
            z = y
        return z, log_det

    def back(self, z: Tensor) -> Tensor:
        for transform in reversed(self.transforms):
            z = transform.inv(z)
        return self.inner.back(z)


class _Linked(_Map):
    """Blocks made one after the other of standard noise, each given those before it."""

    def __init__(self, chain: Any) -> None:
        self.chain = chain

    def __call__(self, u: Tensor) -> tuple[Tensor, Tensor | float]:
        blocks: list[Tensor] = []
        log_det: Tensor | float = 0.0
        for link, noise in zip(self.chain.links, u.split(list(self.chain.sizes), -1), strict=True):
            normal, mapped = _exact(link(*blocks))  # type: ignore[misc]
            inner, log_stretch = _stretched(normal, noise)
            block, log_volume = mapped(inner)
            blocks.append(block)
            log_det = log_det + log_stretch + log_volume
        return torch.cat(blocks, -1), log_det

    def back(self, z: Tensor) -> Tensor:
        blocks = z.split(list(self.chain.sizes), -1)
        noise = []
        for i, link in enumerate(self.chain.links):
            normal, mapped = _exact(link(*blocks[:i]))  # type: ignore[misc]
            noise.append(_unstretched(normal, mapped.back(blocks[i])))
        return torch.cat(noise, -1)


def _is_dense(normal: Gaussian) -> bool:
    return normal.scale.dim() > normal.loc.dim()


def _stretched(normal: Gaussian, noise: Tensor) -> tuple[Tensor, Tensor]:
    """The normal's latents of noise, and the log of what it stretches volumes by."""
    if _is_dense(normal):
        stretch = normal.scale.diagonal(dim1=-2, dim2=-1)
        return normal.loc + (normal.scale @ noise[..., None])[..., 0], stretch.log().sum(-1)
    return normal.loc + normal.scale * noise, normal.scale.log().sum(-1)


def _unstretched(normal: Gaussian, latents: Tensor) -> Tensor:
    away = latents - normal.loc
    if _is_dense(normal):
        return torch.linalg.solve_triangular(normal.scale, away[..., None], upper=False)[..., 0]
    return away / normal.scale


def _exact(q: Any) -> tuple[Gaussian, _Map] | None:
    """The normal that ``q`` is made of, and how; None where it is made of something else."""
    if isinstance(q, td.Normal):
        return Gaussian(*torch.broadcast_tensors(q.loc, q.scale)), _Same()
    if isinstance(q, (td.MultivariateNormal, td.LowRankMultivariateNormal)):
        return Gaussian(q.loc, q.scale_tril), _Same()
    if hasattr(q, "links") and hasattr(q, "sizes"):
        return _chained(q)
    found = inside(q)
    if found is None:
        return None
    base, transforms = found
    return _after(base, transforms) if transforms else _exact(base)


def _after(base: Any, transforms: Sequence[Any]) -> tuple[Gaussian, _Map] | None:
    found = _exact(base)
    if found is None or not all(transform.bijective for transform in transforms):
        return None
    return found[0], _Transformed(found[1], transforms)


def _chained(chain: Any) -> tuple[Gaussian, _Map] | None:
    blocks: list[Tensor] = []
    for link, size in zip(chain.links, chain.sizes, strict=True):
        found = _exact(link(*blocks))
        if found is None or found[0].loc.shape[-1] != size:
            return None
        normal, mapped = found
        blocks.append(mapped(normal.loc)[0])
    batch = torch.broadcast_shapes(batch_shape(chain), *[block.shape[:-1] for block in blocks])
    noise = blocks[0].new_zeros(*batch, sum(chain.sizes))
    return Gaussian(noise, torch.ones_like(noise)), _Linked(chain)


def _support(q: Any) -> Any:
    try:
        return getattr(q, "support", None)
    except NotImplementedError:
        return None


def _by_moments(q: Any, support: Any) -> tuple[Gaussian, _Map]:
    """A normal with the moments of draws, in coordinates in which the latents have no bounds."""
    mapped: _Map = _Same()
    # For a mixture this is the support of its components.
    for bounds in (support, getattr(support, "base_constraint", None)):
        if bounds is not None:
            try:
                mapped = _Transformed(mapped, [td.biject_to(bounds)])
                break
            except NotImplementedError:
                continue
    mean, sd = drawn_moments(q, mapped.back)
    floor = _LEAST_SPREAD * (1 + mean.abs())
    return Gaussian(mean, torch.where(sd > 0, sd, floor)), mapped
