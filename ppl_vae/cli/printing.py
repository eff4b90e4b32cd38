"""What commands print: tables of metrics, and errors in one line."""

from __future__ import annotations

__all__ = [
    "INTERRUPTED",
    "LAST_WORDS",
    "NATS",
    "TERMINATED",
    "Words",
    "course",
    "fail",
    "gone_on_with",
    "last_words",
    "next_steps",
    "one_line",
    "print_metrics",
    "published",
    "quantities",
    "warnings_in_one_line",
    "way_on",
]

import errno
import json
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from rich.console import Console
from rich.table import Table

from ..processes import place
from .options import STORE

if TYPE_CHECKING:
    from ..presets import Preset

# The exit codes by which shells report processes ended by SIGINT and by SIGTERM.
INTERRUPTED, TERMINATED = 130, 143
# What is said wherever nats are shown.
NATS = "Nats are natural logarithms: one more is a factor of 2.7, and 1.44 bits."
# The environment variable that names a folder for what each of several processes says at its end,
# of which whoever started them prints one line.
LAST_WORDS = "PPL_VAE_LAST_WORDS"
_WORDS = ".words"


class Words(NamedTuple):
    """What a process said at its end, by which exit code, and whether it ended of itself."""

    message: str
    code: int
    own: bool = True


def published(preset: Preset) -> str:
    if preset.published is None:
        return "none published"
    if preset.quantity == "elbo":
        return f"ELBO {preset.published}"
    return f"log p(x) {preset.published}, {preset.num_samples} draws"


def course(fit: dict[str, Any]) -> str:
    """How a fit went, in words."""
    by = {int(number): steps for number, steps in fit.get("steps_by_threads", {}).items()}
    most = max(by, key=lambda number: by[number], default=0)
    threads = ""
    if most:
        share = by[most] / sum(by.values())
        threads = f" on {most} thread{'s'[: most > 1]}"
        threads += "" if share == 1 else f" in {share:.0%} of its steps, as these paid best"
    return (
        f"{fit['stop_reason'] if fit['finite'] else 'stopped early'}, in {fit['seconds']:.0f} s "
        f"at {fit['rows_per_second']:,.0f} rows/s{threads}; weights of epoch "
        f"{fit['best_epoch']} kept"
    )


def one_line(error: Exception) -> str:
    details = getattr(error, "errors", None)
    if callable(details):  # pydantic's, one for each field
        return "; ".join(
            (f"{'.'.join(map(str, e['loc']))} is {e['input']!r}: " if e["loc"] else "")
            + e["msg"].removeprefix("Value error, ")
            for e in details()
        )
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        place = f" that holds {error.filename!r}" if error.filename else ""
        return (
            f"there is no space left on the disk{place}; free some and repeat the command, a fit "
            "with --resume"
        )
    return " ".join(str(error).split()) or type(error).__name__


@contextmanager
def warnings_in_one_line() -> Iterator[None]:
    """Print what the package warns of as errors are: without a path, or a line of code."""
    before = warnings.showwarning

    def show(message: Any, category: Any, *place: Any) -> None:
        if issubclass(category, UserWarning | RuntimeWarning):
            _say(f"warning: {' '.join(str(message).split())}")
        else:
            before(message, category, *place)

    warnings.showwarning = show  # type: ignore[assignment]
    try:
        yield
    finally:
        warnings.showwarning = before


def fail(message: str, code: int = 2, *, own: bool = True) -> NoReturn:
    """End with one line on standard error.

    ``own`` says that the cause lay in this process, rather than in another that ended it.
    """
    folder = os.environ.get(LAST_WORDS)
    if folder is None:
        _say(message)
    else:
        own = own and code not in (INTERRUPTED, TERMINATED)
        (Path(folder) / f"{place()[0]}{_WORDS}").write_text(json.dumps([message, code, own]))
    sys.exit(code)


def last_words(folder: Path) -> dict[int, Words]:
    """What processes said into a folder at their end, by rank."""
    return {
        int(path.stem): Words(*json.loads(path.read_text())) for path in folder.glob(f"*{_WORDS}")
    }


def _say(message: str) -> None:
    Console(stderr=True, soft_wrap=True, highlight=False, markup=False).print(f"ppl-vae: {message}")


def way_on(stop: BaseException) -> str:
    """What follows the reason for which a run was ended, where it can be resumed."""
    folder = getattr(stop, "unfinished", None)
    return f"; the fit in {str(folder)!r} goes on with --resume" if folder else ""


@contextmanager
def gone_on_with(out: Path | None) -> Iterator[None]:
    """Say how a store goes on, where it was interrupted."""
    try:
        yield
    except KeyboardInterrupt:  # typer keeps no more of it than the exit code
        if out is not None and out.suffix == STORE:
            fail(f"interrupted; the same command goes on with {str(out)!r}", code=INTERRUPTED)
        raise


def next_steps(*steps: tuple[str, str]) -> None:
    """Print what may be typed next, and what for."""
    width = max(len(typed) for typed, _ in steps)
    console = Console(markup=False, highlight=False)
    for i, (typed, what) in enumerate(steps):
        start = "Next:" if i == 0 else "     "
        console.print(f"{start} {typed:{width}}  # {what}", soft_wrap=True)


def quantities(metrics: dict[str, Any]) -> dict[str, str]:
    return {
        "elbo": "ELBO",
        "log_evidence": f"log p(x), {metrics['num_samples']} draws",
        "independent": "independent entries",
    }


def print_metrics(console: Console, metrics: dict[str, Any]) -> None:
    table = Table(title=f"{metrics['rows']} test rows", title_justify="left")
    table.add_column("")
    digits = {"nats_per_row": 2, "standard_error": 2, "bits_per_dimension": 3}
    if metrics.get("measure") == "density":  # a density: its bits depend on the units of x
        del digits["bits_per_dimension"]
    for column in digits:
        table.add_column(column.replace("_", " "), justify="right")
    for key, name in quantities(metrics).items():
        row = metrics[key]
        table.add_row(
            name,
            *("" if row[key] is None else f"{row[key]:.{n}f}" for key, n in digits.items()),
        )
    console.print(table)
    unsure = metrics["rows_with_pareto_k_above_0.7"]
    density = "density, which depends on the units of the data"
    meant = density if "bits_per_dimension" not in digits else "probability"
    console.print(
        f"log p(x) is the logarithm of a row's {meant}: more is better. The ELBO is a lower bound "
        "on it; independent entries, each modeled by itself, are what to beat. "
        + NATS
        + ("" if meant is density else " Bits per dimension are of one entry: less is better.")
        + "\nStandard errors are over rows; that of importance sampling is "
        f"{metrics['monte_carlo_error']:.3f}.\nPareto k-hat is above 0.7 on {unsure} rows"
        + (": what is said of these is a lower bound." if unsure else "."),
        highlight=False,
        soft_wrap=not console.is_terminal,
    )
