"""What the dimensions of data are called in Datasets and DataTrees."""

from __future__ import annotations

__all__ = ["event_dims"]

from collections.abc import Sequence


def event_dims(event_shape: Sequence[int]) -> tuple[str, ...]:
    """The names of the dimensions of a row of data.

    Examples
    --------
    >>> event_dims((28, 28))
    ('pixel_y', 'pixel_x')
    """
    named = {1: ("feature",), 2: ("pixel_y", "pixel_x"), 3: ("channel", "pixel_y", "pixel_x")}
    return named.get(len(event_shape), tuple(f"x_dim_{i}" for i in range(len(event_shape))))
