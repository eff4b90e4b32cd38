"""What a reader is asked for: the options of ``load_data``, checked."""

from __future__ import annotations

__all__ = ["Column", "Reading"]

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .coding import Coding
from .kinds import ColumnKind

Column = str | int


@dataclass(frozen=True)
class Reading:
    """How a source is read and split; see :func:`~ppl_vae.load_data`, whose options these are.

    Raises
    ------
    ValueError
        If an option has no such value.
    """

    root: str | os.PathLike[str] | None = None
    test_fraction: float = 0.2
    seed: int = 0
    label: Column | None = None
    drop: Column | Sequence[Column] = ()
    header: bool | None = None
    missing: str | Sequence[str] = ()
    thousands: str | None = None
    context: str | Coding | Sequence[str | Coding] = ()
    column: Mapping[str, str] | Sequence[ColumnKind] = ()
    unseen: str = "refuse"
    layer: str | None = None
    image_size: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.test_fraction < 1:
            raise ValueError(f"test_fraction is {self.test_fraction}; give a share between 0 and 1")
        if self.image_size is not None and self.image_size < 1:
            raise ValueError(
                f"image_size is {self.image_size}; give the side in pixels, at least 1"
            )
        if self.unseen not in ("refuse", "missing"):
            raise ValueError(
                f"unseen is {self.unseen!r} (--unseen); accepted are 'refuse' and 'missing'"
            )
        names = self.beside
        if len(set(names)) < len(names):
            raise ValueError(f"context={names!r} (--context) names a column twice; name each once")

    @property
    def place(self) -> Path:
        """The folder of downloaded sets."""
        default = os.environ.get("PPL_VAE_DATA", "~/.cache/ppl_vae")
        return Path(default if self.root is None else self.root).expanduser()

    @property
    def dropped(self) -> list[Column]:
        """Columns to leave out."""
        return [self.drop] if isinstance(self.drop, str | int) else list(self.drop)

    @property
    def contexts(self) -> list[str | Coding]:
        """Columns that rows are conditional on, or how these are coded."""
        given = self.context
        return [given] if isinstance(given, str | Coding) else list(given)

    @property
    def beside(self) -> list[str]:
        """Names of the columns that rows are conditional on."""
        return [c.name if isinstance(c, Coding) else c for c in self.contexts]

    @property
    def marks(self) -> list[str]:
        """What marks missing cells besides the usual marks."""
        return [self.missing] if isinstance(self.missing, str) else list(map(str, self.missing))
