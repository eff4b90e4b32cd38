"""Masked and reparameterized programs as DataTrees: weights are p(x), or the reason is said."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoDelta, AutoMultivariateNormal, AutoNormal
from pyro.infer.reparam import LocScaleReparam, SymmetricStableReparam, TransformReparam

from ppl_vae import from_pyro_svi

Y = torch.tensor([0.3, -1.2, 0.8, 1.9, 0.1])
SEEN = torch.tensor([True, False, True, True, False])


def exact(y, prior_sd=1.0, noise=1.0):
    """log p(y) of numbers around one normal mean."""
    covariance = noise**2 * torch.eye(len(y)) + prior_sd**2 * torch.ones(len(y), len(y))
    return torch.distributions.MultivariateNormal(torch.zeros(len(y)), covariance).log_prob(y)


def log_mean_weight(tree):
    log_weight = tree.sample_stats.log_weight.values[0]
    largest = log_weight.max()
    return np.log(np.exp(log_weight - largest).mean()) + largest


def around_a_mean(**observed):
    def model():
        m = pyro.sample("m", dist.Normal(0.0, 1.0))
        with pyro.plate("r", 5):
            pyro.sample("y", dist.Normal(m, 1.0), obs=Y, **observed)

    return model


@pytest.mark.parametrize("scale", [1.4, 3.0])
def test_missing_entries_by_obs_mask_leave_the_evidence_alone(scale):
    """Whatever the guide draws of them; 6,000 draws are within 0.1 of the truth by far."""
    model = around_a_mean(obs_mask=SEEN)

    def guide():
        pyro.sample("m", dist.Normal(0.7, 0.6))
        with pyro.plate("r", 5):
            pyro.sample("y_unobserved", dist.Normal(1.0, scale))

    tree = from_pyro_svi(model, guide, num_samples=6000, progress=False)
    assert log_mean_weight(tree) == pytest.approx(exact(Y[SEEN]).item(), abs=0.1)
    np.testing.assert_array_equal(np.isnan(tree.observed_data.y_observed), ~SEEN.numpy())


def test_a_mask_on_a_latent_leaves_its_entries_out():
    def model():
        m = pyro.sample("m", dist.Normal(0.0, 1.0))
        with pyro.plate("r", 5), poutine.mask(mask=SEEN):
            z = pyro.sample("z", dist.Normal(m, 1.0))
            pyro.sample("y", dist.Normal(z, 1.0), obs=Y)

    def guide():
        pyro.sample("m", dist.Normal(0.7, 0.8))
        with pyro.plate("r", 5):
            pyro.sample("z", dist.Normal(0.6, 1.2))

    tree = from_pyro_svi(model, guide, num_samples=20_000, progress=False)
    truth = exact(Y[SEEN], noise=math.sqrt(2.0)).item()
    assert log_mean_weight(tree) == pytest.approx(truth, abs=0.1)


def hierarchy():
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("r", 5):
        z = pyro.sample("z", dist.Normal(mu, 1.0))
        pyro.sample("y", dist.Normal(z, 1.0), obs=Y)


def test_a_reparameterized_latent_is_no_datum():
    model = poutine.reparam(hierarchy, {"z": LocScaleReparam(0.0)})
    guide = AutoNormal(model)
    guide()
    tree = from_pyro_svi(model, guide, num_samples=4000, progress=False)
    assert list(tree.observed_data.data_vars) == ["y"]
    assert {"mu", "z_decentered", "z"} == set(tree.posterior.data_vars)
    drawn = tree.posterior
    np.testing.assert_allclose(drawn.z, drawn.mu + drawn.z_decentered, rtol=1e-5, atol=1e-6)


def test_the_evidence_of_a_reparameterized_program():
    model = poutine.reparam(hierarchy, {"z": LocScaleReparam(0.0)})

    def guide():
        pyro.sample("mu", dist.Normal(0.3, 0.8))
        with pyro.plate("r", 5):
            pyro.sample("z_decentered", dist.Normal(0.1, 1.0))

    tree = from_pyro_svi(model, guide, num_samples=20_000, progress=False)
    assert log_mean_weight(tree) == pytest.approx(exact(Y, noise=math.sqrt(2.0)).item(), abs=0.1)


def test_a_transformed_latent_keeps_its_density():
    def plain():
        s = pyro.sample("s", dist.LogNormal(0.0, 0.5))
        with pyro.plate("r", 5):
            pyro.sample("y", dist.Normal(0.0, s), obs=Y)

    model = poutine.reparam(plain, {"s": TransformReparam()})
    found = []
    for program in (plain, model):
        pyro.clear_param_store()
        guide = AutoNormal(program)
        guide()
        tree = from_pyro_svi(program, guide, num_samples=20_000, progress=False)
        assert list(tree.observed_data.data_vars) == ["y"]
        found.append(log_mean_weight(tree))
    assert found[1] == pytest.approx(found[0], abs=0.1)


def test_what_would_be_wrong_is_refused():
    scaled = poutine.scale(hierarchy, scale=2.0)
    guide = AutoNormal(hierarchy)
    guide()
    with pytest.raises(ValueError, match="scales the log-probability of site"):
        from_pyro_svi(scaled, guide, num_samples=10, progress=False)

    def stable():
        m = pyro.sample("m", dist.Normal(0.0, 1.0))
        with pyro.plate("r", 5):
            pyro.sample("y", dist.Stable(1.5, 0.0, 1.0, m), obs=Y)

    reparameterized = poutine.reparam(stable, {"y": SymmetricStableReparam()})
    joint = AutoMultivariateNormal(reparameterized)
    joint()
    tree = from_pyro_svi(reparameterized, joint, num_samples=50, progress=False)
    assert np.isfinite(tree.sample_stats.log_weight).all()


def test_a_guide_that_observes_is_refused():
    guide = poutine.condition(AutoDelta(hierarchy), {"mu": torch.tensor(0.0)})
    with pytest.raises(ValueError, match="guide"):
        from_pyro_svi(hierarchy, guide, num_samples=10, progress=False)


def test_a_mask_through_an_event():
    """Of data it leaves missing entries out, also where they are drawn anew; of a latent not."""

    def missing():
        m = pyro.sample("m", dist.Normal(0.0, 1.0))
        with pyro.plate("r", 2):
            y = dist.Normal(m[..., None], torch.ones(5)).mask(SEEN).to_event(1)
            pyro.sample("y", y, obs=torch.ones(2, 5))

    def mean():
        pyro.sample("m", dist.Normal(0.7, 0.6))

    tree = from_pyro_svi(missing, mean, num_samples=4000, progress=False)
    truth = exact(torch.ones(6)).item()
    assert log_mean_weight(tree) == pytest.approx(truth, abs=0.1)
    assert tree.posterior_predictive.y.shape == (1, 4000, 2, 5)

    def halved():
        z = pyro.sample("z", dist.Normal(torch.zeros(5), 1.0).mask(SEEN).to_event(1))
        pyro.sample("y", dist.Normal(z, 1.0).to_event(1), obs=Y)

    def guide():
        pyro.sample("z", dist.Normal(torch.zeros(5), 1.0).to_event(1))

    with pytest.raises(ValueError, match="masks parts of an event of site 'z'"):
        from_pyro_svi(halved, guide, num_samples=10, progress=False)
