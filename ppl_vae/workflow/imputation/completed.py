"""DataFrames with their missing cells filled, and all else as it was."""

from __future__ import annotations

__all__ = ["to_frame"]

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...data.dates import DAYS, SINCE, dates_like
from ...data.filled import level_of
from ...data.frames import as_pandas, coded_frame, like_frame, read_frame
from ...data.kinds import ColumnKind
from ...data.levels import TRUTH, written
from ...data.reading import Reading
from ...sources import in_memory

if TYPE_CHECKING:
    import xarray as xr


def to_frame(
    imputed: xr.Dataset,
    frame: Any,
    *,
    draw: int | None = None,
    columns: Sequence[ColumnKind] = (),
) -> Any:
    """A DataFrame with its missing cells filled, and all else as it was.

    Levels come back as the levels that the column has, dates as the dates, in the column's own
    type. Columns of whole numbers and of truth values stay so: means are rounded.

    Parameters
    ----------
    imputed
        What :func:`impute` made of the DataFrame.
    frame
        The DataFrame, of pandas or polars. Columns besides those that were imputed, such as labels,
        stay as they are.
    draw
        Which of the draws to fill in, for multiple imputation; by default ``imputed.x``: means, and
        of levels the most frequent.
    columns
        What the columns were taken for, where ``imputed`` does not say it, as what other programs
        made of the rows does not: the ``columns`` of a Dataset, or ``vae.table.columns``.

    Returns
    -------
    A DataFrame of the same library, with the same columns, types and index. Cells that were read as
    missing are filled, and so are those that some mark of one stood in.

    Raises
    ------
    ValueError
        If ``frame`` is not what was imputed, there is no such draw, or a value lies between the
        levels of a column.

    Examples
    --------
    >>> import pandas as pd
    >>> from ppl_vae import VAE, VAEConfig, impute
    >>> frame = pd.DataFrame(
    ...     {"a": [0.5, None, 1.0, 2.0], "b": ["x", "y", None, "x"]}, index=list("stuv")
    ... )
    >>> vae = VAE.from_config(VAEConfig.for_data(frame))
    >>> filled = to_frame(impute(vae, frame, num_samples=50, progress=False), frame)
    >>> bool(filled.a.notna().all()), filled.b["u"] in ("x", "y"), list(filled.index)
    (True, True, ['s', 't', 'u', 'v'])
    """
    if draw is not None and not 0 <= draw < imputed.sizes["draw"]:
        raise ValueError(
            f"draw is {draw}; pass a number from 0 to {imputed.sizes['draw'] - 1}, or None for the "
            "means"
        )
    if not columns and "columns" in imputed.attrs:
        columns = [
            ColumnKind(**{**kind, "levels": kind["levels"] and tuple(kind["levels"])})
            for kind in json.loads(imputed.attrs["columns"])
        ]
    filled = as_pandas(frame).copy()
    missing = imputed.missing.values
    places = _places(imputed, filled)
    kinds = _read(filled.iloc[:, places], imputed, columns) if len(missing) else ()
    values = (imputed.x if draw is None else imputed.draws.isel(draw=draw)).values
    for at, place in enumerate(places):
        gone = missing[:, at]
        if not gone.any():
            continue
        column = filled.iloc[:, place].copy()
        kind = kinds[at] if kinds else None
        column[gone] = _cells(values[gone, at].astype(np.float64), column[~gone].dropna(), kind)
        filled.isetitem(place, column)
    return like_frame(filled, frame)


def _places(imputed: xr.Dataset, frame: Any) -> list[int]:
    """Where the imputed features stand among the columns of a DataFrame, by name or in order."""
    shape = imputed.missing.shape
    names = [str(name) for name in frame.columns]
    features = [str(name) for name in imputed.feature.values] if "feature" in imputed.coords else []
    if features and set(features) <= set(names) and len(set(names)) == len(names):
        places = [names.index(name) for name in features]
    else:
        places = list(range(len(names)))
    if (len(frame), len(places)) != shape:
        raise _other(f"frame has shape {frame.shape}", imputed)
    return places


def _read(
    frame: Any, imputed: xr.Dataset, columns: Sequence[ColumnKind]
) -> tuple[ColumnKind, ...] | None:
    """What columns were taken for, if these are the rows that were imputed.

    Raises
    ------
    ValueError
        If they are not, or levels have other codes.
    """
    reading = Reading(column=columns, unseen="missing")
    read = read_frame(frame, reading, "frame", partly=True) if columns else coded_frame(frame)
    rows = in_memory(read).numpy()
    missing = imputed.missing.values
    if (np.isnan(rows) & ~missing).any():
        raise _other(f"frame has {int(np.isnan(rows).sum())} missing cells", imputed)
    known = ~missing & ~np.isnan(rows)
    given = imputed.x.values
    if not np.allclose(rows[known], given[known].astype(rows.dtype), rtol=1e-5, atol=0):
        raise _other("frame has other cells, or its levels have other codes", imputed)
    return getattr(read, "columns", None) if read is not frame else None


def _other(what: str, imputed: xr.Dataset) -> ValueError:
    missing = imputed.missing.values
    return ValueError(
        f"{what}, and what was imputed {missing.shape} and {int(missing.sum())} missing cells, or "
        "they are others; pass the DataFrame that impute was given, and, where it was read by the "
        "levels of other rows, columns=data.columns of these"
    )


def _cells(values: np.ndarray, known: Any, kind: ColumnKind | None) -> Any:
    """Values ``(cell,)`` as cells of a column, of which ``known`` are those that are there."""
    if kind is not None and kind.levels is not None:
        return _levels([level_of(float(value), kind) for value in values], known, kind)
    if kind is not None and kind.unit in (SINCE, DAYS) and len(known):
        return dates_like(values, known).array
    letter = _letter(known)
    if letter in "iub":
        return values.round().astype(bool if letter == "b" else np.int64)
    if letter != "f":
        raise ValueError(
            f"frame has a column {known.name!r} of {known.dtype}, which holds no numbers; what was "
            "imputed there stands in imputed.x"
        )
    return values


def _levels(names: list[str], known: Any, kind: ColumnKind) -> list[Any]:
    """Levels by name, as the column has them: texts, categories, truth values or numbers."""
    import pandas as pd

    if isinstance(known.dtype, pd.CategoricalDtype):
        others = list(known.cat.categories)
    else:
        others = list(known.unique())
    as_there = {written(other): other for other in others}
    if kind.levels == TRUTH:
        as_there = {**dict(zip(TRUTH, (False, True), strict=True)), **as_there}
    letter = _letter(known)
    if letter in "iuf":
        return [as_there.get(name, float(name)) for name in names]
    return [as_there.get(name, name) for name in names]


def _letter(known: Any) -> str:
    """NumPy's letter for what a column holds, whatever holds it: i, u, f, b or another."""
    if known.dtype.kind != "O" or not len(known):
        return str(known.dtype.kind)
    return np.array(known.tolist()).dtype.kind
