"""Likelihoods of digital data: numbers on an even grid of levels, such as pixels."""

from __future__ import annotations

__all__ = [
    "NARROWEST",
    "BinomialDecoder",
    "DiscretizedLogistic",
    "DiscretizedLogisticDecoder",
    "Grid",
    "Levels",
    "LevelsDecoder",
    "grid_of",
]

import abc
from collections.abc import Sequence
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn
from torch.distributions import constraints
from torch.nn.functional import logsigmoid

from .decoder import DECODERS, Decoder, located, observed_values

# Levels that data may have; more are as good as real numbers.
_MOST = 256
# An intensity counts as a level if, on average, a level occurs at least this often.
_REPEATED = 4
# A number may lie this far from its level, in steps between levels.
_TOLERANCE = 0.02
# The narrowest scale of the logistic, in levels; a narrower one would change no probability.
NARROWEST = 0.05


class Grid(constraints.Constraint):
    """Numbers on ``levels`` evenly spaced levels from ``low`` to ``high``."""

    is_discrete = True

    def __init__(self, low: float, high: float, levels: int) -> None:
        self.low, self.high, self.levels = low, high, levels
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        level = (value - self.low) * ((self.levels - 1) / (self.high - self.low))
        near = (level - level.round()).abs() <= _TOLERANCE
        return near & (level.round() >= 0) & (level.round() <= self.levels - 1)

    def __repr__(self) -> str:
        return f"{self.levels} levels from {self.low:g} to {self.high:g}"


class Levels(TorchDistribution, abc.ABC):
    """A distribution over levels 0, 1, ..., written as numbers from ``low`` to ``high``.

    Its probabilities are those of levels: they sum to one, and no logarithm is above zero.

    Parameters
    ----------
    grid
        The numbers that the levels stand for.
    batch_shape
        Of the distribution.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012  as in torch

    def __init__(self, grid: Grid, batch_shape: torch.Size) -> None:
        self.grid = grid
        super().__init__(batch_shape, validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        return self.grid

    @property
    def top(self) -> int:
        """The highest level."""
        return self.grid.levels - 1

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-probability of the level nearest to each number."""
        step = (self.grid.high - self.grid.low) / self.top
        return self.log_prob_of_level(((value - self.grid.low) / step).round())

    def sample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:
        """Numbers of shape ``(*sample, *batch)``."""
        with torch.no_grad():
            return self._number(self.sample_level(torch.Size(sample_shape)))

    @property
    def mean(self) -> Tensor:
        return self._number(self.mean_level())

    def _number(self, level: Tensor) -> Tensor:
        return self.grid.low + level * ((self.grid.high - self.grid.low) / self.top)

    @abc.abstractmethod
    def log_prob_of_level(self, level: Tensor) -> Tensor:
        """The log-probability of each level."""

    @abc.abstractmethod
    def sample_level(self, sample_shape: torch.Size) -> Tensor:
        """Levels of shape ``(*sample, *batch)``."""

    @abc.abstractmethod
    def mean_level(self) -> Tensor:
        """The mean level."""


class BinomialLevels(Levels):
    """Levels that are binomial."""

    def __init__(self, grid: Grid, logits: Tensor) -> None:
        self.logits = logits
        super().__init__(grid, logits.shape)

    def _binomial(self) -> Any:
        return dist.Binomial(self.top, logits=self.logits, validate_args=False)

    def log_prob_of_level(self, level: Tensor) -> Tensor:
        choose = (
            torch.lgamma(torch.tensor(self.top + 1.0).to(level))
            - torch.lgamma(level + 1)
            - torch.lgamma(self.top - level + 1)
        )
        return (
            choose + level * logsigmoid(self.logits) + (self.top - level) * logsigmoid(-self.logits)
        )

    def sample_level(self, sample_shape: torch.Size) -> Tensor:
        return self._binomial().sample(sample_shape)

    def mean_level(self) -> Tensor:
        return self.top * self.logits.sigmoid()

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> BinomialLevels:
        return BinomialLevels(self.grid, self.logits.expand(torch.Size(batch_shape)))


class DiscretizedLogistic(Levels):
    """A logistic variable rounded to levels; what lies beyond the ends counts for the ends."""

    def __init__(self, grid: Grid, loc: Tensor, scale: Tensor) -> None:
        self.loc, self.scale = torch.broadcast_tensors(loc, scale)
        super().__init__(grid, self.loc.shape)

    def log_prob_of_level(self, level: Tensor) -> Tensor:
        above = (level + 0.5 - self.loc) / self.scale
        below = (level - 0.5 - self.loc) / self.scale
        # sigma(a) - sigma(b) = sigma(a) sigma(-b) (1 - exp(b - a)), and a - b = 1 / scale.
        within = logsigmoid(above) + logsigmoid(-below) + (-torch.expm1(-1 / self.scale)).log()
        return torch.where(
            level <= 0,
            logsigmoid(above),
            torch.where(level >= self.top, logsigmoid(-below), within),
        )

    def sample_level(self, sample_shape: torch.Size) -> Tensor:
        shape = (*sample_shape, *self.batch_shape)
        uniform = torch.rand(shape, dtype=self.loc.dtype, device=self.loc.device)
        tiny = torch.finfo(uniform.dtype).tiny
        drawn = self.loc + self.scale * (uniform.clamp(min=tiny).log() - (-uniform).log1p())
        return drawn.round().clamp(0, self.top)

    def mean_level(self) -> Tensor:
        """The sum over levels of the probability of that level or a higher one."""
        mean = torch.zeros_like(self.loc)
        for level in range(1, self.top + 1):
            mean = mean + ((self.loc - level + 0.5) / self.scale).sigmoid()
        return mean

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> DiscretizedLogistic:
        shape = torch.Size(batch_shape)
        return DiscretizedLogistic(self.grid, self.loc.expand(shape), self.scale.expand(shape))


class LevelsDecoder(Decoder):
    """What likelihoods of levels share: the numbers of the levels, and how data show them."""

    accepts = "numbers on an even grid of at most 256 levels"

    def __init__(
        self,
        network: nn.Module,
        event_shape: Sequence[int],
        levels: int = 256,
        low: float = 0.0,
        high: float = 1.0,
        *,
        center: float | Sequence[float] | Tensor = 0.5,
        spread: float | Sequence[float] | Tensor = 0.5,
    ) -> None:
        super().__init__(network, event_shape, center=center, spread=spread)
        if not (isinstance(levels, int) and levels >= 2):
            raise ValueError(f"levels is {levels!r}; pass the number of levels, at least 2")
        if not low < high < float("inf"):
            raise ValueError(f"low is {low} and high {high}; pass the lowest and the highest level")
        self.grid = self.support = Grid(low, high, levels)  # type: ignore[misc]
        self.accepts = f"{levels} levels from {low:g} to {high:g}"  # type: ignore[misc]

    @classmethod
    def describes(
        cls, x: Tensor, feature_names: Sequence[str] | None = None
    ) -> dict[str, Any] | None:
        """The grid that all observed values lie on, if there is one."""
        grid = grid_of(x)
        return None if grid is None else {**grid, **located(x)}

    @classmethod
    def unsuitable(cls, x: Tensor, feature_names: Sequence[str] | None = None) -> str | None:
        """Refuse numbers that are not intensities on levels, which lie in [0, 1] and repeat."""
        if x.dtype == torch.uint8:
            return None
        grid = grid_of(x) or {}
        if (grid.get("low"), grid.get("high")) != (0.0, 1.0):
            return ""
        return None if x.numel() >= _REPEATED * grid["levels"] else ""


@DECODERS.register("discretized_logistic", before="continuous_bernoulli")
class DiscretizedLogisticDecoder(LevelsDecoder):
    r"""Levels, such as pixels: a logistic variable, rounded, whose scale depends on z too.

    .. math:: P(x_i = k \mid z) = \sigma\Bigl(\frac{k + 1/2 - m_i(z)}{s_i(z)}\Bigr)
        - \sigma\Bigl(\frac{k - 1/2 - m_i(z)}{s_i(z)}\Bigr)

    for level k; the lowest and the highest level also have the mass that lies beyond them.
    These are probabilities, so that nats and bits per dimension compare with the literature.

    Source: Kingma et al. (2016), *Improving variational inference with inverse autoregressive
    flow*, section 5; Salimans et al. (2017), *PixelCNN++*, equation 2.

    Parameters
    ----------
    network, event_shape, center, spread
        As in :class:`~ppl_vae.Decoder`. The network returns two numbers an entry.
    levels
        How many levels there are: 256 for bytes.
    low, high
        The numbers of the lowest and the highest level: 0 and 1 for intensities.

    Raises
    ------
    ValueError
        If ``levels`` is below 2, or ``low`` not below ``high``.

    Examples
    --------
    >>> decoder = DiscretizedLogisticDecoder(nn.Linear(2, 10), event_shape=(5,), levels=17)
    >>> decoder(torch.zeros(7, 2)).log_prob(torch.full((7, 5), 3 / 16)).shape
    torch.Size([7])
    """

    outputs = 2

    def likelihood(self, raw: Tensor) -> TorchDistributionMixin:
        place, raw_scale = raw.unbind(-1)
        steps = (self.grid.levels - 1) / (self.grid.high - self.grid.low)
        loc = (self.center - self.grid.low + self.spread * place) * steps
        # A logistic of scale s has a standard deviation of 1.8 s.
        scale = NARROWEST + self.spread * steps * (raw_scale.clamp(-15.0, 15.0) - 1.0).exp()
        return DiscretizedLogistic(self.grid, loc, scale)


@DECODERS.register("binomial")
class BinomialDecoder(LevelsDecoder):
    r"""Levels 0 to L that are binomial, :math:`x_i \mid z \sim \operatorname{Binomial}(L, \sigma(
    f_i(z)))`.

    The spread of an entry follows from its mean. Where it does not, ``"discretized_logistic"``
    describes the data better.

    Parameters
    ----------
    network, event_shape, center, spread
        As in :class:`~ppl_vae.Decoder`.
    levels
        How many levels there are, L + 1.
    low, high
        The numbers of the lowest and the highest level.

    Raises
    ------
    ValueError
        If ``levels`` is below 2, or ``low`` not below ``high``.

    Examples
    --------
    >>> decoder = BinomialDecoder(nn.Linear(2, 5), event_shape=(5,), levels=17)
    >>> decoder(torch.zeros(7, 2)).log_prob(torch.full((7, 5), 3 / 16)).shape
    torch.Size([7])
    """

    @classmethod
    def unsuitable(cls, x: Tensor, feature_names: Sequence[str] | None = None) -> str | None:
        """Leave the choice to the user, who alone knows whether levels are binomial."""
        return ""

    def likelihood(self, raw: Tensor) -> TorchDistributionMixin:
        part = (self.center - self.grid.low) / (self.grid.high - self.grid.low)
        return BinomialLevels(self.grid, raw + part.logit(1e-3))


def grid_of(x: Tensor) -> dict[str, Any] | None:
    """The even grid of at most 256 levels that all values of some rows lie on, or None.

    Bytes are intensities on 256 levels, whichever of them occur. Zeros and a one are levels of any
    grid that starts there, so that intensities in [0, 1] have levels from 0 to 1.

    Examples
    --------
    >>> grid_of(torch.tensor([[0.0, 0.25], [0.75, 0.5]]))
    {'levels': 5, 'low': 0.0, 'high': 1.0}
    >>> grid_of(torch.rand(100, 3)) is None
    True
    """
    if x.dtype == torch.uint8:
        return {"levels": 256, "low": 0.0, "high": 1.0}
    values = observed_values(x).double().unique()
    if len(values) > 2 * _MOST or len(values) < 2:
        return None
    low, high = values[0].item(), values[-1].item()
    if low >= 0 and 0.5 < high <= 1:
        low, high = 0.0, 1.0
    # This is Euclid's algorithm for the step, with a tolerance for rounding.
    noise = (high - low) / _MOST * _TOLERANCE
    gaps = torch.cat([values - low, high - values])
    step = high - low
    while len(rest := gaps[(gaps - step * (gaps / step).round()).abs() > noise]):
        step = (rest - step * (rest / step).round()).abs().min().item()
        if step < (high - low) / _MOST:
            return None
    levels = round((high - low) / step) + 1
    if levels > _MOST or not Grid(low, high, levels).check(values).all():
        return None
    return {"levels": levels, "low": low, "high": high}
