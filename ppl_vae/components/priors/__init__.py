"""p(z): what is believed of the latents before any data."""

from __future__ import annotations

__all__ = [
    "PRIORS",
    "ConditionalPrior",
    "FlowPrior",
    "LadderPrior",
    "MixturePrior",
    "Prior",
    "StandardNormal",
    "VampPrior",
]

from .conditional import ConditionalPrior
from .flow import FlowPrior
from .ladder import LadderPrior
from .mixture import MixturePrior
from .prior import PRIORS, Prior
from .standard_normal import StandardNormal
from .vamp import VampPrior
