"""q(z|x): the amortized guide's distribution over latents, computed by a network row by row."""

from __future__ import annotations

__all__ = ["ENCODERS", "Encoder", "FullRankEncoder", "NormalEncoder"]

from .encoder import ENCODERS, Encoder
from .normal import FullRankEncoder, NormalEncoder
