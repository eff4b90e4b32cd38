"""How a long computation is going: its loss, rows per second and the time left."""

from __future__ import annotations

__all__ = ["Progress"]

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Task, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.text import Text


class Progress:
    """A bar on standard error that counts rows, and appears after two seconds on a terminal.

    Parameters
    ----------
    total
        How many rows there are to go through.
    label
        What is being done.
    show
        False draws nothing.

    Examples
    --------
    >>> with Progress(100, "fit", show=False) as bar:
    ...     bar.advance(100, note="loss 90.1")
    """

    def __init__(self, total: int, label: str = "fit", *, show: bool = True) -> None:
        console = Console(stderr=True)
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            _SpeedColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[note]}"),
            console=console,
            transient=True,
            disable=not show or not (console.is_interactive or console.is_jupyter),
        )
        self._task = self._bars.add_task(label, total=total, note="")

    def __enter__(self) -> Progress:
        self._entered = time.perf_counter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bars.live.is_started:
            self._bars.stop()

    def advance(self, rows: int, note: str = "") -> None:
        """Count ``rows`` more as done, and show ``note`` beside the bar."""
        self._bars.update(self._task, advance=rows, note=note)
        if not self._bars.live.is_started and time.perf_counter() - self._entered > 2:
            self._bars.start()

    def resume(self, rows: int) -> None:
        """Count ``rows`` as done before the start."""
        self._bars.reset(self._task, completed=rows)


class _SpeedColumn(TextColumn):
    def __init__(self) -> None:
        super().__init__("")

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f} rows/s" if task.speed else "")
