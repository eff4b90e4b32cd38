"""Rows a chunk at a time: how many, from which seed, and into which store results go."""

from __future__ import annotations

__all__ = ["asked", "chunk_seed", "parts", "region_rows", "sink_for", "through"]

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ...amortized import AmortizedModel
from ...files import checksum
from ...progress import Progress
from ...rows import Batch, Rows
from ...sink import Sink

if TYPE_CHECKING:
    from ...store import Contents, Store, StoreSink

# Rows that are written to a store together, and numbers of theirs, at most.
_ROWS = 1024
_NUMBERS = 2**23


def chunk_seed(seed: int, start: int) -> int:
    """The seed of the chunk of rows that begins at ``start``; of the first, ``seed`` itself.

    Draws then depend on where a row is, and on nothing that was computed before it.

    Examples
    --------
    >>> chunk_seed(3, 0), chunk_seed(3, 1024) == chunk_seed(3, 1024), chunk_seed(3, 1024) < 2**63
    (3, True, True)
    """
    if start == 0:
        return seed
    state = np.random.SeedSequence([seed, start, 16]).generate_state(1, np.uint64)
    return int(state[0] >> 1)


def through(
    data: Rows, size: int, like: torch.Tensor, sink: Sink, *, seed: int, bar: Progress
) -> Iterator[tuple[slice, Batch]]:
    """All rows that a sink still asks for, ``size`` at a time, each chunk with its own seed."""
    bar.resume(len(data) - sum(r.stop - r.start for r in sink.regions()))
    wanted = [rows for region in sink.regions() for rows in parts(region, size)]
    # Where bits are drawn afresh a chunk is made after its seed is set.
    batches = data.stream(wanted, like)
    for rows in asked(sink, size, seed):
        yield rows, next(batches)


def asked(sink: Sink, size: int, seed: int) -> Iterator[slice]:
    """Where the rows are that a sink still asks for, ``size`` at a time.

    Where each chunk lies does not depend on which are asked for, and neither does its seed, to
    which torch's global random state is set: call it inside of
    :func:`~ppl_vae.workflow.draws.posterior.evaluating`.
    """
    for region in sink.regions():
        for rows in parts(region, size):
            torch.manual_seed(chunk_seed(seed, rows.start))
            yield rows
        sink.finish(region)


def parts(region: slice, size: int) -> Iterator[slice]:
    """A region in parts of ``size``, of which the last may be shorter.

    Examples
    --------
    >>> list(parts(slice(10, 15), 3))
    [slice(10, 13, None), slice(13, 15, None)]
    """
    for start in range(region.start, region.stop, size):
        yield slice(start, min(start + size, region.stop))


def region_rows(size: int, numbers: int, rows: int = _ROWS) -> int:
    """How many rows are written to a store together: whole chunks of ``size``, about ``rows``.

    Fewer where there are many ``numbers`` of each row.

    Examples
    --------
    >>> region_rows(100, 4), region_rows(100, 40_000)
    (1100, 200)
    """
    return size * max(1, min(-(-rows // size), _NUMBERS // (size * numbers)))


def sink_for(
    store: str | os.PathLike[str] | Store,
    vae: AmortizedModel,
    data: Rows | None,
    contents: Contents,
    *,
    num_rows: int | None = None,
    size: int,
    numbers: int,
    rows: int = _ROWS,
    **settings: Any,
) -> StoreSink:
    """A sink that writes what is found of ``data`` into a store, or goes on with it.

    Parameters
    ----------
    store
        A path, or a :class:`~ppl_vae.Store`.
    vae, data
        A model and rows, of which fingerprints are kept; None where no rows are given.
    contents
        What the store will hold.
    num_rows
        How many rows there will be, if not those of ``data``.
    size
        Rows of a chunk.
    numbers
        How many numbers there will be of each row.
    rows
        Rows of a region, about, if there are not too many numbers.
    settings
        What else decides the results.

    Raises
    ------
    ModuleNotFoundError
        Without zarr.
    FileExistsError, ValueError
        As :class:`~ppl_vae.store.StoreSink`.
    """
    from ... import __version__
    from ...store import Store, StoreSink

    weights = {key: value.detach().cpu().contiguous() for key, value in vae.state_dict().items()}
    config = getattr(vae, "config", None)
    described = config.model_dump_json() if config else repr(vae)
    return StoreSink(
        Store.of(store),
        len(data or ()) if num_rows is None else num_rows,
        region_rows(size, numbers, rows),
        contents,
        {
            **settings,
            "chunk_rows": size,
            "x": data and data.fingerprint(),
            "vae": checksum(weights, {"config": described}),
            "ppl_vae": __version__,
        },
    )
