"""The command that fills the missing cells of a table: impute."""

from __future__ import annotations

__all__ = ["impute"]

import json
import shlex
from pathlib import Path
from typing import Annotated

import typer

from .names import among, sources
from .options import (
    RESULTS,
    STORE,
    Draws,
    Drop,
    Force,
    Header,
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
from .printing import gone_on_with, next_steps
from .reading import rows_of

_FILLS = ("mean", "draw")
# Draws of each row that a store keeps, for multiple imputation.
_KEPT = 20


def impute(
    run: RunFolder,
    file: Annotated[
        str,
        typer.Argument(
            help="A table with the columns of the fit, such as a .csv file; for a store any rows, "
            "as of encode.",
            metavar="FILE",
            autocompletion=sources,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="The filled table; RUN/FILE.imputed.csv if not given. Or a .zarr store of means, "
            "intervals and draws, written chunk by chunk, by several processes too, and gone on "
            "with.",
            rich_help_panel=RESULTS,
        ),
    ] = None,
    fill: Annotated[
        str,
        typer.Option(
            help="mean, the best single value (of categories the most frequent); or draw, a random "
            "one, as uncertain as it is: another --seed makes another table.",
            autocompletion=among(_FILLS),
            rich_help_panel=RESULTS,
        ),
    ] = "mean",
    draws: Draws = 1000,
    label: Label = None,
    drop: Drop = None,
    header: Header = None,
    missing: Missing = None,
    thousands: Thousands = None,
    unseen: Unseen = "refuse",
    seed: Seed = 0,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fill the missing cells of a table, given the others of their row; all else stays as it is."""
    from ..data.filled import filled_table
    from ..data.tables import TABLES
    from ..files import written_whole
    from ..run import Run
    from ..workflow.imputation.impute import impute as imputed_by

    if fill not in _FILLS:
        raise ValueError(f"--fill is {fill!r}; accepted are {', '.join(_FILLS)}")
    finished = Run(run)
    path = Path(file)
    into_store = out is not None and out.suffix == STORE
    if not into_store and path.suffix.lower() not in TABLES:
        raise ValueError(
            f"FILE is {file!r}; accepted are tables, {', '.join(TABLES)}: with --out z.zarr, and "
            "by ppl_vae.impute in Python, any rows"
        )
    out = free_file(out or run / f"{path.stem}.imputed.csv", force, accepted=(*TABLES, STORE))
    vae = finished.vae()
    read = rows_of(
        finished,
        file,
        label=label,
        drop=drop,
        header=header,
        missing=missing,
        thousands=thousands,
        unseen=unseen,
    )
    with gone_on_with(out):
        found = imputed_by(
            vae,
            read.x,
            covariates=read.covariates,
            num_samples=draws,
            num_draws=_KEPT if into_store else 1,
            seed=seed,
            store=out if into_store else None,
            progress=not (quiet or as_json),
        )
    columns = finished.settings.get("features") or read.feature_names or ()
    if not into_store:
        values = (found.x if fill == "mean" else found.draws.isel(draw=0)).values
        text = filled_table(
            path, columns, values, found.missing.values, header=header, kinds=finished.columns
        )
        with written_whole(out) as temporary:
            temporary.write_text(text)
    elif "missing_rows" in found.attrs:
        if not quiet:
            typer.echo(f"{out} waits for {found.missing_rows} rows of other processes")
        return
    doubtful = (~found.weights_usable).values.nonzero()[0].tolist()
    cells = int(found.missing.sum())
    rows = int(found.missing.any(list(found.missing.dims[1:])).sum())
    if as_json:
        said = {"out": str(out), "cells": cells, "rows": rows, "rows_not_usable": doubtful}
        said["assumes"] = found.assumes
        typer.echo(json.dumps({**said, "threshold": found.threshold}))
    elif not quiet:
        typer.echo(f"{cells} cells of {rows} rows filled; written to {out}")
        typer.echo(f"This takes it that {found.assumes}.")
        if fill == "mean" and cells and not into_store:
            again = (
                f"ppl-vae impute {shlex.quote(str(run))} {shlex.quote(file)} --fill draw --seed 1"
            )
            next_steps((f"{again} --out 1.csv", "one of several tables, as uncertain as cells are"))
        if doubtful:
            listed = ", ".join(map(str, doubtful[:10])) + (", ..." if len(doubtful) > 10 else "")
            typer.echo(
                f"In {len(doubtful)} rows, counted from 0 ({listed}), k-hat is above "
                f"{found.threshold:.2f}, so that their weights cannot be used: these cells are "
                "rather the encoder's, and may be off. More --draws, or a fit with --objective "
                "iwae:num_particles=20, may help."
            )
