"""What the columns of a table are to a model, and other rows of it by the same names and codes."""

from __future__ import annotations

__all__ = ["Table", "by_table", "table_of"]

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ..parts import ParquetRows
from .annotated import is_annotated, read_annotated
from .coding import Coding
from .covariates import coded
from .dataset import Dataset, abbreviated
from .frames import as_pandas, coded_frame, is_frame, read_frame
from .kinds import ColumnKind
from .reading import Reading


@dataclass(frozen=True)
class Table:
    """The columns of the rows that a model was fitted to: what each code and each entry means.

    Attributes
    ----------
    names
        Of the features, in their order; None of rows without names.
    columns
        What they were taken for, with their levels, of a table with columns that are no plain
        numbers; else None. ``load_data(..., column=table.columns)`` codes other rows alike.
    codings
        How what the rows are conditional on became covariates. ``load_data(...,
        context=table.codings)`` codes other rows alike.

    Examples
    --------
    >>> import pandas as pd
    >>> table = table_of(coded_frame(pd.DataFrame({"a": [1.0, 2, 3], "b": ["x", "y", "x"]})))
    >>> table.names, table.columns[1].levels
    (('a', 'b'), ('x', 'y'))
    >>> by_table(pd.DataFrame({"b": ["y"], "a": [2.0]}), table).x.tolist()
    [[2.0, 1.0]]
    """

    names: tuple[str, ...] | None = None
    columns: tuple[ColumnKind, ...] | None = None
    codings: tuple[Coding, ...] = ()

    def differs(self, other: Table) -> str:
        """In what the rows of another table are coded otherwise, in words; empty if in nothing."""
        if self.names and other.names and self.names != other.names:
            return "other columns, or the same in another order"
        means = [[(c.kind, c.levels, c.unit) for c in t.columns or ()] for t in (self, other)]
        if self.names and other.names and means[0] != means[1]:
            return "columns of other kinds, or with other levels"
        if self.codings and other.codings and self.codings != other.codings:
            return "covariates coded by other rows"
        return ""


def table_of(x: Any) -> Table | None:
    """What is known of the columns of a DataFrame, Parquet or a Dataset; None of all else."""
    if isinstance(x, ParquetRows):
        return Table(tuple(x.names))
    if is_frame(x):
        return Table(tuple(str(name) for name in as_pandas(x).columns))
    if not isinstance(x, Dataset) or (x.feature_names is None and not x.codings):
        return None
    return Table(x.feature_names, x.columns, x.codings if x.covariates is not None else ())


def by_table(x: Any, table: Table | None) -> Any:
    """Rows with the columns of a table by name and in its order, coded as there; else as they are.

    A DataFrame, a Dataset, an AnnData and a path to Parquet have names; all else is taken as it
    stands.

    Raises
    ------
    ValueError
        If a column is not there, there are others, one is of another kind, or it has a level that
        the table has not.
    """
    if isinstance(x, str | os.PathLike) and Path(x).suffix == ".parquet":
        return ParquetRows(x, table.names if table else None)
    if table is None or not (is_frame(x) or is_annotated(x) or isinstance(x, Dataset)):
        return coded_frame(x)
    if isinstance(x, Dataset):
        return _data(x, table)
    called = f"x, a {type(x).__name__},"
    if is_annotated(x):
        return _data(read_annotated(x, Reading(), called), table)
    if table.names is None:
        return coded_frame(x)
    frame = as_pandas(x)
    frame = frame.set_axis([str(name) for name in frame.columns], axis=1)
    _check_names(list(frame.columns), table.names, called)
    frame = frame[list(table.names)]
    if table.columns and len(frame):
        return read_frame(frame, Reading(column=table.columns), called, partly=True)
    data = coded_frame(frame)
    return _data(data, table) if isinstance(data, Dataset) else frame


def _data(data: Dataset, table: Table) -> Dataset:
    if table.names is not None and data.feature_names is not None:
        names = list(data.feature_names)
        _check_names(names, table.names, data.source)
        order = [names.index(name) for name in table.names]
        if order != list(range(len(order))):
            kinds = data.columns and tuple(data.columns[i] for i in order)
            data = replace(data, x=data.x[:, order], feature_names=table.names, columns=kinds)
        data = _by_levels(data, table.columns or ())
    if table.codings and data.codings and data.codings != table.codings:
        data = coded({None: data}, table.codings, data.source)[None]
    return data


def _check_names(names: Sequence[str], fitted: Sequence[str], source: str) -> None:
    """Refuse columns that are not those of a fit, in whatever order.

    Raises
    ------
    ValueError
        With those that are missing, come twice, or are too many.
    """
    lost = [name for name in fitted if name not in set(names)]
    more = [name for name in names if name not in set(fitted)]
    twice = sorted({name for name in names if names.count(name) > 1})
    said = [f"has no column {abbreviated(lost, 5)}"] if lost else []
    said += [f"has {abbreviated(more, 5)}, which the fit had not"] if more else []
    said += [f"has several columns {abbreviated(twice, 5)}"] if twice else []
    if said:
        raise ValueError(
            f"{source} {' and '.join(said)}; give the columns of the fit, and leave others "
            "out with --drop (drop=, or x[list(vae.table.names)])"
        )


def _by_levels(data: Dataset, fitted: Sequence[ColumnKind]) -> Dataset:
    """Columns with the codes of a fit, where levels of their own were numbered.

    Raises
    ------
    ValueError
        If one is of another kind, or holds a level that the fit had not.
    """
    if fitted and data.columns is None:
        raise ValueError(
            f"{data.source} holds numbers without names of levels, where the fit had columns of "
            "several kinds; give a table with the columns of the fit"
        )
    x = data.x
    for i, kind in enumerate(data.columns or ()):
        if not fitted:
            if kind.kind == "real" and not kind.unit:
                continue
            raise ValueError(
                f"{data.source} has a column {kind.name!r} that is {kind.kind} ({kind.why}), where "
                "the fit had numbers; give numbers, or leave it out with --drop"
            )
        was = fitted[i]
        if (was.levels, was.unit) == (kind.levels, kind.unit) and was.kind == kind.kind:
            continue
        if not (was.levels and kind.levels):
            raise ValueError(
                f"{data.source} has a column {kind.name!r} that is {kind.kind} ({kind.why}), where "
                f"the fit had {was.kind} ({was.why}); read it with column= of the fit"
            )
        codes = x[:, i].nan_to_num(nan=0.0).long()
        held = [kind.levels[code] for code in codes[~x[:, i].isnan()].unique().tolist()]
        if unknown := [level for level in held if level not in was.levels]:
            raise ValueError(
                f"{data.source} has {unknown[0]!r} in column {kind.name!r}, which is none of the "
                f"levels of the fit, {abbreviated(was.levels)}; correct such cells, or read them "
                "as missing with load_data(..., column=vae.table.columns, unseen='missing')"
            )
        code = [was.levels.index(level) if level in was.levels else 0 for level in kind.levels]
        moved = torch.tensor(code, dtype=x.dtype)[codes]
        x = x.clone() if x is data.x else x
        x[:, i] = torch.where(x[:, i].isnan(), x[:, i], moved)
    return data if not fitted or data.columns is None else replace(data, x=x, columns=tuple(fitted))
