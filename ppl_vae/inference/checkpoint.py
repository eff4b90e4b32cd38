"""A fit that was stopped, on disk: safe files, no pickle, resumed to the last bit."""

from __future__ import annotations

__all__ = ["load_checkpoint", "save_checkpoint"]

import json
import os
import reprlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ..files import load_tensors, save_tensors

# The latest state, and the one before, to go on from where the latest was damaged.
_FILE, _BEFORE = "fit.safetensors", "fit-before.safetensors"


def save_checkpoint(
    folder: Path,
    groups: Mapping[str, Mapping[str, Tensor]],
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
            f"{'; '.join(_differences(before, now))}; "
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


def _differences(before: Any, now: Any, name: str = "") -> list[str]:
    """What differs between two trees of settings, in words, long values abbreviated."""
    if isinstance(before, dict) and isinstance(now, dict):
        return [
            difference
            for key in {**before, **now}
            for difference in _differences(
                before.get(key), now.get(key), f"{name}.{key}" if name else key
            )
        ]
    if before == now:
        return []
    return [f"{name} was {reprlib.repr(before)}, is {reprlib.repr(now)}"]
