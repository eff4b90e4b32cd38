"""A learned prior over levels of latents."""

from __future__ import annotations

__all__ = ["LadderPrior"]

from collections.abc import Callable, Sequence
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ..chain import Chain, level_sizes
from ..networks.network import activation_of
from ..scales import Scale
from .prior import PRIORS, Prior


@PRIORS.register("ladder")
class LadderPrior(Prior):
    r"""Levels of latents from the top down, the highest a standard normal.

    .. math:: p(z) = \mathcal{N}(z_L \mid 0, I) \prod_{l < L}
        \mathcal{N}\bigl(z_l \mid m_l(z_{>l}), \operatorname{diag} s_l^2(z_{>l})\bigr)

    It starts as the standard normal.

    Source: Sønderby et al. (2016), *Ladder variational autoencoders*, equations 2 to 4.

    Parameters
    ----------
    latent_dim
        The number of latents of all levels.
    levels
        How many levels they are divided among, or the number of latents of each, from the top down.
    width
        Hidden units of each level's network.

    Raises
    ------
    ValueError
        If ``levels`` is not accepted.

    Examples
    --------
    >>> LadderPrior(5, levels=(2, 3))().log_prob(torch.zeros(7, 5)).shape
    torch.Size([7])
    """

    zero: Tensor

    def __init__(self, latent_dim: int, levels: int | Sequence[int] = 2, width: int = 128) -> None:
        super().__init__(latent_dim)
        self.sizes = level_sizes(levels, latent_dim)
        self.scale = Scale("log_scale")
        self.register_buffer("zero", torch.zeros(self.sizes[0]), persistent=False)
        self.networks = nn.ModuleList()
        for i, size in enumerate(self.sizes[1:], start=1):
            last = nn.Linear(width, 2 * size)
            for parameter in last.parameters():
                nn.init.zeros_(parameter)
            self.networks.append(
                nn.Sequential(nn.Linear(sum(self.sizes[:i]), width), activation_of("silu"), last)
            )

    def forward(self, covariates: Tensor | None = None) -> Chain:
        """p(z), of batch shape ``()``."""
        top = dist.Normal(self.zero, torch.ones_like(self.zero)).to_event(1)
        return Chain([lambda: top, *map(self._level, self.networks)], self.sizes)

    def _level(self, network: nn.Module) -> Callable[..., Any]:
        def level(*above: Tensor) -> Any:
            loc, raw = network(torch.cat(above, -1)).chunk(2, -1)
            return dist.Normal(loc, self.scale(raw)).to_event(1)

        return level
