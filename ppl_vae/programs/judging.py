"""Verdicts on draws of a guide, and the evidence that their weights give."""

from __future__ import annotations

__all__ = ["Asked", "estimated", "judged", "of_latents"]

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..workflow.draws.sampling import stage_seed
from ..workflow.verdict.judgement import judge, verdict_of
from ..workflow.weights.averages import average_weight

# How many times as many draws what is still open gets next.
_MORE = 4
# Entries that draws beyond the first may cost, and numbers that are held together (256 MB).
_BUDGET = 4 * 10**9
_NUMBERS = 2**26
# Numbers that are judged together.
_TOGETHER = 2**22
# Draws that log p(x) of rows that needed many is estimated with, at most.
_ESTIMATED = 8000
# Draws of programs that run at once.
_MOST = 32_000

# Draws of a size from a seed, of all rows or some: log-weights (draw, row), latents.
Draw = Callable[[int, int, Tensor | None], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Asked:
    """How many draws, and what they should be good for.

    Attributes
    ----------
    num_samples, max_samples
        Draws, and draws of what these leave open; None for 32,000 if they can be had at once.
    tolerance
        The standard error that weighted means may have, posterior standard deviations.
    seed
        Decides the draws.
    """

    num_samples: int
    max_samples: int | None
    tolerance: float
    seed: int


def judged(
    draw: Draw, rows: int, latents: int, entries: int, asked: Asked, at_once: Callable[[], bool]
) -> dict[str, np.ndarray]:
    """Judge rows by draws of their own, and those that these leave open by more.

    Parameters
    ----------
    draw
        Draws rows.
    rows, latents
        How many there are, and how many latents each of them has.
    entries
        What a draw of all rows costs.
    asked
        How many draws.
    at_once
        Whether more draws are cheap, asked after the first.
    """
    found: dict[str, np.ndarray] = {}
    left, size, stage = _BUDGET, asked.num_samples, 0
    open_rows = np.arange(rows)
    most = asked.max_samples
    while len(open_rows):
        block = max(1, _NUMBERS // (size * (latents + 1)))
        for start in range(0, len(open_rows), block):
            some = open_rows[start : start + block]
            only = None if len(some) == rows else torch.as_tensor(some)
            log_weight, z = draw(size, stage_seed(asked.seed, stage), only)
            if most is None:
                most = max(asked.num_samples, _MOST if at_once() else 0)
            part = _judge(log_weight, z, asked.tolerance, max(most, asked.num_samples))
            for name, values in part.items():
                found.setdefault(name, np.zeros(rows, values.dtype))[some] = values
            found.setdefault("num_draws", np.full(rows, 0))[some] = len(log_weight)
            left -= size * entries
        assert most is not None
        last, size, stage = size, min(_MORE * size, most), stage + 1
        open_rows = np.flatnonzero(verdict_of(found) == "") if size > last else open_rows[:0]
        if size * entries * -(-len(open_rows) // block) > left:
            break
    # What no draws were left for counts as not shown.
    for name in ("raw_close", "weights_usable"):
        found[name] = np.where(found[name] == 1, 1, -1)
    return found


def estimated(
    draw: Draw, found: dict[str, np.ndarray], latents: int, asked: Asked
) -> dict[str, np.ndarray]:
    """log p(x) from draws apart from those that judged, nats: ``(row,)`` each."""
    usable = (found["weights_usable"] == 1) | (found["raw_close"] == 1)
    arrays: dict[str, np.ndarray] = {}
    needed = np.clip(found["num_draws"], asked.num_samples, max(asked.num_samples, _ESTIMATED))
    for size in np.unique(needed):
        rows = np.flatnonzero(needed == size)
        block = max(1, _NUMBERS // (int(size) * (latents + 1)))
        for start in range(0, len(rows), block):
            some = rows[start : start + block]
            only = None if len(some) == len(usable) else torch.as_tensor(some)
            log_weight, _ = draw(int(size), stage_seed(asked.seed, 100), only)
            values = average_weight(log_weight, torch.as_tensor(usable[some]))
            for name, value in values.items():
                if name != "pareto_k":
                    here = arrays.setdefault(name, np.full(len(usable), np.nan))
                    here[some] = value.cpu().numpy()
    return arrays


def of_latents(log_weight: Tensor, z: Tensor, tolerance: float) -> dict[str, np.ndarray]:
    """What raw draws of each latent by itself are off by: ``(latent,)`` each.

    Parameters
    ----------
    log_weight, z
        Of one row, ``(draw,)`` and ``(draw, latent)``.
    """
    names = ("raw_mean_off", "raw_sd_off", "raw_interval_off")
    wanted = [*names, *(name.replace("_off", "_error") for name in names)]
    size = len(log_weight)
    weights = log_weight[:, None].expand(*z.shape)
    found = _judge(weights, z[..., None], tolerance, size)
    return {name: found[name] for name in wanted}


def _judge(log_weight: Tensor, z: Tensor, tolerance: float, most: int) -> dict[str, np.ndarray]:
    size, rows, latents = z.shape
    block = max(1, _TOGETHER // (size * max(1, latents)))
    parts: dict[str, list[np.ndarray]] = {}
    for start in range(0, rows, block):
        some = slice(start, start + block)
        found = judge(log_weight[:, some], z[:, some], tolerance=tolerance, most=most)
        for name, values in found.items():
            parts.setdefault(name, []).append(values.cpu().numpy())
    return {name: np.concatenate(values) for name, values in parts.items()}
