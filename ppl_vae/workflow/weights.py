"""Importance weights of a row: what they say of its log p(x), with errors and intervals."""

from __future__ import annotations

__all__ = ["average_weight", "evidence_dataset"]

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from .khat import smoothed_tail_index

if TYPE_CHECKING:
    import xarray as xr


def average_weight(log_weight: Tensor) -> dict[str, Tensor]:
    """What weights of shape ``(draw, row)`` say of each row's log p(x); k is NaN below 30 draws."""
    log_weight = log_weight.double()
    size = len(log_weight)
    total = log_weight.logsumexp(0)
    share = (log_weight - total).exp()  # (draw, row), sums to one over draws
    # Var(mean weight) / (mean weight)^2, with the shares' mean being 1 / size.
    variance = (share - 1 / size).square().sum(0) * size / (size - 1)
    few = np.full(log_weight.shape[1], np.nan)
    return {
        "log_evidence": total - math.log(size),
        "standard_error": variance.sqrt(),
        "pareto_k": torch.as_tensor(
            few if size < 30 else smoothed_tail_index(log_weight.T.cpu().numpy())
        ),
        "elbo": log_weight.mean(0),
    }


def evidence_dataset(arrays: Mapping[str, np.ndarray], **attrs: str | int) -> xr.Dataset:
    """Arrays over rows, in nats but for ``pareto_k``, with how they came about."""
    import xarray as xr

    units = {name: {} if name == "pareto_k" else {"unit": "nats"} for name in arrays}
    return xr.Dataset(
        {name: ("row", values, units[name]) for name, values in arrays.items()},
        coords={"row": range(len(arrays["log_evidence"]))},
        attrs=attrs,
    )
