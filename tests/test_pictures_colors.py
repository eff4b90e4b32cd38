"""Colors: enough contrast to the page, and apart from each other to every eye."""

import itertools

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from ppl_vae.pictures.colors import (
    COLORS,
    COLORS_ON_DARK,
    VERDICT_COLORS,
    VERDICT_COLORS_ON_DARK,
    contrast,
    marker,
    ramp,
)

DARK_PAGE = "#14171C"
# Machado et al. (2009), severity 1, on linear red, green and blue.
EYES = {
    "usual": np.eye(3),
    "without red cones": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "without green cones": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
}


def oklab(color, eye):
    """Ottosson (2020)."""
    c = np.array(to_rgb(color))
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    lms = np.clip(np.asarray(EYES[eye]) @ linear, 0, 1) @ [
        [0.4122214708, 0.2119034982, 0.0883024619],
        [0.5363325363, 0.6806995451, 0.2817188376],
        [0.0514459929, 0.1073969566, 0.6299787005],
    ]
    return np.cbrt(lms) @ [
        [0.2104542553, 1.9779984951, 0.0259040371],
        [0.7936177850, -2.4285922050, 0.7827717662],
        [-0.0040720468, 0.4505937099, -0.8086757660],
    ]


@pytest.mark.parametrize(
    ("colors", "page"),
    [
        (COLORS, "#FFFFFF"),
        (VERDICT_COLORS.values(), "#FFFFFF"),
        (ramp(7), "#FFFFFF"),
        (COLORS_ON_DARK, DARK_PAGE),
        (VERDICT_COLORS_ON_DARK.values(), DARK_PAGE),
        (ramp(7, on_dark=True), DARK_PAGE),
    ],
)
def test_contrast_to_the_page(colors, page):
    assert min(contrast(color, page) for color in colors) >= 3


@pytest.mark.parametrize("colors", [COLORS, COLORS_ON_DARK])
def test_ten_colors_are_apart_to_every_eye(colors):
    """A hundredth in OKLab is about what can just be seen side by side."""
    assert len(colors) == 10
    for eye, least in (("usual", 0.15), ("without red cones", 0.08), ("without green cones", 0.08)):
        places = [oklab(color, eye) for color in colors]
        apart = [np.linalg.norm(a - b) for a, b in itertools.combinations(places, 2)]
        assert min(apart) > least, eye


def test_twenty_kinds_have_twenty_signs():
    assert len({(COLORS[i % len(COLORS)], marker(i)) for i in range(20)}) == 20
