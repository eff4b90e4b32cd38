"""Are new rows still such as those that a fit was judged by? A control chart, batch by batch."""

from __future__ import annotations

__all__ = ["control_chart"]

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import xarray as xr

# What two estimates have to agree in to be compared row by row.
_SAME = ("method", "num_samples")
# What a quantity that is not a number is ranked as: the worst.
_WORST = {"log_evidence": -math.inf, "pareto_k": math.inf}
# Rows that are ranked together.
_ROWS = 512


def control_chart(
    reference: xr.Dataset,
    new: xr.Dataset,
    *,
    size: int = 100,
    rate: float = 0.01,
    seed: int = 0,
) -> xr.Dataset:
    r"""Say of new rows, batch by batch, whether log p(x) and k-hat are those of reference rows.

    Each new row i is ranked by a quantity s among the reference rows and the new rows before it,
    equal ones at random:

    .. math:: u_i = \frac{\#\{j < i : s_j < s_i\} + v_i \, \#\{j \le i : s_j = s_i\}}{i},
        \quad v_i \sim \text{uniform}(0, 1)

    While all rows are exchangeable, such as draws from one distribution whatever it is, these are
    independent uniform numbers, exactly and for any number of rows. So the scores of batches of m
    rows, :math:`\sum_i \Phi^{-1}(u_i) / \sqrt m`, are independent and standard normal. A batch is
    an alarm where the score of log p(x) is far from zero on either side (rows that are too likely
    are others, too), or that of k-hat is far above.

    Parameters
    ----------
    reference
        What :func:`~ppl_vae.log_evidence` says of rows that the VAE was not fitted to, such as the
        test rows of the fit.
    new
        The same of new rows, in the order in which they came: with as many draws, and best with
        another seed, as rows that share draws are not quite exchangeable.
    size
        Rows of a batch; the last may have fewer. Larger ones see smaller changes, later.
    rate
        The probability, of each batch, of an alarm although nothing has changed: half of it for
        each quantity, so that it is at most this much for both, and at least half.
    seed
        Decides ties. With the same seed, batches that were full stay as they are when more rows
        come.

    Returns
    -------
    xarray.Dataset
        Over ``batch``: ``first`` and ``rows``, where it begins among the new rows, from 0, and how
        many it has; ``log_evidence_score`` and ``pareto_k_score``, standard normal while nothing
        changes; ``alarm``; ``fault``, ``""`` or why, in words; ``mean_log_evidence``, nats per row;
        ``share_usable``, of its rows with weights that can be used. Attributes are ``rate``,
        ``log_evidence_limit`` and ``pareto_k_limit`` of scores, and the
        ``reference_log_evidence`` and ``reference_usable`` of the reference rows.

    Raises
    ------
    ValueError
        If the two were estimated by other methods or numbers of draws, have no rows or no k-hat,
        or an option is not accepted.

    Notes
    -----
    After an alarm fit further, to old and new rows alike if both are still to be described:
    :func:`~ppl_vae.fit` goes on from the weights that a VAE has. New rows become part of what later
    ones are ranked among, so that the chart gets used to what has changed: it is the first alarms
    that count.

    Source: Vovk et al. (2003), *Testing exchangeability on-line*, for the uniform numbers; McDonald
    (1990), *A CUSUM procedure based on sequential ranks*, for charts of them; Nalisnick et al.
    (2019), *Do deep generative models know what they don't know?*, for rows that are too likely.

    Examples
    --------
    >>> import torch
    >>> from ppl_vae import VAE, VAEConfig, log_evidence
    >>> config = VAEConfig(event_shape=(4,), latent_dim=2, hidden=(16,), likelihood="normal")
    >>> vae, options = VAE.from_config(config), {"num_samples": 100, "progress": False}
    >>> before = log_evidence(vae, torch.randn(200, 4), **options)
    >>> for width in (1.0, 1.5):
    ...     after = log_evidence(vae, width * torch.randn(200, 4), seed=1, **options)
    ...     print(control_chart(before, after).alarm.values)
    [False False]
    [ True  True]
    """
    import xarray as xr
    from scipy.special import ndtri

    if size < 1:
        raise ValueError(f"size is {size}; pass at least 1 row a batch")
    if not 0 < rate < 1:
        raise ValueError(f"rate is {rate}; pass a probability above 0 and below 1")
    _check(reference, new)
    first = np.arange(0, new.sizes["row"], size)
    rows = np.diff(np.append(first, new.sizes["row"]))

    def batches(values: np.ndarray) -> np.ndarray:
        return np.add.reduceat(values, first)

    score = {}
    for i, name in enumerate(_WORST):
        rank = _uniform(_numbers(reference, name), _numbers(new, name), [seed, i])
        score[name] = batches(ndtri(rank)) / np.sqrt(rows)
    # Log p(x) has two sides, and each quantity half of the rate.
    limit = {"log_evidence": float(ndtri(1 - rate / 4)), "pareto_k": float(ndtri(1 - rate / 2))}
    faults = {
        "log p(x) is lower": score["log_evidence"] < -limit["log_evidence"],
        "log p(x) is higher": score["log_evidence"] > limit["log_evidence"],
        "k-hat is higher": score["pareto_k"] > limit["pareto_k"],
    }
    said = [
        " and ".join(words for words, found in faults.items() if found[batch])
        for batch in range(len(first))
    ]
    return xr.Dataset(
        {
            "first": ("batch", first),
            "rows": ("batch", rows),
            "log_evidence_score": ("batch", score["log_evidence"]),
            "pareto_k_score": ("batch", score["pareto_k"]),
            "alarm": ("batch", np.array([bool(words) for words in said])),
            "fault": ("batch", said),
            "mean_log_evidence": (
                "batch",
                batches(new["log_evidence"].values.astype(np.float64)) / rows,
                {"unit": "nats per row"},
            ),
            "share_usable": ("batch", batches(new["weights_usable"].values.astype(float)) / rows),
        },
        coords={"batch": range(len(first))},
        attrs={
            "rate": rate,
            "log_evidence_limit": limit["log_evidence"],
            "pareto_k_limit": limit["pareto_k"],
            "reference_log_evidence": float(reference["log_evidence"].mean()),
            "reference_usable": float(reference["weights_usable"].mean()),
        },
    )


def _check(reference: xr.Dataset, new: xr.Dataset) -> None:
    for called, found in (("reference", reference), ("new", new)):
        lost = [name for name in ("log_evidence", "pareto_k") if name not in found]
        if lost or not found.sizes.get("row"):
            what = f"no {' and no '.join(lost)}" if lost else "no rows"
            raise ValueError(f"{called} has {what}; pass what log_evidence returns for its rows")
        if bool(found["pareto_k"].isnull().all()):
            raise ValueError(
                f"{called} has no k-hat, as of fewer than 30 chains of annealing; pass "
                "log_evidence(..., method='importance')"
            )
    for name in _SAME:
        before, now = reference.attrs.get(name), new.attrs.get(name)
        if before != now:
            raise ValueError(
                f"{name} is {before!r} of reference and {now!r} of new, and k-hat depends on it; "
                "estimate both alike"
            )


def _numbers(found: xr.Dataset, name: str) -> np.ndarray:
    return np.nan_to_num(
        found[name].values.astype(np.float64),
        nan=_WORST[name],
        posinf=math.inf,
        neginf=-math.inf,
    )


def _uniform(before: np.ndarray, new: np.ndarray, seed: list[int]) -> np.ndarray:
    """The rank of each new number among all before it, as a part of these, ties at random."""
    chance = np.random.default_rng(seed).random(len(new))
    seen = np.sort(before)
    found = []
    for start in range(0, len(new), _ROWS):
        some = new[start : start + _ROWS]
        earlier = np.tri(len(some), k=-1, dtype=bool)  # (row, row before it)
        low, high = (np.searchsorted(seen, some, side=side) for side in ("left", "right"))
        below = low + (earlier & (some < some[:, None])).sum(1)
        equal = high - low + (earlier & (some == some[:, None])).sum(1) + 1
        number = len(seen) + np.arange(1, len(some) + 1)
        found.append((below + chance[start : start + _ROWS] * equal) / number)
        seen = np.sort(np.concatenate([seen, some]), kind="stable")
    tiny = np.finfo(np.float64).epsneg
    return np.clip(np.concatenate(found), tiny, 1 - tiny)
