"""The likelihood of positive numbers."""

from __future__ import annotations

__all__ = ["LogNormalDecoder"]

import math
from collections.abc import Sequence
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn
from torch.distributions import constraints

from ..moments import log_moments
from ..scales import Scale
from .decoder import DECODERS, Decoder, observed_values, varying

# Numbers stay within so many standard deviations of the center, in logarithms.
_FAR = 15.0


@DECODERS.register("log_normal")
class LogNormalDecoder(Decoder):
    r"""Positive numbers, :math:`\log x_i \mid z \sim \mathcal{N}(m_i + d_i f_i(z), (d_i t_i)^2)`.

    :math:`m` and :math:`d` are the moments of the logarithm of a log-normal whose mean is
    ``center`` and whose standard deviation is ``spread``; scales :math:`t` are learned.

    Source: Nazabal et al. (2020), *Handling incomplete heterogeneous data using VAEs*, section 2.1.

    Examples
    --------
    >>> decoder = LogNormalDecoder(nn.Linear(2, 5), event_shape=(5,), center=3.0)
    >>> decoder(torch.zeros(7, 2)).log_prob(torch.ones(7, 5)).shape
    torch.Size([7])
    """

    support = constraints.positive
    accepts = "positive real numbers"

    def __init__(
        self,
        network: nn.Module,
        event_shape: Sequence[int],
        *,
        center: float | Sequence[float] | Tensor = 0.0,
        spread: float | Sequence[float] | Tensor = 1.0,
    ) -> None:
        super().__init__(network, event_shape, center=center, spread=spread)
        self.scale = Scale("log_scale")
        self.raw_scale = nn.Parameter(torch.zeros(self.event_shape))

    @classmethod
    def describes(
        cls, x: Tensor, feature_names: Sequence[str] | None = None
    ) -> dict[str, Any] | None:
        """The means and standard deviations of positive data, all of which have to vary."""
        if not (observed_values(x) > 0).all():
            return None
        return varying(x, feature_names, likelihood="log-normal")

    @classmethod
    def unsuitable(cls, x: Tensor, feature_names: Sequence[str] | None = None) -> str | None:
        """Leave the choice to the user, who knows whether numbers could be negative."""
        return ""

    def likelihood(self, raw: Tensor) -> TorchDistributionMixin:
        mean, sd = log_moments(self.center, self.spread)
        loc = mean + sd * raw.clamp(-_FAR, _FAR)
        return _LogNormal(loc, (sd * self.scale(self.raw_scale)).expand_as(loc))


class _LogNormal(dist.LogNormal):
    """A log-normal that has gradients where an entry is missing, in whose place stands a zero."""

    def log_prob(self, value: Tensor) -> Tensor:
        positive = value > 0
        log = torch.where(positive, value, 1.0).log()
        away = (log - self.loc) / self.scale
        density = -0.5 * away.square() - self.scale.log() - 0.5 * math.log(2 * math.pi) - log
        return torch.where(positive, density, -torch.inf)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> _LogNormal:
        shape = torch.Size(batch_shape)
        return _LogNormal(self.loc.expand(shape), self.scale.expand(shape))
