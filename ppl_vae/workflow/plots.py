"""Pictures of a fit and of what the VAE learnt; each function returns a matplotlib figure."""

from __future__ import annotations

__all__ = ["plot_draws", "plot_latents", "plot_losses", "plot_reconstructions"]

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ..rows import to_float
from ..vae import VAE
from .posterior import evaluating, map_draws, posterior_means

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito (2008), told apart with any colour vision, then repeated with other markers.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000")
_MARKERS = "o^sD"


def plot_losses(history: xr.Dataset) -> Figure:
    """Training and validation loss by epoch, nats per row.

    Parameters
    ----------
    history
        ``FitResult.history``.
    """
    figure, axes = _single(6.4, 3.6)
    for colour, (name, label) in zip(
        _COLOURS,
        {"train_loss": "training", "validation_loss": "validation"}.items(),
        strict=False,
    ):
        if name in history:
            axes.plot(history.epoch, history[name], color=colour, label=label)
    best = history.attrs["best_epoch"]
    axes.axvline(best, color="0.6", linestyle=":", label=f"weights kept (epoch {best})")
    if len(history.epoch) > 4:
        losses = np.concatenate(
            [history[k] for k in ("train_loss", "validation_loss") if k in history]
        )
        # The first epochs' losses would flatten the rest of the curve.
        low, high = losses.min(), np.quantile(losses, 0.9)
        axes.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    axes.set(xlabel="epoch", ylabel="minus ELBO, nats per row")
    axes.legend(frameon=False)
    return figure


def plot_reconstructions(
    vae: VAE, x: Tensor, *, context: Tensor | None = None, num_rows: int = 10, seed: int = 0
) -> Figure:
    """Originals beside the mean and the spread of their reconstructions.

    The reconstruction is the mean of p(x|z) over 100 draws of z from q(z|x); its spread is the
    standard deviation of that mean over the draws, what the encoder is unsure of. Tables are
    drawn with a row of the picture for each row of data, in units of the feature's spread.

    Parameters
    ----------
    vae
        A VAE.
    x
        Rows, shape ``(row, *event)``; the first ``num_rows`` are drawn.
    context
        Shape ``(row, context)``, for a conditional VAE.
    num_rows
        How many rows to draw.
    seed
        Decides the draws of z.
    """
    x = x[:num_rows]
    context = None if context is None else context[:num_rows]

    def summary(draws: Any) -> dict[str, Tensor]:
        means = vae.decoder(draws.z, draws.context).mean  # (draw, row, *event)
        return {"mean": means.mean(0), "spread": means.std(0)}

    made = map_draws(vae, x, context, summary, num_samples=100, seed=seed, progress=False)
    panels = {
        "original": to_float(x).cpu().numpy(),
        "reconstruction": made["mean"],
        "its spread": made["spread"],
    }
    if len(vae.event_shape) == 1:
        return _table_panels(vae, panels)
    figure, grid = _image_grid(3, len(x), 0.9, margin=1.0)
    for axes_row, (label, images) in zip(grid, panels.items(), strict=True):
        top = images.max() if label == "its spread" else 1.0
        for axes, image in zip(axes_row, images, strict=True):
            _show_image(axes, image, top)
        axes_row[0].set_ylabel(label, rotation=0, ha="right", va="center")
    return figure


def plot_draws(
    vae: VAE, *, context: Tensor | None = None, num_rows: int = 64, seed: int = 0
) -> Figure:
    """Draw rows from the prior: z from p(z), and the mean of p(x|z).

    Parameters
    ----------
    vae
        A VAE.
    context
        One row of context, shape ``(1, context)``, or ``num_rows`` of them.
    num_rows
        How many draws.
    seed
        Decides them.
    """
    with evaluating(vae, seed):
        like = next(vae.parameters())
        given = None if context is None else context.to(like).expand(num_rows, -1)
        z = vae.prior(given).expand((num_rows,)).sample()
        means = vae.decoder(z, given).mean.cpu().numpy()
    if len(vae.event_shape) == 1:
        return _table_panels(vae, {"draws from the prior": means})
    columns = int(np.ceil(np.sqrt(num_rows)))
    lines = int(np.ceil(num_rows / columns))
    figure, grid = _image_grid(lines, columns, 0.7)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, image in zip(grid.flat, means, strict=False):
        _show_image(axes, image, 1.0)
    return figure


def plot_latents(
    vae: VAE,
    x: Tensor,
    *,
    context: Tensor | None = None,
    labels: Sequence[Any] | np.ndarray | None = None,
    max_rows: int = 2000,
) -> Figure:
    """Where the rows lie in the space of latents: the means of q(z|x), in two dimensions.

    With two latents these are the axes; with more, the two principal components of the means.

    Parameters
    ----------
    vae
        A VAE.
    x
        Rows, shape ``(row, *event)``; the first ``max_rows`` are drawn.
    context
        Shape ``(row, context)``, for a conditional VAE.
    labels
        One for each row, shown by colour and marker where there are at most 20 different ones.
    max_rows
        How many rows at most.
    """
    x = x[:max_rows]
    context = None if context is None else context[:max_rows]
    means = posterior_means(vae, x, context)
    figure, axes = _single(6.0, 5.4)
    if vae.latent_dim > 2:
        from sklearn.decomposition import PCA

        pca = PCA(2, svd_solver="full").fit(means)
        means = pca.transform(means)
        names = [
            f"principal component {i + 1} of the posterior means ({share:.0%})"
            for i, share in enumerate(pca.explained_variance_ratio_)
        ]
    else:
        names = [f"mean of latent {i}" for i in range(vae.latent_dim)]
    if means.shape[1] == 1:
        means = np.column_stack([means, np.zeros(len(means))])
        names.append("")
    values = None if labels is None else np.asarray(labels)[: len(x)]
    kinds = [None] if values is None else list(np.unique(values))
    if len(kinds) > 20:
        kinds = [None]
    for i, kind in enumerate(kinds):
        chosen = means if kind is None else means[values == kind]
        axes.scatter(
            chosen[:, 0],
            chosen[:, 1],
            s=14,
            alpha=0.75,
            linewidths=0,
            label=kind,
            color=_COLOURS[i % 7],
            marker=_MARKERS[i // 7 % 4],
        )
    if kinds != [None]:
        axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), markerscale=1.5)
    axes.set(xlabel=names[0], ylabel=names[1])
    axes.set_aspect("equal", adjustable="datalim")
    return figure


def _figure(
    width: float, height: float, *, rows: int = 1, columns: int = 1
) -> tuple[Figure, np.ndarray]:
    """A figure and its grid of axes, shape ``(rows, columns)``."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # Not through pyplot, which would keep every figure alive and choose a window for it.
    figure = Figure(figsize=(width, height), layout="constrained", dpi=120)
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False)


def _single(width: float, height: float) -> tuple[Figure, Axes]:
    figure, ((axes,),) = _figure(width, height)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _image_grid(rows: int, columns: int, size: float, margin: float = 0.0) -> tuple[Figure, Any]:
    figure, grid = _figure(size * columns + margin, size * rows, rows=rows, columns=columns)
    figure.set_layout_engine("constrained", w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    return figure, grid


def _show_image(axes: Axes, image: np.ndarray, top: float) -> None:
    if image.ndim == 3:
        image = image[0] if len(image) == 1 else np.moveaxis(image, 0, -1)
    axes.imshow(np.clip(image / max(top, 1e-12), 0, 1), cmap="gray", vmin=0, vmax=1)
    axes.set(xticks=[], yticks=[])
    axes.set_axis_on()
    axes.spines[:].set_visible(False)


def _table_panels(vae: VAE, panels: dict[str, np.ndarray]) -> Figure:
    """Rows of a table as rows of a picture; the data share a colour scale, a spread has its own."""
    from matplotlib.ticker import MaxNLocator

    center, spread = (t.cpu().numpy() for t in (vae.decoder.center, vae.decoder.spread))
    scaled = {
        label: values / spread if label == "its spread" else (values - center) / spread
        for label, values in panels.items()
    }
    data = np.concatenate([values for label, values in scaled.items() if label != "its spread"])
    low, high = np.nanmin(data), np.nanmax(data)
    figure, grid = _figure(3.4 * len(panels) + 1.2, 3.6, columns=len(panels))
    for axes, (label, values) in zip(grid[0], scaled.items(), strict=True):
        limits = {} if label == "its spread" else {"vmin": low, "vmax": high}
        picture = axes.imshow(
            values, aspect="auto", cmap="cividis", interpolation="nearest", **limits
        )
        axes.set_facecolor("0.85")
        axes.set(title=label, xlabel="feature", ylabel="row")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(integer=True))
        figure.colorbar(picture, ax=axes, label="standard deviations")
    return figure
