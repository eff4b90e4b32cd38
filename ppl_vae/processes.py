"""Which of several processes this is, as whatever started them says."""

from __future__ import annotations

__all__ = ["LostError", "Starter", "place", "starter"]

import os
import sys
from typing import NamedTuple


class LostError(ConnectionError):
    """Another process of a fit is gone."""


class Starter(NamedTuple):
    """What started the processes of a job: its name, and how many it started where."""

    name: str
    devices: int
    nodes: int


def place() -> tuple[int, int]:
    """The rank of this process, and how many there are.

    They are those of torch.distributed where it runs, else those that ``torchrun`` or ``srun`` has
    put into the environment.

    Examples
    --------
    >>> place()
    (0, 1)
    """
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    if "RANK" in os.environ or "WORLD_SIZE" in os.environ:
        return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    tasks = _tasks()
    return (int(os.environ["SLURM_PROCID"]) if tasks > 1 else 0), tasks


def starter() -> Starter | None:
    """What started this process among others; None where it was started by itself."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        local = int(os.environ["LOCAL_WORLD_SIZE"])
        return Starter("torchrun", local, int(os.environ["WORLD_SIZE"]) // local)
    tasks = _tasks()
    if tasks == 1:
        return None
    nodes = int(os.environ.get("SLURM_STEP_NUM_NODES", 1))
    return Starter("srun", tasks // nodes, nodes)


def _tasks() -> int:
    """How many tasks srun has started; within sbatch alone, one runs whatever was asked for."""
    return int(os.environ.get("SLURM_STEP_NUM_TASKS", 1))
