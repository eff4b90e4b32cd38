"""p(z): what is believed of the latents before any data."""

from __future__ import annotations

__all__ = ["PRIORS", "MixturePrior", "Prior", "StandardNormal", "VampPrior"]

from .mixture import MixturePrior
from .prior import PRIORS, Prior
from .standard_normal import StandardNormal
from .vamp import VampPrior
