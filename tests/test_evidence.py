"""log p(x), judged by the exact oracle."""

import numpy as np
import pytest
import torch
from oracle import LinearGaussian
from pyro.infer import Trace_ELBO

from ppl_vae import VAE, VAEConfig, log_evidence
from ppl_vae.workflow.weights.evidence import independent_log_prob, smoothed_tail_index


def broken(oracle: LinearGaussian, factor: float) -> VAE:
    """The oracle's VAE with the encoder's scale multiplied by ``factor``."""
    vae = oracle.vae()
    with torch.no_grad():
        vae.encoder.scale_head.bias += 2 * np.log(factor)
    return vae


@pytest.mark.parametrize("scale", ["log_variance", "log_scale", "softplus"])
@pytest.mark.parametrize("heads", ["separate", "joint"])
def test_exact_encoder_gives_exact_evidence(oracle, scale, heads):
    vae, x = oracle.vae(scale, heads), oracle.rows(200)
    exact = oracle.log_evidence(x)
    evidence = log_evidence(vae, x, num_samples=50, progress=False)
    np.testing.assert_allclose(evidence.log_evidence, exact, atol=1e-6)
    np.testing.assert_allclose(evidence.elbo, exact, atol=1e-6)
    assert (evidence.standard_error < 1e-6).all()
    assert (evidence.pareto_k == 0).all()
    elbo = -Trace_ELBO().loss(vae.model, vae.guide, x)
    assert elbo == pytest.approx(exact.sum().item(), abs=1e-4)


def test_single_precision_is_exact_to_1e_4(oracle):
    vae, x = oracle.vae().float(), oracle.rows(200).float()
    evidence = log_evidence(vae, x, num_samples=50, progress=False)
    np.testing.assert_allclose(evidence.log_evidence, oracle.log_evidence(x), atol=1e-4)
    assert (evidence.pareto_k == 0).all()


def test_approximate_encoder_agrees_within_its_standard_errors(oracle):
    """Scale 1.3 times too wide: finite variance, so that z-scores are near standard normal.

    Of 400 rows about one would lie beyond 3 by chance; more than 6 has probability below 1e-3.
    """
    vae, x = broken(oracle, 1.3), oracle.rows(400)
    evidence = log_evidence(vae, x, num_samples=2000, progress=False)
    z = (evidence.log_evidence - oracle.log_evidence(x).numpy()) / evidence.standard_error
    assert (abs(z) > 3).sum() <= 6
    assert 0.8 < z.std() < 1.2
    assert (evidence.elbo < evidence.log_evidence).all()
    assert (evidence.pareto_k < 0.7).all()


@pytest.mark.parametrize("factor", [1.0, 1.1])
def test_500_rows_of_16_latents(factor):
    """Within 3 standard errors on 99 % of 500 rows, and 1e-9 nats for rounding.

    Scale right, or a tenth too wide. By chance 1.35 rows lie beyond; more than 5 has probability
    below 4e-3.
    """
    oracle = LinearGaussian.random(16, 64)
    x = oracle.rows(500)
    evidence = log_evidence(broken(oracle, factor), x, num_samples=1000, progress=False)
    error = abs(evidence.log_evidence - oracle.log_evidence(x).numpy())
    assert (error < 3 * evidence.standard_error + 1e-9).mean() >= 0.99
    assert (evidence.pareto_k < 0.5).all()


def test_too_narrow_an_encoder_is_seen_in_k_hat(oracle):
    """Half the scale gives weights without a variance, in every row."""
    evidence = log_evidence(broken(oracle, 0.5), oracle.rows(100), num_samples=1000, progress=False)
    assert evidence.pareto_k.max() > 0.7
    assert evidence.pareto_k.mean() > 0.5


def test_missing_entries_are_integrated_out():
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
    evidence = log_evidence(vae, x, num_samples=20_000, progress=False)
    # Sixty rows: one beyond 5 standard errors has probability below 1e-4.
    error = abs(evidence.log_evidence - oracle.log_evidence(x).numpy())
    assert (error < 5 * evidence.standard_error).all()
    assert evidence.standard_error.median() < 0.05


def test_known_tails_give_known_k():
    """Weights u^-k are Pareto of index k; each of 20 rows' estimates has an sd of about 0.1."""
    u = np.random.default_rng(0).uniform(size=(20, 4000))
    for k in (0.2, 0.5, 0.9):
        assert smoothed_tail_index(-k * np.log(u)).mean() == pytest.approx(k, abs=0.1)


def test_memory_chunks_change_only_the_draws(oracle):
    vae, x = broken(oracle, 1.3), oracle.rows(20)
    whole = log_evidence(vae, x, num_samples=500, progress=False)
    parts = log_evidence(vae, x, num_samples=500, chunk_rows=7, progress=False)
    error = np.hypot(whole.standard_error, parts.standard_error)
    assert (abs(whole.log_evidence - parts.log_evidence) < 5 * error).all()
    again = log_evidence(vae, x, num_samples=500, progress=False)
    assert whole.identical(again)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "magic"}, "method is 'magic'; accepted"),
        ({"num_samples": 10}, "num_samples is 10, too few"),
        ({"chunk_rows": 0}, "chunk_rows is 0"),
    ],
)
def test_bad_options(oracle, options, message):
    with pytest.raises(ValueError, match=message):
        log_evidence(oracle.vae(), oracle.rows(3), **options)


def test_baseline_of_normals_is_the_closed_form(oracle):
    train, test = oracle.rows(5000, seed=1), oracle.rows(100, seed=2)
    config = VAEConfig.for_data(train, latent_dim=2, hidden=(4,))
    got = independent_log_prob(VAE.from_config(config).decoder, train, test)
    p_x = torch.distributions.Normal(train.mean(0), train.std(0))
    torch.testing.assert_close(got, p_x.log_prob(test).sum(1), atol=0.01, rtol=0.0)


def test_baseline_of_bits_is_the_frequency(digits):
    bits = (digits > 0.5).float()
    train, test = bits[:1437], bits[1437:]
    config = VAEConfig.for_data(train, latent_dim=2, hidden=(4,))
    got = independent_log_prob(VAE.from_config(config).decoder, train, test)
    p = (train.sum(0) + 0.5) / (len(train) + 1)
    expected = torch.distributions.Bernoulli(p.double()).log_prob(test.double()).flatten(1).sum(1)
    # Pixels that never vary are smoothed otherwise; the others agree.
    assert got.mean().item() == pytest.approx(expected.mean().item(), abs=0.3)
    assert got.isfinite().all()
