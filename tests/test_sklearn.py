"""scikit-learn's estimators: its own checks, and the numbers of the package."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from ppl_vae import impute, log_evidence
from ppl_vae.sklearn import VAEImputer, VAETransformer

QUICK = {"epochs": 2, "num_samples": 50, "random_state": 0}
# What these checks would compare is compared below.
DRAWN = "VAETransformer is non deterministic"


@pytest.fixture
def x():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(120, 1)) * [1.0, -2.0, 3.0] + generator.normal(size=(120, 3))
    x[generator.random(x.shape) < 0.2] = np.nan
    return x


@pytest.fixture
def seen(x):
    """Rows with an entry."""
    return x[~np.isnan(x).all(1)]


@pytest.mark.parametrize("kind", [VAEImputer, VAETransformer])
def test_scikit_learn_s_own_checks(kind):
    quick = kind(epochs=1, num_samples=30, network="mlp:hidden=(8,)", objective="elbo")
    results = check_estimator(quick, on_skip=None)
    assert len(results) > 40
    for result in results:
        if result["status"] == "skipped":
            assert DRAWN in str(result["exception"]) or "SCIPY_ARRAY_API" in str(
                result["exception"]
            )
        else:
            assert result["status"] == "passed"


@pytest.mark.slow
@pytest.mark.parametrize("kind", [VAEImputer, VAETransformer])
def test_scikit_learn_s_own_checks_with_the_default_parts(kind):
    check_estimator(kind(epochs=10), on_skip=None)


def test_imputed_entries_are_those_of_impute(x):
    imputer = VAEImputer(**QUICK).fit(x)
    filled = imputer.transform(x)
    assert np.isnan(x).all(1).any()  # rows without any entry too
    rows = torch.tensor(x, dtype=torch.float32)
    found = impute(imputer.vae_, rows, num_samples=50, seed=imputer.seed_, progress=False)
    np.testing.assert_array_equal(filled[np.isnan(x)], found.x.values[np.isnan(x)])
    np.testing.assert_array_equal(filled[~np.isnan(x)], x[~np.isnan(x)])
    more = imputer.impute(x, num_draws=7, level=0.5)
    assert more.sizes["draw"] == 7
    assert more.attrs["level"] == 0.5


def test_scores_are_log_evidence_and_find_an_outlier(seen):
    x = seen
    transformer = VAETransformer(latent_dim=2, **QUICK).fit(x)
    x[7] = 40.0
    scores = transformer.score_samples(x)
    rows = torch.tensor(x, dtype=torch.float32)
    options = {"num_samples": 50, "seed": transformer.seed_, "progress": False}
    found = log_evidence(transformer.vae_, rows, **options)
    np.testing.assert_array_equal(scores, found.log_evidence)
    np.testing.assert_array_equal(transformer.pareto_k_, found.pareto_k)
    assert scores.argmin() == 7
    assert transformer.score(x) == pytest.approx(scores.mean())
    z = transformer.transform(x)
    np.testing.assert_allclose(transformer.transform(x[::-1])[::-1], z, atol=1e-5)
    np.testing.assert_array_equal(clone(transformer).fit(x).transform(x).shape, z.shape)
    back = transformer.inverse_transform(z)
    assert back.shape == x.shape
    with pytest.raises(ValueError, match=r"pass latents, \(row, 2\)"):
        transformer.inverse_transform(x)


def test_names_pipelines_and_searches(x, seen):
    frame = pd.DataFrame(x, columns=["a", "b", "c"])
    imputer = VAEImputer(**QUICK).set_output(transform="pandas").fit(frame)
    filled = imputer.transform(frame)
    assert filled.columns.tolist() == ["a", "b", "c"]
    assert filled.notna().all(axis=None)
    latents = make_pipeline(imputer, StandardScaler(), VAETransformer(latent_dim=2, **QUICK))
    assert latents.set_output(transform="pandas").fit_transform(frame).columns.tolist() == [
        "vaetransformer0",
        "vaetransformer1",
    ]
    search = GridSearchCV(VAETransformer(**QUICK), {"latent_dim": [1, 2]}, cv=2)
    assert np.isfinite(search.fit(seen).cv_results_["mean_test_score"]).all()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (np.full((9, 2), np.nan), "X has 0 rows with an entry that is not missing"),
        (np.ones((9, 2)), "never varies"),
        (np.ones((1, 2)), "minimum of 2 is required"),
    ],
)
def test_what_is_refused(given, said):
    with pytest.raises(ValueError, match=said):
        VAEImputer(**QUICK).fit(given)
