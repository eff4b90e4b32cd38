"""Real numbers that are missing because of what they are: self-masking."""

from __future__ import annotations

__all__ = ["SelfMaskedNormal", "SelfMaskingDecoder"]

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn
from torch.distributions import constraints

from .decoder import DECODERS
from .normal import NormalDecoder

_HIDES = ("either", "high", "low")
# Beyond it a normal's tail is taken for an exponential one, to a relative error of 1e-3.
_FAR = -8.0
# What the raw parameter of a slope counts: masks may be as sharp as steps.
_STEEP = 3.0


class SelfMaskedNormal(dist.TorchDistribution):
    r"""A normal number that is missing with a probability that depends on it.

    .. math:: x \sim \mathcal{N}(m, s^2), \quad \Pr(\text{missing} \mid x) = \Phi(a + b x)

    Missing is NaN. What it may have been is integrated out in closed form:
    :math:`\Pr(\text{missing}) = \Phi((a + b m) / \sqrt{1 + b^2 s^2})`.

    Parameters
    ----------
    loc, scale
        m and s, which broadcast.
    intercept, slope
        a and b.
    observed
        Which numbers are observed, of what it is then conditional on: NaN is not needed to tell
        which are missing, and draws and means are of the number given that it is missing or
        observed. None: draws are NaN where the number is missing, and the mean is m.

    Examples
    --------
    >>> p = SelfMaskedNormal(torch.zeros(()), torch.ones(()), torch.zeros(()), torch.ones(()))
    >>> p.log_prob(torch.tensor(torch.nan)).exp()
    tensor(0.5000)
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.real

    def __init__(
        self,
        loc: Tensor,
        scale: Tensor,
        intercept: Tensor,
        slope: Tensor,
        observed: Tensor | None = None,
    ) -> None:
        self.loc, self.scale, self.intercept, self.slope = torch.broadcast_tensors(
            loc, scale, intercept, slope
        )
        self.observed = observed
        shape = self.loc.shape
        if observed is not None:
            shape = torch.broadcast_shapes(shape, observed.shape)
        super().__init__(shape, validate_args=False)

    def given(self, observed: Tensor) -> SelfMaskedNormal:
        """The same, given which numbers are observed."""
        return SelfMaskedNormal(self.loc, self.scale, self.intercept, self.slope, observed)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> SelfMaskedNormal:
        shape = torch.Size(batch_shape)
        observed = None if self.observed is None else self.observed.expand(shape)
        return SelfMaskedNormal(
            self.loc.expand(shape),
            self.scale.expand(shape),
            self.intercept.expand(shape),
            self.slope.expand(shape),
            observed,
        )

    @property
    def _width(self) -> Tensor:
        """The standard deviation of a + b x + e, which is positive where x is missing."""
        return (1 + (self.slope * self.scale).square()).sqrt()

    @property
    def _threshold(self) -> Tensor:
        """Of which the probability of being missing is the standard normal's."""
        return (self.intercept + self.slope * self.loc) / self._width

    def log_prob(self, value: Tensor) -> Tensor:
        missing = value.isnan() if self.observed is None else ~self.observed
        value = value.masked_fill(missing, 0.0)  # NaN would reach gradients
        away = (value - self.loc) / self.scale
        seen = -0.5 * away.square() - self.scale.log() - 0.5 * math.log(2 * math.pi)
        seen = seen + torch.special.log_ndtr(-self.intercept - self.slope * value)
        return torch.where(missing, torch.special.log_ndtr(self._threshold), seen)

    @property
    def mean(self) -> Tensor:
        if self.observed is None:
            return self.loc
        sign = torch.where(self.observed, -1.0, 1.0).to(self.loc)
        threshold = sign * self._threshold
        log_density = -0.5 * threshold.square() - 0.5 * math.log(2 * math.pi)
        pushed = (log_density - torch.special.log_ndtr(threshold)).exp()
        return self.loc + sign * self.slope * self.scale.square() / self._width * pushed

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        shape = torch.Size((*sample_shape, *self.batch_shape))
        with torch.no_grad():
            noise = torch.randn(shape).to(self.loc)
            if self.observed is None:
                x = self.loc + self.scale * noise
                missing = self.intercept + self.slope * x + torch.randn(shape).to(self.loc) > 0
                return x.masked_fill(missing, torch.nan)
            # a + b x + e is normal with x, and truncated at 0 by whether x is missing.
            sign = torch.where(self.observed, -1.0, 1.0).to(self.loc)
            pushed = sign * _above(-(sign * self._threshold).expand(shape))
            pushed = self.slope * self.scale * pushed
            return self.loc + self.scale * (pushed + noise) / self._width


@DECODERS.register("self_masking")
class SelfMaskingDecoder(NormalDecoder):
    r"""Real numbers that are missing because of what they are, each with a rate of its own.

    .. math:: p(x_i \mid z) = \mathcal{N}(x_i \mid c_i + s_i f_i(z), (s_i t_i)^2), \quad
        \Pr(x_i \text{ missing} \mid x_i) = \Phi(a_i + b_i (x_i - c_i) / s_i)

    A model of which entries are missing, given what they are (missing not at random): what fit,
    evidence and checks speak of is log p(x_observed, which are missing), and
    :func:`~ppl_vae.impute` draws entries given that they are missing. Draws from the model have
    missing entries too. A likelihood that leaves missing entries out, as all others do, assumes
    that they are missing at random; a slope b of zero says so here.

    Nothing but the model tells the two apart, as the numbers that are missing were never seen:
    check what follows from either, and keep the network small, as it extrapolates to numbers that
    no row shows. Where it is known that high numbers are missing, or low ones, as above the limit
    of an instrument, say so with ``hides``.

    Source: Ipsen et al. (2021), *not-MIWAE*, equations 4 and 9, where missing entries are drawn;
    under a probit they integrate out.

    Parameters
    ----------
    scale
        As in :class:`NormalDecoder`.
    hides
        ``"either"``: the sign of b is learned. ``"high"``, ``"low"``: which numbers tend to be
        missing.

    Raises
    ------
    ValueError
        If ``scale`` or ``hides`` is not accepted.

    Examples
    --------
    >>> decoder = SelfMaskingDecoder(nn.Linear(2, 5), event_shape=(5,), hides="high")
    >>> observed = torch.zeros(7, 5, dtype=torch.bool)
    >>> decoder(torch.zeros(7, 2), None, observed).log_prob(torch.zeros(7, 5)).shape
    torch.Size([7])
    """

    # Deeper networks run away where nothing is observed: benchmarks/imputation.py.
    hidden = (128,)
    needs_missing = True

    def __init__(
        self,
        network: nn.Module,
        event_shape: Sequence[int],
        scale: float | str = "feature",
        hides: str = "either",
        *,
        center: float | Sequence[float] = 0.0,
        spread: float | Sequence[float] = 1.0,
    ) -> None:
        super().__init__(network, event_shape, scale, center=center, spread=spread)
        if hides not in _HIDES:
            raise ValueError(f"hides is {hides!r}; accepted are {', '.join(map(repr, _HIDES))}")
        self.hides = hides
        # Where the side is known, missing from about a standard deviation beyond the center.
        known = float(hides != "either")
        self.intercept = nn.Parameter(torch.full(self.event_shape, -_STEEP * known))
        self.raw_slope = nn.Parameter(torch.full(self.event_shape, known))

    @classmethod
    def unsuitable(cls, x: Tensor, feature_names: Sequence[str] | None = None) -> str | None:
        """Leave the choice to the user: data do not say why they are missing."""
        return ""

    @property
    def slope(self) -> Tensor:
        """b, by which a standard deviation of an entry moves the probit of its being missing."""
        if self.hides == "either":
            return _STEEP * self.raw_slope
        steep = nn.functional.softplus(_STEEP * self.raw_slope)
        return steep if self.hides == "high" else -steep

    def likelihood(self, raw: Tensor) -> TorchDistributionMixin:
        normal = super().likelihood(raw)
        slope = self.slope / self.spread
        return SelfMaskedNormal(
            normal.loc, normal.scale, self.intercept - slope * self.center, slope
        )

    def leave_out(
        self, entries: TorchDistributionMixin, observed: Tensor
    ) -> TorchDistributionMixin:
        """The entries given which are observed: those that are not count by being missing."""
        return entries.given(observed)


def _above(low: Tensor) -> Tensor:
    """Draw standard normal numbers that are above ``low``, each for itself."""
    low = low.double()
    uniform = torch.rand(low.shape, dtype=low.dtype).to(low.device).clamp(min=1e-300)
    near = -torch.special.ndtri(uniform * torch.special.ndtr(-low))
    far = (low.square() - 2 * uniform.log()).sqrt()
    return torch.where(-low < _FAR, far, near)
