"""Draws as repeated rows: for programs of one plate that cannot take another dimension."""

from __future__ import annotations

__all__ = ["merged", "plate_of_all", "repeated", "split"]

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from .sites import batch_axes, counts, plates_of


def plate_of_all(sites: Mapping[str, Mapping[str, Any]]) -> tuple[str, int]:
    """A plate that holds every site, and the number of its rows.

    Raises
    ------
    ValueError
        If there is none.
    """
    every = [plates_of(site) for site in sites.values() if counts(site)]
    for plate in every[0] if every else ():
        if all(plate in plates for plates in every):
            site = next(site for site in sites.values() if counts(site))
            axes = batch_axes(site)
            if plate in axes:
                return plate, int(site["value"].shape[axes[plate]])
    raise ValueError("no plate holds all of its sites")


def repeated(given: Any, rows: int, size: int) -> Any:
    """Arguments with their rows ``size`` times: of tensors whose first dimension is ``rows``."""
    if isinstance(given, Tensor):
        has_rows = given.dim() > 0 and len(given) == rows
        return given.repeat(size, *(1,) * (given.dim() - 1)) if has_rows else given
    if isinstance(given, Mapping):
        return {key: repeated(value, rows, size) for key, value in given.items()}
    if type(given) in (list, tuple):
        return type(given)(repeated(value, rows, size) for value in given)
    return given


def merged(value: Tensor, axis: int) -> Tensor:
    """Draws ``(draw, *value)`` as rows along ``axis`` of a value, all rows of a draw together."""
    return value.movedim(0, axis).flatten(axis, axis + 1)


def split(value: Tensor, axis: int, size: int) -> Tensor:
    """The inverse of :func:`merged`; what has no dimensions is the same for all draws."""
    if not value.dim():
        return value.expand(size)
    axis = axis % value.dim()
    if value.shape[axis] % size:
        raise ValueError(f"a site of shape {tuple(value.shape)} has no rows to repeat")
    return value.unflatten(axis, (size, -1)).movedim(axis, 0)
