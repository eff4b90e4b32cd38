"""The likelihood of real numbers with heavy tails."""

from __future__ import annotations

__all__ = ["StudentTDecoder"]

from collections.abc import Sequence
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn
from torch.distributions import constraints

from ..scales import Scale
from .decoder import DECODERS, Decoder, varying

# Degrees of freedom at the start are one more than this.
_AT_FIRST = 4.0


@DECODERS.register("student_t")
class StudentTDecoder(Decoder):
    r"""Real numbers with outliers, :math:`(x_i - c_i - s_i f_i(z)) / (s_i t_i) \sim t_{\nu_i}`.

    With ``center`` :math:`c` and ``spread`` :math:`s`. The scales :math:`t` and degrees of freedom
    :math:`\nu`, above 1 so that there is a mean, are learned for each entry.

    Source: Lange, Little & Taylor (1989), *Robust statistical modeling using the t distribution*.

    Parameters
    ----------
    df
        Degrees of freedom above 1, to fix them; None learns them, from 5.

    Raises
    ------
    ValueError
        If ``df`` is not above 1.

    Examples
    --------
    >>> decoder = StudentTDecoder(nn.Linear(2, 5), event_shape=(5,))
    >>> decoder(torch.zeros(7, 2)).log_prob(torch.zeros(7, 5)).shape
    torch.Size([7])
    """

    support = constraints.real
    accepts = "finite real numbers"

    def __init__(
        self,
        network: nn.Module,
        event_shape: Sequence[int],
        df: float | None = None,
        *,
        center: float | Sequence[float] | Tensor = 0.0,
        spread: float | Sequence[float] | Tensor = 1.0,
    ) -> None:
        super().__init__(network, event_shape, center=center, spread=spread)
        if df is not None and not (isinstance(df, int | float) and 1 < df < float("inf")):
            raise ValueError(
                f"df is {df!r}; pass degrees of freedom above 1, or None to learn them"
            )
        self.scale = Scale("log_scale")
        self.raw_scale = nn.Parameter(torch.zeros(self.event_shape))
        self.df = df
        if df is None:
            self.raw_df = nn.Parameter(torch.zeros(self.event_shape))

    @classmethod
    def describes(
        cls, x: Tensor, feature_names: Sequence[str] | None = None
    ) -> dict[str, Any] | None:
        """The means and standard deviations of the data, all of which have to vary."""
        return varying(x, feature_names, likelihood="Student t")

    @classmethod
    def unsuitable(cls, x: Tensor, feature_names: Sequence[str] | None = None) -> str | None:
        """Prefer the normal, of which this is the robust kind."""
        return ""

    def likelihood(self, raw: Tensor) -> TorchDistributionMixin:
        if self.df is None:
            df = 1 + _AT_FIRST * self.raw_df.clamp(-8.0, 8.0).exp()
        else:
            df = torch.full_like(self.raw_scale, self.df)
        loc = self.center + self.spread * raw
        df, scale = df.expand_as(loc), (self.spread * self.scale(self.raw_scale)).expand_as(loc)
        return dist.StudentT(df, loc, scale)
