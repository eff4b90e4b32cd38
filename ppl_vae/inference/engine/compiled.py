"""A Pyro program at the speed of hand-written PyTorch: recorded once, replayed without Pyro."""

from __future__ import annotations

__all__ = ["CompiledTraceMeanField_ELBO", "CompiledTrace_ELBO"]

import math
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

from .cuda import kept
from .recording import Recording, RecordingError, first_line, laid_out_as, random_state_kept
from .watch import Watch

# Replays of a program before it is compiled, so that rare shapes (the last batch of an epoch) are
# not: to compile takes seconds, and replaying uncompiled is most of the gain.
_REPLAYS = 10
# Recordings that one objective keeps; more mean that something else than tensors keeps changing.
_MOST = 32
# Changes from one step to the next after which a program runs eagerly for good.
_CHANGES = 8
# Steps between two comparisons with the program as it stands, at most; before, each power of two.
_COMPARE = 1024


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
            each = zip(self.leaves, gradients, strict=True)
            return [value.detach(), *(laid_out_as(leaf, g).clone() for leaf, g in each)]

        self.recording = Recording(function, inputs)
        self.calls = 0

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        loss, *gradients = self.recording(*inputs)
        # SVI learns from these messages what to optimize.
        for name in self.names if _PYRO_STACK else ():
            pyro.param(name)
        return loss, gradients


class _Program:
    """A model and a guide with arguments of one kind: what they can see, and their replays."""

    def __init__(self, **roots: Any) -> None:
        self.roots = roots
        self.called: dict[str, nn.Module] = {}
        self.replays: list[tuple[Watch, Any, _Replay]] = []
        self.seen: tuple[Watch, Any] | None = None
        self.changes = 0
        self.reason: str | None = None

    def replay(self) -> _Replay | None:
        """A replay of the program as it is now."""
        store = _store()
        for watch, params, replay in reversed(self.replays):
            if params == store and watch.changed() is None:
                return replay
        return None

    def ready(self) -> bool:
        """Whether the last eager run was of the program as it is now, so that recording pays."""
        if self.seen is None:
            return False
        watch, params = self.seen
        name = watch.changed()
        if name is None and params == _store():
            return True
        self.changes += 1
        if self.changes > _CHANGES:
            self.reason = (
                f"{name or 'the param store'} changes between steps; pass it as an argument"
            )
        return False

    @contextmanager
    def watched(self) -> Iterator[None]:
        """See which modules an eager run calls; the next one like it is recorded."""

        def add(module: nn.Module, _: Any) -> None:
            self.called.setdefault(f"{type(module).__name__}_{id(module)}", module)

        hook = nn.modules.module.register_module_forward_pre_hook(add)
        try:
            yield
        finally:
            hook.remove()
        self.seen = Watch(**self.roots, **self.called), _store()

    def record(self, loss: Callable[..., Tensor], inputs: Sequence[Tensor]) -> _Replay:
        """Run the loss once more to record it, and undo what that changed."""
        assert self.seen is not None
        watch, params = self.seen
        with kept(t for t in watch.tensors if not t.requires_grad), watch.unchanged():
            replay = _Replay(loss, inputs)
        del self.replays[: len(self.replays) - _MOST + 1]
        self.replays.append((watch, params, replay))
        return replay


def _store() -> Any:
    """What must not change of the param store; the values of parameters may."""
    named = pyro.get_param_store().named_parameters()
    return tuple((name, id(value), value.requires_grad, value.dtype) for name, value in named)


def _kind(value: Any) -> Any:
    """What must not change of an argument: a tensor's layout, any other argument's value."""
    if isinstance(value, Tensor):
        return value.shape, value.stride(), value.dtype, value.device
    return type(value), value


def _difference(
    replay: _Replay, loss: Callable[..., Tensor], inputs: Sequence[Tensor]
) -> str | None:
    """What is wrong with a replay, by its loss and the program's on the same draws."""
    with torch.no_grad(), kept(replay.recording.captured):
        with random_state_kept():
            expected = float(loss(*inputs))
        with random_state_kept():
            found = float(replay.recording(*inputs)[0])
    if found != found or math.isclose(found, expected, rel_tol=1e-2, abs_tol=1e-2):
        return None
    return (
        f"a replayed loss is {found:.6g} where the program says {expected:.6g}, so that it reads "
        "something that changes and cannot be watched, such as a file or an iterator; of the "
        f"{replay.calls} steps replayed, some were those of before"
    )


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
    # A watch of the objective leaves these attributes out.
    _unwatched = frozenset({"_programs", "_said"})

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
        """A replay and its inputs, or the context in which to run the program eagerly."""
        if _get_current_dispatch_mode() is not None or not torch.is_grad_enabled():
            return nullcontext()  # another recording runs it, or no gradients are asked for
        values, structure = pytree.tree_flatten((args, kwargs))
        inputs = [value for value in values if isinstance(value, Tensor)]
        kinds = tuple(map(_kind, values))
        # Some versions of PyTorch cannot hash a structure.
        key = (model, guide, repr(structure), kinds, torch.get_default_dtype(), self.num_particles)
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
            others = [value for value in values if not isinstance(value, Tensor)]
            program = self._programs[key] = _Program(
                model=model, guide=guide, objective=self, arguments=others
            )
        if program.reason is not None:
            return self._eagerly(program.reason)

        def of_inputs(*inputs: Tensor) -> Tensor:
            left = iter(inputs)
            given = [next(left) if isinstance(value, Tensor) else value for value in values]
            args, kwargs = pytree.tree_unflatten(given, structure)
            return loss(model, guide, *args, **kwargs)

        replay = program.replay()
        if replay is None:
            if not program.ready():
                return program.watched()
            try:
                replay = program.record(of_inputs, inputs)
            except RecordingError as error:
                program.reason = str(error)
                return self._eagerly(program.reason)
        replay.calls += 1
        if replay.calls % _COMPARE == 0 or replay.calls & (replay.calls - 1) == 0:
            program.reason = _difference(replay, of_inputs, inputs)
            if program.reason is not None:
                return self._eagerly(program.reason)
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
        """Warn, once for each message."""
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
    replaced or frozen. A replay does nothing in Python, such as counting steps. Where a program
    cannot be recorded it runs as it stands, and a warning says why, once.

    It takes the arguments of ``Trace_ELBO``: ``num_particles``, ``vectorize_particles``,
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
    """Pyro's ``TraceMeanField_ELBO``, compiled; see :class:`CompiledTrace_ELBO`.

    Examples
    --------
    >>> from pyro.infer import SVI
    >>> from ppl_vae import VAE, VAEConfig
    >>> vae = VAE.from_config(VAEConfig(event_shape=(4,), latent_dim=2, hidden=(8,)))
    >>> adam = pyro.optim.Adam({"lr": 0.01})
    >>> svi = SVI(vae.model, vae.guide, adam, CompiledTraceMeanField_ELBO())
    >>> losses = [svi.step(torch.ones(10, 4)) for _ in range(5)]
    >>> pyro.clear_param_store()
    """
