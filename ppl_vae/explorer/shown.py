"""Rows as a page shows them: images as PNG in a link, tables as text."""

from __future__ import annotations

__all__ = ["cells", "png_link", "shown_range"]

import base64
import io
from collections.abc import Sequence

import numpy as np

from ..data import ColumnKind
from ..pictures.panels import data_range


def shown_range(x: np.ndarray) -> tuple[float, float]:
    """The values that are black and white in images ``(row, *event)``."""
    return data_range(x[:1000])


def png_link(image: np.ndarray, limits: tuple[float, float]) -> str:
    """An image ``(height, width)`` or ``(channel, height, width)`` as a ``data:`` link.

    Three channels are red, green and blue; of two or of more than three the first is shown.

    Examples
    --------
    >>> png_link(np.eye(8), (0.0, 1.0))[:22]
    'data:image/png;base64,'
    """
    from PIL import Image

    if image.ndim == 3:
        image = np.moveaxis(image, 0, -1) if len(image) == 3 else image[0]
    low, high = limits
    scaled = np.nan_to_num((image - low) / max(high - low, 1e-12))
    picture = Image.fromarray((255 * np.clip(scaled, 0, 1)).round().astype(np.uint8))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def cells(values: np.ndarray, columns: Sequence[ColumnKind] | None) -> list[str]:
    """The cells of a row of a table as text: levels by their names, and what is missing.

    Examples
    --------
    >>> kinds = (ColumnKind("sex", "binary", ("female", "male")), ColumnKind("age", "real"))
    >>> cells(np.array([1.0, 41.25]), kinds), cells(np.array([np.nan]), None)
    (['male', '41.25'], ['missing'])
    """
    said = []
    for i, value in enumerate(values.ravel()):
        levels = columns[i].levels if columns else None
        if not np.isfinite(value):
            said.append("missing")
        elif levels:
            code = int(np.clip(round(float(value)), 0, len(levels) - 1))
            said.append(levels[code])
        else:
            said.append(f"{float(value):.4g}")
    return said
