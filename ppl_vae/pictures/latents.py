"""Pictures of the space of latents: where rows lie in it, and what the decoder makes of it."""

from __future__ import annotations

__all__ = ["plot_interpolation", "plot_latent_map", "plot_manifold", "plot_traversals"]

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor

from ..renamed import renamed
from ..rows import to_float
from ..vae import VAE
from ..workflow.posterior import evaluating, posterior_means
from .panels import (
    COLOURS,
    blank_figure,
    image_grid,
    kinds_of,
    one_panel,
    scatter_by_label,
    show_image,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Draws that moments and quantiles are taken from where no formula gives them.
_DRAWS = 4000


@renamed(context="covariates")
def plot_latent_map(
    vae: VAE,
    x: Tensor,
    *,
    covariates: Tensor | None = None,
    labels: Sequence[Any] | np.ndarray | None = None,
    which: tuple[int, int] | None = None,
    mass: float = 0.5,
    max_rows: int = 500,
    seed: int = 0,
) -> Figure:
    r"""Each row's own posterior as an ellipse, in the plane of two latents.

    What the encoder returns for a row is a distribution, not a point: its centre says where the
    row is believed to lie, its size how surely. The dashed ellipse is the prior's.

    Parameters
    ----------
    vae
        A VAE of at least two latents.
    x
        Rows, shape ``(row, *event)``; the first ``max_rows`` are drawn.
    covariates
        Shape ``(row, covariate)``, for a conditional VAE. There is then no one prior to draw.
    labels
        One for each row, shown by colour and marker where there are at most 20 different ones,
        and written at the median of their rows' centres.
    which
        The two latents. By default those whose posterior means vary most between the rows.
    mass
        How much of its distribution an ellipse holds, between 0 and 1, if that is normal.
    max_rows
        How many rows at most.
    seed
        Decides the draws from which the moments of an encoder that returns no normals are taken.

    Raises
    ------
    TypeError, ValueError
        If ``x`` or ``covariates`` is not what the VAE describes, the VAE has one latent, ``which``
        are not two of its latents, ``mass`` is not between 0 and 1, or labels are missing.

    Notes
    -----
    Source: the ellipse :math:`(z - \mu)^\top \Sigma^{-1} (z - \mu) \le -2 \log(1 - m)` holds the
    mass :math:`m` of a normal in two dimensions. Kingma & Welling (2014), section 3, for q(z|x).

    Examples
    --------
    >>> from ppl_vae import VAEConfig
    >>> vae = VAE.from_config(VAEConfig(event_shape=(8, 8), latent_dim=3, hidden=(16,)))
    >>> figure = plot_latent_map(vae, torch.ones(5, 8, 8), labels=list("abcab"), which=(0, 2))
    >>> figure.axes[0].get_ylabel()
    'latent 2'
    """
    from matplotlib import patheffects

    if not 0 < mass < 1:
        raise ValueError(f"mass is {mass}; pass a number between 0 and 1, such as mass=0.5")
    if vae.latent_dim < 2:
        raise ValueError(
            "a map needs 2 latents and this VAE has 1; build it with latent_dim=2, or use "
            "plot_latents"
        )
    x = x[:max_rows]
    covariates = None if covariates is None else covariates[:max_rows]
    vae.check(x, covariates)
    kinds = kinds_of(labels, len(x))
    with evaluating(vae, seed):
        like = next(vae.parameters())
        given = None if covariates is None else covariates.to(like)
        posterior = vae.posterior(to_float(x.to(like.device), like.dtype), given)
        centres, covariances = _moments(posterior)  # (row, latent), (row, latent, latent)
        prior = _moments(vae.prior_at()) if covariates is None else None
    pair = _checked_pair(vae, which) or _largest_two(centres.var(axis=0))
    plane = np.ix_(range(len(x)), pair, pair)
    points = centres[:, pair]

    figure, axes = one_panel(6.4, 5.6)
    if prior is not None:
        centre, covariance = prior[0][pair], prior[1][np.ix_(pair, pair)]
        _add_ellipses(axes, centre[None], covariance[None], mass, edgecolor="0.4", linestyle="--")
    for i, (_, rows) in enumerate(kinds):
        colour = COLOURS[i % len(COLOURS)]
        _add_ellipses(
            axes, points[rows], covariances[plane][rows], mass, facecolor=colour, alpha=0.25
        )
    scatter_by_label(axes, points, kinds, size=7)
    halo = [patheffects.withStroke(linewidth=3, foreground="white")]
    for kind, rows in kinds:
        if kind is not None:
            axes.annotate(
                str(kind),
                np.median(points[rows], axis=0),
                fontsize=13,
                fontweight="bold",
                ha="center",
                va="center",
                path_effects=halo,
                annotation_clip=True,
            )
    axes.set(
        xlabel=f"latent {pair[0]}",
        ylabel=f"latent {pair[1]}",
        title=f"{mass:.0%} of each row's q(z|x)" + ("" if prior is None else "; dashed: the prior"),
    )
    axes.title.set_fontsize("medium")
    axes.set_aspect("equal", adjustable="datalim")
    axes.margins(0.1)
    return figure


@renamed(context="covariates")
def plot_manifold(
    vae: VAE,
    *,
    covariates: Tensor | None = None,
    which: tuple[int, int] | None = None,
    size: int = 15,
    seed: int = 0,
) -> Figure:
    """What the decoder makes of a grid of latents, equally spaced in the prior's quantiles.

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
    >>> from ppl_vae import VAEConfig
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
        given = _one_context(vae, covariates)
        quantiles = _quantiles(vae, given, (np.arange(size) + 0.5) / size)  # (size, latent)
        across, upwards = _checked_pair(vae, which) or _largest_two(_effects(vae, given))
        z = _quantiles(vae, given, np.array([0.5])).repeat(size, size, 1)  # (size, size, latent)
        z[..., across] = quantiles[:, across]
        z[..., upwards] = quantiles.flip(0)[:, [upwards]]
        means = _decoded(vae, z, given)  # (size, size, *event)
    channels = means.reshape(size, size, -1, *means.shape[-2:])  # (size, size, channel, h, w)
    gap = max(1, channels.shape[-1] // 16)
    edges = [(0, 0)] * 3 + [(0, gap)] * 2
    tiles = np.pad(channels, edges, constant_values=1.0)
    height, width = tiles.shape[-2:]
    mosaic = tiles.transpose(2, 0, 3, 1, 4).reshape(-1, size * height, size * width)
    mosaic = mosaic[:, :-gap, :-gap]

    figure, ((axes,),) = blank_figure(6.4, 6.4 * height / width)
    show_image(axes, mosaic, 1.0)
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
    vae: VAE,
    x: Tensor | None = None,
    *,
    covariates: Tensor | None = None,
    num_latents: int = 8,
    num_values: int = 9,
    seed: int = 0,
) -> Figure:
    """What each latent does by itself: it moves through the prior's quantiles, the others stay.

    Latents stand in the order of how much they change the mean of p(x|z). For tables each latent
    has a panel of features by value, in units of the features' spread.

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
    seed
        As in :func:`plot_manifold`.

    Raises
    ------
    TypeError, ValueError
        If ``x`` is more than one row or not what the VAE describes, or a number is too small.

    Notes
    -----
    Source: Higgins et al. (2017), *beta-VAE*, figure 2, for the form of the picture.

    Examples
    --------
    >>> from ppl_vae import VAEConfig
    >>> vae = VAE.from_config(VAEConfig(event_shape=(8, 8), latent_dim=3, hidden=(16,)))
    >>> len(plot_traversals(vae, num_values=5).axes)
    15
    """
    if num_latents < 1 or num_values < 2:
        raise ValueError(
            f"num_latents is {num_latents} and num_values {num_values}; pass at least 1 and 2"
        )
    if x is not None:
        vae.check(x, covariates)
        if len(x) != 1:
            raise ValueError(f"x has {len(x)} rows; pass one, such as x[:1]")
    levels = np.linspace(0.02, 0.98, num_values)
    with evaluating(vae, seed):
        given = _one_context(vae, covariates)
        effects = _effects(vae, given)
        order = np.argsort(-effects, kind="stable")[:num_latents]
        quantiles = _quantiles(vae, given, levels)  # (value, latent)
        base = _quantiles(vae, given, np.array([0.5]))[0]
    if x is not None:
        base = torch.as_tensor(posterior_means(vae, x, covariates)[0]).to(base)
    with evaluating(vae, seed):
        z = base.repeat(len(order), num_values, 1)  # (latent shown, value, latent)
        for line, latent in enumerate(order):
            z[line, :, latent] = quantiles[:, latent]
        means = _decoded(vae, z, given)  # (latent shown, value, *event)
    values = quantiles.cpu().numpy()
    if len(vae.event_shape) == 1:
        return _table_traversals(vae, means, order, values)
    figure, grid = image_grid(len(order), num_values, 0.8, margin=0.8)
    for axes_row, latent, images in zip(grid, order, means, strict=True):
        for axes, image in zip(axes_row, images, strict=True):
            show_image(axes, image, 1.0)
        axes_row[0].set_ylabel(f"latent {latent}", rotation=0, ha="right", va="center")
    if np.allclose(values, values[:, :1], atol=1e-5):  # one prior for all, so one axis for all
        for axes, value in zip(grid[-1], values[:, 0], strict=True):
            axes.set_xlabel(f"{value:.1f}")
    return figure


@renamed(context="covariates")
def plot_interpolation(
    vae: VAE,
    x: Tensor,
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
    >>> from ppl_vae import VAEConfig
    >>> vae = VAE.from_config(VAEConfig(event_shape=(8, 8), latent_dim=2, hidden=(16,)))
    >>> len(plot_interpolation(vae, torch.eye(8).expand(3, 8, 8), rows=(0, 2)).axes)
    22
    """
    _check_images(vae, "plot_interpolation")
    if num_steps < 2:
        raise ValueError(f"num_steps is {num_steps}; pass at least 2")
    if len(rows) != 2 or not all(0 <= row < len(x) for row in rows):
        raise ValueError(f"rows is {rows}; pass two numbers from 0 to {len(x) - 1}, a row each")
    ends = x[list(rows)]
    given = None if covariates is None else covariates[list(rows)]
    vae.check(ends, given)
    like = next(vae.parameters())
    weights = torch.linspace(0, 1, num_steps).to(like)

    def between(pair: Tensor) -> Tensor:
        shape = (-1, *[1] * (pair.dim() - 1))
        return torch.lerp(pair[:1], pair[1:], weights.reshape(shape))

    means = torch.as_tensor(posterior_means(vae, ends, given)).to(like)
    originals = to_float(ends.to(like.device), like.dtype)
    with evaluating(vae, seed=0):
        path = None if given is None else between(given.to(like))
        decoded = _decoded(vae, between(means), path)  # (step, *event)
    lines = {"latents": decoded, "pixels": between(originals).cpu().numpy()}
    first, last = originals.cpu().numpy()
    figure, grid = image_grid(2, num_steps + 2, 0.8, margin=0.8)
    for axes_row, (label, images) in zip(grid, lines.items(), strict=True):
        for axes, image in zip(axes_row, [first, *images, last], strict=True):
            show_image(axes, image, 1.0)
        axes_row[0].set_ylabel(label, rotation=0, ha="right", va="center")
    for axes, row in zip(grid[0, [0, -1]], rows, strict=True):
        axes.set_title(f"row {row}", fontsize="small")
    return figure


def _moments(q: TorchDistributionMixin) -> tuple[np.ndarray, np.ndarray]:
    """Means ``(*batch, latent)`` and covariances ``(*batch, latent, latent)``."""
    covariance = getattr(q, "covariance_matrix", None)
    if covariance is None and isinstance(getattr(q, "base_dist", None), dist.Normal):
        covariance = torch.diag_embed(q.variance)
    if covariance is not None:
        return q.mean.cpu().numpy(), covariance.cpu().numpy()
    z = q.sample((_DRAWS,))  # (draw, *batch, latent)
    mean = z.mean(0)
    rest = z - mean
    covariance = torch.einsum("s...i,s...j->...ij", rest, rest) / (_DRAWS - 1)
    return mean.cpu().numpy(), covariance.cpu().numpy()


def _add_ellipses(
    axes: Axes, centres: np.ndarray, covariances: np.ndarray, mass: float, **style: Any
) -> None:
    """Ellipses about ``centres`` (row, 2), of ``covariances`` (row, 2, 2)."""
    from matplotlib.collections import EllipseCollection

    variances, directions = np.linalg.eigh(covariances)  # the smaller first
    radii = np.sqrt(-2 * np.log1p(-mass) * np.maximum(variances, 0))
    angles = np.degrees(np.arctan2(directions[:, 1, 1], directions[:, 0, 1]))
    axes.add_collection(
        EllipseCollection(
            2 * radii[:, 1],
            2 * radii[:, 0],
            angles,
            units="xy",
            offsets=centres,
            offset_transform=axes.transData,
            **{"facecolor": "none", **style},
        )
    )


def _quantiles(vae: VAE, covariates: Tensor | None, levels: np.ndarray) -> Tensor:
    """Of each latent under the prior by itself, shape ``(level, latent)``."""
    like = next(vae.parameters())
    prior = vae.prior_at(covariates)
    if prior.batch_shape:
        prior = prior.expand((1,))
    base = getattr(prior, "base_dist", None)
    at = torch.as_tensor(levels).to(like)
    if isinstance(base, dist.Normal):
        return base.icdf(at[:, None].expand(-1, vae.latent_dim))
    z = prior.sample((_DRAWS,)).reshape(_DRAWS, vae.latent_dim)
    return z.quantile(at, dim=0)


def _decoded(vae: VAE, z: Tensor, covariates: Tensor | None) -> np.ndarray:
    """The mean of p(x|z), shape ``(*batch, *event)``."""
    if covariates is not None and len(covariates) == 1:
        covariates = covariates[0].expand(*z.shape[:-1], -1)
    return vae.typical(z, covariates).cpu().numpy()


def _effects(vae: VAE, covariates: Tensor | None) -> np.ndarray:
    """How much each latent by itself changes the mean of p(x|z): a variance, shape (latent,)."""
    quantiles = _quantiles(vae, covariates, np.linspace(0.05, 0.95, 7))  # (7, latent)
    middle = _quantiles(vae, covariates, np.array([0.5]))[0]
    spread = vae.decoder.spread.cpu().numpy()
    effects = []
    for latent in range(vae.latent_dim):
        z = middle.repeat(len(quantiles), 1)
        z[:, latent] = quantiles[:, latent]
        effects.append((_decoded(vae, z, covariates) / spread).var(axis=0).sum())
    return np.array(effects)


def _one_context(vae: VAE, covariates: Tensor | None) -> Tensor | None:
    if covariates is None:
        return None
    if len(covariates) != 1:
        raise ValueError(f"covariates has {len(covariates)} rows; pass one, such as covariates[:1]")
    return covariates.to(next(vae.parameters()))


def _checked_pair(vae: VAE, which: tuple[int, int] | None) -> list[int] | None:
    if which is None:
        return None
    pair = list(which)
    if len(pair) != 2 or pair[0] == pair[1] or not all(0 <= i < vae.latent_dim for i in pair):
        raise ValueError(
            f"which is {which}; pass two different latents of 0 to {vae.latent_dim - 1}, such as "
            "which=(0, 1), or leave it out"
        )
    return pair


def _largest_two(values: np.ndarray) -> list[int]:
    return sorted(np.argsort(-values, kind="stable")[:2].tolist())


def _check_images(vae: VAE, name: str) -> None:
    if len(vae.event_shape) not in (2, 3):
        raise ValueError(
            f"{name} draws images, and this VAE's rows have the shape {vae.event_shape}; use "
            "plot_traversals or plot_latents for tables"
        )


def _table_traversals(vae: VAE, means: np.ndarray, order: np.ndarray, values: np.ndarray) -> Figure:
    """A panel for each latent: features across, the latent's value upwards."""
    center, spread = (t.cpu().numpy() for t in (vae.decoder.center, vae.decoder.spread))
    scaled = (means - center) / spread  # (latent shown, value, feature)
    top = max(np.abs(scaled).max(), 1e-12)
    columns = min(4, len(order))
    lines = -(-len(order) // columns)
    figure, grid = blank_figure(2.6 * columns + 1, 2.6 * lines, rows=lines, columns=columns)
    for axes in grid.flat:
        axes.set_visible(False)
    for axes, latent, panel in zip(grid.flat, order, scaled, strict=False):
        axes.set_visible(True)
        picture = axes.imshow(
            panel,
            aspect="auto",
            cmap="cividis",
            vmin=-top,
            vmax=top,
            origin="lower",
            interpolation="nearest",
        )
        axes.set(title=f"latent {latent}", xlabel="feature")
        axes.set_yticks(range(len(values)), [f"{v:.1f}" for v in values[:, latent]])
    figure.colorbar(picture, ax=grid, label="standard deviations")
    return figure
