"""k-hat of importance weights: ArviZ's where that is right, and never low where weights fail."""

import arviz_stats  # noqa: F401  registers the accessor
import numpy as np
import pytest
import torch
import xarray as xr

from ppl_vae import VAE, VAEConfig, diagnose, log_evidence
from ppl_vae.workflow.weights.khat import reliable_khat, smoothed_tail_index


@pytest.mark.parametrize("num_samples", [30, 100, 500, 2000])
@pytest.mark.parametrize("spread", [0.1, 1.0, 5.0])
def test_khat_equals_that_of_arviz(num_samples, spread):
    log_weight = np.random.default_rng(0).normal(0, spread, (20, num_samples)) - 300.0
    weights = xr.DataArray(log_weight[None], dims=("chain", "row", "draw"))
    expected = (-weights).azstats.psislw(dim=["chain", "draw"])[1].values
    np.testing.assert_allclose(smoothed_tail_index(log_weight), expected, rtol=1e-9)


@pytest.mark.parametrize("spread", [10, 100, 300, 700, 1000, 1e5, 1e300])
def test_khat_of_hopeless_weights(spread):
    """It grows with the spread, and is infinite where all weights but a few underflow."""
    k = smoothed_tail_index(np.random.default_rng(0).normal(0, spread, (50, 500)))
    assert (k > 1.5).all()
    assert np.isinf(k).all() == (spread >= 1e5)


normal = np.random.default_rng(0).normal(size=500)
CASES = {
    "NaN": (np.full(500, np.nan), np.nan),
    "one NaN": (np.r_[np.nan, normal[1:]], np.nan),
    "one infinite": (np.r_[np.inf, normal[1:]], np.nan),
    "all zero": (np.full(500, -np.inf), np.inf),
    "one of all": (np.r_[0.0, np.full(499, -np.inf)], np.inf),
    "four of all": (np.r_[normal[:4], np.full(496, -np.inf)], np.inf),
    "equal": (np.full(500, -81.25), 0.0),
    "rounding": (np.full(500, -81.25) + 1e-5 * normal, 0.0),
    "two values": (np.arange(500) % 2.0, 0.0),
}


@pytest.mark.parametrize(("log_weight", "expected"), CASES.values(), ids=CASES)
def test_khat_of_weights_that_are_none(log_weight, expected):
    """And no row changes what is said of the others."""
    k = smoothed_tail_index(np.stack([normal, log_weight, normal]))
    np.testing.assert_equal(k[1], expected)
    assert k[0] == k[2] == smoothed_tail_index(normal[None])[0]


def test_khat_of_a_few_tied_weights_that_carry_all():
    log_weight = np.r_[np.zeros(4), np.full(496, -50.0)]
    assert smoothed_tail_index(log_weight[None])[0] > 2


def test_some_zero_weights_are_weights():
    log_weight = np.where(np.arange(500) < 100, -np.inf, normal)
    assert 0 < smoothed_tail_index(log_weight[None])[0] < 0.7


def test_khat_that_draws_allow():
    assert reliable_khat(500) == pytest.approx(0.6295, abs=1e-4)
    assert reliable_khat(10**6) == 0.7


def test_no_verdict_believes_rows_that_are_far_out_or_not_finite():
    """A typo in one cell, and a decoder whose density overflows, among ordinary rows."""
    x = torch.randn(60, 5, generator=torch.Generator().manual_seed(0))
    vae = VAE.from_config(VAEConfig.for_data(x, hidden=(8,), latent_dim=2))
    rows = x[:10].clone()
    rows[:5, 1] = torch.tensor([1e2, 1e3, 1e4, 1e6, 1e30])
    evidence = log_evidence(vae, rows, num_samples=500, progress=False)
    assert not (evidence.pareto_k[:5] <= 0.7).any()
    found = diagnose(vae, rows, num_simulations=30, gap_rows=2, refined_rows=2, progress=False)
    assert not set(found.rows.verdict.values[:5]) & {"as it is", "reweighted"}
    assert found.rows.verdict.values[4] == "not"
    found.summary()
    found.plot()
