"""Renamed arguments: a call with the old name fails with an error that says the new one."""

from __future__ import annotations

__all__ = ["renamed"]

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def renamed(**names: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a function some of whose arguments were renamed, ``old="new"``.

    Raises
    ------
    TypeError
        When the function is called with an old name, saying the new one.

    Examples
    --------
    >>> @renamed(context="covariates")
    ... def f(x, covariates=None): ...
    >>> f(1, context=2)
    Traceback (most recent call last):
        ...
    TypeError: f() got context=..., an argument that is now called covariates; pass covariates=...
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            for old, new in names.items():
                if old in kwargs:
                    raise TypeError(
                        f"{function.__name__}() got {old}=..., an argument that is now called "
                        f"{new}; pass {new}=..."
                    )
            return function(*args, **kwargs)

        return checked

    return decorate
