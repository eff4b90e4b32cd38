"""What likelihoods of codes 0, 1, ... have in common, whether these have an order or not."""

from __future__ import annotations

__all__ = ["CodesDecoder"]

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.distributions import constraints

from .decoder import Decoder, located, observed_values

# Codes of rows in which higher ones occur are rather counts, and are not looked at any further.
_HIGHEST = 255


class CodesDecoder(Decoder):
    """One of ``levels`` codes an entry.

    A subclass says ``called``, what codes stand for, and of which distribution they are.

    Parameters
    ----------
    levels
        The number of codes, 0 to ``levels - 1``.

    Raises
    ------
    ValueError
        If ``levels`` is below 2.
    """

    support = constraints.nonnegative_integer
    called: ClassVar[str]

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
            raise ValueError(f"levels is {levels!r}; pass the number of {self.called}, at least 2")
        self.levels = levels
        self.support = constraints.integer_interval(0, levels - 1)  # type: ignore[misc,assignment]
        self.accepts = f"{self.called} from 0 to {levels - 1}"  # type: ignore[misc]

    @classmethod
    def describes(
        cls, x: Tensor, feature_names: Sequence[str] | None = None
    ) -> dict[str, Any] | None:
        """Return the number of levels, if all values are whole numbers of at most 255."""
        values = observed_values(x)
        if not (cls.support.check(values).all() and values.max() <= _HIGHEST):
            return None
        return {"levels": int(values.max()) + 1, **located(x)}

    @classmethod
    def unsuitable(cls, x: Tensor, feature_names: Sequence[str] | None = None) -> str | None:
        """Leave the choice to the user, who alone knows whether numbers stand for something."""
        return ""
