"""Dates as people write them, as days."""

from __future__ import annotations

__all__ = ["DAYS", "SINCE", "days_of", "days_written"]

import re
from typing import Any

import numpy as np

SINCE = "days since 1970-01-01"
DAYS = "days"
_CLOCK = r"(?:[T ]\d{1,2}:\d{2}(?::\d{2}(?:[.,]\d+)?)? ?(?:Z|[-+]\d{2}:?\d{2})?)?"
_ISO = re.compile(rf"(\d{{4}})([-/.])(\d{{1,2}})\2(\d{{1,2}}){_CLOCK}")
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
