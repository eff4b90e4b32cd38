"""Steps over rows, each of which needs all of the one before: in memory, or kept beside a store."""

from __future__ import annotations

__all__ = ["CompleteError", "Stages", "StoredStages"]

import shutil
from collections.abc import Callable, Mapping
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from ...sink import MemorySink, Sink

if TYPE_CHECKING:
    from types import TracebackType

    from ...store import Store, Variable

# Dimensions beside the row, of what has some.
_DIMS = {"mean": ("latent",), "covariance": ("latent", "other_latent")}


class CompleteError(Exception):
    """Another process has written the rest of a store meanwhile."""


class Stages:
    """Steps over rows, one after the other, in memory.

    Examples
    --------
    >>> def twice(sink):
    ...     for rows in sink.regions():
    ...         sink.write("twice", rows, 2 * np.arange(rows.start, rows.stop))
    >>> with Stages() as stages:
    ...     found = stages.run("twice", 3, 3, twice)
    >>> found["twice"].tolist()
    [0, 2, 4]
    """

    def __enter__(self) -> Stages:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give up what is held."""

    def run(
        self, name: str, num_rows: int, region_rows: int, compute: Callable[[Sink], Any]
    ) -> dict[str, Any]:
        """What ``compute`` writes to a sink, by name, of all rows.

        Parameters
        ----------
        name
            Of the step, different from all others.
        num_rows, region_rows
            How many rows there are, and how many are kept together.
        compute
            Computes the regions that a sink asks for. What it finds of a row must depend on the
            rows of its chunk alone.
        """
        sink = MemorySink(num_rows)
        compute(sink)
        return sink.arrays()

    def alone(self) -> None:
        """Let no other process compute what follows."""


class StoredStages(Stages):
    """Steps whose results are kept in stores beside another one until that is complete.

    Several processes share the regions of each step. Whoever is done with its own computes what
    others have not finished, so that none waits for one that is not there, and what is known when
    a process is killed is not computed again.

    Parameters
    ----------
    store
        The store that all is for.

    Raises
    ------
    CompleteError
        From :meth:`alone` and when it is entered, if the store is complete.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock: IO[str] | None = None

    def __enter__(self) -> StoredStages:
        self._take(shared=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._release()

    def alone(self) -> None:
        """Wait for those who are still at a step, and for each other."""
        self._take(shared=False)

    def run(
        self, name: str, num_rows: int, region_rows: int, compute: Callable[[Sink], Any]
    ) -> dict[str, Any]:
        import zarr

        from ...store import Contents, Store, StoreSink
        from ...store.manifest import beside, finished

        path = beside(self._store.path) / f"{name}.zarr"
        contents = Contents(_Variables())

        def share(rank: int, world: int) -> None:
            store = Store(path, rank=rank, world=world)
            sink = StoreSink(store, num_rows, region_rows, contents, {"step": name})
            try:
                if any(True for _ in sink.regions()):
                    compute(sink)
            except OSError:  # whoever completed the step has removed what it was written beside
                if not store.complete:
                    raise
            sink.close()

        share(self._store.rank, self._store.world)
        count = -(-num_rows // min(region_rows, num_rows))
        while not Store(path).complete:
            left = sorted(set(range(count)) - finished(path))
            # From the other end than those whose regions they are.
            index = left[-1 - self._store.rank % len(left)] if left else 0
            share(index, count)
        root = zarr.open_group(path, mode="r")
        found: dict[str, Any] = {}
        for key, array in root.arrays():
            if array.ndim > 1:
                found[key] = array  # read when it is needed
            elif key != "row":
                found[key] = np.asarray(array[...])
        return found

    def _take(self, *, shared: bool) -> None:
        from ...store.manifest import beside, locked

        self._release()
        while self._lock is None:
            self._lock = locked(beside(self._store.path), "steps", shared=shared)
        if self._store.complete:
            shutil.rmtree(beside(self._store.path), ignore_errors=True)
            self._release()
            raise CompleteError

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None


class _Variables(Mapping[str, "Variable"]):
    """Any name that a step writes, by row."""

    def __getitem__(self, name: str) -> Variable:
        from ...store import Variable

        return Variable(name, ("row", *_DIMS.get(name, ())))

    def __iter__(self) -> Any:
        return iter(())

    def __len__(self) -> int:
        return 0
