"""The command that opens the explorer."""

from __future__ import annotations

__all__ = ["explore"]

from typing import Annotated

import typer

from .options import Quiet, RunFolder, Seed
from .printing import fail


def explore(
    run: RunFolder,
    rows: Annotated[int, typer.Option(help="How many of the first test rows to show.")] = 2000,
    port: Annotated[int, typer.Option(help="Where to serve the page; 0 takes a free port.")] = 0,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Whether to open it in a browser.")
    ] = True,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Open a page to look at single rows and to move through the latents (extra `explore`).

    It is served on this machine, for this machine alone, until Ctrl-C.
    """
    from ..explorer import explore as opened

    try:
        opened(run, max_rows=rows, port=port, browser=browser, seed=seed, progress=not quiet)
    except ModuleNotFoundError as error:
        fail(str(error))
