"""Sprites: images of one shape each, made here, whose every factor of variation is known."""

from __future__ import annotations

__all__ = ["SIDE", "read_sprites"]

import numpy as np
import torch
from torch import Tensor

from .dataset import Dataset

SIDE = 32
# Half the length of a sprite and where its center lies, in halves of the image: none is cut off.
_SIZES = (0.3, 0.5, 4)
_PLACES = (-0.44, 0.44, 8)
# A quarter of a circle, as a rectangle and an ellipse look the same after half of one: no two
# angles have the same image, and the last is not the first one's neighbor.
_ANGLES = (0.0, 90.0, 8)
_SHAPES = ("ellipse", "rectangle", "triangle")


def read_sprites(side: int = SIDE) -> Dataset:
    """Draw every combination of shape, size, angle, x and y once: 6,144 images of bits.

    A small relative of dSprites (Matthey et al., 2017), in which the factors are independent of
    each other. Its labels are the shapes.

    Parameters
    ----------
    side
        Pixels along a side of an image.

    Returns
    -------
    Dataset
        ``x`` is ``(row, side, side)``, of 0 and 1. ``factors`` are ``shape`` in words, ``size``
        (half the length) and ``x`` and ``y`` (the center, to the right and down) in halves of the
        image, and ``angle`` in degrees.

    Raises
    ------
    ValueError
        If ``side`` is so small that different sprites would have the same image.

    Examples
    --------
    >>> sprites = read_sprites()
    >>> sprites.x.shape, {name: len(set(values)) for name, values in sprites.factors.items()}
    (torch.Size([6144, 32, 32]), {'shape': 3, 'size': 4, 'angle': 8, 'x': 8, 'y': 8})
    """
    if side < SIDE:
        raise ValueError(
            f"image_size is {side}, too few pixels to tell sprites apart; pass at least {SIDE}"
        )
    grid = np.meshgrid(
        np.arange(len(_SHAPES)),
        *(np.linspace(*values) for values in (_SIZES, _ANGLES, _PLACES, _PLACES)),
        indexing="ij",
    )
    kind, size, angle, x, y = (values.reshape(-1) for values in grid)
    numbers = [torch.from_numpy(values) for values in (kind, size, angle, x, y)]
    shape = np.array(_SHAPES)[kind]
    factors = {"shape": shape, "size": size, "angle": angle, "x": x, "y": y}
    return Dataset(
        "sprites",
        _drawn(side, *numbers),
        shape,
        None,
        f"every combination of {', '.join(factors)}, drawn by ppl_vae",
        factors,
    )


def _drawn(side: int, kind: Tensor, size: Tensor, angle: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Images of sprites, each factor of shape ``(row,)``: ``(row, side, side)``."""
    pixel = (2 * torch.arange(side) + 1) / side - 1
    across = pixel - x[:, None]  # (row, column)
    down = pixel - y[:, None]  # (row, line)
    cos, sin = torch.deg2rad(angle).cos() / size, torch.deg2rad(angle).sin() / size
    # Places along the sprite and beside it, where its ends are -1 and 1: (row, line, column).
    along = cos[:, None, None] * across[:, None] + sin[:, None, None] * down[..., None]
    beside = cos[:, None, None] * down[..., None] - sin[:, None, None] * across[:, None]
    kind = kind[:, None, None]
    half_width = torch.where(kind == _SHAPES.index("triangle"), (1 - along) / 2, 0.5)
    ellipse = kind == _SHAPES.index("ellipse")
    half_width = torch.where(ellipse, (1 - along.square()).clamp(min=0.0).sqrt() / 2, half_width)
    return ((along.abs() <= 1) & (beside.abs() <= half_width)).float()
