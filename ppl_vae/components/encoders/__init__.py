"""q(z|x): the amortized guide's distribution over latents, computed by a network row by row."""

from __future__ import annotations

__all__ = [
    "ENCODERS",
    "Encoder",
    "FlowEncoder",
    "FullRankEncoder",
    "LadderEncoder",
    "LowRankEncoder",
    "MixtureEncoder",
    "NormalEncoder",
]

from .encoder import ENCODERS, Encoder
from .flow import FlowEncoder
from .ladder import LadderEncoder
from .mixture import MixtureEncoder
from .normal import FullRankEncoder, LowRankEncoder, NormalEncoder
