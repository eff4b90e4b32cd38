"""Draws for any rows, in chunks."""

import numpy as np
import pyro
import pytest
import torch
from pyro import poutine

from ppl_vae import VAE, VAEConfig, sample_posterior
from ppl_vae.workflow.draws.posterior import sample_prior


@pytest.fixture
def vae() -> VAE:
    return VAE.from_config(VAEConfig(event_shape=(8, 8), latent_dim=3, hidden=(16,)))


@pytest.fixture
def bits(digits):
    return (digits > 0.5).float()


def test_log_probabilities_are_pyros(vae, bits):
    draws = sample_posterior(vae, bits[:6], num_samples=4)
    for index in range(4):
        z = torch.tensor(draws.z.values[index])
        q = poutine.trace(poutine.condition(vae.guide, {"z": z})).get_trace(bits[:6])
        p = poutine.trace(poutine.condition(vae.model, {"z": z})).get_trace(bits[:6])
        np.testing.assert_allclose(draws.log_q[index].sum(), q.log_prob_sum().item(), rtol=1e-5)
        np.testing.assert_allclose(draws.log_p[index].sum(), p.log_prob_sum().item(), rtol=1e-5)
    np.testing.assert_array_equal(draws.log_weight, draws.log_p - draws.log_q)


def test_weighted_draws_are_of_the_exact_posterior(oracle):
    """From an encoder 1.3 times too wide: 8 rows x 3 means and sds within 5 standard errors.

    The false-alarm rate is below 48 * 6e-7.
    """
    vae, x = oracle.vae(), oracle.rows(8)
    with torch.no_grad():
        vae.encoder.scale_head.bias += 2 * np.log(1.3)
    draws = sample_posterior(vae, x, num_samples=40_000)
    weight = np.exp(draws.log_weight - draws.log_weight.max("draw"))
    weight = weight / weight.sum("draw")
    mean, sd = oracle.posterior(x)
    effective = 1 / (weight**2).sum("draw")
    got = (weight * draws.z).sum("draw")
    error = sd.numpy() / np.sqrt(effective.values)[:, None]
    assert (abs(got - mean.numpy()) < 5 * error).all()
    spread = np.sqrt((weight * (draws.z - got) ** 2).sum("draw"))
    assert (abs(spread - sd.numpy()) < 5 * error).all()


def test_the_world_is_left_as_found(vae, bits):
    state = torch.get_rng_state()
    vae.train()
    sample_posterior(vae, bits[:3], num_samples=2)
    sample_prior(vae, num_samples=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert vae.training
    assert not list(pyro.get_param_store().keys())
    assert all(p.grad is None for p in vae.parameters())


def test_the_world_is_left_as_found_after_an_error(vae, bits, monkeypatch):
    def broken(z, covariates=None):
        raise RuntimeError("broken decoder")

    monkeypatch.setattr(vae.decoder, "forward", broken)
    state = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="broken decoder"):
        sample_posterior(vae, bits[:3], num_samples=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert pyro.infer.util.is_validation_enabled()
    assert vae.training


def test_dropout_is_off(bits):
    encoder_network = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(64, 8), torch.nn.Dropout(0.5)
    )
    from ppl_vae import BernoulliDecoder, NormalEncoder, StandardNormal

    vae = VAE(
        StandardNormal(2),
        BernoulliDecoder(torch.nn.Linear(2, 64), (8, 8)),
        NormalEncoder(encoder_network, 2),
    )
    one = sample_posterior(vae, bits[:5], num_samples=2)
    two = sample_posterior(vae, bits[:5], num_samples=2)
    assert one.identical(two)
    assert vae.training


@pytest.mark.parametrize(
    ("options", "message"),
    [({"num_samples": 0}, "num_samples is 0"), ({"seed": 1.5}, "seed is 1.5")],
)
def test_bad_options(vae, bits, options, message):
    with pytest.raises(ValueError, match=message):
        sample_posterior(vae, bits[:2], **options)


def test_uint8_rows(digits):
    images = (digits * 255).round().byte()
    vae = VAE.from_config(VAEConfig.for_data(images, hidden=(16,)))
    from_bytes = sample_posterior(vae, images[:4], num_samples=3)
    from_floats = sample_posterior(vae, images[:4].float() / 255, num_samples=3)
    assert from_bytes.identical(from_floats)
