"""The options and arguments that several commands have, and how their texts are read."""

from __future__ import annotations

__all__ = [
    "ABOUT_DATA",
    "ANNOTATED",
    "DATA",
    "FIT",
    "MACHINE",
    "MODEL",
    "RESULTS",
    "STORE",
    "CheckpointEvery",
    "ColumnKinds",
    "Context",
    "DataRoot",
    "Device",
    "Devices",
    "Draws",
    "Drop",
    "Engine",
    "Force",
    "Header",
    "ImageSize",
    "Json",
    "Label",
    "Layer",
    "Missing",
    "Nodes",
    "Out",
    "Precision",
    "Quiet",
    "Resume",
    "RunFolder",
    "Seed",
    "Thousands",
    "Threads",
    "Unseen",
    "free_file",
    "name_of",
    "numbers",
    "source_of",
    "threads_of",
    "writable",
]

import os
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from .names import DEVICES, ENGINES, PRECISIONS, among, listed, runs

# What a store that is written chunk by chunk is called.
STORE = ".zarr"
ANNOTATED = ".h5ad"

# Groups that help shows options in.
ABOUT_DATA = "Data"
MODEL = "Model: what is fitted"
FIT = "Fit: how"
MACHINE = "Machine"
RESULTS = "Results"

DATA = (
    "What to model, one row an observation: digits, the default, sprites, a torchvision image set "
    "such as mnist, a .csv, .parquet, .npy, .npz or .h5ad file, or a folder of images."
)
DataRoot = Annotated[
    Path | None,
    typer.Option(
        help="Where image sets are, or are downloaded to.",
        metavar="DIR",
        rich_help_panel=ABOUT_DATA,
    ),
]
Label = Annotated[
    str | None,
    typer.Option(
        help="Column of a table to keep as labels: it is not modeled, and colors pictures.",
        metavar="COLUMN",
        rich_help_panel=ABOUT_DATA,
    ),
]
Drop = Annotated[
    list[str] | None,
    typer.Option(
        help="Column of a table to leave out, such as names of rows; may be repeated.",
        metavar="COLUMN",
        rich_help_panel=ABOUT_DATA,
    ),
]
Context = Annotated[
    list[str] | None,
    typer.Option(
        help="Column of a table, array of a .npz file, or 'label', that everything is conditional "
        "on, as a covariate is; may be repeated.",
        metavar="COLUMN",
        rich_help_panel=ABOUT_DATA,
    ),
]
Header = Annotated[
    bool | None,
    typer.Option(
        "--header/--no-header",
        help="Whether the first line of a table names its columns; seen from it if not given.",
        rich_help_panel=ABOUT_DATA,
    ),
]
Missing = Annotated[
    list[str] | None,
    typer.Option(
        help="What marks a missing cell or entry besides an empty one, NA and the like: -999.",
        metavar="TEXT",
        rich_help_panel=ABOUT_DATA,
    ),
]
Thousands = Annotated[
    str | None,
    typer.Option(
        help="What stands between thousands in a table, such as a comma.",
        metavar="MARK",
        rich_help_panel=ABOUT_DATA,
    ),
]
ColumnKinds = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        help="What a column of a table is, where that is not seen: binary, categorical, ordinal "
        "(also ordinal:low,middle,high), count, positive, proportion or real; may be repeated.",
        metavar="NAME=KIND",
        rich_help_panel=ABOUT_DATA,
    ),
]
Unseen = Annotated[
    str,
    typer.Option(
        help="What a level that the fit had not is read as: refuse it, or missing.",
        autocompletion=among(("refuse", "missing")),
        rich_help_panel=ABOUT_DATA,
    ),
]
Layer = Annotated[
    str | None,
    typer.Option(
        help="Layer of counts of a .h5ad file; X if not given.", rich_help_panel=ABOUT_DATA
    ),
]
ImageSize = Annotated[
    int | None,
    typer.Option(
        help="Resize images of different sizes to squares of this side.",
        rich_help_panel=ABOUT_DATA,
    ),
]
RunFolder = Annotated[
    Path,
    typer.Argument(
        help="A folder that fit wrote, such as runs/digits.", metavar="RUN", autocompletion=runs
    ),
]
Draws = Annotated[
    int,
    typer.Option(
        help="Importance draws for each row, by which log p(x) is estimated.",
        rich_help_panel=RESULTS,
    ),
]
Seed = Annotated[
    int,
    typer.Option(
        help="Decides everything that is random: the same seed gives the same numbers.",
        rich_help_panel=MACHINE,
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        help="Run folder to write; the first free runs/NAME if not given.", rich_help_panel=RESULTS
    ),
]
Devices = Annotated[
    int | None,
    typer.Option(
        help="Processes on each machine, one for each device; --batch-size is of each.",
        rich_help_panel=MACHINE,
    ),
]
Nodes = Annotated[
    int | None,
    typer.Option(
        help="Machines on each of which this is run, with MASTER_ADDR and MASTER_PORT.",
        rich_help_panel=MACHINE,
    ),
]
Engine = Annotated[
    str,
    typer.Option(
        help=f"How steps are computed, with the same numbers: {listed(ENGINES)}.",
        autocompletion=among(ENGINES),
        rich_help_panel=MACHINE,
    ),
]
Device = Annotated[
    str,
    typer.Option(
        help=f"{listed(DEVICES)}.", autocompletion=among(DEVICES), rich_help_panel=MACHINE
    ),
]
Precision = Annotated[
    str | None,
    typer.Option(
        help=f"{listed(PRECISIONS)}: of matrix products. 32 unless the preset says another.",
        autocompletion=among(PRECISIONS),
        rich_help_panel=MACHINE,
    ),
]
Threads = Annotated[
    str | None,
    typer.Option(
        help="Of the processor: auto, as many as pay now, by what steps take; or how many, which "
        "makes fits equal to the last digit. If not given, auto, or OMP_NUM_THREADS.",
        metavar="N",
        rich_help_panel=MACHINE,
    ),
]
CheckpointEvery = Annotated[
    float | None,
    typer.Option(
        help="Seconds between two states kept on disk; if not given, as few as cost below 3 % of "
        "the time.",
        metavar="SECONDS",
        rich_help_panel=MACHINE,
    ),
]
Resume = Annotated[
    bool,
    typer.Option("--resume", help="Go on with a fit that was stopped.", rich_help_panel=MACHINE),
]
Force = Annotated[
    bool, typer.Option("--force", help="Replace what is there.", rich_help_panel=RESULTS)
]
Json = Annotated[
    bool,
    typer.Option(
        "--json", help="Print the numbers as JSON, nothing else.", rich_help_panel=RESULTS
    ),
]
Quiet = Annotated[
    bool, typer.Option("--quiet", help="Print nothing but errors.", rich_help_panel=RESULTS)
]


def source_of(
    data: str,
    data_root: Path | None,
    label: str | None,
    drop: list[str] | None,
    image_size: int | None,
    header: bool | None = None,
    missing: list[str] | None = None,
    thousands: str | None = None,
    context: list[str] | None = None,
    column: list[str] | None = None,
    layer: str | None = None,
) -> dict[str, Any]:
    path = Path(data)
    kinds = {}
    for text in column or []:
        name, equals, kind = text.rpartition("=")
        if not equals:
            raise ValueError(f"--column is {text!r}; pass NAME=KIND, such as grade=ordinal")
        kinds[name] = kind
    return {
        # Where a run is read from later need not be where it was written from.
        "name_or_path": os.path.abspath(path) if path.exists() else data,
        "root": None if data_root is None else str(data_root.resolve()),
        "label": label,
        "drop": drop or (),
        "image_size": image_size,
        "header": header,
        "missing": missing or (),
        "thousands": thousands,
        "context": context or (),
        "column": kinds,
        "layer": layer,
    }


def name_of(data: str) -> str:
    """Name a run after its data: the name of the file, the folder or the data set."""
    path = Path(data)
    return path.stem if path.suffix else path.name or path.resolve().name


def numbers(option: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ValueError(
            f"{option} is {text!r}; pass whole numbers with commas between, such as 500,500"
        ) from None


def threads_of(text: str | None) -> int | str | None:
    """What ``fit`` is told of threads: None where the environment has said so before."""
    if text is None:
        return None if "OMP_NUM_THREADS" in os.environ else "auto"
    if text == "auto":
        return text
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"--threads is {text!r}; pass auto, or a number of at least 1")
    return int(text)


def free_file(path: Path, force: bool, accepted: tuple[str, ...]) -> Path:
    if path.suffix not in accepted:
        raise ValueError(f"--out is {str(path)!r}; accepted are {', '.join(accepted)}")
    if path.suffix == STORE:
        _free_store(path, force)
    elif path.exists() and not force:
        raise FileExistsError(
            f"--out is {str(path)!r}, which exists; choose another, or replace it with --force"
        )
    if not path.parent.is_dir():
        raise FileNotFoundError(f"--out is {str(path)!r}, whose folder does not exist")
    writable(path.parent, f"--out is {str(path)!r}, whose folder")
    return path


def _free_store(path: Path, force: bool) -> None:
    """Make place for a store; one that is not finished is gone on with."""
    from ..store import Store

    store = Store(path)
    if force and store.world > 1:
        raise ValueError(
            f"--force was given to {store.world} processes, of which one would remove what another "
            f"has begun; remove {str(path)!r} before"
        )
    if force:
        store.remove()
    elif store.complete and store.world == 1:
        raise FileExistsError(
            f"--out is {str(path)!r}, which is complete; choose another, or replace it with --force"
        )


def writable(folder: Path, called: str) -> None:
    """Refuse a folder at the start in which nothing could be written at the end.

    Raises
    ------
    OSError
        If a file cannot be made there.
    """
    if not folder.is_dir():
        return  # what is missing is said by whoever reads it
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(f"{called} cannot be written to: {error.strerror}") from error
