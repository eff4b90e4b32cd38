"""A run folder while it is written: locked, beside its final place, and moved there when whole."""

from __future__ import annotations

__all__ = ["Unfinished", "free_folder", "partial_of", "unfinished"]

import fcntl
import json
import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_LOCK = ".lock"
# The files that a run writes. Nothing else is ever removed.
_WRITTEN = (
    *("config.json", "metrics.json", "reproduction.json", "vae.safetensors", "report.html"),
    *("history.nc", "posterior.nc", "diagnosis.nc", "diagnosis.txt", "samples.npz"),
    "map.nc",
    *("losses.png", "reconstructions.png", "prior_draws.png", "latents.png", "training.gif"),
    *("diagnosis.png", "calibration.png", "traversals.png", "latent_map.png"),
    *("interpolation.png", "manifold.png", _LOCK),
)
_CHECKPOINT = "checkpoint"
# What loggers of Fabric write.
_LOGGED = ("log/version_*/metrics.csv", "log/version_*/events.out.tfevents.*")


@dataclass
class Unfinished:
    """A run that is being written into ``folder``, to be moved to ``out``."""

    out: Path
    folder: Path


def free_folder(name: str, parent: Path = Path("runs")) -> Path:
    """The first of ``runs/name``, ``runs/name-2``, ... that does not exist yet.

    A path such as ``..`` is named after the folder that it leads to.
    """
    if name in ("", ".", ".."):
        name = Path(name).resolve().name or "data"
    number = 1
    while True:
        folder = parent / (name if number == 1 else f"{name}-{number}")
        if not (os.path.lexists(folder) or os.path.lexists(partial_of(folder))):
            return folder
        number += 1


@contextmanager
def unfinished(out: Path, *, force: bool, resume: bool) -> Iterator[Unfinished]:
    """Write a run beside ``out``, and move it there when the block ends.

    The folder is ``out`` with ``.partial`` behind its name, locked against other processes. With
    ``force`` it replaces a run folder, of which only what runs write is removed. A folder that
    somebody else makes at ``out`` meanwhile stays as it is, and the run goes to the next free
    name, with a warning. What ends the block early has the folder as its attribute ``unfinished``
    where there is something to resume.

    Raises
    ------
    FileExistsError
        If something is in the way, or the run is being written by another process.
    FileNotFoundError
        If there is nothing to resume.
    OSError
        If ``out`` could not be written in the end.
    """
    partial, aside = partial_of(out), out.with_name(f"{out.name}.replaced")
    _check_place(out)
    if aside.is_dir() and not os.path.lexists(out):
        os.rename(aside, out)  # a process was killed between two renames
    there = _check_replaceable(out, force)
    if resume and not partial.exists():
        raise FileNotFoundError(
            f"--resume found no unfinished run {str(partial)!r}; leave it out to start one"
        )
    made = not partial.exists()
    try:
        partial.mkdir(parents=True, exist_ok=True)
        lock = (partial / _LOCK).open("a")
    except OSError as error:
        raise type(error)(f"--out is {str(out)!r}, which cannot be written: {error}") from error
    with lock:
        _take(lock.fileno(), partial)
        if not (made or resume):
            if not force:
                raise FileExistsError(
                    f"{str(partial)!r} holds an unfinished run; go on with it by --resume, or "
                    "discard it by --force"
                )
            _remove(partial, keep=(_LOCK,))
        work = Unfinished(out, partial)
        try:
            yield work
        except BaseException as stop:
            # Without a checkpoint there is nothing to resume.
            if (partial / _CHECKPOINT).exists():
                stop.unfinished = partial  # type: ignore[attr-defined]
            else:
                _remove(partial)
            raise
        if os.path.lexists(out) and _identity(out) != there:
            work.out = _next_free(out)
            warnings.warn(
                f"{str(out)!r} was made by somebody else while the fit ran, and is left as it is; "
                f"the run is in {str(work.out)!r}",
                RuntimeWarning,
                stacklevel=3,
            )
        elif there is not None:
            if os.path.lexists(aside):
                aside = _next_free(aside)
            os.rename(out, aside)
        os.rename(partial, work.out)
        shutil.rmtree(work.out / _CHECKPOINT, ignore_errors=True)
        (work.out / _LOCK).unlink(missing_ok=True)
        if there is not None and work.out == out:
            _remove(aside)


def partial_of(out: Path) -> Path:
    """Where a run is written before it is whole."""
    return out.with_name(f"{out.name}.partial")


def _check_place(out: Path) -> None:
    """Refuse at the start what could not be moved to in the end."""
    if out.name in ("", ".", ".."):
        raise ValueError(
            f"--out is {str(out)!r}, a way to a folder that is there; pass the name of a new one"
        )
    for path in (out, partial_of(out)):
        if path.is_symlink():
            raise FileExistsError(
                f"--out is {str(out)!r}, and {str(path)!r} is a symbolic link, which is not "
                "replaced; pass another folder"
            )
        if os.path.ismount(path):
            raise FileExistsError(
                f"--out is {str(out)!r}, a mount point, which cannot be replaced; pass a folder "
                f"inside of it, such as {str(out / 'run')!r}"
            )
    here = Path.cwd().resolve()
    if here.is_relative_to(out.resolve()):
        raise FileExistsError(
            f"--out is {str(out)!r}, which holds the current folder; pass another folder"
        )


def _check_replaceable(out: Path, force: bool) -> tuple[int, int] | None:
    """What is at ``out`` that may be replaced, or None where there is nothing."""
    if not os.path.lexists(out):
        return None
    if not force:
        raise FileExistsError(
            f"--out is {str(out)!r}, which exists; choose another folder, or pass --force"
        )
    try:
        run = "ppl_vae" in json.loads((out / "config.json").read_text())
    except (OSError, ValueError):
        run = False
    if not run and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(
            f"--out is {str(out)!r}, which exists and is no run folder, so that --force does not "
            "replace it; choose another folder"
        )
    return _identity(out)


def _identity(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_dev, found.st_ino


def _take(descriptor: int, partial: Path) -> None:
    """Lock a run, or say that another process writes it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        mine = os.fstat(descriptor).st_ino == (partial / _LOCK).stat().st_ino
    except OSError:
        mine = False
    if not mine:
        raise FileExistsError(
            f"{str(partial)!r} is being written by another process; wait for it, or pass another "
            "--out"
        )


def _next_free(out: Path) -> Path:
    return free_folder(out.name, out.parent)


def _remove(folder: Path, keep: tuple[str, ...] = ()) -> None:
    """Remove what a run wrote into a folder, and the folder if nothing else is in it."""
    for name in _WRITTEN:
        if name not in keep:
            with suppress(OSError):
                (folder / name).unlink()
    checkpoint = folder / _CHECKPOINT
    for path in checkpoint.glob("*.safetensors"):
        path.unlink(missing_ok=True)
    for path in folder.glob(".*.writing*"):
        path.unlink(missing_ok=True)
    for pattern in _LOGGED:
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)
    for made in (checkpoint, *folder.glob("log/version_*"), folder / "log"):
        with suppress(OSError):
            made.rmdir()
    left = [path.name for path in folder.iterdir() if path.name not in keep]
    if left:
        warnings.warn(
            f"{str(folder)!r} keeps {', '.join(sorted(left)[:5])}, which no run wrote",
            RuntimeWarning,
            stacklevel=4,
        )
    elif not keep:
        folder.rmdir()
