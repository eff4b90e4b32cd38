"""Likelihoods of counts."""

from __future__ import annotations

__all__ = [
    "CountsDecoder",
    "NegativeBinomialDecoder",
    "PoissonDecoder",
    "ZeroInflatedNegativeBinomialDecoder",
]

from collections.abc import Mapping, Sequence
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn
from torch.distributions import constraints

from ...intensities import to_float
from ..scales import Scale
from .decoder import DECODERS, Decoder

LIBRARIES = (None, "observed", "latent")
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


def if_pixels(x: Tensor, *, chosen: bool) -> str:
    """What to say of counts that may be pixels; nothing of the small counts of a table."""
    if x.dtype != torch.uint8 and 100 < x.nan_to_num(nan=0.0).max().item() <= 255:
        return "; if these are pixels from 0 to 255, pass them as uint8, or divided by 255"
    if x.dim() > 2 and not chosen:
        return "; if these are pixels, choose likelihood='normal' (--likelihood normal)"
    return ""


class CountsDecoder(Decoder):
    r"""What likelihoods of counts share: their means, and the library size that these add up to.

    .. math:: m_i = c_i \exp f_i(z), \quad \text{or} \quad
        m_i = \ell \, \frac{c_i \exp f_i(z)}{\sum_j c_j \exp f_j(z)}, \quad
        \log \ell = a + b\, u

    where :math:`c_i` is ``center``. The second has the network say shares, and the library size
    :math:`\ell` of a row, such as how deeply a cell was sequenced, how large the counts are. The
    network is not given :math:`u`, so that shares depend on the other latents alone.

    Source: Lopez et al. (2018), *Deep generative modeling for single-cell transcriptomics*, scVI,
    equation 3.

    Parameters
    ----------
    network, event_shape, center, spread
        As in :class:`~ppl_vae.Decoder`.
    library
        None, the first; ``"observed"``: :math:`u` is the last covariate, and all is conditional on
        it; ``"latent"``: :math:`u` is the last latent, so that :math:`\ell` is log-normal under a
        standard normal prior.
    library_center, library_spread
        :math:`a` and :math:`b`, mean and standard deviation of log :math:`\ell`.
        :meth:`VAEConfig.for_data <ppl_vae.VAEConfig.for_data>` takes them from the rows.

    Raises
    ------
    ValueError
        If ``library`` is none of these, or ``library_spread`` is not positive.

    Examples
    --------
    >>> class GeometricDecoder(CountsDecoder):
    ...     def likelihood(self, raw):
    ...         return dist.Geometric(logits=-self.log_mean(raw))
    >>> decoder = GeometricDecoder(nn.Linear(2, 5), event_shape=(5,), library="latent")
    >>> library = decoder(torch.tensor([[0.7, 3.0]])).mean.sum()
    >>> round(library.log().item(), 3)
    3.0
    """

    support = constraints.nonnegative_integer
    accepts = "counts: whole numbers of at least 0"

    def __init__(
        self,
        network: nn.Module,
        event_shape: Sequence[int],
        *,
        library: str | None = None,
        library_center: float = 0.0,
        library_spread: float = 1.0,
        center: float | Sequence[float] | Tensor = 1.0,
        spread: float | Sequence[float] | Tensor = 1.0,
    ) -> None:
        super().__init__(network, event_shape, center=center, spread=spread)
        if library not in LIBRARIES:
            accepted = ", ".join(map(repr, LIBRARIES))
            raise ValueError(f"library is {library!r}; accepted are {accepted}")
        if not 0 < library_spread < float("inf"):
            raise ValueError(
                f"library_spread is {library_spread}; pass a positive number, the standard "
                "deviation of the logarithm of library sizes"
            )
        self.library = library
        self.library_center, self.library_spread = library_center, library_spread

    @classmethod
    def completed(
        cls, options: Mapping[str, Any], x: Tensor, codings: Sequence[Any] = ()
    ) -> dict[str, Any]:
        """Take an observed library size from a covariate of that name, a latent one from rows.

        Raises
        ------
        ValueError
            If the library size is to be observed, and no covariate is.
        """
        coding = next((each for each in codings if each.log), None)
        library = options.get("library", "observed" if coding is not None else None)
        if library == "latent":
            entries = to_float(x).flatten(1).double()
            logs = (entries.nanmean(1) * entries.shape[1]).clamp(min=1.0).log()
            where, scale = logs.mean().item(), logs.std(correction=0).item()
        elif library == "observed" and coding is not None:
            where, scale = coding.center, coding.spread
        elif library == "observed" and codings:
            names = ", ".join(each.name for each in codings)
            raise ValueError(
                f"library='observed' needs the library size among the covariates, which are "
                f"{names}; add context='library' (--context library), or choose library=latent"
            )
        else:
            return {}
        found = {"library_center": round(where, 6), "library_spread": round(max(scale, 0.01), 6)}
        return {"library": library, **found}

    @property
    def needs_covariates(self) -> bool:  # type: ignore[override]
        """Whether the library size is one."""
        return self.library == "observed"

    @property
    def reads_logs(self) -> bool:
        """Whether there is a library size, as the counts of cells vary by factors."""
        return self.library is not None

    @property
    def log_center(self) -> Tensor:
        """Logarithms of ``center``; an entry that is zero in every row still has a mean."""
        return self.center.clamp(min=1e-3).log()

    def log_mean(self, raw: Tensor) -> Tensor:
        """The logarithm of each mean, of what the network returned for it."""
        return raw.clamp(-15.0, 15.0) + self.log_center

    def raw_at(self, z: Tensor, covariates: Tensor | None = None) -> Tensor:
        """What the network returns, so shifted in each row that means add up to its library."""
        if self.library is None:
            return super().raw_at(z, covariates)
        if self.library == "latent":
            units, z = z[..., -1], _without_last(z)
        elif covariates is None:
            units = z.new_zeros(z.shape[:-1])
        else:
            units, covariates = covariates[..., -1], _without_last(covariates)
        raw = super().raw_at(z, covariates)
        gates = raw[..., 1:] if self.outputs > 1 else None
        raw = raw[..., 0] if self.outputs > 1 else raw  # (*batch, *event)
        event = tuple(range(-len(self.event_shape), 0))
        log_size = self.library_center + self.library_spread * units
        log_size = log_size[(..., *[None] * len(event))]
        raw = raw + log_size - (raw + self.log_center).logsumexp(event, keepdim=True)
        return raw if gates is None else torch.cat([raw[..., None], gates], -1)


def _without_last(numbers: Tensor) -> Tensor:
    """The same, with zero in place of the last of each row."""
    return torch.cat([numbers[..., :-1], torch.zeros_like(numbers[..., -1:])], -1)


@DECODERS.register("negative_binomial")
class NegativeBinomialDecoder(CountsDecoder):
    r"""Counts, more dispersed than Poisson's, with one dispersion for each entry.

    .. math:: \operatorname{E}[x_i \mid z] = m_i, \quad
        \operatorname{Var}[x_i \mid z] = m_i + m_i^2 / r_i

    where the means :math:`m_i` are those of :class:`CountsDecoder`, and the :math:`r_i` are
    learned.

    Source: Lopez et al. (2018), scVI, equation 3, without zero inflation.

    Parameters
    ----------
    library, library_center, library_spread
        As in :class:`CountsDecoder`.

    Examples
    --------
    >>> decoder = NegativeBinomialDecoder(nn.Linear(2, 5), event_shape=(5,), center=3.0)
    >>> decoder(torch.zeros(7, 2)).log_prob(torch.full((7, 5), 4.0)).shape
    torch.Size([7])
    >>> sized = NegativeBinomialDecoder(nn.Linear(2, 5), event_shape=(5,), library="latent")
    >>> library = sized(torch.tensor([[0.7, 3.0]])).mean.sum()
    >>> round(library.log().item(), 3)
    3.0
    """

    @classmethod
    def unsuitable(cls, x: Tensor, feature_names: Sequence[str] | None = None) -> str | None:
        """Refuse years, codes and amounts: whole numbers that are large, or far from zero."""
        return no_counts(x, feature_names)

    def __init__(
        self,
        network: nn.Module,
        event_shape: Sequence[int],
        *,
        library: str | None = None,
        library_center: float = 0.0,
        library_spread: float = 1.0,
        center: float | Sequence[float] | Tensor = 1.0,
        spread: float | Sequence[float] | Tensor = 1.0,
    ) -> None:
        super().__init__(
            network,
            event_shape,
            library=library,
            library_center=library_center,
            library_spread=library_spread,
            center=center,
            spread=spread,
        )
        self.raw_dispersion = nn.Parameter(torch.zeros(self.event_shape))
        self.scale = Scale("log_scale")

    def likelihood(self, raw: Tensor) -> TorchDistributionMixin:
        dispersion = self.scale(self.raw_dispersion)
        return dist.NegativeBinomial(dispersion, logits=self.log_mean(raw) - dispersion.log())


@DECODERS.register("poisson")
class PoissonDecoder(CountsDecoder):
    r"""Counts whose variance is their mean, :math:`p(x_i \mid z) = \operatorname{Poisson}(m_i)`.

    Parameters
    ----------
    library, library_center, library_spread
        As in :class:`CountsDecoder`.

    Examples
    --------
    >>> decoder = PoissonDecoder(nn.Linear(2, 5), event_shape=(5,), center=3.0)
    >>> decoder(torch.zeros(7, 2)).log_prob(torch.full((7, 5), 4.0)).shape
    torch.Size([7])
    """

    @classmethod
    def unsuitable(cls, x: Tensor, feature_names: Sequence[str] | None = None) -> str | None:
        """Prefer the negative binomial, of which this is a limit."""
        return ""

    def likelihood(self, raw: Tensor) -> TorchDistributionMixin:
        return dist.Poisson(self.log_mean(raw).exp())


@DECODERS.register("zero_inflated_negative_binomial")
class ZeroInflatedNegativeBinomialDecoder(NegativeBinomialDecoder):
    r"""Counts that are zero more often than a negative binomial has it.

    .. math:: p(x_i \mid z) = \pi_i \, 1[x_i = 0]
        + (1 - \pi_i) \operatorname{NB}(x_i \mid m_i, r_i), \quad
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
