"""p(x|z): likelihoods whose parameters a network computes from the latents."""

from __future__ import annotations

__all__ = [
    "DECODERS",
    "BernoulliDecoder",
    "ContinuousBernoulliDecoder",
    "Decoder",
    "NegativeBinomialDecoder",
    "NormalDecoder",
]

import abc
from collections.abc import Sequence
from typing import ClassVar

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn
from torch.distributions import constraints

from .scales import Scale


class Decoder(nn.Module, abc.ABC):
    r"""Entries independent given the latents, :math:`p(x \mid z) = \prod_i p(x_i \mid f_i(z))`.

    A likelihood is a subclass: it says which values it accepts and turns the network's output,
    one real number an entry, into a distribution over that entry.

    Parameters
    ----------
    network
        Maps latents ``(*batch, latent)`` to one real number an entry, ``(*batch, *event)``, of
        any shape with that many elements. It is called with the covariates as a second argument
        where there is one.
    event_shape
        The shape of a row of data.
    center, spread
        Where the data lie: numbers, or one for each entry of an event. Likelihoods on an
        unbounded scale are written in these units, so that a network that returns about zero is
        about right at the start.
    """

    support: ClassVar[constraints.Constraint]
    accepts: ClassVar[str]
    center: Tensor
    spread: Tensor

    def __init__(
        self,
        network: nn.Module,
        event_shape: Sequence[int],
        *,
        center: float | Sequence[float] = 0.0,
        spread: float | Sequence[float] = 1.0,
    ) -> None:
        super().__init__()
        self.network = network
        self.event_shape = tuple(event_shape)
        self.register_buffer("center", torch.as_tensor(center, dtype=torch.get_default_dtype()))
        self.register_buffer("spread", torch.as_tensor(spread, dtype=torch.get_default_dtype()))

    @abc.abstractmethod
    def likelihood(self, raw: Tensor) -> TorchDistributionMixin:
        """The distribution of each entry, of batch shape ``raw.shape``."""

    def forward(self, z: Tensor, covariates: Tensor | None = None) -> TorchDistributionMixin:
        """p(x|z), with batch shape ``(*batch,)`` and event shape ``(*event,)``."""
        raw = self.network(z) if covariates is None else self.network(z, covariates)
        raw = raw.reshape(*z.shape[:-1], *self.event_shape)  # (*batch, *event)
        return self.likelihood(raw).to_event(len(self.event_shape))


class BernoulliDecoder(Decoder):
    r"""Zeros and ones.

    .. math:: p(x_i \mid z) = \operatorname{Bernoulli}(\sigma(f_i(z) + \operatorname{logit} c_i))

    With ``center`` :math:`c`, the probabilities at which a network that returns zero starts; zero,
    the default, says nothing and leaves the logit out.

    Source: Kingma & Welling (2014), appendix C.1.

    Examples
    --------
    >>> decoder = BernoulliDecoder(nn.Linear(2, 64), event_shape=(8, 8))
    >>> decoder(torch.zeros(7, 2)).log_prob(torch.ones(7, 8, 8)).shape
    torch.Size([7])
    """

    support = constraints.boolean
    accepts = "only 0 and 1"

    def __init__(
        self,
        network: nn.Module,
        event_shape: Sequence[int],
        *,
        center: float | Sequence[float] = 0.0,
        spread: float | Sequence[float] = 1.0,
    ) -> None:
        super().__init__(network, event_shape, center=center, spread=spread)
        self._notice_numbers()
        self.register_load_state_dict_post_hook(BernoulliDecoder._notice_numbers)

    def _notice_numbers(self, *_: object) -> None:
        """Leave a centering out that changes nothing; other numbers may be loaded."""
        self.centred = bool(self.center.any())

    def likelihood(self, raw: Tensor) -> TorchDistributionMixin:
        return dist.Bernoulli(logits=raw + self.center.logit(1e-3) if self.centred else raw)


class ContinuousBernoulliDecoder(Decoder):
    r"""Intensities in [0, 1].

    .. math:: p(x_i \mid z) \propto \lambda_i^{x_i} (1 - \lambda_i)^{1 - x_i}, \quad
        \lambda_i = \sigma(f_i(z))

    A Bernoulli "likelihood" of such values is no density; this one is normalized.
    Logits are kept within 15 of zero, where the normalizer is exact in single precision.

    Source: Loaiza-Ganem & Cunningham (2019), equations 6 to 9.

    Examples
    --------
    >>> decoder = ContinuousBernoulliDecoder(nn.Linear(2, 64), event_shape=(8, 8))
    >>> decoder(torch.zeros(7, 2)).log_prob(torch.full((7, 8, 8), 0.5)).shape
    torch.Size([7])
    """

    support = constraints.unit_interval
    accepts = "values in [0, 1]"

    def likelihood(self, raw: Tensor) -> TorchDistributionMixin:
        return dist.ContinuousBernoulli(logits=raw.clamp(-15.0, 15.0))


class NegativeBinomialDecoder(Decoder):
    r"""Counts, more dispersed than Poisson's, with one dispersion for each entry.

    .. math:: \operatorname{E}[x_i \mid z] = m_i = c_i \exp(f_i(z)), \quad
        \operatorname{Var}[x_i \mid z] = m_i + m_i^2 / r_i

    where :math:`c_i` is ``center`` and the :math:`r_i` are learnt.

    Source: Lopez et al. (2018), scVI, equation 3, without zero inflation.

    Examples
    --------
    >>> decoder = NegativeBinomialDecoder(nn.Linear(2, 5), event_shape=(5,), center=3.0)
    >>> decoder(torch.zeros(7, 2)).log_prob(torch.full((7, 5), 4.0)).shape
    torch.Size([7])
    """

    support = constraints.nonnegative_integer
    accepts = "counts: whole numbers of at least 0"

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


class NormalDecoder(Decoder):
    r"""Real numbers, :math:`p(x_i \mid z) = \mathcal{N}(x_i \mid c_i + s_i f_i(z), (s_i t_i)^2)`.

    With ``center`` :math:`c` and ``spread`` :math:`s`; :math:`t` is fixed, or learnt and then
    kept between :math:`10^{-6}` and :math:`10^6`. With a linear network and ``"shared"`` this is
    probabilistic PCA (Tipping & Bishop, 1999), with ``"feature"`` factor analysis.

    Parameters
    ----------
    scale
        ``"feature"``: a scale learnt for each entry. ``"shared"``: one learnt for all. A
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
        return dist.Normal(loc, self.spread * self.scale(self.raw_scale))


# The narrowest support first: VAEConfig.for_data takes the first that accepts every value.
DECODERS: dict[str, type[Decoder]] = {
    "bernoulli": BernoulliDecoder,
    "continuous_bernoulli": ContinuousBernoulliDecoder,
    "negative_binomial": NegativeBinomialDecoder,
    "normal": NormalDecoder,
}
