"""One step of a fit: the loss of a batch, its gradients, and Adam, by one of the engines."""

from __future__ import annotations

__all__ = ["ENGINES", "Step", "choose_engine"]

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from ...components.registry import Choice
from ...processor import reuse_freed_memory
from ..ranks import Ranks
from .cuda import kept
from .recording import Recording, RecordingError, first_line, laid_out_as, random_state_kept
from .watch import Watch

if TYPE_CHECKING:
    from lightning_fabric import Fabric

ENGINES = ("auto", "eager", "graph", "compiled")
# Steps ahead from which "auto" records, which takes about a second and saves one or two
# milliseconds a step, and compiles, which takes five to ten and saves half of one to one more.
_GRAPH_PAYS, _COMPILING_PAYS = 1_000, 10_000
# Recordings of one fit: from then on, what changes would be recorded for too few steps each.
_MOST = 3
# Steps between two comparisons with the program as it stands, at most; before, each power of two.
_COMPARE = 1024
# By how much of its length a replayed gradient may differ from that of the program: rounding to
# bfloat16 in another order makes a few percent. Where a gradient is nearly zero, sums as large as
# the loss round by more than it is.
_WRONG, _ROUNDING = 0.25, 1e-5
# The constants of Adam, as in Kingma & Ba (2015).
_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8


def choose_engine(engine: str, steps: int, model: nn.Module, device: torch.device) -> str:
    """The engine, where ``"auto"`` goes by the number of steps ahead.

    On a CPU, convolutions are not compiled: these are oneDNN's in a graph too, where they take
    nearly all of a step (``python benchmarks/svi_step.py``: 7.9 ms compiled and 7.9 as a graph).
    """
    if engine != "auto":
        return engine
    convolved = device.type == "cpu" and any(isinstance(m, _ConvNd) for m in model.modules())
    if steps >= _COMPILING_PAYS and not convolved:
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
    accumulate
        Into how many parts a batch is split, whose gradients are taken one after the other and
        added: memory holds what one part takes.
    max_gradient_norm
        A larger gradient is scaled down to it.
    engine
        ``"eager"``, ``"graph"`` or ``"compiled"``.
    of_pyro
        Whether the loss runs a Pyro ELBO: see :class:`Recording`.
    optimizer
        ``"adam"``, ``"adamw"`` with an option ``weight_decay``, or a function that makes one of
        ``torch.optim`` from a list of parameters.

    Attributes
    ----------
    state
        Adam's, by name: the number of steps, and of each parameter the two moments.
    """

    def __init__(
        self,
        loss: nn.Module,
        fabric: Fabric,
        *,
        max_gradient_norm: float,
        engine: str,
        accumulate: int = 1,
        of_pyro: bool = True,
        optimizer: str | Callable[..., torch.optim.Optimizer] = "adam",
    ) -> None:
        reuse_freed_memory()
        self.ranks = Ranks(fabric)
        if self.ranks.alone:
            fabric.setup(loss)
        else:  # Fabric would sum gradients in hooks of its own, which cannot be recorded
            fabric.strategy.precision.convert_module(loss).to(fabric.device)
        self.module = loss
        self.fabric = fabric
        self.max_gradient_norm = max_gradient_norm
        self.accumulate = accumulate
        self.engine = engine
        self.of_pyro = of_pyro
        self.recording: Recording | None = None
        self.recorded = 0
        self.replayed = 0
        self.trainable = [p for p in loss.parameters() if p.requires_grad]
        self.other: torch.optim.Optimizer | None = None
        self.weight_decay = 0.0
        if callable(optimizer):
            self.other = optimizer(self.trainable)
            self.initial = [group["lr"] for group in self.other.param_groups]
            self.engine = "eager"
        else:
            self.weight_decay = _weight_decay(optimizer)
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
        self,
        inputs: Sequence[Tensor],
        learning_rate: float,
        *,
        factor: float = 1.0,
        share: float = 1.0,
        whole: bool = True,
        look: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """Take a step; return the loss before it and the norm of its gradient, of all ranks.

        ``whole`` says that this shape of inputs is the one that most steps have, and ``factor``
        what learning rates of another optimizer's own are multiplied by. ``share`` is the part of
        the rows of this step that are in ``inputs``, the others being those of other ranks.
        ``look`` says that code of the user may have run since the last step, and changed what a
        recording read.
        """
        self.rate.fill_(learning_rate)
        if whole and self.engine != "eager":
            self._look(inputs, share, look)
        if whole and self.recording is not None:
            loss, norm = self.recording(*inputs)
            return loss.clone(), norm.clone()
        return self._as_written(inputs, factor, share)

    def _as_written(
        self, inputs: Sequence[Tensor], factor: float, share: float
    ) -> tuple[Tensor, Tensor]:
        """Take a step by running the program."""
        total = []
        for loss in self.losses(inputs):
            self.fabric.backward(loss)
            total.append(loss.detach())
        with torch.no_grad():
            gradients, mean = self.ranks.mean_gradients(
                self.trainable,
                [parameter.grad for parameter in self.trainable],
                reduce(torch.add, total),
                share,
            )
        if self.other is not None:
            for parameter, gradient in zip(self.trainable, gradients, strict=True):
                parameter.grad = gradient
            norm = nn.utils.clip_grad_norm_(self.trainable, self.max_gradient_norm)
            for group, initial in zip(self.other.param_groups, self.initial, strict=True):
                group["lr"] = initial * factor
            self.other.step()
        else:
            norm = self._descend(gradients)
        for parameter in self.trainable:
            parameter.grad = None
        return mean, norm

    def losses(self, inputs: Sequence[Tensor]) -> Iterator[Tensor]:
        """The loss of each part of a batch, in proportion to its rows, one at a time."""
        if self.accumulate == 1:
            yield self.loss(*inputs)
            return
        size = len(inputs[0])
        # A part has two rows at least, also of a short last batch: one row has no variance.
        parts = min(self.accumulate, max(1, size // 2))
        for part in zip(*(each.tensor_split(parts) for each in inputs), strict=True):
            yield self.loss(*part) * (len(part[0]) / size)

    def loss(self, *inputs: Tensor) -> Tensor:
        """The loss in the fabric's precision.

        Fabric's own wrapper would round the inputs too, and allow no gradients but by its
        ``backward``, which cannot be recorded.
        """
        with self.fabric.autocast():
            loss = self.module(*inputs)
        return loss.to(torch.promote_types(loss.dtype, torch.float32))

    def roots(self) -> dict[str, Any]:
        """What the program can see, by the names that messages use."""
        named = {name: child for name, child in vars(self.module).items() if name[0] != "_"}
        programs = {
            name: getattr(child, name)
            for child in self.module.children()
            for name in ("model", "guide")
            if hasattr(child, name)
        }
        return {**self.module._modules, **named, **programs}

    @torch.no_grad()
    def _descend(self, found: Sequence[Tensor | None], *, fused: bool = True) -> Tensor:
        """Adam's step along the gradients that there are; return the norm of all of them.

        If not ``fused``, in operations one by one, for a compiler to fuse with the others.
        """
        each = zip(self.trainable, found, self.first, self.second, strict=True)
        there = [(p, laid_out_as(p, g), m, v) for p, g, m, v in each if g is not None]
        parameters, gradients, first, second = ([row[i] for row in there] for i in range(4))
        norm = torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt()
        excess = (norm / self.max_gradient_norm).clamp(min=1.0).float()
        self.steps.add_(1)
        if fused:
            descend = torch._fused_adamw_ if self.weight_decay else torch._fused_adam_
            descend(
                parameters,
                gradients,
                first,
                second,
                [],
                [self.steps] * len(parameters),
                lr=self.rate,
                beta1=_BETA1,
                beta2=_BETA2,
                weight_decay=self.weight_decay,
                eps=_EPSILON,
                amsgrad=False,
                maximize=False,
                grad_scale=excess,
            )
            return norm
        steps = self.steps.double()
        # They are tensors of their own; the compiler would else compute the powers for each number.
        factors = torch.stack(
            [self.rate / (1 - _BETA1**steps), (1 - _BETA2**steps).rsqrt(), 1 / excess]
        )
        for p, g, m, v in there:
            size, unbias, scale = factors.to(p.dtype)
            g = g * scale
            m.lerp_(g, 1 - _BETA1)
            v.mul_(_BETA2).addcmul_(g, g, value=1 - _BETA2)
            if self.weight_decay:
                p.mul_(1 - self.rate.to(p.dtype) * self.weight_decay)
            p.sub_(size * m / (v.sqrt() * unbias + _EPSILON))
        return norm

    def _look(self, inputs: Sequence[Tensor], share: float, look: bool) -> None:
        """Make sure that a replay of these inputs does what the program would do now."""
        name = None if self.recording is None or not look else self.watch.changed()
        if name is not None:
            self.recording = None
            if self.recorded == _MOST:
                self._run_eagerly(
                    f"{name} changed again after {_MOST} recordings; make it a tensor, whose value "
                    "a recording reads anew, to have it replayed"
                )
        if self.recording is None and self.engine != "eager":
            self._record(inputs, share)
        elif self.recording is not None:
            self.replayed += 1
            if self.replayed % _COMPARE == 0 or self.replayed & (self.replayed - 1) == 0:
                self._compare(inputs, share)

    def _compare(self, inputs: Sequence[Tensor], share: float) -> None:
        """Run the program beside its recording on the same draws: their losses and gradients."""
        assert self.recording is not None
        state = [*self.trainable, *self.module.buffers(), *self.state.values()]
        with kept(state), random_state_kept():
            expected = self._as_written(inputs, 1.0, share)[0].item()
            moments = [m.clone() for m in self.first]
        before = [m.clone() for m in self.first]
        with kept(state), random_state_kept():
            found = self.recording(*inputs)[0].item()
            # A step adds a tenth of the gradient to the first moments.
            each = zip(moments, self.first, before, strict=True)
            errors = [((a - b).norm(), (a - _BETA1 * c).norm()) for a, b, c in each]
        error, length = (torch.stack(norms).norm().item() for norms in zip(*errors, strict=True))
        if not math.isclose(found, expected, rel_tol=1e-2, abs_tol=1e-2) and found == found:
            reason = (
                f"a replayed loss is {found:.6g} where the program says {expected:.6g}, so that it "
                "reads something that changes and cannot be watched, such as a file or an "
                f"iterator; of the {self.replayed} steps replayed, some were those of before"
            )
        elif error > _WRONG * length + _ROUNDING * abs(expected):
            reason = (
                f"the gradient of a replayed step is off by {error:.3g} where that of the program "
                f"is {length:.3g} long; of the {self.replayed} steps replayed, some may have gone "
                "astray: please report this"
            )
        else:
            return
        self.recording = None
        self._run_eagerly(reason)

    def _run_eagerly(self, reason: str) -> None:
        self.engine = "eager"
        warnings.warn(f"fit runs eagerly: {reason}", RuntimeWarning, stacklevel=6)

    def _record(self, inputs: Sequence[Tensor], share: float) -> None:
        """Record the whole step, or go on eagerly and say why."""
        # A program that was compiled once is not compiled again for a few more steps.
        compiled = self.engine == "compiled" and self.recorded == 0
        self.recorded += 1
        self.replayed = 0
        try:
            self.watch = Watch(**self.roots())
            with self.watch.unchanged():
                self.recording = self._recorded(inputs, share, fused=not compiled)
            if compiled:
                self.recording.compile(*inputs, cuda_graph=self.ranks.alone)
        except RecordingError as error:
            self.recording = None
            self._run_eagerly(str(error))
        except Exception as error:
            self.recording = self._recorded(inputs, share, fused=True)
            warnings.warn(
                f"fit replays uncompiled: {first_line(error)}", RuntimeWarning, stacklevel=6
            )

    def _recorded(self, inputs: Sequence[Tensor], share: float, *, fused: bool) -> Recording:
        def step(*inputs: Tensor) -> list[Tensor]:
            moved = [i for i, p in enumerate(self.trainable) if p.requires_grad]
            gradients: list[Tensor | None] = [None] * len(self.trainable)
            total = []
            for loss in self.losses(inputs):
                total.append(loss.detach())
                found = torch.autograd.grad(
                    loss, [self.trainable[i] for i in moved], allow_unused=True
                )
                for i, new in zip(moved, found, strict=True):
                    before = gradients[i]
                    if new is not None:
                        gradients[i] = new if before is None else before + new
            with torch.no_grad():
                gradients, mean = self.ranks.mean_gradients(
                    self.trainable, gradients, reduce(torch.add, total), share
                )
            return [mean, self._descend(gradients, fused=fused)]

        with kept([*self.trainable, *self.module.buffers(), *self.state.values()]):
            return Recording(step, inputs, of_pyro=self.of_pyro)


def _weight_decay(optimizer: str) -> float:
    """The weight decay that an optimizer's name and options say.

    Raises
    ------
    ValueError
        If there is no such optimizer or option.
    """
    choice = Choice.parse(optimizer)
    defaults = {"adam": {}, "adamw": {"weight_decay": 0.01}}
    unknown = choice.options.keys() - defaults.get(choice.name, {}).keys()
    if choice.name not in defaults or unknown:
        raise ValueError(
            f"optimizer is {optimizer!r}; accepted are 'adam', 'adamw:weight_decay=0.01', or a "
            "function that makes an optimizer from a list of parameters"
        )
    decay = {**defaults[choice.name], **choice.options}.get("weight_decay", 0.0)
    if not 0 <= decay < 1:
        raise ValueError(f"weight_decay is {decay}; pass a number from 0 to below 1")
    return float(decay)
