"""Denoised rows: the decoder's means over the posterior, exactly where that is known."""

import numpy as np
import pytest
import torch
from oracle import LinearGaussian
from scipy.stats import norm

from ppl_vae import VAE, VAEConfig, denoise

QUIET = {"progress": False}


@pytest.mark.parametrize("widened", [1.0, 1.3])
def test_means_are_those_of_the_exact_posterior(widened):
    """Mean, sd and interval of 400 entries within 6 standard errors: false alarms 400 * 2e-9 * 4.

    An encoder that is too wide is set right by its weights.
    """
    oracle = LinearGaussian.random(3, 8)
    x, size = oracle.rows(50), 4000
    found = denoise(
        oracle.vae_with_gaps(widened), x, num_samples=size, level=0.8, chunk_rows=17, **QUIET
    )
    mean, _ = oracle.posterior(x)
    covariance = torch.linalg.inv(oracle.posterior_precision)
    expected = (mean @ oracle.weight.T + oracle.bias).numpy()
    sd = (oracle.weight @ covariance @ oracle.weight.T).diagonal().sqrt().numpy()
    # Of an sd 1.3 times too large weights are worth half of the draws.
    error = sd / np.sqrt(size / (1 if widened == 1 else 2))
    assert found.weights_usable.all()
    assert (abs(found["mean"] - expected) < 6 * error).all()
    assert (abs(found.sd - sd) < 6 * error).all()
    reach = norm.ppf(0.9) * sd
    assert (abs(found.high - expected - reach) < 6 * 1.8 * error).all()
    assert (abs(found.low - expected + reach) < 6 * 1.8 * error).all()


def test_totals_and_other_covariates():
    """By an observed library and a batch: shares of another batch, at any depth."""
    x = torch.poisson(torch.full((20, 5), 4.0))
    covariates = torch.stack([torch.arange(20.0) % 2, torch.randn(20)], 1)
    config = VAEConfig.for_data(
        x, likelihood="poisson:library=observed", latent_dim=2, covariate_dim=2, hidden=(8,)
    )
    vae = VAE.from_config(config)
    given = {"covariates": covariates, "num_samples": 60, **QUIET}
    plain = denoise(vae, x, **given)
    totals = plain["mean"].sum("feature").values
    np.testing.assert_allclose(totals, covariates[:, 1].exp(), rtol=1e-4)
    even = denoise(vae, x, total=1e4, **given)
    np.testing.assert_allclose(even["mean"].sum("feature"), 1e4, rtol=1e-4)
    one = denoise(vae, x, as_if=covariates[1], total=1e4, **given)
    same = (covariates[:, 0] == 1).numpy()
    np.testing.assert_allclose(one["mean"][same], even["mean"][same], rtol=1e-4)
    assert abs(one["mean"] - even["mean"])[~same].max() > 1
    every = denoise(vae, x, as_if=covariates, **given)
    np.testing.assert_array_equal(every["mean"], plain["mean"])
    assert (plain.low <= plain["mean"]).all()
    assert (plain["mean"] <= plain.high).all()


def test_what_is_refused():
    x = torch.poisson(torch.full((20, 5), 4.0))
    vae = VAE.from_config(VAEConfig.for_data(x, latent_dim=2, hidden=(8,)))
    for options, message in (
        ({"num_samples": 5}, "num_samples is 5, too few"),
        ({"level": 1.0}, "level is 1.0; pass a probability"),
        ({"total": 0.0}, "total is 0.0; pass a positive number, or None"),
        ({"as_if": torch.ones(2)}, "the rows have no covariates; leave it out"),
    ):
        with pytest.raises(ValueError, match=message):
            denoise(vae, x, **options, **QUIET)
    levels = VAEConfig.for_data(x.clamp(max=3), likelihood="categorical", latent_dim=2)
    with pytest.raises(ValueError, match="this likelihood has no mean"):
        denoise(VAE.from_config(levels), x.clamp(max=3), **QUIET)
    given = VAE.from_config(VAEConfig.for_data(x, latent_dim=2, covariate_dim=3))
    with pytest.raises(ValueError, match=r"3 covariates; pass one row of 3, or one for each of 20"):
        denoise(given, x, covariates=torch.ones(20, 3), as_if=torch.ones(2), **QUIET)
