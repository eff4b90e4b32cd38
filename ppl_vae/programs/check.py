"""Can the draws of a fitted guide be believed? The checks of VAEs, for any Pyro program."""

from __future__ import annotations

__all__ = ["check_svi"]

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ..progress import Progress
from ..workflow.draws.sampling import stage_seed
from ..workflow.verdict.judgement import reasons, verdict_of
from .data import Arguments, AsArguments, NotFoundError
from .found import ProgramCheck
from .judging import Asked, estimated, judged, of_latents
from .pair import Pair
from .sampler import Sampler
from .simulated import calibrated, is_amortized, recalibrated
from .sites import is_random
from .structure import programs, structure_of
from .traced import undisturbed

if TYPE_CHECKING:
    import xarray as xr

# Draws that simulated truths are ranked among.
_RANKED = 199
# Simulated rows, and share of them, from which on truths where q puts no draws are no chance.
_HIDDEN = 3, 0.01
# Numbers of a latent that are no use without the others.
_NATS = ("kl", "log_evidence", "standard_error", "elbo")


def check_svi(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    *args: Any,
    model_kwargs: Mapping[str, Any] | None = None,
    plate: str | None = None,
    num_samples: int = 1000,
    max_samples: int | None = None,
    tolerance: float = 0.1,
    num_simulations: int = 1000,
    refit: Callable[..., Any] | None = None,
    num_refits: int = 100,
    as_args: AsArguments | None = None,
    parallel: bool | None = None,
    seed: int = 0,
    progress: bool = True,
) -> ProgramCheck:
    r"""Say whether a fitted guide's draws can be used as they are, reweighted, or not.

    Works with Pyro's autoguides, with hand-written guides and with amortized ones, of models as
    they are: the weights

    .. math:: w = \frac{p(x, z)}{q(z)}, \quad z \sim q(z)

    are judged as those of a VAE are by :func:`~ppl_vae.diagnose`. What belongs to the rows of a
    plate is judged row by row, given draws of what all rows share.

    Parameters
    ----------
    model, guide
        Pyro programs, the guide fitted: its parameters are read from Pyro's param store. Modules,
        and methods of modules, run in evaluation mode.
    *args
        What both are called with, data included.
    model_kwargs
        The same, by name.
    plate
        The plate whose rows are judged one by one; by default that with most of the sites.
    num_samples
        Draws of the guide.
    max_samples
        Draws, at most, of what these leave open; by default 32,000 where the programs run for all
        draws at once, else ``num_samples``.
    tolerance
        Standard error that weighted means may have, in posterior standard deviations. 0.1 needs
        about 100 effective draws.
    num_simulations
        Rows to simulate, where the guide is amortized, to see whether truths rank as they should
        among its draws; 0 for none.
    refit
        Fits the guide to other data, called as the programs are: then truths are ranked among
        draws of a guide that is fitted to each of ``num_refits`` simulated data sets. It may return
        another guide. All parameters are given back as they were.
    num_refits
        How many data sets to simulate, of which the guide is fitted to each, or, amortized and
        without a plate of latents, called with each.
    as_args
        A function from simulated values of the observed sites, by name, to ``args``, where it
        cannot be seen which of the arguments are the data.
    parallel
        Whether programs must (True), may (None) or may not (False) run once for all draws of a
        chunk, with a dimension more on the left or with their rows repeated. Where None fails, they
        run draw by draw, and a note says so.
    seed
        Decides all draws.
    progress
        Show how it goes on standard error.

    Returns
    -------
    ProgramCheck
        Prints as a verdict in words; ``to_datatree()`` has the numbers.

    Raises
    ------
    ValueError
        If weights would be of another model, as those of :func:`~ppl_vae.from_pyro_svi`; if rows
        are taken by a subsample and cannot be judged one by one; or if an option is not accepted.

    Notes
    -----
    Discrete latents that the model enumerates and the guide does not draw are summed out; those
    that the guide draws are drawn. Of a plate that takes a subsample all rows are gone through,
    each with its own log-probability, not scaled up for those left out.

    Weights see only where the guide puts draws: a second mode that it misses shows in simulated
    data alone.

    Ranks of an exact guide have a fault with a probability of 1 %.

    Source: Yao et al. (2018), *Yes, but did it work?*, for k-hat and for ranks of refitted guides;
    Vehtari et al. (2024), *Pareto smoothed importance sampling*; Talts et al. (2018) for ranks of
    amortized ones.

    Examples
    --------
    >>> import pyro, torch
    >>> import pyro.distributions as dist
    >>> def model(y):
    ...     mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    ...     with pyro.plate("row", len(y)):
    ...         pyro.sample("y", dist.Normal(mu, 1.0), obs=y)
    >>> def guide(y):
    ...     pyro.sample("mu", dist.Normal(y.sum() / 9, 1 / 3))
    >>> found = check_svi(model, guide, torch.ones(8), num_simulations=0, progress=False)
    >>> print(str(found).splitlines()[0])
    All latents together: as it is; draws of the guide can be used as they are.
    >>> round(found.joint.log_evidence.item(), 2)
    -8.89
    """
    _check_options(num_samples, max_samples, tolerance, num_simulations, num_refits)
    notes: list[str] = []
    asked = Asked(num_samples, max_samples, tolerance, seed)
    with undisturbed(seed, model, guide), Progress(1, "check", show=progress) as bar:
        pair, batches = programs(
            model, guide, args, model_kwargs or {}, parallel, tell=notes.append
        )
        structure = structure_of(pair, plate, batches)
        if structure.reason:
            notes.append(f"rows were not judged one by one: {structure.reason}")
        if pair.model.summed:
            notes.append(f"{', '.join(sorted(pair.model.summed))} of the model is summed out")
        sampler = Sampler(pair, structure, bar)
        points = _points(pair, bar)
        if points:
            notes.append(
                f"the guide fixes {', '.join(points)} at one point, which has no density: the "
                "others are judged given these"
            )
        joint = latents = rows = None
        if not any(is_random(site) for site in pair.guide.sites.values()):
            joint = _nothing_drawn()
        elif any(is_random(pair.guide.sites[name]) for name in sampler.of_all):
            joint, latents = _joint(sampler, asked)
        if structure.plate is not None:
            rows = _rows(sampler, asked)
        calibration = _simulated(
            sampler, as_args, num_simulations, refit, num_refits, stage_seed(seed, 300), notes
        )
    if rows is not None and calibration is not None:
        rows = _doubted(rows, calibration)
    return ProgramCheck(joint, latents, rows, calibration, tuple(dict.fromkeys(notes)))


def _joint(sampler: Sampler, asked: Asked) -> tuple[xr.Dataset, xr.Dataset]:
    import xarray as xr

    def draw(size: int, seed: int, only: Tensor | None) -> tuple[Tensor, Tensor]:
        log_weight, z = sampler.together(size, seed)
        return log_weight[:, None], z[:, None]  # one row, of all

    names = sampler.names()
    found = judged(draw, 1, len(names), sampler.entries, asked, lambda: sampler.at_once)
    found |= estimated(draw, found, len(names), asked)
    words = _worded(found, asked)
    joint = {name: ((), values[0], _unit(name)) for name, values in (found | words).items()}
    log_weight, z = sampler.together(int(found["num_draws"][0]), stage_seed(asked.seed, 200))
    each = of_latents(log_weight, z, asked.tolerance)
    latents = {name: ("latent", values) for name, values in each.items()}
    attrs = {"num_samples": asked.num_samples, "tolerance": asked.tolerance, "seed": asked.seed}
    return xr.Dataset(joint, attrs=attrs), xr.Dataset(latents, coords={"latent": names})


def _rows(sampler: Sampler, asked: Asked) -> xr.Dataset:
    import xarray as xr

    structure, latents = sampler.structure, len(sampler.row_names())
    found = judged(
        sampler.by_row, sampler.num_rows, latents, sampler.entries, asked, lambda: sampler.at_once
    )
    if not structure.shared:
        found |= estimated(sampler.by_row, found, latents, asked)
    words = _worded(found, asked)
    plate = str(structure.plate).replace("/", ".")  # which a DataTree puts between groups
    return xr.Dataset(
        {name: (plate, values, _unit(name)) for name, values in (found | words).items()},
        coords={plate: range(sampler.num_rows)},
        attrs={
            "plate": plate,
            "given": ", ".join(structure.shared),
            "latents": ", ".join(sampler.row_names()),
            "num_samples": asked.num_samples,
            "tolerance": asked.tolerance,
            "seed": asked.seed,
        },
    )


def _worded(found: dict[str, np.ndarray], asked: Asked) -> dict[str, np.ndarray]:
    """Verdicts, why they are no better, and how many draws are worth it."""
    verdict, reason = verdict_of(found).astype(object), reasons(found, asked.tolerance)
    lost = ~np.isfinite(found["kl"]) | np.isnan(found["pareto_k"])
    verdict[lost], reason[lost] = "not", "log p(x), or a weight, is not finite"
    effective = found["relative_ess"] * found["num_draws"]
    words = {"verdict": verdict.astype(str), "reason": reason.astype(str)}
    return {"effective_draws": effective, **words}


def _simulated(
    sampler: Sampler,
    as_args: AsArguments | None,
    num_simulations: int,
    refit: Callable[..., Any] | None,
    num_refits: int,
    seed: int,
    notes: list[str],
) -> xr.Dataset | None:
    if not (num_simulations or refit) or not sampler.pair.model.observed:
        return None
    if sampler.structure.batches:
        notes.append("nothing was simulated: a plate takes a subsample of the data")
        return None
    try:
        arguments = Arguments(sampler.pair.model, as_args)
        amortized = is_amortized(sampler.pair, arguments, sampler.bar, seed)
    except NotFoundError as error:
        notes.append(f"nothing was simulated: {error}; pass as_args")
        return None
    except NotImplementedError as error:
        why = str(error).split("\n")[0] or "a distribution has no draws"
        notes.append(f"nothing was simulated: the model cannot be drawn from ({why})")
        return None
    if refit is not None or (amortized and sampler.structure.plate is None):
        return recalibrated(sampler, arguments, refit, num_refits, _RANKED, seed)
    if amortized:
        return calibrated(sampler, arguments, num_simulations, _RANKED, seed)
    notes.append(
        "nothing was simulated: the guide is of these data alone; pass refit, which fits it to "
        "others"
    )
    return None


def _doubted(rows: xr.Dataset, calibration: xr.Dataset) -> xr.Dataset:
    """Believe no row where simulated ones have their truth where the guide puts no draws."""
    hidden = calibration.attrs.get("hidden_rows", 0)
    good = calibration.attrs.get("simulated_rows", 0)
    if hidden < _HIDDEN[0] or hidden <= _HIDDEN[1] * good:
        return rows
    believed = rows.verdict != "not"
    why = f"of {good} simulated rows {hidden} have their truth where the guide puts no draws"
    reason = np.where(believed, why, rows.reason.values)
    rows = rows.assign(
        verdict=rows.verdict.where(~believed, "not"), reason=(rows.verdict.dims, reason)
    )
    if "log_evidence_high" in rows:
        rows = rows.assign(log_evidence_high=rows.log_evidence_high.where(~believed, np.inf))
    return rows


def _points(pair: Pair, bar: Progress) -> list[str]:
    drawn = pair.guide.draw(2, bar)
    values = {name: drawn[name].value.cpu().numpy() for name in pair.latents}
    return pair.point_estimates(values)


def _nothing_drawn() -> xr.Dataset:
    import xarray as xr

    reason = "the guide draws nothing: points have no density, and nothing can be weighed"
    return xr.Dataset({"verdict": ((), "not"), "reason": ((), reason)})


def _unit(name: str) -> dict[str, str]:
    return {"unit": "nats"} if name.startswith(_NATS) else {}


def _check_options(
    num_samples: int,
    max_samples: int | None,
    tolerance: float,
    num_simulations: int,
    num_refits: int,
) -> None:
    if num_samples < 30:
        raise ValueError(
            f"num_samples is {num_samples}, too few to see the tail of the weights; pass at least "
            "30, better 1000"
        )
    if max_samples is not None and max_samples < 1:
        raise ValueError(f"max_samples is {max_samples}; pass num_samples or more")
    if not 0 < tolerance < np.inf:
        raise ValueError(
            f"tolerance is {tolerance}; pass a positive number of posterior standard deviations"
        )
    if num_simulations and num_simulations < 20:
        raise ValueError(
            f"num_simulations is {num_simulations}, too few to test; pass at least 20, better "
            "1000, or 0 for none"
        )
    if num_refits < 20:
        raise ValueError(
            f"num_refits is {num_refits}, too few to test; pass at least 20, better 100"
        )
