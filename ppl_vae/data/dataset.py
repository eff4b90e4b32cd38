"""The data set: rows with labels and names, and what every reader does to them."""

from __future__ import annotations

__all__ = [
    "Dataset",
    "Split",
    "abbreviated",
    "channels_first",
    "checked",
    "resized",
]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from .coding import Coding
    from .kinds import ColumnKind

Split = Literal["train", "test"] | None


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Rows of data, with what is known about them.

    Attributes
    ----------
    name
        ``"digits"``, ``"sprites"``, a torchvision set in lower case, or the stem of the file.
    x
        Shape ``(row, *event)``. ``uint8`` holds pixel intensities 0 to 255; all else is
        ``float32``, in which a missing entry is NaN, and a level its code: of a table whose
        ``columns`` are not None pass the Dataset itself on, which says what codes mean.
        Gray images have event ``(H, W)``, color images ``(3, H, W)``.
    labels
        Shape ``(row,)``, integers or strings; None where there are none.
    feature_names
        One name for each entry of a one-dimensional event, where they are known.
    source
        One line: where the rows came from.
    factors
        What the rows were made from, where that is known, as of sprites, dSprites and a .npz that
        holds ``factors`` (row, factor), with ``factor_names``: by name, shape ``(row,)``.
    context
        Columns beside the rows that were asked for, as they were read: by name, shape ``(row,)``.
    covariates
        The same as numbers, shape ``(row, covariate)``; None where none were asked for.
    codings
        How each column of ``context`` became numbers. ``load_data(..., context=data.codings)``
        codes other rows alike.
    columns
        Of a table with columns that are no plain numbers: for each column what it was taken for,
        the levels that codes 0, 1, ... stand for, and why. ``load_data(..., column=data.columns)``
        codes other rows alike.

    Examples
    --------
    >>> from ppl_vae import load_data
    >>> data = load_data("digits", "test")
    >>> data
    Dataset('digits', x=(359, 8, 8) torch.float32, labels=10 distinct)
    >>> data.at(np.flatnonzero(data.labels == 3)).x.shape
    torch.Size([28, 8, 8])
    """

    name: str
    x: Tensor
    labels: np.ndarray | None
    feature_names: tuple[str, ...] | None
    source: str
    factors: Mapping[str, np.ndarray] | None = None
    context: Mapping[str, np.ndarray] | None = None
    covariates: Tensor | None = None
    codings: tuple[Coding, ...] = ()
    masks: bool = False
    columns: tuple[ColumnKind, ...] | None = None

    @property
    def covariate_names(self) -> tuple[str, ...] | None:
        """One name for each covariate; None where there are none."""
        return tuple(name for coding in self.codings for name in coding.names) or None

    def at(self, rows: np.ndarray) -> Dataset:
        """The rows at some indices, with all that is known of them."""
        kept = torch.from_numpy(rows)

        def chosen(columns: Mapping[str, np.ndarray] | None) -> Mapping[str, np.ndarray] | None:
            return columns and {name: values[rows] for name, values in columns.items()}

        return replace(
            self,
            x=self.x[kept],
            labels=None if self.labels is None else self.labels[rows],
            factors=chosen(self.factors),
            context=chosen(self.context),
            covariates=None if self.covariates is None else self.covariates[kept],
        )

    def __repr__(self) -> str:
        labels = "None" if self.labels is None else f"{len(np.unique(self.labels))} distinct"
        return f"Dataset({self.name!r}, x={tuple(self.x.shape)} {self.x.dtype}, labels={labels})"


def checked(data: Dataset, lines: Sequence[int] = (), *, partly: bool = False) -> Dataset:
    """Give the data back, unless an entry is infinite or a whole feature missing.

    Parameters
    ----------
    data
        What was read.
    lines
        Of each row of a table, its line in the file.
    partly
        More rows were checked before these, so that a feature may be missing in all of these.
    """
    infinite = data.x.isinf().nonzero()
    if len(infinite):
        row, *rest = infinite[0].tolist()
        where = f"row {row}, entry {tuple(rest)}"
        if lines and data.feature_names:
            where = f"line {lines[row]}, column {data.feature_names[rest[0]]!r}"
        raise ValueError(
            f"{data.source} has {len(infinite)} infinite entries (or too large for float32), the "
            f"first in {where}; write a missing entry as NaN, and rescale large ones"
        )
    if (
        data.x.ndim == 2
        and not partly
        and (gone := data.x.isnan().all(0).nonzero().flatten().tolist())
    ):
        names = [data.feature_names[i] if data.feature_names else str(i) for i in gone]
        raise ValueError(
            f"{data.source} has columns without a single value: {abbreviated(names)}; "
            "remove them, or leave them out of a table with drop= (--drop)"
        )
    return data


def resized(data: Dataset, image_size: int | None) -> Dataset:
    """Resize the shorter side of images to ``image_size``, then crop the center."""
    x = data.x
    if image_size is None:
        return data
    if x.ndim < 3:
        raise ValueError(f"image_size={image_size} was given, but {data.source} holds no images")
    if x.shape[-2:] == (image_size, image_size):
        return data
    from torchvision.transforms import functional

    x = functional.center_crop(functional.resize(x, image_size, antialias=True), image_size)
    return replace(data, x=x)


def channels_first(x: Tensor) -> Tensor:
    """Color images as ``(row, C, H, W)`` and gray ones as ``(row, H, W)``; all else as it is.

    The channels of an array are last where that dimension is by far the smallest.
    """
    if x.ndim == 4:
        height, width, last = x.shape[1:]
        smaller = last < min(height, width) and (height == width or last <= 4)
        if smaller and x.shape[1] not in (1, 3):
            x = x.permute(0, 3, 1, 2)  # (row, H, W, C) -> (row, C, H, W)
    return x[:, 0] if x.ndim == 4 and x.shape[1] == 1 else x


def abbreviated(names: Sequence[str], most: int = 20) -> str:
    """List names in an error, all of them or the first few and how many more."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + more
