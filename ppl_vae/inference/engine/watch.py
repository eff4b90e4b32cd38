"""What a recording read in Python, and whether it is still the same."""

from __future__ import annotations

__all__ = ["Watch"]

import contextvars
import enum
import functools
import io
import os
import random
import sys
import types
import weakref
from collections import OrderedDict, deque
from collections.abc import Collection, ItemsView, Iterator, KeysView, ValuesView
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import torch
from pyro.infer.autoguide import AutoGuide
from torch import Tensor, nn
from torch.distributions import Transform

from .names import names_in
from .states import Cell, Slots, Variable, contents_of, kind_of, set_state, slots_of, state_of
from .values import RecordingError

# Code of these packages reads only what it is given: their objects are looked at, their functions
# and classes are not.
_LIBRARIES = {
    *("torch", "pyro", "numpy", "ppl_vae", "lightning_fabric", "zuko", "pydantic", "scipy"),
    *(sys.stdlib_module_names - {"__main__"}),
}
# Attributes of every module that PyTorch alone changes; the hooks that matter are not among them.
_OF_MODULES = {
    name for name in nn.Module().__dict__ if name != "training" and not name.endswith("ward_hooks")
} - {"_forward_pre_hooks", "_backward_pre_hooks"}
# Notes that Pyro's autoguides write anew in each run, from the program alone.
_NOTES = {"plates"}
# Values of these types are compared by value.
_PLAIN = (
    *(bool, int, float, complex, str, bytes, type(None), enum.Enum, slice, range),
    *(torch.dtype, torch.device, torch.Size, torch.layout, np.generic),
)
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
        self.blind: str | None = None
        self._items: list[tuple[Any, Any, Any]] = []
        self._sizes: list[tuple[Any, int]] = []
        self._contents: list[tuple[Any, Any]] = []
        self._tensors: list[tuple[Tensor, Any]] = []
        self._states: list[tuple[Any, Any]] = []
        self._names: dict[tuple[int, Any], str] = {}
        self._seen: dict[int, Any] = {}
        self._classes: dict[int, type] = {}
        self._dtype = torch.get_default_dtype()
        queue = deque(roots.items())
        while queue:
            name, value = queue.popleft()
            plain = isinstance(value, _PLAIN) and not getattr(value, "__dict__", None)
            if plain or id(value) in self._seen:
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
        return [tensor for tensor, _ in self._tensors]

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
        for container, entries in self._contents:
            if contents_of(container) != entries:
                return self._names[id(container), None]
        for tensor, kind in self._tensors:
            if kind_of(tensor) != kind:
                return self._names[id(tensor), None]
        for holder, state in self._states:
            if state_of(holder) != state:
                return self._names[id(holder), None]
        return None if torch.get_default_dtype() is self._dtype else "torch's default dtype"

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Run a program once for a trial, and give back what it changed.

        Raises
        ------
        RecordingError
            If it changed something, which a replay would not, or reads what cannot be watched.
        """
        if self.blind is not None:
            raise RecordingError(f"the program can read {self.blind}, which cannot be watched")
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
            set_state(holder, state)

    def _look(self, name: str, value: Any) -> Iterator[tuple[str, Any]]:
        """Note what a value holds, and yield the parts to look at in turn."""
        if isinstance(value, Tensor):
            self._names[id(value), None] = name
            self._tensors.append((value, kind_of(value)))
            own = {k: f"{name}.{k}" for k, v in vars(value).items() if isinstance(v, _PLAIN)}
            for key, called in own.items():
                self._note(vars(value), key, called)
        elif _unwatchable(value):
            self.blind = self.blind or f"{name} (of type {type(value).__name__})"
        elif state_of(value) is not None:
            self._names[id(value), None] = name
            self._states.append((value, state_of(value)))
        elif isinstance(value, nn.Module):
            for group in (value._parameters, value._buffers, value._modules):
                yield from self._entries(name, group)
            notes = _NOTES if isinstance(value, AutoGuide) else _memory(value)
            yield from self._entries(name, value.__dict__, leave=_OF_MODULES | notes)
            yield from self._class(name, type(value))
        elif isinstance(value, dict | list | deque | types.MappingProxyType | np.ndarray):
            if isinstance(value, np.ndarray):
                value = value.reshape(-1)  # of objects
            keys = range(len(value)) if isinstance(value, list | deque | np.ndarray) else value
            yield from self._entries(name, value, {key: f"{name}[{key!r}]" for key in keys})
            yield from self._own(name, value)
        elif isinstance(value, tuple | set | frozenset):
            if isinstance(value, set):
                self._names[id(value), None] = name
                self._contents.append((value, contents_of(value)))
            yield from ((f"{name}[{i}]", part) for i, part in enumerate(value))
            yield from self._own(name, value)
        elif isinstance(value, KeysView | ValuesView | ItemsView) and hasattr(value, "mapping"):
            yield name, value.mapping
        elif isinstance(value, weakref.ref):
            yield name, value()
        elif isinstance(value, contextvars.ContextVar):
            self._note(Variable(value), "value", name)
            yield name, value.get(None)
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
            yield from self._class(name, type(value))
        elif hasattr(value, "__wrapped__"):
            yield name, value.__wrapped__
        elif isinstance(value, types.ModuleType):
            if not _of_library(value.__name__):
                yield from self._attributes(name, value, set(vars(value)))
        elif isinstance(value, types.BuiltinFunctionType):
            # A method of what is built in, such as the get of a dictionary, reads what it is of.
            if not isinstance(value.__self__, types.ModuleType | None):
                yield f"{name}.__self__", value.__self__
        else:
            yield from self._own(name, value)

    def _own(self, name: str, value: Any) -> Iterator[tuple[str, Any]]:
        """The attributes of an object, in its dictionary and its slots, and its class."""
        leave = {*getattr(value, "_unwatched", ()), *_memory(value)}
        if hasattr(value, "__dict__"):
            yield from self._entries(name, value.__dict__, leave=leave)
            if not _of_library(type(value).__module__):
                self._note(Slots(value), "__class__", f"the class of {name}")
        for slot in slots_of(type(value)):
            if hasattr(value, slot):
                self._note(Slots(value), slot, f"{name}.{slot}")
                yield f"{name}.{slot}", getattr(value, slot)
        yield from self._class(name, type(value))

    def _attributes(
        self, name: str, module: types.ModuleType, attributes: set[str]
    ) -> Iterator[tuple[str, Any]]:
        """What code reads of a module by these names, and of modules in it."""
        for attribute in attributes & module.__dict__.keys():
            value = module.__dict__[attribute]
            if attribute.startswith("__"):
                continue
            self._note(module.__dict__, attribute, f"{name}.{attribute}")
            if not isinstance(value, types.ModuleType):
                yield f"{name}.{attribute}", value
            elif id(value) not in self._seen and not _of_library(value.__name__):
                self._seen[id(value)] = value
                yield from self._attributes(f"{name}.{attribute}", value, attributes)
                del self._seen[id(value)]

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
            else {key: f"{name}.{key}" for key in container if key not in leave}
        )
        self._names[id(container), None] = name
        self._sizes.append((container, len(container)))
        if isinstance(container, OrderedDict) and len(container) > 1:
            self._contents.append((container, contents_of(container)))
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
            reader = Cell(cell)
            self._note(reader, variable, f"{variable}, which {function.__name__} reads")
            yield variable, reader[variable]
        yield from ((name, value) for value in function.__defaults__ or ())
        yield from ((key, value) for key, value in (function.__kwdefaults__ or {}).items())
        if _of_library(function.__module__):
            return
        for attribute in ("__code__", "__defaults__", "__kwdefaults__"):
            self._note(Slots(function), attribute, f"{attribute} of {name}")
        for own in (function.__kwdefaults__, vars(function)):
            yield from self._entries(name, own or {})
        read = names_in(code, function.__globals__)
        for variable in read.variables:
            value = function.__globals__[variable]
            self._note(function.__globals__, variable, f"the global {variable}")
            if not isinstance(value, types.ModuleType):
                yield variable, value
        for variable, module in read.modules.items():
            if not _of_library(module.__name__):
                yield from self._attributes(variable, module, read.attributes)
        if read.environment:
            yield "os.environ", os.environ
        if read.outside is not None:
            self.blind = self.blind or f"{read.outside} in {function.__name__}"

    def _class(self, name: str, kind: type) -> Iterator[tuple[str, Any]]:
        """Attributes and methods of classes that users wrote."""
        for base in kind.__mro__:
            if _of_library(base.__module__) or id(base) in self._classes:
                continue
            self._classes[id(base)] = base
            own = vars(base)
            self._names[id(own), None] = f"the class {base.__name__}"
            self._sizes.append((own, len(own)))
            for key, value in own.items():
                self._note(own, key, f"{name}.{key}")
                if not key.startswith("__") or isinstance(value, types.FunctionType):
                    value = getattr(value, "__func__", getattr(value, "fget", value))
                    yield f"{name}.{key}", value


def _memory(value: Any) -> set[str]:
    """The names of values that an object caches, and computes again when they are gone."""
    if type(value).__module__.partition(".")[0] not in {"torch", "pyro", "zuko"}:
        return set()
    cached = {name for name in getattr(value, "__dict__", {}) if name.startswith("_cached")}
    return cached | ({"_inv"} if isinstance(value, Transform) else set())


def _unwatchable(value: Any) -> bool:
    """Whether something else than its attributes decides what an object gives next."""
    if isinstance(value, io.IOBase):
        return not value.closed and value.readable()
    if isinstance(value, random.SystemRandom):
        return True
    return isinstance(value, Iterator) and not hasattr(value, "__dict__")


def _of_library(module: str | None) -> bool:
    return (module or "builtins").partition(".")[0] in _LIBRARIES


def _same(now: Any, before: Any) -> bool:
    """Whether two values that are not one object are the same to a program."""
    return type(now) is type(before) and isinstance(now, _PLAIN) and bool(now == before)
