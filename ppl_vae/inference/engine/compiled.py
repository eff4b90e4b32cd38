"""A Pyro program at the speed of hand-written PyTorch: recorded once, replayed without Pyro."""

from __future__ import annotations

__all__ = ["CompiledTraceMeanField_ELBO", "CompiledTrace_ELBO"]

import inspect
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import pyro
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from pyro.poutine.runtime import _PYRO_STACK
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import _get_current_dispatch_mode

from .recording import Recording, RecordingError, first_line, kept

# Replays of a program before it is compiled, so that rare shapes (the last batch of an epoch) are
# not: to compile takes seconds, and replaying uncompiled is most of the gain.
_REPLAYS = 10
# Recordings that one objective keeps; more mean that something else than tensors keeps changing.
_MOST = 32


def _leaves(loss: Tensor) -> list[Tensor]:
    """The tensors that ``loss.backward()`` would give gradients to."""
    found: list[Tensor] = []
    seen: set[Any] = {None}
    stack: list[Any] = [loss.grad_fn]
    while stack:
        node = stack.pop()
        if node not in seen:
            seen.add(node)
            found += [node.variable] if hasattr(node, "variable") else []
            stack.extend(parent for parent, _ in node.next_functions)
    return found


class _Replay:
    """A recorded loss with its gradients, and the parameters that these belong to."""

    def __init__(self, loss: Callable[..., Tensor], inputs: Sequence[Tensor]) -> None:
        def function(*inputs: Tensor) -> list[Tensor]:
            with pyro.poutine.trace(param_only=True) as params:
                value = loss(*inputs)
            self.names = list(params.trace.nodes)
            self.leaves = _leaves(value) if isinstance(value, Tensor) else []
            if not self.leaves:
                raise RecordingError("the loss depends on no parameter")
            gradients = torch.autograd.grad(value, self.leaves)
            # Gradients of two parameters that are only ever added are one tensor.
            return [value.detach(), *(gradient.clone() for gradient in gradients)]

        self.recording = Recording(function, inputs)
        self.calls = 0

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        loss, *gradients = self.recording(*inputs)
        # SVI learns from these messages what to optimize.
        for name in self.names if _PYRO_STACK else ():
            pyro.param(name)
        return loss, gradients


class _Program:
    """A model and a guide with arguments of one kind: what they depend on, and its replays."""

    def __init__(self, model: Callable[..., Any], guide: Callable[..., Any]) -> None:
        self.replays: dict[Any, _Replay | RecordingError | None] = {}
        seen = [*_visible(model), *_visible(guide)]
        self.modules = {id(value): value for value in seen if isinstance(value, nn.Module)}

    def state(self) -> Any:
        """What a replay depends on besides its inputs, as far as it may change."""
        modules = tuple(
            (
                module.training,
                *map(id, module._modules.values()),
                *map(_identity, module._parameters.values()),
                *map(_identity, module._buffers.values()),
            )
            for module in self.modules.values()
        )
        named = pyro.get_param_store().named_parameters()
        return modules, tuple((name, _identity(value)) for name, value in named)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """See which modules an eager run calls; the next one like it is recorded."""

        def add(module: nn.Module, _: Any) -> None:
            self.modules[id(module)] = module

        hook = nn.modules.module.register_module_forward_pre_hook(add)
        try:
            yield
        finally:
            hook.remove()
        self.replays[self.state()] = None

    def record(self, loss: Callable[..., Tensor], inputs: Sequence[Tensor]) -> _Replay:
        """Run the loss once more to record it, and undo what that changed."""
        with kept(b for m in self.modules.values() for b in m._buffers.values() if b is not None):
            return _Replay(loss, inputs)


def _identity(tensor: Tensor | None) -> Any:
    """What must not change of a tensor that a replay reads; its values may."""
    return None if tensor is None else (id(tensor), tensor.requires_grad, tensor.dtype)


def _visible(function: Any) -> list[Any]:
    """The objects that a function can see: itself, what it is bound to, closures and globals."""
    found = [function, getattr(function, "__self__", None)]
    function = getattr(function, "__func__", function)
    if inspect.isfunction(function):
        names = inspect.getclosurevars(function)
        found += [*names.nonlocals.values(), *names.globals.values()]
    return found


def _kind(value: Any) -> Any:
    """What must not change of an argument: the layout of a tensor, and all of anything else."""
    if isinstance(value, Tensor):
        return value.shape, value.stride(), value.dtype, value.device
    return type(value), value


class _Replayed(torch.autograd.Function):
    """The loss of a replay, whose gradients are known already."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, count: int, *tensors: Tensor) -> Tensor:
        ctx.save_for_backward(*tensors[count:])
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, factor: Tensor) -> Any:
        gradients = ctx.saved_tensors
        return None, None, *(factor * g for g in gradients), *(None for _ in gradients)


class _Compiled:
    """What makes a compiled objective of one of Pyro's."""

    num_particles: int

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._programs: dict[Any, _Program] = {}
        self._said: set[str] = set()

    def loss_and_grads(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> float:
        """Minus the ELBO, in nats; its gradients are added to those of the parameters."""
        eager: Any = super()
        found = self._find(eager.differentiable_loss, model, guide, args, kwargs)
        if not isinstance(found, tuple):
            with found:
                return eager.loss_and_grads(model, guide, *args, **kwargs)
        replay, inputs = found
        loss, gradients = replay(*inputs)
        for leaf, gradient in zip(replay.leaves, gradients, strict=True):
            leaf.grad = gradient if leaf.grad is None else leaf.grad.add_(gradient)
        pyro.util.warn_if_nan(loss, "loss")
        return loss.item()

    def differentiable_loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Minus the ELBO, in nats, to be differentiated once."""
        eager: Any = super()
        found = self._find(eager.differentiable_loss, model, guide, args, kwargs)
        if not isinstance(found, tuple):
            with found:
                return eager.differentiable_loss(model, guide, *args, **kwargs)
        replay, inputs = found
        loss, gradients = replay(*inputs)
        return _Replayed.apply(loss, len(gradients), *replay.leaves, *gradients)

    def _find(
        self, loss: Callable[..., Tensor], model: Any, guide: Any, args: Any, kwargs: Any
    ) -> tuple[_Replay, list[Tensor]] | AbstractContextManager[None]:
        """A replay and its inputs, or what to run the program in as it stands."""
        if _get_current_dispatch_mode() is not None or not torch.is_grad_enabled():
            return nullcontext()  # it is being recorded itself, or asked for no gradients
        values, structure = pytree.tree_flatten((args, kwargs))
        inputs = [value for value in values if isinstance(value, Tensor)]
        kinds = tuple(map(_kind, values))
        key = (model, guide, structure, kinds, torch.get_default_dtype(), self.num_particles)
        try:
            program = self._programs.get(key)
        except TypeError as error:
            return self._eagerly(f"an argument cannot be recognized: {error}")
        if any(handler for handler in _PYRO_STACK if not getattr(handler, "param_only", False)):
            return self._eagerly("it is called inside of effect handlers; apply these to the model")
        if any(tensor.requires_grad for tensor in inputs):
            return self._eagerly("an argument requires gradients; make it a parameter")
        if program is None:
            if len(self._programs) == _MOST:
                return self._eagerly(
                    f"there were {_MOST} kinds of arguments before this one; pass what changes "
                    "between steps as tensors, of few shapes"
                )
            program = self._programs[key] = _Program(model, guide)
        state = program.state()
        if state not in program.replays:
            while len(program.replays) >= _MOST:
                del program.replays[next(iter(program.replays))]
            return program.watched()
        replay = program.replays[state]
        if replay is None:

            def of_inputs(*inputs: Tensor) -> Tensor:
                left = iter(inputs)
                given = [next(left) if isinstance(value, Tensor) else value for value in values]
                args, kwargs = pytree.tree_unflatten(given, structure)
                return loss(model, guide, *args, **kwargs)

            try:
                replay = program.record(of_inputs, inputs)
            except RecordingError as error:
                replay = error
            program.replays[state] = replay
        if isinstance(replay, RecordingError):
            return self._eagerly(str(replay))
        replay.calls += 1
        if replay.calls == _REPLAYS:
            try:
                replay.recording.compile(*inputs)
            except Exception as error:
                self._say(f"replays uncompiled: {first_line(error)}")
        return replay, inputs

    def _eagerly(self, reason: str) -> AbstractContextManager[None]:
        self._say(f"runs eagerly: {reason}")
        return nullcontext()

    def _say(self, what: str) -> None:
        """Warn, but not again of the same."""
        if what not in self._said:
            self._said.add(what)
            warnings.warn(f"{type(self).__name__} {what}", RuntimeWarning, stacklevel=4)


class CompiledTrace_ELBO(_Compiled, Trace_ELBO):  # noqa: N801  named as in Pyro
    """Pyro's ``Trace_ELBO``, the same numbers at the speed of hand-written PyTorch.

    The first step of a program runs as it stands, with Pyro's checks. The second is recorded, as
    one flat graph of tensor operations that holds the loss and all gradients, and replayed from
    then on; what is replayed often is compiled, which takes seconds once and needs a C++
    compiler. A replay draws the random numbers that ``Trace_ELBO`` would have drawn.

    A program needs static structure: what it does may depend on its arguments' shapes, but not on
    their values. Tensors that change between steps, such as a KL weight, have to be arguments;
    arguments of any other type are constants, each value of which is recorded anew. So is a new
    shape, a switch between ``train()`` and ``eval()``, and a module or parameter that is added,
    replaced or frozen. What happens in Python alone, such as counting steps, happens no more. Where
    a program cannot be recorded it runs as it stands, and a warning says why, once.

    Arguments as of ``Trace_ELBO``: ``num_particles``, ``vectorize_particles``,
    ``max_plate_nesting`` and others.

    Warns
    -----
    RuntimeWarning
        If a program runs eagerly, or uncompiled.

    Notes
    -----
    The successor of Pyro's ``JitTrace_ELBO``. Source of the estimator: Ranganath et al. (2014),
    *Black box variational inference*, with reparameterized gradients (Kingma & Welling, 2014).

    Examples
    --------
    >>> import pyro.distributions as dist
    >>> from pyro.infer import SVI
    >>> from pyro.infer.autoguide import AutoNormal
    >>> def model(x):
    ...     loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
    ...     with pyro.plate("row", len(x)):
    ...         pyro.sample("x", dist.Normal(loc, 1.0), obs=x)
    >>> adam = pyro.optim.Adam({"lr": 0.1})
    >>> svi = SVI(model, AutoNormal(model), adam, CompiledTrace_ELBO())
    >>> losses = [svi.step(torch.ones(10)) for _ in range(5)]
    >>> pyro.clear_param_store()
    """


class CompiledTraceMeanField_ELBO(_Compiled, TraceMeanField_ELBO):  # noqa: N801
    """Pyro's ``TraceMeanField_ELBO``, compiled; see :class:`CompiledTrace_ELBO`."""
