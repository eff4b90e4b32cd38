"""Which of several models describes the same rows better, and do fits say the same of a row?"""

from __future__ import annotations

__all__ = ["Comparison", "compare"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ...amortized import AmortizedModel
from ...rows import Rows
from ..draws.latents import draw
from ..draws.posterior import Draws, evaluating, map_draws
from ..draws.sampling import spread, stage_seed
from ..weights.annealing import anneal
from ..weights.averages import EVIDENCE
from ..weights.evidence import log_evidence

if TYPE_CHECKING:
    import xarray as xr

# Standard errors from which on a difference is told: one in twenty is by chance.
_TOLD = 1.96
# R-hat up to which fits say the same: what is between them is a fifth of what each leaves open.
_SAME = 1.1
# Draws of a row that its reconstructions' mean and variance are of.
_DRAWS = 100


@dataclass(frozen=True)
class Comparison:
    """What :func:`compare` found; it prints as its verdict in words.

    Attributes
    ----------
    rows
        Dataset over ``model`` and ``row``, in nats: ``log_evidence``, ``standard_error``,
        ``log_evidence_low`` and ``log_evidence_high``, as of :func:`~ppl_vae.log_evidence`, and
        ``pareto_k`` and ``believed``: whether weights can be used, the encoder's or those of
        annealing. And ``rhat`` (row): see :func:`compare`.
    pairs
        Dataset over ``model`` and ``other``, in nats per row: ``difference``, the mean of log p(x)
        less that of the other, with ``standard_error`` over rows; ``difference_believed`` and
        ``standard_error_believed``, of the ``rows_believed`` that both are believed in; and
        ``low`` and ``high``, 95 % bounds on the mean over all rows, infinite where nothing bounds
        a row.
    """

    rows: xr.Dataset
    pairs: xr.Dataset

    @property
    def order(self) -> list[str]:
        """The models, the one with the highest mean of log p(x) first."""
        means = _means(self.rows.log_evidence.values)
        return [str(self.rows.model.values[i]) for i in np.argsort(-means, kind="stable")]

    def __str__(self) -> str:
        return self.summary()

    def summary(self) -> str:
        """The verdict in words and numbers."""
        best, *others = self.order
        finite = np.isfinite(self.rows.log_evidence.values).all(0)
        size, width = self.rows.sizes["row"], max(map(len, self.order))
        lines = [f"log p(x) of {size} rows, nats per row:"]
        for name in self.order:
            here = self.rows.sel(model=name)
            mean, error = _mean_and_error(here.log_evidence.values[finite])
            doubted = int((~here.believed).sum())
            lines.append(
                f"{name:>{width}}  {mean:9.2f} +- {error:.2f}"
                + (f"  ({doubted} rows not to be believed)" if doubted else "")
            )
        if not finite.all():
            lines.append(f"{(~finite).sum()} rows in which one is not finite are left out.")
        lines += [""] + [self._difference(best, name) for name in others]
        rhat = self.rows.rhat.values
        middle, most = np.quantile(rhat, [0.5, 0.9])
        same = int((rhat <= _SAME).sum())
        lines += [
            "",
            f"Do they say the same of a row? R-hat over models is {middle:.2f} in half of the rows "
            f"and {most:.2f} in nine of ten; it is at most {_SAME} in {same} of {size}. Furthest "
            f"apart: {', '.join(map(str, np.argsort(-rhat, kind='stable')[:5]))}.",
        ]
        return "\n".join(lines)

    def to_datatree(self) -> xr.DataTree:
        """Everything found, a group for each attribute."""
        import xarray as xr

        tree = xr.DataTree.from_dict({"rows": self.rows, "pairs": self.pairs})
        tree.attrs["summary"] = self.summary()
        return tree

    def _difference(self, best: str, other: str) -> str:
        pair = self.pairs.sel(model=best, other=other)
        numbers = {name: pair[name].item() for name in pair.data_vars}
        gap, error = numbers["difference"], numbers["standard_error"]
        if not np.isfinite(gap):
            return f"{best} and {other} have no row in common in which both are finite."
        told = gap > _TOLD * error
        words = f"{best} is better than {other} by" if told else f"{best} and {other} differ by"
        words += f" {gap:.2f} +- {error:.2f} nats per row"
        if not told:
            words += ", which rows like these do not tell from nothing"
        size, believed = self.rows.sizes["row"], int(numbers["rows_believed"])
        if believed == size:
            return words + "."
        words += f". In {size - believed} rows one of them is not to be believed: "
        if believed:
            words += (
                f"without these it is {numbers['difference_believed']:.2f} +- "
                f"{numbers['standard_error_believed']:.2f}, and "
            )
        low, high = numbers["low"], numbers["high"]
        if np.isfinite(low) and np.isfinite(high):
            return words + f"with whatever they may be it is between {low:.2f} and {high:.2f}."
        if np.isfinite(low):
            return words + f"with whatever they may be it is at least {low:.2f}."
        if np.isfinite(high):
            return words + f"with whatever they may be it is at most {high:.2f}."
        return words + "nothing bounds what they may be."


def compare(
    models: Mapping[str, AmortizedModel] | Sequence[AmortizedModel],
    x: Tensor | Rows,
    *,
    covariates: Tensor | Mapping[str, Tensor | None] | None = None,
    num_samples: int = 1000,
    annealed_rows: int = 50,
    seed: int = 0,
    progress: bool = True,
) -> Comparison:
    r"""Compare log p(x) of the same rows under several models, row by row.

    Rows differ in log p(x) far more than models do, so that the difference is taken row by row
    before it is averaged:

    .. math:: \frac{1}{N} \sum_i \left[\log p_A(x_i) - \log p_B(x_i)\right]

    Where a model's weights cannot be used, its log p(x) of the row is a lower bound, on average.
    Such rows are annealed, up to ``annealed_rows`` of each model; what then is not to be believed
    is told, and bounds the difference.

    Parameters
    ----------
    models
        Models by name, or in a row: 0, 1 and so on. Fits that differ by their seed are models too.
    x
        Rows, shape ``(row, *event)``, best ones that none of them was fitted to.
    covariates
        Shape ``(row, covariate)``, for conditional models; by name, if not all have the same.
    num_samples
        Draws for each row that log p(x) is estimated with.
    annealed_rows
        Rows of each model, at most, to anneal where weights cannot be used.
    seed
        Decides all draws.
    progress
        Show how it goes on standard error.

    Returns
    -------
    Comparison
        Prints as words. ``rows.rhat`` says whether fits agree on a row: draws of z from each give
        reconstructions, E[x|z], whose variance within a fit, W, and between fits, B, both summed
        over entries, give :math:`\sqrt{1 + B / W}`. It needs no common latents. It is 1 where fits
        differ by nothing, and above 1.1 where they differ by more than a fifth of what each of them
        says it does not know.

    Raises
    ------
    TypeError, ValueError
        If there are fewer than two models, ``x`` or ``covariates`` is not what one of them
        describes, or one gives probabilities and another densities, which do not compare.

    Notes
    -----
    Standard errors are over rows: they say nothing of other fits of the same model. Compare several
    seeds of each to see how far these are apart.

    Source: Gelman & Rubin (1992) for R-hat; Vehtari et al. (2017), *Practical Bayesian model
    evaluation*, section 5, for paired differences.

    Examples
    --------
    >>> import torch
    >>> from ppl_vae import VAE, VAEConfig
    >>> config = VAEConfig(event_shape=(8, 8), latent_dim=2, hidden=(16,))
    >>> fits = {f"seed {seed}": VAE.from_config(config, seed=seed) for seed in (1, 2)}
    >>> found = compare(fits, torch.ones(5, 8, 8), num_samples=100, progress=False)
    >>> print(found.summary().splitlines()[0])
    log p(x) of 5 rows, nats per row:
    """
    import xarray as xr

    named = dict(models) if isinstance(models, Mapping) else dict(enumerate(models))
    named = {str(name): model for name, model in named.items()}
    if len(named) < 2:
        raise ValueError(f"models has {len(named)}; pass at least two to compare")
    given = covariates if isinstance(covariates, Mapping) else dict.fromkeys(named, covariates)
    data = {name: Rows.of(x, given.get(name), model) for name, model in named.items()}
    for name, model in named.items():
        data[name].check(model, name=f"x, for {name!r},")
    _check_measures(named, data, seed)
    options: dict[str, Any] = {"seed": seed, "progress": progress}
    found = [
        _evidence(model, data[name], num_samples, annealed_rows, options)
        for name, model in named.items()
    ]
    moments = [_reconstructed(model, data[name], options) for name, model in named.items()]
    names = list(named)
    rows = xr.Dataset(
        {
            name: (
                ("model", "row"),
                np.stack([one[name] for one in found]),
                {"unit": "nats"} if name in EVIDENCE else {},
            )
            for name in found[0]
        },
        coords={"model": names, "row": range(len(found[0]["believed"]))},
        attrs={"num_samples": num_samples, "annealed_rows": annealed_rows, "seed": seed},
    ).assign(rhat=("row", _rhat(moments)))
    parts = [[_pair(one, other) for other in found] for one in found]
    pairs = xr.Dataset(
        {
            name: (("model", "other"), np.array([[part[name] for part in row] for row in parts]))
            for name in parts[0][0]
        },
        coords={"model": names, "other": names},
        attrs={"unit": "nats per row"},
    )
    return Comparison(rows, pairs)


def _check_measures(
    named: Mapping[str, AmortizedModel], data: Mapping[str, Rows], seed: int
) -> None:
    measures = {}
    for name, model in named.items():
        with evaluating(model, seed):
            _, batch = next(iter(data[name].select(slice(0, 1)).chunks(1, model.like)))
            likelihood = model.likelihood(draw(model.posterior(*batch), ()), batch.covariates)
            try:
                discrete = bool(likelihood.support.is_discrete)
            except (NotImplementedError, AttributeError):
                discrete = False  # of columns of several kinds
        measures[name] = "probabilities" if discrete else "densities"
    if len(set(measures.values())) > 1:
        said = ", ".join(f"{name!r} gives {measure}" for name, measure in measures.items())
        raise ValueError(
            f"log p(x) of these models does not compare: {said}; compare models whose likelihoods "
            "are of the same kind"
        )


def _evidence(
    model: AmortizedModel, data: Rows, num_samples: int, annealed_rows: int, options: dict[str, Any]
) -> dict[str, np.ndarray]:
    """log p(x) with bounds, and whether it is to be believed: ``(row,)`` each."""
    evidence = log_evidence(model, data, num_samples=num_samples, **options)
    found = {name: evidence[name].values.copy() for name in (*EVIDENCE, "pareto_k")}
    believed = evidence.weights_usable.values & np.isfinite(found["log_evidence"])
    doubted = np.flatnonzero(~believed & np.isfinite(found["log_evidence"]))
    rows = spread(doubted, annealed_rows)
    if len(rows):
        later = options | {"seed": stage_seed(options["seed"], 1)}
        try:
            annealed = anneal(model, data.select(rows), **later)
        except ValueError:  # q has no density but at its own draws
            return found | {"believed": believed}
        reached = annealed.weights_usable.values
        for name in EVIDENCE:
            found[name][rows[reached]] = annealed[name].values[reached]
        believed[rows[reached]] = True
    return found | {"believed": believed}


def _reconstructed(
    model: AmortizedModel, data: Rows, options: dict[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of E[x|z] over draws of z from q(z|x): ``(row, entry)`` each."""

    def summary(draws: Draws) -> dict[str, Tensor]:
        shown = model.typical(draws.z, draws.covariates).flatten(2).double()
        return {"mean": shown.mean(0), "variance": shown.var(0)}

    arrays = map_draws(
        model, data, None, summary, num_samples=_DRAWS, label="reconstruct", **options
    )
    return arrays["mean"], arrays["variance"]


def _rhat(moments: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    within = np.mean([variance for _, variance in moments], axis=0).sum(1)
    # What the means of so many draws differ by is no difference between fits.
    between = np.var([mean for mean, _ in moments], axis=0, ddof=1).sum(1) - within / _DRAWS
    between = np.maximum(between, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(between == 0, 1.0, np.sqrt(1 + between / within))


def _pair(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> dict[str, float]:
    gap = one["log_evidence"] - other["log_evidence"]  # (row,)
    finite = np.isfinite(gap)
    believed = one["believed"] & other["believed"] & finite
    mean, error = _mean_and_error(gap[finite])
    mean_believed, error_believed = _mean_and_error(gap[believed])
    # Of a row that is believed its estimate, of another one what it is at least and at most.
    ends = []
    for low, high in ((one, other), (other, one)):
        end = low["log_evidence_low"] - high["log_evidence_high"]
        ends.append(np.where(believed, low["log_evidence"] - high["log_evidence"], end)[finite])
    noise = _TOLD * error if np.isfinite(error) else 0.0
    low_end, high_end = (values.mean() if len(values) else -np.inf for values in ends)
    return {
        "difference": mean,
        "standard_error": error,
        "difference_believed": mean_believed,
        "standard_error_believed": error_believed,
        "rows_believed": int(believed.sum()),
        "low": low_end - noise,
        "high": -high_end + noise,
    }


def _means(values: np.ndarray) -> np.ndarray:
    finite = np.isfinite(values).all(0)
    return values[:, finite].mean(1) if finite.any() else np.full(len(values), -np.inf)


def _mean_and_error(values: np.ndarray) -> tuple[float, float]:
    if not len(values):
        return np.nan, np.nan
    error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
    return float(values.mean()), float(error)
