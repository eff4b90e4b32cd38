"""Does the decoder draw rows like the data? Judged where the answer is known."""

import numpy as np
import pytest
import torch
from oracle import LinearGaussian
from scipy.stats import norm

from ppl_vae import VAE, VAEConfig
from ppl_vae.workflow.checks.predictive import STATISTICS, predictive_check


def test_pit_of_the_oracle_is_the_closed_form(oracle):
    """The row mean's replicates are normal: each PIT of 40 rows within 5 standard errors."""
    x = oracle.rows(40)
    check = predictive_check(
        oracle.vae(), x, statistics=["mean"], num_samples=4000, progress=False
    ).sel(statistic="mean")
    mean, sd = oracle.posterior(x)
    average = oracle.weight.mean(0)
    expected = mean @ average + oracle.bias.mean()
    spread = ((average * sd).square().sum() + oracle.noise**2 / len(oracle.bias)).sqrt()
    exact = norm.cdf(((x.mean(1) - expected) / spread).numpy())
    error = np.sqrt(exact * (1 - exact) / 4000) + 1e-3
    assert (abs(check.row_pit - exact) < 5 * error).all()
    np.testing.assert_allclose(check.row_observed, x.mean(1))
    np.testing.assert_allclose(check.row_expected, expected, atol=5 * spread / 4000**0.5)


def test_data_of_the_model_are_not_surprising(oracle):
    """With 500 rows: PITs of rows lie about one half, and of features nowhere below 0.001."""
    check = predictive_check(oracle.vae(), oracle.rows(500), num_samples=1000, progress=False)
    assert (abs(check.row_pit.mean("row") - 0.5) < 0.1).all()
    known = check.sel(statistic=["mean", "sd"])
    assert known.feature_pit.min() > 0.001
    assert known.feature_pit.max() < 0.999
    assert (check.feature_pit.sel(statistic="zeros") == 0.5).all()


def test_noise_that_the_decoder_lacks_is_seen(oracle):
    """Data of three times the noise: more spread than replicates in nearly all rows."""
    noisy = LinearGaussian(oracle.weight, oracle.bias, 3 * oracle.noise)
    check = predictive_check(oracle.vae(), noisy.rows(200), progress=False)
    assert check.row_pit.sel(statistic="sd").median() > 0.95
    assert (check.feature_pit.sel(statistic="sd") == 1).all()


def test_one_wrong_feature_is_named(oracle):
    """Feature 2 is off by 2; the latents follow in part, at the cost of other features."""
    x = oracle.rows(200)
    x[:, 2] += 2.0
    check = predictive_check(oracle.vae(), x, statistics=["mean"], progress=False).squeeze()
    gap = (check.feature_observed - check.feature_expected).values
    assert abs(gap).argmax() == 2
    assert gap[2] > 0.5
    assert check.feature_pit[2] == 1


def test_mid_ranks_of_ties():
    """A decoder of fair coins, rows of one entry: the PIT is half of P(tie), plus P(below)."""
    vae = VAE.from_config(VAEConfig(event_shape=(1,), latent_dim=1, hidden=(2,)))
    with torch.no_grad():
        for parameter in vae.decoder.parameters():
            parameter.zero_()
    x = torch.tensor([[0.0], [1.0]])
    check = predictive_check(vae, x, statistics=["mean"], num_samples=20_000, progress=False)
    # Within 5 standard errors of 0.0018.
    np.testing.assert_allclose(check.row_pit.squeeze(), [0.25, 0.75], atol=0.009)


def test_missing_entries_are_missing_in_replicates(oracle):
    """A mean over what is observed, and no number where nothing is."""
    config = VAEConfig(
        event_shape=(8,), latent_dim=2, hidden=(4,), likelihood="normal", missing=True
    )
    vae, x = VAE.from_config(config), oracle.rows(30).float()
    x[:, 5] = torch.nan
    x[::2, 1] = torch.nan
    check = predictive_check(vae, x, num_samples=20, progress=False)
    assert check.row_pit.notnull().all()
    assert check.row_expected.notnull().all()
    gone = check.isel(feature=5)
    for name in ("feature_observed", "feature_expected", "feature_pit"):
        assert gone[name].isnull().all()
        assert check[name].isel(feature=[0, 1, 2, 3, 4, 6, 7]).notnull().all()
    np.testing.assert_allclose(
        check.row_observed.sel(statistic="mean"), np.nanmean(x, 1), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(
        check.feature_observed.sel(statistic="sd")[1], np.nanstd(x[:, 1]), rtol=1e-5
    )


def test_statistics_know_what_is_missing():
    values = torch.tensor([[0.0, 3.0, torch.nan, 0.0]])
    found = {name: f(values).item() for name, f in STATISTICS.items()}
    assert found == pytest.approx({"mean": 1.0, "sd": 2**0.5, "zeros": 2 / 3, "max": 3.0})


def test_own_statistics_and_images(digits):
    bits = (digits[:10] > 0.5).float()
    vae = VAE.from_config(VAEConfig.for_data(bits, latent_dim=2, hidden=(8,)))
    check = predictive_check(
        vae, bits, statistics={"sum": lambda v: v.nansum(-1)}, num_samples=5, progress=False
    )
    assert check.statistic.values.tolist() == ["sum"]
    assert check.row_pit.dims == ("statistic", "row")
    assert check.feature_pit.dims == ("statistic", "pixel_y", "pixel_x")
    np.testing.assert_array_equal(check.row_observed[0], bits.sum((1, 2)))
    np.testing.assert_array_equal(check.feature_observed[0], bits.sum(0))


def test_chunks_and_context(monkeypatch):
    """Many small chunks of rows and draws: expectations within 5 standard errors of about 0.01."""
    vae = VAE.from_config(VAEConfig(event_shape=(5,), latent_dim=2, hidden=(8,), covariate_dim=3))
    with torch.no_grad():
        for parameter in vae.decoder.parameters():
            parameter *= 30.0  # so that contexts differ
    x, covariates = torch.ones(9, 5), torch.eye(3)[torch.arange(9) % 3]
    options = {
        "covariates": covariates,
        "statistics": ["mean"],
        "num_samples": 2000,
        "progress": False,
    }
    whole = predictive_check(vae, x, **options)
    monkeypatch.setattr("ppl_vae.budget._BUDGET", 20)
    parts = predictive_check(vae, x, **options)
    np.testing.assert_allclose(parts.row_expected, whole.row_expected, atol=0.05)
    assert np.ptp(whole.row_expected.values) > 0.09


def test_the_world_is_left_as_found(oracle):
    vae = oracle.vae().train()
    state = torch.get_rng_state()
    one = predictive_check(vae, oracle.rows(5), num_samples=3, progress=False)
    assert torch.equal(torch.get_rng_state(), state)
    assert vae.training
    assert one.identical(predictive_check(vae, oracle.rows(5), num_samples=3, progress=False))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_samples": 0}, "num_samples is 0"),
        ({"statistics": ["median"]}, r"statistics is \['median'\]; accepted are"),
        ({"statistics": "mean"}, "statistics is 'mean'; accepted are a list"),
        ({"statistics": {"all": lambda v: v.sum()}}, r"statistics\['all'\] made shape \(\)"),
    ],
)
def test_bad_options(oracle, options, message):
    with pytest.raises(ValueError, match=message):
        predictive_check(oracle.vae(), oracle.rows(3), **options)
