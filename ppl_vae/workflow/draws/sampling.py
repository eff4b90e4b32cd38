"""Which rows a check takes, and the seed of each of its stages."""

from __future__ import annotations

__all__ = ["REFINED_DRAWS", "spread", "stage_seed"]

import numpy as np

# Draws that refined rows are judged by, at least.
REFINED_DRAWS = 2000


def spread(indices: np.ndarray, most: int) -> np.ndarray:
    """At most so many of the indices, evenly spread."""
    if len(indices) <= most:
        return indices
    return indices[np.linspace(0, len(indices) - 1, most).round().astype(int)]


def stage_seed(seed: int, stage: int) -> int:
    """A seed for each stage, different for every seed."""
    return int(np.random.SeedSequence([seed, stage]).generate_state(1)[0])
