"""The command line, `ppl-vae ...`; what is heavy is imported by the command that needs it."""

from __future__ import annotations

__all__ = ["app", "main"]

import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from ..processes import LostError
from . import (
    checking,
    comparing,
    diagnosing,
    exploring,
    fitting,
    imputing,
    listing,
    reproducing,
    using,
    watching,
)
from .examples import epilog
from .mistakes import in_options, options_of, said
from .printing import INTERRUPTED, TERMINATED, fail, one_line, warnings_in_one_line, way_on

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Fit variational autoencoders, and say row by row whether their posteriors can be "
    "believed.",
    epilog="Start with ppl-vae fit, and then ppl-vae diagnose runs/digits. COMMAND --help has "
    "examples.\n\nExit codes: 0, done; 1, no fit, a process lost, or a run that lacks something; "
    "2, bad input, said in one line; 130 and 143, interrupted and terminated, after which --resume "
    "goes on.",
)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        from .. import __version__

        typer.echo(f"ppl-vae {__version__}")
        raise typer.Exit


# Groups that help shows commands in, and the commands by name.
_COMMANDS: Mapping[str, Mapping[str, Callable[..., None]]] = {
    "Fit": {"fit": fitting.fit, "reproduce": reproducing.reproduce},
    "Is it right?": {
        "diagnose": diagnosing.diagnose,
        "evaluate": checking.evaluate,
        "report": checking.report,
        "pictures": checking.pictures,
        "compare": comparing.compare,
        "explore": exploring.explore,
    },
    "Use it": {
        "encode": using.encode,
        "impute": imputing.impute,
        "sample": using.sample,
        "watch": watching.watch,
    },
    "Look up": {"list": listing.list_choices},
}
for panel, commands in _COMMANDS.items():
    for name, command in commands.items():
        app.command(name, rich_help_panel=panel, epilog=epilog(name))(command)


# How often a thread that waits for others looks before it sleeps. OpenMP's own number, 300,000,
# holds a core for a millisecond, which is another program's on a busy machine
# (`python benchmarks/busy.py`).
_SPINS = "1000"


def wait_passively() -> None:
    """Have OpenMP's threads sleep while they wait, unless the environment says how they wait.

    It is read when PyTorch is imported, and not again.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = _SPINS


class _Terminated(BaseException):
    pass


def main() -> None:
    """Run the command line.

    The exit code is 0 for success, 1 for a fit that is none or of which a process was lost, or a
    run that lacks something, 2 for bad input, 130 and 143 for being interrupted and terminated.
    """

    def terminate(*_: Any) -> None:
        raise _Terminated

    wait_passively()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, terminate)
    try:
        with warnings_in_one_line():
            code = app(standalone_mode=False) or 0
    except (typer.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except _Terminated as stop:
        fail(f"terminated{way_on(stop)}", code=TERMINATED)
    except LostError as error:
        fail(f"{one_line(error)}{way_on(error)}", code=1, own=False)
    except BrokenPipeError:  # whoever reads what is printed has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except RecursionError:
        fail("a file is nested too deeply to be read")
    except (ValueError, TypeError, OSError) as error:
        fail(in_options(one_line(error), _options()))
    except Exception as error:
        # typer carries its own click or uses the installed one: its errors have this in common.
        if hasattr(error, "format_message"):
            fail(said(error, _commands().items()))
        if not (isinstance(error, MemoryError) or "allocate" in str(error)):
            raise
        fail("there is not enough memory; ask for less, with --hidden, --draws or --batch-size")
    if code == INTERRUPTED:
        fail("interrupted", code=INTERRUPTED)
    sys.exit(code)


def _commands() -> dict[str, Any]:
    return typer.main.get_command(app).commands  # type: ignore[attr-defined]


def _options() -> list[str]:
    """The options of all commands."""
    found = [name for command in _commands().values() for name in options_of(command)]
    return list(dict.fromkeys(found))
