"""What a fit would be, printed without one: what columns were taken for, and the choices."""

from __future__ import annotations

__all__ = ["print_plan"]

import os
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from ..config import VAEConfig
from ..data import Dataset, load_splits
from ..data.columns import plain
from ..data.kinds import ColumnKind
from ..run import Recipe, finite_json, recipe_of
from ..run.prepared import chosen
from .config_file import as_toml

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


def print_plan(
    preset: str | None, out: Path | None, *, as_json: bool, quiet: bool, **given: Any
) -> None:
    """Print a row for each column of a table, and every choice; nothing is fitted or written.

    Choices are printed as a file for --config, which then makes the fit that this would be.

    Raises
    ------
    ValueError, TypeError, OSError
        As the fit itself would at its start.
    """
    recipe = recipe_of(preset, **given)
    recipe.check()
    train, test = load_splits(**recipe.data)
    columns = _columns(train, test)
    if as_json or quiet:
        config = chosen(recipe, train, test).config
        options = _options(recipe.sized(len(train.x)), config, out)
        if as_json:
            found = {"columns": columns, "vae": config.model_dump(), "options": options}
            typer.echo(finite_json(found))
        else:
            typer.echo(as_toml(options))
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
        f"{config.choice('likelihood')} likelihood, {config.reason or f'as preset {preset}'}"
        f"{f', conditional on {given_to}' if given_to else ''}\n"
        "\nEvery choice, as a file for --config:\n\n"
        f"{as_toml(_options(recipe.sized(len(train.x)), config, out))}\n\n"
        "Nothing was fitted: leave --dry-run out to fit.",
        soft_wrap=True,
    )


def _options(recipe: Recipe, config: VAEConfig, out: Path | None) -> dict[str, Any]:
    """Every option of the fit that has a value, by its name, with what was chosen."""
    data = recipe.data
    path = Path(data["name_or_path"])
    here = path.is_absolute() and path.is_relative_to(Path.cwd())
    found: dict[str, Any] = {
        "data": os.path.relpath(path) if here else str(path),
        "data_root": data.get("root"),
        **{name: data.get(name) for name in ("label", "header", "thousands", "layer")},
        "image_size": data.get("image_size"),
        **{name: list(data.get(name, ())) for name in ("drop", "missing")},
    }
    if recipe.continues is None:
        column = data.get("column") or {}
        parts = ("likelihood", "prior", "guide", "network")
        found |= {
            "context": list(data.get("context", ())),
            "column": [f"{name}={kind}" for name, kind in column.items()],
            "preset": recipe.preset,
            "latent_dim": config.latent_dim,
            **{part: str(config.choice(part)) for part in parts},
        }
        if (
            config.likelihood == "mixed"
            and str(recipe.choices.get("likelihood", "mixed")) == "mixed"
        ):
            found["likelihood"] = "mixed"  # whose columns are chosen, and located, by the data
    else:  # the VAE, and what its columns are, are those of the run
        found["continue"] = str(recipe.continues)
    fitted = (
        *("epochs", "learning_rate", "batch_size", "objective", "validation", "patience"),
        *("schedule", "optimizer", "average", "accumulate", "binarize"),
    )
    machine = (
        *("seed", "engine", "device", "precision", "threads", "devices", "nodes"),
        "checkpoint_every",
    )
    found |= {
        **{name: getattr(recipe, name) for name in fitted},
        "draws": recipe.num_samples,
        "out": None if out is None else str(out),
        "log": recipe.log,
        "film": recipe.film or None,
        **{name: getattr(recipe, name) for name in machine},
    }
    return {
        name.replace("_", "-"): value
        for name, value in found.items()
        if value is not None and value != []
    }


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
