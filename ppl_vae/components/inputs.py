"""What comes before an encoder's network: standardizing, and telling it what is missing."""

from __future__ import annotations

__all__ = ["Inputs", "TableInputs"]

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .moments import count_moments, log_moments

# Likelihoods of counts, whose logarithms the network reads.
_COUNTS = ("negative_binomial", "poisson", "zero_inflated_negative_binomial")


class Inputs(nn.Module):
    """Rows as an encoder's network sees them: ``(x - center) / spread``.

    Parameters
    ----------
    center, spread
        Numbers, or one for each entry of a row. A center of 0 and a spread of 1 cost nothing.
    missing
        Whether rows may hold missing entries (NaN). These are filled with ``center``, and the
        network is given, stacked before the dimensions of a row, the filled entries and the mask
        of what was observed: events of shape ``(2, *event)``.
    logs
        Whether the network sees ``log(1 + x)`` of counts, standardized by its moments to first
        order.
    event_dim
        The number of dimensions of a row; needed with ``missing`` alone.

    Examples
    --------
    >>> x = torch.tensor([[1.0, torch.nan]])
    >>> Inputs(center=3.0, spread=2.0, missing=True, event_dim=1)(x)
    tensor([[[-1.,  0.],
             [ 1.,  0.]]])
    """

    center: Tensor
    spread: Tensor

    def __init__(
        self,
        *,
        center: float | Sequence[float] | Tensor = 0.0,
        spread: float | Sequence[float] | Tensor = 1.0,
        missing: bool = False,
        event_dim: int = 1,
        logs: bool = False,
    ) -> None:
        super().__init__()
        self.missing = missing
        self.event_dim = event_dim
        self.logs = logs
        dtype = torch.get_default_dtype()
        center, spread = torch.as_tensor(center, dtype=dtype), torch.as_tensor(spread, dtype=dtype)
        if logs:
            low = center.clamp(min=0.0)
            center, spread = low.log1p(), spread / (1 + low)
        self.standardizes = bool(center.any() or (spread != 1).any())
        if self.standardizes:
            self.register_buffer("center", center.clone())  # a copy, as the decoder has its own
            self.register_buffer("spread", spread.clone())

    def forward(self, x: Tensor) -> Tensor:
        if self.logs:
            x = x.log1p()
        if self.standardizes:
            x = (x - self.center) / self.spread
        if not self.missing:
            return x
        observed = ~x.isnan()
        return torch.stack([x.nan_to_num(nan=0.0), observed.to(x.dtype)], dim=-1 - self.event_dim)

    def back(self, seen: Tensor) -> Tensor:
        """Rows that the network would see so, of which none is missing."""
        if self.standardizes:
            seen = self.center + self.spread * seen
        return seen.clamp(min=0.0).expm1() if self.logs else seen

    def extra_repr(self) -> str:
        return f"standardizes={self.standardizes}, missing={self.missing}, logs={self.logs}"


class TableInputs(nn.Module):
    """Rows of columns of several kinds as an encoder's network sees them: one flat vector.

    Categories are one-hot, levels in order a thermometer (is it above 0, above 1, ...), positive
    numbers standardized logarithms, counts standardized ``log(1 + x)``, and all others
    ``(x - center) / spread``. A missing cell is zero in all of its features.

    Parameters
    ----------
    columns
        The likelihood of each column: its name and its options.
    center, spread
        Numbers, or one for each column, in the units of the data.
    missing
        Whether cells may be missing (NaN). Then the mask of what was observed, a feature for each
        column, follows the features.

    Attributes
    ----------
    width
        The number of features.

    Examples
    --------
    >>> inputs = TableInputs([("normal", {}), ("categorical", {"levels": 3})], missing=True)
    >>> inputs(torch.tensor([[0.5, 2.0], [1.0, torch.nan]]))
    tensor([[0.5000, 0.0000, 0.0000, 1.0000, 1.0000, 1.0000],
            [1.0000, 0.0000, 0.0000, 0.0000, 1.0000, 0.0000]])
    """

    center: Tensor
    spread: Tensor
    column: Tensor
    level: Tensor
    codes: Tensor
    above: Tensor
    logs: Tensor
    counts: Tensor
    # Its features have no center of their own.
    standardizes = False

    def __init__(
        self,
        columns: Sequence[tuple[str, Mapping[str, Any]]],
        *,
        center: float | Sequence[float] | Tensor = 0.0,
        spread: float | Sequence[float] | Tensor = 1.0,
        missing: bool = False,
    ) -> None:
        super().__init__()
        self.missing = missing
        dtype = torch.get_default_dtype()
        names = [name for name, _ in columns]
        logs = torch.tensor([name == "log_normal" for name in names])
        counts = torch.tensor([name in _COUNTS for name in names])
        center, spread = (
            torch.as_tensor(each, dtype=torch.float64).expand(len(columns)).clone()
            for each in (center, spread)
        )
        scales = [log_moments(center, spread), count_moments(center, spread), (center, spread)]
        center, spread = (
            torch.where(logs, of_logs, torch.where(counts, of_counts, plain))
            for of_logs, of_counts, plain in zip(*scales, strict=True)
        )
        features = []  # (column, level, whether it is one of codes, and whether it says "above")
        for i, (name, options) in enumerate(columns):
            if name == "categorical":
                features += [(i, k, True, False) for k in range(options["levels"])]
            elif name == "ordinal":
                features += [(i, k, True, True) for k in range(options["levels"] - 1)]
            else:
                features.append((i, 0, False, False))
        column, level, codes, above = zip(*features, strict=True)
        self.register_buffer("center", center.to(dtype))
        self.register_buffer("spread", spread.to(dtype))
        self.register_buffer("column", torch.tensor(column), persistent=False)
        self.register_buffer("level", torch.tensor(level, dtype=dtype), persistent=False)
        self.register_buffer("codes", torch.tensor(codes), persistent=False)
        self.register_buffer("above", torch.tensor(above), persistent=False)
        self.register_buffer("logs", logs, persistent=False)
        self.register_buffer("counts", counts, persistent=False)
        self.width = len(features) + missing * len(columns)

    def forward(self, x: Tensor) -> Tensor:
        observed = ~x.isnan()
        x = torch.where(observed, x, 1.0)
        plain = torch.where(self.logs, torch.where(self.logs, x, 1.0).log(), x)
        plain = torch.where(self.counts, torch.where(self.counts, x, 1.0).log1p(), plain)
        plain = (plain - self.center) / self.spread
        cells = x.index_select(-1, self.column)  # (*batch, feature)
        coded = torch.where(self.above, cells > self.level, cells == self.level).to(x.dtype)
        found = torch.where(self.codes, coded, plain.index_select(-1, self.column))
        found = torch.where(observed.index_select(-1, self.column), found, 0.0)
        return torch.cat([found, observed.to(x.dtype)], -1) if self.missing else found

    def extra_repr(self) -> str:
        return f"columns={len(self.logs)}, width={self.width}, missing={self.missing}"
