"""Richer parts do what they are for: close a known gap, recover a known density."""

import pytest
import torch
from oracle import LinearGaussian

from ppl_vae import MLP, VAE, VAEConfig, fit, log_evidence
from ppl_vae.components.encoders import ENCODERS

CORRELATED = LinearGaussian.random(latent_dim=2, num_features=5, correlation=0.8)


def gap(guide):
    """What the best encoder of a family loses of log p(x) of a correlated posterior, nats a row."""
    x = CORRELATED.rows(512)
    exact = CORRELATED.vae()
    encoder = ENCODERS.build(guide, network=MLP((5,)), latent_dim=2)
    vae = VAE(exact.prior, exact.decoder, encoder).double()
    vae.decoder.requires_grad_(False)
    torch.manual_seed(0)
    # Without the score of the guide the gradient has no noise where the guide is exact.
    options = {"objective": "stl", "epochs": 300, "batch_size": 128, "learning_rate": 0.1}
    fit(vae, x, engine="graph", progress=False, **options)
    found = log_evidence(vae, x, num_samples=2000, progress=False)
    return CORRELATED.log_evidence(x).mean().item() - found.elbo.mean().item()


@pytest.mark.parametrize(
    "guide", ["full_rank", "low_rank:rank=1", "flow:transforms=2,hidden=(16,)"]
)
def test_a_richer_guide_closes_the_gap_of_a_correlated_posterior(guide):
    assert abs(gap(guide)) < 0.01


def test_independent_normals_leave_it_open():
    """By its formula: half the log of the product of variances over the determinant."""
    precision = CORRELATED.posterior_precision
    expected = 0.5 * (precision.diagonal().log().sum() - torch.linalg.slogdet(precision).logabsdet)
    assert expected > 0.1
    assert gap("normal") == pytest.approx(float(expected), abs=0.01)


@pytest.mark.parametrize(
    "prior",
    [
        "mixture:components=6",
        "vamp:components=30",
        "flow:univariate=spline,transforms=4,hidden=(32,)",
        pytest.param(
            "flow:kind=autoregressive,univariate=spline,transforms=2,hidden=(32,)",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_learned_prior_recovers_a_mixture(prior):
    """Held-out log p(z) of 4,000 draws ends within 0.05 nats of the truth's own."""
    torch.manual_seed(0)
    # No two of the three are near each other, which would make one of both a local optimum.
    where = torch.tensor([[-2.0, -1.0], [2.0, -1.0], [0.0, 2.0]])
    truth = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(torch.ones(3)),
        torch.distributions.Independent(torch.distributions.Normal(where, 0.5), 1),
    )
    # A VampPrior asks the encoder, of rows of two entries in these units.
    rows = {"event_shape": (2,), "likelihood": "normal", "spread": 2.0, "hidden": (32,)}
    vae = VAE.from_config(VAEConfig(latent_dim=2, prior=prior, **rows))
    learned, held_out = vae.prior, truth.sample((4000,))
    steps = 600
    adam = torch.optim.Adam(learned.parameters(), lr=2e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
    for _ in range(steps):
        loss = -learned().log_prob(truth.sample((512,))).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        schedule.step()
    with torch.no_grad():
        found = learned().log_prob(held_out).mean().item()
    exact = truth.log_prob(held_out).mean().item()
    assert found == pytest.approx(exact, abs=0.05)
    # A single normal does not: this could fail.
    normal = torch.distributions.MultivariateNormal(held_out.mean(0), held_out.T.cov())
    assert normal.log_prob(held_out).mean().item() < exact - 0.3
