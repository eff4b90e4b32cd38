"""The latent map as SVG in HTML, without a script: its reader chooses what colors say."""

from __future__ import annotations

__all__ = ["MAP_STYLE", "map_html"]

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from .coloring import Coloring, colorings, map_in_words
from .colors import (
    COLORS,
    COLORS_ON_DARK,
    MARKERS,
    VERDICT_COLORS,
    VERDICT_COLORS_ON_DARK,
    ramp,
)

if TYPE_CHECKING:
    import xarray as xr

# The picture's size, and its margins to the left, right, top and below, in its own units.
_WIDTH, _HEIGHT = 640, 560
_LEFT, _RIGHT, _TOP, _BELOW = 52, 12, 12, 46
_SHAPES = {
    "o": "<circle id='m{i}' r='4.2'/>",
    "s": "<rect id='m{i}' x='-3.8' y='-3.8' width='7.6' height='7.6'/>",
    "^": "<path id='m{i}' d='M0 -5.2 4.8 3.6H-4.8Z'/>",
    "D": "<path id='m{i}' d='M0 -5.4 5 0 0 5.4 -5 0Z'/>",
}
# What a diagnosis says of each row that a map can show.
_JUDGED = ("verdict", "pareto_k", "log_evidence")
# The variables that hold the colors of each coloring, and how many there are.
_VARIABLES = {"label": ("l", 10), "verdict": ("v", 5), "khat": ("r", 5), "evidence": ("r", 5)}


def _variables(name: str, colors: Sequence[str]) -> str:
    return "".join(f"--{name}{i}:{color};" for i, color in enumerate(colors))


def _fills() -> str:
    """Which color a class has, by what is chosen."""
    rules = []
    for key, (variable, count) in _VARIABLES.items():
        chosen = f".map:has(#by-{key}:checked)"
        for i in range(count):
            rules.append(f"{chosen} .{key}{i}{{fill:var(--{variable}{i})}}")
        rules.append(f"{chosen} .{key}x{{fill:none;stroke:currentColor}}")
        rules.append(f"{chosen} .legend-{key}{{display:flex}}")
    return "\n".join(rules)


MAP_STYLE = f"""
:root {{ {_variables("l", COLORS)}{_variables("v", list(VERDICT_COLORS.values()))}
  {_variables("r", ramp(5))} }}
@media (prefers-color-scheme: dark) {{ :root {{ {_variables("l", COLORS_ON_DARK)}
  {_variables("v", list(VERDICT_COLORS_ON_DARK.values()))}
  {_variables("r", ramp(5, on_dark=True))} }} }}
.map svg {{ display: block; width: 100%; height: auto; }}
.map text {{ fill: currentColor; font-size: 15px; }}
.map .frame {{ fill: none; stroke: currentColor; }}
.map fieldset {{ border: 0; padding: 0; margin: 0 0 .5rem; }}
.map fieldset legend {{ float: left; padding: .2rem .8rem .2rem 0; }}
.map label {{ display: inline-block; padding: .2rem .9rem .2rem 0; }}
.map .legend {{ display: none; flex-wrap: wrap; gap: .2rem 1rem; list-style: none;
  padding: 0; margin: .5rem 0; font-size: .9rem; }}
.map .legend svg {{ display: inline; width: .9em; height: .9em; margin-right: .35em; }}
{_fills()}
"""


def map_html(points: xr.Dataset, rows: xr.Dataset | None = None, *, max_rows: int = 1000) -> str:
    """A map of rows as HTML, to be colored by label, verdict, k-hat or log p(x).

    Nothing is loaded and nothing is run: what is chosen is a matter of ``MAP_STYLE``. A pointer
    that rests on a row is told which it is.

    Parameters
    ----------
    points
        From :func:`~ppl_vae.workflow.draws.plane.map_rows`.
    rows
        ``rows`` of a :class:`~ppl_vae.Diagnosis` of the same rows, if there is one.
    max_rows
        How many of the first rows are drawn.

    Raises
    ------
    KeyError, TypeError
        If a Dataset lacks what it should hold.
    """
    count = min(points.sizes["row"], max_rows)
    points = points.isel(row=slice(count))
    if rows is not None:
        rows = rows.isel(row=slice(count)) if rows.sizes["row"] >= count else None
    xy = np.column_stack([points["x"].values, points["y"].values]).astype(float)
    usable = np.isfinite(xy).all(1)
    labels = points["label"].values if "label" in points else None
    known = {} if rows is None else {name: rows[name].values for name in _JUDGED}
    found = colorings(
        count,
        labels=labels,
        verdict=known.get("verdict"),
        khat=known.get("pareto_k"),
        evidence=known.get("log_evidence"),
    )
    first = next(iter(found))
    marks = found["label"].classes if "label" in found else np.zeros(count, dtype=int)
    words = _words(labels, known, count)
    names = points["x"].attrs["long_name"], points["y"].attrs["long_name"]
    at, frame = _placed(xy, usable, names)
    drawn = "".join(
        f"<use href='#m{marks[i] % len(MARKERS)}' x='{at[i, 0]:.1f}' y='{at[i, 1]:.1f}' "
        f"class='{' '.join(_class(key, int(c.classes[i])) for key, c in found.items())}'>"
        f"<title>{escape(words[i])}</title></use>"
        for i in np.flatnonzero(usable)
    )
    shapes = "".join(_SHAPES[mark].format(i=i) for i, mark in enumerate(MARKERS))
    choices = "".join(
        f"<label><input type='radio' name='by' id='by-{key}'{' checked' * (key == first)}> "
        f"{coloring.name}</label>"
        for key, coloring in found.items()
    )
    return (
        "<div class='map'>"
        f"<fieldset{' hidden' * (len(found) == 1)}><legend>Color by</legend>{choices}</fieldset>"
        f"<svg viewBox='0 0 {_WIDTH} {_HEIGHT}' role='img' aria-labelledby='map-said'>"
        f"<title id='map-said'>{escape(map_in_words(xy, found))}</title>"
        f"<defs>{shapes}</defs>{frame}{drawn}</svg>"
        + "".join(_legend(key, coloring) for key, coloring in found.items())
        + "</div>"
    )


def _class(key: str, color: int) -> str:
    return f"{key}{color % _VARIABLES[key][1]}" if color >= 0 else f"{key}x"


def _legend(key: str, coloring: Coloring) -> str:
    entries = [
        (_class(key, i), i % len(MARKERS) if coloring.shaped else 0, coloring.words[i])
        for i in coloring.present
    ]
    if (coloring.classes < 0).any():
        entries.append((f"{key}x", 0, "not finite"))
    items = "".join(
        f"<li><svg viewBox='-6 -6 12 12' aria-hidden='true'>"
        f"<use href='#m{mark}' class='{name}'/></svg>{escape(words)}</li>"
        for name, mark, words in entries
    )
    return f"<ul class='legend legend-{key}'>{items}</ul>" if items else ""


def _words(labels: np.ndarray | None, known: dict[str, np.ndarray], count: int) -> list[str]:
    """What the pointer is told of each row."""
    words = [f"row {i}" for i in range(count)]
    if labels is not None:
        words = [f"{said}, label {label}" for said, label in zip(words, labels, strict=True)]
    if known:
        found = zip(words, *(known[name] for name in _JUDGED), strict=True)
        words = [
            f"{said}: {verdict}, k-hat {k:.2f}, log p(x) {evidence:.1f}"
            for said, verdict, k, evidence in found
        ]
    return words


def _placed(xy: np.ndarray, usable: np.ndarray, names: tuple[str, str]) -> tuple[np.ndarray, str]:
    """Where rows are in the picture, one unit as long on both axes, and the frame with its axes."""
    from matplotlib.ticker import MaxNLocator

    width, height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BELOW
    low, high = (
        (xy[usable].min(0), xy[usable].max(0)) if usable.any() else (np.zeros(2), np.ones(2))
    )
    middle = (low + high) / 2
    size = np.array([width, height])
    scale = float((size / np.maximum(1.08 * (high - low), 1e-6)).min())
    corner = np.array([_LEFT, _TOP]) + size / 2
    at = corner + (np.nan_to_num(xy) - middle) * scale * [1, -1]
    parts = [f"<rect class='frame' x='{_LEFT}' y='{_TOP}' width='{width}' height='{height}'/>"]
    reach = size / 2 / scale
    ticks = [MaxNLocator(5).tick_values(m - r, m + r) for m, r in zip(middle, reach, strict=True)]
    base = _TOP + height
    for value in ticks[0]:
        x = corner[0] + (value - middle[0]) * scale
        if _LEFT <= x <= _LEFT + width:
            parts.append(
                f"<path class='frame' d='M{x:.1f} {base}v5'/>"
                f"<text x='{x:.1f}' y='{base + 20}' text-anchor='middle'>{value:g}</text>"
            )
    for value in ticks[1]:
        y = corner[1] - (value - middle[1]) * scale
        if names[1] and _TOP <= y <= base:
            parts.append(
                f"<path class='frame' d='M{_LEFT} {y:.1f}h-5'/>"
                f"<text x='{_LEFT - 8}' y='{y + 5:.1f}' text-anchor='end'>{value:g}</text>"
            )
    parts.append(
        f"<text x='{_LEFT + width / 2}' y='{_HEIGHT - 6}' text-anchor='middle'>"
        f"{escape(names[0])}</text>"
        f"<text transform='translate(15 {_TOP + height / 2}) rotate(-90)' text-anchor='middle'>"
        f"{escape(names[1])}</text>"
    )
    return at, "".join(parts)
