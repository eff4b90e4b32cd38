"""Train and test rows: as the source brings them, or at random."""

from __future__ import annotations

__all__ = ["part_of"]

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch

from .dataset import Dataset, Split
from .reading import Reading


def part_of(parts: Mapping[Split, Dataset], split: Split, reading: Reading) -> Dataset:
    """A split of what a source holds: its own, or one at random.

    Raises
    ------
    ValueError
        If there is only one row to split, or the splits do not fit together.
    """
    if split in parts:
        return parts[split]
    if split is None:
        return _join(parts["train"], parts["test"])
    return _take(parts[None], split, reading)


def _take(whole: Dataset, split: Split, reading: Reading) -> Dataset:
    size = len(whole.x)
    if size < 2:
        raise ValueError(
            f"{whole.source} has {size} row, too few to split into rows to fit to and rows to test "
            "by; pass more rows (in Python, load_data(..., split=None) reads them unsplit)"
        )
    # numpy's generator and not torch's, so that a seed does not depend on the torch release.
    order = np.random.default_rng(reading.seed).permutation(size)
    cut = size - min(max(round(size * reading.test_fraction), 1), size - 1)
    rows = order[:cut] if split == "train" else order[cut:]
    return whole.at(rows)


def _join(train: Dataset, test: Dataset) -> Dataset:
    shapes = [tuple(part.x.shape[1:]) for part in (train, test)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"{train.name} has images of shape {shapes[0]} to train on and {shapes[1]} to test; "
            "pass image_size= to make them equal"
        )
    labels, covariates = None, None
    if train.labels is not None and test.labels is not None:
        labels = np.concatenate([train.labels, test.labels])
    if train.covariates is not None and test.covariates is not None:
        covariates = torch.cat([train.covariates, test.covariates])

    def joined(
        first: Mapping[str, np.ndarray] | None, second: Mapping[str, np.ndarray] | None
    ) -> Mapping[str, np.ndarray] | None:
        if first is None or second is None:
            return None
        shared = [name for name in first if name in second]
        return {name: np.concatenate([first[name], second[name]]) for name in shared} or None

    return replace(
        train,
        x=torch.cat([train.x, test.x]),
        labels=labels,
        covariates=covariates,
        factors=joined(train.factors, test.factors),
        context=joined(train.context, test.context),
        source=f"{train.source}; {test.source}",
    )
