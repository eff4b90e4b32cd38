"""log p(x) of entries that are independent of each other: what any VAE should beat."""

from __future__ import annotations

__all__ = ["independent_log_prob"]

import copy
from typing import Any

import torch
from torch import Tensor

from ..rows import to_float


def independent_log_prob(decoder: Any, train: Tensor, test: Tensor) -> Tensor:
    r"""log p(x) of each test row under entries that are independent: what any VAE should beat.

    The decoder's own likelihood with one constant for each entry in place of its network, fitted
    to training rows (10,000 at most) by maximum a posteriori, under a weak
    :math:`\mathcal{N}(0, 5^2)` prior that keeps pixels which never vary finite.

    Parameters
    ----------
    decoder
        Its likelihood is copied and not changed.
    train, test
        Rows, shape ``(row, *event)``, with NaN for missing entries.

    Returns
    -------
    Nats, shape ``(row,)``.
    """
    decoder = copy.deepcopy(decoder).double().cpu()
    decoder.network = torch.nn.Identity()
    train, test = (to_float(x.cpu(), torch.float64) for x in (train[:10_000], test))
    raw = torch.zeros(decoder.event_shape, dtype=torch.float64, requires_grad=True)
    parameters = [raw, *decoder.parameters()]
    optimizer = torch.optim.LBFGS(parameters, max_iter=100, line_search_fn="strong_wolfe")

    def entries(x: Tensor) -> Tensor:
        observed = ~x.isnan()
        return decoder.likelihood(raw).log_prob(x.nan_to_num(nan=0.0)) * observed

    def loss() -> Tensor:
        optimizer.zero_grad()
        penalty = sum((p / 5).square().sum() for p in parameters) / 2
        value = (penalty - entries(train).sum()) / len(train)
        value.backward()
        return value

    optimizer.step(loss)
    with torch.no_grad():
        return torch.cat([entries(x).flatten(1).sum(1) for x in test.split(1000)])
