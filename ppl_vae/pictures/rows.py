"""Pictures of a fit and of what the VAE learned; each function returns a matplotlib figure."""

from __future__ import annotations

__all__ = ["plot_draws", "plot_losses", "plot_reconstructions"]

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ..amortized import AmortizedModel
from ..renamed import renamed
from ..rows import Rows
from ..workflow.draws.posterior import evaluating, map_draws
from .colors import COLORS
from .panels import (
    data_range,
    image_grid,
    one_panel,
    show_image,
    table_panels,
)

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure


def plot_losses(history: xr.Dataset) -> Figure:
    """The ELBO of training and validation rows by epoch, nats per row: minus the losses.

    It has the sign of log p(x), so that the curve rises to about what test rows are given.
    Under an objective that is no ELBO, such as ``"beta"``, the curve of training is of that.

    Parameters
    ----------
    history
        ``FitResult.history``.

    Examples
    --------
    >>> import torch
    >>> from ppl_vae import VAE, VAEConfig, fit
    >>> x = (torch.rand(64, 8, 8) < 0.5).float()
    >>> vae = VAE.from_config(VAEConfig.for_data(x, hidden=(16,)))
    >>> history = fit(vae, x, epochs=5, validation=0.25, progress=False).history
    >>> plot_losses(history).axes[0].get_ylabel()
    'ELBO, nats per row'
    """
    figure, axes = one_panel(6.4, 3.6)
    for color, (name, label) in zip(
        COLORS,
        {"train_loss": "training", "validation_loss": "validation"}.items(),
        strict=False,
    ):
        if name in history:
            axes.plot(history.epoch, -history[name], color=color, label=label)
    best = history.attrs["best_epoch"]
    axes.axvline(best, color="0.5", linestyle=":", label=f"weights kept (epoch {best})")
    if len(history.epoch) > 4:
        shown = np.concatenate(
            [-history[k] for k in ("train_loss", "validation_loss") if k in history]
        )
        shown = shown[np.isfinite(shown)]  # an epoch may have ended before its validation
        # The first epochs would flatten the rest of the curve.
        low, high = np.quantile(shown, 0.1), shown.max()
        axes.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    axes.set(xlabel="epoch", ylabel="ELBO, nats per row")
    axes.legend(frameon=False)
    return figure


@renamed(context="covariates")
def plot_reconstructions(
    vae: AmortizedModel,
    x: Tensor,
    *,
    covariates: Tensor | None = None,
    num_rows: int = 10,
    feature_names: Sequence[str] | None = None,
    seed: int = 0,
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
    covariates
        Shape ``(row, covariate)``, for a conditional VAE.
    num_rows
        How many rows to draw.
    feature_names
        Of the columns of a table, to be written below it where there are at most 30.
    seed
        Decides the draws of z.

    Raises
    ------
    TypeError, ValueError
        If ``x`` or ``covariates`` is not what the VAE describes, or there are not as many names as
        features.

    Examples
    --------
    >>> import torch
    >>> from ppl_vae import VAE, VAEConfig
    >>> vae = VAE.from_config(VAEConfig(event_shape=(8, 8), latent_dim=2, hidden=(16,)))
    >>> figure = plot_reconstructions(vae, torch.ones(5, 8, 8))
    >>> len(figure.axes)  # originals, reconstructions and spreads of five rows
    15
    """
    rows = Rows.of(x, covariates, vae).select(slice(num_rows))

    def summary(draws: Any) -> dict[str, Tensor]:
        means = vae.typical(draws.z, draws.covariates)  # (draw, row, *event)
        return {"mean": means.mean(0), "spread": means.std(0)}

    made = map_draws(vae, rows, None, summary, num_samples=100, seed=seed, progress=False)
    panels = {
        "original": rows.numbers(),
        "reconstruction": made["mean"],
        "its spread": made["spread"],
    }
    if len(vae.event_shape) == 1:
        return table_panels(vae, panels, feature_names=feature_names)
    shown = data_range(panels["original"])
    figure, grid = image_grid(3, len(rows), 0.9, margin=1.0)
    for axes_row, (label, images) in zip(grid, panels.items(), strict=True):
        limits = (0.0, images.max()) if label == "its spread" else shown
        for axes, image in zip(axes_row, images, strict=True):
            show_image(axes, image, limits)
        axes_row[0].set_ylabel(label, rotation=0, ha="right", va="center")
    return figure


@renamed(context="covariates")
def plot_draws(
    vae: AmortizedModel,
    *,
    covariates: Tensor | None = None,
    num_rows: int = 64,
    feature_names: Sequence[str] | None = None,
    seed: int = 0,
) -> Figure:
    """Draw rows from the prior: z from p(z), and the mean of p(x|z).

    Parameters
    ----------
    vae
        A VAE.
    covariates
        One row of covariates, shape ``(1, covariate)``, or ``num_rows`` of them.
    num_rows
        How many draws.
    feature_names
        As in :func:`plot_reconstructions`.
    seed
        Decides them.

    Examples
    --------
    >>> from ppl_vae import VAE, VAEConfig
    >>> vae = VAE.from_config(VAEConfig(event_shape=(8, 8), latent_dim=2, hidden=(16,)))
    >>> len(plot_draws(vae, num_rows=9).axes)
    9
    """
    with evaluating(vae, seed):
        z, _, given = vae.simulate(num_rows, covariates)
        means = vae.typical(z, given).cpu().numpy()
    if len(vae.event_shape) == 1:
        return table_panels(vae, {"draws from the prior": means}, feature_names=feature_names)
    columns = int(np.ceil(np.sqrt(num_rows)))
    lines = int(np.ceil(num_rows / columns))
    figure, grid = image_grid(lines, columns, 0.7)
    for axes in grid.flat:
        axes.set_axis_off()
    limits = data_range(means)
    for axes, image in zip(grid.flat, means, strict=False):
        show_image(axes, image, limits)
    return figure
