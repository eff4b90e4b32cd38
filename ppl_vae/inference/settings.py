"""What a fit that goes on must agree with the one before in: its model, objective and functions."""

from __future__ import annotations

__all__ = ["description", "name_of", "settings_of"]

from typing import Any

from pyro.infer import ELBO
from torch import Tensor

from ..amortized import AmortizedModel
from .objectives import RowObjective


def description(vae: AmortizedModel) -> Any:
    config = getattr(vae, "config", None)
    return config.model_dump() if config else repr(vae)


def name_of(function: Any) -> str:
    return getattr(function, "__qualname__", type(function).__qualname__)


def settings_of(objective: ELBO) -> dict[str, Any]:
    """What a resumed fit must agree with of an objective, of Pyro's and users' own too."""
    if isinstance(objective, RowObjective):
        return objective.settings()
    numbers = {}
    for name, value in vars(objective).items():
        if isinstance(value, Tensor) and value.numel() == 1:
            value = value.item()
        if isinstance(value, int | float | str | bool) and not name.startswith("_"):
            numbers[name] = value
    return {"objective": type(objective).__name__, **numbers}
