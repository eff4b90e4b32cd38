"""Normals over the latents of each row, with parameters that can be moved."""

from __future__ import annotations

__all__ = ["Gaussian"]

from dataclasses import dataclass

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor


@dataclass(frozen=True)
class Gaussian:
    """A normal over the latents of each row.

    ``loc`` is ``(row, latent)``; ``scale`` holds standard deviations, ``(row, latent)``, or lower
    triangular factors of covariances, ``(row, latent, latent)``.
    """

    loc: Tensor
    scale: Tensor

    @property
    def distribution(self) -> TorchDistributionMixin:
        """With batch shape ``(row,)`` and event shape ``(latent,)``."""
        if self.scale.dim() == 3:
            return dist.MultivariateNormal(self.loc, scale_tril=self.scale)
        return dist.Normal(self.loc, self.scale).to_event(1)

    def noise(self, *shape: int) -> Tensor:
        """Standard normal noise for :meth:`at`, shape ``(*shape, row, latent)``."""
        like = self.loc
        return torch.randn(*shape, *like.shape, dtype=like.dtype, device=like.device)

    def at(self, noise: Tensor) -> Tensor:
        """Latents of the shape of ``noise``, ``(*shape, row, latent)``."""
        if self.scale.dim() == 3:
            return self.loc + torch.einsum("rij,...rj->...ri", self.scale, noise)
        return self.loc + self.scale * noise

    def noise_of(self, latents: Tensor) -> Tensor:
        """The noise of which :meth:`at` makes ``latents``, ``(*shape, row, latent)``."""
        away = latents - self.loc
        if self.scale.dim() == 3:
            return torch.linalg.solve_triangular(self.scale, away[..., None], upper=False)[..., 0]
        return away / self.scale

    def dense(self) -> Gaussian:
        """The same distribution with a scale of shape ``(row, latent, latent)``."""
        return self if self.scale.dim() == 3 else Gaussian(self.loc, self.scale.diag_embed())

    def detach(self) -> Gaussian:
        """The same numbers, without their history."""
        return Gaussian(self.loc.detach(), self.scale.detach())

    def moved(self, shift: Tensor, stretch: Tensor) -> Gaussian:
        """Shifted in units of the scale, and stretched by the exponential of ``stretch``.

        ``stretch`` has the shape of ``scale``. Below its diagonal, where it has one, it is not
        exponentiated, and above it is not looked at.
        """
        if self.scale.dim() == 2:
            return Gaussian(self.at(shift), self.scale * stretch.exp())
        inner = stretch.tril(-1) + stretch.diagonal(dim1=-2, dim2=-1).exp().diag_embed()
        return Gaussian(self.at(shift), self.scale @ inner)

    def where(self, condition: Tensor, other: Gaussian) -> Gaussian:
        """The same in the rows where ``condition`` (row) holds, and ``other`` elsewhere."""
        in_scale = condition.reshape(-1, *[1] * (self.scale.dim() - 1))
        return Gaussian(
            torch.where(condition[:, None], self.loc, other.loc),
            torch.where(in_scale, self.scale, other.scale),
        )
