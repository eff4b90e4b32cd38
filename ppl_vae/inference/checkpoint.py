"""A fit that was stopped, on disk: safe files, no pickle, resumed to the last bit."""

from __future__ import annotations

__all__ = ["load_checkpoint", "save_checkpoint"]

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ..files import load_tensors, save_tensors

_FILE = "fit.safetensors"


def save_checkpoint(
    folder: Path,
    groups: Mapping[str, Mapping[str, Tensor]],
    *,
    settings: Mapping[str, Any],
    history: Mapping[str, list[float]],
) -> None:
    """Write the state of a fit, whole or not at all.

    ``groups`` are named groups of tensors, ``settings`` what a resumed fit must agree with, and
    ``history`` one list of numbers for each quantity recorded by epoch.
    """
    tensors = {f"{group}/{key}": t for group, named in groups.items() for key, t in named.items()}
    metadata = {"settings": json.dumps(settings), "history": json.dumps(history)}
    folder.mkdir(parents=True, exist_ok=True)
    save_tensors(folder / _FILE, tensors, metadata)


def load_checkpoint(
    folder: Path, *, settings: Mapping[str, Any]
) -> tuple[dict[str, dict[str, Tensor]], dict[str, list[float]]] | None:
    """Read the groups and the history back; None where there is no checkpoint yet.

    Raises
    ------
    ValueError
        If the file is damaged, or was written under other settings.
    """
    if not (folder / _FILE).exists():
        return None
    tensors, metadata = load_tensors(folder / _FILE)
    before = json.loads(metadata["settings"])
    now = json.loads(json.dumps(settings))
    changed = [key for key in now if before.get(key) != now[key]]
    if changed:
        differences = "; ".join(f"{key} was {before.get(key)}, is {now[key]}" for key in changed)
        raise ValueError(
            f"the checkpoint in {str(folder)!r} is of another fit: {differences}; "
            "resume with the same settings, or start afresh in another checkpoint_dir"
        )
    groups: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        group, name = key.split("/", 1)
        groups.setdefault(group, {})[name] = tensor
    return groups, json.loads(metadata["history"])
