"""The command that fits: fit."""

from __future__ import annotations

__all__ = ["fit"]

from pathlib import Path
from typing import Annotated

import typer

from ..processes import place
from .config_file import ConfigFile
from .names import (
    ACTIVATIONS,
    BINARIZE,
    GUIDES,
    HEADS,
    LIKELIHOODS,
    LOGS,
    NETWORKS,
    OBJECTIVES,
    OPTIMIZERS,
    PRIORS,
    SCALES,
    SCHEDULES,
    among,
    listed,
    presets,
    runs,
    sources,
)
from .options import (
    DATA,
    FIT,
    MODEL,
    RESULTS,
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


def fit(
    data: Annotated[
        str | None,
        typer.Argument(
            help=f"{DATA} With --continue, if not given, the rows of RUN.",
            metavar="DATA",
            autocompletion=sources,
        ),
    ] = None,
    config: ConfigFile = None,
    label: Label = None,
    drop: Drop = None,
    column: ColumnKinds = None,
    missing: Missing = None,
    context: Context = None,
    header: Header = None,
    thousands: Thousands = None,
    layer: Layer = None,
    data_root: DataRoot = None,
    image_size: ImageSize = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="A published VAE, whose choices the other options replace; list presets names "
            "them.",
            metavar="NAME",
            autocompletion=presets,
            rich_help_panel=MODEL,
        ),
    ] = None,
    continues: Annotated[
        Path | None,
        typer.Option(
            "--continue",
            help="A finished run whose VAE is fitted further, by its options where these are not "
            "given, into another run.",
            metavar="RUN",
            autocompletion=runs,
            rich_help_panel=MODEL,
        ),
    ] = None,
    latent_dim: Annotated[
        int | None,
        typer.Option(
            help="Number of latents, the unobserved variables that explain a row; chosen by the "
            "size of a row if not given.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    likelihood: Annotated[
        str | None,
        typer.Option(
            help="p(x given z), the distribution of the data given the latents; the narrowest that "
            f"fits the data if not given. {listed(LIKELIHOODS)}; with options as in "
            "mixed:columns=(normal,categorical:levels=3).",
            autocompletion=among(LIKELIHOODS),
            rich_help_panel=MODEL,
        ),
    ] = None,
    prior: Annotated[
        str | None,
        typer.Option(
            help="p(z), the distribution of the latents before a row is seen; all but the first "
            f"are learned from the data. {listed(PRIORS)}; with options as in vamp:components=500.",
            autocompletion=among(PRIORS),
            rich_help_panel=MODEL,
        ),
    ] = None,
    guide: Annotated[
        str | None,
        typer.Option(
            help="q(z given x), the family of the approximate posterior of a row: "
            f"{listed(GUIDES)}; normal, the default, has latents independent given the row.",
            autocompletion=among(GUIDES),
            rich_help_panel=MODEL,
        ),
    ] = None,
    network: Annotated[
        str | None,
        typer.Option(
            help="Network from latents to the likelihood, and from rows to q: "
            f"{listed(NETWORKS)}, the last two for images; with options as in "
            "conv:hidden=(32,64,256).",
            autocompletion=among(NETWORKS),
            rich_help_panel=MODEL,
        ),
    ] = None,
    hidden: Annotated[
        str | None,
        typer.Option(
            help="Widths of the network's layers, or channels and a width: 500,500.",
            metavar="N,N",
            rich_help_panel=MODEL,
        ),
    ] = None,
    activation: Annotated[
        str | None,
        typer.Option(
            help=f"Between the layers: {listed(ACTIVATIONS)}.",
            autocompletion=among(ACTIVATIONS),
            rich_help_panel=MODEL,
        ),
    ] = None,
    scale: Annotated[
        str | None,
        typer.Option(
            help=f"What the scales of q are computed from: {listed(SCALES)}.",
            autocompletion=among(SCALES),
            rich_help_panel=MODEL,
        ),
    ] = None,
    heads: Annotated[
        str | None,
        typer.Option(
            help=f"Locations and scales of q by {listed(HEADS)} layers; the same function.",
            autocompletion=among(HEADS),
            rich_help_panel=MODEL,
        ),
    ] = None,
    binarize: Annotated[
        str | None,
        typer.Option(
            help=f"Make intensities bits: {listed(BINARIZE)} (afresh each epoch); none is the "
            "default.",
            autocompletion=among(BINARIZE),
            rich_help_panel=MODEL,
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            help="Passes over the rows; 20 to 200 by their number if not given.",
            rich_help_panel=FIT,
        ),
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(help="Adam's, at its highest; 0.002 if not given.", rich_help_panel=FIT),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            help="Rows in each step; a tenth of them, 16 to 128, if not given.",
            rich_help_panel=FIT,
        ),
    ] = None,
    objective: Annotated[
        str | None,
        typer.Option(
            help="What is maximized: elbo, the default, the lower bound on log p(x); or "
            f"{listed(OBJECTIVES[1:])}; with options as in beta:beta=4,warmup=0.5.",
            autocompletion=among(OBJECTIVES),
            rich_help_panel=FIT,
        ),
    ] = None,
    validation: Annotated[
        float | None,
        typer.Option(
            help="Fraction of rows to choose the best epoch by; a tenth, at most 2,000 rows, "
            "if not given; 0 for none.",
            rich_help_panel=FIT,
        ),
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(
            help="Stop after so many epochs without a better validation loss.", rich_help_panel=FIT
        ),
    ] = None,
    schedule: Annotated[
        str | None,
        typer.Option(
            help="Course of the learning rate: one_cycle, the default, or constant.",
            autocompletion=among(SCHEDULES),
            rich_help_panel=FIT,
        ),
    ] = None,
    optimizer: Annotated[
        str | None,
        typer.Option(
            help="adam, the default, or adamw:weight_decay=0.01.",
            autocompletion=among(OPTIMIZERS),
            rich_help_panel=FIT,
        ),
    ] = None,
    average: Annotated[
        float | None,
        typer.Option(
            help="Last part of the fit to average weights over, such as 0.1; 0 if not given.",
            rich_help_panel=FIT,
        ),
    ] = None,
    accumulate: Annotated[
        int | None,
        typer.Option(help="Parts of a step, for less memory; 1 if not given.", rich_help_panel=FIT),
    ] = None,
    draws: Annotated[
        int | None,
        typer.Option(
            help="Importance draws for each test row, by which log p(x) is estimated; 500 if not "
            "given.",
            rich_help_panel=RESULTS,
        ),
    ] = None,
    out: Out = None,
    log: Annotated[
        str | None,
        typer.Option(
            help=f"{listed(LOGS)}: write losses, bound, rate and speed of each epoch to RUN/log.",
            autocompletion=among(LOGS),
            rich_help_panel=RESULTS,
        ),
    ] = None,
    film: Annotated[
        bool,
        typer.Option(
            "--film", help="Draw the training of images: training.gif.", rich_help_panel=RESULTS
        ),
    ] = False,
    seed: Seed = 0,
    engine: Engine = "auto",
    device: Device = "auto",
    precision: Precision = None,
    threads: Threads = None,
    devices: Devices = None,
    nodes: Nodes = None,
    checkpoint_every: CheckpointEvery = None,
    resume: Resume = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Fit nothing: print what columns are taken for and every choice, as a file for "
            "--config; with --quiet that file alone.",
            rich_help_panel=RESULTS,
        ),
    ] = False,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fit a variational autoencoder to DATA: a model of how rows come about.

    Each row x is thought to come from a few latents z, which are not observed. Fitted are p(x given
    z), and q(z given x), which approximates the posterior of any row's latents. A fifth of the rows
    is put aside first, to test by. What is found goes into a run folder, with pictures.
    """
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
        "precision": precision,
        "threads": threads_of(threads),
        "devices": devices,
        "nodes": nodes,
        "checkpoint_every": checkpoint_every,
        "log": log,
        "film": film,
    }
    if dry_run:
        if place()[0] == 0:
            print_plan(preset, out, as_json=as_json, quiet=quiet, **given)
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
