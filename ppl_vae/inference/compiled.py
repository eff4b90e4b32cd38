"""A Pyro program at the speed of hand-written PyTorch: recorded once, replayed without Pyro."""

from __future__ import annotations

__all__ = [
    "CompiledTraceMeanField_ELBO",
    "CompiledTrace_ELBO",
    "Recording",
    "RecordingError",
    "first_line",
    "kept",
]

import inspect
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any
from unittest import mock

import pyro
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO, trace_elbo, trace_mean_field_elbo
from pyro.poutine.runtime import _PYRO_STACK
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import _get_current_dispatch_mode

# Replays of a program before it is compiled, so that rare shapes (the last batch of an epoch) are
# not: to compile takes seconds, and replaying uncompiled is most of the gain.
_REPLAYS = 10
# Multiplications from which a matrix product is worth oneDNN's 15 microseconds.
_LARGE_PRODUCT = 2**21
# Recordings that one objective keeps; more mean that something else than tensors keeps changing.
_MOST = 32


class RecordingError(RuntimeError):
    """A function cannot be recorded: what it does depends on the values of its tensors."""


class Recording:
    """A function of tensors as one flat graph of tensor operations, its gradients included.

    A call runs the graph on new inputs of the same shapes. Random numbers are drawn afresh, in the
    order of the function, and every other tensor that the function read or changed in place,
    such as a parameter or a running mean, is read or changed again. What the function did
    besides, in Python, is not done again.

    Parameters
    ----------
    function
        Takes tensors, returns tensors in a list. It is called once, and may call
        :func:`torch.autograd.grad`.
    inputs
        What to call it with. Random state is as it was afterwards.

    Raises
    ------
    RecordingError
        If the function needs the value of a tensor, to decide by or to report it.

    Examples
    --------
    >>> weight = torch.ones(3, requires_grad=True)
    >>> def loss_and_gradient(x):
    ...     loss = (weight * x).square().sum()
    ...     return [loss.detach(), *torch.autograd.grad(loss, [weight])]
    >>> recording = Recording(loss_and_gradient, [torch.ones(3)])
    >>> with torch.no_grad():
    ...     _ = weight.mul_(2)
    >>> [value.tolist() for value in recording(torch.ones(3))]
    [12.0, [4.0, 4.0, 4.0]]
    """

    def __init__(self, function: Callable[..., list[Tensor]], inputs: Sequence[Tensor]) -> None:
        from torch.fx.experimental.proxy_tensor import make_fx

        with _random_state_kept(), _recordable():
            try:
                module = make_fx(function)(*inputs)
            except RecordingError:
                raise
            except Exception as error:
                raise RecordingError(first_line(error)) from error
        self.captured = _lift(module)
        _multiply_by_onednn(module)
        _draw_at_once(module)
        self._module = module
        self._run: Callable[..., Sequence[Tensor]] = module.forward

    def __call__(self, *inputs: Tensor) -> Sequence[Tensor]:
        """The function's outputs on new inputs; no gradient is recorded through them."""
        with torch.no_grad():
            return self._run(*inputs, *self.captured)

    def compile(self, *inputs: Tensor, cuda_graph: bool = False) -> None:
        """Compile the graph for inputs such as these.

        With ``cuda_graph``, on a GPU, all kernels are launched at once, and each call overwrites
        the outputs of the one before.

        Raises
        ------
        Exception
            Whatever stands in the way, such as a machine without a C++ compiler. The recording
            goes on uncompiled.
        """
        from torch._inductor import config
        from torch._inductor.compile_fx import compile_fx

        examples = [*inputs, *self.captured]
        options = {
            # The random numbers of an eager run, in its order.
            "fallback_random": True,
            "triton.cudagraphs": cuda_graph and any(tensor.is_cuda for tensor in examples),
        }
        with (
            torch.no_grad(),
            warnings.catch_warnings(),
            _random_state_kept(),
            config.patch(options),
        ):
            warnings.simplefilter("ignore")
            self._run = compile_fx(self._module, examples)  # type: ignore[assignment]


def _lift(module: torch.fx.GraphModule) -> list[Tensor]:
    """Turn the tensors that a graph holds into inputs of it, after its own; return them."""
    graph = module.graph
    lifted: dict[int, torch.fx.Node] = {}
    captured: list[Tensor] = []
    *_, last = [None, *graph.find_nodes(op="placeholder")]
    for node in graph.find_nodes(op="get_attr"):
        tensor = getattr(module, node.target)
        if id(tensor) not in lifted:
            position = graph.inserting_after(last) if last else graph.inserting_before()
            with position:
                last = graph.placeholder(f"captured_{len(captured)}")
            last.meta = {**node.meta, "val": torch.empty_like(tensor, device="meta")}
            lifted[id(tensor)] = last
            captured.append(tensor)
        node.replace_all_uses_with(lifted[id(tensor)])
        graph.erase_node(node)
    for name in [*module._parameters, *module._buffers]:
        delattr(module, name)
    graph.eliminate_dead_code()
    module.recompile()
    return captured


# oneDNN's product x w^T + b under a name of ours: what inductor makes of PyTorch's own name for it
# is for weights that never change.
_LIBRARY = torch.library.Library("ppl_vae", "DEF")
_LIBRARY.define("linear(Tensor x, Tensor w, Tensor? b) -> Tensor")


@torch.library.impl(_LIBRARY, "linear", "CPU")
def _linear(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise.default(x, w, b, "none", [], "")


@torch.library.register_fake("ppl_vae::linear", lib=_LIBRARY)
def _(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
    return x.new_empty(x.shape[0], w.shape[0])


def _multiply_by_onednn(module: torch.fx.GraphModule) -> None:
    """Let oneDNN take the larger matrix products in single precision on a CPU.

    PyTorch gives them to MKL, which on an AMD processor leaves half of its vector units idle.
    """
    if not torch.backends.mkldnn.is_available():
        return
    graph = module.graph
    for kind in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default):
        for node in graph.find_nodes(op="call_function", target=kind):
            *bias, left, right = node.args
            one, other = left.meta["val"], right.meta["val"]
            large = one.numel() * other.shape[1] >= _LARGE_PRODUCT
            plain = not node.kwargs and all(b.meta["val"].dim() == 1 for b in bias)
            if not (
                large
                and plain
                and one.dtype == torch.float32
                and one.device.type in ("cpu", "meta")
            ):
                continue
            with graph.inserting_before(node):
                if not one.is_contiguous():  # it would be copied anyway, but by itself
                    left = graph.call_function(
                        torch.ops.aten.clone.default,
                        (left,),
                        {"memory_format": torch.contiguous_format},
                    )
                    left.meta["val"] = one.contiguous()
                weight = graph.call_function(torch.ops.aten.t.default, (right,))
                weight.meta["val"] = other.t()
                made = graph.call_function(
                    torch.ops.ppl_vae.linear.default, (left, weight, *(bias or [None]))
                )
            made.meta = node.meta
            node.replace_all_uses_with(made)
            graph.erase_node(node)
    module.recompile()


def _draw_at_once(module: torch.fx.GraphModule) -> None:
    """Draw standard normals as such: filling memory with them is compiled to more copies."""
    graph, aten = module.graph, torch.ops.aten
    for node in graph.find_nodes(op="call_function", target=aten.normal_.default):
        empty, *rest = node.args
        if rest or node.kwargs or empty.target != aten.empty.memory_format or len(empty.users) > 1:
            continue
        with graph.inserting_before(node):
            drawn = graph.call_function(aten.randn.default, empty.args, empty.kwargs)
        drawn.meta = node.meta
        node.replace_all_uses_with(drawn)
        graph.erase_node(node)
        graph.erase_node(empty)
    module.recompile()


@contextmanager
def kept(tensors: Iterable[Tensor]) -> Iterator[None]:
    """Give tensors back the values that they had."""
    pairs = [(tensor, tensor.clone()) for tensor in tensors]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, value in pairs:
                tensor.copy_(value)


@contextmanager
def _random_state_kept() -> Iterator[None]:
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=devices):
        yield


@contextmanager
def _recordable() -> Iterator[None]:
    """Keep Pyro from looking at values: to check them, or to report the loss as a number."""

    def item(value: Any, *_: Any) -> Any:
        return value.detach() if isinstance(value, Tensor) else value

    def refuse(model_trace: Any, guide_trace: Any) -> None:
        names = [
            name
            for name, site in guide_trace.nodes.items()
            if site["type"] == "sample" and not getattr(site["fn"], "has_rsample", True)
        ]
        raise RecordingError(
            f"the gradient has score-function terms, of sites that are not reparameterized: {names}"
        )

    with (
        pyro.validation_enabled(False),
        warnings.catch_warnings(),
        mock.patch.object(trace_elbo, "torch_item", item),
        mock.patch.object(trace_elbo, "warn_if_nan", item),
        mock.patch.object(trace_elbo, "_compute_log_r", refuse),
        mock.patch.object(trace_mean_field_elbo, "torch_item", item),
        mock.patch.object(trace_mean_field_elbo, "warn_if_nan", item),
    ):
        warnings.simplefilter("ignore")
        yield


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


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
