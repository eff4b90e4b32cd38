"""The command that says which rows can be believed: diagnose."""

from __future__ import annotations

__all__ = ["diagnose"]

import json
import shlex
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .names import sources
from .options import (
    RESULTS,
    STORE,
    DataRoot,
    Draws,
    Drop,
    Force,
    Header,
    ImageSize,
    Json,
    Label,
    Missing,
    Quiet,
    RunFolder,
    Seed,
    Thousands,
    Unseen,
    free_file,
)
from .printing import NATS, gone_on_with, next_steps
from .reading import rows_of, to_write_into

if TYPE_CHECKING:
    from ..workflow.verdict.findings import Diagnosis


def diagnose(
    run: RunFolder,
    data: Annotated[
        str | None,
        typer.Argument(
            help="Rows as of encode, with --out; the run's test rows if not given.",
            metavar="DATA",
            show_default=False,
            autocompletion=sources,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="A .zarr store to write to in place of RUN, chunk by chunk, by several processes "
            "too, and gone on with where it was stopped.",
            rich_help_panel=RESULTS,
        ),
    ] = None,
    draws: Draws = 500,
    data_root: DataRoot = None,
    label: Label = None,
    drop: Drop = None,
    header: Header = None,
    missing: Missing = None,
    thousands: Thousands = None,
    unseen: Unseen = "refuse",
    image_size: ImageSize = None,
    seed: Seed = 0,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Say which rows' approximate posteriors can be believed, and what would help.

    Each row is judged by its own draws: as it is, with importance weights, after a refinement of
    its own, or not. The verdict on test rows is added to the run folder.
    """
    from ..rows import Rows
    from ..run import Run, caveats
    from ..store import Store
    from ..workflow.verdict.diagnosis import diagnose as diagnosis_of

    if data is not None and out is None:
        raise ValueError(
            "DATA was given, but the run holds what is said of its test rows; add --out"
        )
    if out is not None:
        out = free_file(out, force, accepted=(STORE,))
    finished = to_write_into(run) if out is None else Run(run)
    given: dict[str, Any] = {}
    train, test = finished.splits()
    if data is None:
        given = {"covariates": test.covariates, "baseline": _independent(run)}
        x = finished.rows(test)
    else:
        read = rows_of(
            finished,
            data,
            data_root=data_root,
            label=label,
            drop=drop,
            image_size=image_size,
            header=header,
            missing=missing,
            thousands=thousands,
            unseen=unseen,
        )
        given, x = {"covariates": read.covariates}, read.x
    with gone_on_with(out):
        found = diagnosis_of(
            finished.vae(),
            x,
            num_samples=draws,
            training=Rows(finished.rows(train), train.covariates),
            seed=seed,
            store=out,
            progress=not (quiet or as_json),
            **given,
        )
    if out is not None and Store(out).rank:
        return  # of several processes the first says what all have found
    lines = [found.summary()]
    if data is None:
        lines += caveats(_test_metrics(run))
    summary = "\n".join(lines)
    if out is None:
        _write_diagnosis(run, found, summary)
    if as_json:
        counts = Counter(found.rows.verdict.values.tolist())
        cures = [asdict(cure) for cure in found.cures]
        typer.echo(json.dumps({"verdicts": counts, "faults": found.faults, "cures": cures}))
    elif not quiet:
        typer.echo(summary)
        typer.echo(f"\n{NATS} KL(q || p) is 0 where a posterior is met.")
        if out is None:
            typed = f"ppl-vae report {shlex.quote(str(run))}"
            next_steps((typed, "this and all else of the run as one page"))


def _write_diagnosis(run: Path, found: Diagnosis, summary: str) -> None:
    """Add a diagnosis to a run, with its pictures."""
    from ..files import written_whole
    from ..pictures.checks import plot_calibration
    from ..trees.vae import write_datatree

    write_datatree(found.to_datatree(), run / "diagnosis.nc")
    for name, figure in {
        "diagnosis.png": found.plot(),
        "calibration.png": plot_calibration(found.calibration),
    }.items():
        with written_whole(run / name) as temporary:
            figure.savefig(temporary)
    with written_whole(run / "diagnosis.txt") as temporary:
        temporary.write_text(summary + "\n")


def _test_metrics(run: Path) -> dict[str, Any]:
    """Read the metrics of the run's test rows, or nothing where the file is damaged."""
    try:
        found = json.loads((run / "metrics.json").read_text())["test"]
    except (OSError, ValueError, TypeError, KeyError):
        return {}
    return found if isinstance(found, dict) else {}


def _independent(run: Path) -> float | None:
    """Read log p(x) of independent entries on the test rows, nats per row, if the run has it."""
    try:
        return float(_test_metrics(run)["independent"]["nats_per_row"])
    except (ValueError, TypeError, KeyError):
        return None
