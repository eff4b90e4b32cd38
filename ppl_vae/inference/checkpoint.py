"""The state of a fit on disk: written beside the fit, safe, resumed to the last bit."""

from __future__ import annotations

__all__ = ["Checkpoints", "differences", "load_checkpoint", "save_checkpoint"]

import json
import math
import os
import reprlib
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from torch import Tensor

from ..files import load_tensors, save_tensors

# The latest state, and the one before, to go on from where the latest was damaged.
_FILE, _BEFORE = "fit.safetensors", "fit-before.safetensors"
# The part of a fit's time that checkpoints may cost, and the seconds between two of them at least.
_SHARE, _LEAST = 0.03, 5.0
# Bytes a second that copying, hashing and writing are taken to manage before the first was timed.
_SPEED = 3e8

Groups = Mapping[str, Mapping[str, Tensor]]


class Checkpoints:
    """Keep the state of a fit on disk, the last two of it, in a thread beside the fit.

    Parameters
    ----------
    folder
        Where to; None keeps nothing.
    settings
        What a resumed fit must agree with.
    every
        Seconds between two of them; 0 keeps each that is offered. None chooses what costs less than
        3 % of the time, by the seconds of processors that the last one took, and at least 5.

    Raises
    ------
    ValueError
        If ``every`` is negative or no number.

    Examples
    --------
    >>> import tempfile, torch
    >>> folder = Path(tempfile.mkdtemp())
    >>> with Checkpoints(folder, {"seed": 0}, every=0) as checkpoints:
    ...     checkpoints.offer(lambda: {"vae": {"weight": torch.ones(2)}}, {"loss": [1.0]}, 0.5)
    >>> load_checkpoint(folder, settings={"seed": 0})
    ({'vae': {'weight': tensor([1., 1.])}}, {'loss': [1.0]}, 0.5)
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | None,
        settings: Mapping[str, Any],
        every: float | None = None,
    ) -> None:
        if every is not None and not 0 <= every < math.inf:
            raise ValueError(
                f"checkpoint_every is {every}; pass seconds, 0 for each epoch, or None to choose"
            )
        self._folder = None if folder is None else Path(folder)
        self._settings = settings
        self._every = every
        self._cost: float | None = None
        self._thread: threading.Thread | None = None
        self._failure: Exception | None = None
        self._written = time.perf_counter()

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._wait()
        except Exception as failure:
            if error is None:
                raise
            error.add_note(f"the last checkpoint was not written: {failure}")

    def load(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, list[float]], float] | None:
        """As :func:`load_checkpoint`; None without a folder."""
        if self._folder is None:
            return None
        return load_checkpoint(self._folder, settings=self._settings)

    def offer(
        self,
        state: Callable[[], Groups],
        history: Mapping[str, list[float]],
        seconds: float,
        *,
        last: bool = False,
    ) -> None:
        """Keep the state of this moment, if it is time; the ``last`` one in any case.

        ``state`` is called if it is; what it returns is copied before this method returns. The
        other arguments are those of :func:`save_checkpoint`.

        Raises
        ------
        OSError
            If this or the one before could not be written.
        """
        if self._folder is None:
            return
        busy = self._thread is not None and self._thread.is_alive()
        waited = time.perf_counter() - self._written
        if not last and (waited < self._interval(state) or (busy and self._every is None)):
            return
        self._wait()
        started = time.perf_counter()
        copied = {
            group: {name: tensor.detach().to("cpu", copy=True) for name, tensor in named.items()}
            for group, named in state().items()
        }
        recorded = {name: list(values) for name, values in history.items()}
        self._written = time.perf_counter()
        given = self._folder, copied, recorded, seconds, self._written - started
        self._thread = threading.Thread(target=self._write, args=given, name="checkpoint")
        self._thread.start()
        if last:
            self._wait()

    def _interval(self, state: Callable[[], Groups]) -> float:
        """Seconds from one to the next."""
        if self._every is not None:
            return self._every
        if self._cost is None:
            size = sum(t.nbytes for named in state().values() for t in named.values())
            self._cost = size / _SPEED
        return max(_LEAST, self._cost / _SHARE)

    def _write(
        self,
        folder: Path,
        groups: Groups,
        history: Mapping[str, list[float]],
        seconds: float,
        copying: float,
    ) -> None:
        started = time.thread_time()
        try:
            save_checkpoint(
                folder, groups, settings=self._settings, history=history, seconds=seconds
            )
        except Exception as failure:
            self._failure = failure
        self._cost = copying + time.thread_time() - started

    def _wait(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure


def save_checkpoint(
    folder: Path,
    groups: Groups,
    *,
    settings: Mapping[str, Any],
    history: Mapping[str, list[float]],
    seconds: float,
) -> None:
    """Write the state of a fit, whole or not at all.

    ``groups`` are named groups of tensors, ``settings`` what a resumed fit must agree with,
    ``history`` one list of numbers for each quantity recorded by epoch, and ``seconds`` the time
    that the fit has taken so far.
    """
    tensors = {f"{group}/{key}": t for group, named in groups.items() for key, t in named.items()}
    described = {"settings": settings, "history": history, "seconds": seconds}
    metadata = {key: json.dumps(value) for key, value in described.items()}
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / _FILE).exists():
        os.replace(folder / _FILE, folder / _BEFORE)
    save_tensors(folder / _FILE, tensors, metadata)


def load_checkpoint(
    folder: Path, *, settings: Mapping[str, Any]
) -> tuple[dict[str, dict[str, Tensor]], dict[str, list[float]], float] | None:
    """Read the groups, the history and the seconds back; None where there is no checkpoint yet.

    Raises
    ------
    ValueError
        If the file is damaged, or was written under other settings.
    """
    found = _read(folder)
    if found is None:
        return None
    tensors, metadata = found
    before, now = json.loads(metadata["settings"]), json.loads(json.dumps(settings))
    if before != now:
        raise ValueError(
            f"the checkpoint in {str(folder)!r} is of another fit: "
            f"{'; '.join(differences(before, now))}; "
            "resume with the same settings, or start afresh in another checkpoint_dir"
        )
    groups: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        group, name = key.split("/", 1)
        groups.setdefault(group, {})[name] = tensor
    return groups, json.loads(metadata["history"]), json.loads(metadata["seconds"])


def _read(folder: Path) -> tuple[dict[str, Tensor], dict[str, str]] | None:
    """The latest state that is whole; None where there is none at all.

    Raises
    ------
    ValueError
        If there are some, and all are damaged.
    """
    paths = [folder / name for name in (_FILE, _BEFORE) if (folder / name).exists()]
    for path in paths:
        try:
            tensors, metadata = load_tensors(path)
            for key in ("settings", "history", "seconds"):
                json.loads(metadata[key])
        except (ValueError, KeyError, RecursionError) as error:
            if path == paths[-1]:
                raise ValueError(
                    f"the checkpoint in {str(folder)!r} is damaged ({error}); start afresh in "
                    "another checkpoint_dir"
                ) from error
            warnings.warn(
                f"{str(path)!r} is damaged; the fit goes on from the checkpoint before it",
                RuntimeWarning,
                stacklevel=4,
            )
        else:
            return tensors, metadata
    return None


def differences(before: Any, now: Any, name: str = "") -> list[str]:
    """What differs between two trees of settings, in words, long values abbreviated."""
    if isinstance(before, dict) and isinstance(now, dict):
        return [
            difference
            for key in {**before, **now}
            for difference in differences(
                before.get(key), now.get(key), f"{name}.{key}" if name else key
            )
        ]
    if before == now:
        return []
    return [f"{name} was {reprlib.repr(before)}, is {reprlib.repr(now)}"]
