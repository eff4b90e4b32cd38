"""The command line, `ppl-vae ...`; what is heavy is imported by the command that needs it."""

from __future__ import annotations

__all__ = ["app", "main"]

import json
import sys
import warnings
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from .config import VAEConfig
    from .inference.fit import FitResult
    from .presets import Preset

# What typer returns for Ctrl-C; older ones raise Abort.
_INTERRUPTED = 130

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Variational autoencoders as Pyro programs, fitted and checked row by row.",
)

Data = Annotated[
    str,
    typer.Argument(
        help="digits, a torchvision image set such as mnist, a .npy, .npz or .csv file, "
        "or a folder of images."
    ),
]
DataRoot = Annotated[
    Path | None, typer.Option(help="Where image sets are, or are downloaded to.", metavar="DIR")
]
Label = Annotated[
    str | None, typer.Option(help="Column of a table to keep as labels.", metavar="COLUMN")
]
Drop = Annotated[
    list[str] | None, typer.Option(help="Column of a table to leave out.", metavar="COLUMN")
]
ImageSize = Annotated[int | None, typer.Option(help="Resize images of different sizes to this.")]
RunFolder = Annotated[Path, typer.Argument(help="A folder that fit wrote.", metavar="RUN")]
Draws = Annotated[int, typer.Option(help="Importance draws for each row.")]
Seed = Annotated[int, typer.Option(help="Decides everything that is random.")]
Out = Annotated[
    Path | None,
    typer.Option(help="Run folder to write; the first free runs/NAME if not given."),
]
Engine = Annotated[str, typer.Option(help="auto, eager, graph or compiled.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Precision = Annotated[str, typer.Option(help="32, tf32 or bf16: of matrix products.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with an unfinished run.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]
Json = Annotated[bool, typer.Option("--json", help="Print the numbers as JSON, nothing else.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")]


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        from . import __version__

        typer.echo(f"ppl-vae {__version__}")
        raise typer.Exit


@app.command()
def fit(
    data: Data = "digits",
    preset: Annotated[
        str | None,
        typer.Option(
            help="A published VAE, whose choices the other options replace; see reproduce.",
            metavar="NAME",
        ),
    ] = None,
    out: Out = None,
    epochs: Annotated[int | None, typer.Option(help="Passes; chosen by size if not given.")] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Rows a step; a tenth of them, 16 to 128, if not given.")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Adam's, at its highest; 0.002 if not given.")
    ] = None,
    schedule: Annotated[
        str | None, typer.Option(help="one_cycle, the default, or constant: the rate's course.")
    ] = None,
    latent_dim: Annotated[int | None, typer.Option(help="Number of latents.")] = None,
    prior: Annotated[
        str | None,
        typer.Option(help="standard_normal, mixture or vamp; options as in vamp:components=500."),
    ] = None,
    guide: Annotated[str | None, typer.Option(help="normal or full_rank.")] = None,
    network: Annotated[
        str | None, typer.Option(help="mlp or conv; options as in conv:hidden=(32,64,256).")
    ] = None,
    hidden: Annotated[
        str | None, typer.Option(help="Widths, or channels and a width: 500,500.", metavar="N,N")
    ] = None,
    activation: Annotated[str | None, typer.Option(help="relu, tanh, silu, gelu, ...")] = None,
    likelihood: Annotated[
        str | None,
        typer.Option(
            help="bernoulli, continuous_bernoulli, negative_binomial, normal, poisson, "
            "zero_inflated_negative_binomial or categorical."
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
    image_size: ImageSize = None,
    seed: Seed = 0,
    engine: Engine = "auto",
    device: Device = "auto",
    precision: Precision = "32",
    film: Annotated[bool, typer.Option("--film", help="Draw the training: training.gif.")] = False,
    resume: Resume = False,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fit a VAE to DATA, and write a run folder with its posterior, metrics and pictures."""
    parts = {
        "latent_dim": latent_dim,
        "prior": prior,
        "guide": guide,
        "network": network,
        "hidden": None if hidden is None else _numbers("--hidden", hidden),
        "activation": activation,
        "likelihood": likelihood,
        "scale": scale,
        "heads": heads,
    }
    options = {
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "schedule": schedule,
        "binarize": binarize,
        "validation": validation,
        "num_samples": draws,
    }
    out, config, result, metrics = _fit(
        out,
        preset or _name_of(data),
        _source(data, data_root, label, drop, image_size),
        preset,
        parts,
        options,
        patience=patience,
        seed=seed,
        engine=engine,
        device=device,
        precision=precision,
        film=film,
        resume=resume,
        force=force,
        progress=not (quiet or as_json),
    )
    if as_json:
        typer.echo(json.dumps({"run": str(out), **metrics}))
    elif not quiet:
        console = Console()
        reason = config.reason or f"as preset {preset}"
        console.print(
            f"{metrics['data']['source']}: {metrics['data']['train_rows']} rows to fit to, "
            f"{metrics['test']['rows']} to test on\n"
            f"{config.choice('likelihood')} likelihood, {reason}\n"
            f"{config.latent_dim} latents, prior {config.choice('prior')}, guide "
            f"{config.choice('guide')}, network {config.choice('network')}\n"
            f"{_course(metrics['fit'])}",
            highlight=False,
        )
        _print_metrics(console, metrics["test"])
        console.print(f"Written to {out}: {', '.join(sorted(p.name for p in out.iterdir()))}")
    if not result.finite:
        _fail(f"the fit stopped early: {result.stop_reason}", code=1)


@app.command()
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
    precision: Precision = "32",
    film: Annotated[bool, typer.Option("--film", help="Draw the training: training.gif.")] = False,
    resume: Resume = False,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fit a published VAE to MNIST, and print its source's figure beside ours."""
    from .files import written_whole
    from .presets import PRESETS

    if name is None:
        columns = ("name", "of", "epochs here", "MNIST test rows, nats per row")
        table = Table(*columns, show_edge=False, box=None)
        for key, preset in PRESETS.items():
            table.add_row(key, preset.source, str(preset.fit["epochs"]), _published(preset))
        Console().print(table)
        return
    preset = _preset(name)
    out, _, result, metrics = _fit(
        out,
        name,
        _source("mnist", data_root, None, None, None),
        name,
        {},
        {"epochs": epochs, "num_samples": draws},
        patience=None,
        seed=seed,
        engine=engine,
        device=device,
        precision=precision,
        film=film,
        resume=resume,
        force=force,
        progress=not (quiet or as_json),
    )
    if not result.finite:
        _fail(f"the fit stopped early: {result.stop_reason}", code=1)
    found = {
        "name": name,
        "source": preset.source,
        "url": preset.url,
        "differs": list(preset.differs),
        "quantity": preset.quantity,
        "published": preset.published,
        "seed": seed,
        **{key: metrics["fit"][key] for key in ("epochs", "seconds")},
        "test": metrics["test"],
    }
    with written_whole(out / "reproduction.json") as temporary:
        temporary.write_text(json.dumps(found, indent=2) + "\n")
    if as_json:
        typer.echo(json.dumps({"run": str(out), **found}))
    elif not quiet:
        console = Console()
        table = Table(title=f"{name}: {preset.source}", title_justify="left")
        for column in (f"{metrics['test']['rows']} test rows, nats per row", "theirs", "ours"):
            table.add_column(column, justify="left" if not table.columns else "right")
        for quantity, label in _quantities(metrics["test"]).items():
            row = metrics["test"][quantity]
            theirs = preset.published if quantity == preset.quantity else None
            ours = f"{row['nats_per_row']:.2f}"
            if row["standard_error"] is not None:
                ours += f" +- {row['standard_error']:.2f}"
            table.add_row(label, theirs or "none published", ours)
        console.print(table)
        console.print(
            f"{_course(metrics['fit'])}; seed {seed}\n"
            f"Not as in the source: {'; '.join(preset.differs)}.\n"
            f"{preset.url}\nWritten to {out}",
            highlight=False,
            soft_wrap=True,
        )


@app.command()
def evaluate(
    run: RunFolder,
    draws: Draws = 500,
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Estimate log p(x) of the run's test rows again, with other draws."""
    from .run import Run
    from .run import evaluate as metrics_of

    finished = Run(run)
    train, test = finished.splits()
    metrics = metrics_of(
        finished.vae(),
        finished.rows(train),
        finished.rows(test),
        num_samples=draws,
        seed=seed,
        progress=not (quiet or as_json),
    )
    if as_json:
        typer.echo(json.dumps(metrics))
    elif not quiet:
        _print_metrics(Console(), metrics)


@app.command()
def sample(
    run: RunFolder,
    num_samples: Annotated[int, typer.Option(help="How many rows to draw.")] = 64,
    out: Annotated[
        Path | None, typer.Option(help="A .npz file, or a .png picture; RUN/samples.npz.")
    ] = None,
    seed: Seed = 0,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Draw rows from the fitted model: z from the prior, x from the decoder."""
    import numpy as np

    from .files import written_whole
    from .pictures.rows import plot_draws
    from .run import Run
    from .workflow.posterior import sample_prior

    vae = Run(run).vae()
    out = _free_file(out or run / "samples.npz", force, accepted=(".npz", ".png"))
    if out.suffix == ".png":
        figure = plot_draws(vae, num_rows=num_samples, seed=seed)
        with written_whole(out) as temporary:
            figure.savefig(temporary)
    else:
        z, x = sample_prior(vae, num_samples=num_samples, seed=seed)
        with written_whole(out) as temporary:
            np.savez_compressed(temporary, z=z, x=x)
    if not quiet:
        typer.echo(f"{num_samples} draws written to {out}")


@app.command()
def encode(
    run: RunFolder,
    data: Data,
    out: Annotated[Path | None, typer.Option(help="netCDF file; RUN/DATA.nc.")] = None,
    draws: Annotated[int, typer.Option(help="Posterior draws for each row.")] = 200,
    data_root: DataRoot = None,
    label: Label = None,
    drop: Drop = None,
    image_size: ImageSize = None,
    seed: Seed = 0,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Draw the latents of every row of DATA, into a netCDF DataTree that ArviZ reads."""
    from .data import load_data
    from .run import Run
    from .trees.vae import to_datatree, write_datatree

    finished = Run(run)
    vae = finished.vae()
    out = _free_file(out or run / f"{Path(data).stem}.nc", force, accepted=(".nc",))
    rows = load_data(split=None, **_source(data, data_root, label, drop, image_size))
    tree = to_datatree(
        vae,
        finished.rows(rows),
        num_samples=draws,
        labels=rows.labels,
        feature_names=rows.feature_names,
        groups=("posterior", "log_likelihood", "sample_stats", "observed_data", "constant_data"),
        seed=seed,
        progress=not quiet,
    )
    write_datatree(tree, out)
    if not quiet:
        sizes = dict(tree["posterior"].sizes)
        typer.echo(f"z {sizes} and its log-weights written to {out}")


@app.command()
def diagnose(
    run: RunFolder,
    draws: Draws = 500,
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Say which test rows' posteriors can be believed, and add it to the run."""
    from .files import written_whole
    from .pictures.checks import plot_calibration
    from .run import Run
    from .trees.vae import write_datatree
    from .workflow.diagnosis import diagnose as diagnosis_of

    finished = Run(run)
    found = diagnosis_of(
        finished.vae(),
        finished.rows(finished.splits()[1]),
        num_samples=draws,
        seed=seed,
        progress=not (quiet or as_json),
    )
    write_datatree(found.to_datatree(), run / "diagnosis.nc")
    for name, figure in {
        "diagnosis.png": found.plot(),
        "calibration.png": plot_calibration(found.calibration),
    }.items():
        with written_whole(run / name) as temporary:
            figure.savefig(temporary)
    with written_whole(run / "diagnosis.txt") as temporary:
        temporary.write_text(found.summary() + "\n")
    if as_json:
        counts = Counter(found.rows.verdict.values.tolist())
        typer.echo(json.dumps({"verdicts": counts, "faults": found.faults}))
    elif not quiet:
        typer.echo(found.summary())


@app.command()
def pictures(
    run: RunFolder,
    which: Annotated[
        str | None,
        typer.Option(help="Two latents to look at, from 0; the most used if not given."),
    ] = None,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Draw the run's latent space: map, manifold, traversals and interpolation."""
    from .files import written_whole
    from .pictures import decoded, latents
    from .run import Run

    finished = Run(run)
    vae, test = finished.vae(), finished.splits()[1]
    x = finished.rows(test)
    pair = None if which is None else _numbers("--which", which)
    if pair is not None and len(pair) != 2:
        raise ValueError(f"--which is {which!r}; pass two latents, such as 0,1")
    figures = {"traversals": decoded.plot_traversals(vae, seed=seed)}
    if vae.latent_dim >= 2:
        figures["latent_map"] = latents.plot_latent_map(
            vae, x, labels=test.labels, which=pair, seed=seed
        )
    if len(vae.event_shape) > 1:
        figures["interpolation"] = decoded.plot_interpolation(vae, x)
        if vae.latent_dim >= 2:
            figures["manifold"] = decoded.plot_manifold(vae, which=pair, seed=seed)
    for name, figure in figures.items():
        with written_whole(run / f"{name}.png") as temporary:
            figure.savefig(temporary)
    if not quiet:
        typer.echo(f"Written to {run}: {', '.join(f'{name}.png' for name in sorted(figures))}")


@app.command()
def report(run: RunFolder, quiet: Quiet = False) -> None:
    """Write RUN/report.html: the run's story from data to verdict, in one file."""
    from .run import Run
    from .run.report import write_report

    path = write_report(Run(run).folder)
    if not quiet:
        typer.echo(f"Written to {path}")


def main() -> None:
    """Run the command line: 0 for success, 1 for a fit that broke off, 2 for bad input."""
    try:
        code = app(standalone_mode=False) or 0
    except typer.Abort:
        code = _INTERRUPTED
    except (ValueError, TypeError, OSError) as error:
        _fail(_one_line(error))
    except Exception as error:
        # typer carries its own click or uses the installed one: its errors have this in common.
        if not hasattr(error, "format_message"):
            raise
        _fail(error.format_message())
    if code == _INTERRUPTED:
        _fail("interrupted; an unfinished fit goes on with --resume", code=1)
    sys.exit(code)


def _preset(name: str) -> Preset:
    from .presets import PRESETS

    if name not in PRESETS:
        raise ValueError(f"there is no preset {name!r}; accepted are {', '.join(PRESETS)}")
    return PRESETS[name]


def _published(preset: Preset) -> str:
    if preset.published is None:
        return "none published"
    if preset.quantity == "elbo":
        return f"ELBO {preset.published}"
    return f"log p(x) {preset.published}, {preset.num_samples} draws"


def _fit(
    out: Path | None,
    name: str,
    data: dict[str, Any],
    preset: str | None,
    parts: dict[str, Any],
    options: dict[str, Any],
    *,
    resume: bool,
    **others: Any,
) -> tuple[Path, VAEConfig, FitResult, dict[str, Any]]:
    """Fit by the preset, less what ``parts`` and ``options`` say otherwise by not being None."""
    from .run import fit_run, free_folder

    choices: dict[str, Any] = {}
    defaults: dict[str, Any] = {
        "epochs": None,
        "batch_size": None,
        "learning_rate": 2e-3,
        "schedule": "one_cycle",
        "binarize": "none",
        "validation": None,
        "num_samples": 500,
    }
    if preset is not None:
        published = _preset(preset)
        choices |= published.vae
        # Published VAEs were fitted to all rows.
        defaults |= {"validation": 0.0, "num_samples": published.num_samples, **published.fit}
    out = out or (Path("runs") / name if resume else free_folder(name))
    with warnings.catch_warnings():
        # The stop reason is printed, with the rest.
        warnings.filterwarnings("ignore", "the fit stopped early", RuntimeWarning)
        out, config, result, metrics = fit_run(
            out,
            data,
            choices=choices | {key: value for key, value in parts.items() if value is not None},
            resume=resume,
            **defaults | {key: value for key, value in options.items() if value is not None},
            **others,
        )
    return out, config, result, metrics


def _course(fit: dict[str, Any]) -> str:
    return (
        f"{fit['stop_reason'] if fit['finite'] else 'stopped early'}, in {fit['seconds']:.0f} s "
        f"at {fit['rows_per_second']:,.0f} rows/s; weights of epoch {fit['best_epoch']} kept"
    )


def _one_line(error: Exception) -> str:
    details = getattr(error, "errors", None)
    if callable(details):  # pydantic's, one for each field
        return "; ".join(
            (f"{'.'.join(map(str, e['loc']))} is {e['input']!r}: " if e["loc"] else "")
            + e["msg"].removeprefix("Value error, ")
            for e in details()
        )
    return " ".join(str(error).split()) or type(error).__name__


def _fail(message: str, code: int = 2) -> None:
    Console(stderr=True, soft_wrap=True, highlight=False, markup=False).print(f"ppl-vae: {message}")
    sys.exit(code)


def _source(
    data: str,
    data_root: Path | None,
    label: str | None,
    drop: list[str] | None,
    image_size: int | None,
) -> dict[str, Any]:
    path = Path(data)
    return {
        # Where a run is read from later need not be where it was written from.
        "name_or_path": str(path.resolve()) if path.exists() else data,
        "root": None if data_root is None else str(data_root.resolve()),
        "label": label,
        "drop": drop or (),
        "image_size": image_size,
    }


def _name_of(data: str) -> str:
    """What a run of these data is called: the name of the file or folder, or of the set."""
    path = Path(data)
    return path.stem if path.suffix else path.name or path.resolve().name


def _numbers(option: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ValueError(
            f"{option} is {text!r}; pass whole numbers with commas between, such as 500,500"
        ) from None


def _free_file(path: Path, force: bool, accepted: tuple[str, ...]) -> Path:
    if path.suffix not in accepted:
        raise ValueError(f"--out is {str(path)!r}; accepted are files in {', '.join(accepted)}")
    if path.exists() and not force:
        raise FileExistsError(
            f"--out is {str(path)!r}, which exists; choose another, or replace it with --force"
        )
    if not path.parent.is_dir():
        raise FileNotFoundError(f"--out is {str(path)!r}, whose folder does not exist")
    return path


def _quantities(metrics: dict[str, Any]) -> dict[str, str]:
    return {
        "elbo": "ELBO",
        "log_evidence": f"log p(x), {metrics['num_samples']} draws",
        "independent": "independent entries",
    }


def _print_metrics(console: Console, metrics: dict[str, Any]) -> None:
    table = Table(title=f"{metrics['rows']} test rows", title_justify="left")
    table.add_column("")
    for column in ("nats per row", "standard error", "bits per dimension"):
        table.add_column(column, justify="right")
    for key, name in _quantities(metrics).items():
        row = metrics[key]
        error = "" if row["standard_error"] is None else f"{row['standard_error']:.2f}"
        table.add_row(name, f"{row['nats_per_row']:.2f}", error, f"{row['bits_per_dimension']:.3f}")
    console.print(table)
    unsure = metrics["rows_with_pareto_k_above_0.7"]
    console.print(
        f"Standard errors are over rows; that of importance sampling is "
        f"{metrics['monte_carlo_error']:.3f}.\nPareto k-hat is above 0.7 on {unsure} rows"
        + (": what is said of these is a lower bound." if unsure else "."),
        highlight=False,
    )


if __name__ == "__main__":
    main()
