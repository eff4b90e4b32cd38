"""The commands that fit: fit and reproduce."""

from __future__ import annotations

__all__ = ["fit", "reproduce"]

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from ..processes import place
from .options import (
    DATA,
    CheckpointEvery,
    ColumnKinds,
    Context,
    DataRoot,
    Device,
    Devices,
    Drop,
    Engine,
    Force,
    Header,
    ImageSize,
    Json,
    Label,
    Layer,
    Missing,
    Nodes,
    Out,
    Precision,
    Quiet,
    Resume,
    Seed,
    Thousands,
    Threads,
    name_of,
    numbers,
    source_of,
    threads_of,
)
from .printing import published
from .starting import one_voice


def fit(
    data: Annotated[
        str | None,
        typer.Argument(help=f"{DATA} With --continue, if not given, the rows of RUN."),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="A published VAE, whose choices the other options replace; see reproduce.",
            metavar="NAME",
        ),
    ] = None,
    continues: Annotated[
        Path | None,
        typer.Option(
            "--continue",
            help="A finished run whose VAE is fitted further, by its options where these are not "
            "given, into another run.",
            metavar="RUN",
        ),
    ] = None,
    out: Out = None,
    epochs: Annotated[int | None, typer.Option(help="Passes; chosen by size if not given.")] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Rows a step; a tenth of them, 16 to 128, if not given.")
    ] = None,
    accumulate: Annotated[
        int | None, typer.Option(help="Parts of a step, for less memory; 1 if not given.")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Adam's, at its highest; 0.002 if not given.")
    ] = None,
    schedule: Annotated[
        str | None, typer.Option(help="one_cycle, the default, or constant: the rate's course.")
    ] = None,
    optimizer: Annotated[
        str | None, typer.Option(help="adam, the default, or adamw:weight_decay=0.01.")
    ] = None,
    average: Annotated[
        float | None,
        typer.Option(help="Part of the fit to average weights over, such as 0.1; 0 if not given."),
    ] = None,
    objective: Annotated[
        str | None,
        typer.Option(
            help="elbo, the default, mean_field, beta, free_bits, iwae, dreg, stl or tcvae; with "
            "options as in beta:beta=4,warmup=0.5."
        ),
    ] = None,
    latent_dim: Annotated[int | None, typer.Option(help="Number of latents.")] = None,
    prior: Annotated[
        str | None,
        typer.Option(
            help="standard_normal, mixture, vamp, flow, ladder or conditional; options as in "
            "vamp:components=500."
        ),
    ] = None,
    guide: Annotated[
        str | None, typer.Option(help="normal, full_rank, low_rank, flow, mixture or ladder.")
    ] = None,
    network: Annotated[
        str | None, typer.Option(help="mlp, conv or resnet; options as in conv:hidden=(32,64,256).")
    ] = None,
    hidden: Annotated[
        str | None, typer.Option(help="Widths, or channels and a width: 500,500.", metavar="N,N")
    ] = None,
    activation: Annotated[str | None, typer.Option(help="relu, tanh, silu, gelu, ...")] = None,
    likelihood: Annotated[
        str | None,
        typer.Option(
            help="bernoulli, discretized_logistic, binomial, continuous_bernoulli, "
            "negative_binomial, zero_inflated_negative_binomial, poisson, categorical, ordinal, "
            "student_t, log_normal, beta, normal or mixed:columns=(normal,categorical:levels=3)."
        ),
    ] = None,
    scale: Annotated[str | None, typer.Option(help="log_variance, log_scale or softplus.")] = None,
    heads: Annotated[str | None, typer.Option(help="separate or joint.")] = None,
    binarize: Annotated[
        str | None, typer.Option(help="none, the default, static, dynamic or threshold.")
    ] = None,
    validation: Annotated[
        float | None,
        typer.Option(
            help="Fraction of rows to choose the best epoch by; a tenth, at most 2,000 rows, "
            "if not given."
        ),
    ] = None,
    patience: Annotated[
        int | None, typer.Option(help="Stop after so many epochs without a better validation loss.")
    ] = None,
    draws: Annotated[
        int | None, typer.Option(help="Importance draws for each row; 500 if not given.")
    ] = None,
    data_root: DataRoot = None,
    label: Label = None,
    drop: Drop = None,
    header: Header = None,
    missing: Missing = None,
    thousands: Thousands = None,
    context: Context = None,
    column: ColumnKinds = None,
    layer: Layer = None,
    image_size: ImageSize = None,
    seed: Seed = 0,
    engine: Engine = "auto",
    device: Device = "auto",
    devices: Devices = None,
    nodes: Nodes = None,
    precision: Precision = None,
    threads: Threads = None,
    film: Annotated[bool, typer.Option("--film", help="Draw the training: training.gif.")] = False,
    checkpoint_every: CheckpointEvery = None,
    log: Annotated[
        str | None,
        typer.Option(
            help="csv or tensorboard: write losses, bound, rate and speed of each epoch to RUN/log."
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print what columns are taken for and the choices; no fit."),
    ] = False,
    resume: Resume = False,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fit a VAE to DATA, and write a run folder with its posterior, metrics and pictures."""
    from .plan import print_plan
    from .running import made, print_run

    choices = {
        "latent_dim": latent_dim,
        "prior": prior,
        "guide": guide,
        "network": network,
        "hidden": None if hidden is None else numbers("--hidden", hidden),
        "activation": activation,
        "likelihood": likelihood,
        "scale": scale,
        "heads": heads,
    }
    source = source_of(
        data or "digits",
        data_root,
        label,
        drop,
        image_size,
        header,
        missing,
        thousands,
        context,
        column,
        layer,
    )
    if data is None and continues is not None:
        del source["name_or_path"]
    given = {
        "run": continues,
        "data": source,
        "choices": {key: value for key, value in choices.items() if value is not None},
        "epochs": epochs,
        "batch_size": batch_size,
        "accumulate": accumulate,
        "learning_rate": learning_rate,
        "schedule": schedule,
        "optimizer": optimizer,
        "average": average,
        "objective": objective,
        "binarize": binarize,
        "validation": validation,
        "patience": patience,
        "num_samples": draws,
        "seed": seed,
        "engine": engine,
        "device": device,
        "devices": devices,
        "nodes": nodes,
        "precision": precision,
        "threads": threads_of(threads),
        "checkpoint_every": checkpoint_every,
        "log": log,
        "film": film,
    }
    if dry_run:
        if place()[0] == 0:
            print_plan(preset, as_json=as_json, **given)
        return
    finished = made(
        preset,
        out,
        preset or name_of(data or str(continues or "digits")),
        resume=resume,
        force=force,
        progress=not (quiet or as_json),
        **given,
    )
    print_run(finished, preset, as_json=as_json, quiet=quiet)


def reproduce(
    name: Annotated[
        str | None, typer.Argument(help="Of a published VAE; none to list them.", metavar="NAME")
    ] = None,
    out: Out = None,
    epochs: Annotated[
        int | None, typer.Option(help="Passes; those of the list if not given.")
    ] = None,
    draws: Annotated[
        int | None, typer.Option(help="Importance draws for each row; the source's if not given.")
    ] = None,
    data_root: DataRoot = None,
    seed: Seed = 0,
    engine: Engine = "auto",
    device: Device = "auto",
    precision: Precision = None,
    threads: Threads = None,
    film: Annotated[bool, typer.Option("--film", help="Draw the training: training.gif.")] = False,
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
