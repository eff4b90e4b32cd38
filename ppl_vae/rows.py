"""Rows of data: what is accepted, and how any number of them becomes batches of tensors."""

from __future__ import annotations

__all__ = ["Batch", "Rows", "binarize", "check_rows", "rows_within_budget", "to_float"]

import copy
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .ahead import ahead
from .budget import rows_within_budget
from .data.table import Table, by_table, table_of
from .intensities import binarize, to_float
from .sources import (
    ArrayLike,
    PackedBits,
    as_tensor,
    check_rows,
    checked_weights,
    covariates_beside,
    read,
    rows_together,
    source_of,
)

if TYPE_CHECKING:
    from .amortized import AmortizedModel

# Rows of data on disk that a fingerprint reads.
_FINGERPRINTED = 10_000
# Rows that are looked at together where all have to be looked at.
_CHECKED = 4096

Indices = slice | Tensor | np.ndarray | Sequence[int]


class Batch(NamedTuple):
    """Some rows as a model reads them: ``x``, and ``covariates`` of shape ``(row, covariate)``."""

    x: Tensor
    covariates: Tensor | None

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """The arguments of ``model`` and ``guide``: without covariates where there are none."""
        return (self.x,) if self.covariates is None else (self.x, self.covariates)


class Rows:
    """Rows of data, with what they are conditional on, wherever they lie.

    A tensor or NumPy array is kept as it is, so that bytes stay a quarter of the memory of numbers;
    a memory map, a zarr array, or anything else with a shape, a dtype and slicing is read when rows
    are taken. Rows become floating point, of a model's dtype and on its device, and bits, as they
    are taken: nothing else needs to know of these.

    Parameters
    ----------
    x
        Shape ``(row, *event)``; or other ``Rows``, which share their data.
    covariates
        Shape ``(row, covariate)``, for a conditional model.
    weights
        What each row counts in a fit, shape ``(row,)``: at least 0. They are divided by their mean.
    binarize
        ``"none"``; ``"static"``, bits drawn once, here, from ``seed``; ``"dynamic"``, bits drawn
        afresh from torch's global random state whenever rows are taken; ``"threshold"``. See
        :func:`binarize`.
    seed
        The seed of ``"static"`` bits.
    table
        The columns of the rows of a fit, ``vae.table``, by whose names, order and levels a
        DataFrame or a Dataset is read; by default by its own, which ``rows.table`` says.

    Raises
    ------
    TypeError
        If ``x`` is no array.
    ValueError
        If ``binarize`` is unknown, ``covariates`` come with ``Rows`` that have some, or
        ``weights`` are not one number of at least 0 for each row.

    Examples
    --------
    >>> rows = Rows(torch.tensor([[0, 255], [255, 0], [255, 255]], dtype=torch.uint8))
    >>> [(chunk, batch.x.tolist()) for chunk, batch in rows.chunks(2, like=torch.zeros(()))]
    [(slice(0, 2, None), [[0.0, 1.0], [1.0, 0.0]]), (slice(2, 3, None), [[1.0, 1.0]])]
    >>> rows.take([2, 0], like=torch.zeros((), dtype=torch.float64)).x.dtype
    torch.float64
    >>> len(rows.shard(1, 2))
    2
    """

    def __init__(
        self,
        x: Tensor | ArrayLike | Rows,
        covariates: Tensor | ArrayLike | None = None,
        *,
        weights: Tensor | ArrayLike | None = None,
        binarize: str = "none",
        seed: int = 0,
        table: Table | None = None,
    ) -> None:
        _check_method(binarize)
        self._binarize = "none"
        self._covariates: Tensor | None = None
        self._weights: Tensor | None = None
        self.table: Table | None
        self._source: Tensor | ArrayLike
        self._index: range | Tensor  # which rows of the source these are
        if isinstance(x, Rows):
            self._source, self._index = x._source, x._index
            self._binarize, self._covariates = x._binarize, x._covariates
            self._weights, self.table = x._weights, x.table
        else:
            x = by_table(x, table)
            self.table = table_of(x)
            self._source = source_of(x)
            self._index = range(self._source.shape[0] if self._source.shape else 0)
            if covariates is None:
                covariates = covariates_beside(x)
        if covariates is not None:
            if self._covariates is not None:
                raise ValueError("covariates were given twice: the rows have some; leave them out")
            self._covariates = as_tensor(covariates, "covariates")
        if weights is not None:
            self._weights = checked_weights(as_tensor(weights, "row_weights"), len(self._index))
        if binarize == "static":
            self._draw_bits(seed)
        if binarize != "none":
            self._binarize = binarize

    @classmethod
    def of(
        cls,
        x: Tensor | ArrayLike | Rows,
        covariates: Tensor | ArrayLike | None,
        model: AmortizedModel,
    ) -> Rows:
        """``x`` itself if it is ``Rows``, else rows of it, coded as the model's table says.

        Every check starts with this.
        """
        given = isinstance(x, Rows) and covariates is None
        return x if given else cls(x, covariates, table=model.table)  # type: ignore[return-value]

    def __len__(self) -> int:
        return len(self._index)

    @property
    def event_shape(self) -> tuple[int, ...]:
        """The shape of a row."""
        return tuple(self._source.shape[1:])

    @property
    def covariates(self) -> Tensor | None:
        """Those of all rows, ``(row, covariate)``, as they were given; None if there are none."""
        return None if self._covariates is None else read(self._covariates, self._at(slice(None)))

    @property
    def in_memory(self) -> bool:
        """Whether the data are a tensor, and not read when rows are taken."""
        return isinstance(self._source, Tensor)

    @property
    def together(self) -> int | None:
        """How many rows are read at once whichever is asked for; None where each is by itself."""
        return rows_together(self._source)

    @property
    def positions(self) -> Tensor:
        """Where the source holds these rows, ``(row,)``."""
        return torch.arange(self._source.shape[0])[self._at(slice(None))]

    def take(self, rows: Indices, like: Tensor) -> Batch:
        """The rows at some indices, in their order, of the dtype and on the device of ``like``."""
        return self.made(self.read(rows), like)

    def made(self, raw: Batch, like: Tensor) -> Batch:
        """What :meth:`take` makes of rows as :meth:`read` gives them."""
        x, covariates = raw
        # Bytes are moved to a device as bytes, which are a quarter of the size of numbers.
        x = to_float(x.to(like.device), like.dtype)
        if self._binarize in ("dynamic", "threshold"):
            x = binarize(x, self._binarize)
        return Batch(x, None if covariates is None else covariates.to(like))

    def weights(self, rows: Indices, like: Tensor) -> Tensor | None:
        """What the rows at some indices count, ``(row,)``; None if all count alike."""
        return None if self._weights is None else read(self._weights, self._at(rows)).to(like)

    def chunks(self, size: int, like: Tensor) -> Iterator[tuple[slice, Batch]]:
        """All rows, ``size`` at a time: which they are, and what :meth:`take` makes of them."""
        rows = [slice(i, min(i + size, len(self))) for i in range(0, len(self), size)]
        yield from zip(rows, self.stream(rows, like), strict=True)

    def stream(self, wanted: Iterable[Indices], like: Tensor) -> Iterator[Batch]:
        """What :meth:`take` makes of some rows after the other, read ahead unless in memory."""
        raw = (self.read(rows) for rows in wanted)
        for batch in raw if self.in_memory else ahead(raw):
            yield self.made(batch, like)

    def select(self, rows: Indices) -> Rows:
        """Rows at some indices, as ``Rows`` of the same data."""
        chosen = copy.copy(self)
        chosen._index = self._positions(rows)
        return chosen

    def shard(self, rank: int, world: int) -> Rows:
        """The share of one of ``world`` processes: neighboring rows, as many for each, or one more.

        Together the shards are all rows in order: ``rows.span(rank, world)`` says which.

        Raises
        ------
        ValueError
            If ``rank`` is not in 0, ..., ``world`` - 1.
        """
        return self.select(self.span(rank, world))

    def span(self, rank: int, world: int) -> slice:
        """Where :meth:`shard` lies among all rows, such as for the region of a zarr store."""
        if not 0 <= rank < world:
            raise ValueError(f"rank is {rank} of {world}; pass a number from 0 to {world - 1}")
        return slice(len(self) * rank // world, len(self) * (rank + 1) // world)

    def to(self, device: torch.device | str) -> Rows:
        """The same rows on a device, as bytes where they are bytes, if they are in memory."""
        moved = copy.copy(self)
        if isinstance(self._source, Tensor):
            moved._source = self._source.to(device)
        if self._covariates is not None:
            moved._covariates = self._covariates.to(device)
        if self._weights is not None:
            moved._weights = self._weights.to(device)
        return moved

    def fingerprint(self) -> str:
        """A hash of the shape, the type and the contents, by which other data are noticed.

        Of data that are not in memory, it reads ten thousand rows spread over all.

        Examples
        --------
        >>> x = torch.ones(3, 2)
        >>> Rows(x).fingerprint() == Rows(x.clone()).fingerprint() != Rows(2 * x).fingerprint()
        True
        """
        digest = hashlib.blake2b(digest_size=16)
        digest.update(repr((len(self), self.event_shape, self._binarize)).encode())
        size = len(self)
        if not self.in_memory and size > _FINGERPRINTED:
            chosen = np.linspace(0, size - 1, _FINGERPRINTED).round().astype(int)
            chunks = list[Indices](np.array_split(chosen, 10))
        else:
            chunks = [slice(i, min(i + _CHECKED, size)) for i in range(0, size, _CHECKED)]
        for rows in chunks:
            for part in (*self.read(rows), self.weights(rows, torch.empty(()).double())):
                if part is not None:
                    array = part.detach().cpu().contiguous().numpy()
                    digest.update(str(array.dtype).encode())
                    digest.update(array.tobytes())
        return digest.hexdigest()

    def numbers(self) -> np.ndarray:
        """All rows in memory, ``(row, *event)``, floating point in the precision that they have.

        NumPy has no bfloat16, which comes in single precision.
        """
        (first, _), dtype = self.read(slice(0, 1)), torch.get_default_dtype()
        if first.is_floating_point() and first.dtype != torch.bfloat16:
            dtype = first.dtype
        return self.take(slice(None), torch.empty((), dtype=dtype)).x.detach().numpy()

    def check(self, model: AmortizedModel, *, name: str = "x") -> None:
        """Refuse rows that ``model`` does not describe, with what to do about it.

        Data that are read when rows are taken are looked at some rows at a time, and an error then
        speaks of these: ``x[4096:8192]``.

        Raises
        ------
        TypeError, ValueError
            As :meth:`AmortizedModel.check` does, of what the model will see.
        """
        differs = model.table.differs(self.table) if model.table and self.table else ""
        if differs:
            raise ValueError(
                f"{name} has {differs} than the rows of the fit; pass the table itself rather than "
                f"Rows of it, or make them with Rows({name}, table=vae.table)"
            )
        if self._covariates is not None and len(self._covariates) != self._source.shape[0]:
            raise ValueError(
                f"{name} and covariates disagree on the number of rows: {self._source.shape[0]} "
                f"and {len(self._covariates)}; pass one row of covariates for each row of {name}"
            )
        if self.in_memory:
            x, covariates = self.read(slice(None))
            if self._binarize == "none":
                model.check(x, covariates, name=name)
                return
            if self._binarize != "static":
                check_rows(x, name)
        starts = range(0, max(1, len(self)), _CHECKED)
        chunks = [slice(i, min(i + _CHECKED, len(self))) for i in starts]
        first, _ = self.read(chunks[0])
        # Some images may be black. If all are, the bytes are no intensities.
        if first.dtype == torch.uint8 and not any((self.read(c)[0] > 1).any() for c in chunks):
            check_rows(first, name)
        for rows in chunks:
            x, covariates = self.read(rows)
            x = to_float(x, None if x.is_floating_point() else torch.get_default_dtype())
            if self._binarize in ("dynamic", "threshold"):
                x = binarize(x, "threshold")
            of = name if self.in_memory or len(chunks) == 1 else f"{name}[{rows.start}:{rows.stop}]"
            model.check(x, covariates, name=of)

    def _positions(self, rows: Indices) -> range | Tensor:
        """Where the source holds some rows."""
        if isinstance(rows, slice):
            return self._index[rows]
        chosen = torch.as_tensor(rows)
        if chosen.dtype == torch.bool:
            chosen = chosen.nonzero().flatten()
        if isinstance(self._index, range):
            start, step = self._index.start, self._index.step
            return chosen if (start, step) == (0, 1) else start + step * chosen
        return self._index[chosen.to(self._index.device)]

    def read(self, rows: Indices) -> Batch:
        """Rows and their covariates as the source has them."""
        at, given = self._at(rows), self._covariates
        return Batch(read(self._source, at), None if given is None else read(given, at))

    def _at(self, rows: Indices) -> slice | Tensor:
        at = self._positions(rows)
        if isinstance(at, Tensor):
            return at
        return slice(at.start, at.stop, at.step) if at.step > 0 else torch.tensor(at)

    def _draw_bits(self, seed: int) -> None:
        """Draw bits of these rows once, in their order; they take the place of the source."""
        source: Tensor | ArrayLike
        every = slice(None)
        if isinstance(self._source, Tensor):
            x, covariates = self.read(every)
            bits = binarize(x, "static", seed=seed)
            missing = x.is_floating_point() and bool(bits.isnan().any())
            source = bits if missing else bits.bool()
        else:
            generator = torch.Generator().manual_seed(seed)
            source = PackedBits(
                binarize(self.read(slice(start, start + _CHECKED))[0], "static", seed=generator)
                for start in range(0, max(1, len(self)), _CHECKED)
            )
            covariates = self.covariates
        weights = self._weights
        self._covariates = covariates
        self._weights = None if weights is None else read(weights, self._at(every))
        self._source = source
        self._index = range(source.shape[0])


def _check_method(method: str) -> None:
    binarize(torch.empty(0), method)
