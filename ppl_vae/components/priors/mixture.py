"""A learned prior of several normals."""

from __future__ import annotations

__all__ = ["MixturePrior"]

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

from ..scales import Scale
from .prior import PRIORS, Prior


@PRIORS.register("mixture")
class MixturePrior(Prior):
    r"""A learned mixture of independent normals.

    .. math:: p(z) = \sum_k \pi_k \, \mathcal{N}(z \mid m_k, \operatorname{diag} s_k^2)

    The components start near the standard normal, at locations drawn from it.

    Source: Dilokthanakul et al. (2016), *Deep unsupervised clustering with Gaussian mixture
    variational autoencoders*, without the discrete latent.

    Parameters
    ----------
    latent_dim
        The number of latents.
    components
        The number of normals.

    Raises
    ------
    ValueError
        If ``components`` is below 1.

    Examples
    --------
    >>> MixturePrior(2, components=3)().log_prob(torch.zeros(7, 2)).shape
    torch.Size([7])
    """

    def __init__(self, latent_dim: int, components: int = 10) -> None:
        super().__init__(latent_dim)
        if components < 1:
            raise ValueError(f"components is {components}; pass at least 1")
        self.scale = Scale("log_scale")
        self.logits = nn.Parameter(torch.zeros(components))
        self.loc = nn.Parameter(torch.randn(components, latent_dim))
        self.raw_scale = nn.Parameter(torch.zeros(components, latent_dim))

    def forward(self, covariates: Tensor | None = None) -> TorchDistributionMixin:
        components = dist.Normal(self.loc, self.scale(self.raw_scale)).to_event(1)
        return dist.MixtureSameFamily(dist.Categorical(logits=self.logits), components)
