"""The likelihood of real numbers."""

from __future__ import annotations

__all__ = ["NormalDecoder"]

import math
from collections.abc import Sequence
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn
from torch.distributions import constraints

from ..scales import Scale
from .decoder import DECODERS, Decoder, varying


@DECODERS.register("normal")
class NormalDecoder(Decoder):
    r"""Real numbers, :math:`p(x_i \mid z) = \mathcal{N}(x_i \mid c_i + s_i f_i(z), (s_i t_i)^2)`.

    With ``center`` :math:`c` and ``spread`` :math:`s`; :math:`t` is fixed, or learned and then
    kept between :math:`10^{-6}` and :math:`10^6`. With a linear network and ``"shared"`` this is
    probabilistic PCA (Tipping & Bishop, 1999), with ``"feature"`` factor analysis.

    Parameters
    ----------
    scale
        ``"feature"``: a scale learned for each entry. ``"shared"``: one learned for all. A
        positive number: fixed.

    Raises
    ------
    ValueError
        If ``scale`` is none of these.

    Examples
    --------
    >>> decoder = NormalDecoder(nn.Linear(2, 5), event_shape=(5,), scale="shared")
    >>> decoder(torch.zeros(7, 2)).log_prob(torch.zeros(7, 5)).shape
    torch.Size([7])
    """

    support = constraints.real
    accepts = "finite real numbers"

    @classmethod
    def describes(
        cls, x: Tensor, feature_names: Sequence[str] | None = None
    ) -> dict[str, Any] | None:
        """The means and standard deviations of the data, all of which have to vary."""
        return varying(x, feature_names, likelihood="normal")

    def __init__(
        self,
        network: nn.Module,
        event_shape: Sequence[int],
        scale: float | str = "feature",
        *,
        center: float | Sequence[float] = 0.0,
        spread: float | Sequence[float] = 1.0,
    ) -> None:
        super().__init__(network, event_shape, center=center, spread=spread)
        self.scale = Scale("log_scale")
        if scale == "feature":
            self.raw_scale = nn.Parameter(torch.zeros(self.event_shape))
        elif scale == "shared":
            self.raw_scale = nn.Parameter(torch.zeros(()))
        elif isinstance(scale, int | float) and 0 < scale < float("inf"):
            self.register_buffer("raw_scale", torch.tensor(self.scale.inverse(scale)))
        else:
            raise ValueError(
                f"the decoder's scale is {scale!r}; accepted are 'feature', 'shared' or a "
                "positive number"
            )

    def likelihood(self, raw: Tensor) -> TorchDistributionMixin:
        loc = self.center + self.spread * raw
        return _Normal(loc, self.spread * self.scale(self.raw_scale))


class _Normal(dist.Normal):
    """A normal whose density never squares its scale, which in units of 1e-26 would leave zero."""

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        standard = (value - self.loc) / self.scale
        return -0.5 * standard.square() - self.scale.log() - 0.5 * math.log(2 * math.pi)
