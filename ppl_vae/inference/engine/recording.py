"""A function of tensors recorded as one flat graph of tensor operations, to run or to compile."""

from __future__ import annotations

__all__ = ["Recording", "RecordingError", "first_line", "laid_out_as", "random_state_kept"]

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest import mock

import pyro
import torch
from pyro.infer import trace_elbo, trace_mean_field_elbo
from torch import Tensor
from torch.distributions import Distribution

from ...processor import map_constants, reuse_freed_memory
from .cuda import launched_at_once
from .rewrites import LINEAR, draw_at_once, multiply_by_onednn
from .values import (
    RecordingError,
    first_line,
    line_of,
    refuse_shapes_by_value,
    refused_values,
)


def laid_out_as(parameter: Tensor, gradient: Tensor) -> Tensor:
    """The gradient in the memory layout of its parameter, as ``backward`` leaves it.

    A convolution of images that lie channels last returns a gradient that does so too, and that of
    a sum takes no memory but for one number. Fused optimizers go through memory in order.
    """
    if gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter).copy_(gradient)


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
    of_pyro
        Whether the function runs a Pyro ELBO, which looks at values to check and to report them.
        These functions of Pyro are replaced meanwhile. Our own objectives need none of that.

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

    def __init__(
        self,
        function: Callable[..., list[Tensor]],
        inputs: Sequence[Tensor],
        *,
        of_pyro: bool = True,
    ) -> None:
        from torch.fx.experimental.proxy_tensor import make_fx

        reuse_freed_memory()
        map_constants()

        lines: dict[str, str] = {}

        def watched(*inputs: Tensor) -> list[Tensor]:
            with refused_values() as found:
                outputs = function(*inputs)
            lines.update(found)
            return outputs

        with random_state_kept(), _unvalidated(), _recordable() if of_pyro else nullcontext():
            try:
                module = make_fx(watched)(*inputs)
            except RecordingError as error:
                # Pyro adds the shapes of the program so far, in many lines.
                raise RecordingError(str(error).partition("\n")[0]) from error
            except Exception as error:
                raise RecordingError(_reason(error)) from error
        refuse_shapes_by_value(module, lines)
        self.captured = _lift(module)
        if all(tensor.device.type == "cpu" for tensor in [*inputs, *self.captured]):
            multiply_by_onednn(module)
        draw_at_once(module)
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
            # Draw the random numbers of an eager run, in its order.
            "fallback_random": True,
            # The processor is asked what it can do; a third of the time went into compiling
            # programs that try whether the C++ compiler can do it too.
            "cpp.vec_isa_ok": True,
            # Shapes are those of the recording; to assert so takes 2 % of a step.
            "size_asserts": False,
            "alignment_asserts": False,
        }
        known = config.get_config_copy()  # not every option is in every version
        options = {name: value for name, value in options.items() if name in known}
        if LINEAR is not None and self._module.graph.find_nodes(
            op="call_function", target=LINEAR.default
        ):
            # The compiler's patterns for it are for weights that never change.
            options["pattern_matcher"] = False
        with (
            torch.no_grad(),
            _quiet(),
            random_state_kept(),
            config.patch(options),
            mock.patch.dict(lowering.lowerings),
        ):
            # The compiler would take oneDNN's product apart; without a lowering it calls it.
            if LINEAR is not None:
                lowering.lowerings.pop(LINEAR.default, None)
            run: Callable[..., Sequence[Tensor]] = compile_fx(self._module, examples)  # type: ignore[assignment]
            if cuda_graph and all(tensor.is_cuda for tensor in examples):
                run = launched_at_once(run, inputs, self.captured)
        self._run = run


def _reason(error: Exception) -> str:
    """Why a program cannot be recorded, with its line."""
    if "value out of a tracing tensor" in str(error):
        return (
            f"{line_of(error)} reads the value of a tensor, which a recording would hold as it is "
            "now"
        )
    where = line_of(error)
    return first_line(error) + ("" if where == "the program" else f", in {where}")


def _lift(module: torch.fx.GraphModule) -> list[Tensor]:
    """Turn the tensors that a graph holds into inputs of it, after its own; return them."""
    graph = module.graph
    graph.eliminate_dead_code()
    lifted: dict[int, torch.fx.Node] = {}
    captured: list[Tensor] = []
    *_, last = [None, *graph.find_nodes(op="placeholder")]
    for node in graph.find_nodes(op="get_attr"):
        tensor = getattr(module, node.target)
        if not isinstance(tensor, Tensor):
            raise RecordingError(f"the program uses a {type(tensor).__name__} of its own")
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
def random_state_kept() -> Iterator[None]:
    """Give torch's random state back as it was."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=devices):
        yield


@contextmanager
def _unvalidated() -> Iterator[None]:
    """Keep distributions from checking values, those made before the recording too."""

    def unchecked(distribution: Distribution, value: Tensor) -> None:
        """Accept any value."""

    # A distribution that was expanded while validation was on keeps it on, as the priors do of
    # weights in a PyroSample.
    with (
        pyro.validation_enabled(False),
        mock.patch.object(Distribution, "_validate_sample", unchecked),
    ):
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
        warnings.catch_warnings(),
        mock.patch.object(trace_elbo, "torch_item", item),
        mock.patch.object(trace_elbo, "warn_if_nan", item),
        mock.patch.object(trace_elbo, "_compute_log_r", refuse),
        mock.patch.object(trace_mean_field_elbo, "torch_item", item),
        mock.patch.object(trace_mean_field_elbo, "warn_if_nan", item),
    ):
        warnings.simplefilter("ignore")
        yield
