"""What comes before an encoder's network: standardizing, and telling it what is missing."""

from __future__ import annotations

__all__ = ["Inputs"]

from collections.abc import Sequence

import torch
from torch import Tensor, nn


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
    ) -> None:
        super().__init__()
        self.missing = missing
        self.event_dim = event_dim
        dtype = torch.get_default_dtype()
        center, spread = torch.as_tensor(center, dtype=dtype), torch.as_tensor(spread, dtype=dtype)
        self.standardizes = bool(center.any() or (spread != 1).any())
        if self.standardizes:
            self.register_buffer("center", center.clone())  # a copy, as the decoder has its own
            self.register_buffer("spread", spread.clone())

    def forward(self, x: Tensor) -> Tensor:
        if self.standardizes:
            x = (x - self.center) / self.spread
        if not self.missing:
            return x
        observed = ~x.isnan()
        return torch.stack([x.nan_to_num(nan=0.0), observed.to(x.dtype)], dim=-1 - self.event_dim)

    def extra_repr(self) -> str:
        return f"standardizes={self.standardizes}, missing={self.missing}"
