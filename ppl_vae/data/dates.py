"""Dates as people write them, as days."""

from __future__ import annotations

__all__ = ["DAYS", "SINCE", "dates_like", "days_of", "days_written"]

import re
from typing import Any

import numpy as np

SINCE = "days since 1970-01-01"
DAYS = "days"
_CLOCK = r"(?:[T ]\d{1,2}:\d{2}(?::\d{2}(?:[.,]\d+)?)? ?(?:Z|[-+]\d{2}:?\d{2})?)?"
_ISO = re.compile(rf"(\d{{4}})([-/.])(\d{{1,2}})\2(\d{{1,2}}){_CLOCK}")
# How people write days, in the order in which they are tried.
_FORMATS = (
    "%Y-%m-%d",
    "%Y/%m/%d",
    "%Y.%m.%d",
    "%d.%m.%Y",
    "%d/%m/%Y",
    "%m/%d/%Y",
    "%d-%m-%Y",
    "%m-%d-%Y",
)
_SHORT = re.compile(rf"(\d{{1,2}})([-/.])(\d{{1,2}})\2(\d{{4}}){_CLOCK}")


def days_of(column: Any) -> tuple[np.ndarray, str]:
    """Days of a column of pandas' dates, periods or durations, ``(row,)``, and what they count."""
    import pandas as pd

    if isinstance(column.dtype, pd.PeriodDtype):
        column = column.dt.to_timestamp()
    if column.dtype.kind == "m":
        return (column / np.timedelta64(1, "D")).to_numpy(np.float64), DAYS
    if getattr(column.dtype, "tz", None) is not None:
        column = column.dt.tz_convert("UTC").dt.tz_localize(None)
    since = np.datetime64("1970-01-01")
    return ((column - since) / np.timedelta64(1, "D")).to_numpy(np.float64), SINCE


def days_written(texts: Any) -> np.ndarray | None:
    """Days since 1970 of texts, NaN where one is not in the calendar; None if they are no dates.

    A year stands first, or last after a day and a month. Of these the day comes first between
    points; between others some cell has to tell.

    Raises
    ------
    ValueError
        If no cell tells whether the day or the month comes first.
    """
    import pandas as pd

    found = texts.map(_ISO.fullmatch)
    if found.notna().all():
        year, month, day = (found.map(lambda match, i=i: match[i]) for i in (1, 3, 4))
    else:
        found = texts.map(_SHORT.fullmatch)
        if not found.notna().all():
            if (found.notna() | texts.map(_ISO.fullmatch).notna()).all():
                raise ValueError("is a date, of which others are written in another way")
            return None
        first, second, year = (found.map(lambda match, i=i: match[i]) for i in (1, 3, 4))
        points = found.map(lambda match: match[2]).eq(".").all()
        ahead, behind = (first.astype(int) > 12).any(), (second.astype(int) > 12).any()
        if not points and ahead == behind:
            raise ValueError("may have the day or the month first; write dates as 2026-11-27")
        points_lead = points and not behind
        day, month = (first, second) if points_lead or ahead else (second, first)
    clock = [
        text[match.end(4) :].replace(",", ".") for text, match in zip(texts, found, strict=True)
    ]
    written = [
        f"{y}-{m:0>2}-{d:0>2}{rest}" for y, m, d, rest in zip(year, month, day, clock, strict=True)
    ]
    dates = pd.Series(pd.to_datetime(written, errors="coerce", format="ISO8601", utc=True))
    days = days_of(dates)[0]
    for i in np.flatnonzero(np.isnan(days)):
        # pandas knows only the years from 1678 to 2261.
        try:
            far = np.datetime64(written[i].strip().replace(" ", "T").removesuffix("Z"), "s")
        except ValueError:
            continue
        days[i] = (far - np.datetime64("1970-01-01")) / np.timedelta64(1, "D")
    return days


def dates_like(days: np.ndarray, cells: Any) -> Any:
    """Dates of days since 1970, or durations of days, as cells of a column are.

    Parameters
    ----------
    days
        Shape ``(cell,)``. They are rounded to whole days where those of the column are whole.
    cells
        Cells of a column of pandas that holds dates, periods, durations or texts of dates, none of
        them missing. Texts with a time of day, or of other years than 1678 to 2261, are written as
        in ISO 8601.

    Examples
    --------
    >>> import pandas as pd
    >>> list(dates_like(np.array([20000.4]), pd.Series(["3.10.2024", "28.10.2024"])))
    ['04.10.2024']
    """
    import datetime

    import pandas as pd

    texts = cells.map(lambda cell: isinstance(cell, str)).all()
    if texts:
        written = cells.str.strip()
        known = days_written(written)
        known = np.array([0.5]) if known is None else known
    elif cells.dtype == object:
        known = days_of(pd.Series(pd.to_datetime(cells, utc=True)))[0]
    else:
        known = days_of(cells)[0]
    whole = bool((known == np.round(known)).all())
    seconds = np.round((np.round(days) if whole else days) * 86400).astype("timedelta64[s]")
    if cells.dtype.kind == "m":
        return pd.Series(seconds).astype(cells.dtype)
    stamps = pd.Series(np.datetime64("1970-01-01", "s") + seconds)
    if isinstance(cells.dtype, pd.PeriodDtype):
        return stamps.dt.to_period(cells.dtype.freq)
    if getattr(cells.dtype, "tz", None) is not None:
        return stamps.dt.tz_localize("UTC").dt.tz_convert(cells.dtype.tz).astype(cells.dtype)
    if cells.dtype.kind == "M":
        return stamps.astype(cells.dtype)
    if not texts:
        plain = all(type(cell) is datetime.date for cell in cells)
        return stamps.map(lambda stamp: stamp.date() if plain else stamp.to_pydatetime())
    for form in _FORMATS if whole else ():
        parsed = pd.to_datetime(written, format=form, errors="coerce")
        if (days_of(parsed)[0] == known).all():
            return stamps.dt.strftime(form)
    return stamps.dt.strftime("%Y-%m-%d" if whole else "%Y-%m-%dT%H:%M:%S")
