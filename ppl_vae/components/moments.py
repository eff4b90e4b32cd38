"""Moments of positive numbers on the logarithmic scales that decoders and encoders work on."""

from __future__ import annotations

__all__ = ["count_moments", "log_moments"]

import torch
from torch import Tensor


def log_moments(center: Tensor, spread: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of log x, of a log-normal x of these moments.

    Where ``center`` is not positive, as by default, they are 0 and 1.

    Examples
    --------
    >>> log_moments(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 1.0]))
    (tensor([ 0.0000, -0.3466]), tensor([1.0000, 0.8326]))
    """
    known = center > 0
    # A single precision square of 1e22 or 1e-26 would leave what can be written: divide first.
    ratio = (spread / torch.where(known, center, 1.0)).clamp(1e-6, 1e3)
    variance = ratio.square().log1p()
    mean = torch.where(known, center, 1.0).log() - variance / 2
    return torch.where(known, mean, 0.0), torch.where(known, variance.sqrt(), 1.0)


def count_moments(center: Tensor, spread: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of log(1 + x), to first order, of a count x of these moments.

    Examples
    --------
    >>> count_moments(torch.tensor([1.0]), torch.tensor([2.0]))
    (tensor([0.6931]), tensor([1.]))
    """
    low = center.clamp(min=0.0)
    return low.log1p(), spread / (1 + low)
