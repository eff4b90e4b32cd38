"""What checks ask of a model: the same distributions as its programs, or a refusal."""

import pyro
import pytest
import torch
from pyro import poutine

from ppl_vae import VAE, VAEConfig, fit, log_evidence, sample_posterior, to_datatree

CONFIG = VAEConfig(event_shape=(4, 4), latent_dim=2, hidden=(8,))


@pytest.fixture
def x():
    return (torch.rand(6, 4, 4, generator=torch.Generator().manual_seed(0)) < 0.5).float()


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("size", [0, 2])
def test_log_joint_is_that_of_the_program(x, missing, size):
    config = CONFIG.model_copy(update={"missing": missing, "covariate_dim": size})
    vae = VAE.from_config(config)
    covariates = torch.randn(len(x), size) if size else None
    if missing:
        x = x.masked_fill(torch.rand_like(x) < 0.3, torch.nan)
        x[:, 0, 0] = 1.0
    z = vae.posterior(x, covariates).sample((5,))
    joint = vae.log_joint(z, x, covariates)
    for draw, found in zip(z, joint, strict=True):
        trace = poutine.trace(poutine.condition(vae.model, {"z": draw})).get_trace(x, covariates)
        trace.compute_log_prob()
        expected = trace.nodes["z"]["log_prob"] + trace.nodes["x"]["log_prob"]
        torch.testing.assert_close(found, expected)


def test_blocks_change_nothing(x, monkeypatch):
    vae = VAE.from_config(CONFIG)
    z = vae.posterior(x).sample((50,))
    whole = vae.log_likelihood(z, x)
    monkeypatch.setattr("ppl_vae.amortized._BLOCK_PAIRS", 7)
    torch.testing.assert_close(vae.log_likelihood(z, x), whole)


def test_simulate_is_the_model():
    """By the same random numbers, the draws of the program."""
    vae = VAE.from_config(CONFIG)
    torch.manual_seed(0)
    z, x, _ = vae.simulate(3)
    torch.manual_seed(0)
    trace = poutine.trace(vae.model).get_trace(size=3)
    assert torch.equal(z, trace.nodes["z"]["value"])
    assert torch.equal(x, trace.nodes["x"]["value"])


class OtherModel(VAE):
    def model(self, x=None, covariates=None, *, size=None):
        with pyro.plate("row", self._size(x, covariates, size)):
            z = pyro.sample("z", pyro.distributions.Normal(torch.ones(2), 0.5).to_event(1))
            return pyro.sample("x", self.decoder(z), obs=x)


class OtherGuide(VAE):
    def guide(self, x=None, covariates=None, *, size=None):
        with pyro.plate("row", len(x)):
            return pyro.sample("z", self.encoder(1 - x))


class Whole(OtherModel):
    def prior_at(self, covariates=None):
        return pyro.distributions.Normal(torch.ones(2), 0.5).to_event(1)


def built(kind):
    vae = VAE.from_config(CONFIG)
    return kind(vae.prior, vae.decoder, vae.encoder)


@pytest.mark.parametrize(("kind", "named"), [(OtherModel, "prior_at"), (OtherGuide, "posterior")])
@pytest.mark.parametrize("check", [log_evidence, sample_posterior, to_datatree])
def test_a_program_overridden_alone_is_refused(x, kind, named, check):
    with pytest.raises(TypeError, match=f"{kind.__name__} overrides .* override {named} as well"):
        check(built(kind), x, num_samples=30)


def test_a_program_overridden_on_the_object_is_refused(x):
    vae = VAE.from_config(CONFIG)
    vae.model = built(OtherModel).model
    with pytest.raises(TypeError, match="VAE overrides model"):
        log_evidence(vae, x, num_samples=30)


def test_a_program_overridden_with_what_it_samples(x):
    """It can be fitted and checked, and its evidence is that of its traces."""
    vae = built(Whole)
    fit(vae, x, epochs=1, progress=False)
    evidence = log_evidence(vae, x, num_samples=200, progress=False)
    with torch.no_grad():
        z = vae.posterior(x).sample((20_000,))
        weight = vae.log_joint(z, x) - vae.posterior(x).log_prob(z)
    exact = weight.double().logsumexp(0) - torch.tensor(20_000.0).log()
    # Errors of 200 draws are below 0.1 nats in these rows; the other model's differ by nats.
    assert (torch.as_tensor(evidence.log_evidence.values) - exact).abs().max() < 0.4


@pytest.mark.parametrize("size", [0, 2])
@pytest.mark.parametrize("parts", [{}, {"prior": "mixture", "guide": "full_rank"}])
def test_shapes_are_those_of_the_docstrings(x, size, parts):
    vae = VAE.from_config(VAEConfig(**{**CONFIG.model_dump(), "covariate_dim": size, **parts}))
    rows, draws, latents = len(x), 3, vae.latent_dim
    covariates = torch.randn(rows, size) if size else None
    q, p = vae.posterior(x, covariates), vae.prior_at(covariates)
    assert (q.batch_shape, q.event_shape) == ((rows,), (latents,))
    assert p.batch_shape in ((), (rows,))
    assert p.event_shape == (latents,)
    z = q.sample((draws,))
    likelihood = vae.likelihood(z, covariates)
    assert (likelihood.batch_shape, likelihood.event_shape) == ((draws, rows), (4, 4))
    assert vae.log_likelihood(z, x, covariates).shape == (draws, rows)
    assert vae.log_joint(z, x, covariates).shape == (draws, rows)
    assert vae.replicate(z, covariates).shape == (draws, rows, 4, 4)
    assert vae.typical(z, covariates).shape == (draws, rows, 4, 4)
    simulated = vae.simulate(5, covariates)
    assert [None if part is None else tuple(part.shape) for part in simulated] == [
        (5, latents),
        (5, 4, 4),
        (5, size) if size else None,
    ]
    assert vae.latent_names == tuple(f"z[{i}]" for i in range(latents))
