"""Posteriors over levels of latents, each drawn given those before it."""

from __future__ import annotations

__all__ = ["LadderEncoder"]

from collections.abc import Callable, Sequence
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

from ..chain import Chain, level_sizes
from ..networks.network import activation_of
from ..scales import Scale
from .encoder import ENCODERS, Encoder


@ENCODERS.register("ladder")
class LadderEncoder(Encoder):
    r"""Levels of latents, drawn from the top down or from the bottom up, given the row.

    .. math:: q(z \mid x) = \prod_l q(z_l \mid z_{<l}, x)

    where the levels are in the order in which they are drawn. Each is a layer of independent
    normals whose parameters a small network computes from the row's features and from the levels
    before. The vector of latents holds the levels from the top down, as the prior ``"ladder"`` has
    them.

    Source: Sønderby et al. (2016), *Ladder variational autoencoders*; Rezende et al. (2014) for
    levels from the bottom up.

    Parameters
    ----------
    network, latent_dim, center, spread, missing
        As in :class:`~ppl_vae.Encoder`; ``latent_dim`` counts the latents of all levels.
    levels
        How many levels ``latent_dim`` is divided among, or the number of latents of each, from the
        top down.
    direction
        ``"top_down"`` draws the top level first; ``"bottom_up"`` last.
    width
        Hidden units of each level's network.
    scale
        ``"log_variance"``, ``"log_scale"`` or ``"softplus"``.

    Raises
    ------
    ValueError
        If ``levels`` or ``direction`` is not accepted.

    Examples
    --------
    >>> q = LadderEncoder(nn.Linear(64, 32), latent_dim=5, levels=(2, 3))(torch.zeros(7, 64))
    >>> q.rsample().shape
    torch.Size([7, 5])
    """

    order: Tensor

    def __init__(
        self,
        network: nn.Module,
        latent_dim: int,
        levels: int | Sequence[int] = 2,
        direction: str = "top_down",
        width: int = 128,
        scale: str = "log_variance",
        *,
        center: float | Sequence[float] | Tensor = 0.0,
        spread: float | Sequence[float] | Tensor = 1.0,
        missing: bool = False,
    ) -> None:
        super().__init__(network, latent_dim, center=center, spread=spread, missing=missing)
        if direction not in ("top_down", "bottom_up"):
            raise ValueError(f"direction is {direction!r}; accepted are 'top_down', 'bottom_up'")
        sizes = level_sizes(levels, latent_dim)
        self.direction = direction
        # These are the sizes in the order in which the levels are drawn.
        self.sizes = sizes if direction == "top_down" else sizes[::-1]
        self.scale = Scale(scale)
        self.heads = nn.ModuleList()
        for i, size in enumerate(self.sizes):
            last = nn.Linear(width, 2 * size)
            last.weight.data[size:].zero_()
            last.bias.data[size:].fill_(self.scale.inverse(1.0))
            self.heads.append(
                nn.Sequential(
                    nn.Linear(self.width + sum(self.sizes[:i]), width), activation_of("silu"), last
                )
            )

        # The vector's levels are top down; this is where each latent stands in the order of draws.
        starts = [sum(self.sizes[:i]) for i in range(len(self.sizes))]
        drawn = [torch.arange(a, a + size) for a, size in zip(starts, self.sizes, strict=True)]
        self.register_buffer("order", torch.cat(drawn[::-1]), persistent=False)

    def posterior(self, features: Tensor) -> TorchDistributionMixin:
        chain = Chain(
            [self._level(head, features) for head in self.heads], self.sizes, features.shape[:-1]
        )
        if self.direction == "top_down":
            return chain
        return dist.TransformedDistribution(chain, [dist.transforms.Permute(self.order)])

    def _level(self, head: nn.Module, features: Tensor) -> Callable[..., Any]:
        def level(*earlier: Tensor) -> Any:
            read = features
            if earlier:
                above = torch.cat(earlier, -1)
                shape = torch.broadcast_shapes(above.shape[:-1], features.shape[:-1])
                read = torch.cat([features.expand(*shape, -1), above.expand(*shape, -1)], -1)
            loc, raw = head(read).chunk(2, -1)
            return dist.Normal(loc, self.scale(raw)).to_event(1)

        return level
