"""The command that looks at several finished runs: compare."""

from __future__ import annotations

__all__ = ["compare"]

import json
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import Draws, Force, Json, Quiet, Seed, free_file

if TYPE_CHECKING:
    from ..run import Run
    from ..workflow.checks.comparison import Comparison


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Two or more run folders.", metavar="RUN...")],
    draws: Draws = 1000,
    out: Annotated[
        Path | None, typer.Option(help="A netCDF file to write everything found to.")
    ] = None,
    seed: Seed = 0,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare log p(x) of the same test rows under several runs, row by row."""
    from ..rows import Rows
    from ..run import Run
    from ..run.metrics import finite_json
    from ..trees.vae import write_datatree
    from ..workflow.checks.comparison import compare as comparison_of

    if len(runs) < 2:
        raise ValueError(f"RUN is given {len(runs)} time; pass at least two runs to compare")
    if out is not None:
        out = free_file(out, force, accepted=(".nc",))
    names = _names(runs)
    finished = {name: Run(folder) for name, folder in zip(names, runs, strict=True)}
    first = finished[names[0]]
    # Bits are drawn with the seed of a fit: of all runs with that of the first.
    bits = first.settings["fit"]["seed"]
    vaes, given, x = {}, {}, None
    for name, run in finished.items():
        test = run.splits()[1]
        rows = run.rows(test, seed=bits)
        if x is None:
            x, wanted = rows, Rows(rows).fingerprint()
        elif Rows(rows).fingerprint() != wanted:
            raise ValueError(
                f"the test rows of {str(run.folder)!r} are not those of {str(first.folder)!r}, so "
                "that nothing pairs them; compare runs on the same data, split and binarized alike"
            )
        vaes[name], given[name] = run.vae(), test.covariates
    assert x is not None
    found = comparison_of(
        vaes, x, covariates=given, num_samples=draws, seed=seed, progress=not (quiet or as_json)
    )
    if out is not None:
        write_datatree(found.to_datatree(), out)
    if as_json:
        typer.echo(finite_json(_numbers(found)))
    elif not quiet:
        typer.echo("\n".join([found.summary(), *_of_seeds(finished, found)]))


def _names(runs: list[Path]) -> list[str]:
    """A name for each run: that of its folder, or its path where several are called alike."""
    short = [run.resolve().name for run in runs]
    names = short if len(set(short)) == len(short) else [str(run) for run in runs]
    if len(set(names)) < len(names):
        raise ValueError(f"RUN is {str(runs[0])!r} and others, one of them twice; pass each once")
    return names


def _numbers(found: Comparison) -> dict[str, Any]:
    pairs = found.pairs
    return {
        "models": {
            name: {
                "nats_per_row": float(found.rows.log_evidence.sel(model=name).mean()),
                "rows_not_believed": int((~found.rows.believed.sel(model=name)).sum()),
            }
            for name in found.order
        },
        "pairs": [
            {
                "model": one,
                "other": other,
                **{name: pairs[name].sel(model=one, other=other).item() for name in pairs},
            }
            for i, one in enumerate(found.order)
            for other in found.order[i + 1 :]
        ],
        "rhat": found.rows.rhat.values.tolist(),
    }


def _of_seeds(runs: dict[str, Run], found: Comparison) -> list[str]:
    """How far runs are apart that differ by their seed alone, a sentence for each group."""
    alike: dict[str, list[str]] = defaultdict(list)
    for name, run in runs.items():
        settings = run.settings
        settings["fit"] = {k: v for k, v in settings["fit"].items() if k != "seed"}
        alike[json.dumps(settings, sort_keys=True, default=str)].append(name)
    words = []
    for names in alike.values():
        if len(names) > 1:
            means = found.rows.log_evidence.sel(model=names).mean("row")
            words.append(
                f"{', '.join(names)} differ by their seed alone, and by "
                f"{float(means.std(ddof=1)):.2f} nats per row (standard deviation)."
            )
    return words
