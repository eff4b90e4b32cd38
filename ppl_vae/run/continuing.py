"""The recipe of a run: by a preset or the defaults, or that of another run whose VAE goes on."""

from __future__ import annotations

__all__ = ["recipe_of"]

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from .folder import Run
from .recipe import Recipe

# What is read with the rows that a run goes on with as it was read for the run.
_CODED = ("context", "column")


def recipe_of(preset: str | None, run: Path | None, **given: Any) -> Recipe:
    """The recipe of a preset or of the defaults, or of the VAE of a finished run going on.

    A run goes on by its own options, and with its own rows, where these are not given; what is
    given and not None replaces them. Rows are read by the columns, levels and context of the run.

    Raises
    ------
    ValueError
        If there is no such preset, or parts of a VAE are given for one that goes on.
    FileNotFoundError
        If ``run`` is no run folder.
    """
    if run is None:
        return Recipe.of_preset(preset, **given)
    choices = given.pop("choices", None) or {}
    fixed = [*choices, *(["preset"] if preset else [])]
    if fixed:
        named = " and ".join(f"--{name.replace('_', '-')}" for name in fixed)
        raise ValueError(
            f"{named} came with --continue, which goes on with the VAE in {str(run)!r} as it is; "
            "leave one of them out"
        )
    earlier = Run(run)
    settings = earlier.settings
    known = {field.name for field in fields(Recipe)}
    options = {name: value for name, value in settings["fit"].items() if name in known}
    options["binarize"] = settings["binarize"]
    # A run without validation says None, where a recipe chooses.
    options["validation"] = options.get("validation") or 0.0
    data = _data_of(earlier, given.pop("data", None))
    given = {name: value for name, value in given.items() if value is not None}
    return Recipe(**{**options, **given, "data": data, "continues": run})


def _data_of(run: Run, given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Where rows are and how they are read: as those of the run, unless it is said otherwise."""
    said = {name: value for name, value in (given or {}).items() if value not in (None, (), {})}
    for name in _CODED:
        if name in said:
            raise ValueError(
                f"--{name} came with --continue, which reads columns as {str(run.folder)!r} did; "
                "leave it out"
            )
    return {
        **run.settings["data"],
        **said,
        "context": run.codings,
        "column": run.columns,
    }
