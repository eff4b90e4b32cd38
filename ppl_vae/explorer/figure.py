"""The latent map of the explorer, in Bokeh: rows as points, colored by what is chosen."""

from __future__ import annotations

__all__ = ["LatentMap"]

from typing import TYPE_CHECKING, Any

import numpy as np

from ..pictures.coloring import colorings
from ..pictures.colors import MARKERS, marker
from .explored import Explored

if TYPE_CHECKING:
    from collections.abc import Callable

# What Bokeh calls our markers.
_SHAPES = {"o": "circle", "s": "square", "^": "triangle", "D": "diamond"}
_INK = {False: "#1f2328", True: "#e6e8eb"}
_PAGE = {False: "#ffffff", True: "#14171c"}
_UNKNOWN = {False: "#767676", True: "#a3a3a3"}


class LatentMap:
    """A Bokeh figure of rows in their plane, with the row that is looked at and where sliders are.

    Parameters
    ----------
    seen
        What is explored.
    on_row
        Called with the number of a row that is clicked.
    """

    def __init__(self, seen: Explored, on_row: Callable[[int], None]) -> None:
        from bokeh.events import Tap
        from bokeh.models import ColumnDataSource, HoverTool, PanTool, WheelZoomTool
        from bokeh.plotting import figure

        self.seen = seen
        self.colorings = colorings(
            len(seen),
            labels=seen.labels,
            verdict=seen.verdict,
            khat=seen.khat,
            evidence=seen.evidence,
        )
        self._dark, self._by = False, next(iter(self.colorings))
        shapes = np.zeros(len(seen), dtype=int)
        if "label" in self.colorings:
            shapes = self.colorings["label"].classes
        self._rows = ColumnDataSource(
            {
                "x": seen.points[:, 0],
                "y": seen.points[:, 1],
                "row": np.arange(len(seen)),
                "label": seen.labels or [""] * len(seen),
                "verdict": seen.verdict,
                "khat": seen.khat,
                "marker": [_SHAPES[marker(shape)] for shape in shapes],
                "color": ["#000000"] * len(seen),
            }
        )
        empty: dict[str, list[Any]] = {"x": [], "y": []}
        self._draws, self._chosen, self._moved = (ColumnDataSource(dict(empty)) for _ in range(3))
        self.figure = figure(
            height=430,
            sizing_mode="stretch_width",
            x_range=(-1, 1),
            y_range=(-1, 1),
            toolbar_location=None,
            tools=[PanTool(), WheelZoomTool(modifiers={"ctrl": True})],
            x_axis_label=seen.plane.names[0],
            y_axis_label=seen.plane.names[1],
        )
        points = self.figure.scatter(
            "x", "y", source=self._rows, size=8, marker="marker", color="color", line_width=0.4
        )
        self._points = points.glyph
        self._cloud = self.figure.scatter("x", "y", source=self._draws, size=3, alpha=0.5).glyph
        self._ring = self.figure.scatter(
            "x", "y", source=self._chosen, size=20, fill_color=None, line_width=3
        ).glyph
        self._cross = self.figure.scatter(
            "x", "y", source=self._moved, size=20, marker="cross", line_width=3
        ).glyph
        said = [("row", "@row"), ("verdict", "@verdict"), ("k-hat", "@khat{0.00}")]
        if seen.labels is not None:
            said.insert(1, ("label", "@label"))
        self.figure.add_tools(HoverTool(renderers=[points], tooltips=said))
        self._whole = True
        # How much wider the frame is than high, is known once a browser has drawn it.
        self._ratio = 1.3
        for side in ("inner_width", "inner_height"):
            self.figure.on_change(side, self._resized)
        self.figure.on_event(Tap, lambda event: on_row(seen.nearest(event.x, event.y)))
        self.paint()

    def paint(self, *, by: str | None = None, dark: bool | None = None) -> None:
        """Color rows by something else, or for another page."""
        self._by = by or self._by
        self._dark = self._dark if dark is None else dark
        coloring, ink = self.colorings[self._by], _INK[self._dark]
        colors = coloring.dark if self._dark else coloring.light
        colors = [*colors, _UNKNOWN[self._dark]]
        self._rows.data["color"] = [colors[i] for i in coloring.classes]
        self._points.line_color = _PAGE[self._dark]
        for glyph in (self._cloud, self._ring, self._cross):
            glyph.line_color = ink
        self._cloud.fill_color = ink
        figure = self.figure
        figure.background_fill_color = figure.border_fill_color = _PAGE[self._dark]
        figure.outline_line_color = _UNKNOWN[self._dark]
        figure.grid.grid_line_alpha = 0.25
        for axis in figure.axis:
            axis.axis_label_text_color = axis.major_label_text_color = ink
            axis.axis_line_color = axis.major_tick_line_color = ink
            axis.minor_tick_line_color = None
            axis.axis_label_text_font_style = "normal"

    def choose(self, row: int, z: np.ndarray) -> None:
        """Ring a row, and show draws of its latents, ``(draw, latent)``."""
        x, y = self.seen.points[row]
        self._chosen.data = {"x": [float(x)], "y": [float(y)]}
        draws = self.seen.plane.at(z[:200])
        self._draws.data = {"x": draws[:, 0], "y": draws[:, 1]}

    def move(self, z: np.ndarray) -> None:
        """Put the cross where sliders are, shape ``(latent,)``."""
        x, y = self.seen.plane.at(z)
        self._moved.data = {"x": [float(x)], "y": [float(y)]}

    def zoom(self, factor: float) -> None:
        """Show a part that is ``factor`` times as wide, about the ring; 0 shows all rows."""
        self._whole = factor == 0
        spans = self.figure.x_range, self.figure.y_range
        if self._whole:
            low, high = np.nanmin(self.seen.points, axis=0), np.nanmax(self.seen.points, axis=0)
            middle, half = (low + high) / 2, 0.53 * (high - low) + 1e-6
            # One unit is as long on both axes.
            half = np.maximum(half, half[::-1] * [self._ratio, 1 / self._ratio])
        else:
            half = factor * np.array([span.end - span.start for span in spans]) / 2
            middle = np.array([self._chosen.data[axis][0] for axis in "xy"])
        for span, at, reach in zip(spans, middle, half, strict=True):
            span.start, span.end = float(at - reach), float(at + reach)

    def _resized(self, attr: str, old: int, new: int) -> None:
        try:
            width, height = self.figure.inner_width, self.figure.inner_height
        except ValueError:  # Bokeh's, of one that is not known yet
            return
        if width and height:
            self._ratio = width / height
            if self._whole:
                self.zoom(0)

    def leave_gestures(self) -> None:
        """Leave dragging to the page, which scrolls under a finger."""
        self.figure.toolbar.active_drag = None
        self.figure.toolbar.active_scroll = None

    def legends(self) -> dict[str, Any]:
        """What each coloring is called, and what its colors say, for the page."""
        return {
            key: {
                "name": coloring.name,
                "items": [
                    {
                        "words": coloring.words[i],
                        "light": coloring.light[i],
                        "dark": coloring.dark[i],
                        "marker": MARKERS.index(marker(i)) if coloring.shaped else 0,
                    }
                    for i in coloring.present
                ],
            }
            for key, coloring in self.colorings.items()
        }
