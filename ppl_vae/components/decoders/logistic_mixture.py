"""The likelihood of digital data of several modes: mixtures of rounded logistic variables."""

from __future__ import annotations

__all__ = ["DiscretizedLogisticMixtureDecoder"]

from collections.abc import Sequence
from typing import Any

import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

from .decoder import DECODERS
from .levels import NARROWEST, DiscretizedLogistic, Grid, Levels, LevelsDecoder


class DiscretizedLogisticMixture(Levels):
    """Levels of a mixture, whose components are the last dimension of each parameter."""

    def __init__(self, grid: Grid, logits: Tensor, loc: Tensor, scale: Tensor) -> None:
        self.logits, self.loc, self.scale = torch.broadcast_tensors(logits, loc, scale)
        self.components = DiscretizedLogistic(grid, self.loc, self.scale)
        super().__init__(grid, self.loc.shape[:-1])

    def log_prob_of_level(self, level: Tensor) -> Tensor:
        each = self.components.log_prob_of_level(level[..., None])  # (*batch, component)
        return (self.logits.log_softmax(-1) + each).logsumexp(-1)

    def sample_level(self, sample_shape: torch.Size) -> Tensor:
        drawn = self.components.sample_level(sample_shape)
        chosen = torch.distributions.Categorical(logits=self.logits, validate_args=False)
        return drawn.gather(-1, chosen.sample(sample_shape)[..., None])[..., 0]

    def mean_level(self) -> Tensor:
        return (self.logits.softmax(-1) * self.components.mean_level()).sum(-1)

    def expand(
        self, batch_shape: Sequence[int], _instance: Any = None
    ) -> DiscretizedLogisticMixture:
        shape = (*batch_shape, self.logits.shape[-1])
        return DiscretizedLogisticMixture(
            self.grid, self.logits.expand(shape), self.loc.expand(shape), self.scale.expand(shape)
        )


@DECODERS.register("discretized_logistic_mixture")
class DiscretizedLogisticMixtureDecoder(LevelsDecoder):
    r"""Levels, such as pixels: a mixture of logistic variables, rounded.

    .. math:: P(x_i = k \mid z) = \sum_j \pi_{ij}(z) \Bigl[\sigma\Bigl(\frac{k + 1/2 - m_{ij}(z)}
        {s_{ij}(z)}\Bigr) - \sigma\Bigl(\frac{k - 1/2 - m_{ij}(z)}{s_{ij}(z)}\Bigr)\Bigr]

    for level k, and the mass beyond the ends at the lowest and the highest level. Entries are
    independent given z, channels of a pixel too. Components start spread around ``center``.

    Source: Salimans et al. (2017), *PixelCNN++*, equations 1 and 2.

    Parameters
    ----------
    network, event_shape, center, spread
        As in :class:`~ppl_vae.Decoder`. The network returns ``3 * components`` numbers an entry.
    levels, low, high
        As in :class:`~ppl_vae.DiscretizedLogisticDecoder`.
    components
        How many logistic variables are mixed.

    Raises
    ------
    ValueError
        If ``levels`` is below 2, ``low`` not below ``high``, or ``components`` below 1.

    Examples
    --------
    >>> decoder = DiscretizedLogisticMixtureDecoder(nn.Linear(2, 30), (5,), components=2, levels=17)
    >>> decoder.raw_shape
    (5, 6)
    """

    at_first: Tensor

    def __init__(
        self,
        network: nn.Module,
        event_shape: Sequence[int],
        levels: int = 256,
        low: float = 0.0,
        high: float = 1.0,
        components: int = 5,
        *,
        center: float | Sequence[float] | Tensor = 0.5,
        spread: float | Sequence[float] | Tensor = 0.5,
    ) -> None:
        super().__init__(network, event_shape, levels, low, high, center=center, spread=spread)
        if not (isinstance(components, int) and components >= 1):
            raise ValueError(f"components is {components!r}; pass a whole number of at least 1")
        self.outputs = 3 * components
        at_first = torch.linspace(-1.0, 1.0, components) if components > 1 else torch.zeros(1)
        self.register_buffer("at_first", at_first)

    @classmethod
    def unsuitable(cls, x: Tensor, feature_names: Sequence[str] | None = None) -> str | None:
        """Prefer the single logistic variable, which takes a fraction of the numbers."""
        return ""

    def likelihood(self, raw: Tensor) -> TorchDistributionMixin:
        logits, place, raw_scale = raw.chunk(3, -1)  # (*batch, *event, component)
        steps = (self.grid.levels - 1) / (self.grid.high - self.grid.low)
        center, spread = self.center[..., None], self.spread[..., None]
        loc = (center - self.grid.low + spread * (place + self.at_first)) * steps
        scale = NARROWEST + spread * steps * (raw_scale.clamp(-15.0, 15.0) - 1.0).exp()
        return DiscretizedLogisticMixture(self.grid, logits, loc, scale)
