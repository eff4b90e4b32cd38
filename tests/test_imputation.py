"""Missing entries: draws of p(x_missing | x_observed), with intervals and k-hat."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from families import LIKELIHOOD, case, mixed
from oracle import LinearGaussian
from scipy.stats import norm

from ppl_vae import (
    IWAE,
    MLP,
    VAE,
    NormalDecoder,
    NormalEncoder,
    StandardNormal,
    fit,
    impute,
    log_evidence,
)
from ppl_vae.workflow.imputation.conformal import margins

QUIET = {"progress": False}


def with_gaps(x, share, seed=5):
    gaps = torch.rand(x.shape, generator=torch.Generator().manual_seed(seed)) < share
    return x.masked_fill(gaps, torch.nan)


@pytest.mark.parametrize("widened", [1.0, 1.3])
def test_draws_are_of_the_exact_conditional(widened):
    """Mean, sd and draws of 240 cells within 5 standard errors, by raw and by weighted draws.

    The false-alarm rate is below 1000 * 6e-7.
    """
    oracle = LinearGaussian.random(3, 8)
    x = with_gaps(oracle.rows(60), 0.5)
    x[3] = torch.nan
    mean, sd = oracle.missing(x)
    size = 4000
    found = impute(
        oracle.vae_with_gaps(widened), x, num_samples=size, num_draws=size, level=0.8, **QUIET
    )
    missing = x.isnan()
    np.testing.assert_array_equal(found.missing, missing)
    np.testing.assert_array_equal(found.x.values[~missing], x[~missing])
    assert (found.draws.values == x.numpy())[:, ~missing].all()
    # Weights make draws worth less. The marginal mean is of the latents' means alone.
    effective = found.effective_samples.values[:, None].repeat(8, 1)[missing]
    assert found.effective_samples[3] == pytest.approx(size)
    assert found.weights_usable.all()
    error = sd[missing].numpy() / np.sqrt(effective)
    assert (abs(found.x.values[missing] - mean[missing].numpy()) < 5 * error).all()
    assert (abs(found.sd.values[missing] - sd[missing].numpy()) < 5 * error).all()
    drawn = found.draws.values[:, missing]
    assert (abs(drawn.mean(0) - mean[missing].numpy()) < 5 * error).all()
    # A quantile's error is sqrt(p (1 - p) / n) over the density there: 1.71 sd at a tenth.
    for name, z in (("low", norm.ppf(0.1)), ("high", norm.ppf(0.9))):
        exact = (mean + z * sd)[missing].numpy()
        assert (abs(found[name].values[missing] - exact) < 5 * 1.71 * error).all()
    assert np.isnan(found.low.values[~missing.numpy()]).all()


def test_intervals_cover_the_truth():
    """Of 9,600 cells 90 % are covered, within 2.6 percentage points: 3 standard errors.

    These are of 1,200 cells, as cells of a row are correlated. The exact intervals cover as many,
    within 0.5 points.
    """
    oracle = LinearGaussian.random(3, 16)
    truth = oracle.rows(1200)
    x = with_gaps(truth, 0.5)
    found = impute(oracle.vae_with_gaps(1.2), x, num_samples=400, **QUIET)
    missing = x.isnan().numpy()
    inside = ((found.low <= truth.numpy()) & (truth.numpy() <= found.high)).values[missing]
    assert abs(inside.mean() - 0.9) < 0.026
    mean, sd = oracle.missing(x)
    exact = (abs(truth - mean) <= 1.6449 * sd).numpy()[missing]
    assert abs(inside.mean() - exact.mean()) < 0.005


def test_conformal_intervals_cover_where_the_model_is_wrong():
    """A decoder of half the noise: intervals that cover 0.7 cover 0.9 when conformalized.

    Margins come from 100 or more cells of each feature, whose coverage has an sd of 0.03: the mean
    over 16 features, of which those of a row are correlated, stays within 0.04.
    """
    oracle = LinearGaussian.random(3, 16)
    wrong = LinearGaussian(oracle.weight, oracle.bias, oracle.noise / 2)
    truth = oracle.rows(1500)
    x = with_gaps(truth[:600], 0.2)
    cover = {}
    for name, given in (("raw", None), ("conformal", truth[600:])):
        found = impute(wrong.vae_with_gaps(), x, num_samples=200, conformal=given, **QUIET)
        missing = x.isnan().numpy()
        known = truth[:600].numpy()
        inside = ((found.low <= known) & (known <= found.high)).values
        cover[name] = inside[missing].mean()
    assert cover["raw"] < 0.75
    assert abs(cover["conformal"] - 0.9) < 0.04
    assert found.margin.dims == ("feature",)
    assert (found.margin > 0).all()


def test_too_few_hidden_entries_promise_nothing():
    low, high, truth = np.zeros((8, 1)), np.ones((8, 1)), np.full((8, 1), 0.5)
    assert margins(low, high, truth, 0.9) == np.inf
    assert margins(low, high, truth, 0.8) == -0.5


def test_a_row_without_entries_is_drawn_from_the_prior():
    """Even where the encoder says something else of it; 24 numbers within 5 standard errors."""
    oracle = LinearGaussian.random(3, 8)
    vae = oracle.vae_with_gaps()
    x = oracle.rows(3)
    x[1] = torch.nan
    posterior = vae.encoder.forward

    def elsewhere(x, covariates=None):
        q = posterior(x)
        q.loc = q.loc + 30.0 * x.isnan().all(1, keepdim=True)
        return q

    vae.encoder.forward = elsewhere
    found = impute(vae, x, num_samples=2000, num_draws=2000, **QUIET)
    sd = oracle.covariance.diagonal().sqrt().numpy()
    drawn = found.draws.values[:, 1]
    assert (abs(drawn.mean(0) - oracle.bias.numpy()) < 5 * sd / np.sqrt(2000)).all()
    assert (abs(drawn.std(0) - sd) < 5 * sd / np.sqrt(2000)).all()
    assert found.pareto_k[1] == 0
    assert np.isnan(found.pareto_k[0])
    assert found.weights_usable.all()
    every = impute(vae, torch.full((2, 8), torch.nan).double(), num_samples=50, **QUIET)
    assert every.draws.notnull().all()
    with pytest.raises(ValueError, match="no observed entry in 1 rows"):
        log_evidence(vae, x, **QUIET)


def test_weights_that_cannot_be_used_are_said_to_be():
    oracle = LinearGaussian.random(3, 8, noise=0.05)
    vae = oracle.vae_with_gaps(0.3)
    found = impute(vae, with_gaps(oracle.rows(20), 0.3), num_samples=500, **QUIET)
    incomplete = found.missing.any("feature")
    assert not found.weights_usable[incomplete].all()
    assert (found.pareto_k[incomplete] > found.threshold).any()


@pytest.mark.parametrize("likelihood", LIKELIHOOD.values())
def test_every_likelihood_imputes_values_of_its_kind(likelihood):
    vae, x, _ = case(likelihood=likelihood, missing=True)
    x[0] = torch.nan
    found = impute(vae, x, num_samples=60, num_draws=7, **QUIET)
    assert found.draws.notnull().all()
    assert found.x.notnull().all()
    assert vae.decoder.support.check(torch.tensor(found.draws.values)).all()
    numbers = found.missing & found.sd.notnull()
    assert (found.low <= found.high).values[numbers.values].all()
    if likelihood.startswith("mixed"):
        assert not numbers.values[:, 1:3].any()  # levels
        assert (numbers == found.missing).values[:, [0, 3, 4]].all()
    elif likelihood.startswith(("categorical", "ordinal")):
        assert not numbers.any()
        shares = found.share.values[found.missing.values]
        assert (shares >= 1 / 4).all()
    else:
        assert (numbers == found.missing).all()
        inside = (found.x >= found.low - 1e-4) & (found.x <= found.high + 1e-4)
        # Few draws: the mean of a skewed count may lie outside of them.
        assert inside.values[numbers.values].mean() > 0.9


def test_columns_of_different_kinds():
    vae, x = mixed(missing=True)
    x[3] = torch.nan
    found = impute(vae, x, num_samples=60, num_draws=40, **QUIET)
    real, bit, count = np.moveaxis(found.draws.values[:, 3], -1, 0)
    assert len(np.unique(real)) == 40
    assert set(bit) <= {0, 1}
    assert (count == count.round()).all()


def test_numbers_without_a_mean_have_a_median():
    """Cauchy decoders: the median of 4000 draws is that of p(x), within 5 standard errors."""

    class CauchyDecoder(NormalDecoder):
        def likelihood(self, raw):
            return dist.Cauchy(torch.full_like(raw, 3.0), 1.0)

    vae, x, _ = case(likelihood="normal:scale=shared", missing=True)
    decoder = CauchyDecoder(vae.decoder.network, (5,))
    found = impute(VAE(vae.prior, decoder, vae.encoder), x, num_samples=4000, **QUIET)
    cells = found.missing.values
    error = np.pi / 2 / np.sqrt(found.effective_samples.values[:, None].repeat(5, 1)[cells])
    assert (abs(found.x.values[cells] - 3.0) < 5 * error).all()
    assert found.share.isnull().all()
    assert found.low.notnull().values[cells].all()


@pytest.mark.parametrize("name", ["image", "covariates"])
def test_images_and_covariates(name):
    part = {"network": "conv:hidden=(3,6)"} if name == "image" else {"covariate_dim": 2}
    vae, x, covariates = case(likelihood="normal:scale=shared", missing=True, **part)
    found = impute(vae, x, covariates=covariates, num_samples=40, **QUIET)
    assert found.x.shape == x.shape
    assert found.x.notnull().all()
    assert found.draws.dims[1:] == found.x.dims


def test_chunks_and_the_seed_decide_the_draws_and_nothing_else_does():
    vae, x, _ = case(likelihood="normal:scale=shared", missing=True)
    state = torch.get_rng_state()
    one, two = (impute(vae, x, num_samples=50, seed=3, **QUIET) for _ in range(2))
    assert one.identical(two)
    assert torch.equal(torch.get_rng_state(), state)
    few = impute(vae, x, num_samples=50, seed=3, chunk_rows=3, **QUIET)
    assert not few.draws.equals(one.draws)
    np.testing.assert_array_equal(few.missing, one.missing)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"num_samples": 20}, "num_samples is 20"),
        ({"num_draws": 0}, "num_draws is 0"),
        ({"num_draws": 2000}, "from 1 to num_samples, 1000"),
        ({"level": 1.0}, "level is 1.0"),
        ({"conformal": torch.zeros(3, 4)}, "conformal has shape"),
        ({"covariates": torch.zeros(40, 1)}, "covariates has 1 features"),
        ({"chunk_rows": 0}, "chunk_rows is 0"),
    ],
)
def test_what_is_refused(given, said):
    vae, x, _ = case(likelihood="normal:scale=shared", missing=True)
    with pytest.raises(ValueError, match=said):
        impute(vae, x, **given, **QUIET)


@pytest.mark.parametrize("empty", [False, True])
def test_a_vae_of_complete_rows_is_refused_rows_with_gaps(empty):
    vae, x, _ = case(likelihood="normal:scale=shared")
    assert not impute(vae, x, num_samples=30, **QUIET).missing.any()
    x[0, 0 if not empty else slice(None)] = torch.nan
    with pytest.raises(ValueError, match="built for none; build it with"):
        impute(vae, x, **QUIET)


def test_a_wrong_value_beside_an_empty_row_is_refused_by_its_own_number():
    vae, x, covariates = case(likelihood="bernoulli", missing=True, covariate_dim=2)
    x[0], x[1, 1] = torch.nan, 7.0
    with pytest.raises(ValueError, match="values such as 7"):
        impute(vae, x, covariates=covariates, **QUIET)
    x[1, 1], covariates[5] = 1.0, torch.nan
    with pytest.raises(ValueError, match="the first in row 5"):
        impute(vae, x, covariates=covariates, **QUIET)
    with pytest.raises(ValueError, match="x has shape"):
        impute(vae, torch.full((2, 9), torch.nan), covariates=covariates[:2], **QUIET)


@pytest.mark.parametrize("widened", [1.0, 1.5])
def test_the_miwae_bound_is_log_p_of_what_is_observed(widened):
    """Of 40 rows by 2,000 particles: exact where q is, else below by half the weights' variance.

    Log-weights whose variance is v bias the bound by about -v / 2K, under 0.01 nats a row here,
    and its sd over the mean of 40 rows is below 0.01: 0.05 is five of these.
    """
    oracle = LinearGaussian.random(3, 8)
    vae, x = oracle.vae_with_gaps(widened), with_gaps(oracle.rows(40), 0.5)
    x = x[~x.isnan().all(1)]
    exact = oracle.log_evidence(x).mean().item()
    pyro.clear_param_store()
    bound = -IWAE(num_particles=2000).loss(vae.model, vae.guide, x) / len(x)
    assert bound == pytest.approx(exact, abs=1e-9 if widened == 1.0 else 0.05)
    one = -IWAE(num_particles=1).loss(vae.model, vae.guide, x) / len(x)
    assert one == pytest.approx(exact, abs=1e-9) if widened == 1.0 else one < exact - 0.1


def test_a_fit_by_the_miwae_bound_finds_the_model_that_made_the_rows():
    """Of half the cells: log p(x_observed) of new rows within 0.05 nats of the truth's.

    The maximum of the likelihood of 25 parameters from 1,000 rows loses 25 / 2000 nats on average.
    """
    oracle = LinearGaussian.random(2, 8)
    x, new = (with_gaps(oracle.rows(n, seed=s), 0.5, seed=s) for n, s in ((1000, 1), (300, 9)))
    x, new = (rows[~rows.isnan().all(1)].float() for rows in (x, new))
    decoder = NormalDecoder(torch.nn.Linear(2, 8), (8,), scale="shared")
    encoder = NormalEncoder(MLP((2, 8), (32,)), 2, missing=True)
    vae = VAE(StandardNormal(2), decoder, encoder)
    objective = "iwae:num_particles=20"
    fit(vae, x, objective=objective, epochs=60, learning_rate=1e-2, engine="graph", **QUIET)
    found = log_evidence(vae, new, num_samples=300, **QUIET).log_evidence.mean().item()
    assert abs(found - oracle.log_evidence(new).mean().item()) < 0.05
