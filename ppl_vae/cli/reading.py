"""Rows that a command is given for a finished run, read whole or as they are needed."""

from __future__ import annotations

__all__ = ["Given", "rows_of", "to_write_into"]

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .options import STORE, source_of, writable

if TYPE_CHECKING:
    from ..data import Dataset
    from ..run import Run

_OPTIONS = ("label", "drop", "image_size", "header", "missing", "thousands")


@dataclass(frozen=True)
class Given:
    """Rows as those of the run, and what was read with them where all of it was read."""

    x: Any
    feature_names: Any
    dataset: Dataset | None

    @property
    def covariates(self) -> Any:
        """Those of the rows, if there are some."""
        return None if self.dataset is None else self.dataset.covariates


def rows_of(
    run: Run,
    data: str,
    *,
    data_root: Path | None = None,
    unseen: str = "refuse",
    layer: str | None = None,
    **options: Any,
) -> Given:
    """The rows of DATA, matched to those of a run.

    A .zarr array, and a .parquet file whose columns need no codes, are read as they are needed.

    Raises
    ------
    ValueError, TypeError, OSError
        If they cannot be read, or an option does not apply.
    """
    from ..data import load_data

    # Columns of levels and those beside the rows are read by what the fit remembers of them.
    by_name = run.columns or run.codings
    if Path(data).suffix == STORE or (Path(data).suffix == ".parquet" and not by_name):
        for name in _OPTIONS:
            if options.get(name):
                raise ValueError(
                    f"--{name.replace('_', '-')} is of tables and images, and DATA is {data!r}"
                )
        return Given(run.rows_at(data), run.settings.get("features"), None)
    given: dict[str, Any] = {name: options.get(name) for name in _OPTIONS}
    source = source_of(data, data_root, layer=layer, **given)
    kept = {"context": run.codings, "column": run.columns, "unseen": unseen}
    read = load_data(split=None, **{**source, **kept})
    return Given(run.rows(read), read.feature_names, read)


def to_write_into(folder: Path) -> Run:
    """The run in a folder, refused at the start where nothing could be written at the end."""
    from ..run import Run

    run = Run(folder)
    writable(folder, f"RUN is {str(folder)!r}, which")
    return run
