"""What a recording read in Python, and whether it is still the same."""

from __future__ import annotations

__all__ = ["Watch"]

import dis
import enum
import functools
import pickle
import random
import sys
import types
from collections import deque
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import torch
from pyro.infer.autoguide import AutoGuide
from torch import Tensor, nn
from torch.distributions import Transform

from .values import RecordingError

# Code of these packages reads only what it is given: their objects are looked at, their functions
# and classes are not.
_LIBRARIES = {
    *("torch", "pyro", "numpy", "ppl_vae", "lightning_fabric", "zuko", "pydantic", "scipy"),
    *(sys.stdlib_module_names - {"__main__"}),
}
# Attributes of every module that PyTorch alone changes; the hooks that matter are not among them.
_OF_MODULES = nn.Module().__dict__.keys() - {"training", "_forward_hooks", "_forward_pre_hooks"}
# Notes that Pyro's autoguides write anew in each run, from the program alone.
_NOTES = {"plates"}
# Values of these types are compared by value.
_PLAIN = (
    *(bool, int, float, complex, str, bytes, type(None), enum.Enum, slice, range),
    *(torch.dtype, torch.device, torch.Size, torch.layout, np.generic),
)
# Arrays up to this size are compared by their contents.
_SMALL = 4096
# A program that can see more than this is not worth the look at every step.
_MOST = 20_000


class Watch:
    """The Python values that some objects can reach, as they are now.

    A recording holds what it read of attributes, closures, globals, lists and dictionaries as
    constants. So before a replay :meth:`changed` goes through these and names the first one that
    is no longer what it was. Tensors may change their values, which a replay reads anew, but
    not be other tensors, or be frozen.

    Followed are modules, plain objects, containers, partial functions, and functions with their
    closures, defaults and the globals that they name; not what libraries hold themselves.

    Parameters
    ----------
    roots
        What to start from, by the names that messages use.

    Examples
    --------
    >>> settings = types.SimpleNamespace(beta=1.0)
    >>> watch = Watch(settings=settings)
    >>> watch.changed()
    >>> settings.beta = 0.5
    >>> watch.changed()
    'settings.beta'
    """

    def __init__(self, **roots: Any) -> None:
        self._items: list[tuple[Any, Any, Any]] = []
        self._sizes: list[tuple[Any, int]] = []
        self._tensors: list[tuple[Tensor, bool, torch.dtype]] = []
        self._states: list[tuple[Any, Any]] = []
        self._names: dict[tuple[int, Any], str] = {}
        self._seen: dict[int, Any] = {}
        self._dtype = torch.get_default_dtype()
        queue = deque(roots.items())
        while queue:
            name, value = queue.popleft()
            if id(value) in self._seen or isinstance(value, _PLAIN):
                continue
            self._seen[id(value)] = value  # held, so that no other object gets its id
            if len(self._items) > _MOST:
                break
            queue.extend(self._look(name, value))

    @property
    def whole(self) -> bool:
        """Whether everything that can be reached is watched."""
        return len(self._items) <= _MOST

    @property
    def tensors(self) -> list[Tensor]:
        """The tensors that can be reached."""
        return [tensor for tensor, _, _ in self._tensors]

    def changed(self) -> str | None:
        """The name of something that is not what it was, or None."""
        for container, key, value in self._items:
            try:
                now = container[key]
            except (KeyError, IndexError):
                return self._names[id(container), key]
            if now is not value and not _same(now, value):
                return self._names[id(container), key]
        for container, size in self._sizes:
            if len(container) != size:
                return self._names[id(container), None]
        for tensor, requires_grad, dtype in self._tensors:
            if tensor.requires_grad != requires_grad or tensor.dtype != dtype:
                return self._names[id(tensor), None]
        for holder, state in self._states:
            if _state(holder) != state:
                return self._names[id(holder), None]
        return None if torch.get_default_dtype() is self._dtype else "torch's default dtype"

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Run a program once for a trial, and give back what it changed.

        Raises
        ------
        RecordingError
            If it changed something: a replay would not.
        """
        try:
            yield
            name = self.changed() if self.whole else "more than can be watched"
            if name is not None:
                raise RecordingError(f"the program changes {name} while it runs")
        finally:
            self._restore()

    def _restore(self) -> None:
        for container, key, value in self._items:
            with suppress(KeyError, IndexError, TypeError, AttributeError):
                if container[key] is not value:
                    container[key] = value
        for holder, state in self._states:
            _set_state(holder, state)

    def _look(self, name: str, value: Any) -> Iterator[tuple[str, Any]]:
        """Note what a value holds, and yield the parts to look at in turn."""
        if isinstance(value, Tensor):
            self._names[id(value), None] = name
            self._tensors.append((value, value.requires_grad, value.dtype))
        elif _state(value) is not None:
            self._names[id(value), None] = name
            self._states.append((value, _state(value)))
        elif isinstance(value, nn.Module):
            for group in (value._parameters, value._buffers, value._modules):
                yield from self._entries(name, group)
            notes = _NOTES if isinstance(value, AutoGuide) else _memory(value)
            yield from self._entries(name, value.__dict__, leave=_OF_MODULES | notes)
            yield from self._class(name, type(value))
        elif isinstance(value, dict | list | deque):
            keys = value if isinstance(value, dict) else range(len(value))
            yield from self._entries(name, value, {key: f"{name}[{key!r}]" for key in keys})
        elif isinstance(value, tuple | set | frozenset):
            if isinstance(value, set):
                self._names[id(value), None] = name
                self._sizes.append((value, len(value)))
            yield from ((f"{name}[{i}]", part) for i, part in enumerate(value))
        elif isinstance(value, functools.partial):
            yield from (
                (f"{name}.func", value.func),
                (f"{name}.args", value.args),
                (f"{name}.keywords", value.keywords),
            )
        elif isinstance(value, types.MethodType):
            yield from ((name.rpartition(".")[0] or name, value.__self__), (name, value.__func__))
        elif isinstance(value, types.FunctionType):
            yield from self._function(name, value)
        elif isinstance(value, type):
            yield from self._class(name, value)
        elif hasattr(value, "__wrapped__"):
            yield name, value.__wrapped__
        elif not isinstance(value, types.ModuleType | types.BuiltinFunctionType):
            leave = {*getattr(value, "_unwatched", ()), *_memory(value)}
            yield from self._entries(name, getattr(value, "__dict__", {}), leave=leave)
            for slot in getattr(type(value), "__slots__", ()):
                if isinstance(slot, str) and hasattr(value, slot):
                    self._note(_Slots(value), slot, f"{name}.{slot}")
                    yield f"{name}.{slot}", getattr(value, slot)
            yield from self._class(name, type(value))

    def _entries(
        self,
        name: str,
        container: Any,
        names: dict[Any, str] | None = None,
        leave: Collection[str] = (),
    ) -> Iterator[tuple[str, Any]]:
        own = (
            names
            if names is not None
            else {
                key: f"{name}.{key}"
                for key in container
                if not (key in leave or str(key).startswith("_cached"))
            }
        )
        self._names[id(container), None] = name
        self._sizes.append((container, len(container)))
        self._seen.setdefault(id(container), container)
        for key, called in own.items():
            self._note(container, key, called)
            yield called, container[key]

    def _note(self, container: Any, key: Any, name: str) -> None:
        self._names[id(container), key] = name
        self._items.append((container, key, container[key]))

    def _function(self, name: str, function: types.FunctionType) -> Iterator[tuple[str, Any]]:
        code = function.__code__
        for variable, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            reader = _Cell(cell)
            self._note(reader, variable, f"{variable}, which {function.__name__} reads")
            yield variable, reader[variable]
        yield from ((name, value) for value in function.__defaults__ or ())
        yield from ((key, value) for key, value in (function.__kwdefaults__ or {}).items())
        if _of_library(function.__module__):
            return
        for variable, attributes in _globals_of(code).items():
            if variable not in function.__globals__:
                continue
            value = function.__globals__[variable]
            self._note(function.__globals__, variable, f"the global {variable}")
            if isinstance(value, types.ModuleType):
                if not _of_library(value.__name__):
                    for attribute in attributes & value.__dict__.keys():
                        self._note(value.__dict__, attribute, f"{variable}.{attribute}")
                        yield f"{variable}.{attribute}", value.__dict__[attribute]
            else:
                yield variable, value

    def _class(self, name: str, kind: type) -> Iterator[tuple[str, Any]]:
        """Attributes and methods of classes that users wrote."""
        for base in kind.__mro__:
            if _of_library(base.__module__) or id(base) in self._seen:
                continue
            self._seen[id(base)] = base
            for key, value in vars(base).items():
                if not key.startswith("__"):
                    self._note(vars(base), key, f"{name}.{key}")
                if not key.startswith("__") or isinstance(value, types.FunctionType):
                    value = getattr(value, "__func__", getattr(value, "fget", value))
                    yield f"{name}.{key}", value


class _Cell:
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


class _Slots:
    """The attributes of an object that has no dictionary of them, as a container."""

    def __init__(self, holder: Any) -> None:
        self.holder = holder

    def __getitem__(self, key: str) -> Any:
        return getattr(self.holder, key, None)

    def __setitem__(self, key: str, value: Any) -> None:
        setattr(self.holder, key, value)


def _memory(value: Any) -> set[str]:
    """The names of values that an object caches, and computes again when they are gone."""
    return {"_inv"} if isinstance(value, Transform) else set()


def _globals_of(code: types.CodeType) -> dict[str, set[str]]:
    """The globals that code names, its inner functions' too, with the attributes read of any."""
    found: dict[str, set[str]] = {}
    attributes: set[str] = set()
    codes = [code]
    while codes:
        inner = codes.pop()
        codes += [const for const in inner.co_consts if isinstance(const, types.CodeType)]
        for instruction in dis.get_instructions(inner):
            if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
                found[instruction.argval] = attributes
            elif instruction.opname in ("LOAD_ATTR", "LOAD_METHOD"):
                attributes.add(instruction.argval)
    return found


def _of_library(module: str | None) -> bool:
    return (module or "builtins").partition(".")[0] in _LIBRARIES


def _same(now: Any, before: Any) -> bool:
    """Whether two values that are not one object are the same to a program."""
    return type(now) is type(before) and isinstance(now, _PLAIN) and bool(now == before)


def _state(value: Any) -> Any:
    """What changes inside of a generator of random numbers, or of an array of numbers."""
    if isinstance(value, random.Random):
        return value.getstate()
    if isinstance(value, np.random.Generator):
        return pickle.dumps(value.bit_generator.state)
    if isinstance(value, np.random.RandomState):
        return pickle.dumps(value.get_state())
    if isinstance(value, torch.Generator):
        return value.get_state().tolist()
    if isinstance(value, np.ndarray) and value.nbytes <= _SMALL and value.dtype != object:
        return value.tobytes()
    return None


def _set_state(value: Any, state: Any) -> None:
    if isinstance(value, random.Random):
        value.setstate(state)
    elif isinstance(value, np.random.Generator):
        value.bit_generator.state = pickle.loads(state)
    elif isinstance(value, np.random.RandomState):
        value.set_state(pickle.loads(state))
    elif isinstance(value, torch.Generator):
        value.set_state(torch.tensor(state, dtype=torch.uint8))
