"""Pictures of checks: whether rows can be believed, what the encoder loses, and ranks."""

from __future__ import annotations

__all__ = ["plot_calibration", "plot_diagnosis"]

from typing import TYPE_CHECKING

import numpy as np

from ..workflow.checks.calibration import p_text
from .colors import COLORS

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

# The range of KL that is drawn, in nats; values outside are drawn at its ends.
_NATS = (1e-3, 1e3)


def plot_diagnosis(
    rows: xr.Dataset, latents: xr.Dataset, calibration: xr.Dataset, gaps: xr.Dataset
) -> Figure:
    """Four pictures: KL by row, gaps, latents in use, and the ranks that fit worst.

    Parameters
    ----------
    rows, latents, calibration, gaps
        Of a :class:`~ppl_vae.Diagnosis`, whose method ``plot`` calls this.

    Examples
    --------
    >>> import torch
    >>> from ppl_vae import VAE, VAEConfig, diagnose
    >>> vae = VAE.from_config(VAEConfig(event_shape=(8, 8), latent_dim=2, hidden=(16,)))
    >>> x = (torch.rand(9, 8, 8) < 0.5).float()
    >>> found = diagnose(vae, x, num_simulations=50, gap_rows=5, refined_rows=5, progress=False)
    >>> len(plot_diagnosis(found.rows, found.latents, found.calibration, found.gaps).axes)
    4
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6.4), layout="constrained", dpi=120)
    FigureCanvasAgg(figure)
    (reliability, lost), (used, ranked) = figure.subplots(2, 2)

    kl, tried = (
        np.clip(values[np.isfinite(values)], *_NATS)
        for values in (rows.kl.values, rows.kl_refined.values)
    )
    edges = np.geomspace(*_NATS, 41)
    for values, color, label in (
        (kl, COLORS[0], f"encoder, {len(kl)} rows"),
        (tried, COLORS[1], f"refined, {len(tried)} rows"),
    ):
        if len(values):
            share = np.full(len(values), 1 / len(values))
            style = {"facecolor": (color, 0.3), "edgecolor": color, "histtype": "stepfilled"}
            reliability.hist(values, edges, weights=share, label=label, **style)
    if len(kl):
        reliability.legend(frameon=False)
    believed = float(np.isin(rows.verdict, ["as it is", "reweighted"]).mean())
    reliability.set(
        xscale="log",
        xlabel="KL(q || p), nats, 0.001 or less to 1000 or more",
        ylabel="share of rows",
        title=f"{believed:.0%} of rows can be used as they are or reweighted",
    )

    names = ("amortization", "approximation")
    values = [gaps[name].values[np.isfinite(gaps[name].values)] for name in names]
    lost.hist(values, 20, color=list(COLORS[:2]), label=list(names))
    lost.legend(frameon=False)
    lost.set(xlabel="gap, nats", ylabel="rows", title="What the encoder loses")

    order = np.argsort(-latents.variance.values)
    colors = np.where(latents.active.values[order], COLORS[0], "0.55")
    used.bar(range(len(order)), latents.variance.values[order], color=colors)
    used.set(
        xlabel="latents, most used first",
        ylabel="variance of posterior means",
        title=f"{int(latents.active.sum())} of {len(order)} latents are used",
    )

    worst = calibration.isel(quantity=int(np.argmin(calibration.p_value.values)))
    p = p_text(worst.p_value.item(), "= ")
    count = calibration.attrs["num_samples"] + 1
    bins = min(20, count)
    ranked.hist(worst["rank"].values, np.linspace(-0.5, count - 0.5, bins + 1), color=COLORS[0])
    ranked.axhline(worst.sizes["simulation"] / bins, color="0.4", linestyle=":")
    ranked.set(
        xlabel="rank of the truth",
        ylabel="simulated rows",
        title=f"{worst.quantity.item()}: {worst['shape'].item()} (p {p})",
    )
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def plot_calibration(calibration: xr.Dataset, *, max_quantities: int = 12) -> Figure:
    """ECDF of the ranks minus a uniform's, with bands that 99 % of uniform ranks never leave.

    A hump to one side of zero is a shift. Above zero on the left and below on the right: too
    narrow. The other way round: too wide.

    Parameters
    ----------
    calibration
        From :func:`~ppl_vae.calibrate`.
    max_quantities
        How many to draw at most: those with the smallest p-values, in their order.

    Notes
    -----
    Source: Säilynoja et al. (2022), *Graphical test for discrete uniformity*, for the bands.

    Examples
    --------
    >>> from ppl_vae import VAE, VAEConfig, calibrate
    >>> vae = VAE.from_config(VAEConfig(event_shape=(8, 8), latent_dim=2, hidden=(16,)))
    >>> ranks = calibrate(vae, num_simulations=100, num_samples=49, progress=False)
    >>> len(plot_calibration(ranks).axes)
    4
    """
    from arviz_stats.ecdf_utils import ecdf_pit
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    worst = np.sort(np.argsort(calibration.p_value.values, kind="stable")[:max_quantities])
    shown = calibration.isel(quantity=worst)
    size, num_ranks = shown.sizes["simulation"], calibration.attrs["num_samples"] + 1
    # arviz_plots' own plot has bands on some of its versions only, and no axis with them.
    at, _, low, high = ecdf_pit(np.linspace(0, 1, size), 0.99, n_simulations=1000)
    # Between two ranks the ECDF of uniform ranks is exactly that of a uniform variable.
    edges = np.linspace(0, 1, num_ranks + 1)
    columns = min(4, len(worst))
    rows = -(-len(worst) // columns)
    # pyplot is avoided: it would keep every figure alive and choose a window for it.
    figure = Figure(figsize=(3 * columns, 2.3 * rows), layout="constrained", dpi=120)
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for axes in grid.flat[len(worst) :]:
        axes.remove()
    for i, axes in zip(range(len(worst)), grid.flat, strict=False):
        quantity = shown.isel(quantity=i)
        ranks = np.bincount(quantity["rank"].values, minlength=num_ranks)
        ecdf = np.concatenate([[0], ranks.cumsum()]) / size
        axes.fill_between(at, low - at, high - at, facecolor="0.88", edgecolor="0.5", linewidth=0.8)
        axes.plot(edges, ecdf - edges, color=COLORS[0])
        name, shape, p = (quantity[k].item() for k in ("quantity", "shape", "p_value"))
        axes.set_title(f"{name}: {shape}\np {p_text(p, '= ')}", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    figure.supxlabel("rank of the truth / number of draws", fontsize=10)
    figure.supylabel("ECDF minus a uniform's", fontsize=10)
    return figure
