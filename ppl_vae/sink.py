"""Where results by row go: to memory, or to whatever can be written a region at a time."""

from __future__ import annotations

__all__ = ["MemorySink", "Sink"]

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from torch import Tensor


class Sink(Protocol):
    """Takes results by row, a region of rows after the other, in any order.

    :class:`~ppl_vae.store.StoreSink` is one on disk.
    """

    def regions(self) -> Iterator[slice]:
        """The rows that are still to be computed, a region at a time."""

    def write(self, name: str, rows: slice, values: Tensor | np.ndarray) -> None:
        """Put ``values`` (row, ...) where ``rows`` of the array called ``name`` are."""

    def finish(self, region: slice) -> None:
        """Say that all rows of a region were written."""

    def arrays(self) -> dict[str, Any]:
        """Everything written, by name: arrays whose first dimension has all rows."""


class MemorySink:
    """Arrays in memory, of full length from the first region on.

    Parameters
    ----------
    num_rows
        How many rows there will be.

    Examples
    --------
    >>> sink = MemorySink(3)
    >>> sink.write("twice", slice(0, 2), np.array([0, 2]))
    >>> sink.write("twice", slice(2, 3), np.array([4]))
    >>> sink.arrays()["twice"].tolist()
    [0, 2, 4]
    """

    def __init__(self, num_rows: int) -> None:
        self._num_rows = num_rows
        self._arrays: dict[str, np.ndarray] = {}

    def regions(self) -> Iterator[slice]:
        """All rows are one region."""
        yield slice(0, self._num_rows)

    def write(self, name: str, rows: slice, values: Tensor | np.ndarray) -> None:
        """Put ``values`` (row, ...) where ``rows`` of the array called ``name`` are."""
        region = values.cpu().numpy() if isinstance(values, Tensor) else values
        if name not in self._arrays:
            self._arrays[name] = np.empty((self._num_rows, *region.shape[1:]), region.dtype)
        self._arrays[name][rows] = region

    def finish(self, region: slice) -> None:
        """Memory has nothing to do for it."""

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything written, by name."""
        return self._arrays
