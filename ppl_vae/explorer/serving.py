"""The explorer's server: one page, for this machine alone."""

from __future__ import annotations

__all__ = ["explore", "free_port"]

import socket
from pathlib import Path

from ..run import Run
from ..run.alts import stored
from .explored import Explored

# Nobody else's machine can ask for the page.
_HERE = "127.0.0.1"


def explore(
    folder: Path,
    *,
    max_rows: int = 2000,
    port: int = 0,
    browser: bool = True,
    seed: int = 0,
    progress: bool = True,
) -> None:
    """Serve a page on which to look at a run's test rows, until it is interrupted.

    Only this machine can open it, and it loads nothing from elsewhere.

    Parameters
    ----------
    folder
        A run folder, as ``ppl-vae fit`` writes it; verdicts are those of ``ppl-vae diagnose``
        where it was run before.
    max_rows
        How many of the first test rows to show.
    port
        Where to serve it; 0 takes one that is free.
    browser
        Open it in a browser.
    seed
        Decides all draws.
    progress
        Show how it goes on standard error.

    Raises
    ------
    ModuleNotFoundError
        If Panel is not installed.
    ValueError, OSError
        If the run cannot be read, its data are others now, or the port is taken.
    """
    if max_rows < 2:
        raise ValueError(f"max_rows is {max_rows}; pass at least 2, such as --rows 2000")
    try:
        import panel
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the explorer needs Panel, which is not installed; "
            "run: python -m pip install 'ppl_vae[explore]'"
        ) from error
    from .page import page_of

    run = Run(folder)
    test = run.splits()[1]
    seen = Explored(
        run.vae(),
        test,
        run.rows(test),
        judged=stored(folder / "diagnosis.nc", "rows"),
        max_rows=max_rows,
        seed=seed,
        progress=progress,
    )
    port = free_port(port)
    title = f"{test.name}: rows and latents"
    panel.extension()
    panel.serve(
        {"/": lambda: page_of(seen, title)},
        address=_HERE,
        port=port,
        websocket_origin=[f"{_HERE}:{port}", f"localhost:{port}"],
        show=browser,
        title=title,
        verbose=progress,
    )


def free_port(port: int = 0) -> int:
    """A port of this machine on which nothing is served: the one that is given, or any.

    Raises
    ------
    OSError
        If it is taken.
    """
    with socket.socket() as here:
        here.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            here.bind((_HERE, port))
        except (OSError, OverflowError) as error:
            raise OSError(
                f"--port is {port}, which cannot be served on ({error}); choose another, or leave "
                "it out"
            ) from error
        return int(here.getsockname()[1])
