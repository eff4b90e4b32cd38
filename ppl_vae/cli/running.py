"""Turn the options of the command line into a run, and print how it went."""

from __future__ import annotations

__all__ = ["made", "print_reproduction", "print_run"]

import shlex
import warnings
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from ..files import written_whole
from ..presets import PRESETS
from ..run import (
    Finished,
    Run,
    finite_json,
    free_folder,
    make_run,
    recipe_of,
    to_start,
    words,
)
from .printing import (
    INTERRUPTED,
    NATS,
    course,
    fail,
    next_steps,
    print_metrics,
    quantities,
    way_on,
)
from .starting import one_voice, start


def made(
    preset: str | None,
    out: Path | None,
    name: str,
    *,
    resume: bool,
    force: bool,
    progress: bool,
    **given: Any,
) -> Finished:
    """Make a run of a preset, of the defaults or of an earlier run; options given replace theirs.

    Where several processes were asked for, this one starts them, and exits as they do. Of these
    the first returns; the others exit when all have fitted.
    """
    try:
        with one_voice():
            recipe = recipe_of(preset, **given)
            recipe.check()
            several = to_start(recipe)
            if several is not None:
                start(*several)
            out = out or (_unfinished(name) if resume else free_folder(name))
            with warnings.catch_warnings():
                # The stop reason is printed, with the rest.
                warnings.filterwarnings("ignore", "the fit stopped early", RuntimeWarning)
                finished = make_run(recipe, out, force=force, resume=resume, progress=progress)
    except KeyboardInterrupt as stop:  # typer keeps no more of it than the exit code
        fail(f"interrupted{way_on(stop)}", code=INTERRUPTED)
    if finished is None:
        raise typer.Exit
    return finished


def _unfinished(name: str) -> Path:
    """The latest unfinished run of that name, where its folder was not named."""
    found = [
        path
        for path in Path("runs").glob(f"{name}*.partial")
        if path.name.removesuffix(".partial").removeprefix(name).lstrip("-").isdecimal()
        or path.name == f"{name}.partial"
    ]
    if not found:
        return Path("runs") / name
    latest = max(found, key=lambda path: path.stat().st_mtime)
    return latest.with_name(latest.name.removesuffix(".partial"))


def print_run(finished: Finished, preset: str | None, *, as_json: bool, quiet: bool) -> None:
    """Print what was fitted and how well; exit with code 1 where the fit failed."""
    metrics, config, out = finished.metrics, finished.config, finished.out
    said = words(metrics["test"]) if "test" in metrics else []
    if as_json:
        typer.echo(finite_json({"run": str(out), **metrics}))
    elif not quiet:
        console = Console(markup=False, highlight=False)
        reason = config.reason or f"as preset {preset}"
        given = ", ".join(coding.name for coding in Run(out).codings)
        console.print(
            f"{metrics['data']['source']}: {metrics['data']['train_rows']} rows to fit to"
            f"{f', conditional on {given}' if given else ''}\n"
            f"{config.choice('likelihood')} likelihood, {reason}\n"
            f"{config.latent_dim} latents, prior {config.choice('prior')}, guide "
            f"{config.choice('guide')}, network {config.choice('network')}\n"
            f"{course(metrics['fit'])}",
            soft_wrap=True,
        )
        if "test" in metrics:
            print_metrics(console, metrics["test"])
        for sentence in said:
            console.print(sentence, soft_wrap=True)
        names = ", ".join(sorted(path.name for path in out.iterdir()))
        console.print(f"Written to {out}: {names}", soft_wrap=True)
        if finished.result.finite:
            run = shlex.quote(str(out))
            next_steps(
                (f"ppl-vae diagnose {run}", "which rows' posteriors can be believed"),
                (f"ppl-vae report {run}", "the whole story as one page"),
            )
    _end(finished, said)


def print_reproduction(
    finished: Finished, name: str, seed: int, *, as_json: bool, quiet: bool
) -> None:
    """Print a source's figure beside ours, and write both into the run."""
    preset, metrics, out = PRESETS[name], finished.metrics, finished.out
    if not finished.result.finite or "test" not in metrics:
        _end(finished, [])
    found = {
        "name": name,
        "source": preset.source,
        "url": preset.url,
        "differs": list(preset.differs),
        "quantity": preset.quantity,
        "published": preset.published,
        "reports": preset.reports,
        "seed": seed,
        **{key: metrics["fit"][key] for key in ("epochs", "seconds")},
        "test": metrics["test"],
    }
    with written_whole(out / "reproduction.json") as temporary:
        temporary.write_text(finite_json(found, indent=2) + "\n")
    if as_json:
        typer.echo(finite_json({"run": str(out), **found}))
    elif not quiet:
        console = Console(markup=False, highlight=False)
        table = Table(title=f"{name}: {preset.source}", title_justify="left")
        for column in (f"{metrics['test']['rows']} test rows, nats per row", "theirs", "ours"):
            table.add_column(column, justify="left" if not table.columns else "right")
        for quantity, label in quantities(metrics["test"]).items():
            row = metrics["test"][quantity]
            theirs = preset.published if quantity == preset.quantity else None
            ours = f"{row['nats_per_row']:.2f}"
            if row["standard_error"] is not None:
                ours += f" +- {row['standard_error']:.2f}"
            table.add_row(label, theirs or "none published", ours)
        console.print(table)
        console.print(
            f"{course(metrics['fit'])}; seed {seed}\n"
            + (f"Not as in the source: {'; '.join(preset.differs)}.\n" if preset.differs else "")
            + (f"The source reports {preset.reports}.\n" if preset.reports else "")
            + f"{preset.url}\n{NATS}\nWritten to {out}",
            soft_wrap=True,
        )
        run = shlex.quote(str(out))
        next_steps(
            (f"ppl-vae diagnose {run}", "which rows' posteriors can be believed"),
            (f"ppl-vae pictures {run}", "the latent space"),
        )
    _end(finished, [])


def _end(finished: Finished, said: list[str]) -> None:
    """Exit with code 1 where the fit failed, after printing what could not be made."""
    if not finished.result.finite:
        fail(f"the fit stopped early: {finished.result.stop_reason}", code=1)
    if said and said[0].startswith("This is no fit"):
        fail(said[0], code=1)
    if finished.missing:
        fail(f"the run is in {finished.out}, but {'; '.join(finished.missing)}", code=1)
