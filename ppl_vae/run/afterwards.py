"""What a fit is followed by: metrics, the posterior, and pictures."""

from __future__ import annotations

__all__ = ["afterwards", "draw_pictures"]

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..data import Dataset
from ..files import written_whole
from ..pictures.decoded import plot_interpolation, plot_manifold, plot_traversals
from ..pictures.film import TrainingFilm
from ..pictures.latents import plot_latent_map, plot_latents
from ..pictures.rows import plot_draws, plot_losses, plot_reconstructions
from ..trees.vae import to_datatree, write_datatree
from ..vae import VAE
from ..workflow.draws.plane import map_rows
from .matching import rows_once
from .metrics import evaluate
from .recipe import Recipe

if TYPE_CHECKING:
    import xarray as xr

_POSTERIOR_ROWS = 100


def afterwards(
    metrics: dict[str, Any],
    history: xr.Dataset,
    vae: VAE,
    folder: Path,
    recipe: Recipe,
    train: Dataset,
    test: Dataset,
    x_test: Tensor,
    frames: TrainingFilm | None,
    progress: bool,
) -> Iterator[tuple[str, Callable[[], Any]]]:
    """What is to be made, each by itself, so that the failure of one leaves the others.

    Yields what it is called, and a function that writes it into ``folder``, or into ``metrics``.
    """
    given, names = test.covariates, test.feature_names

    def evaluation() -> None:
        metrics["test"] = evaluate(
            vae,
            rows_once(train, recipe.binarize, recipe.seed),
            x_test,
            covariates=given,
            num_samples=recipe.num_samples,
            seed=recipe.seed,
            progress=progress,
        )

    def posterior() -> None:
        some = slice(_POSTERIOR_ROWS)
        tree = to_datatree(
            vae,
            x_test[some],
            covariates=given if given is None else given[some],
            labels=None if test.labels is None else test.labels[some],
            feature_names=names,
            covariate_names=test.covariate_names,
            history=history,
            progress=progress,
        )
        write_datatree(tree, folder / "posterior.nc")

    def latent_map() -> None:
        found = map_rows(vae, x_test, covariates=given, labels=test.labels)
        write_datatree(found, folder / "map.nc")

    yield "the evaluation", evaluation
    yield "history.nc", lambda: write_datatree(history, folder / "history.nc")
    yield "posterior.nc", posterior
    yield "map.nc", latent_map
    for name, draw in {
        "losses.png": lambda: plot_losses(history),
        "reconstructions.png": lambda: plot_reconstructions(
            vae, x_test, covariates=given, feature_names=names
        ),
        "prior_draws.png": lambda: plot_draws(vae, covariates=given, feature_names=names),
        "latents.png": lambda: plot_latents(vae, x_test, covariates=given, labels=test.labels),
    }.items():
        yield name, lambda name=name, draw=draw: draw().savefig(folder / name)  # type: ignore[misc]
    if frames is not None:
        yield "training.gif", lambda: frames.save(folder / "training.gif")


def draw_pictures(
    folder: Path,
    vae: VAE,
    test: Dataset,
    x: Tensor,
    *,
    which: tuple[int, int] | None = None,
    seed: int = 0,
) -> list[str]:
    """Draw the latent space into a run folder: map, manifold, traversals and interpolation.

    Parameters
    ----------
    folder
        Where to.
    vae
        The run's VAE.
    test, x
        The run's test rows, and these as the VAE was fitted to them.
    which
        Two latents to look at; the most used if not given.
    seed
        Decides what is drawn at random.

    Returns
    -------
    The names of the files. Tables have neither manifold nor interpolation, one latent no map.
    """
    given = test.covariates
    one = None if given is None else given[:1]
    figures = {
        "traversals": plot_traversals(
            vae, covariates=one, feature_names=test.feature_names, seed=seed
        )
    }
    if vae.latent_dim >= 2:
        figures["latent_map"] = plot_latent_map(
            vae, x, covariates=given, labels=test.labels, which=which, seed=seed
        )
    if len(vae.event_shape) > 1:
        figures["interpolation"] = plot_interpolation(vae, x, covariates=given)
        if vae.latent_dim >= 2:
            figures["manifold"] = plot_manifold(vae, covariates=one, which=which, seed=seed)
    for name, figure in figures.items():
        with written_whole(folder / f"{name}.png") as temporary:
            figure.savefig(temporary)
    return sorted(f"{name}.png" for name in figures)
