"""What a prior must say: p(z), perhaps given covariates."""

from __future__ import annotations

__all__ = ["PRIORS", "Prior"]

import abc

from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

from ..registry import Registry


class Prior(nn.Module, abc.ABC):
    """What is believed of the latents before any data.

    Parameters
    ----------
    latent_dim
        The number of latents.

    Examples
    --------
    >>> import pyro.distributions as dist
    >>> class Laplace(Prior):
    ...     def forward(self, covariates=None):
    ...         return dist.Laplace(0.0, 1.0).expand([self.latent_dim]).to_event(1)
    >>> Laplace(3)().sample((5,)).shape
    torch.Size([5, 3])
    """

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim

    @abc.abstractmethod
    def forward(self, covariates: Tensor | None = None) -> TorchDistributionMixin:
        """p(z), of batch shape ``()`` and event shape ``(latent,)``.

        A prior that depends on covariates, ``(row, covariate)``, has batch shape ``(row,)``.
        """


# A prior may take the encoder, as a VampPrior does, and the number of covariates.
PRIORS: Registry[Prior] = Registry(
    "prior", given=("latent_dim", "encoder", "event_shape", "covariate_dim")
)
