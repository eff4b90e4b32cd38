"""Colors that pictures share: told apart by any eye, and dark enough for a white page."""

from __future__ import annotations

__all__ = [
    "COLORS",
    "COLORS_ON_DARK",
    "MARKERS",
    "VERDICT_COLORS",
    "VERDICT_COLORS_ON_DARK",
    "contrast",
    "marker",
    "ramp",
]

import numpy as np

# Ten that were placed by annealing as far from each other as possible in OKLab (Ottosson 2020), to
# usual eyes and to those without red or green cones (Machado et al. 2009), each with a contrast
# of at least 3:1 to its page, as WCAG 2.2 asks of graphics (1.4.11).
COLORS = (
    *("#065BFA", "#FF330C", "#488F19", "#A02843", "#8A0CC0"),
    *("#5F3103", "#D867A2", "#5895E5", "#186379", "#1A1A1A"),
)
COLORS_ON_DARK = (
    *("#48D4FC", "#CE650A", "#54C520", "#DF306F", "#8384FA"),
    *("#B7B091", "#D97EC0", "#EDE357", "#34F5B1", "#F5F5F5"),
)
MARKERS = "os^D"
VERDICT_COLORS = {
    "as it is": "#488F19",
    "reweighted": "#5895E5",
    "refined": "#8A0CC0",
    "not": "#FF330C",
    "not tried": "#767676",
}
VERDICT_COLORS_ON_DARK = {
    "as it is": "#54C520",
    "reweighted": "#48D4FC",
    "refined": "#B79CFF",
    "not": "#FF6B4A",
    "not tried": "#A3A3A3",
}
# Shares of the colormap cividis that have enough contrast to a white and to a dark page.
_SHARES = {False: (0.0, 0.62), True: (0.42, 1.0)}


def marker(kind: int) -> str:
    """The marker of a kind: twenty kinds have twenty pairs of a color and a marker.

    Examples
    --------
    >>> len({(COLORS[i % len(COLORS)], marker(i)) for i in range(20)})
    20
    """
    return MARKERS[kind % len(MARKERS)]


def ramp(steps: int, *, on_dark: bool = False) -> list[str]:
    """Colors for low to high numbers, ``steps`` of them.

    Examples
    --------
    >>> ramp(3)
    ['#00224e', '#52596d', '#999277']
    """
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    low, high = _SHARES[on_dark]
    return [to_hex(color) for color in colormaps["cividis"](np.linspace(low, high, steps))]


def contrast(color: str, page: str = "#FFFFFF") -> float:
    """The contrast of two colors, 1 to 21 (WCAG 2.2, 1.4.11 asks for 3 of graphics).

    Examples
    --------
    >>> contrast("#000000")
    21.0
    """
    from matplotlib.colors import to_rgb

    luminance = []
    for one in (color, page):
        part = np.array(to_rgb(one))
        linear = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
        luminance.append(float(linear @ [0.2126, 0.7152, 0.0722]))
    return round((max(luminance) + 0.05) / (min(luminance) + 0.05), 2)
