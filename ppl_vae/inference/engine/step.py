"""One step of a fit: the loss of a batch, its gradients, and Adam, by one of the engines."""

from __future__ import annotations

__all__ = ["ENGINES", "Step", "choose_engine"]

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .processor import reuse_freed_memory
from .recording import Recording, RecordingError, first_line, kept

if TYPE_CHECKING:
    from lightning_fabric import Fabric

ENGINES = ("auto", "eager", "graph", "compiled")
# Steps ahead from which "auto" records, which takes about a second and saves one or two
# milliseconds a step, and compiles, which takes five to ten and saves half of one to one more.
_GRAPH_PAYS, _COMPILING_PAYS = 1_000, 10_000
# Of Adam, as in Kingma & Ba (2015).
_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8


def choose_engine(engine: str, steps: int) -> str:
    """The engine, where ``"auto"`` goes by the number of steps ahead."""
    if engine != "auto":
        return engine
    if steps >= _COMPILING_PAYS:
        return "compiled"
    return "graph" if steps >= _GRAPH_PAYS else "eager"


class Step:
    """Moves the parameters of a loss down its gradient by Adam.

    Source: Kingma & Ba (2015), algorithm 1.

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

    Attributes
    ----------
    state
        Adam's, by name: the number of steps, and of each parameter the two moments.
    """

    def __init__(
        self, loss: nn.Module, fabric: Fabric, *, max_gradient_norm: float, engine: str
    ) -> None:
        reuse_freed_memory()
        fabric.setup(loss)
        self.module = loss
        self.fabric = fabric
        self.max_gradient_norm = max_gradient_norm
        self.engine = engine
        self.recording: Recording | None = None
        self.trainable = [p for p in loss.parameters() if p.requires_grad]
        self.first = [torch.zeros_like(p) for p in self.trainable]
        self.second = [torch.zeros_like(p) for p in self.trainable]
        self.steps = torch.zeros((), device=fabric.device, dtype=torch.float32)
        # A GPU's fused kernel reads single precision.
        precision = torch.float64 if fabric.device.type == "cpu" else torch.float32
        self.rate = torch.zeros((), device=fabric.device, dtype=precision)

    @property
    def state(self) -> dict[str, Tensor]:
        moments = {"first": self.first, "second": self.second}
        named = {f"{name}.{i}": t for name, each in moments.items() for i, t in enumerate(each)}
        return {"steps": self.steps, **named}

    def __call__(
        self, inputs: Sequence[Tensor], learning_rate: float, *, whole: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Take a step; return the loss before it and the norm of its gradient.

        ``whole`` says that this shape of inputs is the one that most steps have.
        """
        self.rate.fill_(learning_rate)
        if whole and self.recording is None and self.engine != "eager":
            self._record(inputs)
        if whole and self.recording is not None:
            loss, norm = self.recording(*inputs)
            return loss.clone(), norm.clone()
        loss = self.loss(*inputs)
        self.fabric.backward(loss)
        norm = self._descend([parameter.grad for parameter in self.trainable])
        for parameter in self.trainable:
            parameter.grad = None
        return loss.detach(), norm

    def loss(self, *inputs: Tensor) -> Tensor:
        """The loss in the fabric's precision.

        Fabric's own wrapper would round the inputs too, and allow no gradients but by its
        ``backward``, which cannot be recorded.
        """
        with self.fabric.autocast():
            loss = self.module(*inputs)
        return loss.to(torch.promote_types(loss.dtype, torch.float32))

    @torch.no_grad()
    def _descend(self, found: Sequence[Tensor | None], *, fused: bool = True) -> Tensor:
        """Adam's step along the gradients that there are; return the norm of all of them.

        If not ``fused``, in operations one by one, for a compiler to fuse with the others.
        """
        each = zip(self.trainable, found, self.first, self.second, strict=True)
        there = [(p, g, m, v) for p, g, m, v in each if g is not None]
        parameters, gradients, first, second = ([row[i] for row in there] for i in range(4))
        norm = torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt()
        excess = (norm / self.max_gradient_norm).clamp(min=1.0).float()
        self.steps.add_(1)
        if fused:
            torch._fused_adam_(
                parameters,
                gradients,
                first,
                second,
                [],
                [self.steps] * len(parameters),
                lr=self.rate,
                beta1=_BETA1,
                beta2=_BETA2,
                weight_decay=0.0,
                eps=_EPSILON,
                amsgrad=False,
                maximize=False,
                grad_scale=excess,
            )
            return norm
        steps = self.steps.double()
        # A tensor of their own, or the compiler takes the powers anew for each number.
        factors = torch.stack(
            [self.rate / (1 - _BETA1**steps), (1 - _BETA2**steps).rsqrt(), 1 / excess]
        )
        for p, g, m, v in there:
            size, unbias, scale = factors.to(p.dtype)
            g = g * scale
            m.lerp_(g, 1 - _BETA1)
            v.mul_(_BETA2).addcmul_(g, g, value=1 - _BETA2)
            p.sub_(size * m / (v.sqrt() * unbias + _EPSILON))
        return norm

    def _record(self, inputs: Sequence[Tensor]) -> None:
        """Record the whole step, or go on eagerly and say why."""
        compiled = self.engine == "compiled"
        try:
            self.recording = self._recorded(inputs, fused=not compiled)
            if compiled:
                self.recording.compile(*inputs, cuda_graph=True)
        except RecordingError as error:
            self.engine = "eager"
            warnings.warn(f"fit runs eagerly: {error}", RuntimeWarning, stacklevel=5)
        except Exception as error:
            self.recording = self._recorded(inputs, fused=True)
            warnings.warn(
                f"fit replays uncompiled: {first_line(error)}", RuntimeWarning, stacklevel=5
            )

    def _recorded(self, inputs: Sequence[Tensor], *, fused: bool) -> Recording:
        def step(*inputs: Tensor) -> list[Tensor]:
            loss = self.loss(*inputs)
            gradients = torch.autograd.grad(loss, self.trainable, allow_unused=True)
            return [loss.detach(), self._descend(gradients, fused=fused)]

        with kept([*self.trainable, *self.module.buffers(), *self.state.values()]):
            return Recording(step, inputs)
