"""Rows as those of a run: its bits, its columns by name, and hashes by which others are noticed."""

from __future__ import annotations

__all__ = ["fingerprints", "matched", "rows_once"]

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..data import ColumnKind, Dataset
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
    _check_kinds(data, columns)
    names = data.feature_names
    if features is None or names is None or list(names) == list(features):
        return data
    lost = [name for name in features if name not in set(names)]
    more = [name for name in names if name not in set(features)]
    if lost or more:
        said = [f"has no column {', '.join(map(repr, lost[:5]))}"] if lost else []
        said += [f"has {', '.join(map(repr, more[:5]))}, which the fit had not"] if more else []
        raise ValueError(
            f"{data.source} {' and '.join(said)}; give the columns of the fit, and leave others "
            "out with --drop"
        )
    order = [list(names).index(name) for name in features]
    kinds = None if data.columns is None else tuple(data.columns[i] for i in order)
    return replace(data, x=data.x[:, order], feature_names=tuple(features), columns=kinds)


def _check_kinds(data: Dataset, columns: Sequence[ColumnKind]) -> None:
    """Refuse columns that are not of the kinds of the fit, whose codes would mean something else.

    Raises
    ------
    ValueError
        If one is of another kind, or has other levels.
    """
    fitted = {kind.name: kind for kind in columns}
    if columns and data.columns is None:
        raise ValueError(
            f"{data.source} holds numbers without names of levels, where the fit had columns of "
            "several kinds; give a table with the columns of the fit"
        )
    for kind in data.columns or ():
        was = fitted.get(kind.name)
        if not fitted and kind.kind != "real":
            raise ValueError(
                f"{data.source} has a column {kind.name!r} that is {kind.kind} ({kind.why}), where "
                "the fit had numbers; give numbers, or leave it out with --drop"
            )
        if was and (was.kind, was.levels, was.unit) != (kind.kind, kind.levels, kind.unit):
            raise ValueError(
                f"{data.source} has a column {kind.name!r} that is {kind.kind} ({kind.why}), where "
                f"the fit had {was.kind} ({was.why}); read it with column= of the fit"
            )
