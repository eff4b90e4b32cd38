"""Is the encoder the posterior of the decoder? Exact and broken ones, by the exact oracle."""

import numpy as np
import pyro
import pytest
import torch
from oracle import LinearGaussian
from scipy.stats import kstest

from ppl_vae import VAE, VAEConfig, diagnose
from ppl_vae.workflow.checks.calibration import (
    calibrate,
)
from ppl_vae.workflow.checks.ranks import _p_value, _shape, rank_among
from ppl_vae.workflow.draws.posterior import evaluating

SIMULATIONS = 1000


@pytest.fixture(scope="module")
def large() -> LinearGaussian:
    return LinearGaussian.random(16, 64)


def scaled(oracle: LinearGaussian, factor: float) -> VAE:
    """An encoder of ``factor`` times the posterior's scale."""
    vae = oracle.vae()
    with torch.no_grad():
        vae.encoder.scale_head.bias += 2 * np.log(factor)
    return vae


def shifted(oracle: LinearGaussian, by: float) -> VAE:
    """An encoder that is off by so many standard deviations of the posterior."""
    vae = oracle.vae()
    with torch.no_grad():
        vae.encoder.loc_head.bias += by * oracle.posterior(oracle.rows(1))[1]
    return vae


def ignoring(oracle: LinearGaussian, latent: int) -> VAE:
    """An encoder that leaves one latent at the prior."""
    vae = oracle.vae()
    with torch.no_grad():
        for parameter in (vae.encoder.loc_head.weight, vae.encoder.loc_head.bias):
            parameter[latent] = 0
        vae.encoder.scale_head.bias[latent] = 0
    return vae


def uncorrelated(oracle: LinearGaussian, *, marginal: bool) -> VAE:
    """Correlated latents, with the posterior's marginal sds, or those that variational fits find.

    The latter are narrower: of each latent given all others.
    """
    correlation = torch.full((oracle.latent_dim,) * 2, 0.5, dtype=torch.float64)
    root = torch.linalg.cholesky(correlation.fill_diagonal_(1.0))
    correlated = LinearGaussian(oracle.weight @ root.T, oracle.bias, oracle.noise)
    vae = correlated.vae()
    if not marginal:
        precision = correlated.weight.T @ correlated.weight / correlated.noise**2
        with torch.no_grad():
            vae.encoder.scale_head.bias.copy_(-(precision.diagonal() + 1).log())
    return vae


def calibrated(vae: VAE, num_samples: int = 99):
    result = calibrate(vae, num_simulations=SIMULATIONS, num_samples=num_samples, progress=False)
    return result, result.sel(quantity=[f"z[{i}]" for i in range(vae.latent_dim)])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_exact_encoder_is_uniform(large, dtype):
    """By chance the smallest of 18 p-values is below 0.01 with probability 0.17; seed fixed."""
    result, _ = calibrated(large.vae().to(dtype), num_samples=199)
    assert result.p_value.min() > 0.01
    assert (result["shape"] == "uniform").all()
    # 18 means and variances within 5 standard errors: false alarms below 2e-5.
    assert (abs(result.offset) < 5 / np.sqrt(12 * SIMULATIONS)).all()
    assert (abs(result.spread - 1) < 5 * np.sqrt(4 / 5 / SIMULATIONS)).all()


@pytest.mark.parametrize(
    ("factor", "shape", "offset"), [(0.5, "too narrow", -1), (2.0, "too wide", 1)]
)
def test_wrong_scale_is_named(large, factor, shape, offset):
    """Every one of 16 latents has p below 1e-50; draws fit their rows too well, or too badly."""
    result, latents = calibrated(scaled(large, factor))
    assert result.p_value.max() < 1e-50
    assert (latents["shape"] == shape).all()
    data_dependent = result.sel(quantity=["log_likelihood", "log_joint"])
    assert (data_dependent["shape"] == "shifted").all()
    assert (np.sign(data_dependent.offset) == offset).all()


def test_shift_is_named(large):
    result, latents = calibrated(shifted(large, 1.0))
    assert result.p_value.max() < 1e-50
    assert (latents["shape"] == "shifted").all()
    assert (latents.offset < 0).all()  # draws lie above the truth


def test_latent_left_at_the_prior_is_seen_by_data_dependent_quantities_alone(large):
    """The trap: of 16 latents the smallest p is below 0.01 by chance with probability 0.15."""
    result, latents = calibrated(ignoring(large, 0))
    assert latents.p_value.min() > 0.01
    assert (latents["shape"] == "uniform").all()
    assert result.p_value.sel(quantity="log_likelihood") < 1e-50
    assert result.p_value.sel(quantity="log_joint") < 1e-50


def test_ignored_correlation(large):
    """With the right marginals latents show nothing, the trap again; by a fit they are narrow."""
    result, latents = calibrated(uncorrelated(large, marginal=True))
    assert latents.p_value.min() > 0.001
    assert result.p_value.sel(quantity="log_joint") < 1e-50
    result, latents = calibrated(uncorrelated(large, marginal=False))
    assert result.p_value.min() < 1e-50
    assert (latents["shape"] == "too narrow").all()


@pytest.mark.parametrize("num_ranks", [10, 200])
@pytest.mark.parametrize("size", [50, 1000])
def test_p_values_of_uniform_ranks_are_uniform(num_ranks, size):
    """4000 tests, so that shares of small p have sds of 0.0016 and 0.0034; 4 sds are allowed."""
    rank = np.random.default_rng(0).integers(0, num_ranks, (size, 4000))
    p = _p_value(rank, num_ranks)
    assert (p < 0.01).mean() == pytest.approx(0.01, abs=0.0064)
    assert (p < 0.05).mean() == pytest.approx(0.05, abs=0.0138)
    assert kstest(p, "uniform").pvalue > 1e-3


@pytest.mark.parametrize(
    ("offset", "spread", "p_value", "shape"),
    [
        (0.2, 0.9, 1e-9, "shifted"),
        (-0.5, 0.0, 1e-9, "shifted"),  # all truths below all draws
        (0.0, 1.5, 1e-9, "too narrow or misplaced"),
        (0.0, 0.5, 1e-9, "too wide"),
        (0.0, 1.0, 1e-9, "other"),  # two humps, say
        (0.2, 1.5, 0.5, "uniform"),
        (0.2, 1.5, 0.009, "uniform"),  # of two quantities, each is tested at 0.005
    ],
)
def test_shapes_in_words(offset, spread, p_value, shape):
    one, other = np.array([offset, 0.0]), np.array([spread, 1.0])
    assert _shape(np.array([p_value, 1.0]), one, other, 1000).tolist() == [shape, "uniform"]


@pytest.mark.parametrize("latents", [1, 3])
@pytest.mark.parametrize(
    ("fault", "ranks", "searched"),
    [
        ("misplaced", "misplaced", "misplaced"),
        ("misplaced and wide", "uniform", "misplaced"),
        ("uneven", "uneven", "uneven"),
    ],
)
def test_words_follow_from_what_is_off_in_a_row(latents, fault, ranks, searched):
    """Of ranks alone the first is too narrow, the second right, and the third neither.

    Locations 0.7 and 0.75 sd off; scales 1.25 times, or 1.6 times and 1 / 1.6 times the right one.
    By chance the ranks that are right are not called uniform in one of 300 seeds.
    """
    oracle = LinearGaussian.random(latents, 8)
    vae = oracle.vae()

    def off(module, inputs, q):
        wave = torch.sin(40 * inputs[0].sum(-1, keepdim=True))  # rough, and zero on average
        loc, scale = q.base_dist.loc, q.base_dist.scale
        if fault == "uneven":
            scale = scale * torch.where(wave > 0, 1.6, 1 / 1.6)
        else:
            loc = (
                loc + {"misplaced": 0.7, "misplaced and wide": 0.75}[fault] * 2**0.5 * wave * scale
            )
        if fault == "misplaced and wide":
            scale = 1.25 * scale
        return pyro.distributions.Normal(loc, scale).to_event(1)

    vae.encoder.register_forward_hook(off)
    result, found = calibrated(vae)
    assert (found["shape"] == ranks).all()
    assert (found.fault == searched).all()
    assert result.p_value.sel(quantity="log_joint") < 1e-6
    if fault != "uneven":
        np.testing.assert_allclose(found.location_off, 0.75, atol=0.2)
        # A latent may be off, and calibration says so, by none of its own ranks.
        said = diagnose(
            vae, oracle.rows(5), num_simulations=1000, gap_rows=40, annealed_rows=0, progress=False
        ).faults
        assert len(said) == 1
        assert "misplaced from row to row in z[0]" in said[0]
        assert ("which the ranks of single latents do not show" in said[0]) == (ranks == "uniform")


def test_ties_are_ranked_at_random():
    """Of 9 equal draws and 2 below, ranks 2 to 11 alike: a mean of 6.5 within 5 of its errors."""
    draws = torch.cat([torch.full((9, 20_000), 1.0), torch.zeros(2, 20_000)])
    rank = rank_among(torch.ones(20_000), draws)
    assert (rank.min(), rank.max()) == (2, 11)
    assert rank.double().mean().item() == pytest.approx(6.5, abs=5 * np.sqrt(99 / 12 / 20_000))
    assert (rank_among(torch.tensor([0.5]), draws[:, :1]) == 2).all()


def test_a_decoder_that_ignores_the_latents_is_calibrated_with_the_prior(digits):
    """All log-likelihoods are equal; ranks would be 0 without ties at random.

    By chance the smallest of 4 p-values is below 0.001 with probability 0.004.
    """
    config = VAEConfig.for_data((digits > 0.5).float(), latent_dim=2, hidden=(16,))
    vae = VAE.from_config(config)
    with torch.no_grad():
        for parameter in (*vae.decoder.parameters(), *vae.encoder.loc_head.parameters()):
            parameter.zero_()
        vae.encoder.scale_head.weight.zero_()
    result, _ = calibrated(vae)
    assert result.p_value.min() > 0.001


@pytest.mark.parametrize("likelihood", ["bernoulli", "normal", "negative_binomial"])
def test_any_decoder(likelihood):
    config = VAEConfig(event_shape=(5,), latent_dim=2, hidden=(8,), likelihood=likelihood)
    result = calibrate(
        VAE.from_config(config), num_simulations=30, num_samples=19, chunk_rows=7, progress=False
    )
    assert result["rank"].dims == ("simulation", "quantity")
    assert result["rank"].shape == (30, 4)
    assert result["rank"].min() >= 0
    assert result["rank"].max() <= 19


def test_conditional_vae():
    vae = VAE.from_config(VAEConfig(event_shape=(5,), latent_dim=2, hidden=(8,), covariate_dim=3))
    with evaluating(vae, seed=0):
        z, x, covariates = vae.simulate(7, torch.eye(3))
    assert z.shape == (7, 2)
    assert x.shape == (7, 5)
    assert covariates.argmax(1).tolist() == [0, 1, 2, 0, 1, 2, 0]
    result = calibrate(
        vae, covariates=torch.eye(3), num_simulations=50, chunk_rows=8, progress=False
    )
    assert result.sizes["simulation"] == 50
    with pytest.raises(ValueError, match="covariates has 0 features but this VAE was built for 3"):
        calibrate(vae, progress=False)


def test_the_world_is_left_as_found(oracle):
    vae = oracle.vae().train()
    state = torch.get_rng_state()
    one = calibrate(vae, num_simulations=30, progress=False)
    assert torch.equal(torch.get_rng_state(), state)
    assert vae.training
    assert not list(pyro.get_param_store().keys())
    assert one.identical(calibrate(vae, num_simulations=30, progress=False))
    assert not one.identical(calibrate(vae, num_simulations=30, seed=1, progress=False))


def test_it_says_what_it_tests(oracle):
    result = calibrate(oracle.vae(), num_simulations=30, progress=False)
    assert result.attrs["tests"].endswith("not the decoder against the world")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_simulations": 10}, "num_simulations is 10, too few"),
        ({"num_samples": 5}, "num_samples is 5, too few"),
        ({"chunk_rows": 0}, "chunk_rows is 0"),
    ],
)
def test_bad_options(oracle, options, message):
    with pytest.raises(ValueError, match=message):
        calibrate(oracle.vae(), **options)


def test_the_old_name_of_draws_is_answered_by_the_new_one():
    vae = VAE.from_config(VAEConfig(event_shape=(4,), latent_dim=2, hidden=(8,)))
    with pytest.raises(TypeError, match="now called num_samples; pass num_samples="):
        calibrate(vae, num_draws=19, progress=False)
