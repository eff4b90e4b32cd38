"""Other data in place of those that a program is called with."""

from __future__ import annotations

__all__ = ["Arguments", "NotFoundError"]

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .traced import Program

Path = tuple[Any, ...]
AsArguments = Callable[[Mapping[str, Tensor]], Sequence[Any]]


class NotFoundError(ValueError):
    """Why the data of a program cannot be told from its other arguments."""


class Arguments:
    """What a program is called with, as a function of its data.

    The data of an observed site are an argument that holds its values: one whose memory they are a
    view of, or that is equal to them. An argument that looks as if it were computed from the data,
    such as the same sequences reversed, would not follow them, and is not accepted.

    Parameters
    ----------
    model
        The program.
    as_args
        A function from the values of its observed sites to the positional arguments, for programs
        in which this cannot be found out.

    Raises
    ------
    NotFoundError
        If it cannot be found out where the data are.
    """

    def __init__(self, model: Program, as_args: AsArguments | None = None) -> None:
        self.model = model
        self.as_args = as_args
        self.places: dict[str, Path] = {}
        if as_args is None:
            self._find()

    def of(self, values: Mapping[str, Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments with the observed sites' values in place of the data."""
        if self.as_args is not None:
            return tuple(self.as_args(values)), self.model.kwargs
        everything: Any = (self.model.args, self.model.kwargs)
        for place in dict.fromkeys(self.places.values()):
            held = _at(everything, place)
            new = held.clone()
            for name, path in self.places.items():
                if path == place:
                    _write(new, held, self.model.one(name)["value"], values[name])
            everything = _replaced(everything, place, new)
        args, kwargs = everything
        return args, kwargs

    def check(self, values: Mapping[str, Tensor]) -> None:
        """Run the program with these data, and see that it observes them.

        Raises
        ------
        NotFoundError
            If it does not.
        """
        args, kwargs = self.of(values)
        model = self.model.with_arguments(args, kwargs)
        first = {n: v for n, v in self.model.first.items() if n not in self.model.summed}
        model.summed = frozenset()
        for name, site in model.trace(first).items():
            if name in values and not torch.equal(site["value"].to(values[name]), values[name]):
                raise NotFoundError(
                    f"the model does not observe at {name!r} what was put in place of its data"
                )

    def _find(self) -> None:
        held = dict(_tensors((self.model.args, self.model.kwargs), ()))
        for name in self.model.observed:
            value = self.model.one(name)["value"]
            found = [path for path, tensor in held.items() if _is_view(value, tensor)]
            found = found or [path for path, tensor in held.items() if _is_equal(value, tensor)]
            if not found:
                raise NotFoundError(f"no argument holds the data of {name!r} as they are")
            self.places[name] = found[0]
        for place in set(self.places.values()):
            for path, tensor in held.items():
                if path not in self.places.values() and _is_shuffled(tensor, held[place]):
                    raise NotFoundError(
                        f"{_called(path)} has the same numbers as {_called(place)}, which are "
                        "data, in another order"
                    )


def _tensors(given: Any, path: Path) -> Iterator[tuple[Path, Tensor]]:
    if isinstance(given, Tensor):
        yield path, given
    elif isinstance(given, Mapping):
        for key, value in given.items():
            yield from _tensors(value, (*path, key))
    elif type(given) in (list, tuple):
        for index, value in enumerate(given):
            yield from _tensors(value, (*path, index))
    elif isinstance(given, tuple) and hasattr(given, "batch_sizes"):
        raise NotFoundError(f"{_called(path)} is a {type(given).__name__}, which may hold data")


def _is_view(value: Tensor, tensor: Tensor) -> bool:
    same = value.untyped_storage().data_ptr() == tensor.untyped_storage().data_ptr()
    return same and tensor.is_contiguous() and tensor.dtype == value.dtype and value.numel() > 0


def _is_equal(value: Tensor, tensor: Tensor) -> bool:
    return (
        value.numel() == tensor.numel() > 0
        and len(tensor) == len(value)
        and torch.equal(tensor.reshape(value.shape).to(value), value)
    )


def _is_shuffled(tensor: Tensor, data: Tensor) -> bool:
    if tensor.numel() != data.numel() or (data == data.flatten()[0]).all():
        return False
    return torch.equal(tensor.flatten().double().sort()[0], data.flatten().double().sort()[0])


def _write(new: Tensor, held: Tensor, value: Tensor, other: Tensor) -> None:
    """Put ``other`` where ``value`` was."""
    if _is_view(value, held):
        offset = value.storage_offset() - held.storage_offset()
        new.as_strided(value.shape, value.stride(), offset).copy_(other)
    else:
        new.copy_(other.reshape(new.shape))


def _at(given: Any, path: Path) -> Any:
    for key in path:
        given = given[key]
    return given


def _replaced(given: Any, path: Path, new: Any) -> Any:
    if not path:
        return new
    if isinstance(given, Mapping):
        return {**given, path[0]: _replaced(given[path[0]], path[1:], new)}
    return type(given)(
        _replaced(value, path[1:], new) if i == path[0] else value for i, value in enumerate(given)
    )


def _called(path: Path) -> str:
    where = "".join(f"[{key!r}]" for key in path[2:])
    return f"argument {path[1]}{where}"
