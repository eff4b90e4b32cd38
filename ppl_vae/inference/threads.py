"""How many threads of the processor take a step: as many as are asked for, or as pay now."""

from __future__ import annotations

__all__ = ["Threads"]

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

import torch

# Steps of a block, of which the slowest does not count: it may have recorded or compared.
_BLOCK = 4
# Blocks of a trial: by the number there is (0) and by another (1), so that drift falls on both.
_ORDER = (0, 1, 1, 0)
# A number is changed only for so much less time a step.
_WINS = 0.9
# A block that takes so many times as long as the other's ends the trial.
_HOPELESS = 2.0
# Trials take this part of the time at most; after each that changes nothing, half of it.
_PART, _LEAST_PART = 1 / 16, 1 / 256
# Steps that take so many times as long as when the number was chosen call for a trial.
_SLOWER = 1.5


class Threads:
    """Sets PyTorch's number of threads while a fit runs, and gives it back.

    Parameters
    ----------
    number
        How many. None leaves PyTorch's number alone. ``"auto"`` compares that number with half and
        double of what is used, by the time that steps take, and looks again: threads wait for each
        other, so that one is faster than two while another program keeps a core busy.
    on_cpu, alone
        Whether steps run on the processor, and wait for no other process. If not, ``"auto"`` leaves
        the number alone.

    Attributes
    ----------
    steps
        How many steps on the processor were taken by each number.

    Raises
    ------
    ValueError
        If ``number`` is neither of these.

    Examples
    --------
    >>> before = torch.get_num_threads()
    >>> with Threads(1) as threads:
    ...     for _ in range(3):
    ...         with threads.timed():
    ...             pass
    >>> dict(threads.steps), torch.get_num_threads() == before
    ({1: 3}, True)
    """

    def __init__(
        self, number: int | str | None = None, *, on_cpu: bool = True, alone: bool = True
    ) -> None:
        whole = isinstance(number, int) and not isinstance(number, bool)
        if number is not None and number != "auto" and not (whole and number >= 1):  # type: ignore[operator]
            raise ValueError(
                f"threads is {number!r}; pass a number of at least 1, 'auto', or None for "
                "PyTorch's own"
            )
        self.steps: Counter[int] = Counter()
        self._most = self._now = torch.get_num_threads()
        if whole:
            self._now = int(number)  # type: ignore[arg-type]
        self._chooses = number == "auto" and on_cpu and alone and self._most > 1
        self._counts = on_cpu
        self._times: list[float] = []  # of the block there is
        self._blocks: list[float] = []  # seconds a step, of blocks of a trial that are done
        self._other: int | None = None  # what is tried, in a trial
        self._down = True  # which neighbor is tried next
        self._known: float | None = None  # seconds a step when the number was chosen
        self._part = _PART
        self._trial_took = self._since = 0.0
        self._before = self._most

    def __enter__(self) -> Threads:
        self._before = torch.get_num_threads()
        torch.set_num_threads(self._now)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        torch.set_num_threads(self._before)

    @contextmanager
    def timed(self, *, counts: bool = True) -> Iterator[None]:
        """Time a step; ``counts`` says whether it is like the others."""
        started = time.perf_counter()
        yield
        self.took(time.perf_counter() - started, counts=counts)

    def took(self, seconds: float, *, counts: bool = True) -> None:
        """Learn what a step took, and choose the number of the next one."""
        if self._counts:
            self.steps[torch.get_num_threads()] += 1
        if not (self._chooses and counts):
            return
        self._times.append(seconds)
        if len(self._times) < _BLOCK:
            return
        spent, mean = sum(self._times), _mean(self._times)
        self._times = []
        if self._other is not None:
            self._trial_took += spent
            self._tried(mean)
            return
        self._since += spent
        slower = self._known is not None and mean > _SLOWER * self._known
        if self._known is None or slower or self._trial_took < self._part * self._since:
            if slower:
                self._part, self._down = _PART, self._now > 1  # others keep cores busy
            self._begin()

    def _begin(self) -> None:
        """Start a trial with a neighbor of the number there is."""
        lower, higher = max(1, self._now // 2), min(2 * self._now, self._most)
        neighbors = [n for n in (lower, higher) if n != self._now]
        self._other = neighbors[0 if self._down else -1]
        self._blocks, self._trial_took = [], 0.0
        self._set(_ORDER[0])

    def _tried(self, mean: float) -> None:
        self._blocks.append(mean)
        here, there = (_of(self._blocks, k) for k in (0, 1))
        hopeless = bool(there) and sum(there) / len(there) > _HOPELESS * sum(here) / len(here)
        if len(self._blocks) < len(_ORDER) and not hopeless:
            self._set(_ORDER[len(self._blocks)])
            return
        assert self._other is not None
        own, others = sum(here) / len(here), sum(there) / len(there)
        if others < _WINS * own:
            self._now, self._known, self._part = self._other, others, _PART
            self._trial_took = 0.0  # what lies beyond is tried next
        else:
            self._down = not self._down
            self._known, self._part = own, max(self._part / 2, _LEAST_PART)
        self._other, self._since = None, 0.0
        torch.set_num_threads(self._now)

    def _set(self, which: int) -> None:
        number = self._other if which else self._now
        assert number is not None
        torch.set_num_threads(number)


def _mean(times: list[float]) -> float:
    """Seconds a step, less the slowest."""
    return (sum(times) - max(times)) / (len(times) - 1)


def _of(blocks: list[float], which: int) -> list[float]:
    """The blocks of a trial that were of one number."""
    return [seconds for seconds, one in zip(blocks, _ORDER, strict=False) if one == which]
