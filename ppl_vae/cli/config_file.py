"""Options in a file: read for --config, and written by --dry-run."""

from __future__ import annotations

__all__ = ["ConfigFile", "as_toml"]

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from .mistakes import meant, options_of

# What a file cannot say: itself, and what is asked for once.
_ONCE = ("--config", "--help", "--dry-run")


def _read(context: typer.Context, path: Path | None) -> Path | None:
    """Make the values of a file the defaults of the command; what is given beside it wins."""
    if path is None or context.resilient_parsing:
        return path
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        said = getattr(error, "strerror", None) or "it is no text"
        raise ValueError(f"--config is {str(path)!r}, which cannot be read: {said}") from error
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"--config is {str(path)!r}, which is no TOML: {error}") from error
    command: Any = context.command
    known = {each.name: each for each in command.params if "--" not in each.opts[0]}
    known |= {
        name.removeprefix("--"): option
        for name, option in options_of(command).items()
        if name not in _ONCE
    }
    defaults = {}
    for key, value in values.items():
        name = key.replace("_", "-")
        if name not in known:
            close = meant(f"--{name}", [f"--{one}" for one in known])
            hint = f"; did you mean {close[0].removeprefix('--')}?" if close else ""
            raise ValueError(
                f"--config is {str(path)!r}, whose {key!r} is no option of "
                f"{context.info_name}{hint}"
            )
        option = known[name]
        defaults[option.name] = _value(value, several=getattr(option, "multiple", False))
    context.default_map = {**(context.default_map or {}), **defaults}
    return path


def _value(value: Any, *, several: bool) -> Any:
    """What an option takes, for how TOML has it: lists of numbers are texts with commas."""
    if several:
        if isinstance(value, Mapping):
            return [f"{key}={each}" for key, each in value.items()]
        return value if isinstance(value, list) else [value]
    if isinstance(value, list):
        return ",".join(map(str, value))
    return value if isinstance(value, bool) else str(value)  # numbers as they are typed


ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="A TOML file of these options, as --dry-run prints one: latent-dim = 8. What is given "
        "on the command line wins.",
        metavar="FILE",
        is_eager=True,
        callback=_read,
    ),
]


def as_toml(options: Mapping[str, Any]) -> str:
    """Options as --config reads them, a line each.

    Examples
    --------
    >>> print(as_toml({"data": "a.csv", "latent-dim": 2, "drop": ["id"], "film": True}))
    data = "a.csv"
    latent-dim = 2
    drop = ["id"]
    film = true
    """
    # A string, a number, a truth value and a list are written in TOML as in JSON.
    return "\n".join(
        f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in options.items()
    )
