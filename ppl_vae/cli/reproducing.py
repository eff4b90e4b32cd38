"""The command that fits published VAEs, and prints their figures beside ours: reproduce."""

from __future__ import annotations

__all__ = ["reproduce"]

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from ..processes import place
from .names import presets
from .options import (
    FIT,
    RESULTS,
    CheckpointEvery,
    DataRoot,
    Device,
    Engine,
    Force,
    Json,
    Out,
    Precision,
    Quiet,
    Resume,
    Seed,
    Threads,
    source_of,
    threads_of,
)
from .printing import published
from .starting import one_voice


def reproduce(
    name: Annotated[
        str | None,
        typer.Argument(
            help="Of a published VAE; none to list them.", metavar="NAME", autocompletion=presets
        ),
    ] = None,
    out: Out = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            help="Passes over the rows; those of the list if not given.", rich_help_panel=FIT
        ),
    ] = None,
    draws: Annotated[
        int | None,
        typer.Option(
            help="Importance draws for each row; the source's if not given.",
            rich_help_panel=RESULTS,
        ),
    ] = None,
    data_root: DataRoot = None,
    seed: Seed = 0,
    engine: Engine = "auto",
    device: Device = "auto",
    precision: Precision = None,
    threads: Threads = None,
    film: Annotated[
        bool,
        typer.Option("--film", help="Draw the training: training.gif.", rich_help_panel=RESULTS),
    ] = False,
    checkpoint_every: CheckpointEvery = None,
    resume: Resume = False,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fit a published VAE to its data, and print its source's figure beside ours."""
    from ..presets import PRESETS

    if name is None:
        columns = ("name", "of", "data", "epochs here", "test rows, nats per row")
        table = Table(*columns, show_edge=False, box=None)
        for key, preset in PRESETS.items():
            epochs_here = str(preset.fit["epochs"])
            table.add_row(key, preset.source, preset.data, epochs_here, published(preset))
        Console().print(table)
        return
    from .running import made, print_reproduction

    with one_voice():
        if place()[1] > 1:
            raise ValueError(
                f"reproduce is one process, and {place()[1]} were started, whose batches together "
                f"would be larger than the source's; use ppl-vae fit --preset {name} in these"
            )
    data = PRESETS[name].data if name in PRESETS else "mnist"
    finished = made(
        name,
        out,
        name,
        resume=resume,
        force=force,
        progress=not (quiet or as_json),
        run=None,
        data=source_of(data, data_root, None, None, None),
        epochs=epochs,
        num_samples=draws,
        seed=seed,
        engine=engine,
        device=device,
        precision=precision,
        threads=threads_of(threads),
        checkpoint_every=checkpoint_every,
        film=film,
    )
    print_reproduction(finished, name, seed, as_json=as_json, quiet=quiet)
