"""Results by row on their way into a store, a region of rows after the other."""

from __future__ import annotations

__all__ = ["StoreSink"]

import json
import os
import reprlib
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from .contents import Contents, make_array, make_group, make_whole, writable
from .manifest import beside, finished, locked, rows_in
from .store import MARK, Store

if TYPE_CHECKING:
    import xarray as xr
    import zarr


class StoreSink:
    """Writes results into a :class:`Store`, a region of rows at a time.

    Parameters
    ----------
    store
        Where to, and which regions.
    num_rows, region_rows
        How many rows there are, and how many of them are written together, as one chunk of each
        array.
    contents
        What will be in it.
    settings
        What decides the numbers, as JSON has it: who goes on must agree.

    Raises
    ------
    FileExistsError
        If something else is at the path.
    ValueError
        If a store of other settings is there.
    OSError
        If the store cannot be written.
    """

    def __init__(
        self,
        store: Store,
        num_rows: int,
        region_rows: int,
        contents: Contents,
        settings: Mapping[str, Any],
    ) -> None:
        self.store = store
        self._num_rows = num_rows
        self._region_rows = min(region_rows, num_rows)
        self._contents = contents
        self._held: dict[str, list[np.ndarray]] = {}
        self._arrays: dict[str, zarr.Array[Any]] = {}
        self._log: Path | None = None
        described = {"num_rows": num_rows, "region_rows": self._region_rows, "settings": settings}
        self._described = json.loads(json.dumps(described))
        with self._turn():
            self._begin()
            self._done = range(self._count) if store.complete else finished(store.path)

    @property
    def _count(self) -> int:
        return -(-self._num_rows // self._region_rows)

    def _begin(self) -> None:
        """Make the store, or see that it is the one to go on with."""
        path, there = self.store.path, self.store.description()
        if not there:
            if os.path.lexists(path) and not (path.is_dir() and not any(path.iterdir())):
                raise FileExistsError(
                    f"store is {str(path)!r}, which exists and is no store of ppl_vae; choose "
                    "another path"
                )
            self._describe(complete=False)
            return
        there.pop("complete", None)
        if there != self._described:
            before, now = there.get("settings", {}), self._described["settings"]
            differ = [
                f"{key} was {reprlib.repr(before.get(key))}, is {reprlib.repr(now.get(key))}"
                for key in {**before, **now}
                if before.get(key) != now.get(key)
            ] or [f"{there.get('num_rows')} rows were to be in it, are {self._num_rows}"]
            raise ValueError(
                f"the store in {str(path)!r} is of other results: {'; '.join(differ)}; go on with "
                "the same, or choose another path"
            )

    def _describe(self, *, complete: bool) -> None:
        import zarr

        mark = json.dumps({**self._described, "complete": complete}, sort_keys=True)
        root = zarr.open_group(self.store.path, mode="a")
        root.update_attributes({**self._contents.attrs.get("", {}), MARK: mark})

    def regions(self) -> Iterator[slice]:
        """The regions that are this process's to compute, less those that are there."""
        for index in range(self.store.rank, self._count, self.store.world):
            if index not in self._done:
                start = index * self._region_rows
                yield slice(start, min(start + self._region_rows, self._num_rows))

    @property
    def rows_done(self) -> int:
        """How many of this process's rows were there at the start."""
        mine = range(self.store.rank, self._count, self.store.world)
        return rows_in([index for index in mine if index in self._done], self._described)

    @property
    def rows_mine(self) -> int:
        """How many rows are this process's, with those that were there."""
        mine = range(self.store.rank, self._count, self.store.world)
        return rows_in(mine, self._described)

    def write(self, name: str, rows: slice, values: Tensor | np.ndarray) -> None:
        """Hold ``values`` (row, ...), the next rows of a region, until it is finished."""
        values = values.cpu().numpy() if isinstance(values, Tensor) else values
        self._held.setdefault(name, []).append(np.ascontiguousarray(writable(values)))

    def put(self, group: str, dataset: xr.Dataset) -> None:
        """Write all of a Dataset that is not large, as a group of its own."""
        import zarr

        with self._turn(), zarr.config.set({"array.write_empty_chunks": True}):
            make_group(zarr.open_group(self.store.path, mode="r+"), group, dataset)

    def finish(self, region: slice) -> None:
        """Put a region on disk, and then on the list of those that are there."""
        import zarr

        index = region.start // self._region_rows
        held = {name: np.concatenate(parts) for name, parts in self._held.items()}
        self._held = {}
        if not self._arrays:
            # Chunks of zeros are written too, so that what is not there is not finished.
            with self._turn(), zarr.config.set({"array.write_empty_chunks": True}):
                self._make(held)
        sizes = {}
        for name, values in held.items():
            variable = self._contents.variables[name]
            where = tuple(region if dim == "row" else slice(None) for dim in variable.dims)
            self._arrays[name][where] = variable.laid_out(values)
            places = (str(index) if dim == "row" else "0" for dim in variable.dims)
            file = "/".join((variable.path, "c", *places))
            sizes[file] = _sync(self.store.path / file)
        self._list(index, sizes)

    def _make(self, held: Mapping[str, np.ndarray]) -> None:
        """Make all arrays, those beside the rows too, or find those that another process made."""
        import zarr

        root, contents = zarr.open_group(self.store.path, mode="r+"), self._contents
        sizes: dict[str, int] = {"chain": 1}
        dims: dict[str, set[str]] = {}  # of each group
        for name, values in held.items():
            variable = contents.variables[name]
            shape = variable.laid_out(values).shape
            sizes |= dict(zip(variable.dims, shape, strict=True)) | {"row": self._num_rows}
            self._arrays[name] = make_array(
                root,
                variable.path,
                variable.dims,
                tuple(sizes[dim] for dim in variable.dims),
                tuple((sizes | {"row": self._region_rows})[dim] for dim in variable.dims),
                values.dtype,
                contents,
                variable.attrs,
            )
            dims.setdefault(variable.path.rpartition("/")[0], set()).update(variable.dims)
        for path, (own, values) in contents.beside.items():
            make_whole(root, path, own, values, contents)
            sizes |= dict(zip(own, values.shape, strict=True))
            dims.setdefault(path.rpartition("/")[0], set()).update(own)
        for group, of_group in dims.items():
            for dim in sorted(of_group):
                values = contents.coords.get(dim, np.arange(sizes[dim]))
                make_whole(root, f"{group}/{dim}" if group else dim, (dim,), values, contents)

    def _list(self, index: int, sizes: Mapping[str, int]) -> None:
        if self._log is None:
            name = f"finished-{socket.gethostname()}-{os.getpid()}-{os.urandom(4).hex()}"
            self._log = beside(self.store.path) / name
        line = json.dumps({"region": index, "bytes": sizes}) + "\n"
        with self._log.open("a") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    def close(self) -> Store:
        """Say that the store is complete, if it is, and give it back."""
        with self._turn():
            done = range(self._count) if self.store.complete else finished(self.store.path)
            if len(done) == self._count:
                if not self.store.complete:
                    for left in self.store.path.rglob("*.partial"):  # of writers that were killed
                        left.unlink(missing_ok=True)
                    self._describe(complete=True)
                shutil.rmtree(beside(self.store.path), ignore_errors=True)
        return self.store

    def arrays(self) -> dict[str, Any]:
        """The arrays of the store, by the names under which they were written."""
        return dict(self._arrays)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Let processes in one after the other, where what they write is not theirs alone."""
        while (lock := locked(beside(self.store.path))) is None:
            pass  # whoever finished the store has removed the folder meanwhile
        with lock:
            yield


def _sync(path: Path) -> int:
    """Have a file on disk, and say how long it is."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        return os.fstat(file.fileno()).st_size
