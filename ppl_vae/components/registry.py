"""Parts by name, with their options: how they are chosen, listed, built and added to."""

from __future__ import annotations

__all__ = ["Choice", "Registry", "split"]

import ast
import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Choice:
    """The name of a part and its options.

    Attributes
    ----------
    name
        What the part is registered as.
    options
        Arguments of its class, besides those that the builder gives.

    Examples
    --------
    >>> Choice.parse("conv:hidden=(32,64,256),activation=relu")
    Choice(name='conv', options={'hidden': (32, 64, 256), 'activation': 'relu'})
    >>> str(Choice("vamp", {"components": 500}))
    'vamp:components=500'
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Choice:
        """Read ``name:option=value,option=value``; a value is a number, a tuple or a word.

        Raises
        ------
        ValueError
            If an option has no value.
        """
        name, _, rest = text.partition(":")
        options = {}
        for part in split(rest):
            option, equals, value = part.partition("=")
            if not (equals and option.strip()):
                raise ValueError(
                    f"{text!r} has {part!r} where an option should be; write "
                    f"{name}:option=value,option=value"
                )
            options[option.strip()] = _value(value.strip())
        return cls(name.strip(), options)

    @classmethod
    def of(cls, value: str | Choice | Mapping[str, Any]) -> Choice:
        """A choice as people and files write it: text, a choice, or its name and options."""
        if isinstance(value, Choice):
            return value
        if not isinstance(value, Mapping):
            return cls.parse(value)
        name, options = value.get("name"), value.get("options", {})
        if not (isinstance(name, str) and isinstance(options, Mapping)):
            raise ValueError(
                f"a choice is {dict(value)!r}; pass its name as text, or name and options as in "
                "{'name': 'vamp', 'options': {'components': 100}}"
            )
        return cls(name, dict(options))

    def __str__(self) -> str:
        options = ",".join(f"{name}={_text(value)}" for name, value in self.options.items())
        return f"{self.name}:{options}" if options else self.name


def _text(value: Any) -> str:
    """Write a value as :meth:`Choice.parse` reads it; words like other values are in quotes."""
    plain = str(value).replace(" ", "")
    if isinstance(value, str) and (_value(value) != value or split(value) != [value]):
        return repr(value)
    return plain


def split(text: str) -> list[str]:
    """Text at its commas, but for those inside of brackets."""
    parts, depth, quoted = [""], 0, False
    for letter in text:
        quoted ^= letter == "'"
        depth += (letter in "([") - (letter in ")]")
        if letter == "," and depth == 0 and not quoted:
            parts.append("")
        else:
            parts[-1] += letter
    return [part for part in parts if part.strip()]


def _value(text: str) -> Any:
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


class Registry(Mapping[str, type[T]], Generic[T]):
    """The parts of one kind, by name.

    A class joins by the decorator :meth:`register`, or from another package by an entry point
    whose group is that of the registry. It is built from the arguments that the builder knows,
    such as the number of latents, and from the options of a choice; a class takes which of the
    former it names.

    Parameters
    ----------
    kind
        What the parts are, in messages: ``"prior"``.
    given
        Names of the arguments that a builder gives. They are not options.

    Examples
    --------
    >>> SHAPES = Registry("shape", given=("size",))
    >>> @SHAPES.register("square")
    ... class Square:
    ...     def __init__(self, size, *, angle=0.0): self.size, self.angle = size, angle
    >>> SHAPES.build("square:angle=0.5", size=3).angle
    0.5
    >>> SHAPES.build("square:radius=1", size=3)
    Traceback (most recent call last):
        ...
    ValueError: shape 'square' has no option 'radius'; accepted is angle=0.0
    """

    def __init__(self, kind: str, *, given: tuple[str, ...] = ()) -> None:
        self.kind = kind
        self.group = f"ppl_vae.{kind}s"
        self.given = given
        self._classes: dict[str, type[T]] = {}
        self._looked = False

    def register(self, name: str, *, before: str | None = None) -> Callable[[type[T]], type[T]]:
        """Decorate a class to have it built by ``name``.

        Parameters
        ----------
        name
            What it is called in a choice.
        before
            The part that it stands before, where the first that fits is taken; last if None.

        Raises
        ------
        ValueError
            If another class has that name.
        """

        def decorate(cls: type[T]) -> type[T]:
            other = self._classes.get(name)
            if other is not None and other.__qualname__ != cls.__qualname__:
                raise ValueError(
                    f"{self.kind} {name!r} is {other.__module__}.{other.__qualname__} already; "
                    "register yours under another name"
                )
            classes = {key: value for key, value in self._classes.items() if key != name}
            if before is not None and before not in classes:
                accepted = ", ".join(map(repr, classes))
                raise ValueError(f"before is {before!r}; accepted are {accepted}")
            position = list(classes).index(before) if before else len(classes)
            ordered = list(classes.items())
            ordered.insert(position, (name, cls))
            self._classes = dict(ordered)
            return cls

        return decorate

    def __getitem__(self, name: str) -> type[T]:
        if name not in self._classes:
            self._look_around()
        return self._classes[name]

    def __iter__(self) -> Iterator[str]:
        self._look_around()
        return iter(self._classes)

    def __len__(self) -> int:
        self._look_around()
        return len(self._classes)

    def options(self, name: str) -> dict[str, Any]:
        """The options of a part, with their defaults; ``inspect.Parameter.empty`` has none."""
        parameters = inspect.signature(self[name]).parameters.values()
        rest = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
        return {
            p.name: p.default for p in parameters if p.name not in self.given and p.kind not in rest
        }

    def check(self, choice: str | Choice) -> Choice:
        """The choice, if there is such a part and it has these options.

        Raises
        ------
        ValueError
            If not, with what is accepted.
        """
        choice = Choice.of(choice)
        if choice.name not in self:
            accepted = ", ".join(map(repr, self))
            raise ValueError(f"{self.kind} is {choice.name!r}; accepted are {accepted}")
        known = self.options(choice.name)
        for option in choice.options:
            if option not in known:
                accepted = ", ".join(
                    name if default is inspect.Parameter.empty else f"{name}={default!r}"
                    for name, default in known.items()
                )
                verb = "is" if len(known) == 1 else "are"
                raise ValueError(
                    f"{self.kind} {choice.name!r} has no option {option!r}; "
                    + (f"accepted {verb} {accepted}" if known else "it has none")
                )
        return choice

    def build(self, choice: str | Choice, **given: Any) -> T:
        """Build a part from a choice and from those of the given arguments that it names.

        The part remembers its choice, as its attribute ``choice``.

        Raises
        ------
        ValueError
            If there is no such part or option, or the part refuses an option's value.
        """
        choice = self.check(choice)
        cls = self[choice.name]
        named = set(inspect.signature(cls).parameters)
        if any(p.kind is p.VAR_KEYWORD for p in inspect.signature(cls).parameters.values()):
            named |= set(self.given)  # a class that hands its arguments on to its base class
        missing = [
            name
            for name, default in self.options(choice.name).items()
            if default is inspect.Parameter.empty and name not in choice.options
        ]
        if missing:
            raise ValueError(
                f"{self.kind} {choice.name!r} needs {', '.join(missing)}; write "
                f"{choice.name}:{missing[0]}=..."
            )
        part = cls(**{k: v for k, v in given.items() if k in named}, **choice.options)
        part.choice = choice  # type: ignore[attr-defined]
        return part

    def _look_around(self) -> None:
        """Load the parts that other packages offer, once."""
        if not self._looked:
            self._looked = True
            for entry in entry_points(group=self.group):
                try:
                    self.register(entry.name)(entry.load())
                except Exception as error:  # another package may raise anything when it is imported
                    warnings.warn(
                        f"{self.kind} {entry.name!r} of {entry.value} cannot be loaded: {error}",
                        RuntimeWarning,
                        stacklevel=3,
                    )
