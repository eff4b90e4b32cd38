"""Rows whose draws cannot be used, refined and judged anew, however many there are."""

from __future__ import annotations

__all__ = ["refined", "refined_at_once"]

from collections.abc import Mapping
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...amortized import AmortizedModel
from ...progress import Progress
from ...rows import Batch, Rows, rows_within_budget
from ...sink import MemorySink, Sink
from ..draws.chunked import parts, through
from ..draws.posterior import evaluating
from ..draws.sampling import REFINED_DRAWS
from ..refinement.local_normal import PARTICLES, LocalPosterior, encoded
from ..refinement.natural_gradient import natural_gradient
from ..weights.averages import EVIDENCE, average_weight
from .judgement import judge, verdict_of


def refined(
    vae: AmortizedModel,
    data: Rows,
    rows: np.ndarray,
    *,
    num_samples: int,
    tolerance: float,
    seed: int,
    progress: bool = True,
    sink: Sink | None = None,
) -> dict[str, Any]:
    """Refine some rows by natural gradients, and judge the draws that they have then.

    A row that ``num_samples`` draws leave open is judged by 2000, afresh; as many other draws
    estimate its log p(x). What is found goes to ``sink``, by default to memory.

    Returns
    -------
    Arrays over ``rows``: what :func:`~ppl_vae.workflow.verdict.judgement.judge` returns, of
    ``num_draws`` draws; ``log_evidence`` with its error and interval, nats; ``mean`` (row, latent)
    and ``covariance`` (row, latent, latent) of the draws.
    """
    most = max(num_samples, REFINED_DRAWS)
    picked = data.select(rows)
    sink = MemorySink(len(rows)) if sink is None else sink
    size = refined_at_once(vae, num_samples)
    with evaluating(vae, seed), Progress(len(rows), "refine", show=progress) as bar:
        for where, batch in through(picked, size, vae.like, sink, seed=seed, bar=bar):
            _, best = natural_gradient(vae, *batch)
            found = _judged(vae, batch, best, num_samples, most, tolerance)
            open_ = np.flatnonzero(verdict_of(_numpy(found)) == "")
            for part in parts(slice(0, len(open_)), rows_within_budget(_room(vae), most)):
                index = torch.as_tensor(open_[part], device=batch.x.device)
                few, normal = _at(vae, batch, best, index)
                for name, values in _judged(vae, few, normal, most, most, tolerance).items():
                    found[name][index] = values
            for name, values in found.items():
                sink.write(name, where, values)
            bar.advance(len(batch.x))
    return sink.arrays()


def refined_at_once(vae: AmortizedModel, num_samples: int) -> int:
    """How many rows are refined at a time."""
    return min(
        rows_within_budget(_room(vae), num_samples),
        rows_within_budget(vae.event_shape, PARTICLES, gradients=True),
    )


def _room(vae: AmortizedModel) -> tuple[int]:
    """Numbers of a draw, with moments of its latents."""
    return (max(prod(vae.event_shape), 8 * vae.latent_dim),)


def _judged(
    vae: AmortizedModel,
    batch: Batch,
    best: LocalPosterior,
    size: int,
    most: int,
    tolerance: float,
) -> dict[str, Tensor]:
    """Judge so many draws of each row of a batch, and estimate log p(x) by as many others."""
    z, log_weight = _drawn(vae, batch, best, size)
    found = judge(log_weight, z, tolerance=tolerance, most=most, dtype=vae.like.dtype)
    usable = (found["weights_usable"] == 1) | (found["raw_close"] == 1)
    _, others = _drawn(vae, batch, best, size)
    evidence = average_weight(others, usable)
    mean = z.mean(0)
    away = z - mean
    return found | {
        "num_draws": torch.full((len(batch.x),), size),
        "mean": mean,
        "covariance": torch.einsum("sri,srj->rij", away, away) / size,
        **{name: evidence[name] for name in EVIDENCE},
    }


def _drawn(
    vae: AmortizedModel, batch: Batch, best: LocalPosterior, size: int
) -> tuple[Tensor, Tensor]:
    """Draws ``(draw, row, latent)`` and log-weights ``(draw, row)``, nats."""
    at_once = max(1, rows_within_budget(vae.event_shape, len(batch.x)))
    parts = []
    for start in range(0, size, at_once):
        z, log_q = best.draws(best.noise(min(at_once, size - start)))
        parts.append((z, vae.log_joint(z, *batch) - log_q))
    return torch.cat([z for z, _ in parts]), torch.cat([weight for _, weight in parts])


def _at(
    vae: AmortizedModel, batch: Batch, best: LocalPosterior, index: Tensor
) -> tuple[Batch, LocalPosterior]:
    """Some rows of a batch, with what was fitted to them."""
    covariates = None if batch.covariates is None else batch.covariates[index]
    few = Batch(batch.x[index], covariates)
    normal = replace(best.normal, loc=best.normal.loc[index], scale=best.normal.scale[index])
    return few, replace(encoded(vae, *few), normal=normal, keeps=best.keeps[index])


def _numpy(found: Mapping[str, Tensor]) -> dict[str, Any]:
    return {name: values.cpu().numpy() for name, values in found.items()}
