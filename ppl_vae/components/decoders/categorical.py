"""The likelihood of categories."""

from __future__ import annotations

__all__ = ["CategoricalDecoder"]

from collections.abc import Sequence
from typing import Any

import pyro.distributions as dist
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn
from torch.distributions import constraints

from .decoder import DECODERS, Decoder, located, observed_values


@DECODERS.register("categorical")
class CategoricalDecoder(Decoder):
    r"""One of ``levels`` categories an entry, :math:`p(x_i = k \mid z) \propto \exp f_{ik}(z)`.

    Parameters
    ----------
    levels
        The number of categories, 0 to ``levels - 1``.

    Examples
    --------
    >>> import torch
    >>> decoder = CategoricalDecoder(nn.Linear(2, 15), event_shape=(5,), levels=3)
    >>> decoder(torch.zeros(7, 2)).log_prob(torch.full((7, 5), 2.0)).shape
    torch.Size([7])
    """

    support = constraints.nonnegative_integer
    accepts = "categories: whole numbers of at least 0"

    def __init__(
        self,
        network: nn.Module,
        event_shape: Sequence[int],
        levels: int,
        *,
        center: float | Sequence[float] | Tensor = 0.0,
        spread: float | Sequence[float] | Tensor = 1.0,
    ) -> None:
        super().__init__(network, event_shape, center=center, spread=spread)
        if not (isinstance(levels, int) and levels > 1):
            raise ValueError(f"levels is {levels!r}; pass the number of categories, at least 2")
        self.outputs = levels
        self.support = constraints.integer_interval(0, levels - 1)  # type: ignore[misc,assignment]
        self.accepts = f"categories from 0 to {levels - 1}"  # type: ignore[misc]

    @classmethod
    def describes(
        cls, x: Tensor, feature_names: Sequence[str] | None = None
    ) -> dict[str, Any] | None:
        """Return the number of levels, if all values are whole numbers of at most 255."""
        values = observed_values(x)
        if not (cls.support.check(values).all() and values.max() <= 255):
            return None
        return {"levels": int(values.max()) + 1, **located(x)}

    @classmethod
    def unsuitable(cls, x: Tensor, feature_names: Sequence[str] | None = None) -> str | None:
        """Leave the choice to the user, who alone knows whether numbers name categories."""
        return ""

    def likelihood(self, raw: Tensor) -> TorchDistributionMixin:
        return dist.Categorical(logits=raw)
