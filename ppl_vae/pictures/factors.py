"""A picture of factors against latents: what each score of disentanglement rests on."""

from __future__ import annotations

__all__ = ["plot_factors"]

from typing import TYPE_CHECKING

import numpy as np

from .panels import blank_figure, plain

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

# Up to so many latents the numbers are written into the cells.
_MOST_WRITTEN = 10


def plot_factors(scores: xr.Dataset, *, max_latents: int = 20) -> Figure:
    """Four pictures, a row for each factor and a column for each latent, and the scores above.

    A latent that stands for one factor is a column with one dark cell, and a factor that one
    latent stands for is a row with one.

    Parameters
    ----------
    scores
        From :func:`~ppl_vae.disentanglement`.
    max_latents
        How many latents to draw at most: those whose means vary most, in their order.

    Examples
    --------
    >>> from ppl_vae import VAE, VAEConfig, disentanglement, load_data
    >>> sprites = load_data("sprites", "test", test_fraction=0.05)
    >>> vae = VAE.from_config(VAEConfig.for_data(sprites.x, latent_dim=3, hidden=(16,)))
    >>> figure = plot_factors(disentanglement(vae, sprites.x, sprites.factors))
    >>> [axes.get_title().split()[0] for axes in figure.axes[:4]]
    ['MIG', 'DCI', 'SAP', 'FactorVAE']
    """
    order = np.argsort(-scores.variance.values, kind="stable")[:max_latents]
    shown = scores.isel(latent=np.sort(order))
    # The gap between the two largest cells of a row is then the factor's share of the score.
    information = shown.mutual_information / shown.entropy
    panels = (
        (f"MIG {scores.mig:.2f}", "information over entropy", information),
        (
            f"DCI {scores.dci_disentanglement:.2f}, {scores.dci_completeness:.2f}, "
            f"{scores.dci_informativeness:.2f}",
            "importance in a forest",
            shown.importance,
        ),
        (f"SAP {scores.sap:.2f}", "R² or accuracy of one latent", shown.predictability),
        (f"FactorVAE {scores.factor_vae:.2f}", "share of votes", shown.votes),
    )
    latents, factors = shown.latent.values, shown.factor.values
    width = 1.2 + 0.42 * max(len(latents), 5)
    figure, grid = blank_figure(2 * width + 0.8, 2 * (1.1 + 0.36 * len(factors)), rows=2, columns=2)
    for axes, (title, meaning, matrix) in zip(grid.flat, panels, strict=True):
        cells = matrix.transpose("factor", "latent").values
        axes.imshow(cells, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        axes.set_title(f"{title}\n{meaning}", fontsize=9)
        axes.set_xticks(range(len(latents)), latents, fontsize=8)
        axes.set_yticks(range(len(factors)), [plain(name) for name in factors], fontsize=8)
        axes.set_xlabel("latent", fontsize=8)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        if len(latents) > _MOST_WRITTEN:
            continue
        for (i, j), cell in np.ndenumerate(cells):
            if cell >= 0.005:
                color = "white" if cell > 0.6 else "0.2"
                axes.text(j, i, f"{cell:.2f}", ha="center", va="center", fontsize=6, color=color)
    return figure
