"""The likelihood of proportions."""

from __future__ import annotations

__all__ = ["BetaDecoder"]

from collections.abc import Sequence
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn
from torch.distributions import constraints

from .decoder import DECODERS, Decoder, observed_values, varying

# A density may be infinite at 0 and 1, which count as numbers so near to them.
_END = 1e-6
# Logits stay within so much of the center.
_FAR = 15.0


@DECODERS.register("beta")
class BetaDecoder(Decoder):
    r"""Proportions, :math:`x_i \mid z \sim \operatorname{Beta}(m_i n_i, (1 - m_i) n_i)`.

    .. math:: m_i = \sigma(\operatorname{logit} c_i + f_i(z)), \quad n_i = r_i \exp g_i

    where :math:`c` is ``center``, :math:`r` the precision that gives a standard deviation of
    ``spread``, and :math:`g` is learned for each entry. Exact zeros and ones count as
    :math:`10^{-6}` and :math:`1 - 10^{-6}`, as the density may be infinite there: where there are
    many, ``"continuous_bernoulli"`` or levels describe the data better.

    Source: Ferrari & Cribari-Neto (2004), *Beta regression*, equation 4.

    Examples
    --------
    >>> decoder = BetaDecoder(nn.Linear(2, 5), event_shape=(5,), center=0.3, spread=0.1)
    >>> decoder(torch.zeros(7, 2)).log_prob(torch.full((7, 5), 0.2)).shape
    torch.Size([7])
    """

    support = constraints.unit_interval
    accepts = "proportions in [0, 1]"

    def __init__(
        self,
        network: nn.Module,
        event_shape: Sequence[int],
        *,
        center: float | Sequence[float] | Tensor = 0.5,
        spread: float | Sequence[float] | Tensor = 0.3,
    ) -> None:
        super().__init__(network, event_shape, center=center, spread=spread)
        self.raw_precision = nn.Parameter(torch.zeros(self.event_shape))

    @classmethod
    def describes(
        cls, x: Tensor, feature_names: Sequence[str] | None = None
    ) -> dict[str, Any] | None:
        """The means and standard deviations of data in [0, 1], all of which have to vary."""
        if not cls.support.check(observed_values(x)).all():
            return None
        return varying(x, feature_names, likelihood="beta")

    @classmethod
    def unsuitable(cls, x: Tensor, feature_names: Sequence[str] | None = None) -> str | None:
        """Leave the choice to the user, who knows whether numbers are proportions."""
        return ""

    def likelihood(self, raw: Tensor) -> TorchDistributionMixin:
        center = self.center.clamp(1e-4, 1 - 1e-4)
        mean = (center.logit() + raw.clamp(-_FAR, _FAR)).sigmoid()
        mean = mean.clamp(_END, 1 - _END)
        # Var[x] = m (1 - m) / (1 + n)
        ratio = center * (1 - center) / self.spread.clamp(min=1e-4).square()
        precision = (ratio - 1).clamp(min=0.1) * self.raw_precision.clamp(-_FAR, _FAR).exp()
        return _Beta(mean * precision, (1 - mean) * precision)


class _Beta(dist.Beta):
    """A beta whose density is finite at the ends."""

    def log_prob(self, value: Tensor) -> Tensor:
        return super().log_prob(value.clamp(_END, 1 - _END))
