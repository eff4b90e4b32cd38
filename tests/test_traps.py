"""Known ways to get evidence wrong, each beside what this package says instead."""

import copy

import arviz_stats
import numpy as np
import pyro
import pytest
import torch
from oracle import LinearGaussian
from pyro.infer import RenyiELBO

from ppl_vae import amortized, log_evidence, sample_posterior, to_datatree
from ppl_vae.trees.pyro_svi import from_pyro_svi


@pytest.fixture
def wide(oracle):
    """The oracle's VAE with an encoder 1.5 times too wide."""
    vae = oracle.vae()
    with torch.no_grad():
        vae.encoder.scale_head.bias += 2 * np.log(1.5)
    return vae


def test_subsampling_belongs_outside_the_logarithm(oracle, wide):
    """Pyro's RenyiELBO with a subsampled plate raises each row's weight to the power N/B.

    Its "lower bound" on the evidence of 50 rows, averaged over the five batches of 10 that make
    up the rows, then lies more than 20 nats above it. What is right is N/B times the batch's log
    evidence, the average of which is the evidence of all rows: within 5 standard errors, with a
    false-alarm rate below 6e-7. from_pyro_svi refuses.
    """
    rows, size = oracle.rows(50), 10
    batches = torch.arange(50).split(size)
    exact = oracle.log_evidence(rows).sum().item()

    def model(x, batch):
        pyro.module("decoder", wide.decoder)
        with pyro.plate("row", len(x), subsample=batch):
            z = pyro.sample("z", wide.prior())
            pyro.sample("x", wide.decoder(z), obs=x[batch])

    def guide(x, batch):
        with pyro.plate("row", len(x), subsample=batch):
            pyro.sample("z", wide.encoder(x[batch]))

    bound = RenyiELBO(alpha=0, num_particles=1000, vectorize_particles=True, max_plate_nesting=1)
    with torch.no_grad():
        theirs = np.mean([-bound.loss(model, guide, rows, batch) for batch in batches])
    assert theirs > exact + 20

    ours = log_evidence(wide, rows, num_samples=1000, progress=False)
    scaled = [len(rows) / size * ours.log_evidence[batch.numpy()].sum() for batch in batches]
    error = np.sqrt((ours.standard_error**2).sum().item())
    assert abs(np.mean(scaled) - exact) < 5 * error < 5
    with pytest.raises(ValueError, match=r"takes 10 of the 50 rows of plate 'row'"):
        from_pyro_svi(model, guide, model_args=(rows, batches[0]))


@pytest.mark.filterwarnings("ignore:Estimated shape parameter of Pareto")
def test_conditional_loo_is_not_the_evidence():
    """PSIS-LOO of log p(x|z) judges rows by latents that have already seen them.

    With the exact posterior of 100 rows it lies more than one nat a row above the exact log p(x),
    while importance sampling is exact to rounding.
    """
    oracle = LinearGaussian.random(latent_dim=5, num_features=10, noise=0.5)
    rows = oracle.rows(100)
    exact = oracle.log_evidence(rows).sum().item()
    tree = to_datatree(oracle.vae(), rows, num_samples=500, progress=False)
    loo = arviz_stats.loo(tree, var_name="x")
    elpd = getattr(loo, "elpd", None) or loo.elpd_loo
    assert elpd > exact + len(rows)
    ours = log_evidence(oracle.vae(), rows, num_samples=500, progress=False)
    assert ours.log_evidence.sum().item() == pytest.approx(exact, abs=1e-6)


def test_one_row_far_out_leaves_the_others_alone(oracle, wide):
    """One k-hat for a batch, as Pyro's psis_diagnostic gives, is that of its worst row."""
    vae = copy.deepcopy(wide)
    with torch.no_grad():
        # Right for most rows, three standard deviations off where the first feature is above 5.
        vae.encoder.network.register_forward_pre_hook(
            lambda module, args: (torch.where(args[0][..., :1] > 5, args[0] + 1.0, args[0]),)
        )
    rows = oracle.rows(20)
    rows[0, 0] = 6.0
    k = log_evidence(vae, rows, num_samples=2000, progress=False).pareto_k
    assert k[0] > 0.7
    assert (k[1:] < 0.5).all()


@pytest.mark.parametrize("covariates", [False, True])
def test_blocks_change_no_number(monkeypatch, covariates):
    from ppl_vae import VAE, VAEConfig

    config = VAEConfig(
        event_shape=(8, 8), latent_dim=2, hidden=(16,), covariate_dim=3 if covariates else 0
    )
    vae, x = VAE.from_config(config), (torch.rand(7, 8, 8) < 0.5).float()
    given = torch.randn(7, 3) if covariates else None
    monkeypatch.setattr(amortized, "_BLOCK_PAIRS", 2**40)
    monkeypatch.setattr(amortized, "_BLOCK_ENTRIES", 2**40)
    whole = sample_posterior(vae, x, covariates=given, num_samples=50)
    for pairs in (1, 20, 7 * 13):
        monkeypatch.setattr(amortized, "_BLOCK_PAIRS", pairs)
        blocks = sample_posterior(vae, x, covariates=given, num_samples=50)
        np.testing.assert_array_equal(blocks.z, whole.z)
        np.testing.assert_allclose(blocks.log_weight, whole.log_weight, rtol=1e-5)
