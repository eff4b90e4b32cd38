"""How well a VAE describes rows that it was not fitted to, in numbers and in words."""

from __future__ import annotations

__all__ = ["caveats", "evaluate", "finite_json", "tied", "words"]

import json
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..vae import VAE
from ..workflow.weights.baseline import independent_log_prob
from ..workflow.weights.evidence import log_evidence

# The share of rows with one value from which on it is taken for a point mass.
_COMMON = 0.1
# The share of such entries from which on a density is nothing to compare by.
_TIED = 0.05


def evaluate(
    vae: VAE,
    x_train: Tensor,
    x_test: Tensor,
    *,
    covariates: Tensor | None = None,
    num_samples: int,
    seed: int,
    progress: bool,
) -> dict[str, Any]:
    """How well test rows are described: ELBO, log p(x) and independent entries, nats per row.

    Each mean is over the rows in which it is finite; ``rows_not_finite`` counts the others. It
    comes with its standard error over rows, and in bits per dimension where p(x) is a probability:
    those of a density depend on the units of x. ``tied`` is what :func:`tied` says of the test
    rows. ``monte_carlo_error`` is what of log p(x)'s is due to importance sampling. Given
    ``covariates`` of the test rows all is of p(x|covariates), but for independent entries, which
    know nothing of them.
    """
    density = not getattr(getattr(vae.decoder, "support", None), "is_discrete", False)
    evidence = log_evidence(
        vae,
        x_test,
        covariates=covariates,
        num_samples=num_samples,
        seed=seed,
        progress=progress,
    )
    baseline = independent_log_prob(vae.decoder, x_train, x_test)
    dimensions = float((~x_test.isnan()).flatten(1).sum(1).double().mean())
    quantities = {
        "elbo": evidence.elbo.values,
        "log_evidence": evidence.log_evidence.values,
        "independent": baseline.numpy(),
    }
    error = evidence.standard_error.values
    error = error[np.isfinite(error)]
    return {
        "rows": len(x_test),
        "num_samples": num_samples,
        "measure": "density" if density else "probability",
        "tied": round(tied(x_test), 3),
        **{
            name: _mean(values, None if density else dimensions)
            for name, values in quantities.items()
        },
        "monte_carlo_error": float(np.sqrt((error**2).sum()) / len(x_test)),
        "rows_not_finite": int((~np.isfinite([*quantities.values()])).any(0).sum()),
        "rows_with_pareto_k_above_0.7": int((~(evidence.pareto_k <= 0.7)).sum()),
    }


def tied(x: Tensor) -> float:
    """The share of all entries that are equal to the commonest value of their entry.

    Only entries count in which that value is that of a tenth of the rows or more: a number that is
    so common is no draw from a density.

    Examples
    --------
    >>> x = torch.rand(100, 2)
    >>> x[:60, 1] = 0.0
    >>> tied(x)
    0.3
    """
    flat = x.flatten(1).double()
    common = flat.nan_to_num(nan=torch.inf).mode(0).values  # (entry,)
    share = (flat == common).double().mean(0)
    return float(torch.where(share >= _COMMON, share, 0.0).mean())


def _mean(values: np.ndarray, dimensions: float | None) -> dict[str, float | None]:
    values = values[np.isfinite(values)]
    if not len(values):
        return {"nats_per_row": None, "standard_error": None, "bits_per_dimension": None}
    mean = float(np.mean(values))
    return {
        "nats_per_row": mean,
        "standard_error": float(np.std(values, ddof=1) / math.sqrt(len(values)))
        if len(values) > 1
        else None,
        "bits_per_dimension": None if dimensions is None else -mean / (dimensions * math.log(2)),
    }


def words(test: dict[str, Any]) -> list[str]:
    """What has to be said of these metrics, a sentence each; the first if there is no fit at all.

    A VAE that is worse than independent entries by more than ten times their own log p(x) has
    learned nothing, and one that is worse at all has learned less than it should.

    Examples
    --------
    >>> alone = {"nats_per_row": -10.0}
    >>> for found in (-20.0, -1e6):
    ...     print(*words({"log_evidence": {"nats_per_row": found}, "independent": alone}))
    log p(x) is 10.00 nats per row below that of independent entries: fit longer, or otherwise.
    This is no fit: log p(x) is 999990.00 nats per row below that of independent entries.
    """
    found, alone = (test[name]["nats_per_row"] for name in ("log_evidence", "independent"))
    lost = test.get("rows_not_finite", 0)
    said = []
    if found is None:
        said.append("This is no fit: log p(x) is finite in no row.")
    elif alone is not None and found < alone:
        below = f"log p(x) is {alone - found:.2f} nats per row below that of independent entries"
        if alone - found > 10 * max(abs(alone), 10.0):
            said.append(f"This is no fit: {below}.")
        else:
            said.append(f"{below}: fit longer, or otherwise.")
    if lost and found is not None:
        said.append(
            f"In {lost} of {test['rows']} rows log p(x) is not finite; means leave these out."
        )
    return said + caveats(test)


def caveats(test: dict[str, Any]) -> list[str]:
    """What a reader of any nats of these rows has to know, a sentence each."""
    share = test.get("tied")
    if test.get("measure") != "density" or not isinstance(share, float) or share < _TIED:
        return []
    return [
        f"These nats are of a density, in which {share:.0%} of the entries repeat one value: they "
        "depend on the narrowest scale that the likelihood allows. A likelihood of levels or "
        "counts gives probabilities."
    ]


def finite_json(value: Any, **options: Any) -> str:
    """JSON, in which infinities and NaN, which it has no words for, are null."""
    return json.dumps(_finite(value), allow_nan=False, **options)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
