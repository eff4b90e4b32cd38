"""Which likelihood suits rows of data, and each column of a table, and why."""

from __future__ import annotations

__all__ = ["likelihood_for", "likelihoods_of", "mixes"]

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from .components.decoders import DECODERS, CountsDecoder, Decoder, MixedDecoder
from .components.decoders.counts import if_pixels
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


def likelihood_for(
    x: Tensor,
    kinds: Sequence[ColumnKind],
    feature_names: Sequence[str] | None,
    choices: dict[str, Any],
) -> tuple[str, dict[str, Any], str]:
    """The likelihood of rows, the options that describe them, and why it was chosen, in words.

    Of what the caller chose, ``choices``, it is that one. The likelihood ``"mixed"`` becomes one
    of these, as its options are described here.

    Raises
    ------
    ValueError
        If no likelihood accepts the rows, or the one that was chosen cannot describe them.
    """
    if mixes(kinds, choices.get("likelihood"), choices.get("likelihood_options", {})):
        columns, described, reason = likelihoods_of(kinds, x)
        likelihood, described["columns"] = "mixed", columns
        choices["likelihood"] = "mixed"
    elif "likelihood" in choices:
        likelihood, reason = Choice.of(choices["likelihood"]).name, "the caller chose it"
        described = DECODERS.get(likelihood, Decoder).describes(x, feature_names) or {}
    else:
        likelihood, described, against = _first_that_describes(x, feature_names)
        held = DECODERS[likelihood].accepts
        if "levels" in described:
            held = f"intensities on {described['levels']} levels"
        reason = f"the narrowest that fits: the data hold {held}{against}"
    if issubclass(DECODERS.get(likelihood, Decoder), CountsDecoder):
        reason += if_pixels(x, chosen="likelihood" in choices)
    return likelihood, dict(described), reason


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


def _first_that_describes(
    x: Tensor, feature_names: Sequence[str] | None
) -> tuple[str, dict[str, Any], str]:
    """The likelihood, its options, and what spoke against narrower ones, in words."""
    against = ""
    for name, decoder in DECODERS.items():
        described = decoder.describes(x, feature_names)
        if described is None:
            continue
        reason = decoder.unsuitable(x, feature_names)
        if reason is None:
            return name, dict(described), against
        against += f"; {reason}" if reason else ""
    raise ValueError(
        f"x holds values that no likelihood accepts; there are {', '.join(map(repr, DECODERS))}"
    )
