"""A diagnosis in a zarr store, which goes on where it was stopped."""

from __future__ import annotations

__all__ = ["kept"]

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from ...amortized import AmortizedModel
from ...rows import Rows
from ..draws.chunked import sink_for
from .findings import Diagnosis
from .stages import CompleteError, Stages, StoredStages

if TYPE_CHECKING:
    from ...store import Contents, Store, StoreSink

# Rows of a chunk of the store.
_ROWS = 2**14
_SMALL = ("latents", "calibration", "gaps", "prior_gap")


def kept(
    find: Callable[[Stages], Diagnosis],
    store: str | os.PathLike[str] | Store,
    vae: AmortizedModel,
    data: Rows,
    training: Rows | None,
    settings: Mapping[str, Any],
) -> Diagnosis:
    """What ``find`` returns, from a store, into which the first process to have it all writes it.

    Parameters
    ----------
    find
        Makes a diagnosis by steps.
    store
        As in :func:`~ppl_vae.diagnose`.
    vae, data, training, settings
        What decides it: who goes on must agree.

    Raises
    ------
    FileExistsError, ValueError
        As :class:`~ppl_vae.store.StoreSink`.
    """
    from ...store import Contents, Store

    place = Store.of(store)
    known = {
        **settings,
        "what": "diagnose",
        "training": None if training is None else training.fingerprint(),
    }

    def sink(contents: Contents) -> StoreSink:
        return sink_for(
            Store(place.path, rank=0, world=1),
            vae,
            data,
            contents,
            size=min(_ROWS, len(data)),
            numbers=1,
            **known,
        )

    if not place.complete:
        # Who goes on with other settings is refused before anything is computed.
        sink(Contents({}))
        with suppress(CompleteError), StoredStages(place) as stages:
            _write(find(stages), sink)
    else:
        sink(Contents({})).close()
    return _read(place)


def _write(found: Diagnosis, sink: Callable[[Contents], StoreSink]) -> None:
    """Put everything into the store, and complete it."""
    from ...store import Contents, Variable

    rows = found.rows
    variables = {
        str(name): Variable(f"rows/{name}", ("row",), values.attrs)
        for name, values in rows.data_vars.items()
    }
    contents = Contents(variables, attrs={"": {"summary": found.summary()}, "rows": rows.attrs})
    to = sink(contents)
    for name in _SMALL:
        to.put(name, getattr(found, name))
    for region in to.regions():
        for name in variables:
            to.write(name, region, np.asarray(rows[name].values[region]))
        to.finish(region)
    to.close()


def _read(store: Store) -> Diagnosis:
    """The diagnosis that a complete store holds."""
    tree = store.open_tree()
    small = {name: tree[name].to_dataset().load() for name in _SMALL}
    return Diagnosis(rows=tree["rows"].to_dataset(), **small)
