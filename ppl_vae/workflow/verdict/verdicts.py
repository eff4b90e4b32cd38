"""A verdict for each row: whether its draws can be used, how, and why not."""

from __future__ import annotations

__all__ = ["VERDICTS", "spread", "verdicts"]

from collections.abc import Callable
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ...amortized import AmortizedModel
from ...rows import Rows, rows_within_budget
from ..draws.chunked import region_rows
from ..draws.posterior import Draws, map_draws
from ..draws.sampling import spread, stage_seed
from ..weights.averages import average_weight
from .doubt import bound, contradict
from .judgement import judge, reasons, verdict_of
from .refined import refined, refined_at_once
from .simulated import Simulated, simulated
from .stages import Stages

if TYPE_CHECKING:
    import xarray as xr

VERDICTS = {
    "as it is": "draws from the encoder can be used as they are",
    "reweighted": "draws can be used with their importance weights",
    "refined": "draws can be used after refine(method='natural_gradient'), with their weights",
    "not": "only NUTS, refine(method='nuts'), or a better VAE will do",
    "not tried": "refinement was not tried on this row",
}
# Simulated rows whose truths are asked, at least.
_SIMULATED = 200
# How many times as many draws a row that is still open gets next.
_MORE = 4
# Entries of data that open rows may cost together, beyond the first draws of all.
_BUDGET = 10**9
# Draws that log p(x) of rows that needed many is estimated with, at most.
_ESTIMATED = 8000
# Numbers that a step finds of a row, about.
_NUMBERS = 24
# Numbers in the covariances of refined rows, about 512 MB in single precision.
_COVARIANCES = 2**27
# Results of refined rows, and what the judgement of their draws calls them.
_OF_REFINED = {
    "kl_refined": "kl",
    "kl_refined_error": "kl_error",
    "pareto_k_refined": "pareto_k",
    "num_draws_refined": "num_draws",
    "log_evidence_refined": "log_evidence",
}


def verdicts(
    vae: AmortizedModel,
    x: Tensor | Rows,
    *,
    covariates: Tensor | None = None,
    num_samples: int = 500,
    max_samples: int = 32_000,
    tolerance: float = 0.1,
    refined_rows: int | None = None,
    annealed_rows: int = 50,
    num_simulations: int = 1000,
    seed: int = 0,
    progress: bool = True,
    stages: Stages | None = None,
) -> xr.Dataset:
    r"""Say of each row whether its draws can be used as they are, reweighted, refined, or not.

    ``"as it is"`` is shown, not assumed: raw draws give every latent's mean within 0.1 posterior
    standard deviations, its standard deviation within 10 % and its 90 % interval within 5 % of
    mass, beyond the errors of what they are compared with, and KL(q || p) is what this costs at
    most. ``"reweighted"``: k-hat is below its threshold, and weighted means have a standard error
    of at most ``tolerance``, as most batches of 2000 draws foresee it. A row that is neither shown
    nor refuted gets four times as many draws, afresh, up to ``max_samples``; what then is open gets
    the more careful verdict. Rows that are neither are refined by natural gradients and judged
    likewise.

    Weights see only where q puts draws. Annealing from the prior sees more: a row in which it finds
    more of p(x) has a mode elsewhere, and is not believed. It is run on some of the rows otherwise
    believed, and on more if one is contradicted, or if simulated rows have their truth where q puts
    no draws; rows that nobody asked are then not believed.

    Simulated rows are judged as these are, and the truths of those that would be believed ranked
    among their draws: where ranks say that draws are off by more than a row believed may be, no
    row is believed as it is or reweighted.

    Parameters
    ----------
    vae, x, covariates
        A model and rows, shape ``(row, *event)``.
    num_samples, max_samples
        Draws for each row, and for each that these leave open.
    tolerance
        Standard error that weighted means may have, posterior standard deviations.
    refined_rows, annealed_rows
        How many rows to refine and to anneal, at most, spread over those that it may concern. None
        refines all. Without annealing no truth is asked either.
    num_simulations
        How many simulated rows to ask for their truths, at most as many as there are rows, but 200.
    seed, progress
        As in :func:`~ppl_vae.diagnose`.
    stages
        Keeps what each step finds; by default in memory.

    Returns
    -------
    xarray.Dataset
        Over ``row``: ``verdict``, a key of ``VERDICTS``, and ``reason``; all that
        :func:`~ppl_vae.workflow.verdict.judgement.judge` returns, of ``num_draws`` draws. Of
        others, up to 8000, ``log_evidence``, ``standard_error``, ``log_evidence_low``,
        ``log_evidence_high`` and ``elbo``, nats: of refined rows by refined draws, and of
        ``annealed_rows`` of those not believed by annealing from the encoder, unless a mode is
        missed; of the others there is no upper end. ``missed_mass``, ``annealed_log_evidence`` and
        ``annealed_standard_error``, nats, are NaN in rows that were not asked; ``contradicted``
        says in which annealing found more. ``tried``, whether a row was refined, and of these
        ``kl_refined``, ``kl_refined_error`` and ``log_evidence_refined``, nats, and
        ``pareto_k_refined``, of ``num_draws_refined`` draws.
        Attributes: ``simulated_rows``, of which weights look good, and ``hidden_rows``, of which
        the truth is where q puts no draws; ``believed_rows``, simulated ones that would be
        believed, and ``truths_against``, what their truths say against it, ``""`` for nothing.
    """
    import xarray as xr

    data = Rows.of(x, covariates, vae)
    size = len(data)
    options: dict[str, Any] = {"progress": progress}
    kept = stages or Stages()
    found = _judged(vae, data, num_samples, max_samples, tolerance, seed, options, kept)
    verdict, reason = verdict_of(found), reasons(found, tolerance)
    found |= _estimated(vae, data, found, num_samples, seed, options, kept)
    lost = ~np.isfinite(found["log_evidence"]) | np.isnan(found["pareto_k"])
    verdict[lost], reason[lost] = "not", "log p(x), or a weight, is not finite"

    failed = np.flatnonzero((verdict == "not") & ~lost)
    most = max(1, _COVARIANCES // vae.latent_dim**2)
    tried = spread(failed, most if refined_rows is None else min(refined_rows, most))
    verdict[failed] = "not tried"
    found["tried"] = np.zeros(size, dtype=bool)
    for name in _OF_REFINED:
        found[name] = np.full(size, np.nan)
    better: dict[str, Any] = {}
    if len(tried):
        numbers = _NUMBERS + vae.latent_dim * (1 + vae.latent_dim)
        better = kept.run(
            "refined",
            len(tried),
            region_rows(refined_at_once(vae, num_samples), numbers),
            lambda sink: refined(
                vae,
                data,
                tried,
                num_samples=num_samples,
                tolerance=tolerance,
                seed=stage_seed(seed, 200),
                sink=sink,
                **options,
            ),
        )
        found["tried"][tried] = True
        for name, source in _OF_REFINED.items():
            found[name][tried] = better[source]
        verdict[tried] = np.where(verdict_of(better) == "not", "not", "refined")
        reason[tried] = np.where(
            verdict[tried] == "refined",
            "the encoder's draws: " + reason[tried].astype(object),
            "refined: " + reasons(better, tolerance).astype(object),
        ).astype(str)
    kept.alone()
    truths = Simulated()
    if annealed_rows:
        truths = simulated(
            vae,
            data.covariates,
            num_rows=max(_SIMULATED, min(num_simulations, size)),
            tolerance=tolerance,
            seed=stage_seed(seed, 400),
            **options,
        )
    whole = contradict(
        vae, data, found, verdict, reason, tried, better, annealed_rows, truths, seed, options
    )
    if whole:
        bound(vae, data, found, verdict, tried, better, annealed_rows, seed, options)
    dataset = xr.Dataset(
        {name: ("row", values, _unit(name)) for name, values in found.items()},
        coords={"row": range(size)},
        attrs={
            "num_samples": num_samples,
            "max_samples": max_samples,
            "tolerance": tolerance,
            "seed": seed,
            "simulated_rows": truths.good,
            "hidden_rows": truths.hidden,
            "believed_rows": truths.believed,
            "truths_against": truths.against,
        },
    )
    return dataset.assign(verdict=("row", verdict), reason=("row", reason.astype(str)))


def _judged(
    vae: AmortizedModel,
    data: Rows,
    num_samples: int,
    max_samples: int,
    tolerance: float,
    seed: int,
    options: dict[str, Any],
    kept: Stages,
) -> dict[str, np.ndarray]:
    """Judge all rows, and those that are open again with more draws."""
    most = max(num_samples, max_samples)
    entries = prod(vae.event_shape)
    found: dict[str, np.ndarray] = {}
    rows, size, left = np.arange(len(data)), num_samples, _BUDGET
    for stage in range(64):
        drawn = _drawn(
            vae,
            data.select(rows),
            lambda draws: judge(draws.log_weight, draws.z, tolerance=tolerance, most=most),
            f"judged-{stage}",
            kept,
            num_samples=size,
            seed=stage_seed(seed, stage),
            label="judge",
            **options,
        )
        if not found:
            found = drawn | {"num_draws": np.full(len(data), size)}
        for name, values in drawn.items():
            found[name][rows] = values
        found["num_draws"][rows] = size
        size = min(_MORE * size, most)
        rows = np.flatnonzero(verdict_of(found) == "")
        rows = spread(rows, left // (size * entries))
        left -= len(rows) * size * entries
        if not len(rows):
            break
    # Rows for which no draws were left count as not shown.
    for name in ("raw_close", "weights_usable"):
        found[name] = np.where(found[name] == 1, 1, -1)
    return found


def _estimated(
    vae: AmortizedModel,
    data: Rows,
    found: dict[str, np.ndarray],
    num_samples: int,
    seed: int,
    options: dict[str, Any],
    kept: Stages,
) -> dict[str, np.ndarray]:
    """log p(x) from draws apart from those that judged: of reweighted rows, from more."""
    usable = (found["weights_usable"] == 1) | (found["raw_close"] == 1)
    raw = found["raw_close"] == 1
    most = max(num_samples, _ESTIMATED)
    needed = np.where(usable & ~raw, np.minimum(found["num_draws"], most), num_samples)
    arrays: dict[str, np.ndarray] = {}
    for size in np.unique(needed):
        for can in (False, True):
            rows = np.flatnonzero((needed == size) & (usable == can))
            if not len(rows):
                continue

            def summary(draws: Draws, can: bool = can) -> dict[str, Tensor]:
                every = torch.full(draws.log_weight.shape[1:], can)
                values = average_weight(draws.log_weight, every)
                return {name: value for name, value in values.items() if name != "pareto_k"}

            drawn = _drawn(
                vae,
                data.select(rows),
                summary,
                f"evidence-{size}-{'usable' if can else 'bound'}",
                kept,
                num_samples=int(size),
                seed=stage_seed(seed, 100 + int(can)),
                label="evidence",
                **options,
            )
            for name, values in drawn.items():
                arrays.setdefault(name, np.full(len(data), np.nan))[rows] = values
    return arrays


def _drawn(
    vae: AmortizedModel,
    data: Rows,
    summary: Callable[[Draws], dict[str, Tensor]],
    step: str,
    kept: Stages,
    *,
    num_samples: int,
    **options: Any,
) -> dict[str, np.ndarray]:
    """A summary of draws for each row, where moments are taken of latents as well."""
    width = max(prod(vae.event_shape), 8 * vae.latent_dim)
    size = rows_within_budget((width,), num_samples)
    given = {"num_samples": num_samples, "chunk_rows": size, **options}
    return kept.run(
        step,
        len(data),
        region_rows(size, _NUMBERS),
        lambda sink: map_draws(vae, data, None, summary, sink=sink, **given),
    )


def _unit(name: str) -> dict[str, str]:
    if name.startswith(("kl", "log_evidence", "annealed", "standard_error", "elbo")):
        return {"unit": "nats"}
    if name.startswith(("raw_mean", "weighted_mean")):
        return {"unit": "posterior standard deviations"}
    return {}
