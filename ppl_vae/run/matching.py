"""Rows as those of a run: its bits, its columns by name, and hashes by which others are noticed."""

from __future__ import annotations

__all__ = ["fingerprints", "matched", "rows_once"]

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor

from ..data import ColumnKind, Dataset
from ..data.table import Table, by_table
from ..rows import Rows, binarize


def rows_once(data: Dataset, method: str, seed: int) -> Tensor:
    """Rows as bits, if these are asked for, drawn once."""
    return binarize(
        data.x,
        "static" if method == "dynamic" else method,
        seed=None if method in ("none", "threshold") else seed,
    )


def fingerprints(train: Dataset, test: Dataset) -> dict[str, str]:
    """Hashes of the rows, by which other data are noticed."""
    return {
        name: Rows(part.x, part.covariates).fingerprint()
        for name, part in (("train", train), ("test", test))
    }


def matched(
    data: Dataset,
    features: list[str] | None,
    dtype: str | None = None,
    columns: Sequence[ColumnKind] = (),
) -> Dataset:
    """The data with their columns in the order of the fit, by name, and bytes as they were there.

    Bytes of zeros and ones are masks where no byte is larger; beside a fit to intensities they are
    dark ones.

    Raises
    ------
    ValueError
        If a column is missing, or there are others, or one is of another kind or other levels.
    """
    if data.masks and dtype == "uint8":
        data = replace(data, x=data.x.to(torch.uint8), masks=False)
    names = None if features is None else tuple(features)
    return cast(Dataset, by_table(data, Table(names, tuple(columns) or None)))
