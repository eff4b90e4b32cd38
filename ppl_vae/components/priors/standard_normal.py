"""The prior that most VAEs have."""

from __future__ import annotations

__all__ = ["StandardNormal"]

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor

from .prior import PRIORS, Prior


@PRIORS.register("standard_normal")
class StandardNormal(Prior):
    r"""The standard normal prior, :math:`p(z) = \mathcal{N}(z \mid 0, I)`.

    Source: Kingma & Welling (2014), section 3.

    Parameters
    ----------
    latent_dim
        The number of latents.

    Examples
    --------
    >>> StandardNormal(2)().event_shape
    torch.Size([2])
    """

    loc: Tensor
    scale: Tensor

    def __init__(self, latent_dim: int) -> None:
        super().__init__(latent_dim)
        # Buffers, so that draws follow the module's device and dtype; there is nothing to save.
        self.register_buffer("loc", torch.zeros(latent_dim), persistent=False)
        self.register_buffer("scale", torch.ones(latent_dim), persistent=False)

    def forward(self, covariates: Tensor | None = None) -> TorchDistributionMixin:
        """p(z), with event shape ``(latent,)``; the covariates make no difference to it."""
        return dist.Normal(self.loc, self.scale).to_event(1)
