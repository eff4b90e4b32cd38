"""On what, by how many processes, in what precision, and with what log a recipe is fitted."""

from __future__ import annotations

__all__ = ["fabric_of", "tensor_float_32", "to_start"]

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.loggers.csv_logs import CSVLogger
from lightning_fabric.loggers.tensorboard import TensorBoardLogger

from ..inference.ranks import suitable
from ..processes import place, starter
from .recipe import PRECISIONS, Recipe


def to_start(recipe: Recipe) -> tuple[int, int] | None:
    """How many processes on each of how many machines a command has to start before it fits.

    None where one process is enough, or this is one of several that were started.

    Raises
    ------
    ValueError
        If what was asked for is not what was started, or is not there.

    Examples
    --------
    >>> to_start(Recipe(devices=2, device="cpu")), to_start(Recipe())
    ((2, 1), None)
    """
    there = starter()
    devices, nodes = recipe.devices or 1, recipe.nodes or 1
    if there is not None:
        asked = {
            "--devices": (recipe.devices, there.devices),
            "--nodes": (recipe.nodes, there.nodes),
        }
        for option, (wanted, found) in asked.items():
            if wanted not in (None, found):
                raise ValueError(
                    f"{option} is {wanted}, but {there.name} started {there.devices} processes on "
                    f"each of {there.nodes} machines; leave --devices and --nodes out, or start "
                    "one process for each device"
                )
        _check_devices(recipe, there.devices)
        return None
    if place()[1] > 1 or int(os.environ.get("OMPI_COMM_WORLD_SIZE", 1)) > 1:
        raise ValueError(
            "this is one of several processes that neither torchrun nor srun started, which would "
            "all write one folder; start them by one of these, or by --devices and --nodes"
        )
    _check_devices(recipe, devices)
    if devices * nodes == 1:
        return None
    if nodes > 1 and not {"MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
        raise ValueError(
            f"--nodes is {nodes}, and the machines do not know of each other; set MASTER_ADDR to "
            "the name of one of them and MASTER_PORT to a free port of it, and repeat the command "
            "on each machine; or start it by srun"
        )
    return devices, nodes


def fabric_of(recipe: Recipe, folder: Path) -> Fabric:
    """The Fabric of a recipe, of all processes that were started, whose log goes to ``folder/log``.

    Raises
    ------
    ValueError
        As :func:`to_start`, or if a package is missing.
    """
    to_start(recipe)
    several = starter() is not None
    loggers: list[Any] = []
    if recipe.log == "csv":
        loggers.append(CSVLogger(folder, name="log", flush_logs_every_n_steps=1))
    elif recipe.log == "tensorboard":
        try:
            loggers.append(TensorBoardLogger(folder, name="log", default_hp_metric=False))
        except ModuleNotFoundError as error:
            raise ValueError(
                "--log is 'tensorboard', which is not installed; pip install tensorboard, or pass "
                "csv"
            ) from error
    return suitable(
        devices=None if several else 1,
        accelerator=_kind(recipe) if several else recipe.device,
        precision=PRECISIONS[recipe.precision],
        loggers=loggers,
    )


@contextmanager
def tensor_float_32(allowed: bool) -> Iterator[None]:
    """Let a GPU take products of single precision in TensorFloat-32, if asked to."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if allowed else before)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _kind(recipe: Recipe) -> str:
    """What several processes run on: a GPU of Apple's has no process group."""
    if recipe.device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return recipe.device


def _check_devices(recipe: Recipe, devices: int) -> None:
    if recipe.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device is 'cuda', but PyTorch finds no GPU here; pass cpu or auto")
    if _kind(recipe) == "cuda" and devices > torch.cuda.device_count():
        found = torch.cuda.device_count()
        raise ValueError(
            f"{devices} processes need a GPU each, but PyTorch finds {found} here; pass --devices "
            f"{found}, or --device cpu"
        )
