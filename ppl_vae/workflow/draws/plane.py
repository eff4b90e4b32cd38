"""A plane through the space of latents, and where rows lie in it."""

from __future__ import annotations

__all__ = ["Plane", "map_rows", "plane_of"]

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ...amortized import AmortizedModel
from ...rows import Rows
from .posterior import posterior_means

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True)
class Plane:
    """Two directions in the space of latents.

    Attributes
    ----------
    origin
        The latents that lie at 0, 0: shape ``(latent,)``.
    directions
        Of length one and at right angles, shape ``(2, latent)``; of one latent the second is zero.
    names
        What each is, to be written at an axis.
    """

    origin: np.ndarray
    directions: np.ndarray
    names: tuple[str, str]

    def at(self, z: np.ndarray) -> np.ndarray:
        """Where latents ``(..., latent)`` lie: shape ``(..., 2)``."""
        return (z - self.origin) @ self.directions.T


def plane_of(means: np.ndarray) -> Plane:
    """The plane in which posterior means ``(row, latent)`` differ most.

    Up to two latents are the directions themselves; of more they are the two principal components.

    Examples
    --------
    >>> plane_of(np.zeros((5, 2))).names
    ('mean of latent 0', 'mean of latent 1')
    >>> plane = plane_of(np.random.default_rng(0).normal(size=(50, 3)) * [1, 9, 1])
    >>> int(np.abs(plane.directions[0]).argmax())
    1
    """
    size = means.shape[1]
    if size <= 2:
        names = [f"mean of latent {i}" for i in range(size)] + [""] * (2 - size)
        return Plane(np.zeros(size), np.eye(2, size), (names[0], names[1]))
    from sklearn.decomposition import PCA

    pca = PCA(2, svd_solver="full").fit(means)
    first, second = (
        f"principal component {i + 1} of the posterior means ({share:.0%})"
        for i, share in enumerate(pca.explained_variance_ratio_)
    )
    return Plane(pca.mean_, pca.components_, (first, second))


def map_rows(
    vae: AmortizedModel,
    x: Tensor | Rows,
    *,
    covariates: Tensor | None = None,
    labels: Sequence[Any] | np.ndarray | None = None,
    max_rows: int = 2000,
) -> xr.Dataset:
    """Where rows lie in the plane in which their posterior means differ most.

    Parameters
    ----------
    vae, x, covariates
        A model and rows, shape ``(row, *event)``; the first ``max_rows`` are taken.
    labels
        One for each row, kept as text.
    max_rows
        How many rows at most.

    Returns
    -------
    xarray.Dataset
        Over ``row``: ``x`` and ``y``, whose attribute ``long_name`` says what they are, and
        ``label``, where there are labels.

    Raises
    ------
    TypeError, ValueError
        If ``x`` or ``covariates`` is not what the model describes.

    Examples
    --------
    >>> import torch
    >>> from ppl_vae import VAE, VAEConfig
    >>> vae = VAE.from_config(VAEConfig(event_shape=(8, 8), latent_dim=2, hidden=(16,)))
    >>> map_rows(vae, torch.rand(5, 8, 8).round()).x.attrs["long_name"]
    'mean of latent 0'
    """
    import xarray as xr

    data = Rows.of(x, covariates, vae).select(slice(max_rows))
    means = posterior_means(vae, data)
    plane = plane_of(means)
    points = plane.at(means).astype(np.float32)
    found = xr.Dataset(
        {
            axis: ("row", points[:, i], {"long_name": plane.names[i]})
            for i, axis in enumerate(("x", "y"))
        },
        coords={"row": range(len(points))},
    )
    if labels is not None:
        found["label"] = "row", np.array([str(label) for label in labels[: len(points)]])
    return found
