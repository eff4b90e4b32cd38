"""Pictures of what latents decode to: a grid of them, one at a time, and between two rows."""

from __future__ import annotations

__all__ = [
    "checked_pair",
    "largest_two",
    "plot_interpolation",
    "plot_manifold",
    "plot_traversals",
]

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..amortized import AmortizedModel
from ..distributions import draw
from ..renamed import renamed
from ..rows import Rows
from ..sources import as_tensor
from ..workflow.draws.posterior import evaluating, posterior_means
from .panels import blank_figure, data_range, image_grid, name_features, show_image

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# A latent is unused if it changes rows by less than this share of what the first does, in variance.
_UNUSED = 5e-3
# Draws that quantiles are taken from where no formula gives them.
_DRAWS = 4000


@renamed(context="covariates")
def plot_manifold(
    vae: AmortizedModel,
    *,
    covariates: Tensor | None = None,
    which: tuple[int, int] | None = None,
    size: int = 15,
    seed: int = 0,
) -> Figure:
    """Decode a grid of latents that is equally spaced in the prior's quantiles.

    Each image is the mean of p(x|z). Any other latents stay at their median. As many draws from
    the prior fall about one image as about another, so that what is seen is what the model
    believes, in proportion.

    Parameters
    ----------
    vae
        A VAE of images with at least two latents.
    covariates
        One row of covariates, shape ``(1, covariate)``, for a conditional VAE.
    which
        The two latents, across and upwards. By default those that change the images most.
    size
        Images a side.
    seed
        Decides the draws from which the quantiles of a prior that is no product of known
        distributions are taken.

    Raises
    ------
    ValueError
        If rows are no images, the VAE has one latent, ``which`` are not two of its latents, or
        ``size`` is below 2.

    Notes
    -----
    Source: Kingma & Welling (2014), appendix A.

    Examples
    --------
    >>> from ppl_vae import VAE, VAEConfig
    >>> vae = VAE.from_config(VAEConfig(event_shape=(8, 8), latent_dim=2, hidden=(16,)))
    >>> plot_manifold(vae, size=5).axes[0].images[0].get_array().shape
    (44, 44)
    """
    _check_images(vae, "plot_manifold")
    if size < 2:
        raise ValueError(f"size is {size}; pass at least 2 images a side")
    if vae.latent_dim < 2:
        raise ValueError(
            "a grid needs 2 latents and this VAE has 1; use plot_traversals, which shows each"
        )
    with evaluating(vae, seed):
        given = _one_row(vae, covariates)
        quantiles = _quantiles(vae, given, (np.arange(size) + 0.5) / size)  # (size, latent)
        across, upwards = checked_pair(vae, which) or largest_two(_effects(vae, given))
        z = _quantiles(vae, given, np.array([0.5])).repeat(size, size, 1)  # (size, size, latent)
        z[..., across] = quantiles[:, across]
        z[..., upwards] = quantiles.flip(0)[:, [upwards]]
        means = _decoded(vae, z, given)  # (size, size, *event)
    channels = means.reshape(size, size, -1, *means.shape[-2:])  # (size, size, channel, h, w)
    gap = max(1, channels.shape[-1] // 16)
    edges = [(0, 0)] * 3 + [(0, gap)] * 2
    limits = data_range(means)
    tiles = np.pad(channels, edges, constant_values=limits[1])
    height, width = tiles.shape[-2:]
    mosaic = tiles.transpose(2, 0, 3, 1, 4).reshape(-1, size * height, size * width)
    mosaic = mosaic[:, :-gap, :-gap]

    figure, ((axes,),) = blank_figure(6.4, 6.4 * height / width)
    show_image(axes, mosaic, limits)
    shown = np.linspace(0, size - 1, min(size, 5)).round().astype(int)
    values = quantiles.cpu().numpy()
    axes.set(xlabel=f"latent {across}", ylabel=f"latent {upwards}")
    axes.set_xticks(
        (shown + 0.5) * width - 0.5 * (gap + 1), [f"{v:.1f}" for v in values[shown, across]]
    )
    axes.set_yticks(
        (size - shown - 0.5) * height - 0.5 * (gap + 1),
        [f"{v:.1f}" for v in values[shown, upwards]],
    )
    axes.tick_params(length=0)
    return figure


@renamed(context="covariates")
def plot_traversals(
    vae: AmortizedModel,
    x: Tensor | Rows | None = None,
    *,
    covariates: Tensor | None = None,
    num_latents: int = 8,
    num_values: int = 9,
    feature_names: Sequence[str] | None = None,
    seed: int = 0,
) -> Figure:
    """Show what each latent does: it moves through the prior's quantiles, and the others stay.

    Latents stand in the order of how much they change the mean of p(x|z); those that change it by
    less than half a percent of what the first does are left out. For tables each latent has a panel
    of features by value, in units of the features' spread.

    Parameters
    ----------
    vae
        A VAE.
    x
        One row, shape ``(1, *event)``, at whose posterior mean the other latents stay. Without
        it they stay at the prior's median.
    covariates
        One row of covariates, shape ``(1, covariate)``, for a conditional VAE.
    num_latents
        How many latents at most.
    num_values
        How many values of each, between the prior's quantiles of 2 % and 98 %.
    feature_names
        Of the columns of a table, to be written at the axes where there are at most 30.
    seed
        As in :func:`plot_manifold`.

    Raises
    ------
    TypeError, ValueError
        If ``x`` is more than one row or not what the VAE describes, a number is too small, or
        there are not as many names as features.

    Notes
    -----
    Source: Higgins et al. (2017), *beta-VAE*, figure 2, for the form of the picture.

    Examples
    --------
    >>> from ppl_vae import VAE, VAEConfig
    >>> vae = VAE.from_config(VAEConfig(event_shape=(8, 8), latent_dim=3, hidden=(16,)))
    >>> len(plot_traversals(vae, num_values=5).axes)
    15
    """
    if num_latents < 1 or num_values < 2:
        raise ValueError(
            f"num_latents is {num_latents} and num_values {num_values}; pass at least 1 and 2"
        )
    if x is not None:
        one = Rows.of(x, covariates, vae)
        one.check(vae)
        if len(one) != 1:
            raise ValueError(f"x has {len(one)} rows; pass one, such as x[:1]")
    levels = np.linspace(0.02, 0.98, num_values)
    with evaluating(vae, seed):
        given = _one_row(vae, covariates)
        effects = _effects(vae, given)
        used = max(1, int((effects > _UNUSED * effects.max()).sum()))
        order = np.argsort(-effects, kind="stable")[: min(num_latents, used)]
        quantiles = _quantiles(vae, given, levels)  # (value, latent)
        base = _quantiles(vae, given, np.array([0.5]))[0]
    if x is not None:
        base = torch.as_tensor(posterior_means(vae, one)[0]).to(base)
    with evaluating(vae, seed):
        z = base.repeat(len(order), num_values, 1)  # (latent shown, value, latent)
        for line, latent in enumerate(order):
            z[line, :, latent] = quantiles[:, latent]
        means = _decoded(vae, z, given)  # (latent shown, value, *event)
    values = quantiles.cpu().numpy()
    if len(vae.event_shape) == 1:
        return _table_traversals(vae, means, order, values, feature_names)
    figure, grid = image_grid(len(order), num_values, 0.8, margin=0.8)
    limits = data_range(means)
    for axes_row, latent, images in zip(grid, order, means, strict=True):
        for axes, image in zip(axes_row, images, strict=True):
            show_image(axes, image, limits)
        axes_row[0].set_ylabel(f"latent {latent}", rotation=0, ha="right", va="center")
    if np.allclose(values, values[:, :1], atol=1e-5):  # all latents share one axis
        for axes, value in zip(grid[-1], values[:, 0], strict=True):
            axes.set_xlabel(f"{value:.1f}")
    return figure


@renamed(context="covariates")
def plot_interpolation(
    vae: AmortizedModel,
    x: Tensor | Rows,
    *,
    covariates: Tensor | None = None,
    rows: tuple[int, int] = (0, 1),
    num_steps: int = 9,
) -> Figure:
    """From one row to another along a straight line of latents, above the same line of pixels.

    The upper line is the mean of p(x|z) for z between the posterior means of both rows; the
    lower one blends the rows themselves. The originals stand at the ends.

    Parameters
    ----------
    vae
        A VAE of images.
    x
        Rows, shape ``(row, *event)``.
    covariates
        Shape ``(row, covariate)``, for a conditional VAE; it is interpolated too.
    rows
        From which row to which.
    num_steps
        Images between the originals, the two reconstructions included.

    Raises
    ------
    TypeError, ValueError
        If ``x`` or ``covariates`` is not what the VAE describes, rows are no images, ``rows`` are
        not two of them, or ``num_steps`` is below 2.

    Examples
    --------
    >>> from ppl_vae import VAE, VAEConfig
    >>> vae = VAE.from_config(VAEConfig(event_shape=(8, 8), latent_dim=2, hidden=(16,)))
    >>> len(plot_interpolation(vae, torch.eye(8).expand(3, 8, 8), rows=(0, 2)).axes)
    22
    """
    _check_images(vae, "plot_interpolation")
    if num_steps < 2:
        raise ValueError(f"num_steps is {num_steps}; pass at least 2")
    data = Rows.of(x, covariates, vae)
    if len(rows) != 2 or not all(0 <= row < len(data) for row in rows):
        raise ValueError(f"rows is {rows}; pass two numbers from 0 to {len(data) - 1}, a row each")
    ends = data.select(list(rows))
    ends.check(vae)
    originals, given = ends.take(slice(None), vae.like)
    weights = torch.linspace(0, 1, num_steps).to(vae.like)

    def between(pair: Tensor) -> Tensor:
        shape = (-1, *[1] * (pair.dim() - 1))
        return torch.lerp(pair[:1], pair[1:], weights.reshape(shape))

    means = torch.as_tensor(posterior_means(vae, ends)).to(vae.like)
    with evaluating(vae, seed=0):
        path = None if given is None else between(given)
        decoded = _decoded(vae, between(means), path)  # (step, *event)
    lines = {"latents": decoded, "pixels": between(originals).cpu().numpy()}
    first, last = originals.cpu().numpy()
    figure, grid = image_grid(2, num_steps + 2, 0.8, margin=0.8)
    limits = data_range(first, last)
    for axes_row, (label, images) in zip(grid, lines.items(), strict=True):
        for axes, image in zip(axes_row, [first, *images, last], strict=True):
            show_image(axes, image, limits)
        axes_row[0].set_ylabel(label, rotation=0, ha="right", va="center")
    for axes, row in zip(grid[0, [0, -1]], rows, strict=True):
        axes.set_title(f"row {row}", fontsize="small")
    return figure


def _quantiles(vae: AmortizedModel, covariates: Tensor | None, levels: np.ndarray) -> Tensor:
    """Of each latent under the prior by itself, shape ``(level, latent)``."""
    prior = vae.prior_at(covariates)
    at = torch.as_tensor(levels).to(vae.like)
    if isinstance(prior, torch.distributions.Independent):
        try:  # each of independent latents has a quantile function of its own
            return prior.base_dist.icdf(at[:, None].expand(-1, vae.latent_dim))
        except NotImplementedError:
            pass
    z = draw(prior, (_DRAWS,), rows=1).reshape(_DRAWS, vae.latent_dim)
    return z.quantile(at, dim=0)


def _decoded(vae: AmortizedModel, z: Tensor, covariates: Tensor | None) -> np.ndarray:
    """The mean of p(x|z), shape ``(*batch, *event)``."""
    if covariates is not None and len(covariates) == 1:
        covariates = covariates[0].expand(*z.shape[:-1], -1)
    return vae.typical(z, covariates).cpu().numpy()


def _effects(vae: AmortizedModel, covariates: Tensor | None) -> np.ndarray:
    """How much each latent by itself changes the mean of p(x|z): a variance, shape (latent,)."""
    quantiles = _quantiles(vae, covariates, np.linspace(0.05, 0.95, 7))  # (7, latent)
    middle = _quantiles(vae, covariates, np.array([0.5]))[0]
    spread = vae.spread.cpu().numpy()
    effects = []
    for latent in range(vae.latent_dim):
        z = middle.repeat(len(quantiles), 1)
        z[:, latent] = quantiles[:, latent]
        effects.append((_decoded(vae, z, covariates) / spread).var(axis=0).sum())
    return np.array(effects)


def _one_row(vae: AmortizedModel, covariates: Tensor | None) -> Tensor | None:
    if covariates is None:
        return None
    if len(covariates) != 1:
        raise ValueError(f"covariates has {len(covariates)} rows; pass one, such as covariates[:1]")
    return as_tensor(covariates, "covariates").to(vae.like)


def checked_pair(vae: AmortizedModel, which: tuple[int, int] | None) -> list[int] | None:
    if which is None:
        return None
    pair = list(which)
    if len(pair) != 2 or pair[0] == pair[1] or not all(0 <= i < vae.latent_dim for i in pair):
        raise ValueError(
            f"which is {which}; pass two different latents of 0 to {vae.latent_dim - 1}, such as "
            "which=(0, 1), or leave it out"
        )
    return pair


def largest_two(values: np.ndarray) -> list[int]:
    return sorted(np.argsort(-values, kind="stable")[:2].tolist())


def _check_images(vae: AmortizedModel, name: str) -> None:
    if len(vae.event_shape) not in (2, 3):
        raise ValueError(
            f"{name} draws images, and this VAE's rows have the shape {vae.event_shape}; use "
            "plot_traversals or plot_latents for tables"
        )


def _table_traversals(
    vae: AmortizedModel,
    means: np.ndarray,
    order: np.ndarray,
    values: np.ndarray,
    feature_names: Sequence[str] | None,
) -> Figure:
    """A panel for each latent: features upwards, the latent's value across."""
    center, spread = (t.cpu().numpy() for t in (vae.center, vae.spread))
    scaled = (means - center) / spread  # (latent shown, value, feature)
    top = max(np.abs(scaled).max(), 1e-12)
    columns = min(4, len(order))
    lines = -(-len(order) // columns)
    height = max(2.6, 0.17 * scaled.shape[2] + 0.6) if feature_names is not None else 2.6
    figure, grid = blank_figure(2.8 * columns + 1, height * lines, rows=lines, columns=columns)
    for axes in grid.flat:
        axes.set_visible(False)
    style = {"cmap": "cividis", "vmin": -top, "vmax": top, "interpolation": "nearest"}
    shown = range(0, len(values), max(1, len(values) // 4))
    for axes, latent, panel in zip(grid.flat, order, scaled, strict=False):
        axes.set_visible(True)
        picture = axes.imshow(panel.T, aspect="auto", **style)  # (feature, value)
        axes.set(xlabel=f"latent {latent}")
        axes.set_xticks(shown, [f"{v:.1f}" for v in values[shown, latent]])
        name_features(axes.yaxis, feature_names, panel.shape[1])
    for line in grid[:, 1:].flat:
        line.set_yticklabels([])
        line.set_ylabel("")
    figure.colorbar(picture, ax=grid, label="standard deviations")
    return figure
