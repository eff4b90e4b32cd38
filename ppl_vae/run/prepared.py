"""What a recipe comes to before it is fitted: the rows, and the choice of parts."""

from __future__ import annotations

__all__ = ["Prepared", "chosen", "prepared"]

from dataclasses import dataclass, replace

from torch import Tensor

from ..config import VAEConfig
from ..data import Dataset, load_splits
from ..rows import to_float
from .folder import Run
from .matching import rows_once
from .recipe import Recipe


@dataclass(frozen=True)
class Prepared:
    """Rows to fit to and to test by, and what is fitted.

    Attributes
    ----------
    train, test
        Rows as they were read.
    x_test
        The test rows as the model sees them, such as bits.
    config
        The VAE's choices.
    """

    train: Dataset
    test: Dataset
    x_test: Tensor
    config: VAEConfig


def prepared(recipe: Recipe) -> Prepared:
    """Read the rows of a recipe, and choose what is to be fitted to them.

    Raises
    ------
    ValueError, TypeError, OSError
        If the data are not accepted, or the choices do not fit them.
    """
    return chosen(recipe, *load_splits(**recipe.data))


def chosen(recipe: Recipe, train: Dataset, test: Dataset) -> Prepared:
    """Choose what is to be fitted to rows that were read; a run that goes on has chosen.

    Raises
    ------
    ValueError
        If the choices do not fit the rows.
    """
    if recipe.continues is not None:
        run = Run(recipe.continues)
        train, test = run.matched(train), run.matched(test)
        config = VAEConfig(**run.settings["vae"])
        return Prepared(train, test, rows_once(test, recipe.binarize, recipe.seed), config)
    x_test = rows_once(test, recipe.binarize, recipe.seed)
    seen = "none" if recipe.binarize == "none" else "threshold"
    sample = train.x if seen == "none" else rows_once(train, seen, recipe.seed)
    missing = bool(to_float(sample).isnan().any() or x_test.isnan().any())
    width = 0 if train.covariates is None else train.covariates.shape[1]
    described = {"missing": missing, "covariate_dim": width, **recipe.choices}
    config = VAEConfig.for_data(replace(train, x=sample), **described)
    return Prepared(train, test, x_test, config)
