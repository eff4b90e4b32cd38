"""The commands that look at a finished run: evaluate, sample, encode and more."""

from __future__ import annotations

__all__ = ["encode", "evaluate", "pictures", "report", "sample"]

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
)
from .printing import gone_on_with, one_line, print_metrics
from .reading import rows_of, to_write_into

if TYPE_CHECKING:
    pass

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
        with gone_on_with(out):
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
        layer=layer,
    )
    if out.suffix == ANNOTATED:
        from .annotating import write_annotated

        write_annotated(
            vae,
            read.x,
            data,
            out,
            covariates=read.covariates,
            denoised=denoised,
            num_samples=draws,
            seed=seed,
            progress=not quiet,
        )
        if not quiet:
            typer.echo(f"{len(read.x)} cells with their latents written to {out}")
        return
    with gone_on_with(out):
        tree = to_datatree(
            vae,
            read.x,
            covariates=read.covariates,
            labels=None if read.dataset is None else read.dataset.labels,
            feature_names=read.feature_names,
            covariate_names=None if read.dataset is None else read.dataset.covariate_names,
            num_samples=draws,
            groups=_ENCODED,
            seed=seed,
            store=out if out.suffix == STORE else None,
            progress=not quiet,
        )
    if out.suffix != STORE:
        write_datatree(tree, out)
    if not quiet and "missing_rows" in tree.attrs:
        left = tree.attrs["missing_rows"]
        typer.echo(f"{out} waits for {left} rows of other processes")
    elif not quiet:
        sizes = dict(tree["posterior"].sizes)
        typer.echo(f"z {sizes} and its log-weights written to {out}")


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

    finished = to_write_into(run)
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
    from ..run.afterwards import draw_pictures
    from ..run.report import PICTURES, write_report

    finished = to_write_into(run)
    if not any((run / name).exists() for name in PICTURES):
        try:
            test = finished.splits()[1]
            draw_pictures(run, finished.vae(), test, finished.rows(test))
        except (ValueError, TypeError, OSError) as error:  # the data may have moved since
            if not quiet:
                typer.echo(f"Without pictures of the latents: {one_line(error)}")
    path = write_report(finished.folder)
    if not quiet:
        typer.echo(f"Written to {path}")
