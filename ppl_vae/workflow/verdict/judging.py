"""A verdict for each of any number of rows, from its own draws alone, into memory or a store."""

from __future__ import annotations

__all__ = ["CODED", "judge_rows"]

import os
from collections.abc import Iterable
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ...amortized import AmortizedModel
from ...rows import Rows, rows_within_budget
from ..draws.chunked import sink_for
from ..draws.posterior import Draws, map_draws
from .judgement import judge, verdict_of

if TYPE_CHECKING:
    import xarray as xr

    from ...store import Contents, Store

# What verdicts are written as; the words are in the attribute flag_meanings, as CF has it.
CODED = ("not", "reweighted", "as it is")
_CAUTION = (
    "By a row's own draws alone: nothing was refined, and no search was made for modes that q(z|x) "
    "misses, as ppl_vae.diagnose does for some of the rows."
)
_NATS = ("kl", "kl_error")


def judge_rows(
    vae: AmortizedModel,
    x: Tensor | Rows,
    *,
    covariates: Tensor | None = None,
    num_samples: int = 2000,
    tolerance: float = 0.1,
    seed: int = 0,
    chunk_rows: int | None = None,
    store: str | os.PathLike[str] | Store | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """Say of each row whether its draws can be used as they are, reweighted, or not.

    This is the part of :func:`~ppl_vae.diagnose` that looks at every row, for any number of them
    and by any number of processes. Each row is judged by its own draws, all of one number, and what
    they leave open gets the more careful verdict; no row is refined or annealed.

    Parameters
    ----------
    vae
        A VAE.
    x
        Rows, shape ``(row, *event)``.
    covariates
        Shape ``(row, covariate)``, for a conditional VAE.
    num_samples
        Draws for each row: with 500 weighted means of some rows have errors that are not small
        enough, which with more are.
    tolerance
        Standard error that weighted means may have, posterior standard deviations.
    seed, chunk_rows, store, progress
        As in :func:`~ppl_vae.sample_posterior`.

    Returns
    -------
    xarray.Dataset
        Over ``row``: ``verdict``, 2 for "as it is", 1 for "reweighted", 0 for "not", as its
        attributes say; and all that :func:`~ppl_vae.workflow.verdict.judgement.judge` returns, such
        as ``kl`` (nats) and ``pareto_k``.

    Raises
    ------
    TypeError, ValueError
        If ``x`` or ``covariates`` is not what the VAE describes, a number is too small, or the
        store is of other results.
    FileExistsError
        If something else is where the store would be.

    Examples
    --------
    >>> from ppl_vae import VAE, VAEConfig
    >>> vae = VAE.from_config(VAEConfig(event_shape=(8, 8), latent_dim=2, hidden=(16,)))
    >>> found = judge_rows(vae, torch.ones(5, 8, 8), num_samples=100)
    >>> found.verdict.attrs["flag_meanings"]
    'not reweighted as_it_is'
    """
    import xarray as xr

    if num_samples < 30:
        raise ValueError(
            f"num_samples is {num_samples}, too few to see the tail of the weights; pass at least "
            "30, better 2000"
        )
    if not 0 < tolerance < np.inf:
        raise ValueError(
            f"tolerance is {tolerance}; pass a positive number of posterior standard deviations"
        )

    def summary(draws: Draws) -> dict[str, Tensor]:
        found = judge(draws.log_weight, draws.z, tolerance=tolerance, most=num_samples)
        answers = {name: found[name].numpy(force=True) for name in ("raw_close", "weights_usable")}
        words = verdict_of(answers)
        code = torch.as_tensor([CODED.index(word or "not") for word in words.tolist()])
        return {**found, "verdict": code.to(torch.int8)}

    data, sink = Rows.of(x, covariates, vae), None
    data.check(vae)
    # Moments of latents are taken as well.
    width = max(prod(vae.event_shape), 8 * vae.latent_dim)
    size = rows_within_budget((width,), num_samples, chunk_rows=chunk_rows)
    attrs: dict[str, Any] = {"num_samples": num_samples, "tolerance": tolerance, "seed": seed}
    attrs["caution"] = _CAUTION
    if store is not None:
        few = data.select(slice(0, 1))
        names = map_draws(
            vae, few, None, summary, num_samples=num_samples, seed=seed, progress=False
        )
        contents = _contents(names, attrs)
        given = {name: attrs[name] for name in ("num_samples", "tolerance", "seed")}
        sink = sink_for(
            store, vae, data, contents, size=size, numbers=len(names), what="judge_rows", **given
        )
    arrays = map_draws(
        vae,
        data,
        None,
        summary,
        num_samples=num_samples,
        seed=seed,
        chunk_rows=size,
        label="judge",
        progress=progress,
        sink=sink,
    )
    if sink is not None:
        return sink.close().open()
    variables = {name: ("row", values, _attrs(name)) for name, values in arrays.items()}
    return xr.Dataset(variables, coords={"row": range(len(data))}, attrs=attrs)


def _contents(names: Iterable[str], attrs: dict[str, Any]) -> Contents:
    from ...store import Contents, Variable

    return Contents(
        {name: Variable(name, ("row",), _attrs(name)) for name in names}, attrs={"": attrs}
    )


def _attrs(name: str) -> dict[str, Any]:
    if name == "verdict":
        meanings = " ".join(word.replace(" ", "_") for word in CODED)
        return {"flag_values": list(range(len(CODED))), "flag_meanings": meanings}
    return {"unit": "nats"} if name in _NATS else {}
