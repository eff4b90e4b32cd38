"""The commands that show a finished run: evaluate, pictures and report."""

from __future__ import annotations

__all__ = ["evaluate", "pictures", "report"]

import json
import shlex
from typing import Annotated

import typer
from rich.console import Console

from .options import (
    RESULTS,
    Draws,
    Json,
    Quiet,
    RunFolder,
    Seed,
    numbers,
)
from .printing import next_steps, one_line, print_metrics
from .reading import to_write_into


def evaluate(
    run: RunFolder,
    draws: Draws = 500,
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Estimate again how well test rows are described: log p(x), with other draws."""
    from ..run import Run
    from ..run import evaluate as metrics_of

    finished = Run(run)
    train, test = finished.splits()
    metrics = metrics_of(
        finished.vae(),
        finished.rows(train),
        finished.rows(test),
        covariates=test.covariates,
        num_samples=draws,
        seed=seed,
        progress=not (quiet or as_json),
    )
    if as_json:
        typer.echo(json.dumps(metrics))
    elif not quiet:
        print_metrics(Console(), metrics)
        next_steps(
            (f"ppl-vae diagnose {shlex.quote(str(run))}", "which rows' posteriors can be believed")
        )


def pictures(
    run: RunFolder,
    which: Annotated[
        str | None,
        typer.Option(
            help="Two latents to look at, from 0; the most used if not given.",
            metavar="N,N",
            rich_help_panel=RESULTS,
        ),
    ] = None,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Draw the latent space: where rows lie, and what points of it stand for."""
    from ..run.afterwards import draw_pictures

    finished = to_write_into(run)
    vae, test = finished.vae(), finished.splits()[1]
    pair = None if which is None else numbers("--which", which)
    if pair is not None and len(pair) != 2:
        raise ValueError(f"--which is {which!r}; pass two latents, such as 0,1")
    names = draw_pictures(
        run,
        vae,
        test,
        finished.rows(test),
        which=None if pair is None else (pair[0], pair[1]),
        seed=seed,
    )
    if not quiet:
        typer.echo(f"Written to {run}: {', '.join(names)}")
        if test.covariates is not None:
            typer.echo("Traversals and manifold are given the context of the first test row.")
        next_steps(
            (f"ppl-vae report {shlex.quote(str(run))}", "these and all else of the run as one page")
        )


def report(run: RunFolder, quiet: Quiet = False) -> None:
    """Write the run's story from data to verdict into one page, RUN/report.html."""
    from ..run.afterwards import draw_pictures
    from ..run.report import PICTURES, write_report

    finished = to_write_into(run)
    if not any((run / name).exists() for name in PICTURES):
        try:
            test = finished.splits()[1]
            draw_pictures(run, finished.vae(), test, finished.rows(test))
        except (ValueError, TypeError, OSError) as error:  # the data may have moved since
            if not quiet:
                typer.echo(f"Without pictures of the latents: {one_line(error)}")
    path = write_report(finished.folder)
    if not quiet:
        typer.echo(f"Written to {path}")
        next_steps((path.resolve().as_uri(), "open it in a browser, or mail it: it needs nothing"))
