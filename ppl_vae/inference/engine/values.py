"""What cannot be recorded: decisions and shapes that depend on the values of tensors."""

from __future__ import annotations

__all__ = ["RecordingError", "first_line", "line_of", "refuse_shapes_by_value", "refused_values"]

import contextlib
import importlib.util
import os
import random
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
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
_MASKS = (torch.bool, torch.uint8)
_MASK = "mask"


class RecordingError(RuntimeError):
    """A function cannot be recorded: what it does depends on the values of its tensors."""


@contextmanager
def refused_values() -> Iterator[Mapping[str, str]]:
    """Refuse functions that read values of recorded tensors, or draw numbers outside of PyTorch.

    Yields the lines of the program that call an operation whose result may have a size that
    depends on values, by the name of the operation: what :func:`refuse_shapes_by_value` reports.

    Raises
    ------
    RecordingError
        With the line of the program that does so.
    """
    python, of_numpy = random.getstate(), np.random.get_state()
    try:
        with _Refuse() as refusing:
            yield refusing.lines
        if random.getstate() != python:
            raise RecordingError("the program draws from Python's random; draw by torch")
        if repr(np.random.get_state()) != repr(of_numpy):
            raise RecordingError("the program draws from NumPy's random state; draw by torch")
    finally:
        random.setstate(python)
        np.random.set_state(of_numpy)


class _Refuse(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.lines: dict[str, str] = {}

    def __torch_function__(
        self, function: Any, kinds: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if function in _READERS and any(map(_changes, args)):
            raise RecordingError(
                f"{_line()} reads the value of a tensor by {function.__name__}, which a recording "
                "would hold as it is now"
            )
        name = getattr(function, "__name__", "")
        if name in ("__getitem__", "__setitem__", "index_put", "index_put_") and _by_mask(args[1]):
            name = _MASK
        elif name == "where" and len(args) == 1:
            name = "nonzero"
        if name == _MASK or name in _SIZED_BY_VALUE:
            self.lines.setdefault(name.strip("_"), _line())
        return function(*args, **(kwargs or {}))


def _by_mask(index: Any) -> bool:
    indices = index if isinstance(index, tuple | list) else (index,)
    return any(isinstance(i, Tensor) and i.dtype in _MASKS for i in indices)


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
    return _innermost(traceback.extract_stack()) or "the program"


def line_of(error: BaseException) -> str:
    """The innermost line of the program that led to an error, or "the program"."""
    return _innermost(traceback.extract_tb(error.__traceback__)) or "the program"


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def _innermost(frames: traceback.StackSummary) -> str | None:
    libraries = _libraries()
    for frame in reversed(frames):
        if not frame.filename.startswith(libraries):
            name = os.path.basename(frame.filename)
            return f"line {frame.lineno} of {name} ({(frame.line or '').strip()})"
    return None


def _libraries() -> tuple[str, ...]:
    """Where the code lies that a program calls, and that calls it."""
    folders = [
        str(Path(__file__).parents[2]) + os.sep,
        os.path.dirname(contextlib.__file__) + os.sep,
    ]
    for name in ("torch", "pyro", "zuko", "lightning_fabric", "numpy"):
        spec = importlib.util.find_spec(name)
        folders += [folder + os.sep for folder in (spec and spec.submodule_search_locations) or ()]
    return (*folders, "<eval_with_key>", "<frozen")


def refuse_shapes_by_value(module: torch.fx.GraphModule, lines: Mapping[str, str]) -> None:
    """Refuse a graph with results whose sizes were counted from values.

    ``lines`` are what :func:`refused_values` found.

    Raises
    ------
    RecordingError
        With the operation's name and its line: a replay would keep the size of the first run.
    """
    for node in module.graph.nodes:
        if node.op != "call_function":
            continue
        name = getattr(node.target, "_opname", "")
        masks = [
            index
            for index in (node.args[1] if name in ("index", "index_put", "index_put_") else ())
            if index is not None and index.meta["val"].dtype in _MASKS
        ]
        if masks or name in _SIZED_BY_VALUE:
            what = "selects by a mask" if masks else f"calls {name}"
            plain = _MASK if masks else name.strip("_").removesuffix("2")
            where = f" in {lines[plain]}" if plain in lines else ""
            raise RecordingError(
                f"the program {what}{where}, so that the size of a result depends on values; "
                "use torch.where to record it"
            )
