"""From a recipe to a run folder: fitted, judged, drawn and written, as far as each succeeds."""

from __future__ import annotations

__all__ = ["Finished", "make_run"]

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from .. import __version__
from ..config import VAEConfig
from ..inference.fit import FitResult, fit
from ..inference.ranks import Ranks, launched
from ..pictures.film import TrainingFilm
from ..rows import Rows
from ..vae import VAE
from .afterwards import afterwards
from .device import fabric_of, tensor_float_32
from .folder import Run
from .matching import fingerprints
from .metrics import finite_json
from .prepared import prepared
from .recipe import Recipe
from .unfinished import Unfinished, partial_of, unfinished


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


def make_run(
    recipe: Recipe, out: Path, *, force: bool, resume: bool, progress: bool
) -> Finished | None:
    """Fit a VAE to a named data set or file, and write the run folder ``out``.

    Everything is written to ``out`` + ``.partial`` and moved to ``out`` when whole; an
    interrupted fit is continued from there by ``resume``. What fails after the fit, such as a
    picture, costs that and nothing else. Of several processes that ``torchrun`` or ``srun``
    started, all fit, and the first alone locks, writes and judges; the others return None.

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
    ConnectionError
        If another process has ended, or does not answer.
    """
    recipe.check()
    fabric = launched(fabric_of(recipe, partial_of(out)))
    ranks = Ranks(fabric)
    with (
        _taken(ranks, out, force=force, resume=resume) as work,
        tensor_float_32(recipe.precision == "tf32"),
    ):
        ready = ranks.made_by_each(lambda: prepared(recipe))
        train, test, x_test, config = ready.train, ready.test, ready.x_test, ready.config
        vae = (
            VAE.from_config(config, seed=recipe.seed)
            if recipe.continues is None
            else Run(recipe.continues).vae()
        )
        if recipe.binarize == "none":
            Rows(x_test, test.covariates).check(vae, name="the test rows")
        recipe = recipe.sized(len(train.x))
        every = math.ceil((recipe.epochs or 1) / 30)
        first = None if test.covariates is None else test.covariates[:1]
        frames = (
            TrainingFilm(vae, covariates=first, every=every, seed=recipe.seed)
            if recipe.film and work is not None
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
            checkpoint_dir=None if work is None else work.folder / "checkpoint",
            checkpoint_every=recipe.checkpoint_every,
            threads=recipe.threads,
            resume=resume,
            progress=progress,
            on_epoch=frames,
            **options,
        )
        ranks.leave()
        if work is None:
            return None
        for logger in fabric.loggers:
            logger.finalize("success")
        folder = work.folder
        vae.save(folder / "vae.safetensors")
        settings = {
            "ppl_vae": __version__,
            "data": _readable(recipe),
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
                "processes": ranks.world,
            },
            "continues": recipe.continues and str(recipe.continues.resolve()),
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


@contextmanager
def _taken(ranks: Ranks, out: Path, *, force: bool, resume: bool) -> Iterator[Unfinished | None]:
    """The folder that the first of several processes locks and writes, on it; None on others."""
    work: list[Unfinished] = []
    with ExitStack() as stack:
        place = unfinished(out, force=force, resume=resume)
        ranks.made_by_first(lambda: work.append(stack.enter_context(place)))
        yield work[0] if work else None


def _readable(recipe: Recipe) -> dict[str, Any]:
    """How rows were read, in JSON."""
    found = {k: str(v) if isinstance(v, Path) else v for k, v in recipe.data.items()}
    if recipe.continues is not None:  # the run itself holds the columns and the codings in full
        found |= {"context": [coding.name for coding in recipe.data["context"]], "column": {}}
    return found


def _write(path: Path, value: Any) -> None:
    path.write_text(finite_json(value, indent=2) + "\n")
