"""The likelihood of categories."""

from __future__ import annotations

__all__ = ["CategoricalDecoder"]

import pyro.distributions as dist
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor

from .codes import CodesDecoder
from .decoder import DECODERS


@DECODERS.register("categorical")
class CategoricalDecoder(CodesDecoder):
    r"""One of ``levels`` categories an entry, :math:`p(x_i = k \mid z) \propto \exp f_{ik}(z)`.

    Parameters
    ----------
    levels
        The number of categories, 0 to ``levels - 1``.

    Raises
    ------
    ValueError
        If ``levels`` is below 2.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> decoder = CategoricalDecoder(nn.Linear(2, 15), event_shape=(5,), levels=3)
    >>> decoder(torch.zeros(7, 2)).log_prob(torch.full((7, 5), 2.0)).shape
    torch.Size([7])
    """

    called = "categories"
    accepts = "categories: whole numbers of at least 0"

    @property
    def outputs(self) -> int:  # type: ignore[override]
        """A real number for each category."""
        return self.levels

    def likelihood(self, raw: Tensor) -> TorchDistributionMixin:
        return dist.Categorical(logits=raw)
