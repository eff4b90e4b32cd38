"""What a store holds: its arrays, their dimensions, and what is said of them."""

from __future__ import annotations

__all__ = ["Contents", "Variable", "make_array", "make_group", "make_whole", "writable"]

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np

if TYPE_CHECKING:
    import xarray as xr
    import zarr

# Numbers in a chunk of an array that is there from the start.
_CHUNK = 2**20


@dataclass(frozen=True)
class Variable:
    """An array of a store: where it is, such as ``"posterior/z"``, and its dimensions in order.

    Values are written with ``row`` first and the others in their order; a dimension called
    ``chain`` is one that they do not have.
    """

    path: str
    dims: tuple[str, ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)

    def laid_out(self, values: np.ndarray) -> np.ndarray:
        """Values (row, ...) in the order of ``dims``."""
        own = [dim for dim in self.dims if dim != "chain"]
        values = np.moveaxis(values, 0, own.index("row"))
        return values[None] if "chain" in self.dims else values


@dataclass(frozen=True)
class Contents:
    """All that a store holds.

    Attributes
    ----------
    variables
        By the names under which results are written.
    coords
        Of dimensions, and written to every group that has these; ``row`` is counted if not given.
    beside
        Arrays that are there from the start, by their path: dimensions and values.
    attrs
        Attributes of groups, by path; ``""`` is the root.
    """

    variables: Mapping[str, Variable]
    coords: Mapping[str, np.ndarray] = field(default_factory=dict)
    beside: Mapping[str, tuple[tuple[str, ...], np.ndarray]] = field(default_factory=dict)
    attrs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def make_array(
    root: zarr.Group,
    path: str,
    dims: tuple[str, ...],
    shape: tuple[int, ...],
    chunks: tuple[int, ...],
    dtype: Any,
    contents: Contents,
    attrs: Mapping[str, Any],
) -> zarr.Array[Any]:
    """The array at a path, made if need be, with the group that it is in."""
    group = path.rpartition("/")[0]
    if group and group not in root:
        root.require_group(group).update_attributes(dict(contents.attrs.get(group, {})))
    if path in root:
        return cast("zarr.Array[Any]", root[path])
    return root.create_array(
        path,
        shape=shape,
        chunks=chunks,
        dtype=str if np.dtype(dtype).kind == "T" else dtype,
        fill_value=np.nan if np.issubdtype(dtype, np.floating) else None,
        dimension_names=dims,
        attributes=dict(attrs),
    )


def writable(values: np.ndarray) -> np.ndarray:
    """Values as zarr has them: text in strings of any length."""
    return values.astype(np.dtypes.StringDType()) if values.dtype.kind in "OSU" else values


def make_whole(
    root: zarr.Group,
    path: str,
    dims: tuple[str, ...],
    values: np.ndarray,
    contents: Contents,
    attrs: Mapping[str, Any] | None = None,
) -> None:
    """Write an array that is there from the start."""
    values = writable(values)
    rows = max(1, _CHUNK // max(1, math.prod(values.shape[1:])))
    array = make_array(
        root,
        path,
        dims,
        values.shape,
        (max(1, min(rows, len(values))), *values.shape[1:]),
        values.dtype,
        contents,
        attrs or {},
    )
    array[...] = values


def make_group(root: zarr.Group, group: str, dataset: xr.Dataset) -> None:
    """Write a Dataset that is not large as a group of its own."""
    contents = Contents({}, attrs={group: dataset.attrs})
    for name, variable in dataset.variables.items():
        dims = tuple(map(str, variable.dims))
        path = f"{group}/{name}"
        make_whole(root, path, dims, np.asarray(variable.values), contents, variable.attrs)
