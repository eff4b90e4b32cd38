"""What a likelihood must say: which data it describes, and the distribution of an entry."""

from __future__ import annotations

__all__ = ["DECODERS", "Decoder", "located", "observed_values", "varying"]

import abc
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn
from torch.distributions import constraints

from ...intensities import to_float
from ..networks.network import called
from ..registry import Registry


class Decoder(nn.Module, abc.ABC):
    r"""Entries independent given the latents, :math:`p(x \mid z) = \prod_i p(x_i \mid f_i(z))`.

    A likelihood is a subclass. It says which values it accepts, ``support`` and ``accepts``, and
    turns the network's output into a distribution over each entry, :meth:`likelihood`. Where that
    takes more than one real number an entry, ``outputs`` says how many. :meth:`describes` says
    which options fit some data, where the default does not, and :meth:`unsuitable` for which data
    another likelihood would be better.

    Parameters
    ----------
    network
        Maps latents ``(row, latent)`` to ``outputs`` real numbers an entry: ``(row, *event)``, or
        ``(row, *event, outputs)`` where there are several, of any shape with so many elements. It
        is called with the covariates as a second argument where there are some.
    event_shape
        The shape of a row of data.
    center, spread
        The location and the scale of the data: numbers, or one for each entry. Likelihoods on an
        unbounded scale are written in these units, so that a network that returns about zero is
        about right at the start.

    Attributes
    ----------
    support
        The values that an entry may have.
    accepts
        The same in words, for messages.
    outputs
        Real numbers that the network returns for an entry.
    raw_shape
        The shape of what the network returns for a row; a likelihood whose entries take different
        numbers of them overrides it.

    Examples
    --------
    >>> import pyro.distributions as dist
    >>> from ppl_vae import MLP
    >>> class ExponentialDecoder(Decoder):
    ...     support = constraints.positive
    ...     accepts = "positive real numbers"
    ...
    ...     def likelihood(self, raw):
    ...         return dist.Exponential(raw.clamp(-15.0, 15.0).exp())
    >>> decoder = ExponentialDecoder(MLP((2,), hidden=(8,), out_shape=(6,)), event_shape=(6,))
    >>> decoder(torch.zeros(10, 2)).event_shape
    torch.Size([6])
    """

    support: ClassVar[constraints.Constraint]
    accepts: ClassVar[str]
    outputs: int = 1
    hidden: ClassVar[tuple[int, ...] | None] = None
    needs_missing: bool = False
    needs_covariates: bool = False
    center: Tensor
    spread: Tensor

    def __init__(
        self,
        network: nn.Module,
        event_shape: Sequence[int],
        *,
        center: float | Sequence[float] | Tensor = 0.0,
        spread: float | Sequence[float] | Tensor = 1.0,
    ) -> None:
        super().__init__()
        self.network = network
        self.event_shape = tuple(event_shape)
        self.register_buffer("center", torch.as_tensor(center, dtype=torch.get_default_dtype()))
        self.register_buffer("spread", torch.as_tensor(spread, dtype=torch.get_default_dtype()))

    @classmethod
    def describes(
        cls, x: Tensor, feature_names: Sequence[str] | None = None
    ) -> dict[str, Any] | None:
        """The options that fit rows ``x``, or None if this likelihood cannot describe them.

        By default it can if every observed value is in the support, and the options are the
        ``center`` and ``spread`` of the data.

        Raises
        ------
        ValueError
            If it could but for some features, which the message names.
        """
        if not cls.support.check(observed_values(x)).all():
            return None
        return located(x)

    @classmethod
    def completed(
        cls, options: Mapping[str, Any], x: Tensor, codings: Sequence[Any] = ()
    ) -> dict[str, Any]:
        """What a choice with these options needs to know of rows ``x``, and of their covariates.

        ``codings`` says how each column of covariates became numbers, where that is known.
        """
        return {}

    @classmethod
    def unsuitable(cls, x: Tensor, feature_names: Sequence[str] | None = None) -> str | None:
        """Why :meth:`VAEConfig.for_data` should not choose a likelihood that it could, in words.

        None, the default, means that it may be chosen. An empty text means that it may not, for
        a reason that a user need not hear.
        """
        return None

    @property
    def raw_shape(self) -> tuple[int, ...]:
        """What a network returns for a row has this shape, with ``outputs`` last if above 1."""
        return (*self.event_shape, self.outputs) if self.outputs > 1 else self.event_shape

    @property
    def reads_logs(self) -> bool:
        """Whether an encoder of such rows had better read log(1 + x)."""
        return False

    @abc.abstractmethod
    def likelihood(self, raw: Tensor) -> TorchDistributionMixin:
        """The distribution of each entry, of batch shape ``(*batch, *event)``.

        ``raw`` is what the network returned, ``(*batch, *raw_shape)``: ``(*batch, *event)``, or
        with one dimension more, ``(*batch, *event, outputs)``, where ``outputs`` is above 1.
        """

    def forward(
        self, z: Tensor, covariates: Tensor | None = None, observed: Tensor | None = None
    ) -> TorchDistributionMixin:
        """p(x|z), with batch shape ``(*batch,)`` and event shape ``(*event,)``.

        Entries where ``observed`` is false, ``(*batch, *event)`` or fewer batch dimensions, are
        left out of its log-probability.
        """
        entries = self.likelihood(self.raw_at(z, covariates))
        if observed is not None:
            entries = self.leave_out(entries, observed)
        return entries.to_event(len(self.event_shape))

    def raw_at(self, z: Tensor, covariates: Tensor | None = None) -> Tensor:
        """What the network returns for latents, ``(*batch, *raw_shape)``."""
        raw = called(self.network, z, covariates, event_dim=1)
        batch = z.shape[:-1]
        if covariates is not None:
            batch = torch.broadcast_shapes(batch, covariates.shape[:-1])
        return raw.reshape(*batch, *self.raw_shape)

    def leave_out(
        self, entries: TorchDistributionMixin, observed: Tensor
    ) -> TorchDistributionMixin:
        """The entries' distribution where some are not observed, which then do not count."""
        return entries.mask(observed)


# The narrowest support first: VAEConfig.for_data takes the first that describes the data.
DECODERS: Registry[Decoder] = Registry(
    "likelihood", given=("network", "event_shape", "center", "spread")
)


def observed_values(x: Tensor) -> Tensor:
    """The different values, or all of them, that are observed in some rows."""
    values = to_float(x.unique() if x.dtype == torch.uint8 else x)
    return values[~values.isnan()]


def located(x: Tensor) -> dict[str, Any]:
    """Means and standard deviations, by feature for tables and over all entries for images.

    They are computed in double precision. Where nothing varies the spread is 1.
    """
    x = to_float(x)
    dims = (0,) if x.dim() == 2 else tuple(range(x.dim()))
    count = x.isfinite().sum(dims).clamp(min=1)
    center = x.double().nansum(dims) / count
    spread = ((x - center).square().nansum(dims) / count).sqrt()
    return {
        "center": center.tolist(),
        "spread": spread.masked_fill(~_varies(x).reshape(spread.shape), 1.0).tolist(),
    }


def _varies(x: Tensor) -> Tensor:
    """Which features vary, or whether any entry does: ends are compared, not rounded moments."""
    rows = x if x.dim() == 2 else x.reshape(-1, 1)
    low, high = rows.nan_to_num(nan=torch.inf).amin(0), rows.nan_to_num(nan=-torch.inf).amax(0)
    return low < high


def constant_features(x: Tensor) -> list[int]:
    """The features that never vary; ``[0]`` if no entry of an image does."""
    return (~_varies(to_float(x))).nonzero().flatten().tolist()


def varying(
    x: Tensor, feature_names: Sequence[str] | None = None, *, likelihood: str
) -> dict[str, Any]:
    """The means and standard deviations of the data, all of which have to vary.

    Raises
    ------
    ValueError
        If a feature never varies, so that a density would have no scale there.
    """
    constant: list[Any] = constant_features(x)
    if constant:
        how = ""
        if feature_names is not None:
            constant = [feature_names[i] for i in constant]
            how = f" ({' '.join(f'--drop {shlex.quote(str(name))}' for name in constant[:10])})"
        raise ValueError(
            f"x never varies in features {constant[:10]}, so that a {likelihood} likelihood has no "
            f"scale there; drop these features{how}"
        )
    return located(x)
