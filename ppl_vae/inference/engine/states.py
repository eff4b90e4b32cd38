"""What may change inside of one object that stays the same object, and how to put it back."""

from __future__ import annotations

__all__ = [
    *("Cell", "Slots", "Variable", "contents_of", "kind_of", "set_state", "slots_of", "state_of"),
]

import array
import contextvars
import os
import pickle
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

# Arrays up to this many bytes are compared by their contents, larger ones by this many entries.
_SMALL, _SAMPLE = 65_536, 4096


class Cell:
    """The variable of a closure, as a container of one entry."""

    def __init__(self, cell: Any) -> None:
        self.cell = cell

    def __getitem__(self, key: str) -> Any:
        try:
            return self.cell.cell_contents
        except ValueError:  # not bound yet, or no longer
            return None

    def __setitem__(self, key: str, value: Any) -> None:
        self.cell.cell_contents = value


class Slots:
    """The attributes of an object that has no dictionary of them, as a container."""

    def __init__(self, holder: Any) -> None:
        self.holder = holder

    def __getitem__(self, key: str) -> Any:
        return getattr(self.holder, key, None)

    def __setitem__(self, key: str, value: Any) -> None:
        setattr(self.holder, key, value)


class Variable:
    """The value of a context variable, as a container of one entry."""

    def __init__(self, variable: contextvars.ContextVar[Any]) -> None:
        self.variable = variable

    def __getitem__(self, key: str) -> Any:
        return self.variable.get(None)

    def __setitem__(self, key: str, value: Any) -> None:
        self.variable.set(value)


def slots_of(kind: type) -> Iterator[str]:
    """The names of the slots of a class and of those that it inherits from."""
    for base in kind.__mro__:
        names = vars(base).get("__slots__", ())
        for name in (names,) if isinstance(names, str) else names:
            private = name.startswith("__") and not name.endswith("__")
            yield f"_{base.__name__.lstrip('_')}{name}" if private else name


def kind_of(tensor: Tensor) -> Any:
    """What a recording holds of a tensor: all but its values."""
    hooks = getattr(tensor, "_backward_hooks", None)
    return tensor.requires_grad, tensor.dtype, tensor.shape, len(hooks or ())


def contents_of(container: Any) -> Any:
    """The entries of a set, or the keys of an ordered dictionary in their order."""
    return frozenset(container) if isinstance(container, set) else list(container)


def state_of(value: Any) -> Any:
    """What changes inside of a generator of random numbers, or of an array of numbers."""
    if isinstance(value, random.Random):
        return value.getstate()
    if isinstance(value, np.random.Generator):
        return pickle.dumps(value.bit_generator.state)
    if isinstance(value, np.random.RandomState):
        return pickle.dumps(value.get_state())
    if isinstance(value, torch.Generator):
        return value.get_state().tolist()
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        if value.nbytes <= _SMALL:
            return value.tobytes()
        return value.flat[:: max(1, value.size // _SAMPLE)].tobytes()
    if isinstance(value, bytearray | memoryview | array.array):
        return bytes(value[: _SMALL // 8])
    if value is os.environ:
        return dict(value)
    return None


def set_state(value: Any, state: Any) -> None:
    if isinstance(value, random.Random):
        value.setstate(state)
    elif isinstance(value, np.random.Generator):
        value.bit_generator.state = pickle.loads(state)
    elif isinstance(value, np.random.RandomState):
        value.set_state(pickle.loads(state))
    elif isinstance(value, torch.Generator):
        value.set_state(torch.tensor(state, dtype=torch.uint8))
