"""The command that fills the missing cells of a table: impute."""

from __future__ import annotations

__all__ = ["impute"]

import json
from pathlib import Path
from typing import Annotated

import typer

from .options import (
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
    source_of,
)

_FILLS = ("mean", "draw")


def impute(
    run: RunFolder,
    file: Annotated[
        str, typer.Argument(help="A table with the columns of the fit, such as a .csv file.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="The filled table; RUN/FILE.imputed.csv.")
    ] = None,
    fill: Annotated[
        str,
        typer.Option(
            help="mean, the best single value (of categories the most frequent); or draw, a random "
            "one, as uncertain as it is: another --seed makes another table."
        ),
    ] = "mean",
    draws: Annotated[int, typer.Option(help="Importance draws for each row.")] = 1000,
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
    from ..data import load_data
    from ..data.filled import filled_table
    from ..data.tables import TABLES
    from ..files import written_whole
    from ..run import Run
    from ..workflow.imputation import impute as imputed_by

    if fill not in _FILLS:
        raise ValueError(f"--fill is {fill!r}; accepted are {', '.join(_FILLS)}")
    finished = Run(run)
    path = Path(file)
    if path.suffix.lower() not in TABLES:
        raise ValueError(
            f"FILE is {file!r}; accepted are tables, {', '.join(TABLES)}: in Python "
            "ppl_vae.impute takes any rows"
        )
    out = free_file(out or run / f"{path.stem}.imputed.csv", force, accepted=TABLES)
    vae = finished.vae()
    read = load_data(
        split=None,
        **{
            **source_of(file, None, label, drop, None, header, missing, thousands),
            "context": finished.codings,
            "column": finished.columns,
            "unseen": unseen,
        },
    )
    found = imputed_by(
        vae,
        finished.rows(read),
        covariates=read.covariates,
        num_samples=draws,
        num_draws=1,
        seed=seed,
        progress=not (quiet or as_json),
    )
    columns = finished.settings.get("features") or read.feature_names or ()
    values = (found.x if fill == "mean" else found.draws.isel(draw=0)).values
    text = filled_table(
        path, columns, values, found.missing.values, header=header, kinds=finished.columns
    )
    with written_whole(out) as temporary:
        temporary.write_text(text)
    doubtful = (~found.weights_usable).values.nonzero()[0].tolist()
    cells, rows = int(found.missing.sum()), int(found.missing.any("feature").sum())
    if as_json:
        said = {"out": str(out), "cells": cells, "rows": rows, "rows_not_usable": doubtful}
        said["assumes"] = found.assumes
        typer.echo(json.dumps({**said, "threshold": found.threshold}))
    elif not quiet:
        typer.echo(f"{cells} cells of {rows} rows filled; written to {out}")
        typer.echo(f"This takes it that {found.assumes}.")
        if doubtful:
            listed = ", ".join(map(str, doubtful[:10])) + (", ..." if len(doubtful) > 10 else "")
            typer.echo(
                f"In {len(doubtful)} rows, counted from 0 ({listed}), k-hat is above "
                f"{found.threshold:.2f}, so that their weights cannot be used: these cells are "
                "rather the encoder's, and may be off. More --draws, or a fit with --objective "
                "iwae:num_particles=20, may help."
            )
