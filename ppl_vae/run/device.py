"""On what, in what precision, and with what log a recipe is fitted."""

from __future__ import annotations

__all__ = ["fabric_of", "tensor_float_32"]

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.loggers.csv_logs import CSVLogger
from lightning_fabric.loggers.tensorboard import TensorBoardLogger

from .recipe import PRECISIONS, Recipe


def fabric_of(recipe: Recipe, folder: Path) -> Fabric:
    """The Fabric of a recipe, whose log goes to ``folder/log``.

    Raises
    ------
    ValueError
        If there is no such device here, several processes were started, or a package is missing.
    """
    if recipe.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device is 'cuda', but PyTorch finds no GPU here; pass cpu or auto")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError(
            "ppl-vae fit is one process; for several, launch a script that calls fit()"
        )
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
    return Fabric(
        accelerator=recipe.device,
        devices=1,
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
