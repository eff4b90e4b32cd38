"""The likelihood of tables: columns of different kinds in one row, each with its own."""

from __future__ import annotations

__all__ = ["Columns", "MixedDecoder", "choices_of"]

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn
from torch.distributions import constraints

from ..registry import Choice, split
from .decoder import DECODERS, Decoder, located


class _ByColumn(constraints.Constraint):
    """What each column accepts."""

    def __init__(self, parts: Sequence[constraints.Constraint], places: Sequence[Tensor]) -> None:
        self.parts, self.places = parts, places
        self.is_discrete = all(part.is_discrete for part in parts)
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        fits = torch.zeros_like(value, dtype=torch.bool)
        for part, place in zip(self.parts, self.places, strict=True):
            place = place.to(value.device)
            fits[..., place] = part.check(value[..., place])
        return fits


class Columns(TorchDistribution):
    """Columns in groups, of one distribution each, as the entries of one row.

    Parameters
    ----------
    groups
        Distributions of batch shape ``(*batch, columns of the group)``.
    places
        Of each group, which columns these are.
    order
        Where each column stands among those of all groups, one after the other.

    Examples
    --------
    >>> import pyro.distributions as dist
    >>> normal = dist.Normal(torch.zeros(7, 2), 1.0)
    >>> bits = dist.Bernoulli(torch.full((7, 1), 0.3))
    >>> places = [torch.tensor([0, 2]), torch.tensor([1])]
    >>> p = Columns([normal, bits], places, torch.tensor([0, 2, 1]))
    >>> p.batch_shape, p.mean[0]
    (torch.Size([7, 3]), tensor([0.0000, 0.3000, 0.0000]))
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(self, groups: Sequence[Any], places: Sequence[Tensor], order: Tensor) -> None:
        self.groups, self.places, self.order = groups, places, order
        batch = torch.broadcast_shapes(*(group.batch_shape[:-1] for group in groups))
        super().__init__(torch.Size((*batch, len(order))), validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        return _ByColumn([group.support for group in self.groups], self.places)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-probability of each column, shape ``(*batch, column)``."""
        return self._together(
            [
                group.log_prob(value.index_select(-1, place))
                for group, place in zip(self.groups, self.places, strict=True)
            ]
        )

    def sample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:
        """Rows of numbers, shape ``(*sample, *batch, column)``."""
        with torch.no_grad():
            return self._of_each(lambda group: group.sample(torch.Size(sample_shape)))

    @property
    def mean(self) -> Tensor:
        """The means of columns, NaN where there is none, as of categories."""
        return self._of_each(lambda group: group.mean)

    @property
    def mode(self) -> Tensor:
        """The modes of columns, or the mean of those that do not say it."""
        return self._of_each(_mode)

    @property
    def variance(self) -> Tensor:
        """The variances of columns, NaN where there is none."""
        return self._of_each(lambda group: group.variance)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> Columns:
        batch = tuple(batch_shape)[:-1]
        groups = [group.expand((*batch, group.batch_shape[-1])) for group in self.groups]
        return Columns(groups, self.places, self.order)

    def _of_each(self, what: Callable[[Any], Tensor]) -> Tensor:
        return self._together([what(group) for group in self.groups])

    def _together(self, parts: Sequence[Tensor]) -> Tensor:
        dtype = next((p.dtype for p in parts if p.is_floating_point()), torch.get_default_dtype())
        batch = torch.broadcast_shapes(*(part.shape[:-1] for part in parts))
        each = [part.to(dtype).expand(*batch, part.shape[-1]) for part in parts]
        return torch.cat(each, -1).index_select(-1, self.order)


def _mode(group: Any) -> Tensor:
    try:
        return group.mode
    except NotImplementedError:
        return group.mean


@DECODERS.register("mixed")
class MixedDecoder(Decoder):
    r"""Columns of a table, each of its kind, :math:`p(x \mid z) = \prod_j p_j(x_j \mid f_j(z))`.

    Columns of the same likelihood are computed together. A missing cell leaves out its own term.

    Source: Nazabal et al. (2020), *Handling incomplete heterogeneous data using VAEs*, equation 3.

    Parameters
    ----------
    columns
        The likelihood of each column, as text: ``("normal", "categorical:levels=3")``. On the
        command line and within a choice, ``mixed:columns=(normal,categorical:levels=3)``.

    Raises
    ------
    ValueError
        If rows are no rows of a table, there are more or fewer columns than entries, or a column
        has an unknown likelihood, or one that is not of single cells.

    Examples
    --------
    >>> decoder = MixedDecoder(
    ...     nn.Linear(2, 5), event_shape=(3,), columns="(normal,categorical:levels=3,normal)"
    ... )
    >>> decoder.raw_shape
    (5,)
    >>> decoder(torch.zeros(7, 2)).log_prob(torch.ones(7, 3)).shape
    torch.Size([7])
    """

    accepts = "columns, each of its kind"
    support = constraints.real

    def __init__(
        self,
        network: nn.Module,
        event_shape: Sequence[int],
        columns: str | Sequence[str],
        *,
        center: float | Sequence[float] | Tensor = 0.0,
        spread: float | Sequence[float] | Tensor = 1.0,
    ) -> None:
        super().__init__(network, event_shape, center=center, spread=spread)
        self.choices = choices_of(columns)
        if self.event_shape != (len(self.choices),):
            raise ValueError(
                f"columns has {len(self.choices)} likelihoods but a row has shape "
                f"{self.event_shape}; pass one likelihood for each column of a table"
            )
        together: dict[str, list[int]] = {}
        for i, choice in enumerate(self.choices):
            together.setdefault(str(choice), []).append(i)
        self.groups = nn.ModuleList()
        accepted = []
        for number, (chosen, place) in enumerate(together.items()):
            group = DECODERS.build(
                chosen,
                network=nn.Identity(),
                event_shape=(len(place),),
                center=self.center[place] if self.center.dim() else self.center,
                spread=self.spread[place] if self.spread.dim() else self.spread,
            )
            of_rows = group.needs_missing or getattr(group, "library", None)
            if of_rows or isinstance(group, MixedDecoder):
                raise ValueError(
                    f"column {place[0]} is to have the likelihood {chosen!r}, which is not of "
                    "single cells; choose another for it"
                )
            self.groups.append(group)
            self.register_buffer(f"place_{number}", torch.tensor(place), persistent=False)
            more = f" and {len(place) - 3} more" if len(place) > 3 else ""
            accepted.append(f"{group.accepts} in column {', '.join(map(str, place[:3]))}{more}")
        order = torch.tensor([i for place in together.values() for i in place]).argsort()
        self.register_buffer("order", order, persistent=False)
        self.accepts = "; ".join(accepted)  # type: ignore[misc]
        self.support = _ByColumn(  # type: ignore[misc, assignment]
            [group.support for group in self._parts], [torch.tensor(p) for p in together.values()]
        )

    @property
    def _parts(self) -> list[Decoder]:
        return list(self.groups)  # type: ignore[arg-type]

    @property
    def raw_shape(self) -> tuple[int, ...]:
        """As many numbers as the columns take together."""
        return (sum(torch.Size(group.raw_shape).numel() for group in self._parts),)

    @classmethod
    def describes(
        cls, x: Tensor, feature_names: Sequence[str] | None = None
    ) -> dict[str, Any] | None:
        """The means and standard deviations of the columns of a table."""
        return located(x) if x.dim() == 2 and x.dtype != torch.uint8 else None

    @classmethod
    def unsuitable(cls, x: Tensor, feature_names: Sequence[str] | None = None) -> str | None:
        """Leave the choice to what is known of the columns, which numbers alone do not say."""
        return ""

    def likelihood(self, raw: Tensor) -> TorchDistributionMixin:
        sizes = [torch.Size(group.raw_shape).numel() for group in self._parts]
        entries = [
            group.likelihood(part.reshape(*raw.shape[:-1], *group.raw_shape))
            for group, part in zip(self._parts, raw.split(sizes, -1), strict=True)
        ]
        places = [getattr(self, f"place_{i}") for i in range(len(entries))]
        return Columns(entries, places, self.order)  # type: ignore[arg-type]


def choices_of(columns: str | Sequence[str]) -> tuple[Choice, ...]:
    """The likelihoods of columns, of a sequence or of text; all options are those of the last name.

    Raises
    ------
    ValueError
        If there is none, or one is unknown.

    Examples
    --------
    >>> [str(choice) for choice in choices_of("(normal,binomial:levels=5,high=4,beta)")]
    ['normal', 'binomial:levels=5,high=4', 'beta']
    """
    if isinstance(columns, str):
        parts: list[str] = []
        for part in split(columns.strip().removeprefix("(").removesuffix(")")):
            if parts and "=" in part and ":" not in part.partition("=")[0]:
                parts[-1] += f",{part.strip()}"
            else:
                parts.append(part.strip().strip("'\""))
        columns = parts
    if not (isinstance(columns, list | tuple) and columns):
        raise ValueError(
            f"columns is {columns!r}; pass one likelihood for each column, such as "
            "mixed:columns=(normal,categorical:levels=3)"
        )
    return tuple(DECODERS.check(Choice.of(each)) for each in columns)
