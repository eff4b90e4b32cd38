"""Annealed importance sampling, judged by the exact oracle."""

import numpy as np
import pyro
import pytest
import torch
from oracle import LinearGaussian
from pyro.distributions.transforms import planar

from ppl_vae import VAE, VAEConfig, log_evidence
from ppl_vae.workflow.draws.posterior import evaluating, sample_prior
from ppl_vae.workflow.weights.annealing import Path, anneal, sandwich


@pytest.fixture(scope="module")
def large() -> LinearGaussian:
    return LinearGaussian.random(16, 64)


def scaled(oracle: LinearGaussian, factor: float) -> VAE:
    """The oracle's VAE with the encoder's scale multiplied by ``factor``."""
    vae = oracle.vae()
    with torch.no_grad():
        vae.encoder.scale_head.bias += 2 * np.log(factor)
    return vae


def simulated(oracle: LinearGaussian, vae: VAE, num_rows: int, seed: int) -> np.ndarray:
    """Exact log p(x) of the rows that ``sandwich`` simulates."""
    return oracle.log_evidence(
        torch.tensor(sample_prior(vae, num_samples=num_rows, seed=seed)[1])
    ).numpy()


def test_exact_encoder_gives_exact_evidence(large):
    x = large.rows(500)
    evidence = log_evidence(large.vae(), x, method="ais", num_temperatures=5, progress=False)
    np.testing.assert_allclose(evidence.log_evidence, large.log_evidence(x), atol=1e-6)
    assert (evidence.standard_error < 1e-6).all()


@pytest.mark.parametrize(
    ("start", "dtype"),
    [("encoder", torch.float64), ("encoder", torch.float32), ("prior", torch.float64)],
)
def test_weights_average_to_the_evidence(oracle, start, dtype):
    """Few temperatures, many chains: z-scores of 200 rows are near standard normal.

    About one in 370 would lie beyond 3 by chance; more than 4 of 200 has probability below 1e-3.
    """
    vae, x = scaled(oracle, 0.7).to(dtype), oracle.rows(200).to(dtype)
    evidence = anneal(
        vae, x, start=start, num_samples=200, num_temperatures=20, progress=False, seed=1
    )
    z = (evidence.log_evidence - oracle.log_evidence(x).numpy()) / evidence.standard_error
    assert (abs(z) > 3).sum() <= 4
    assert abs(z.mean()) < 5 / np.sqrt(200)
    assert 0.8 < z.std() < 1.25
    assert (evidence.elbo < evidence.log_evidence).all()


def test_one_temperature_is_importance_sampling(oracle):
    """Both estimates of 50 rows within 5 of their standard errors: false alarms below 1e-4."""
    vae, x = scaled(oracle, 1.3), oracle.rows(50)
    annealed = anneal(vae, x, num_samples=2000, num_temperatures=1, progress=False)
    drawn = log_evidence(vae, x, num_samples=2000, progress=False)
    error = np.hypot(annealed.standard_error, drawn.standard_error)
    assert (abs(annealed.log_evidence - drawn.log_evidence) < 5 * error).all()
    np.testing.assert_allclose(annealed.standard_error, drawn.standard_error, rtol=0.3)


def test_annealing_mends_what_importance_sampling_misses(large):
    """An encoder of half the scale: its weights have no variance, and its estimate is too low.

    The annealed bound is below the truth by what four standard errors of its mean leave, false
    alarms below 1e-4, and 0.5 nats at most.
    """
    vae, x = scaled(large, 0.5), large.rows(60)
    exact = large.log_evidence(x).numpy()
    drawn = log_evidence(vae, x, num_samples=1000, progress=False).log_evidence - exact
    annealed = log_evidence(vae, x, method="ais", progress=False).log_evidence - exact
    assert drawn.mean() < -1
    assert -0.5 < annealed.mean() < 4 * annealed.std() / np.sqrt(60)


@pytest.mark.slow
def test_500_rows_from_the_prior(large):
    """With 1000 temperatures from the prior: the mean within 0.1 nats, by 5 standard errors.

    Of single rows, whose errors are about 0.25, less than 1 in 100 lies beyond 1 nat.
    """
    x = large.rows(500)
    evidence = anneal(large.vae(), x, start="prior", num_temperatures=1000, progress=False)
    error = evidence.log_evidence - large.log_evidence(x).numpy()
    assert abs(error.mean()) < 0.1
    assert (abs(error) > 1).mean() < 0.01


def test_sandwich_of_the_exact_encoder_closes(large):
    bounds = sandwich(large.vae(), num_rows=500, num_temperatures=5, seed=3, progress=False)
    exact = simulated(large, large.vae(), 500, seed=3)
    np.testing.assert_allclose(bounds.lower, exact, atol=1e-6)
    np.testing.assert_allclose(bounds.upper, exact, atol=1e-6)


@pytest.mark.parametrize(("start", "factor"), [("encoder", 0.5), ("encoder", 2.0), ("prior", 1.0)])
def test_sandwich_holds_from_both_sides(large, start, factor):
    """Mean bounds cross the truth by less than 4 standard errors: false alarms below 1e-4 each.

    A single row's are b nats on the wrong side with probability exp(-b): all 60 below 12 nats.
    """
    vae = scaled(large, factor)
    options = {"start": start, "num_rows": 60, "seed": 3, "progress": False}
    bounds = sandwich(vae, num_temperatures=40, **options)
    exact = simulated(large, vae, 60, seed=3)
    below, above = exact - bounds.lower, bounds.upper - exact
    for gap in (below, above):
        assert gap.mean() > -4 * gap.std() / np.sqrt(60)
        assert gap.min() > -12
    np.testing.assert_allclose(bounds.gap, below + above)
    # More temperatures close it: of three times as many less than half is left.
    finer = sandwich(vae, num_temperatures=120, **options)
    assert finer.gap.mean() < bounds.gap.mean() / 2


def test_missing_entries_are_integrated_out():
    """Sixty rows within 5 standard errors, false alarms below 1e-4."""
    oracle = LinearGaussian.random(latent_dim=1, num_features=4)
    config = VAEConfig(
        event_shape=(4,),
        latent_dim=1,
        hidden=(),
        likelihood="normal",
        likelihood_options={"scale": 0.5},
        missing=True,
    )
    vae = VAE.from_config(config).double()
    with torch.no_grad():
        vae.decoder.network.layers[0].weight.copy_(oracle.weight)
        vae.decoder.network.layers[0].bias.copy_(oracle.bias)
    x = oracle.rows(60)
    x[::2, 1] = torch.nan
    x[::3, 3] = torch.nan
    evidence = anneal(vae, x, start="prior", num_samples=200, num_temperatures=50, progress=False)
    error = abs(evidence.log_evidence - oracle.log_evidence(x).numpy())
    assert (error < 5 * evidence.standard_error).all()
    assert evidence.standard_error.mean() < 0.1


def test_conditional_vae(digits):
    """Chains see the covariates: rows with another's covariates have other evidence."""
    vae = VAE.from_config(
        VAEConfig(event_shape=(8, 8), latent_dim=2, hidden=(16,), covariate_dim=3)
    )
    x, covariates = (digits[:6] > 0.5).float(), torch.eye(3)[torch.arange(6) % 3]
    options = {"num_temperatures": 30, "progress": False}
    annealed = anneal(vae, x, covariates=covariates, chunk_rows=4, **options)
    drawn = log_evidence(vae, x, covariates=covariates, num_samples=20_000, progress=False)
    # Six rows within 6 standard errors of both.
    error = np.hypot(annealed.standard_error, drawn.standard_error) + 1e-3
    assert (abs(annealed.log_evidence - drawn.log_evidence) < 6 * error).all()
    bounds = sandwich(vae, covariates=covariates[:3], num_rows=7, **options)
    assert bounds.sizes == {"row": 7}
    assert (abs(bounds.gap) < 1).all()


def test_real_decoder(digits):
    """A network fitted to nothing: both ways to estimate agree within 5 standard errors."""
    bits = (digits[:20] > 0.5).float()
    vae = VAE.from_config(VAEConfig.for_data(bits, latent_dim=3, hidden=(16,)))
    annealed = log_evidence(
        vae, bits, method="ais", num_samples=100, num_temperatures=30, progress=False
    )
    drawn = log_evidence(vae, bits, num_samples=5000, progress=False)
    error = np.hypot(annealed.standard_error, drawn.standard_error) + 1e-4
    assert (abs(annealed.log_evidence - drawn.log_evidence) < 5 * error).all()


def test_tail_index_needs_30_chains(oracle):
    vae, x = scaled(oracle, 0.7), oracle.rows(5)
    few = anneal(vae, x, num_samples=29, num_temperatures=5, progress=False)
    enough = anneal(vae, x, num_samples=30, num_temperatures=5, progress=False)
    assert few.pareto_k.isnull().all()
    assert enough.pareto_k.notnull().all()


def test_a_diverging_trajectory_stays_where_it_was(oracle):
    """Steps of 1e200 standard deviations end in no number, and are refused; small ones are not."""
    with evaluating(oracle.vae(), seed=0):
        path = Path(oracle.vae(), oracle.rows(10), None, start="encoder")
        here = path.at(path.sample(4))
        there, acceptance = path.move(here, 0.5, torch.full((10,), 1e200, dtype=torch.float64))
        assert (acceptance == 0).all()
        assert torch.equal(there.z, here.z)
        assert torch.equal(there.joint_gradient, here.joint_gradient)
        there, acceptance = path.move(here, 0.5, torch.full((10,), 1e-4, dtype=torch.float64))
        assert (acceptance > 0.99).all()
        assert not torch.equal(there.z, here.z)


def test_moves_leave_their_distribution_be(oracle):
    """From exact draws of p(z|x), 30 moves at the posterior's end: still 24 means and variances.

    Each is within 5 of its standard errors; false alarms below 48 * 6e-7.
    """
    x, size = oracle.rows(8), 4000
    mean, sd = oracle.posterior(x)
    with evaluating(oracle.vae(), seed=0):
        path = Path(scaled(oracle, 0.5), x, None, start="encoder")
        here = path.at(mean + sd * torch.randn(size, *mean.shape, dtype=torch.float64))
        for _ in range(30):
            here, acceptance = path.move(here, 1.0, torch.full((8,), 2.0, dtype=torch.float64))
        standard = (here.z - mean) / sd
    assert 0.2 < acceptance.mean() < 0.98
    assert (standard.mean(0).abs() < 5 / size**0.5).all()
    assert ((standard.var(0) - 1).abs() < 5 * (2 / size) ** 0.5).all()


def test_the_world_is_left_as_found(oracle):
    vae, x = oracle.vae().train(), oracle.rows(5)
    weights = [p.clone() for p in vae.parameters()]
    state = torch.get_rng_state()
    one = anneal(vae, x, num_temperatures=5, progress=False)
    sandwich(vae, num_rows=5, num_temperatures=5, progress=False)
    assert torch.equal(torch.get_rng_state(), state)
    assert vae.training
    assert torch.is_grad_enabled()
    assert all(p.grad is None for p in vae.parameters())
    assert all(torch.equal(a, b) for a, b in zip(weights, vae.parameters(), strict=True))
    assert one.identical(anneal(vae, x, num_temperatures=5, progress=False))


def test_chunks_change_only_the_draws(oracle):
    """Twenty rows within 5 standard errors of each other."""
    vae, x = scaled(oracle, 0.7), oracle.rows(20)
    options = {"num_samples": 50, "num_temperatures": 20, "progress": False}
    whole, parts = anneal(vae, x, **options), anneal(vae, x, chunk_rows=7, **options)
    error = np.hypot(whole.standard_error, parts.standard_error)
    assert (abs(whole.log_evidence - parts.log_evidence) < 5 * error).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start": "posterior"}, "start is 'posterior'; accepted are 'encoder', 'prior'"),
        ({"num_samples": 1}, "num_samples is 1, too few"),
        ({"num_temperatures": 0}, "num_temperatures is 0"),
        ({"num_leapfrog": 0}, "num_leapfrog is 0"),
        ({"chunk_rows": 0}, "chunk_rows is 0"),
    ],
)
def test_bad_options(oracle, options, message):
    with pytest.raises(ValueError, match=message):
        anneal(oracle.vae(), oracle.rows(3), **options)
    with pytest.raises(ValueError, match=message):
        sandwich(oracle.vae(), **options)


def test_temperatures_are_for_annealing(oracle):
    with pytest.raises(ValueError, match="max_temperatures is 99; pass num_temperatures, 100"):
        anneal(oracle.vae(), oracle.rows(3), max_temperatures=99)
    with pytest.raises(ValueError, match="num_temperatures=5 was given to method='importance'"):
        log_evidence(oracle.vae(), oracle.rows(3), num_temperatures=5)
    with pytest.raises(ValueError, match="num_rows is 0"):
        sandwich(oracle.vae(), num_rows=0)


def test_a_start_without_a_density_elsewhere(oracle):
    """A planar flow knows the density of its own draws alone: the prior is there to start from."""
    vae, x = oracle.vae(), oracle.rows(3)
    flow = planar(3).double()
    vae.encoder.register_forward_hook(
        lambda module, inputs, q: pyro.distributions.TransformedDistribution(q, [flow])
    )
    with pytest.raises(
        ValueError, match=r"has no density at latents other than its own draws.*'pr"
    ):
        anneal(vae, x, num_temperatures=5, progress=False)
    evidence = anneal(vae, x, start="prior", num_temperatures=5, progress=False)
    assert evidence.log_evidence.notnull().all()


def test_errors_of_few_chains_cover(large):
    """Two standard errors of 16 chains whose log-weights spread over two nats: 150 rows.

    About 94 % cover; fewer than 85 % would by chance in less than one run in 10,000. By the
    delta method 43 % do. A row in 30 spreads over more than three nats, and has no error.
    """
    x = large.rows(150)
    found = log_evidence(scaled(large, 0.3), x, method="ais", progress=False)
    off = abs(found.log_evidence - large.log_evidence(x).numpy())
    assert (off < 2 * found.standard_error).mean() > 0.85
    assert found.standard_error.median() < 2.5
    assert np.isfinite(found.standard_error).mean() > 0.9


@pytest.mark.parametrize(
    ("size", "num_samples", "given"),
    [((3, 8), 32, 0.95), ((16, 64), 16, 0.2)],
)
def test_intervals_from_the_prior_cover_or_are_refused(size, num_samples, given):
    """Of 100 rows 95 % or more are covered: 88 or fewer by chance in less than 1 % of runs.

    Sixteen latents at 100 temperatures spread log-weights over some three nats, where so few chains
    show no upper end in half of the rows. By the k-hat of 32 chains half of the rows of three
    latents had none.
    """
    oracle = LinearGaussian.random(*size)
    x = oracle.rows(100)
    options = {"start": "prior", "num_samples": num_samples, "max_temperatures": 100}
    found = anneal(oracle.vae(), x, progress=False, **options)
    assert ("caution" in found.attrs) == (not found.weights_usable.all())
    exact = oracle.log_evidence(x).numpy()
    usable = found.weights_usable.values
    assert usable.mean() >= given
    below, above = found.log_evidence_low.values <= exact, exact <= found.log_evidence_high.values
    assert (below & above)[usable].mean() > 0.88
    assert np.isinf(found.standard_error.values[~usable]).all()
    assert (~below & ~usable).mean() < 0.1


def test_many_latents_get_more_temperatures_from_the_prior():
    """Of 30 rows of 24 latents that 25 temperatures are too few for, 400 are enough for most.

    They cover 25 or more of 28, but in 1 % of runs.
    """
    oracle = LinearGaussian.random(24, 48)
    x = oracle.rows(30)
    options = {"start": "prior", "num_temperatures": 25, "progress": False}
    few = anneal(oracle.vae(), x, max_temperatures=25, **options)
    assert few.weights_usable.mean() < 0.2
    assert f"In {int((~few.weights_usable).sum())} of 30 rows" in few.attrs["caution"]
    found = anneal(oracle.vae(), x, **options)
    assert found.attrs["max_temperatures"] == 400
    usable = found.weights_usable.values
    assert usable.mean() > 0.9
    exact = oracle.log_evidence(x).numpy()
    covered = (found.log_evidence_low <= exact) & (exact <= found.log_evidence_high)
    assert covered[usable].mean() > 0.85
    assert np.median(abs(found.log_evidence - exact)) < np.median(abs(few.log_evidence - exact)) / 2


@pytest.mark.parametrize(
    "function", [lambda v, x, **o: anneal(v, x, **o), lambda v, x, **o: sandwich(v, **o)]
)
def test_the_old_name_of_chains_is_answered_by_the_new_one(function):
    vae = VAE.from_config(VAEConfig(event_shape=(4,), latent_dim=2, hidden=(8,)))
    with pytest.raises(TypeError, match="now called num_samples; pass num_samples="):
        function(vae, torch.ones(2, 4), num_chains=4, progress=False)
