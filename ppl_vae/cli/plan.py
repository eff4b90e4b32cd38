"""What a fit would be, printed without one: what columns were taken for, and the choices."""

from __future__ import annotations

__all__ = ["print_plan"]

from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from ..data import Dataset, load_splits
from ..data.columns import plain
from ..data.kinds import ColumnKind
from ..run import finite_json, recipe_of
from ..run.prepared import chosen

# Columns that are printed; more, as of images flattened and of genes, are summed up.
_MOST_COLUMNS = 100
_MOST_LEVELS = 8
# What else numbers may be, by a word of why they were taken for numbers.
_DOUBTS = {
    "different whole": "Few different whole numbers may be codes or grades: say so with --column "
    "NAME=categorical, or ordinal, binary or count.",
    "nearly all differ": "Whole numbers that nearly all differ may be names of rows: leave these "
    "out with --drop NAME.",
}


def print_plan(preset: str | None, *, as_json: bool, **given: Any) -> None:
    """Print a row for each column of a table, and the config; nothing is fitted or written.

    Raises
    ------
    ValueError, TypeError, OSError
        As the fit itself would at its start.
    """
    recipe = recipe_of(preset, **given)
    recipe.check()
    train, test = load_splits(**recipe.data)
    columns = _columns(train, test)
    if as_json:
        config = chosen(recipe, train, test).config
        typer.echo(finite_json({"columns": columns, "vae": config.model_dump()}))
        return
    console = Console(markup=False, highlight=False)
    console.print(
        f"{train.source}: {len(train.x)} rows to fit to, {len(test.x)} to test by, each of shape "
        f"{tuple(train.x.shape[1:])}",
        soft_wrap=True,
    )
    if columns:
        table = Table(*columns[0], show_edge=False, box=None)
        for column in columns[:_MOST_COLUMNS]:
            table.add_row(*map(str, column.values()))
        console.print(table)
        if len(columns) > _MOST_COLUMNS:
            console.print(f"and {len(columns) - _MOST_COLUMNS} more columns")
    whys = {column["why"] for column in columns if column["kind"] == "real"}
    for word, said in _DOUBTS.items():
        if any(word in why for why in whys):
            console.print(said, soft_wrap=True)
    # What columns were taken for is said even where no choice fits them.
    config = chosen(recipe, train, test).config
    given_to = ", ".join(coding.name for coding in train.codings)
    console.print(
        f"{config.choice('likelihood')} likelihood, {config.reason or f'as preset {preset}'}\n"
        f"{config.latent_dim} latents, prior {config.choice('prior')}, guide "
        f"{config.choice('guide')}, network {config.choice('network')}"
        f"{f', conditional on {given_to}' if given_to else ''}\n"
        "Nothing was fitted: leave --dry-run out to fit.",
        soft_wrap=True,
    )


def _columns(train: Dataset, test: Dataset) -> list[dict[str, Any]]:
    """What is said of each column of a table; nothing of images."""
    if train.x.ndim != 2:
        return []
    names = train.feature_names or tuple(str(i) for i in range(train.x.shape[1]))
    found = []
    for i, name in enumerate(names):
        values = train.x[:, i].numpy()
        rest = test.x[:, i].numpy()
        kind = plain(name, values) if train.columns is None else train.columns[i]
        if train.columns is None:
            kind = ColumnKind(name, "real", None, kind.why)  # one likelihood for all columns
        present = [part[~(part != part)] for part in (values, rest)]
        missing = len(values) + len(rest) - sum(map(len, present))
        low = min(float(part.min()) for part in present if len(part))
        high = max(float(part.max()) for part in present if len(part))
        if kind.levels is None:
            held = f"{low:.6g} to {high:.6g}"
        else:
            more = f", and {len(kind.levels) - _MOST_LEVELS} more"
            held = ", ".join(kind.levels[:_MOST_LEVELS])
            held += more if len(kind.levels) > _MOST_LEVELS else ""
        found.append(
            {
                "name": name,
                "kind": kind.kind,
                "levels or range": held,
                "missing": missing,
                "why": kind.why,
            }
        )
    return found
