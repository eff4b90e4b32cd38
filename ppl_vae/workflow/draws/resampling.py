"""Draws of equal weights out of draws with weights."""

from __future__ import annotations

__all__ = ["resampled"]

import torch
from torch import Tensor


def resampled(z: Tensor, log_weight: Tensor) -> Tensor:
    """As many latents of each row, ``(draw, row, latent)``, of equal weights, in their order.

    Resampling is systematic (Kitagawa, 1996), by torch's random state. Where a weight is not
    finite, draws are taken as if all weighed the same.

    Parameters
    ----------
    z
        Latents ``(draw, row, latent)``.
    log_weight
        Their log-weights ``(draw, row)``, nats.

    Examples
    --------
    >>> z = torch.arange(3.0).reshape(3, 1, 1)
    >>> resampled(z, torch.tensor([[0.0], [-100.0], [-100.0]])).flatten()
    tensor([0., 0., 0.])
    """
    share = log_weight.double().softmax(0).T.contiguous()  # (row, draw)
    share = share.masked_fill(~share.isfinite().all(1, keepdim=True), 1 / len(z))
    reached = share.cumsum(1)
    start = torch.rand(len(share), 1, dtype=share.dtype, device=share.device)
    points = (start + torch.arange(len(z), device=share.device)) / len(z)
    index = torch.searchsorted(reached, points * reached[:, -1:]).clamp(max=len(z) - 1)
    return z.gather(0, index.T[..., None].expand_as(z))
