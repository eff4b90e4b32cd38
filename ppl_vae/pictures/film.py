"""The training as a film: what fixed latents decode to, epoch by epoch."""

from __future__ import annotations

__all__ = ["TrainingFilm"]

import os
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from ..amortized import AmortizedModel
from ..files import written_whole
from ..renamed import renamed
from ..workflow.draws.posterior import evaluating
from .panels import data_range, image_grid, show_image

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class TrainingFilm:
    """Frames of a fit: the decoder's mean at the same draws from the prior, after each epoch.

    Pass it to :func:`~ppl_vae.fit` as ``on_epoch``; the fit is what it would be without. It
    keeps numbers, and draws pictures when it is saved.

    Parameters
    ----------
    vae
        The VAE of images that is to be fitted.
    covariates
        One row of covariates, shape ``(1, covariate)``, for a conditional VAE.
    num_images
        Draws in a frame.
    every
        Keep a frame for each so many epochs.
    seed
        Decides the draws.

    Raises
    ------
    ValueError
        If rows are no images, or a number is below 1.

    Notes
    -----
    Source: TensorFlow, *Convolutional Variational Autoencoder*,
    https://www.tensorflow.org/tutorials/generative/cvae, for the form of the picture.

    Examples
    --------
    >>> from ppl_vae import VAE, VAEConfig
    >>> vae = VAE.from_config(VAEConfig(event_shape=(8, 8), latent_dim=2, hidden=(16,)))
    >>> film = TrainingFilm(vae, num_images=4)
    >>> for epoch in range(3):  # or fit(vae, x, on_epoch=film)
    ...     film(epoch)
    >>> len(film), film.frames[-1].shape
    (3, (4, 8, 8))
    """

    @renamed(context="covariates")
    def __init__(
        self,
        vae: AmortizedModel,
        *,
        covariates: Tensor | None = None,
        num_images: int = 16,
        every: int = 1,
        seed: int = 0,
    ) -> None:
        if len(vae.event_shape) not in (2, 3):
            raise ValueError(
                f"a film shows images, and this VAE's rows have the shape {vae.event_shape}; "
                "plot_losses shows how the fit of a table went"
            )
        if num_images < 1 or every < 1:
            raise ValueError(f"num_images is {num_images} and every {every}; pass at least 1")
        self.vae = vae
        self.every = every
        self.frames: list[np.ndarray] = []
        self.epochs: list[int] = []
        with evaluating(vae, seed):
            self._z, _, self._covariates = vae.simulate(num_images, covariates)

    def __len__(self) -> int:
        return len(self.frames)

    def __call__(self, epoch: int) -> None:
        """Keep a frame, ``(image, *event)``, if this epoch is one to keep."""
        if epoch % self.every:
            return
        like = self.vae.like
        given = None if self._covariates is None else self._covariates.to(like)
        with evaluating(self.vae, seed=0):
            means = self.vae.typical(self._z.to(like), given)
        self.frames.append(means.cpu().numpy())
        self.epochs.append(epoch)

    def plot(self, index: int = -1) -> Figure:
        """One frame as a figure; the last by default."""
        self._check_any()
        frame = self.frames[index]
        columns = int(np.ceil(np.sqrt(len(frame))))
        lines = -(-len(frame) // columns)
        figure, grid = image_grid(lines, columns, 0.8)
        for axes in grid.flat:
            axes.set_axis_off()
        limits = data_range(*self.frames)  # the same in all frames
        for axes, image in zip(grid.flat, frame, strict=False):
            show_image(axes, image, limits)
        figure.suptitle(f"epoch {self.epochs[index]}", fontsize="medium")
        return figure

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        frames_per_second: float = 8.0,
        pause: float = 2.0,
    ) -> None:
        """Write an animated GIF that loops, whole or not at all.

        Parameters
        ----------
        path
            The path of the GIF.
        frames_per_second
            Its speed.
        pause
            Seconds for which the last frame stays.

        Raises
        ------
        ValueError
            If there is no frame, or the speed is not positive.
        OSError
            If the file cannot be written.
        """
        from PIL import Image

        self._check_any()
        if not frames_per_second > 0:
            raise ValueError(f"frames_per_second is {frames_per_second}; pass a positive number")
        gray = self.frames[0].ndim == 3 or self.frames[0].shape[1] == 1
        mode = "L" if gray else "RGB"  # a GIF of gray levels needs no palette of its own
        pictures = [Image.fromarray(self._pixels(i)).convert(mode) for i in range(len(self))]
        each = round(1000 / frames_per_second)
        durations = [each] * (len(pictures) - 1) + [max(each, round(1000 * pause))]
        with written_whole(path) as temporary:
            pictures[0].save(
                temporary,
                format="GIF",
                save_all=True,
                append_images=pictures[1:],
                duration=durations,
                loop=0,
            )

    def _pixels(self, index: int) -> np.ndarray:
        figure = self.plot(index)
        figure.canvas.draw()
        return np.asarray(figure.canvas.buffer_rgba())[..., :3]  # type: ignore[attr-defined]

    def _check_any(self) -> None:
        if not self.frames:
            raise ValueError(
                "the film has no frame yet; pass it to fit as on_epoch, or call it with an epoch"
            )
