"""What would mend a VAE whose posterior cannot be believed, and by how much."""

from __future__ import annotations

__all__ = ["Cure", "cures_of", "in_words"]

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import xarray as xr

# Nats per row from which on a cure is worth a word, if they are more than this many errors.
_WORTH, _ERRORS = 0.1, 2.0


@dataclass(frozen=True)
class Cure:
    """A change of the VAE or of its fit, and what it wins.

    Attributes
    ----------
    name
        ``"prior"``, ``"guide"`` or ``"fit"``: what has to be changed.
    nats, error
        What it wins for each row, on average over rows, and its standard error.
    at_least
        Whether it may well win more.
    why
        What is wrong, in words.
    option
        The option of ``ppl-vae fit`` that makes the change.
    """

    name: str
    nats: float
    error: float
    at_least: bool
    why: str
    option: str


def cures_of(prior: xr.Dataset, gaps: xr.Dataset, parts: Mapping[str, str]) -> list[Cure]:
    """The changes that are worth it, the one that wins most first.

    Parameters
    ----------
    prior
        From :func:`~ppl_vae.prior_gap`.
    gaps
        From :func:`~ppl_vae.amortization_gap`.
    parts
        The names of the VAE's prior and guide, where they are known.
    """
    richer = {"normal": "flow", "low_rank": "full_rank", "full_rank": "flow", "mixture": "flow"}
    guide = richer.get(parts.get("guide", ""), "flow:transforms=8")
    learned = "flow:transforms=8" if parts.get("prior") == "flow" else "flow"
    low = bool(gaps.low.any())
    measured = (
        (
            "prior",
            prior.gain.values,
            True,
            "the prior is not where the encoder puts the rows",
            f"--prior {learned}",
        ),
        (
            "guide",
            # A search that did not end leaves nats to the encoder that seem to be the family's.
            gaps.approximation.values - gaps.search.values,
            low,
            "the encoder's family cannot have the posterior's shape",
            f"--guide {guide}",
        ),
        (
            "fit",
            gaps.amortization.values,
            False,
            "the encoder is not the best of its family: fit longer or with a larger network, or, "
            "where it serves training rows better, to more rows",
            "--epochs, --network; for the rows at hand refine()",
        ),
    )
    found = []
    for name, values, at_least, why, option in measured:
        finite = values[np.isfinite(values)]
        if len(finite) > 1:
            nats, error = float(finite.mean()), float(finite.std(ddof=1) / len(finite) ** 0.5)
            if nats > max(_WORTH, _ERRORS * error):
                found.append(Cure(name, nats, error, at_least, why, option))
    return sorted(found, key=lambda cure: -cure.nats)


def in_words(cures: list[Cure], prior: xr.Dataset, gaps: xr.Dataset) -> list[str]:
    """A line for each cure, with what it wins, and how many rows that is not known of."""
    known = np.isfinite(gaps.amortization.values) & np.isfinite(gaps.approximation.values)
    if not (known.any() or np.isfinite(prior.gain.values).any()):
        return ["What would help cannot be said: what it would win is not finite in any row."]
    lost = int((~known).sum())
    less = f", less {lost} of {len(known)} rows in which it is not finite" if lost else ""
    if not cures:
        return [
            "What would help: neither a learned prior, nor a richer encoder, nor a longer fit was "
            f"found to win more than {_WORTH} nats per row{less}."
        ]
    return [
        f"What would help, and what it wins in nats per row with all else as it is{less}:",
        *(
            f"{'>=' if cure.at_least else '':>4} {cure.nats:.2f} +- {cure.error:.2f}  {cure.why} "
            f"({cure.option})"
            for cure in cures
        ),
    ]
