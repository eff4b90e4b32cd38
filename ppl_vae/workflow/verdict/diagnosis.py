"""The verdict: which rows can be believed, and what is wrong where they cannot."""

from __future__ import annotations

__all__ = ["VERDICTS", "Diagnosis", "diagnose"]

import os
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ...amortized import AmortizedModel
from ...renamed import renamed
from ...rows import Rows
from ..checks.aggregate import prior_gap
from ..checks.calibration import calibrate
from ..checks.gaps import amortization_gap
from ..checks.units import active_units, loss_without, several_rows
from .findings import Diagnosis
from .kept_diagnosis import kept
from .stages import Stages
from .verdicts import VERDICTS, spread, verdicts

if TYPE_CHECKING:
    from ...store import Store

# Rows, spread over all, by which latents in use and the prior are looked at, at most.
_ROWS = 100_000


@renamed(context="covariates")
def diagnose(
    vae: AmortizedModel,
    x: Tensor | Rows,
    *,
    covariates: Tensor | None = None,
    num_samples: int = 500,
    max_samples: int = 32_000,
    tolerance: float = 0.1,
    num_simulations: int = 1000,
    gap_rows: int = 50,
    refined_rows: int | None = None,
    annealed_rows: int = 50,
    baseline: float | None = None,
    training: Tensor | Rows | None = None,
    seed: int = 0,
    store: str | os.PathLike[str] | Store | None = None,
    progress: bool = True,
) -> Diagnosis:
    """Say which rows' posteriors can be believed, and what is wrong where they cannot.

    Each row gets a verdict from an estimate of KL(q || p), from what raw and weighted means,
    standard deviations and intervals are off by, and from k-hat and the effective draws that
    weights leave: see :func:`~ppl_vae.workflow.verdict.verdicts.verdicts`. Beside these stand the
    evidence, latents in use, calibration, and what amortization and the encoder's family cost.

    Parameters
    ----------
    vae
        A VAE.
    x
        Rows, shape ``(row, *event)``, best ones that it was not fitted to.
    covariates
        Shape ``(row, covariate)``, for a conditional VAE.
    num_samples
        Draws for each row to be judged by; others, up to 8000, estimate its log p(x).
    max_samples
        Draws, at most, for a row that these leave open.
    tolerance
        Standard error that weighted means may have, in posterior standard deviations. 0.1 needs
        about 100 effective draws.
    num_simulations
        Simulated rows for calibration, of the encoder and of verdicts.
    gap_rows
        How many rows to measure gaps on, spread over ``x``.
    refined_rows
        How many of the rows that can be used neither as they are nor reweighted to refine, spread
        over them. None refines all.
    annealed_rows
        How many of the rows believed to check by annealing from the prior, which finds modes that
        the encoder misses; ten times as many more if one does not agree.
    baseline
        Nats per row that independent entries reach, if known: see
        :func:`~ppl_vae.workflow.weights.baseline.independent_log_prob`. The summary says so where
        log p(x) is below.
    training
        Rows that it was fitted to, with their covariates as ``Rows``: a better measure of what a
        learned prior would win, see :func:`~ppl_vae.prior_gap`.
    seed
        Decides all draws.
    store
        The path of a zarr store, or a :class:`~ppl_vae.Store`, that everything is written to, a
        group for each attribute. What is found of a chunk of rows is kept beside it until all is
        there, so that a diagnosis that was killed goes on, by any number of processes that share
        the rows; it ends the same bit for bit. ``rows`` is then read when it is needed.
    progress
        Show how it goes on standard error.

    Raises
    ------
    TypeError, ValueError
        If ``x`` or ``covariates`` is not what the VAE describes, a number is too small, or the
        store is of other results.
    FileExistsError
        If something else is where the store would be.

    Notes
    -----
    Source: Vehtari et al. (2024), *Pareto smoothed importance sampling*, for the threshold of k-hat
    that depends on the number of draws; Yao et al. (2018), *Yes, but did it work?*.

    Examples
    --------
    >>> import torch
    >>> from ppl_vae import VAE, VAEConfig
    >>> vae = VAE.from_config(VAEConfig(event_shape=(8, 8), latent_dim=2, hidden=(16,)))
    >>> x = (torch.rand(30, 8, 8) < 0.5).float()
    >>> found = diagnose(vae, x, num_simulations=50, gap_rows=5, refined_rows=5, progress=False)
    >>> print(found.summary().splitlines()[0])
    Which of 30 rows can be believed:
    """
    data = Rows.of(x, covariates, vae)
    data.check(vae)
    _check_options(num_samples, max_samples, tolerance)
    given: dict[str, Any] = {
        "num_samples": num_samples,
        "max_samples": max_samples,
        "tolerance": tolerance,
        "num_simulations": num_simulations,
        "gap_rows": gap_rows,
        "refined_rows": refined_rows,
        "annealed_rows": annealed_rows,
        "baseline": baseline,
        "seed": seed,
    }
    others = None if training is None else Rows.of(training, None, vae)

    def found(stages: Stages) -> Diagnosis:
        return _found(vae, data, others, stages=stages, progress=progress, **given)

    if store is None:
        return found(Stages())
    return kept(found, store, vae, data, others, given)


def _found(
    vae: AmortizedModel,
    data: Rows,
    training: Rows | None,
    *,
    stages: Stages,
    num_samples: int,
    max_samples: int,
    tolerance: float,
    num_simulations: int,
    gap_rows: int,
    refined_rows: int | None,
    annealed_rows: int,
    baseline: float | None,
    **options: Any,
) -> Diagnosis:
    """Everything that :func:`diagnose` says."""
    rows = verdicts(
        vae,
        data,
        num_samples=num_samples,
        max_samples=max_samples,
        tolerance=tolerance,
        refined_rows=refined_rows,
        annealed_rows=annealed_rows,
        num_simulations=num_simulations,
        stages=stages,
        **options,
    )
    if baseline is not None:
        rows.attrs["baseline"] = float(baseline)
    some = spread(np.arange(len(data)), gap_rows)
    gaps = amortization_gap(vae, data.select(some), num_samples=num_samples, **options)
    few = data if len(data) <= _ROWS else data.select(spread(np.arange(len(data)), _ROWS))
    if training is not None and len(training) > _ROWS:
        training = training.select(spread(np.arange(len(training)), _ROWS))
    seed = options["seed"]
    latents = active_units(vae, several_rows(vae, few, training, seed=seed), **options)
    latents = latents.assign(used=("latent", loss_without(vae, data.covariates, seed=seed)))
    calibration = calibrate(
        vae,
        covariates=data.covariates,
        num_simulations=num_simulations,
        search_rows=min(gap_rows, 40),
        **options,
    )
    config = getattr(vae, "config", None)
    if config is not None:
        rows.attrs["parts"] = {part: config.choice(part).name for part in ("prior", "guide")}
    return Diagnosis(
        rows=rows,
        latents=latents,
        calibration=calibration,
        gaps=gaps,
        prior_gap=prior_gap(vae, few, training=training, **options),
    )


def _check_options(num_samples: int, max_samples: int, tolerance: float) -> None:
    if num_samples < 30:
        raise ValueError(
            f"num_samples is {num_samples}, too few to see the tail of the weights; pass at least "
            "30, better 500"
        )
    if max_samples < 1:
        raise ValueError(f"max_samples is {max_samples}; pass num_samples or more")
    if not 0 < tolerance < np.inf:
        raise ValueError(
            f"tolerance is {tolerance}; pass a positive number of posterior standard deviations"
        )
