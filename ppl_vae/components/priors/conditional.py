"""A prior that covariates move."""

from __future__ import annotations

__all__ = ["ConditionalPrior"]

from collections.abc import Sequence

import pyro.distributions as dist
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

from ..networks.mlp import MLP
from ..networks.network import checked_sizes
from ..scales import Scale
from .prior import PRIORS, Prior


@PRIORS.register("conditional")
class ConditionalPrior(Prior):
    r"""Independent normals whose locations and scales a network computes from covariates c.

    .. math:: p(z \mid c) = \mathcal{N}\bigl(z \mid m(c), \operatorname{diag} s^2(c)\bigr)

    It starts as the standard normal for every row.

    Source: Sohn et al. (2015), *Learning structured output representation using deep conditional
    generative models*, equation 4.

    Parameters
    ----------
    latent_dim
        The number of latents.
    covariate_dim
        The number of covariates, at least 1.
    hidden
        Hidden widths of the network.
    activation
        A name in ``ACTIVATIONS``.

    Raises
    ------
    ValueError
        If there are no covariates.

    Examples
    --------
    >>> import torch
    >>> ConditionalPrior(2, covariate_dim=3)(torch.zeros(7, 3)).batch_shape
    torch.Size([7])
    """

    def __init__(
        self,
        latent_dim: int,
        covariate_dim: int,
        hidden: Sequence[int] = (64,),
        activation: str = "silu",
    ) -> None:
        super().__init__(latent_dim)
        if covariate_dim < 1:
            raise ValueError(
                "prior 'conditional' needs covariates, and covariate_dim is 0; pass "
                "covariate_dim=..., or choose another prior"
            )
        self.network = MLP(
            (covariate_dim,), checked_sizes(hidden) or (), (2 * latent_dim,), activation=activation
        )
        last = self.network.layers[-1]
        self.scale = Scale("log_scale")
        for parameter in last.parameters():
            nn.init.zeros_(parameter)

    def forward(self, covariates: Tensor | None = None) -> TorchDistributionMixin:
        """p(z | covariates), of batch shape ``(row,)``.

        Raises
        ------
        ValueError
            If there are no covariates.
        """
        if covariates is None:
            raise ValueError("prior 'conditional' needs covariates, and none were given; pass them")
        loc, raw = self.network(covariates).chunk(2, -1)
        return dist.Normal(loc, self.scale(raw)).to_event(1)
