"""A learned prior of any shape: a normalizing flow of the standard normal."""

from __future__ import annotations

__all__ = ["FlowPrior"]

from collections.abc import Sequence
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from ..flows import Transforms
from .prior import PRIORS, Prior


@PRIORS.register("flow")
class FlowPrior(Prior):
    r"""A normalizing flow of the standard normal, perhaps given covariates.

    .. math:: z = T(u), \quad u \sim \mathcal{N}(0, I)

    It starts as the standard normal. Source: Chen et al. (2017), *Variational lossy autoencoder*,
    section 3.2; Xu et al. (2019), *On the necessity and effectiveness of learning the prior of
    variational auto-encoder*, for coupling flows.

    Parameters
    ----------
    latent_dim
        The number of latents.
    covariate_dim
        The number of covariates that the flow is given; then p(z | covariates) is learned.
    kind, univariate, transforms, hidden, activation, bins
        As in :class:`~ppl_vae.components.flows.Transforms`.

    Raises
    ------
    ValueError
        If an option is not accepted.

    Examples
    --------
    >>> prior = FlowPrior(2, transforms=3, hidden=(16,))
    >>> prior().log_prob(torch.zeros(7, 2)).shape
    torch.Size([7])
    """

    zero: Tensor

    def __init__(
        self,
        latent_dim: int,
        covariate_dim: int = 0,
        kind: str = "coupling",
        univariate: str = "affine",
        transforms: int = 4,
        hidden: Sequence[int] = (128, 128),
        activation: str = "silu",
        bins: int = 8,
    ) -> None:
        super().__init__(latent_dim)
        self.conditional = covariate_dim > 0
        self.flow = Transforms(
            latent_dim,
            context=covariate_dim,
            kind=kind,
            univariate=univariate,
            transforms=transforms,
            hidden=hidden,
            activation=activation,
            bins=bins,
        )
        self.register_buffer("zero", torch.zeros(latent_dim), persistent=False)

    def forward(self, covariates: Tensor | None = None) -> Any:
        """p(z), with batch shape ``()``, or ``(row,)`` given covariates."""
        given = covariates if self.conditional else None
        base = dist.Normal(self.zero, torch.ones_like(self.zero)).to_event(1)
        return self.flow(base if given is None else base.expand(given.shape[:-1]), given)
