"""Covariates: columns beside the rows, as numbers that a VAE is conditional on."""

from __future__ import annotations

__all__ = ["coded"]

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from .coding import LIBRARY, Coding
from .dataset import Dataset, abbreviated


def coded(
    parts: Mapping[Any, Dataset], context: Sequence[str | Coding], source: str
) -> dict[Any, Dataset]:
    """The parts of a data set with their covariates, coded alike in all of them.

    A coding that is given is kept to; a name is looked up among the columns that were read beside
    the rows, the factors and ``"label"``, and coded by all rows of all parts. ``"library"``, the
    total of a row where there is no such column, comes last, where decoders of counts look for it.

    Raises
    ------
    ValueError
        If there is no such column, or it cannot be coded.
    """
    context = sorted(context, key=lambda each: _name(each) == LIBRARY)
    found: dict[Any, list[np.ndarray]] = {split: [] for split in parts}
    codings: list[Coding] = []
    for wanted in context:
        name = _name(wanted)
        columns = {split: _column(part, name, source) for split, part in parts.items()}
        coding = wanted
        if not isinstance(coding, Coding):
            coding = Coding.of(name, np.concatenate(list(columns.values())), source)
        codings.append(coding)
        for split, column in columns.items():
            found[split].append(coding.encode(column, source))
    return {
        split: replace(
            part,
            covariates=torch.from_numpy(np.concatenate(found[split], 1)).float(),
            codings=tuple(codings),
        )
        for split, part in parts.items()
    }


def _name(wanted: str | Coding) -> str:
    return wanted.name if isinstance(wanted, Coding) else wanted


def _column(part: Dataset, name: str, source: str) -> np.ndarray:
    beside = {**(part.factors or {}), **(part.context or {})}
    if part.labels is not None:
        # Classes are levels, whatever numbers stand for them.
        beside.setdefault("label", part.labels.astype(str))
    if name == LIBRARY and name not in beside:
        return _totals(part, source)
    if name not in beside:
        has = f"it has {abbreviated(list(beside))}" if beside else "it has nothing"
        raise ValueError(f"context={name!r} (--context) is not beside the rows of {source}: {has}")
    return np.asarray(beside[name])


def _totals(part: Dataset, source: str) -> np.ndarray:
    """The total of each row of counts ``(row,)``, which is at least 1 to have a logarithm."""
    x = part.x.flatten(1).numpy().astype(np.float64)
    wrong = ~((x >= 0) & (x == x.round()))
    if wrong.any():
        row, entry = np.argwhere(wrong)[0].tolist()
        raise ValueError(
            f"context='library' (--context) is the total of a row's counts, and {source} has "
            f"{x[row, entry]:g} in row {row}; pass counts, or a column called library"
        )
    return np.maximum(x.sum(1), 1.0)
