"""The command that names what there is to choose from: list."""

from __future__ import annotations

__all__ = ["list_choices"]

import inspect
import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from .names import among
from .options import Json

if TYPE_CHECKING:
    from ..components.registry import Registry

_KINDS = ("priors", "guides", "likelihoods", "networks", "objectives", "presets", "data")
_WITH_OPTIONS = _KINDS[:5]  # which are written behind the name
# An option of fit by which each is chosen.
_CHOSEN_BY = {
    "priors": "ppl-vae fit DATA --prior NAME:option=value",
    "guides": "ppl-vae fit DATA --guide NAME:option=value",
    "likelihoods": "ppl-vae fit DATA --likelihood NAME:option=value",
    "networks": "ppl-vae fit DATA --network NAME:option=value",
    "objectives": "ppl-vae fit DATA --objective NAME:option=value",
    "presets": "ppl-vae fit DATA --preset NAME, or ppl-vae reproduce NAME",
    "data": "ppl-vae fit DATA",
}


def list_choices(
    kind: Annotated[
        str | None,
        typer.Argument(
            help=f"{', '.join(_KINDS)}; all if not given.",
            metavar="KIND",
            autocompletion=among(_KINDS),
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Name what there is to choose from: parts of a model, published VAEs and data, with options.

    Parts that other packages offer are among them.
    """
    if kind is not None and kind not in _KINDS:
        raise ValueError(f"KIND is {kind!r}; accepted are {', '.join(_KINDS)}")
    found = {each: _choices(each) for each in ([kind] if kind else _KINDS)}
    if as_json:
        typer.echo(json.dumps(found))
        return
    console = Console(highlight=False)
    for each, choices in found.items():
        table = Table(
            title=f"{each}: {_CHOSEN_BY[each]}",
            title_justify="left",
            show_header=False,
            show_edge=False,
            box=None,
        )
        table.add_column(no_wrap=True)
        for choice in choices:
            options = [
                name if default is None else f"{name}={default}"
                for name, default in choice["options"].items()
            ]
            start = f"{choice['name']}:" if each in _WITH_OPTIONS else ""
            written = f"{start}{(',' if start else ' ').join(options)}" if options else ""
            table.add_row(choice["name"], "\n".join(filter(None, (choice["what"], written))))
        console.print(table, markup=False)
        console.print()


def _choices(kind: str) -> list[dict[str, Any]]:
    """Of each its name, its options with their defaults as text (None: it has none), and words."""
    if kind == "presets":
        return _presets()
    if kind == "data":
        return _data()
    registry = _registries()[kind]
    return [
        {
            "name": name,
            "what": _first_sentence(registry[name]),
            "options": {
                option: None if default is inspect.Parameter.empty else _written(default)
                for option, default in registry.options(name).items()
            },
        }
        for name in registry
    ]


def _registries() -> Mapping[str, Registry[Any]]:
    from ..components.decoders import DECODERS
    from ..components.encoders import ENCODERS
    from ..components.networks import NETWORKS
    from ..components.priors import PRIORS
    from ..inference.objectives import OBJECTIVES

    return {
        "priors": PRIORS,
        "guides": ENCODERS,
        "likelihoods": DECODERS,
        "networks": NETWORKS,
        "objectives": OBJECTIVES,
    }


def _presets() -> list[dict[str, Any]]:
    from ..presets import PRESETS
    from .printing import published

    return [
        {
            "name": name,
            "what": f"{preset.source}; {preset.data}, {published(preset)}",
            "options": {key: _written(value) for key, value in preset.vae.items()},
        }
        for name, preset in PRESETS.items()
    ]


def _data() -> list[dict[str, Any]]:
    from ..data.annotated import ANNOTATED
    from ..data.arrays import ARRAYS
    from ..data.frames import PARQUET
    from ..data.images import IMAGE_SETS
    from ..data.tables import TABLES

    columns = ("--label", "--drop", "--context", "--column")
    kinds = {
        "digits": ("1,797 handwritten digits of 8x8 pixels, at hand", ("--context",)),
        "sprites": ("6,144 images of 32x32 pixels and known factors, made here", ("--context",)),
        **{
            name.lower(): ("image set of torchvision", ("--data-root", "--image-size", "--context"))
            for name in IMAGE_SETS
        },
        " ".join(TABLES): ("tables", (*columns, "--missing", "--thousands", "--header")),
        " ".join(PARQUET): ("tables", columns),
        ANNOTATED: ("cells and genes, as AnnData writes them", ("--layer", "--label", "--context")),
        " ".join(ARRAYS): ("arrays, the first axis of which is rows", ("--context",)),
        "FOLDER": ("images; subfolders are labels", ("--image-size", "--context")),
    }
    return [
        {"name": name, "what": what, "options": dict.fromkeys(options)}
        for name, (what, options) in kinds.items()
    ]


def _first_sentence(part: type) -> str:
    """What a part is, by its docstring, without formulas."""
    first = (inspect.getdoc(part) or "").split("\n\n")[0].replace("\n", " ")
    words = re.sub(r"(, | )?:math:`.*?`(?=[.,:]|$)", "", first)
    return re.sub(r"``(.*?)``", r"\1", words).rstrip(".:, ")


def _written(value: Any) -> str:
    """A value as a choice of parts has it."""
    return str(value).replace(" ", "")
