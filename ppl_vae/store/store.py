"""A store on disk: where it is, who writes which part of it, and how it is read."""

from __future__ import annotations

__all__ = ["MARK", "Store"]

import importlib.util
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..processes import place
from .manifest import beside, finished, rows_in

if TYPE_CHECKING:
    import xarray as xr

# The attribute of a store by which it is known as ours.
MARK = "ppl_vae"


@dataclass(frozen=True)
class Store:
    """A zarr store for results by row, and which of the processes that write it this one is.

    Each process computes every ``world``-th region of rows, from ``rank`` on. What a region holds
    depends on the rows in it and on nothing else: killed and gone on with, by any number of
    processes, the store is the same bit for bit as if one process had written it without a stop,
    on machines of a kind and with as many threads. (Which of the finished regions there are is in
    a folder beside the store until all are.)

    Parameters
    ----------
    path
        The folder of the store. It need not exist; one that was not finished is gone on with.
    rank, world
        By default those of torch.distributed, of ``torchrun`` or ``srun``, or 0 and 1.

    Raises
    ------
    ValueError
        If ``rank`` is not in 0, ..., ``world`` - 1, or the folder would be in none.

    Examples
    --------
    >>> Store("z.zarr", rank=1, world=4)
    Store(path=PosixPath('z.zarr'), rank=1, world=4)
    """

    path: Path
    rank: int
    world: int

    def __init__(
        self, path: str | os.PathLike[str], *, rank: int | None = None, world: int | None = None
    ) -> None:
        here, all_of_them = place()
        rank, world = here if rank is None else rank, all_of_them if world is None else world
        if not 0 <= rank < world:
            raise ValueError(
                f"rank is {rank} of {world} processes; pass a number from 0 to {world - 1}"
            )
        object.__setattr__(self, "path", Path(path))
        object.__setattr__(self, "rank", rank)
        object.__setattr__(self, "world", world)

    @classmethod
    def of(cls, store: str | os.PathLike[str] | Store) -> Store:
        """``store`` itself, or the store at a path."""
        return store if isinstance(store, Store) else cls(store)

    @property
    def complete(self) -> bool:
        """Whether all rows are there."""
        return bool(self.description().get("complete"))

    def description(self) -> dict[str, Any]:
        """What the store says of itself; empty where it is none of ours.

        Of a store that is there: ``settings``, ``num_rows``, ``region_rows`` and ``complete``.
        """
        try:
            attributes = json.loads((self.path / "zarr.json").read_text())["attributes"]
            found = json.loads(attributes[MARK])
        except (OSError, ValueError, KeyError, TypeError):
            return {}
        return found if isinstance(found, dict) else {}

    def remove(self) -> None:
        """Remove the store, if it is one of ours.

        Raises
        ------
        FileExistsError
            If something else is there.
        """
        if os.path.lexists(self.path):
            if not self.description():
                raise FileExistsError(
                    f"store is {str(self.path)!r}, which exists and is no store of ppl_vae, so "
                    "that it is not replaced; choose another path"
                )
            shutil.rmtree(self.path)
        shutil.rmtree(beside(self.path), ignore_errors=True)

    def open(self) -> xr.Dataset:
        """What is in the store, to be read as it is needed: by dask's arrays if dask is there.

        Rows that are not there yet are NaN, or zero, and counted in the attribute
        ``missing_rows``.
        """
        import xarray as xr

        return self._shown(xr.open_zarr(self.path, consolidated=False, chunks=_chunks()))

    def open_tree(self) -> xr.DataTree:
        """As :meth:`open`, of a store with groups."""
        import xarray as xr

        return self._shown(
            xr.open_datatree(self.path, engine="zarr", consolidated=False, chunks=_chunks())
        )

    def _shown(self, found: Any) -> Any:
        description = self.description()
        found.attrs.pop(MARK, None)
        if not description.get("complete"):
            there = rows_in(finished(self.path), description)
            found.attrs["missing_rows"] = description["num_rows"] - there
        return found


def _chunks() -> dict[str, int] | None:
    """What xarray is asked for: arrays of dask's, if it is there, else its own lazy ones."""
    return {} if importlib.util.find_spec("dask") else None
