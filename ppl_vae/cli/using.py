"""The commands that use a finished run: sample and encode."""

from __future__ import annotations

__all__ = ["encode", "sample"]

from pathlib import Path
from typing import Annotated

import typer

from .conditions import covariates_of
from .names import sources
from .options import (
    ABOUT_DATA,
    ANNOTATED,
    RESULTS,
    STORE,
    DataRoot,
    Drop,
    Force,
    Header,
    ImageSize,
    Label,
    Layer,
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

# Groups of the DataTree that encode writes.
_ENCODED = ("posterior", "log_likelihood", "sample_stats", "observed_data", "constant_data")


def sample(
    run: RunFolder,
    num_samples: Annotated[
        int, typer.Option(help="How many rows to draw.", rich_help_panel=RESULTS)
    ] = 64,
    out: Annotated[
        Path | None,
        typer.Option(
            help="A .npz file, a .png picture, or a .zarr store, written chunk by chunk; "
            "RUN/samples.npz if not given.",
            rich_help_panel=RESULTS,
        ),
    ] = None,
    context: Annotated[
        list[str] | None,
        typer.Option(
            help="What to condition all draws on; if not given, on the context of training rows.",
            metavar="COLUMN=VALUE",
            rich_help_panel=ABOUT_DATA,
        ),
    ] = None,
    seed: Seed = 0,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Draw new rows from the fitted model: latents from the prior, and a row given these."""
    import numpy as np

    from ..files import written_whole
    from ..pictures.rows import plot_draws
    from ..run import Run
    from ..workflow.draws.posterior import sample_prior
    from ..workflow.draws.simulation import simulate

    if num_samples < 1:
        raise ValueError(f"--num-samples is {num_samples}; pass at least 1")
    finished = Run(run)
    vae = finished.vae()
    out = free_file(out or run / "samples.npz", force, accepted=(".npz", ".png", STORE))
    given = covariates_of(finished, context or [], num_samples, seed)
    names = [name for coding in finished.codings for name in coding.names]
    if out.suffix == STORE:
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
        if out.suffix == ".npz":
            next_steps(
                (f"numpy.load({str(out)!r})['x']", "in Python: the rows; their latents, 'z'")
            )
        elif out.suffix == STORE:
            next_steps((f"xarray.open_zarr({str(out)!r})", "in Python"))


def encode(
    run: RunFolder,
    data: Annotated[
        str,
        typer.Argument(
            help="As of fit, or a .zarr array or .parquet file, read as it is needed.",
            metavar="DATA",
            autocompletion=sources,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="A netCDF file; a .zarr store, written chunk by chunk, by several processes "
            "too, and gone on with where it was stopped; or of a .h5ad file a copy with latents "
            "and verdicts. RUN/DATA.nc if not given.",
            rich_help_panel=RESULTS,
        ),
    ] = None,
    draws: Annotated[
        int, typer.Option(help="Posterior draws for each row.", rich_help_panel=RESULTS)
    ] = 200,
    denoised: Annotated[
        str | None,
        typer.Option(
            help="Layer of the copy for denoised expression.",
            metavar="LAYER",
            rich_help_panel=RESULTS,
        ),
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
    """Draw the latents of every row of DATA from their posteriors, into a file that ArviZ reads.

    Draws come with log-weights, by which averages can be corrected for what q misses.
    """
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
            next_steps((f"anndata.read_h5ad({str(out)!r})", "in Python: what scanpy goes on with"))
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
        reading = "" if out.suffix == ".nc" else ", engine='zarr'"
        next_steps(
            (f"xarray.open_datatree({str(out)!r}{reading})", "in Python: what ArviZ summarizes")
        )
