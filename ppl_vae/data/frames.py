"""Tables that lie in memory, as DataFrames of pandas, polars and others, or in Parquet files."""

from __future__ import annotations

__all__ = ["PARQUET", "as_pandas", "coded_frame", "is_frame", "like_frame", "name_of", "read_frame"]

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .annotated import is_annotated, read_annotated
from .columns import told_of
from .dataset import Dataset, abbreviated, checked
from .lines import MISSING
from .marks import warn_of_marks
from .numerals import labels_of, numbers_of, texts_or_numbers
from .precision import in_single_precision
from .reading import Reading
from .tables import chosen, tabled

PARQUET = (".parquet", ".pq")


def is_frame(x: Any) -> bool:
    """Whether something is a table of named columns: of pandas, polars, pyarrow or alike."""
    if isinstance(x, str | os.PathLike) or isinstance(getattr(x, "x", None), torch.Tensor):
        return False
    named = hasattr(x, "columns") and hasattr(x, "to_numpy")
    return named or hasattr(x, "__dataframe__")


def name_of(source: Any) -> str:
    """What errors call a source."""
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    return type(source).__name__


def read_frame(source: Any, reading: Reading, called: str, *, partly: bool = False) -> Dataset:
    """Read the columns of a DataFrame, or of a Parquet file, by their types.

    ``partly`` says that there are more rows than these, so that a column may be missing in all.

    Raises
    ------
    ValueError
        If a column cannot be modeled or has no value at all, one that is named is no column, or
        the file is damaged.
    """
    frame = _of_file(source) if isinstance(source, Path) else as_pandas(source)
    for name, given in (("header", reading.header), ("thousands", reading.thousands)):
        if given is not None:
            raise ValueError(
                f"{name}={given!r} (--{name}) is of tables in text, and {called} is none; leave it "
                "out"
            )
    names = [str(name) for name in frame.columns]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{called} has several columns {abbreviated(twice)}; rename them")
    if not len(frame):
        raise ValueError(f"{called} has no rows")
    frame = frame.set_axis(names, axis=1)
    markers = [*sorted(MISSING), *reading.marks]
    columns = chosen(names, reading, called)
    kept = [names[i] for i in columns.kept]
    numbers = [_numbers(frame[name], markers, called) for name in kept]
    values, kinds = tabled(
        frame[kept],
        numbers,
        told_of(reading.column, kept, called),
        reading.unseen,
        called,
        lambda row: f"row {row}",
    )
    beside = {
        name: texts_or_numbers(frame.iloc[:, i], None, markers)
        for name, i in columns.besides.items()
    }
    data = Dataset(
        Path(called).stem,
        torch.from_numpy(in_single_precision(values, called, names=kept)),
        None if columns.labeled is None else labels_of(frame.iloc[:, columns.labeled]),
        tuple(kept),
        called,
        context=beside or None,
        columns=kinds,
    )
    return checked(data, partly=True) if partly else warn_of_marks(checked(data))


def coded_frame(x: Any) -> Any:
    """An AnnData, or a DataFrame some of whose columns are no numbers, as a Dataset; else ``x``.

    Raises
    ------
    ValueError
        If a column cannot be modeled.
    """
    if is_annotated(x):
        return read_annotated(x, Reading(), f"x, an {type(x).__name__},")
    if not is_frame(x):
        return x
    from pandas.api import types

    frame = as_pandas(x)
    numeric = (types.is_numeric_dtype(t) and not types.is_bool_dtype(t) for t in frame.dtypes)
    if all(numeric) or not len(frame):
        return x
    data = read_frame(frame, Reading(), f"x, a {type(x).__name__},", partly=True)
    return x if data.columns is None else data


def _of_file(path: Path) -> Any:
    import pandas as pd

    try:
        return pd.read_parquet(path)
    except ImportError as error:
        raise ValueError(
            f"{path} is in Parquet, which needs pyarrow; install it with "
            "python -m pip install 'ppl_vae[disk]'"
        ) from error
    except (ValueError, OSError) as error:
        raise ValueError(
            f"{path} cannot be read as Parquet ({' '.join(str(error).split())}); save it again"
        ) from error


def as_pandas(x: Any) -> Any:
    """A table as a DataFrame of pandas, by Arrow; columns of numbers without it too.

    Raises
    ------
    ValueError
        If pyarrow is not there, and a column is no plain numbers.
    """
    import pandas as pd

    if isinstance(x, pd.DataFrame):
        return x
    try:
        import pyarrow
    except ImportError as error:
        columns = {str(name): x[name].to_numpy() for name in x.columns}
        if other := [name for name, values in columns.items() if values.dtype.kind not in "iufb"]:
            raise ValueError(
                f"x is a {type(x).__name__} with columns that are no plain numbers, "
                f"{abbreviated(other)}, which needs pyarrow; install it with "
                "python -m pip install 'ppl_vae[disk]'"
            ) from error
        return pd.DataFrame(columns)
    return pyarrow.table(x).to_pandas()


def like_frame(frame: Any, given: Any) -> Any:
    """A DataFrame of pandas as a table of the library that another one is of, with its types."""
    import pandas as pd

    library = type(given).__module__.partition(".")[0]
    if isinstance(given, pd.DataFrame) or library not in ("polars", "pyarrow"):
        return frame
    import pyarrow

    schema = pyarrow.table(given).schema
    for field in schema:
        # pandas has whole numbers among which some are missing as floating point.
        if pyarrow.types.is_integer(field.type):
            frame[field.name] = frame[field.name].round()
    if library == "pyarrow":
        return pyarrow.Table.from_pandas(frame, schema=schema, preserve_index=False)
    import polars

    table = pyarrow.Table.from_pandas(frame, preserve_index=False)
    return polars.DataFrame(table).cast(dict(given.schema))


def _numbers(column: Any, markers: list[str], called: str) -> tuple[np.ndarray, np.ndarray]:
    """A column's numbers, NaN where there is something else, and where there is something else."""
    import datetime
    from decimal import Decimal

    import pandas as pd

    given = ~column.isna().to_numpy()
    none = np.full(len(column), np.nan)
    dtype = column.dtype
    if dtype.kind == "c":
        raise ValueError(f"{called} has complex numbers in column {column.name!r}; leave it out")
    if dtype.kind in "mM" or isinstance(dtype, pd.PeriodDtype):
        return none, np.zeros(len(column), bool)
    if isinstance(dtype, pd.CategoricalDtype):
        if pd.api.types.is_numeric_dtype(dtype.categories.dtype):
            return numbers_of(column.astype(np.float64), markers)
        return none, given
    if pd.api.types.is_numeric_dtype(dtype):
        return numbers_of(column, markers)
    cells = column.astype(object).where(given, None)
    if all(isinstance(cell, datetime.date) for cell in cells[given]):
        return none, given
    if all(isinstance(cell, Decimal) for cell in cells[given]):
        cells = cells.map(lambda cell: None if cell is None else float(cell))
    return numbers_of(cells, markers)
