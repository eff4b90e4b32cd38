"""A function of tensors recorded as one flat graph of tensor operations, to run or to compile."""

from __future__ import annotations

__all__ = [
    "LARGE_PRODUCT",
    "Recording",
    "RecordingError",
    "first_line",
    "kept",
]

import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pyro
import torch
from pyro.infer import trace_elbo, trace_mean_field_elbo
from torch import Tensor

from .processor import map_constants, reuse_freed_memory

# Multiplications from which a matrix product is worth oneDNN's 15 microseconds.
LARGE_PRODUCT = 2**21


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

        reuse_freed_memory()
        map_constants()
        with _random_state_kept(), _recordable():
            try:
                module = make_fx(function)(*inputs)
            except RecordingError:
                raise
            except Exception as error:
                raise RecordingError(first_line(error)) from error
        self.captured = _lift(module)
        if all(tensor.device.type == "cpu" for tensor in [*inputs, *self.captured]):
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

        With ``cuda_graph``, if all tensors are on a GPU, its kernels are launched at once, and
        each call overwrites the outputs of the one before.

        Raises
        ------
        Exception
            Whatever stands in the way, such as a machine without a C++ compiler. The recording
            goes on uncompiled.
        """
        from torch._inductor import config, lowering
        from torch._inductor.compile_fx import compile_fx

        examples = [*inputs, *self.captured]
        options = {
            # The random numbers of an eager run, in its order.
            "fallback_random": True,
            # The processor is asked what it can do; a third of the time went into compiling
            # programs that try whether the C++ compiler can do it too.
            "cpp.vec_isa_ok": True,
            # Shapes are those of the recording; to assert so takes 2 % of a step.
            "size_asserts": False,
            "alignment_asserts": False,
        }
        if _LINEAR is not None and self._module.graph.find_nodes(
            op="call_function", target=_LINEAR.default
        ):
            # The compiler's patterns for it are for weights that never change.
            options["pattern_matcher"] = False
        with (
            torch.no_grad(),
            _quiet(),
            _random_state_kept(),
            config.patch(options),
            mock.patch.dict(lowering.lowerings),
        ):
            # Nor what it makes of the operation itself: call it as it is.
            if _LINEAR is not None:
                lowering.lowerings.pop(_LINEAR.default, None)
            run: Callable[..., Sequence[Tensor]] = compile_fx(self._module, examples)  # type: ignore[assignment]
            if cuda_graph and all(tensor.is_cuda for tensor in examples):
                run = _launched_at_once(run, inputs, self.captured)
        self._run = run


def _launched_at_once(
    run: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor], captured: Sequence[Tensor]
) -> Callable[..., Sequence[Tensor]]:
    """The kernels of a call as one CUDA graph.

    Source: https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
    """
    held = [tensor.clone() for tensor in inputs]
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side), kept(captured):
        for _ in range(3):
            run(*held, *captured)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = run(*held, *captured)

    def replay(*values: Tensor) -> Sequence[Tensor]:
        for tensor, value in zip(held, values[: len(held)], strict=True):
            tensor.copy_(value)
        graph.replay()
        return outputs

    return replay


def _lift(module: torch.fx.GraphModule) -> list[Tensor]:
    """Turn the tensors that a graph holds into inputs of it, after its own; return them."""
    graph = module.graph
    graph.eliminate_dead_code()
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
    module.recompile()
    return captured


# oneDNN's product x w^T + b, where this PyTorch has it.
_LINEAR = getattr(torch.ops.mkldnn, "_linear_pointwise", None)


def _multiply_by_onednn(module: torch.fx.GraphModule) -> None:
    """Let oneDNN take the larger matrix products in single precision; for graphs on a CPU.

    PyTorch gives them to MKL, which on an AMD processor leaves half of its vector units idle.
    """
    if _LINEAR is None or not torch.backends.mkldnn.is_available():
        return
    graph = module.graph
    for kind in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default):
        for node in graph.find_nodes(op="call_function", target=kind):
            *bias, left, right = node.args
            one, other = left.meta["val"], right.meta["val"]
            large = one.numel() * other.shape[1] >= LARGE_PRODUCT
            plain = not node.kwargs and all(b.meta["val"].dim() == 1 for b in bias)
            if not (large and plain and one.dtype == torch.float32):
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
                    _LINEAR.default, (left, weight, *(bias or [None]), "none", [], "")
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
def _quiet() -> Iterator[None]:
    """Keep the compiler's own deprecations, and its search for a GPU, to itself."""
    logger = logging.getLogger("torch.utils.cpp_extension")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


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


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
