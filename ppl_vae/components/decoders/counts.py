"""Likelihoods of counts."""

from __future__ import annotations

__all__ = ["NegativeBinomialDecoder", "PoissonDecoder", "ZeroInflatedNegativeBinomialDecoder"]

from collections.abc import Sequence

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn
from torch.distributions import constraints

from ..scales import Scale
from .decoder import DECODERS, Decoder

# Whole numbers from here on are taken for amounts or codes.
_LARGEST_COUNT = 10_000


def no_counts(x: Tensor, feature_names: Sequence[str] | None = None) -> str | None:
    """Say in words which whole numbers are no counts, or None if all may be counts.

    Counts are below 10,000, and the smallest is at most half of their median. Each feature of
    one-dimensional rows is judged by itself, and all entries of images together.

    Examples
    --------
    >>> no_counts(torch.tensor([[3.0, 1987.0], [0.0, 2004.0], [9.0, 2010.0]]), ["eggs", "year"])
    "'year' is no count (whole numbers from 1987 to 2010)"
    >>> no_counts(torch.tensor([[3.0], [0.0], [9.0]])) is None
    True
    """
    columns = (x if x.dim() == 2 else x.reshape(-1, 1)).double()
    low, high = (
        columns.nan_to_num(nan=torch.inf).amin(0),
        columns.nan_to_num(nan=-torch.inf).amax(0),
    )
    wrong = ((low > columns.nanmedian(0).values / 2) | (high >= _LARGEST_COUNT)) & (low < high)
    found = wrong.nonzero().flatten().tolist()
    if not found:
        return None
    first = found[0]
    name = repr(feature_names[first]) if feature_names is not None else f"feature {first}"
    if x.dim() > 2:
        name = "x"
    return f"{name} is no count (whole numbers from {low[first]:.0f} to {high[first]:.0f})"


@DECODERS.register("negative_binomial")
class NegativeBinomialDecoder(Decoder):
    r"""Counts, more dispersed than Poisson's, with one dispersion for each entry.

    .. math:: \operatorname{E}[x_i \mid z] = m_i = c_i \exp(f_i(z)), \quad
        \operatorname{Var}[x_i \mid z] = m_i + m_i^2 / r_i

    where :math:`c_i` is ``center`` and the :math:`r_i` are learned.

    Source: Lopez et al. (2018), scVI, equation 3, without zero inflation.

    Examples
    --------
    >>> decoder = NegativeBinomialDecoder(nn.Linear(2, 5), event_shape=(5,), center=3.0)
    >>> decoder(torch.zeros(7, 2)).log_prob(torch.full((7, 5), 4.0)).shape
    torch.Size([7])
    """

    support = constraints.nonnegative_integer
    accepts = "counts: whole numbers of at least 0"

    @classmethod
    def unsuitable(cls, x: Tensor, feature_names: Sequence[str] | None = None) -> str | None:
        """Refuse years, codes and amounts: whole numbers that are large, or far from zero."""
        return no_counts(x, feature_names)

    def __init__(
        self,
        network: nn.Module,
        event_shape: Sequence[int],
        *,
        center: float | Sequence[float] = 1.0,
        spread: float | Sequence[float] = 1.0,
    ) -> None:
        super().__init__(network, event_shape, center=center, spread=spread)
        self.raw_dispersion = nn.Parameter(torch.zeros(self.event_shape))
        self.scale = Scale("log_scale")

    def likelihood(self, raw: Tensor) -> TorchDistributionMixin:
        dispersion = self.scale(self.raw_dispersion)
        # An entry that is zero in every row still has a positive mean.
        log_mean = raw.clamp(-15.0, 15.0) + self.center.clamp(min=1e-3).log()
        return dist.NegativeBinomial(dispersion, logits=log_mean - dispersion.log())


@DECODERS.register("poisson")
class PoissonDecoder(Decoder):
    r"""Counts whose variance is their mean, :math:`p(x_i \mid z) = \operatorname{Poisson}(c_i
    \exp f_i(z))`.

    Examples
    --------
    >>> decoder = PoissonDecoder(nn.Linear(2, 5), event_shape=(5,), center=3.0)
    >>> decoder(torch.zeros(7, 2)).log_prob(torch.full((7, 5), 4.0)).shape
    torch.Size([7])
    """

    support = constraints.nonnegative_integer
    accepts = "counts: whole numbers of at least 0"

    @classmethod
    def unsuitable(cls, x: Tensor, feature_names: Sequence[str] | None = None) -> str | None:
        """Prefer the negative binomial, of which this is a limit."""
        return ""

    def likelihood(self, raw: Tensor) -> TorchDistributionMixin:
        return dist.Poisson(self.center.clamp(min=1e-3) * raw.clamp(-15.0, 15.0).exp())


@DECODERS.register("zero_inflated_negative_binomial")
class ZeroInflatedNegativeBinomialDecoder(NegativeBinomialDecoder):
    r"""Counts that are zero more often than a negative binomial has it.

    .. math:: p(x_i \mid z) = \pi_i \, 1[x_i = 0]
        + (1 - \pi_i) \operatorname{NB}(x_i \mid c_i \exp f_{i1}(z), r_i), \quad
        \pi_i = \sigma(f_{i2}(z) - 2)

    Source: Lopez et al. (2018), scVI, equation 3.

    Examples
    --------
    >>> decoder = ZeroInflatedNegativeBinomialDecoder(nn.Linear(2, 10), event_shape=(5,))
    >>> decoder(torch.zeros(7, 2)).log_prob(torch.full((7, 5), 4.0)).shape
    torch.Size([7])
    """

    outputs = 2

    @classmethod
    def unsuitable(cls, x: Tensor, feature_names: Sequence[str] | None = None) -> str | None:
        """Prefer the plain negative binomial."""
        return ""

    def likelihood(self, raw: Tensor) -> TorchDistributionMixin:
        raw, gate = raw.unbind(-1)
        counts = super().likelihood(raw)
        return dist.ZeroInflatedNegativeBinomial(
            counts.total_count,
            logits=counts.logits,
            gate_logits=(gate - 2.0).clamp(-15.0, 15.0),
        )
