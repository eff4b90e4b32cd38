"""Which likelihood each column of a table gets, by what its cells are."""

from __future__ import annotations

__all__ = ["likelihoods_of", "mixes"]

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from .components.decoders import DECODERS, MixedDecoder
from .components.registry import Choice
from .data.kinds import ColumnKind

# The likelihood of a column of each kind; of levels, their number is added.
_LIKELIHOODS = {
    "binary": "bernoulli",
    "categorical": "categorical",
    "ordinal": "ordinal",
    "count": "negative_binomial",
    "positive": "log_normal",
    "proportion": "beta",
    "real": "normal",
}
# All columns of one of these are described by a plain likelihood.
_PLAIN = {"binary", "count", "real"}


def mixes(kinds: Sequence[ColumnKind], likelihood: Any, options: Mapping[str, Any]) -> bool:
    """Whether each column gets a likelihood of its kind: if none is chosen that fits all.

    Examples
    --------
    >>> kinds = [ColumnKind("a", "real"), ColumnKind("b", "count")]
    >>> mixes(kinds, None, {}), mixes(kinds, "normal", {}), mixes(kinds[:1], None, {})
    (True, False, False)
    """
    if not kinds:
        return False
    if likelihood is not None:
        choice = Choice.of(likelihood)
        return choice.name == "mixed" and "columns" not in {**options, **choice.options}
    found = {kind.kind for kind in kinds}
    return len(found) > 1 or not found <= _PLAIN


def likelihoods_of(
    kinds: Sequence[ColumnKind], x: Tensor
) -> tuple[tuple[str, ...], dict[str, Any], str]:
    """The likelihood of each column of a table, where they lie, and what was chosen, in words.

    Examples
    --------
    >>> import torch
    >>> kinds = [ColumnKind("a", "real"), ColumnKind("b", "categorical", ("x", "y", "z"))]
    >>> likelihoods_of(kinds, torch.tensor([[0.5, 2.0], [1.5, 0.0]]))[0]
    ('normal', 'categorical:levels=3')

    Raises
    ------
    ValueError
        If a column never varies that has a density.
    """
    chosen: list[str] = []
    named: dict[str, list[str]] = {}
    for i, kind in enumerate(kinds):
        name = _LIKELIHOODS[kind.kind]
        named.setdefault(name, []).append(kind.name)
        if kind.kind in ("categorical", "ordinal"):
            known = len(kind.levels) if kind.levels else int(x[:, i].nan_to_num(nan=0.0).max()) + 1
            name += f":levels={max(2, known)}"
        elif kind.kind not in ("binary", "count"):
            DECODERS[name].describes(x[:, [i]], [kind.name])
        chosen.append(name)
    said = "; ".join(
        f"{name} for {', '.join(map(repr, columns[:3]))}"
        + (f" and {len(columns) - 3} more" if len(columns) > 3 else "")
        for name, columns in named.items()
    )
    described = MixedDecoder.describes(x) or {}
    return tuple(chosen), described, f"columns are of several kinds: {said}"
