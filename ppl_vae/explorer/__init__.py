"""The explorer: a local page on which to look at rows and to move through the latents."""

from __future__ import annotations

__all__ = ["Explored", "explore"]

from .explored import Explored
from .serving import explore
