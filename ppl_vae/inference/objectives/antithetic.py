"""Draws in pairs that mirror each other, whose errors cancel in part."""

from __future__ import annotations

__all__ = ["Mirrored", "mirrored"]

from collections.abc import Callable
from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from pyro.poutine.runtime import Message
from pyro.poutine.util import site_is_subsample
from torch import distributions

_SYMMETRIC = (
    distributions.Normal,
    distributions.MultivariateNormal,
    distributions.LowRankMultivariateNormal,
    distributions.StudentT,
    distributions.Laplace,
)


class Mirrored(Messenger):
    """Makes the second half of the particles of each latent the mirror image of the first.

    Particles are the first dimension of a draw.
    """

    def _pyro_sample(self, msg: Message[..., Any]) -> None:
        if msg["is_observed"] or msg["done"] or site_is_subsample(msg):
            return
        q: Any = msg["fn"]
        base = q
        while isinstance(base, distributions.Independent):
            base = base.base_dist
        if not isinstance(base, _SYMMETRIC):
            raise ValueError(
                f"antithetic is True, but the guide's site {msg['name']!r} is a "
                f"{type(base).__name__}, which is not known to be symmetric around its mean; pass "
                "antithetic=False"
            )
        z = q(*msg["args"], **msg["kwargs"])
        half = z[: len(z) // 2]
        msg["value"] = torch.cat([half, 2 * q.mean[: len(half)] - half])
        msg["done"] = True


def mirrored(guide: Callable[..., Any]) -> Callable[..., Any]:
    """The guide, whose particles come in pairs."""
    return Mirrored()(guide)
