"""The processes of a fit: what they sum, what they agree on, and what each draws by itself."""

from __future__ import annotations

__all__ = ["Ranks", "launched", "suitable"]

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, distributed, nn

from ..processes import LostError, starter
from .checkpoint import differences

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Value = TypeVar("Value")
# How long a process waits for the others before it ends with an error.
_PATIENCE = timedelta(minutes=10)
# What gloo, NCCL and the store of a process group say when a process is gone.
_LOST = re.compile(r"gloo|nccl|connection|timed out|broken pipe|store|peer", re.IGNORECASE)


def suitable(
    fabric: Fabric | None = None,
    *,
    devices: int | None = None,
    num_nodes: int | None = None,
    **options: Any,
) -> Fabric:
    """A Fabric that a fit can run on: the one given, or one of the processes that there are.

    Processes that ``torchrun``, ``fabric run`` or ``srun`` started fit together; else there is one.

    Parameters
    ----------
    fabric
        What the user gave.
    devices, num_nodes
        How many processes on each machine, and how many machines; None for what was started.
    options
        Others of Fabric's, such as ``precision``.

    Raises
    ------
    ValueError
        If its precision scales losses, or its strategy is not one process a device, each with all
        parameters.

    Examples
    --------
    >>> suitable(accelerator="cpu").world_size
    1
    """
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
    from lightning_fabric.strategies.ddp import DDPStrategy

    if fabric is None:
        if distributed.is_initialized():
            raise ValueError(
                f"torch.distributed runs {distributed.get_world_size()} processes already; pass "
                "the Fabric that launched them as fabric, or Fabric(devices=1) to fit in each alone"
            )
        if "LT_CLI_USED" in os.environ and devices is None:
            return suitable(Fabric(**options))
        started = starter()
        if devices is None and started is not None:
            devices, num_nodes = started.devices, started.nodes
        local, nodes = devices or 1, num_nodes or 1
        made: dict[str, Any] = {"accelerator": "auto", **options}
        if local * nodes > 1:
            made.setdefault("strategy", DDPStrategy(timeout=_PATIENCE))
        try:
            if started is not None and started.name == "srun":
                made.setdefault("plugins", [SLURMEnvironment(auto_requeue=False)])
            fabric = Fabric(devices=local, num_nodes=nodes, **made)
        except RuntimeError as error:  # Fabric's check of what Slurm was asked for
            raise ValueError(str(error)) from error
    if getattr(fabric.strategy.precision, "scaler", None) is not None:
        raise ValueError(
            "fabric's precision is '16-mixed', which scales losses and gradients; pass "
            "Fabric(precision='bf16-mixed'), which has no need to"
        )
    if fabric.world_size > 1 and not isinstance(fabric.strategy, DDPStrategy):
        raise ValueError(
            f"fabric's strategy is {type(fabric.strategy).__name__}, but each process of a fit has "
            "all parameters; pass Fabric(strategy='ddp')"
        )
    return fabric


def launched(fabric: Fabric) -> Fabric:
    """Start the processes of a Fabric, and their process group, unless they run."""
    if not fabric._launched:
        fabric.launch()
    return fabric


class Ranks:
    """The processes that a fit runs in, each of which has a rank.

    Every method is called by all of them, in the same order; alone, a process does nothing for it.

    Parameters
    ----------
    fabric
        As :func:`launched` returns it.

    Attributes
    ----------
    rank, world
        Which of how many this process is.

    Examples
    --------
    >>> ranks = Ranks(launched(suitable(accelerator="cpu")))
    >>> ranks.rank, ranks.world, ranks.total(2.0)
    (0, 1, 2.0)
    """

    def __init__(self, fabric: Fabric) -> None:
        self.rank: int = fabric.global_rank
        self.world: int = fabric.world_size
        self.device = fabric.device

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and shows progress."""
        return self.rank == 0

    @property
    def alone(self) -> bool:
        """Whether there is no other."""
        return self.world == 1

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all ranks, the same bits on each. It can be recorded."""
        if self.alone:
            return tensor
        group = distributed.group.WORLD
        assert group is not None
        ops: Any = torch.ops._c10d_functional
        return ops.wait_tensor(ops.all_reduce(tensor.contiguous(), "sum", group.group_name))

    def total(self, value: float) -> float:
        """The sum of one number of each rank."""
        if self.alone:
            return value
        # A GPU of Apple's has no double precision, and no process group either.
        return self.sum(torch.tensor([value], dtype=torch.float64, device=self.device)).item()

    def mean_gradients(
        self,
        parameters: Sequence[Tensor],
        gradients: Sequence[Tensor | None],
        loss: Tensor,
        share: float,
    ) -> tuple[list[Tensor | None], Tensor]:
        """The gradients and the loss of the rows of all ranks, summed as one flat buffer.

        ``share`` is the part of these rows that this rank has. A parameter that it did not use has
        a gradient of zero, as another rank may have used it; a frozen one has none.
        """
        if self.alone:
            return list(gradients), loss
        moved = [i for i, p in enumerate(parameters) if p.requires_grad]
        found = [gradients[i] for i in moved]
        each = [
            (torch.zeros_like(parameters[i]) if g is None else g).flatten()
            for i, g in zip(moved, found, strict=True)
        ]
        flat = self.sum(torch.cat([*each, loss.reshape(1)]) * share)
        *parts, mean = flat.split([*(len(part) for part in each), 1])
        summed: list[Tensor | None] = [None] * len(parameters)
        for i, part in zip(moved, parts, strict=True):
            summed[i] = part.view(parameters[i].shape).to(parameters[i].dtype)
        return summed, mean.reshape(()).to(loss.dtype)

    @torch.no_grad()
    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their means over all ranks, in place."""
        if not self.alone:
            for tensor in tensors:
                tensor.copy_(self.sum(tensor) / self.world)

    @torch.no_grad()
    def follow_first(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by those of rank 0, in place."""
        if not self.alone:
            for tensor in tensors:
                sent = tensor.contiguous()
                distributed.broadcast(sent, src=0)
                tensor.copy_(sent)

    def made_by_first(self, make: Callable[[], Value]) -> Value:
        """What rank 0 makes, for all; what it raises is raised by all."""
        if self.alone:
            return make()
        made: list[Any] = [None, None]
        if self.first:
            try:
                made[0] = make()
            except Exception as error:
                made[1] = error
        with self.together():
            distributed.broadcast_object_list(made, src=0)
        if made[1] is not None:
            raise made[1]
        return made[0]

    def made_by_each(self, make: Callable[[], Value]) -> Value:
        """What this rank makes, if all of them do.

        Raises
        ------
        ValueError
            If another rank could not, on those that could.
        Exception
            What ``make`` raises.
        """
        if self.alone:
            return make()
        found: Value | None = None
        failure: Exception | None = None
        try:
            found = make()
        except Exception as error:
            failure = error
        said: list[str | None] = [None] * self.world
        with self.together():
            distributed.all_gather_object(said, None if failure is None else str(failure))
        if failure is not None:
            raise failure
        for rank, words in enumerate(said):
            if words is not None:
                raise ValueError(f"rank {rank} of {self.world}: {words}")
        return found  # type: ignore[return-value]

    def leave(self) -> None:
        """End the process group, after which each process goes on by itself."""
        if not self.alone:
            distributed.destroy_process_group()

    def agree(self, model: nn.Module, settings: Mapping[str, Any]) -> None:
        """See that all ranks fit the same model to the same rows, and start from rank 0's weights.

        Raises
        ------
        ValueError
            If they do not, on each of them.
        """
        if self.alone:
            return
        shapes = {name: str(tuple(value.shape)) for name, value in model.state_dict().items()}
        mine = json.loads(json.dumps({**settings, "shapes": shapes}))
        every: list[Any] = [None] * self.world
        distributed.all_gather_object(every, mine)
        for rank, other in enumerate(every):
            if other != every[0]:
                raise ValueError(
                    f"the processes of this fit were given different arguments: of rank 0 and "
                    f"{rank}, {'; '.join(differences(every[0], other))}; give all of them the same"
                )
        self.follow_first(list(model.state_dict().values()))

    @contextmanager
    def own_noise(self) -> Iterator[None]:
        """Draw what only this rank draws; afterwards all go on from the same random state."""
        if self.alone:
            yield
            return
        devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(int(torch.randint(2**62, ())) + self.rank)
            yield

    @contextmanager
    def together(self) -> Iterator[None]:
        """Say in one sentence that another process is gone.

        Raises
        ------
        LostError
            If it is.
        """
        try:
            yield
        except RuntimeError as error:
            if self.alone or not _LOST.search(str(error)):
                raise
            said = str(error).strip().partition("\n")[0]
            raise LostError(
                f"rank {self.rank} of {self.world}: another process of this fit ended, or did not "
                f"answer ({said}). See what that one said; then start all of them again, with "
                "resume to go on from the last checkpoint"
            ) from error
