"""Disentanglement: whether each latent stands for one known factor, by four published scores."""

from __future__ import annotations

__all__ = [
    "concentration",
    "disentanglement",
    "forest_importance",
    "mutual_information",
    "predictability",
    "top_gap",
    "votes",
]

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ...amortized import AmortizedModel
from ...progress import Progress
from ...renamed import renamed
from ...rows import Rows
from ..draws.latents import draw, moments
from ..draws.posterior import map_posterior
from .factors import Factor, factors_of

if TYPE_CHECKING:
    import xarray as xr

# A third of the rows is held out; of many rows as many are used as published studies use.
_HELD_OUT = 1 / 3
_TRAIN_ROWS = 10_000
_TEST_ROWS = 5_000
_TREES = 50
_LEAF = 5
# Votes for each factor, of so many rows that share its value.
_VOTES = 1000
_GROUP = 64
_FEWEST_ROWS = 30


@renamed(context="covariates")
def disentanglement(
    vae: AmortizedModel,
    x: Tensor | Rows,
    factors: Mapping[str, Any] | np.ndarray | Tensor,
    *,
    covariates: Tensor | None = None,
    categories: Sequence[str] = (),
    latents: str = "mean",
    bins: int = 20,
    threshold: float = 0.01,
    seed: int = 0,
    chunk_rows: int | None = None,
    progress: bool = False,
) -> xr.Dataset:
    r"""Score how far each latent stands for one factor that the rows were made from.

    - **MIG**: the gap between the two latents that know most of a factor, in mutual information
      over the factor's entropy, on average over factors.
    - **DCI**: forests predict each factor from all latents. Disentangled is a latent that matters
      for one factor, complete a factor for which one latent matters, informative are latents that
      predict it for rows held out.
    - **SAP**: the gap between the two latents that predict a factor best on their own.
    - **FactorVAE**: how often the latent that varies least among rows that share the value of a
      factor tells which factor it is; one over the number of factors is chance.

    Parameters
    ----------
    vae
        A VAE of at least two latents.
    x
        Rows, shape ``(row, *event)``, best all combinations of factors or a random part of them.
    factors
        At least two factors: by name, each of shape ``(row,)``, as ``load_data("sprites")`` has
        them; or an array ``(row, factor)``. Numbers are taken for ordered, text and bool for
        categories.
    covariates
        Shape ``(row, covariate)``, for a conditional VAE.
    categories
        Names of factors whose numbers are codes without an order.
    latents
        ``"mean"``, the means of q(z|x), as published studies have it, or ``"draw"``, a draw for
        each row: then scores do not count what a latent's own noise hides, such as the means
        of unused latents.
    bins
        Bins of equal width that a latent is cut into for the mutual information. It is that of
        counts, which is too large by about ``bins * levels / (2 * rows)`` nats.
    threshold
        Latents whose means vary less take no part in the FactorVAE score, as collapsed.
    seed
        Decides which rows are held out, forests, votes and draws.
    chunk_rows
        Rows at a time, as in :func:`~ppl_vae.sample_posterior`.
    progress
        Show how it goes on standard error.

    Returns
    -------
    xarray.Dataset
        The scores, from 0 to 1: ``mig``, ``dci_disentanglement``, ``dci_completeness``,
        ``dci_informativeness``, ``sap`` and ``factor_vae``. Over (factor, latent) what they rest
        on: ``mutual_information`` in nats; ``importance``, the share of a forest's splits in what
        it explains; ``predictability``, the squared correlation, or for categories the balanced
        accuracy of thresholds for rows held out, of which chance is one over their number; and
        ``votes``, the share of a factor's groups in which a latent varies least. Over ``factor``:
        ``entropy`` in nats, ``mig_by_factor``, ``sap_by_factor``, ``completeness``,
        ``informativeness``; over ``latent``: ``disentanglement``, ``variance`` and ``active``.

    Raises
    ------
    TypeError, ValueError
        If ``x`` or ``covariates`` is not what the VAE describes, it has one latent, there are fewer
        than two factors, or one of them is constant, has missing values or not one for each row.

    Notes
    -----
    Source: Chen et al. (2018), *Isolating sources of disentanglement*, equation 6; Eastwood &
    Williams (2018), *A framework for the quantitative evaluation of disentangled representations*,
    with random forests, as there, of 50 trees with five rows in a leaf; Kumar et al. (2018),
    *Variational inference of disentangled latent concepts*, section 3; Kim & Mnih (2018),
    *Disentangling by factorising*, section 4. Forests and thresholds see 10,000 rows and predict
    5,000 others at most. Informativeness is one minus the error over that of
    the best constant: squared for numbers, misclassified rows for categories.

    Examples
    --------
    >>> from ppl_vae import VAE, VAEConfig, load_data
    >>> sprites = load_data("sprites", "test", test_fraction=0.05)
    >>> vae = VAE.from_config(VAEConfig.for_data(sprites.x, latent_dim=3, hidden=(16,)))
    >>> scores = disentanglement(vae, sprites.x, sprites.factors)
    >>> scores.importance.dims, scores.factor.values.tolist()
    (('factor', 'latent'), ['shape', 'size', 'angle', 'x', 'y'])
    """
    import xarray as xr

    data = Rows.of(x, covariates, vae)
    data.check(vae)
    if latents not in ("mean", "draw"):
        raise ValueError(f"latents is {latents!r}; accepted are 'mean' and 'draw'")
    if bins < 2:
        raise ValueError(f"bins is {bins}; pass at least 2, such as 20")
    if vae.latent_dim < 2:
        raise ValueError("vae has 1 latent, and the scores compare latents; pass one of 2 or more")
    if len(data) < _FEWEST_ROWS:
        raise ValueError(
            f"x has {len(data)} rows, too few to score; pass at least {_FEWEST_ROWS}, better 1,000"
        )
    known = factors_of(factors, len(data), categories=categories, bins=bins)
    encoded = map_posterior(
        vae,
        data,
        lambda q, _: {"mean": moments(q)[0], "draw": draw(q, (1,))[0]},
        seed=seed,
        chunk_rows=chunk_rows,
        label="encode",
        progress=progress,
    )
    means, values = (encoded[name].astype(np.float64) for name in ("mean", latents))
    variance = means.var(axis=0, ddof=1)
    active = variance > threshold

    random = np.random.default_rng(seed)
    order = random.permutation(len(data))
    cut = len(order) - max(1, round(len(order) * _HELD_OUT))
    train, test = order[:cut][:_TRAIN_ROWS], order[cut:][:_TEST_ROWS]
    found: dict[str, list[Any]] = {
        name: []
        for name in ("mutual_information", "importance", "informativeness", "predictability")
    }
    won: list[np.ndarray] = []
    again: list[np.ndarray] = []
    with Progress(len(known), "factor", show=progress) as bar:
        for factor in known.values():
            found["mutual_information"].append(mutual_information(values, factor.levels, bins))
            important, informative = forest_importance(values, factor, train, test, seed=seed)
            found["importance"].append(important)
            found["informativeness"].append(informative)
            found["predictability"].append(predictability(values, factor, train, test))
            for tally in (won, again):
                tally.append(votes(values, factor.levels, active, random))
            bar.advance(1)
    table = {name: np.stack(rows) for name, rows in found.items()}  # (factor, latent), (factor,)
    information, importance = table["mutual_information"], table["importance"]
    shares = [factor.shares for factor in known.values()]
    entropy = np.array([-(share * np.log(share)).sum() for share in shares])
    by_factor = {
        "entropy": entropy,
        "mig_by_factor": top_gap(information) / entropy,
        "sap_by_factor": top_gap(table["predictability"]),
        "completeness": concentration(importance),
        "informativeness": table["informativeness"],
    }
    by_latent = {
        "disentanglement": concentration(importance.T),
        "variance": variance,
        "active": active,
    }
    # A vote for a latent is read as the factor that it voted for most often before.
    guess = np.stack(won).argmax(axis=0)
    right = np.stack(again)[guess, np.arange(len(guess))].sum() / len(known)
    scores = {
        "mig": by_factor["mig_by_factor"].mean(),
        "dci_disentanglement": _weighted(by_latent["disentanglement"], importance.sum(0)),
        "dci_completeness": _weighted(by_factor["completeness"], importance.sum(1)),
        "dci_informativeness": table["informativeness"].mean(),
        "sap": by_factor["sap_by_factor"].mean(),
        "factor_vae": right,
    }
    matrices = {
        "mutual_information": information,
        "importance": importance,
        "predictability": table["predictability"],
        "votes": np.stack(again),
    }
    result = xr.Dataset(
        {
            **{name: float(score) for name, score in scores.items()},
            **{name: (("factor", "latent"), matrix) for name, matrix in matrices.items()},
            **{name: ("factor", numbers) for name, numbers in by_factor.items()},
            **{name: ("latent", numbers) for name, numbers in by_latent.items()},
        },
        coords={"factor": list(known), "latent": range(vae.latent_dim)},
        attrs={
            "num_rows": len(data),
            "latents": latents,
            "bins": bins,
            "threshold": threshold,
            "seed": seed,
            "estimator": f"random forest of {_TREES} trees",
        },
    )
    for name in ("mutual_information", "entropy"):
        result[name].attrs["unit"] = "nats"
    return result


def mutual_information(values: np.ndarray, levels: np.ndarray, bins: int = 20) -> np.ndarray:
    """Of each latent ``(row, latent)``, cut into bins, and a factor's levels: nats, ``(latent,)``.

    Examples
    --------
    >>> z = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    >>> mutual_information(z, np.array([0, 0, 1, 1])).round(3).tolist()
    [0.693, 0.0]
    """
    found = []
    for value in values.T:
        edges = np.histogram_bin_edges(value, bins)
        cell = np.searchsorted(edges[1:-1], value, side="right")
        count = np.bincount(cell * (levels.max() + 1) + levels, minlength=bins * (levels.max() + 1))
        joint = count.reshape(bins, -1) / len(value)  # (bin, level)
        apart = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
        filled = joint > 0
        found.append((joint[filled] * np.log(joint[filled] / apart[filled])).sum())
    return np.maximum(found, 0.0)


def forest_importance(
    values: np.ndarray, factor: Factor, train: np.ndarray, test: np.ndarray, *, seed: int = 0
) -> tuple[np.ndarray, float]:
    """How much a forest uses each latent for a factor, ``(latent,)``, and how well it predicts."""
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    kind = RandomForestClassifier if factor.numbers is None else RandomForestRegressor
    # With some latents hidden from a split, others would get credit for what those know.
    forest = kind(_TREES, min_samples_leaf=_LEAF, max_features=None, random_state=seed)
    target = factor.levels if factor.numbers is None else factor.numbers
    predicted = forest.fit(values[train], target[train]).predict(values[test])
    if factor.numbers is None:
        best = np.bincount(target[train]).argmax()
        error, constant = (predicted != target[test]).mean(), (target[test] != best).mean()
    else:
        error = np.square(predicted - target[test]).mean()
        constant = np.square(target[test] - target[train].mean()).mean()
    informative = max(0.0, 1.0 - error / constant) if constant > 0 else 0.0
    return forest.feature_importances_, float(informative)


def predictability(
    values: np.ndarray, factor: Factor, train: np.ndarray, test: np.ndarray
) -> np.ndarray:
    """How well each latent predicts a factor by itself, ``(latent,)``: R² or balanced accuracy."""
    if factor.numbers is not None:
        away = values - values.mean(axis=0)
        target = factor.numbers - factor.numbers.mean()
        size = np.square(away).sum(axis=0) * np.square(target).sum()
        product = np.square(away.T @ target)
        return np.divide(product, size, out=np.zeros_like(size), where=size > 0)
    from sklearn.metrics import recall_score
    from sklearn.tree import DecisionTreeClassifier

    found = []
    for value in values.T[..., None]:  # (row, 1)
        # Leaves of a tree of one number lie between thresholds.
        tree = DecisionTreeClassifier(
            max_leaf_nodes=len(factor.shares), class_weight="balanced", random_state=0
        )
        predicted = tree.fit(value[train], factor.levels[train]).predict(value[test])
        truth = factor.levels[test]
        found.append(recall_score(truth, predicted, labels=np.unique(truth), average="macro"))
    return np.array(found)


def votes(
    values: np.ndarray, levels: np.ndarray, active: np.ndarray, random: np.random.Generator
) -> np.ndarray:
    """How often each latent varies least among rows of one level: shares, ``(latent,)``."""
    if not active.any():
        return np.full(len(active), 1 / len(active))
    size = np.bincount(levels)
    start = np.cumsum(size) - size
    level = levels[random.integers(len(levels), size=_VOTES)][:, None]  # (vote, 1)
    member = (random.random((_VOTES, _GROUP)) * size[level]).astype(int)
    rows = np.argsort(levels, kind="stable")[start[level] + member]  # (vote, row)
    taken = np.flatnonzero(active)
    spread = values[:, taken].var(axis=0, ddof=1)
    least = [(values[:, i][rows].var(axis=1) / v) for i, v in zip(taken, spread, strict=True)]
    winner = taken[np.argmin(least, axis=0)]
    return np.bincount(winner, minlength=len(active)) / _VOTES


def top_gap(matrix: np.ndarray) -> np.ndarray:
    """The largest entry of each row minus the second largest.

    Examples
    --------
    >>> top_gap(np.array([[0.25, 1.0, 0.0], [0.5, 0.5, 0.5]])).tolist()
    [0.75, 0.0]
    """
    ordered = np.sort(matrix, axis=1)
    return ordered[:, -1] - ordered[:, -2]


def concentration(weights: np.ndarray) -> np.ndarray:
    """One minus the entropy of each row's shares over the largest possible; 0 for rows of zeros.

    Examples
    --------
    >>> concentration(np.array([[2.0, 0.0], [1.0, 1.0], [0.0, 0.0]])).tolist()
    [1.0, 0.0, 0.0]
    """
    total = weights.sum(axis=1, keepdims=True)
    even = np.full_like(weights, 1 / weights.shape[1])
    shares = np.divide(weights, total, out=even, where=total > 0)
    inside = np.where(shares > 0, shares, 1.0)
    return 1.0 + (shares * np.log(inside)).sum(axis=1) / np.log(weights.shape[1])


def _weighted(values: np.ndarray, weights: np.ndarray) -> float:
    return float((values * weights).sum() / weights.sum()) if weights.sum() else 0.0
