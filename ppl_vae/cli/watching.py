"""The command that says of new rows whether a run still describes them: watch."""

from __future__ import annotations

__all__ = ["watch"]

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from .names import sources
from .options import (
    RESULTS,
    DataRoot,
    Draws,
    Drop,
    Header,
    ImageSize,
    Json,
    Label,
    Missing,
    Quiet,
    RunFolder,
    Seed,
    Thousands,
    Unseen,
)
from .reading import rows_of

if TYPE_CHECKING:
    import xarray as xr


def watch(
    run: RunFolder,
    data: Annotated[
        str,
        typer.Argument(
            help="New rows, in the order in which they came.",
            metavar="DATA",
            autocompletion=sources,
        ),
    ],
    size: Annotated[
        int,
        typer.Option(
            help="Rows of a batch: larger ones see smaller changes, later.", rich_help_panel=RESULTS
        ),
    ] = 100,
    rate: Annotated[
        float,
        typer.Option(
            help="Part of the batches that are alarms though nothing changed.",
            rich_help_panel=RESULTS,
        ),
    ] = 0.01,
    draws: Draws = 500,
    data_root: DataRoot = None,
    label: Label = None,
    drop: Drop = None,
    header: Header = None,
    missing: Missing = None,
    thousands: Thousands = None,
    unseen: Unseen = "refuse",
    image_size: ImageSize = None,
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Say, batch by batch, whether new rows are such as the run's test rows, by log p(x) and k-hat.

    The exit code is 0 whatever is said; --json has "alarm".
    """
    from ..run import Run, finite_json
    from ..workflow.checks.control import control_chart
    from ..workflow.weights.evidence import log_evidence

    finished = Run(run)
    vae, test = finished.vae(), finished.splits()[1]
    given = rows_of(
        finished,
        data,
        data_root=data_root,
        unseen=unseen,
        label=label,
        drop=drop,
        image_size=image_size,
        header=header,
        missing=missing,
        thousands=thousands,
    )
    parts = ((finished.rows(test), test.covariates), (given.x, given.covariates))
    estimated = [
        log_evidence(
            vae,
            x,
            covariates=covariates,
            num_samples=draws,
            seed=seed + i,
            progress=not (quiet or as_json),
        )
        for i, (x, covariates) in enumerate(parts)
    ]
    chart = control_chart(*estimated, size=size, rate=rate, seed=seed)
    if as_json:
        typer.echo(finite_json(_in_json(chart)))
    elif not quiet:
        _print(chart, len(test.x), f"ppl-vae fit {data} --continue {run}")


def _in_json(chart: xr.Dataset) -> dict[str, Any]:
    by_batch = {name: values.values.tolist() for name, values in chart.items()}
    return {
        "alarm": bool(chart.alarm.any()),
        **chart.attrs,
        "batches": [
            dict(zip(by_batch, one, strict=True)) for one in zip(*by_batch.values(), strict=True)
        ],
    }


def _print(chart: xr.Dataset, reference: int, command: str) -> None:
    console = Console(markup=False, highlight=False)
    table = Table("rows", "log p(x)", "score", "k-hat's score", "", show_edge=False, box=None)
    for i in range(chart.sizes["batch"]):
        one = chart.isel(batch=i)
        first = int(one["first"])
        table.add_row(
            f"{first} to {first + int(one.rows) - 1}",
            f"{float(one.mean_log_evidence):.2f}",
            f"{float(one.log_evidence_score):.1f}",
            f"{float(one.pareto_k_score):.1f}",
            str(one.fault.values),
        )
    console.print(table)
    console.print(
        f"Log p(x) is {chart.reference_log_evidence:.2f} nats per row on the run's {reference} "
        f"test rows. Scores are standard normal while nothing changes; beyond "
        f"{chart.log_evidence_limit:.2f} on either side, of k-hat above "
        f"{chart.pareto_k_limit:.2f}, they are an alarm, which at most one batch in "
        f"{1 / chart.rate:.4g} is by chance.",
        soft_wrap=True,
    )
    alarms = chart["first"].values[chart.alarm.values]
    console.print(
        f"The first alarm is at row {alarms[0]}. To go on with the fit: {command}"
        if len(alarms)
        else "No alarm: these rows are such as the run was judged by.",
        soft_wrap=True,
    )
