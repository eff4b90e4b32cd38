"""What the code of a function names: globals, modules, and what lies outside of the program."""

from __future__ import annotations

__all__ = ["Names", "names_in"]

import builtins
import dis
import sys
import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Functions that give something else at each call, by the module that they are of.
_OUTSIDE = {
    "time": {
        *("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns"),
        *("process_time", "process_time_ns", "localtime", "gmtime", "strftime", "ctime"),
    },
    "datetime": {"now", "utcnow", "today"},
    "os": {"urandom", "stat", "listdir", "scandir", "getloadavg"},
    "secrets": {"token_bytes", "token_hex", "randbits", "randbelow", "choice"},
    "uuid": {"uuid1", "uuid4"},
    "numpy": {"default_rng", "load", "loadtxt", "genfromtxt", "fromfile"},
    "torch": {"load"},
    "builtins": {"open", "input"},
    "pathlib": {"read_text", "read_bytes", "open", "exists", "stat"},
}
# What reaches a global by a text.
_BY_TEXT = {"globals", "vars", "eval", "exec", "getattr"}


@dataclass(frozen=True)
class Names:
    """What a function names, its inner functions' names too.

    Attributes
    ----------
    variables
        Globals.
    modules
        Modules, by the names that they have there.
    attributes
        Names of attributes, read of anything.
    environment
        Whether it names the environment's variables.
    outside
        A function that it names and that gives something else at each call, or None.
    """

    variables: set[str]
    modules: dict[str, types.ModuleType]
    attributes: set[str]
    environment: bool
    outside: str | None


def names_in(code: types.CodeType, known: Mapping[str, Any]) -> Names:
    """What code names, whose globals are ``known``.

    Examples
    --------
    >>> import time
    >>> def model():
    ...     return len(time.asctime())
    >>> sorted(names_in(model.__code__, {"time": time}).modules)
    ['time']
    """
    names: set[str] = set()
    attributes: set[str] = set()
    imported: set[str] = set()
    texts: set[str] = set()
    codes = [code]
    while codes:
        inner = codes.pop()
        codes += [const for const in inner.co_consts if isinstance(const, types.CodeType)]
        texts.update(const for const in inner.co_consts if isinstance(const, str))
        for instruction in dis.get_instructions(inner):
            if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
                names.add(instruction.argval)
            elif instruction.opname in ("LOAD_ATTR", "LOAD_METHOD", "IMPORT_FROM"):
                attributes.add(instruction.argval)
            elif instruction.opname == "IMPORT_NAME":
                imported.add(instruction.argval)
    if names & _BY_TEXT:
        names |= texts
        attributes |= texts
    if attributes & {"modules", "import_module"}:
        imported |= texts
    variables = names & known.keys()
    modules = {name: known[name] for name in variables if isinstance(known[name], types.ModuleType)}
    for name in imported:
        for full in (name, f"{known.get('__package__')}.{name}"):
            parts = full.split(".")
            for size in range(1, len(parts) + 1):
                part = ".".join(parts[:size])
                if part in sys.modules:
                    modules[part] = sys.modules[part]
    return Names(
        variables=variables,
        modules=modules,
        attributes=attributes,
        environment=bool((attributes | names) & {"environ", "getenv"}),
        outside=_outside(names, attributes, variables, modules, known),
    )


def _outside(
    names: set[str],
    attributes: set[str],
    variables: set[str],
    modules: Mapping[str, types.ModuleType],
    known: Mapping[str, Any],
) -> str | None:
    for name in names - known.keys():
        if name in _OUTSIDE["builtins"] and hasattr(builtins, name):
            return name
    for name in variables:
        value = known[name]
        home = (getattr(value, "__module__", None) or "").partition(".")[0]
        changing = _OUTSIDE.get(home, set())
        if getattr(value, "__name__", None) in changing:
            return name
        if not isinstance(value, types.ModuleType | types.FunctionType) and changing & attributes:
            return f"{name}.{min(changing & attributes)}"
    for name, module in modules.items():
        found = _OUTSIDE.get(module.__name__.partition(".")[0], set()) & attributes
        if found:
            return f"{name}.{min(found)}"
    return None
