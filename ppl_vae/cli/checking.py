"""The commands that look at a finished run: evaluate, sample, encode, diagnose and more."""

from __future__ import annotations

__all__ = ["diagnose", "encode", "evaluate", "pictures", "report", "sample"]

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from .conditions import covariates_of
from .options import (
    ANNOTATED,
    STORE,
    DataRoot,
    Draws,
    Drop,
    Force,
    Header,
    ImageSize,
    Json,
    Label,
    Layer,
    Missing,
    Quiet,
    RunFolder,
    Seed,
    Thousands,
    Unseen,
    free_file,
    numbers,
    source_of,
    writable,
)
from .printing import INTERRUPTED, fail, print_metrics

if TYPE_CHECKING:
    from ..run import Run

# Groups of the DataTree that encode writes.
_ENCODED = ("posterior", "log_likelihood", "sample_stats", "observed_data", "constant_data")


def evaluate(
    run: RunFolder,
    draws: Draws = 500,
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Estimate log p(x) of the run's test rows again, with other draws."""
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


def sample(
    run: RunFolder,
    num_samples: Annotated[int, typer.Option(help="How many rows to draw.")] = 64,
    out: Annotated[
        Path | None,
        typer.Option(
            help="A .npz file, a .png picture, or a .zarr store, written chunk by chunk; "
            "RUN/samples.npz."
        ),
    ] = None,
    context: Annotated[
        list[str] | None,
        typer.Option(
            help="What to condition all draws on; if not given, on the context of training rows.",
            metavar="COLUMN=VALUE",
        ),
    ] = None,
    seed: Seed = 0,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Draw rows from the fitted model: z from the prior, x from the decoder."""
    import numpy as np

    from ..files import written_whole
    from ..pictures.rows import plot_draws
    from ..run import Run
    from ..workflow.posterior import sample_prior
    from ..workflow.simulation import simulate

    if num_samples < 1:
        raise ValueError(f"--num-samples is {num_samples}; pass at least 1")
    finished = Run(run)
    vae = finished.vae()
    out = free_file(out or run / "samples.npz", force, accepted=(".npz", ".png", STORE))
    given = covariates_of(finished, context or [], num_samples, seed)
    if out.suffix == STORE:
        names = [name for coding in finished.codings for name in coding.names]
        with _gone_on_with(out):
            simulate(
                vae,
                num_samples,
                covariates=given,
                covariate_names=names or None,
                seed=seed,
                store=out,
                progress=not quiet,
            )
    elif out.suffix == ".png":
        figure = plot_draws(
            vae,
            covariates=given,
            num_rows=num_samples,
            feature_names=finished.settings.get("features"),
            seed=seed,
        )
        with written_whole(out) as temporary:
            figure.savefig(temporary)
    else:
        if given is None:
            z, x = sample_prior(vae, num_samples=num_samples, seed=seed)
            arrays = {"z": z, "x": x}
        else:
            z, x = sample_prior(vae, covariates=given, num_samples=1, seed=seed)
            names = [name for coding in finished.codings for name in coding.names]
            arrays = {
                "z": z[0],
                "x": x[0],
                "covariates": given.numpy(),
                "covariate_names": np.array(names),
            }
        with written_whole(out) as temporary:
            np.savez_compressed(temporary, **arrays)  # type: ignore[arg-type]
    if not quiet:
        typer.echo(f"{num_samples} draws written to {out}")


def encode(
    run: RunFolder,
    data: Annotated[
        str,
        typer.Argument(help="As of fit, or a .zarr array or .parquet file, read as it is needed."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="A netCDF file; a .zarr store, written chunk by chunk, by several processes "
            "too, and gone on with where it was stopped; or of a .h5ad file a copy with latents "
            "and verdicts. RUN/DATA.nc."
        ),
    ] = None,
    draws: Annotated[int, typer.Option(help="Posterior draws for each row.")] = 200,
    denoised: Annotated[
        str | None,
        typer.Option(help="Layer of the copy for denoised expression.", metavar="LAYER"),
    ] = None,
    data_root: DataRoot = None,
    label: Label = None,
    drop: Drop = None,
    header: Header = None,
    missing: Missing = None,
    thousands: Thousands = None,
    unseen: Unseen = "refuse",
    layer: Layer = None,
    image_size: ImageSize = None,
    seed: Seed = 0,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Draw the latents of every row of DATA, into a DataTree that ArviZ reads."""
    from ..data import load_data
    from ..run import Run
    from ..trees.vae import to_datatree, write_datatree

    finished = Run(run)
    vae = finished.vae()
    out = free_file(out or run / f"{Path(data).stem}.nc", force, accepted=(".nc", STORE, ANNOTATED))
    annotated = Path(data).suffix == ANNOTATED
    if not annotated and (out.suffix == ANNOTATED or layer is not None):
        raise ValueError(
            f"a {ANNOTATED} file is written of another, with its layers, and DATA is {data!r}; "
            "choose --out with .nc or .zarr, and leave --layer out"
        )
    if denoised is not None and out.suffix != ANNOTATED:
        raise ValueError(f"--denoised is a layer of a {ANNOTATED} file, and --out is {str(out)!r}")
    if annotated:
        # A run is of one layer, and its latents are of the same.
        layer = layer or finished.settings["data"].get("layer")
    options = label, drop, image_size, header, missing, thousands
    given: dict[str, Any]
    # Columns of levels and those beside the rows are read by what the fit remembers of them.
    by_name = finished.columns or finished.codings
    if Path(data).suffix == STORE or (Path(data).suffix == ".parquet" and not by_name):
        named = ("--label", "--drop", "--image-size", "--header", "--missing", "--thousands")
        for name, value in zip(named, options, strict=True):
            if value:
                raise ValueError(f"{name} is of tables and images, and DATA is {data!r}")
        x: Any = finished.rows_at(data)
        given = {"feature_names": finished.settings.get("features")}
    else:
        source = source_of(data, data_root, *options, layer=layer)
        kept = {"context": finished.codings, "column": finished.columns, "unseen": unseen}
        rows = load_data(split=None, **{**source, **kept})
        x = finished.rows(rows)
        given = {
            "covariates": rows.covariates,
            "labels": rows.labels,
            "feature_names": rows.feature_names,
            "covariate_names": rows.covariate_names,
        }
    if out.suffix == ANNOTATED:
        from .annotating import write_annotated

        write_annotated(
            vae,
            x,
            data,
            out,
            covariates=given["covariates"],
            denoised=denoised,
            num_samples=draws,
            seed=seed,
            progress=not quiet,
        )
        if not quiet:
            typer.echo(f"{len(x)} cells with their latents written to {out}")
        return
    with _gone_on_with(out):
        tree = to_datatree(
            vae,
            x,
            num_samples=draws,
            groups=_ENCODED,
            seed=seed,
            store=out if out.suffix == STORE else None,
            progress=not quiet,
            **given,
        )
    if out.suffix != STORE:
        write_datatree(tree, out)
    if not quiet and "missing_rows" in tree.attrs:
        left = tree.attrs["missing_rows"]
        typer.echo(f"{out} waits for {left} rows of other processes")
    elif not quiet:
        sizes = dict(tree["posterior"].sizes)
        typer.echo(f"z {sizes} and its log-weights written to {out}")


def diagnose(
    run: RunFolder,
    draws: Draws = 500,
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Say which test rows' posteriors can be believed, and add it to the run."""
    from ..files import written_whole
    from ..pictures.checks import plot_calibration
    from ..rows import Rows
    from ..run import caveats
    from ..trees.vae import write_datatree
    from ..workflow.diagnosis import diagnose as diagnosis_of

    finished = _to_write_into(run)
    train, test = finished.splits()
    found = diagnosis_of(
        finished.vae(),
        finished.rows(test),
        covariates=test.covariates,
        num_samples=draws,
        baseline=_independent(run),
        training=Rows(finished.rows(train), train.covariates),
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
    metrics = _test_metrics(run)
    summary = "\n".join([found.summary(), *caveats(metrics)])
    with written_whole(run / "diagnosis.txt") as temporary:
        temporary.write_text(summary + "\n")
    if as_json:
        counts = Counter(found.rows.verdict.values.tolist())
        cures = [asdict(cure) for cure in found.cures]
        typer.echo(json.dumps({"verdicts": counts, "faults": found.faults, "cures": cures}))
    elif not quiet:
        typer.echo(summary)


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
    from ..run.afterwards import draw_pictures

    finished = _to_write_into(run)
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


def report(run: RunFolder, quiet: Quiet = False) -> None:
    """Write RUN/report.html: the run's story from data to verdict, in one file."""
    from ..run.report import write_report

    finished = _to_write_into(run)
    path = write_report(finished.folder)
    if not quiet:
        typer.echo(f"Written to {path}")


@contextmanager
def _gone_on_with(out: Path) -> Iterator[None]:
    """Say how a store goes on, where it was interrupted."""
    try:
        yield
    except KeyboardInterrupt:  # typer keeps no more of it than the exit code
        if out.suffix == STORE:
            fail(f"interrupted; the same command goes on with {str(out)!r}", code=INTERRUPTED)
        raise


def _to_write_into(folder: Path) -> Run:
    """The run in a folder, refused at the start where nothing could be written at the end."""
    from ..run import Run

    run = Run(folder)
    writable(folder, f"RUN is {str(folder)!r}, which")
    return run


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
