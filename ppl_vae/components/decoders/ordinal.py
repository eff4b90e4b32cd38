"""The likelihood of levels in order, whatever lies between them."""

from __future__ import annotations

__all__ = ["OrdinalDecoder"]

from collections.abc import Sequence

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from .codes import CodesDecoder
from .decoder import DECODERS

# A logistic of scale 0.55 has a standard deviation of one.
_LOGISTIC = 0.55
# Gaps between cuts stay within a factor of exp(8) of those at the start.
_FAR = 8.0


@DECODERS.register("ordinal")
class OrdinalDecoder(CodesDecoder):
    r"""One of ``levels`` levels in order an entry, by cumulative logits.

    .. math:: P(x_i \le k \mid z) = \sigma(t_{ik} - f_i(z))

    The cuts :math:`t_{i1} < t_{i2} < \ldots` are learned for each entry, and start where rounding
    a logistic variable of mean ``center`` and standard deviation ``spread`` has them.

    Source: McCullagh (1980), *Regression models for ordinal data*, equation 2.2.

    Parameters
    ----------
    levels
        The number of levels, whose codes are 0 to ``levels - 1``.

    Raises
    ------
    ValueError
        If ``levels`` is below 2.

    Examples
    --------
    >>> decoder = OrdinalDecoder(nn.Linear(2, 5), event_shape=(5,), levels=3)
    >>> decoder(torch.zeros(7, 2)).log_prob(torch.full((7, 5), 2.0)).shape
    torch.Size([7])
    """

    called = "levels in order"
    accepts = "levels in order: whole numbers of at least 0"

    def __init__(
        self,
        network: nn.Module,
        event_shape: Sequence[int],
        levels: int,
        *,
        center: float | Sequence[float] | Tensor = 0.0,
        spread: float | Sequence[float] | Tensor = 1.0,
    ) -> None:
        super().__init__(network, event_shape, levels, center=center, spread=spread)
        self.first = nn.Parameter(torch.zeros(self.event_shape))
        self.raw_gaps = nn.Parameter(torch.zeros(*self.event_shape, levels - 2))

    @property
    def cuts(self) -> Tensor:
        """The cuts between levels, rising, shape ``(*event, levels - 1)``."""
        gap = 1 / (_LOGISTIC * self.spread.clamp(min=1e-3))
        first = (0.5 - self.center) * gap + self.first
        gaps = gap[..., None] * self.raw_gaps.clamp(-_FAR, _FAR).exp()
        return torch.cat([first[..., None], first[..., None] + gaps.cumsum(-1)], -1)

    def likelihood(self, raw: Tensor) -> TorchDistributionMixin:
        away = self.cuts - raw.clamp(-1e4, 1e4)[..., None]  # (*batch, *event, level - 1)
        below, above = logsigmoid(away), logsigmoid(-away)
        # sigma(a) - sigma(b) = sigma(a) sigma(-b) (1 - exp(b - a))
        within = below[..., 1:] + above[..., :-1]
        within = within + (-torch.expm1(-self.cuts.diff(dim=-1))).log()
        return dist.Categorical(logits=torch.cat([below[..., :1], within, above[..., -1:]], -1))
