"""Likelihoods of zeros and ones, and of intensities between."""

from __future__ import annotations

__all__ = ["BernoulliDecoder", "ContinuousBernoulliDecoder"]

from collections.abc import Sequence
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor
from torch.distributions import constraints

from .decoder import DECODERS, Decoder, observed_values


@DECODERS.register("bernoulli")
class BernoulliDecoder(Decoder):
    r"""Zeros and ones.

    .. math:: p(x_i \mid z) = \operatorname{Bernoulli}(\sigma(f_i(z) + \operatorname{logit} c_i))

    A network that returns zero gives the probabilities ``center``, :math:`c`. With a center of
    zero, the default, the logit is left out.

    Source: Kingma & Welling (2014), appendix C.1.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> decoder = BernoulliDecoder(nn.Linear(2, 64), event_shape=(8, 8))
    >>> decoder(torch.zeros(7, 2)).log_prob(torch.ones(7, 8, 8)).shape
    torch.Size([7])
    """

    support = constraints.boolean
    accepts = "only 0 and 1"

    @classmethod
    def describes(
        cls, x: Tensor, feature_names: Sequence[str] | None = None
    ) -> dict[str, Any] | None:
        """Return no options: the logits of such data are near zero."""
        return {} if cls.support.check(observed_values(x)).all() else None

    def likelihood(self, raw: Tensor) -> TorchDistributionMixin:
        start = self.center.logit(1e-3)
        if not self.center.dim():  # a single zero for all entries changes nothing
            start = torch.where(self.center == 0, torch.zeros_like(start), start)
        return dist.Bernoulli(logits=raw + start)


@DECODERS.register("continuous_bernoulli")
class ContinuousBernoulliDecoder(Decoder):
    r"""Intensities in [0, 1].

    .. math:: p(x_i \mid z) \propto \lambda_i^{x_i} (1 - \lambda_i)^{1 - x_i}, \quad
        \lambda_i = \sigma(f_i(z))

    A Bernoulli "likelihood" of such values is no density; this one is normalized.
    Logits are kept within 15 of zero, where the normalizer is exact in single precision.

    Source: Loaiza-Ganem & Cunningham (2019), equations 6 to 9.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> decoder = ContinuousBernoulliDecoder(nn.Linear(2, 64), event_shape=(8, 8))
    >>> decoder(torch.zeros(7, 2)).log_prob(torch.full((7, 8, 8), 0.5)).shape
    torch.Size([7])
    """

    support = constraints.unit_interval
    accepts = "values in [0, 1]"

    @classmethod
    def describes(
        cls, x: Tensor, feature_names: Sequence[str] | None = None
    ) -> dict[str, Any] | None:
        """Return no options: the likelihood is on the data's own scale."""
        return {} if cls.support.check(observed_values(x)).all() else None

    def likelihood(self, raw: Tensor) -> TorchDistributionMixin:
        return dist.ContinuousBernoulli(logits=raw.clamp(-15.0, 15.0))
