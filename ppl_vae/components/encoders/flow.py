"""Posteriors of any shape: normalizing flows of a normal, given features of the row."""

from __future__ import annotations

__all__ = ["FlowEncoder"]

from collections.abc import Sequence
from typing import Any

import pyro.distributions as dist
from torch import Tensor, nn

from ..flows import Transforms
from ..scales import Scale
from .encoder import ENCODERS, Encoder


@ENCODERS.register("flow")
class FlowEncoder(Encoder):
    r"""A normalizing flow of independent normals, both given the row.

    .. math:: z = T(u; h(x)), \quad u \sim \mathcal{N}(\mu(x), \operatorname{diag} \sigma^2(x))

    It starts as the encoder ``"normal"`` does.

    Source: Kingma et al. (2016), *Improving variational inference with inverse autoregressive
    flow*, algorithm 1.

    Parameters
    ----------
    network, latent_dim, center, spread, missing
        As in :class:`~ppl_vae.Encoder`.
    kind
        ``"inverse_autoregressive"`` draws in one pass, and needs as many as there are latents for
        the density of draws that are not its own. ``"coupling"`` needs one for both. See
        :class:`~ppl_vae.components.flows.Transforms`, and for the other options too.
    context
        The number of features of a row that the transforms are given.
    scale
        ``"log_variance"``, ``"log_scale"`` or ``"softplus"``, of the normals.

    Raises
    ------
    ValueError
        If an option is not accepted.

    Examples
    --------
    >>> import torch
    >>> q = FlowEncoder(nn.Linear(64, 32), latent_dim=2, hidden=(16,))(torch.zeros(7, 64))
    >>> q.rsample((5,)).shape
    torch.Size([5, 7, 2])
    """

    def __init__(
        self,
        network: nn.Module,
        latent_dim: int,
        kind: str = "coupling",
        univariate: str = "affine",
        transforms: int = 4,
        hidden: Sequence[int] = (128, 128),
        activation: str = "silu",
        bins: int = 8,
        context: int = 32,
        scale: str = "log_variance",
        *,
        center: float | Sequence[float] | Tensor = 0.0,
        spread: float | Sequence[float] | Tensor = 1.0,
        missing: bool = False,
    ) -> None:
        super().__init__(network, latent_dim, center=center, spread=spread, missing=missing)
        if not (isinstance(context, int) and context >= 1):
            raise ValueError(f"context is {context!r}; pass a whole number of at least 1")
        self.scale = Scale(scale)
        self.loc_head = nn.Linear(self.width, latent_dim)
        self.scale_head = nn.Linear(self.width, latent_dim)
        nn.init.zeros_(self.scale_head.weight)
        nn.init.constant_(self.scale_head.bias, self.scale.inverse(1.0))
        self.context_head = nn.Linear(self.width, context)
        self.flow = Transforms(
            latent_dim,
            context=context,
            kind=kind,
            univariate=univariate,
            transforms=transforms,
            hidden=hidden,
            activation=activation,
            bins=bins,
        )

    def posterior(self, features: Tensor) -> Any:
        base = dist.Normal(self.loc_head(features), self.scale(self.scale_head(features)))
        return self.flow(base.to_event(1), self.context_head(features))
