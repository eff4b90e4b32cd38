"""From a recipe to a run folder: fitted, judged, drawn and written, as far as each succeeds."""

from __future__ import annotations

__all__ = ["Finished", "make_run"]

import math
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from .. import __version__
from ..config import VAEConfig
from ..inference.fit import FitResult, fit
from ..pictures.film import TrainingFilm
from ..rows import Rows
from ..vae import VAE
from .afterwards import afterwards
from .device import fabric_of, tensor_float_32
from .matching import fingerprints
from .metrics import finite_json
from .prepared import prepared
from .recipe import Recipe
from .unfinished import unfinished


@dataclass
class Finished:
    """What :func:`make_run` made.

    Attributes
    ----------
    out
        The folder.
    config, result, metrics
        The VAE's choices, what the fit did, and how well test rows are described.
    missing
        What could not be made after the fit, and why, a sentence each.
    """

    out: Path
    config: VAEConfig
    result: FitResult
    metrics: dict[str, Any]
    missing: list[str] = field(default_factory=list)


def make_run(recipe: Recipe, out: Path, *, force: bool, resume: bool, progress: bool) -> Finished:
    """Fit a VAE to a named data set or file, and write the run folder ``out``.

    Everything is written to ``out`` + ``.partial`` and moved to ``out`` when whole; an
    interrupted fit is continued from there by ``resume``. What fails after the fit, such as a
    picture, costs that and nothing else.

    Parameters
    ----------
    recipe
        What to fit, and how.
    out
        The folder to write.
    force
        Replace ``out`` if it is a run folder.
    resume
        Go on with an unfinished run.
    progress
        Show how it goes on standard error.

    Raises
    ------
    ValueError, TypeError, OSError
        If the recipe, the data or the place are not accepted.
    """
    recipe.check()
    with (
        unfinished(out, force=force, resume=resume) as work,
        tensor_float_32(recipe.precision == "tf32"),
    ):
        folder = work.folder
        fabric = fabric_of(recipe, folder)
        ready = prepared(recipe)
        train, test, x_test, config = ready.train, ready.test, ready.x_test, ready.config
        vae = VAE.from_config(config, seed=recipe.seed)
        if recipe.binarize == "none":
            Rows(x_test, test.covariates).check(vae, name="the test rows")
        recipe = recipe.sized(len(train.x))
        every = math.ceil((recipe.epochs or 1) / 30)
        first = None if test.covariates is None else test.covariates[:1]
        frames = (
            TrainingFilm(vae, covariates=first, every=every, seed=recipe.seed)
            if recipe.film
            else None
        )
        options = {
            name: getattr(recipe, name)
            for name in (
                *("epochs", "batch_size", "accumulate", "learning_rate", "schedule", "optimizer"),
                *("average", "objective", "patience", "engine", "seed"),
            )
        }
        result = fit(
            vae,
            train.x,
            covariates=train.covariates,
            validation=recipe.validation or None,
            binarize=recipe.binarize,
            fabric=fabric,
            checkpoint_dir=folder / "checkpoint",
            checkpoint_every=recipe.checkpoint_every,
            threads=recipe.threads,
            resume=resume,
            progress=progress,
            on_epoch=frames,
            **options,
        )
        for logger in fabric.loggers:
            logger.finalize("success")
        vae.save(folder / "vae.safetensors")
        settings = {
            "ppl_vae": __version__,
            "data": {k: str(v) if isinstance(v, Path) else v for k, v in recipe.data.items()},
            "features": train.feature_names,
            "dtype": str(train.x.dtype).removeprefix("torch."),
            "context": [asdict(coding) for coding in train.codings],
            "columns": [asdict(kind) for kind in train.columns or ()],
            "fingerprints": fingerprints(train, test),
            "binarize": recipe.binarize,
            "vae": config.model_dump(),
            "fit": {
                **options,
                "validation": recipe.validation or None,
                "precision": recipe.precision,
            },
        }
        _write(folder / "config.json", settings)
        made = Finished(work.out, config, result, {})
        made.metrics = {
            "data": {"name": train.name, "source": train.source, "train_rows": len(train.x)},
            "fit": {
                "stop_reason": result.stop_reason,
                "finite": result.finite,
                "epochs": result.history.sizes["epoch"],
                "best_epoch": result.history.attrs["best_epoch"],
                "seconds": result.seconds,
                "rows_per_second": result.rows_per_second,
                "steps_by_threads": {str(n): steps for n, steps in result.threads.items()},
            },
        }
        for what, make in afterwards(
            made.metrics, result.history, vae, folder, recipe, train, test, x_test, frames, progress
        ):
            try:
                make()
            except Exception as error:
                made.missing.append(f"{what} is missing ({' '.join(str(error).split())})")
        made.metrics["missing"] = made.missing
        _write(folder / "metrics.json", made.metrics)
    return replace(made, out=work.out)


def _write(path: Path, value: Any) -> None:
    path.write_text(finite_json(value, indent=2) + "\n")
