"""log p(x) of entries that are independent of each other: what any VAE should beat."""

from __future__ import annotations

__all__ = ["independent_log_prob"]

import copy
from typing import Any

import torch
from torch import Tensor, nn

from ...rows import to_float


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

    Raises
    ------
    TypeError
        If the decoder has no network that constants could replace.
    """
    if not isinstance(getattr(decoder, "network", None), nn.Module):
        raise TypeError(
            f"{type(decoder).__name__} has no attribute network, whose place constants could take; "
            "derive it from Decoder to have a baseline"
        )
    decoder = copy.deepcopy(decoder).double().cpu().eval()
    decoder.network = _Constants(_output_shape(decoder))
    train, test = (to_float(x.cpu(), torch.float64) for x in (train[:10_000], test))
    parameters = list(decoder.parameters())
    optimizer = torch.optim.LBFGS(parameters, max_iter=100, line_search_fn="strong_wolfe")
    latents = torch.zeros(1, 1, dtype=torch.float64)

    def log_prob(x: Tensor) -> Tensor:
        observed = ~x.isnan()
        if observed.all():
            return decoder(latents).log_prob(x)
        return decoder(latents, None, observed).log_prob(x.nan_to_num(nan=0.0))

    def loss() -> Tensor:
        optimizer.zero_grad()
        penalty = sum((p / 5).square().sum() for p in parameters) / 2
        value = (penalty - log_prob(train).sum()) / len(train)
        value.backward()
        return value

    optimizer.step(loss)
    with torch.no_grad():
        return torch.cat([log_prob(x) for x in test.split(1000)])


class _Constants(nn.Module):
    """What stands in for a network: the same numbers, whatever the latents."""

    def __init__(self, shape: torch.Size) -> None:
        super().__init__()
        self.raw = nn.Parameter(torch.zeros(shape, dtype=torch.float64))

    def forward(self, z: Tensor, *_: Tensor) -> Tensor:
        return self.raw.expand(*z.shape[:-1], *self.raw.shape)


@torch.no_grad()
def _output_shape(decoder: Any) -> torch.Size:
    """The shape of what a decoder's network returns for one row."""
    network = decoder.network
    reads = getattr(network, "in_shape", None) or [
        next(m.in_features for m in network.modules() if hasattr(m, "in_features"))
    ]
    try:
        return network(torch.zeros(1, *reads, dtype=torch.float64)).shape[1:]
    except (TypeError, RuntimeError):  # it reads covariates too
        return torch.Size(decoder.raw_shape)
