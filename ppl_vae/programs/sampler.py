"""Draws of a guide with their log-weights: of all latents, and of the rows of a plate."""

from __future__ import annotations

__all__ = ["Sampler", "entry_names"]

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import product

import torch
from torch import Tensor

from ..progress import Progress
from ..workflow.draws.chunked import chunk_seed
from .pair import Pair
from .sites import batch_axes, plates_of
from .structure import Structure
from .traced import Drawn

# Entries of the largest site that a chunk may hold for all its draws.
_ENTRIES = 2**22
# Latents that are looked at together; of more, those that all rows share.
_MOST = 1000
# Draws of the shared latents that a row's own are judged given.
_SHARED = 8

Values = dict[str, Tensor]


class Sampler:
    """Draws of a guide and their log-weights, in chunks that fit into memory.

    Parameters
    ----------
    pair, structure
        Of :func:`~ppl_vae.programs.structure.structure_of`.
    bar
        Counts the runs of both programs.
    """

    def __init__(self, pair: Pair, structure: Structure, bar: Progress) -> None:
        self.pair, self.structure, self.bar = pair, structure, bar
        p, q = pair.model, pair.guide
        p.nesting = q.nesting = max(p.nesting, q.nesting)
        sites = [*p.sites.values(), *q.sites.values()]
        self.entries = sum(site["value"].numel() + 1 for site in sites)
        self.largest = max(site["value"].numel() + 1 for site in sites)
        plate = structure.plate
        # Sites of the guide that all rows share.
        self.of_all = [
            n for n, s in q.sites.items() if plate not in plates_of(s) and not s["is_observed"]
        ]
        axes = {name: batch_axes(p.sites[name]) for name in structure.local}
        self.axes = {name: by_plate[plate] for name, by_plate in axes.items() if plate}
        self.row_shapes = {n: p.first[n].movedim(a, 0).shape for n, a in self.axes.items()}
        rows = next((shape[0] for shape in self.row_shapes.values()), 0)
        self.batches: Sequence[tuple[Tensor | None, int]] = structure.batches or ((None, rows),)
        self.num_rows = sum(new for _, new in self.batches)

    @property
    def at_once(self) -> bool:
        """Whether both programs were seen to run for many draws at once."""
        return self.pair.model.parallel is not False and self.pair.guide.parallel is not False

    @property
    def whole(self) -> bool:
        """Whether the latents of all rows are few enough to be looked at together."""
        first = self.pair.model.first
        shared = sum(first[name].numel() for name in self.structure.shared)
        return shared + self.num_rows * len(self._row_names()) <= _MOST

    def together(self, size: int, seed: int) -> tuple[Tensor, Tensor]:
        """Draw all latents.

        Returns
        -------
        Log-weights of p(x, z), nats, ``(draw,)``, and the latents of :meth:`names`, all as one
        vector, ``(draw, latent)``.
        """
        weights, values = [], []
        for number in self._chunks(size, seed):
            joint, guided = self._draw(number, {})
            log_weight = self.log_weight(joint, guided)  # (draw,)
            latents = [self.values(joint, self.structure.shared)] if self.structure.shared else []
            if self.structure.local:
                first = self._of_rows(joint, guided)
                rest = [self._batch(number, guided, i) for i in range(1, len(self.batches))]
                parts = [first, *rest]
                own, z = self._joined(parts)
                log_weight = log_weight - first[0].sum(1) + own.sum(1)
                if self.whole:
                    latents.append(z.flatten(1))
            weights.append(log_weight)
            values.append(torch.cat(latents, 1))
        return torch.cat(weights), torch.cat(values)

    def by_row(self, size: int, seed: int, only: Tensor | None = None) -> tuple[Tensor, Tensor]:
        r"""Draw the latents of each row of the plate, given some draws of the shared ones.

        Returns
        -------
        Log-weights ``(draw, row)``, nats, and latents ``(draw, row, latent)``, of all rows or
        ``only`` some. Without shared latents the mean weight of a row is its p(x). With them,
        weights are those of :math:`p(z_i \mid \theta, x_i)`, of mean one for each of eight draws
        of the shared latents :math:`\theta`.
        """
        number = min(_SHARED, size) if self.structure.shared else 1
        weights, values = [], []
        for index in range(number):
            shared = self._one_of_all(seed, index) if self.structure.shared else {}
            here = []
            for part in self._chunks(-(-size // number), seed, index * size):
                given = {n: v.expand(part, *v.shape[1:]) for n, v in shared.items()}
                joint, guided = self._draw(part, given)
                rest = [self._batch(part, guided, i) for i in range(1, len(self.batches))]
                log_weight, z = self._joined([self._of_rows(joint, guided), *rest])
                here.append(log_weight if only is None else log_weight[:, only])
                values.append(z if only is None else z[:, only])
            together = torch.cat(here)
            if self.structure.shared:
                together = together - (together.logsumexp(0) - math.log(len(together)))
            weights.append(together)
        return torch.cat(weights), torch.cat(values)

    def names(self) -> list[str]:
        """The latents of :meth:`together`, one for each number."""
        first = self.pair.model.first
        shared = [n for name in self.structure.shared for n in entry_names(name, first[name].shape)]
        rows = range(self.num_rows if self.structure.local and self.whole else 0)
        return shared + [name.format(row) for row in rows for name in self._row_names()]

    def row_names(self) -> list[str]:
        """The latents of a row, one for each number."""
        shapes = self.row_shapes.items()
        return [entry for name, shape in shapes for entry in entry_names(name, shape[1:])]

    def _row_names(self) -> list[str]:
        """As :meth:`names`, with ``{}`` where the row is."""
        found = []
        for name, shape in self.row_shapes.items():
            axis = self.axes[name]
            for index in product(*map(range, shape[1:])):
                words = [str(i) for i in index]
                found.append(f"{name}[{','.join([*words[:axis], '{}', *words[axis:]])}]")
        return found

    def _chunks(self, size: int, seed: int, first: int = 0) -> Iterator[int]:
        chunk = max(1, _ENTRIES // self.largest)
        for start in range(0, size, chunk):
            torch.manual_seed(chunk_seed(seed, first + start))
            yield min(chunk, size - start)

    def _draw(
        self, size: int, given: Mapping[str, Tensor]
    ) -> tuple[dict[str, Drawn], dict[str, Drawn]]:
        guided = self.pair.guide.draw(size, self.bar, given)
        latents = {name: guided[name].value for name in self.pair.latents}
        return self.pair.model.draw(size, self.bar, latents), guided

    def log_weight(
        self, joint: Mapping[str, Drawn], guided: Mapping[str, Drawn], plates: Sequence[str] = ()
    ) -> Tensor:
        log_p, log_q = self.pair.log_densities(joint, guided, plates)
        return log_p - log_q

    def _of_rows(
        self, joint: Mapping[str, Drawn], guided: Mapping[str, Drawn]
    ) -> tuple[Tensor, Tensor]:
        assert self.structure.plate is not None
        log_weight = self.log_weight(joint, guided, [self.structure.plate])
        return log_weight, self.values_by_row(joint)

    def values(self, joint: Mapping[str, Drawn], names: Sequence[str]) -> Tensor:
        """Latents of each draw as one vector, ``(draw, latent)``."""
        return _side_by_side([_flat(self.pair.values(name, joint), 1) for name in names])

    def values_by_row(self, joint: Mapping[str, Drawn]) -> Tensor:
        """Latents of each draw and row as one vector, ``(draw, row, latent)``."""
        of = {name: self.pair.values(name, joint) for name in self.structure.local}
        return _side_by_side(
            [_flat(value.movedim(1 + self.axes[name], 1), 2) for name, value in of.items()]
        )

    def _joined(self, parts: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """Batches of rows as all rows, each once."""
        sizes = [new for _, new in self.batches]
        weights = [w[:, :new] for (w, _), new in zip(parts, sizes, strict=True)]
        values = [z[:, :new] for (_, z), new in zip(parts, sizes, strict=True)]
        return torch.cat(weights, 1), torch.cat(values, 1)

    def _batch(self, size: int, guided: Mapping[str, Drawn], index: int) -> tuple[Tensor, Tensor]:
        """Rows of another batch of a plate that takes a subsample, given what all rows share."""
        programs = self.pair.model, self.pair.guide
        before = programs[0].rows
        rows, _ = self.batches[index]
        assert rows is not None
        for program in programs:
            program.rows = dict.fromkeys(before, rows)
        try:
            return self._of_rows(*self._draw(size, {n: guided[n].value for n in self.of_all}))
        finally:
            for program in programs:
                program.rows = before

    def _one_of_all(self, seed: int, index: int) -> Values:
        """A draw of what all rows share, ``(1, *value)``."""
        torch.manual_seed(chunk_seed(seed, 2**40 + index))
        return self.shared(1)

    def shared(self, size: int) -> Values:
        """Draws of the guide's sites outside of the plate, ``(draw, *value)``."""
        guided = self.pair.guide.draw(size, self.bar) if self.structure.shared else {}
        return {name: drawn.value for name, drawn in guided.items() if name in self.of_all}


def _flat(value: Tensor, kept: int) -> Tensor:
    """The dimensions after the first few as one."""
    return value.reshape(*value.shape[:kept], -1)


def _side_by_side(values: list[Tensor]) -> Tensor:
    """Along the last dimension, as real numbers."""
    found = torch.cat(values, -1)
    return found if found.is_floating_point() else found.to(torch.get_default_dtype())


def entry_names(name: str, shape: Sequence[int]) -> list[str]:
    """``["z[0]", "z[1]"]`` of a site of shape (2,), and ``["z"]`` of a number.

    Examples
    --------
    >>> entry_names("w", (1, 2))
    ['w[0,0]', 'w[0,1]']
    """
    indices = product(*map(range, shape))
    return [f"{name}[{','.join(map(str, index))}]" if index else name for index in indices]
