"""The command line, `ppl-vae ...`; what is heavy is imported by the command that needs it."""

from __future__ import annotations

__all__ = ["app", "main"]

import os
import signal
import sys
import threading
from typing import Annotated, Any

import typer

from ..processes import LostError
from . import checking, diagnosing, exploring, fitting, imputing, watching
from .printing import INTERRUPTED, TERMINATED, fail, one_line, warnings_in_one_line, way_on

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Variational autoencoders as Pyro programs, fitted and checked row by row.",
)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        from .. import __version__

        typer.echo(f"ppl-vae {__version__}")
        raise typer.Exit


for command in (
    *(fitting.fit, fitting.reproduce, checking.evaluate, checking.sample, checking.encode),
    *(diagnosing.diagnose, checking.pictures, checking.report, imputing.impute, watching.watch),
    exploring.explore,
):
    app.command()(command)


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
    except BrokenPipeError:  # whoever reads what is printed has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except RecursionError:
        fail("a file is nested too deeply to be read")
    except LostError as error:
        fail(f"{one_line(error)}{way_on(error)}", code=1, own=False)
    except (ValueError, TypeError, OSError) as error:
        fail(one_line(error))
    except Exception as error:
        # typer carries its own click or uses the installed one: its errors have this in common.
        if hasattr(error, "format_message"):
            fail(error.format_message())
        if not (isinstance(error, MemoryError) or "allocate" in str(error)):
            raise
        fail("there is not enough memory; ask for less, with --hidden, --draws or --batch-size")
    if code == INTERRUPTED:
        fail("interrupted", code=INTERRUPTED)
    sys.exit(code)
