"""Figures, grids and colors that the pictures share; nothing of it goes through pyplot."""

from __future__ import annotations

__all__ = [
    "blank_figure",
    "data_range",
    "image_grid",
    "kinds_of",
    "name_features",
    "one_panel",
    "plain",
    "scatter_by_label",
    "show_image",
    "table_panels",
]

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .colors import COLORS, marker

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

    from ..amortized import AmortizedModel

_MOST_KINDS = 20
# Up to so many features of a table are named on an axis.
_MOST_NAMES = 30


def blank_figure(
    width: float, height: float, *, rows: int = 1, columns: int = 1
) -> tuple[Figure, np.ndarray]:
    """A figure and its grid of axes, shape ``(rows, columns)``."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # pyplot is avoided: it would keep every figure alive and choose a window for it.
    with rc_context({"text.usetex": False}):  # LaTeX may not be installed
        figure = Figure(figsize=(width, height), layout="constrained", dpi=120)
        FigureCanvasAgg(figure)
        return figure, figure.subplots(rows, columns, squeeze=False)


def one_panel(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of one set of axes, without a frame at the top and right."""
    figure, ((axes,),) = blank_figure(width, height)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def image_grid(rows: int, columns: int, size: float, margin: float = 0.0) -> tuple[Figure, Any]:
    """A figure and its close grid of axes, ``size`` inches each, ``margin`` more for labels."""
    figure, grid = blank_figure(size * columns + margin, size * rows, rows=rows, columns=columns)
    figure.set_layout_engine("constrained", w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    return figure, grid


def data_range(*images: np.ndarray) -> tuple[float, float]:
    """The values to show as black and as white: 0 and 1 for intensities, else the data's own."""
    present = np.concatenate([image[np.isfinite(image)].ravel() for image in images])
    if not len(present) or (present.min() >= 0 and present.max() <= 1):
        return 0.0, 1.0
    return float(present.min()), float(present.max())


def show_image(axes: Axes, image: np.ndarray, limits: tuple[float, float]) -> None:
    """Show one image, ``(height, width)`` or ``(channel, height, width)``.

    The limits are shown as black and as white. Three channels are red, green and blue; of two or
    of more than three the first is shown, as a note at the image says.
    """
    note = ""
    if image.ndim == 3:
        if len(image) not in (1, 3):
            note = f"channel 0 of {len(image)}"
        image = np.moveaxis(image, 0, -1) if len(image) == 3 else image[0]
    low, high = limits
    scaled = np.clip((image - low) / max(high - low, 1e-12), 0, 1)
    axes.imshow(scaled, cmap="gray", vmin=0, vmax=1)
    if note:
        axes.set_title(note, fontsize=5, pad=1)
    axes.set(xticks=[], yticks=[])
    axes.set_axis_on()
    axes.spines[:].set_visible(False)


def kinds_of(labels: Sequence[Any] | np.ndarray | None, size: int) -> list[tuple[Any, np.ndarray]]:
    """Which rows, shape ``(row,)`` of bool, have which label.

    All rows under None where there are no labels, or too many different ones to tell apart.

    Raises
    ------
    ValueError
        If there are fewer labels than rows.

    Examples
    --------
    >>> [(str(kind), rows.tolist()) for kind, rows in kinds_of(["b", "a", "b"], 3)]
    [('a', [False, True, False]), ('b', [True, False, True])]
    """
    everyone: list[tuple[Any, np.ndarray]] = [(None, np.ones(size, dtype=bool))]
    if labels is None:
        return everyone
    if len(labels) < size:
        raise ValueError(
            f"labels has {len(labels)} entries but {size} rows are drawn; pass one for each"
        )
    values = np.asarray(labels)[:size]
    kinds = np.unique(values)
    if len(kinds) > _MOST_KINDS:
        return everyone
    return [(kind, values == kind) for kind in kinds]


def plain(text: Any) -> str:
    """Text that matplotlib shows as it is: dollars are no formulas, and NUL is no letter."""
    return str(text).replace("\0", "").replace("\\", "\\\\").replace("$", r"\$")


def scatter_by_label(
    axes: Axes, points: np.ndarray, kinds: Sequence[tuple[Any, np.ndarray]], size: float = 14.0
) -> None:
    """Points ``(row, 2)``, told apart by color and marker, with a legend beside the axes."""
    for i, (kind, rows) in enumerate(kinds):
        axes.scatter(
            points[rows, 0],
            points[rows, 1],
            s=size,
            linewidths=0.3,
            edgecolors="white",
            label=None if kind is None else plain(kind),
            color=COLORS[i % len(COLORS)],
            marker=marker(i),
        )
    if kinds[0][0] is not None:
        axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), markerscale=1.5)


def name_features(axis: Axis, names: Sequence[str] | None, size: int) -> None:
    """Write the features' names at an axis, where they are known and there is room for them.

    Raises
    ------
    ValueError
        If there are not as many names as features.
    """
    from matplotlib.axis import XAxis
    from matplotlib.ticker import MaxNLocator

    if names is not None and len(names) != size:
        raise ValueError(
            f"feature_names has {len(names)} entries and rows have {size}; pass one for each"
        )
    if names is None or size > _MOST_NAMES:
        axis.set_major_locator(MaxNLocator(integer=True))
        axis.set_label_text("feature")
        return
    shown = [
        plain(name if len(name) < 24 else f"{name[:22]}\N{HORIZONTAL ELLIPSIS}") for name in names
    ]
    axis.set_ticks(range(size), shown, rotation=90 if isinstance(axis, XAxis) else 0, fontsize=8)


def table_panels(
    vae: AmortizedModel,
    panels: dict[str, np.ndarray],
    *,
    feature_names: Sequence[str] | None = None,
) -> Figure:
    """Rows of a table as rows of a picture; the data share a color scale, a spread has its own."""
    from matplotlib.ticker import MaxNLocator

    center, spread = (t.cpu().numpy() for t in (vae.center, vae.spread))
    scaled = {
        label: values / spread if label == "its spread" else (values - center) / spread
        for label, values in panels.items()
    }
    data = np.concatenate([values for label, values in scaled.items() if label != "its spread"])
    low, high = np.nanmin(data), np.nanmax(data)
    features = data.shape[1] if feature_names is not None else 0
    width = max(3.4, 0.2 * features * (features <= _MOST_NAMES))
    figure, grid = blank_figure(
        width * len(panels) + 1.2, 3.6 + bool(features), columns=len(panels)
    )
    for axes, (label, values) in zip(grid[0], scaled.items(), strict=True):
        limits = {} if label == "its spread" else {"vmin": low, "vmax": high}
        picture = axes.imshow(
            values, aspect="auto", cmap="cividis", interpolation="nearest", **limits
        )
        axes.set_facecolor("0.85")
        axes.set(title=label, ylabel="row")
        name_features(axes.xaxis, feature_names, values.shape[1])
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        figure.colorbar(picture, ax=axes, label="standard deviations")
    return figure
