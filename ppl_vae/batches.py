"""The batches of an epoch: in an order of its own, and read ahead where rows are not in memory."""

from __future__ import annotations

__all__ = ["batches", "shares", "shuffled"]

from collections.abc import Iterator, Sequence
from math import prod

import torch
from torch import Tensor

from .ahead import ahead
from .rows import Batch, Rows

# Entries of rows that are read together.
_ENTRIES = 2**22


def shuffled(rows: Rows) -> Tensor:
    """All rows in a random order, ``(row,)``, from torch's global random state.

    Where a source is read some rows at a time, such as the chunks of a zarr array, those come
    together: chunks in a random order, and the rows of some neighbors of this order mixed, at least
    of two. A batch then is of fewer chunks than there are, and each is read once.

    Examples
    --------
    >>> sorted(shuffled(Rows(torch.rand(5, 2))).tolist())
    [0, 1, 2, 3, 4]
    """
    together, size = rows.together, len(rows)
    if together is None:
        return torch.randperm(size)
    _, block = torch.unique(rows.positions // together, return_inverse=True)
    place = torch.randperm(int(block.max()) + 1)[block]
    order = torch.argsort(place, stable=True)
    window = torch.arange(size) // _window(rows)
    return order[torch.argsort(window + torch.rand(size, dtype=torch.float64))]


def shares(
    rows: Rows, order: Tensor, batch_size: int, *, rank: int = 0, world: int = 1, least: int = 1
) -> list[tuple[Tensor, int]]:
    """The batches of one of ``world`` processes in an epoch, each with its rows over all processes.

    Each process has as many batches, and each row is in one of them. A last step of fewer rows is
    shared too, and is part of the step before where a process would have fewer than ``least`` rows.
    Steps have the same rows however many processes share them, unless rows are read some at a
    time: then each process takes a part of the order by itself, so that few read the same chunk.

    Examples
    --------
    >>> rows, order = Rows(torch.rand(7, 2)), torch.arange(7)
    >>> [(mine.tolist(), total) for mine, total in shares(rows, order, 2, rank=1, world=2)]
    [([2, 3], 4), ([6], 3)]
    """
    steps = list(order.split(batch_size * world))
    if len(steps) > 1 and len(steps[-1]) < least * world:
        steps[-2:] = [torch.cat(steps[-2:])]
    shared = [step.tensor_split(world) for step in steps]
    mine = [parts[rank] for parts in shared]
    if world > 1 and rows.together is not None:
        sizes = [sum(len(parts[other]) for parts in shared) for other in range(world)]
        mine = list(order.split(sizes)[rank].split([len(part) for part in mine]))
    return [(part, len(step)) for part, step in zip(mine, steps, strict=True)]


def batches(rows: Rows, parts: Sequence[Tensor], like: Tensor) -> Iterator[Batch]:
    """The rows at some indices after the other, as :meth:`Rows.take` makes them."""
    if rows.in_memory:
        for part in parts:
            yield rows.take(part, like)
        return
    number = max(1, _window(rows) // len(parts[0]))

    def read() -> Iterator[list[Batch]]:
        for start in range(0, len(parts), number):
            some = parts[start : start + number]
            sizes = [len(part) for part in some]
            x, covariates = rows.read(torch.cat(list(some)))
            beside = [None] * len(some) if covariates is None else covariates.split(sizes)
            yield [Batch(*both) for both in zip(x.split(sizes), beside, strict=True)]

    for together in ahead(read(), depth=1):
        for raw in together:
            yield rows.made(raw, like)


def _window(rows: Rows) -> int:
    """How many rows are read together: some, and of whole chunks two at least."""
    return max(1, _ENTRIES // prod(rows.event_shape), 2 * (rows.together or 0))
