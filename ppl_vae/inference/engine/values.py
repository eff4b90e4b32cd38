"""What cannot be recorded: decisions and shapes that depend on the values of tensors."""

from __future__ import annotations

__all__ = ["RecordingError", "refuse_shapes_by_value", "refused_values"]

import random
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import get_proxy_mode, get_proxy_slot
from torch.overrides import TorchFunctionMode

# Functions that take values out of tensors, into Python.
_READERS = {
    *(Tensor.item, Tensor.tolist, Tensor.numpy, Tensor.__array__, Tensor.__bool__),
    *(Tensor.__float__, Tensor.__int__, Tensor.__index__, Tensor.__complex__, Tensor.__contains__),
    *(Tensor.equal, Tensor.allclose, Tensor.is_nonzero),
    *(torch.equal, torch.allclose, torch.is_nonzero),
}
# Operations whose results have a size that depends on values.
_SIZED_BY_VALUE = (
    *("nonzero", "masked_select", "unique", "_unique", "_unique2", "unique_consecutive"),
    *("unique_dim", "argwhere", "bincount", "repeat_interleave"),
)


class RecordingError(RuntimeError):
    """A function cannot be recorded: what it does depends on the values of its tensors."""


@contextmanager
def refused_values() -> Iterator[None]:
    """Refuse functions that read values of recorded tensors, or draw numbers outside of PyTorch.

    Raises
    ------
    RecordingError
        With the line of the program that does so.
    """
    python, of_numpy = random.getstate(), np.random.get_state()
    try:
        with _Refuse():
            yield
        if random.getstate() != python:
            raise RecordingError("the program draws from Python's random; draw by torch")
        if repr(np.random.get_state()) != repr(of_numpy):
            raise RecordingError("the program draws from NumPy's random state; draw by torch")
    finally:
        random.setstate(python)
        np.random.set_state(of_numpy)


class _Refuse(TorchFunctionMode):
    def __torch_function__(
        self, function: Any, kinds: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if function in _READERS and any(map(_changes, args)):
            raise RecordingError(
                f"{_line()} reads the value of a tensor by {function.__name__}, which a recording "
                "would hold as it is now"
            )
        return function(*args, **(kwargs or {}))


def _changes(value: Any) -> bool:
    """Whether the values of a tensor may be others at the next step."""
    mode = get_proxy_mode()
    if not isinstance(value, Tensor) or mode is None:
        return False
    slot = get_proxy_slot(value, mode.tracer, None)
    if slot is None:  # it was made before the recording
        return True
    return getattr(slot, "constant", None) is None


def _line() -> str:
    """The innermost line of the program that is no library's."""
    for frame in reversed(traceback.extract_stack()):
        parts = frame.filename.replace("\\", "/").split("/")
        if not {"torch", "pyro", "ppl_vae"} & set(parts[:-1]):
            return f"line {frame.lineno} of {parts[-1]} ({(frame.line or '').strip()})"
    return "the program"


def refuse_shapes_by_value(module: torch.fx.GraphModule) -> None:
    """Refuse a graph with results whose sizes were counted from values.

    Raises
    ------
    RecordingError
        With the operation's name: a replay would keep the size of the first run.
    """
    for node in module.graph.nodes:
        if node.op != "call_function":
            continue
        name = getattr(node.target, "_opname", "")
        masks = [
            index
            for index in (node.args[1] if name in ("index", "index_put", "index_put_") else ())
            if index is not None and index.meta["val"].dtype in (torch.bool, torch.uint8)
        ]
        if masks or name in _SIZED_BY_VALUE:
            what = "selects by a mask" if masks else f"calls {name}"
            raise RecordingError(
                f"the program {what}, so that the size of a result depends on values; "
                "use torch.where to record it"
            )
