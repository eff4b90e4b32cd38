"""What the colors of a map of rows may say: a label, a verdict, k-hat or log p(x)."""

from __future__ import annotations

__all__ = ["Coloring", "colorings", "map_in_words"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from .colors import COLORS, COLORS_ON_DARK, VERDICT_COLORS, VERDICT_COLORS_ON_DARK, ramp
from .panels import kinds_of

# Where k-hat's colors change: Vehtari et al. (2024) rely on weights up to 0.7 at most, and have no
# mean above 1.
_KHAT = np.array([0.3, 0.5, 0.7, 1.0])
_STEPS = len(_KHAT) + 1


@dataclass(frozen=True)
class Coloring:
    """One thing that colors may say.

    Attributes
    ----------
    name
        What it is.
    classes
        Which color each row has, shape ``(row,)``; -1 where there is nothing to say.
    words
        What each color says.
    light, dark
        The colors, on a light page and on a dark one.
    shaped
        Whether each color has a marker of its own.
    """

    name: str
    classes: np.ndarray
    words: list[str]
    light: list[str]
    dark: list[str]
    shaped: bool = False

    @property
    def present(self) -> list[int]:
        """The colors that some row has."""
        return [i for i in range(len(self.words)) if (self.classes == i).any()]


def colorings(
    size: int,
    *,
    labels: Sequence[Any] | np.ndarray | None = None,
    verdict: Sequence[str] | np.ndarray | None = None,
    khat: np.ndarray | None = None,
    evidence: np.ndarray | None = None,
) -> dict[str, Coloring]:
    """All that colors of ``size`` rows may say, of what is known: each shape ``(row,)``.

    Labels of more than 20 kinds are not told apart.

    Examples
    --------
    >>> found = colorings(3, labels=["b", "a", "b"], khat=np.array([0.1, 0.8, np.nan]))
    >>> list(found), found["khat"].classes.tolist()
    (['label', 'khat'], [0, 3, -1])
    """
    found = {}
    kinds = kinds_of(labels, size)
    if kinds[0][0] is not None or (verdict is None and khat is None):
        classes = np.zeros(size, dtype=int)
        for i, (_, rows) in enumerate(kinds):
            classes[rows] = i
        several = kinds[0][0] is not None
        found["label"] = Coloring(
            "label" if several else "nothing",
            classes,
            [str(kind) for kind, _ in kinds] if several else [],
            [COLORS[i % len(COLORS)] for i in range(len(kinds))],
            [COLORS_ON_DARK[i % len(COLORS_ON_DARK)] for i in range(len(kinds))],
            shaped=True,
        )
    if verdict is not None:
        names = list(VERDICT_COLORS)
        found["verdict"] = Coloring(
            "verdict",
            np.array([names.index(str(v)) if str(v) in names else -1 for v in verdict]),
            names,
            list(VERDICT_COLORS.values()),
            list(VERDICT_COLORS_ON_DARK.values()),
        )
    if khat is not None:
        found["khat"] = _stepped("k-hat", khat, _KHAT)
    if evidence is not None:
        finite = evidence[np.isfinite(evidence)]
        shares = np.arange(1, _STEPS) / _STEPS
        edges = np.quantile(finite, shares) if len(finite) else np.zeros(_STEPS - 1)
        found["evidence"] = _stepped("log p(x)", evidence, edges)
    return found


def _stepped(name: str, values: np.ndarray, edges: np.ndarray) -> Coloring:
    said = [f"{edge:.1f}" for edge in edges]
    return Coloring(
        name,
        np.where(np.isfinite(values), np.searchsorted(edges, values, side="right"), -1),
        [
            f"below {said[0]}",
            *(f"{low} to {high}" for low, high in pairwise(said)),
            f"{said[-1]} and above",
        ],
        ramp(_STEPS),
        ramp(_STEPS, on_dark=True),
    )


def map_in_words(xy: np.ndarray, found: Mapping[str, Coloring]) -> str:
    """What is to be seen on a map of rows ``(row, 2)``, for whoever does not see it.

    Examples
    --------
    >>> xy = np.array([[0.0, 1.0], [2.0, 0.0], [0.5, 1.0]])
    >>> map_in_words(xy, colorings(3, labels=["b", "a", "b"], verdict=["not"] * 3))[-54:]
    'labels: a at 2.0, 0.0; b at 0.2, 1.0. Verdicts: 3 not.'
    """
    usable = np.isfinite(xy).all(1)
    said = [f"A map of {int(usable.sum())} rows in the space of latents, a point each."]
    if "label" in found and found["label"].words:
        label = found["label"]
        of_label = {label.words[i]: usable & (label.classes == i) for i in label.present}
        middles = {
            word: np.median(xy[rows], axis=0) for word, rows in of_label.items() if rows.any()
        }
        where = "; ".join(f"{word} at {x:.1f}, {y:.1f}" for word, (x, y) in middles.items())
        said.append(f"The middles of the labels: {where}.")
    if "verdict" in found:
        verdict = found["verdict"]
        counts = (f"{(verdict.classes == i).sum()} {verdict.words[i]}" for i in verdict.present)
        said.append(f"Verdicts: {', '.join(counts)}.")
    return " ".join(said)
