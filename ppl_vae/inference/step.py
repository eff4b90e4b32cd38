"""One step of a fit: the loss of a batch, its gradients, and Adam, by one of the engines."""

from __future__ import annotations

__all__ = ["ENGINES", "Step", "choose_engine"]

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..memory import reuse_freed_memory
from .recording import Recording, RecordingError, first_line, kept

if TYPE_CHECKING:
    from lightning_fabric import Fabric

ENGINES = ("auto", "eager", "graph", "compiled")
# Steps ahead from which "auto" records, which takes about a second and saves one or two
# milliseconds a step, and compiles, which takes five to ten and saves half of one to one more.
_GRAPH_PAYS, _COMPILING_PAYS = 1_000, 10_000


def choose_engine(engine: str, steps: int) -> str:
    """The engine, where ``"auto"`` goes by the number of steps ahead."""
    if engine != "auto":
        return engine
    if steps >= _COMPILING_PAYS:
        return "compiled"
    return "graph" if steps >= _GRAPH_PAYS else "eager"


class Step:
    """Moves the parameters of a loss down its gradient by Adam.

    Parameters
    ----------
    loss
        ``loss(*inputs)`` is a number to minimize, such as minus the ELBO of a batch.
    fabric
        On what, and in what precision.
    max_gradient_norm
        A larger gradient is scaled down to it.
    engine
        ``"eager"``, ``"graph"`` or ``"compiled"``.
    """

    def __init__(
        self, loss: nn.Module, fabric: Fabric, *, max_gradient_norm: float, engine: str
    ) -> None:
        reuse_freed_memory()
        self.fabric = fabric
        self.max_gradient_norm = max_gradient_norm
        self.engine = engine
        self.trainable = [p for p in loss.parameters() if p.requires_grad]
        self.buffers = list(loss.buffers())
        self.adam = torch.optim.Adam(self.trainable, fused=True)
        self.module = loss
        self.optimizer = fabric.setup(loss, self.adam)[1]
        self.recording: Recording | None = None
        self.reached: list[Tensor] = []

    def __call__(
        self, inputs: Sequence[Tensor], learning_rate: float, *, whole: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Take a step; return the loss before it and the norm of its gradient.

        ``whole`` says that this shape of inputs is the one that most steps have.
        """
        self.adam.param_groups[0]["lr"] = learning_rate
        if whole and self.recording is None and self.engine != "eager":
            self._record(inputs)
        if self.recording is not None and whole:
            if self.fabric.device.type == "cuda":
                torch.compiler.cudagraph_mark_step_begin()
            loss, norm, excess, *gradients = self.recording(*inputs)
            self._update(gradients, excess)
            return loss.clone(), norm.clone()
        loss = self.loss(*inputs)
        self.fabric.backward(loss)
        gradients = [p.grad for p in self.trainable if p.grad is not None]
        norm, excess = self._measure(gradients)
        if self.recording is None:
            self._step(excess)
        else:
            self._update(gradients, excess)
            self.optimizer.zero_grad(set_to_none=True)
        return loss.detach(), norm

    def loss(self, *inputs: Tensor) -> Tensor:
        """The loss in the fabric's precision.

        Fabric's own wrapper would round the inputs too, and allow no gradients but by its
        ``backward``, which cannot be recorded.
        """
        with self.fabric.autocast():
            loss = self.module(*inputs)
        return loss.to(torch.promote_types(loss.dtype, torch.float32))

    def _measure(self, gradients: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """The norm of the whole gradient, and what to divide it by."""
        norm = torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt()
        return norm, (norm / self.max_gradient_norm).clamp(min=1.0).float()

    def _step(self, excess: Tensor) -> None:
        # Adam divides by it as it goes through the gradients.
        self.adam.grad_scale = excess  # type: ignore[attr-defined]
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def _update(self, gradients: list[Tensor], excess: Tensor) -> None:
        """What ``_step`` does, less what a small step would spend a third of its time on.

        Adam's own step looks for a GPU's driver first, and counts steps by parameter.
        """
        states = [self.adam.state[parameter] for parameter in self.reached]
        if not all(states):
            for parameter, gradient in zip(self.reached, gradients, strict=True):
                parameter.grad = gradient
            self._step(excess)
            return
        steps = states[0]["step"]
        for state in states:
            state["step"] = steps
        group = self.adam.param_groups[0]
        with torch.no_grad():
            steps.add_(1)
            torch._fused_adam_(
                self.reached,
                gradients,
                [state["exp_avg"] for state in states],
                [state["exp_avg_sq"] for state in states],
                [],
                [steps] * len(states),
                lr=group["lr"],
                beta1=group["betas"][0],
                beta2=group["betas"][1],
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                amsgrad=False,
                maximize=False,
                grad_scale=excess,
            )

    def _record(self, inputs: Sequence[Tensor]) -> None:
        """Record the loss and its gradients, or go on eagerly and say why."""

        def function(*inputs: Tensor) -> list[Tensor]:
            loss = self.loss(*inputs)
            found = torch.autograd.grad(loss, self.trainable, allow_unused=True)
            pairs = [(p, g) for p, g in zip(self.trainable, found, strict=True) if g is not None]
            self.reached = [parameter for parameter, _ in pairs]
            gradients = [gradient for _, gradient in pairs]
            return [loss.detach(), *self._measure(gradients), *gradients]

        try:
            with kept(self.buffers):
                self.recording = Recording(function, inputs)
            if self.engine == "compiled":
                self.recording.compile(*inputs, cuda_graph=True)
        except RecordingError as error:
            self.engine = "eager"
            warnings.warn(f"fit runs eagerly: {error}", RuntimeWarning, stacklevel=5)
        except Exception as error:
            warnings.warn(
                f"fit replays uncompiled: {first_line(error)}", RuntimeWarning, stacklevel=5
            )
