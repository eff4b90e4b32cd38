"""Rows that weights alone would have believed, and bounds on log p(x) of rows not believed."""

from __future__ import annotations

__all__ = ["bound", "contradict", "doubts_in_words"]

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ...amortized import AmortizedModel
from ...rows import Rows
from ..draws.sampling import spread, stage_seed
from ..weights.annealing import anneal
from ..weights.averages import EVIDENCE
from .missed import missed_mass
from .simulated import ENOUGH, Simulated

if TYPE_CHECKING:
    import xarray as xr

# Share of the rows asked that are contradicted, from which on no row is believed.
_MANY = 0.2
# Share of p(x) that annealing finds where q is not, from which on a row is not believed.
_MISSED = 0.1
# Simulated rows, and share of them, from which on truths where q puts no draws are no chance.
_HIDDEN = 3, 0.01
# Where annealing contradicts a row, so many times as many rows are asked.
_WIDER = 10


def contradict(
    vae: AmortizedModel,
    data: Rows,
    found: dict[str, np.ndarray],
    verdict: np.ndarray,
    reason: np.ndarray,
    tried: np.ndarray,
    better: Mapping[str, Any],
    annealed_rows: int,
    truths: Simulated,
    seed: int,
    options: dict[str, Any],
) -> bool:
    """Do not believe rows in which annealing from the prior finds more of p(x).

    Nor rows like simulated ones whose truths say otherwise. Returns whether nothing speaks for
    modes that the encoder misses.
    """
    suspected = truths.hidden >= _HIDDEN[0] and truths.hidden > _HIDDEN[1] * truths.good
    believed = np.flatnonzero(np.isin(verdict, ["as it is", "reweighted", "refined"]))
    for name in ("missed_mass", "annealed_log_evidence", "annealed_standard_error"):
        found[name] = np.full(len(data), np.nan)
    asked = np.zeros(len(data), dtype=bool)
    against = np.zeros(len(data), dtype=bool)
    for step, most in enumerate((annealed_rows, _WIDER * annealed_rows)):
        rows = spread(believed[~asked[believed]], most)
        if not len(rows) or (step and not (against.any() or suspected)):
            break
        refined = verdict[rows] == "refined"
        places = np.searchsorted(tried, rows)
        normals = {
            i: (better["mean"][places[i]], better["covariance"][places[i]])
            for i in np.flatnonzero(refined).tolist()
        }
        annealed = missed_mass(
            vae,
            data.select(rows),
            np.where(refined, found["log_evidence_refined"][rows], found["log_evidence"][rows]),
            np.where(refined, found["num_draws_refined"][rows], found["num_draws"][rows]),
            normals=normals,
            seed=stage_seed(seed, 300 + step),
            **options,
        )
        asked[rows] = True
        for name, values in annealed.items():
            found[name][rows] = values
        against[rows] = annealed["missed_mass"] > _MISSED
    found["contradicted"] = against
    if not (against.any() or suspected or truths.against):
        return True
    for row in np.flatnonzero(against):
        reason[row] = (
            f"annealing from the prior finds {found['missed_mass'][row]:.0%} of p(x) where "
            "q(z|x) puts no draws"
        )
    doubted = np.zeros(len(data), dtype=bool)
    if suspected:
        doubted[believed] = ~asked[believed]
        reason[doubted] = (
            f"of {truths.good} simulated rows {truths.hidden} have their truth where q(z|x) puts "
            "no draws, and this row was not annealed"
        )
    if truths.against:
        raw = np.isin(verdict, ["as it is", "reweighted"]) & ~against
        doubted |= raw
        reason[raw] = (
            f"of {truths.believed} simulated rows that would be believed, {truths.against}"
        )
    for refined in (False, True):  # a refined posterior is judged by its own draws
        kind = np.isin(np.arange(len(data)), believed) & ((verdict == "refined") == refined)
        here, of = int((against & kind).sum()), int((asked & kind).sum())
        if here:
            doubted |= kind & ~against & (~asked | (here > _MANY * of))
            reason[kind & doubted] = (
                f"annealing from the prior finds mass that q(z|x) misses in {here} of the {of} "
                "rows asked"
            )
    verdict[against], verdict[doubted] = "not", "not"
    found["log_evidence"][against] = found["annealed_log_evidence"][against]
    found["standard_error"][against] = found["annealed_standard_error"][against]
    # Weights that may miss a mode give no upper bound, also where nobody looked for it.
    found["log_evidence_high"][against | doubted] = np.inf
    found["weights_usable"][against | doubted] = -1
    return False


def bound(
    vae: AmortizedModel,
    data: Rows,
    found: dict[str, np.ndarray],
    verdict: np.ndarray,
    tried: np.ndarray,
    better: Mapping[str, Any],
    annealed_rows: int,
    seed: int,
    options: dict[str, Any],
) -> None:
    """Bound log p(x) from both sides where the encoder's weights cannot."""
    mended = verdict[tried] == "refined"
    for name in EVIDENCE if mended.any() else ():
        found[name][tried[mended]] = better[name][mended]
    left = np.isin(verdict, ["not", "not tried"]) & np.isfinite(found["log_evidence"])
    rows = spread(np.flatnonzero(left), annealed_rows)
    if not len(rows):
        return
    try:
        annealed = anneal(vae, data.select(rows), seed=stage_seed(seed, 500), **options)
    except ValueError:  # q has no density but at its own draws
        return
    reached = annealed.weights_usable.values
    for name in EVIDENCE:
        found[name][rows[reached]] = annealed[name].values[reached]


def doubts_in_words(rows: xr.Dataset) -> list[str]:
    """What annealing and the truths of simulated rows say of rows that weights would believe."""
    lines = []
    asked = int(np.isfinite(rows.annealed_log_evidence).sum())
    against = int(rows.contradicted.sum())
    if against:
        lines.append(
            f"Annealing from the prior finds mass that q(z|x) misses in {against} of {asked} "
            "rows otherwise believed: they are not, and neither are rows that nobody asked."
        )
    elif asked:
        lines.append(f"Annealing from the prior contradicts none of {asked} rows believed.")
    hidden, good = (rows.attrs.get(f"{name}_rows", 0) for name in ("hidden", "simulated"))
    if hidden >= _HIDDEN[0]:
        lines.append(
            f"Of {good} simulated rows whose weights look good, {hidden} have their truth "
            "where q(z|x) puts no draws, as in a second mode."
        )
    size, wrong = (rows.attrs.get(name) for name in ("believed_rows", "truths_against"))
    judged = f"Calibration of verdicts: of {size} simulated rows that would be believed,"
    if wrong:
        lines.append(f"{judged} {wrong}. So no row is, but after refinement.")
    elif size and rows.verdict.isin(["as it is", "reweighted"]).any():
        found = "truths lie where draws say" if size >= ENOUGH else "truths are too few to ask"
        lines.append(f"{judged} {found}.")
    return lines
