"""The dimensions and coordinates of a Pyro program's sites, named after its plates."""

from __future__ import annotations

__all__ = ["checked_coords", "dataset", "site_dims", "variables"]

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyro

from ..programs.sites import batch_axes, plates_of
from ..programs.traced import Program

if TYPE_CHECKING:
    import xarray as xr


# Dimensions of every group, which ArviZ calls so.
_SAMPLED = ("chain", "draw")


def variables(p: Program) -> dict[str, str]:
    """What each site and plate of a program is called in a DataTree: "." stands for "/".

    Raises
    ------
    ValueError
        If one cannot be called so, or two would be called alike.
    """
    plates = {name: None for site in p.sites.values() for name in plates_of(site)}
    shown: dict[str, str] = {}
    for name in [*p.sites, *plates]:
        what = "plate" if name in plates else "site"
        if name in _SAMPLED:
            raise ValueError(
                f"the model has a {what} called {name!r}, which is what ArviZ calls a dimension of "
                f"its own; rename the {what}"
            )
        if not name or "\0" in name:
            raise ValueError(
                f"the model has a {what} called {name!r}, which nothing in a DataTree can be "
                f"called; rename the {what}"
            )
        alike = next((other for other in shown if shown[other] == _shown(name)), name)
        if alike != name:
            raise ValueError(
                f"the model has {alike!r} and {name!r}, which a DataTree would both call "
                f"{_shown(name)!r}, as '/' stands between its groups; rename one of them"
            )
        shown[name] = _shown(name)
    return shown


def _shown(name: str) -> str:
    return name.replace("/", ".")


def site_dims(p: Program, dims: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    unknown = sorted(dims.keys() - p.sites.keys())
    if unknown:
        raise ValueError(
            f"dims has {unknown}, which are no sites of the model; it has {', '.join(p.sites)}"
        )
    names: dict[str, list[str]] = {}
    for name, site in p.sites.items():
        shape = site["value"].shape
        axes = dict.fromkeys(range(len(shape)), "")
        axes |= {dim: plate for plate, dim in batch_axes(site).items()}
        given = list(dims.get(name, ()))
        free = [axis for axis, plate in axes.items() if not plate]
        if len(given) not in {0, len(free), len(shape)}:
            raise ValueError(
                f"dims[{name!r}] has {len(given)} names, but {name} has {len(shape)} dimensions, "
                f"of which plates name {len(shape) - len(free)}; pass {len(free)} or {len(shape)}"
            )
        given = given or [f"{name}_dim_{i}" for i in range(len(free))]
        axes |= dict(zip(free if len(given) == len(free) else axes, given, strict=True))
        names[name] = [_shown(axis) for axis in axes.values()]
    return names


def checked_coords(
    coords: Mapping[str, Sequence[Any]],
    drawn: Mapping[str, Mapping[str, np.ndarray]],
    dims: Mapping[str, Mapping[str, Sequence[str]]],
) -> dict[str, Sequence[Any]]:
    sizes = {
        dim: size
        for group, arrays in drawn.items()
        for name, array in arrays.items()
        for dim, size in zip(reversed(dims[group][name]), reversed(array.shape), strict=False)
    }
    coords = {_shown(dim): labels for dim, labels in coords.items()}
    for dim, labels in coords.items():
        if dim not in sizes:
            raise ValueError(f"coords has {dim!r}; the dimensions are {', '.join(sizes)}")
        if len(labels) != sizes[dim]:
            raise ValueError(
                f"coords[{dim!r}] has {len(labels)} labels, but {dim} is of size {sizes[dim]}"
            )
    return coords


def dataset(
    group: str,
    arrays: Mapping[str, np.ndarray],
    dims: Mapping[str, Sequence[str]],
    coords: Mapping[str, Sequence[Any]],
) -> xr.Dataset:
    import arviz_base

    sampled = group not in {"observed_data", "fit_history"}
    return arviz_base.dict_to_dataset(
        {name: array[None] if sampled else array for name, array in arrays.items()},
        dims={name: list(dims[name]) for name in arrays},
        coords=dict(coords),
        sample_dims=["chain", "draw"] if sampled else [],
        inference_library=pyro,
    )
