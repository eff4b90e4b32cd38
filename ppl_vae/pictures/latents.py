"""Pictures of the space of latents: where the rows lie in it."""

from __future__ import annotations

__all__ = ["plot_latent_map", "plot_latents"]

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..amortized import AmortizedModel
from ..distributions import draw, moments
from ..renamed import renamed
from ..rows import Rows
from ..workflow.draws.plane import plane_of
from ..workflow.draws.posterior import evaluating, posterior_means
from .colors import COLORS
from .decoded import checked_pair, largest_two
from .panels import kinds_of, one_panel, plain, scatter_by_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Draws that covariances are taken from where no formula gives them.
_DRAWS = 1000


@renamed(context="covariates")
def plot_latent_map(
    vae: AmortizedModel,
    x: Tensor | Rows,
    *,
    covariates: Tensor | None = None,
    labels: Sequence[Any] | np.ndarray | None = None,
    which: tuple[int, int] | None = None,
    mass: float = 0.5,
    max_rows: int = 500,
    seed: int = 0,
) -> Figure:
    r"""Each row's own posterior as an ellipse, in the plane of two latents.

    What the encoder returns for a row is a distribution, not a point: its center says where the
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
        One for each row, shown by color and marker where there are at most 20 different ones,
        and written at the median of their rows' centers.
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
    >>> from ppl_vae import VAE, VAEConfig
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
    data = Rows.of(x, covariates, vae).select(slice(max_rows))
    data.check(vae)
    kinds = kinds_of(labels, len(data))
    with evaluating(vae, seed):
        posterior = vae.posterior(*data.take(slice(None), vae.like))
        centers, covariances = _moments(posterior)  # (row, latent), (row, latent, latent)
        prior = _moments(vae.prior_at()) if data.covariates is None else None
    pair = checked_pair(vae, which) or largest_two(centers.var(axis=0))
    plane = np.ix_(range(len(centers)), pair, pair)
    points = centers[:, pair]

    figure, axes = one_panel(6.4, 5.6)
    if prior is not None:
        center, covariance = prior[0][pair], prior[1][np.ix_(pair, pair)]
        _add_ellipses(axes, center[None], covariance[None], mass, edgecolor="0.4", linestyle="--")
    for i, (_, rows) in enumerate(kinds):
        color = COLORS[i % len(COLORS)]
        _add_ellipses(
            axes, points[rows], covariances[plane][rows], mass, facecolor=color, alpha=0.25
        )
    scatter_by_label(axes, points, kinds, size=7)
    halo = [patheffects.withStroke(linewidth=3, foreground="white")]
    for kind, rows in kinds:
        if kind is not None:
            axes.annotate(
                plain(kind),
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
def plot_latents(
    vae: AmortizedModel,
    x: Tensor | Rows,
    *,
    covariates: Tensor | None = None,
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
    covariates
        Shape ``(row, covariate)``, for a conditional VAE.
    labels
        One for each row, shown by color and marker where there are at most 20 different ones.
    max_rows
        How many rows at most.

    Raises
    ------
    ValueError
        If there are fewer labels than rows.

    Examples
    --------
    >>> import torch
    >>> from ppl_vae import VAE, VAEConfig
    >>> vae = VAE.from_config(VAEConfig(event_shape=(8, 8), latent_dim=2, hidden=(16,)))
    >>> plot_latents(vae, torch.rand(5, 8, 8).round(), labels=list("abcab")).axes[0].get_xlabel()
    'mean of latent 0'
    """
    data = Rows.of(x, covariates, vae).select(slice(max_rows))
    data.check(vae)
    means = posterior_means(vae, data)
    figure, axes = one_panel(6.0, 5.4)
    plane = plane_of(means)
    points = plane.at(means)
    scatter_by_label(axes, points, kinds_of(labels, len(points)))
    axes.set(xlabel=plane.names[0], ylabel=plane.names[1])
    axes.set_aspect("equal", adjustable="datalim")
    return figure


def _moments(q: Any) -> tuple[np.ndarray, np.ndarray]:
    """Means ``(*batch, latent)`` and covariances ``(*batch, latent, latent)``."""
    covariance = getattr(q, "covariance_matrix", None)
    if covariance is None:
        z = draw(q, (_DRAWS,))  # (draw, *batch, latent)
        rest = z - z.mean(0)
        covariance = torch.einsum("s...i,s...j->...ij", rest, rest) / (_DRAWS - 1)
        mean, sd = moments(q)
        # The spread follows its formula, where there is one; correlations come from draws.
        scale = sd / covariance.diagonal(dim1=-2, dim2=-1).clamp(min=1e-30).sqrt()
        covariance = covariance * scale[..., None] * scale[..., None, :]
    else:
        mean = q.mean
    return mean.cpu().numpy(), covariance.cpu().numpy()


def _add_ellipses(
    axes: Axes, centers: np.ndarray, covariances: np.ndarray, mass: float, **style: Any
) -> None:
    """Ellipses about ``centers`` (row, 2), of ``covariances`` (row, 2, 2)."""
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
            offsets=centers,
            offset_transform=axes.transData,
            **{"facecolor": "none", **style},
        )
    )
