"""Which regions of an unfinished store are there, noted in a folder beside it."""

from __future__ import annotations

__all__ = ["beside", "finished", "locked", "rows_in"]

import fcntl
import json
import os
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any


def beside(path: Path) -> Path:
    """Where it is noted which regions of an unfinished store are there."""
    return path.with_name(f"{path.name}.unfinished")


def locked(folder: Path, name: str = "lock", *, shared: bool = False) -> IO[str] | None:
    """The lock in a folder, taken; None where it was removed before it was ours."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    try:
        lock = path.open("a")
    except FileNotFoundError:
        return None
    fcntl.flock(lock, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
    try:
        if os.fstat(lock.fileno()).st_ino == path.stat().st_ino:
            return lock
    except FileNotFoundError:
        pass
    lock.close()
    return None


def finished(path: Path) -> set[int]:
    """The regions that are on the lists, and whose files are there as they were written."""
    done = set()
    for log in beside(path).glob("finished-*"):
        for line in log.read_text().splitlines():
            with suppress(ValueError, OSError, KeyError):
                noted = json.loads(line)  # what a kill cut off is no JSON
                files = noted["bytes"].items()
                if all((path / file).stat().st_size == size for file, size in files):
                    done.add(noted["region"])
    return done


def rows_in(regions: Collection[int], description: Mapping[str, Any]) -> int:
    size, rows = description["region_rows"], description["num_rows"]
    return sum(min(size, rows - index * size) for index in regions)
