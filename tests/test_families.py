"""What every part promises: beside the defaults, beside each other, and to all checks."""

import warnings

import pyro
import pytest
import torch
from families import KINDS, WRITTEN, case, pairs, single_parts
from pyro.infer import SVI, Trace_ELBO

from ppl_vae import (
    VAE,
    active_units,
    amortization_gap,
    calibrate,
    diagnose,
    fit,
    from_pyro_svi,
    impute,
    log_evidence,
    plot_draws,
    plot_latent_map,
    plot_latents,
    plot_manifold,
    plot_reconstructions,
    plot_traversals,
    predictive_check,
    refine,
    sample_posterior,
    sandwich,
    to_datatree,
)
from ppl_vae.workflow.refinement import local_normal, nuts
from ppl_vae.workflow.verdict import missed
from ppl_vae.workflow.weights.evidence import independent_log_prob

SINGLE = dict(single_parts())
PAIRS = pairs()


def negative_elbo(vae, x, covariates):
    torch.manual_seed(2)
    pyro.clear_param_store()
    return Trace_ELBO().differentiable_loss(vae.model, vae.guide, x, covariates)


@pytest.mark.parametrize("kind", KINDS)
def test_every_registered_part_is_in_the_family(kind):
    registry, choices = KINDS[kind]
    assert set(registry) == set(choices)


@pytest.mark.parametrize("each", PAIRS, ids=lambda each: " ".join(map(str, each.values())))
def test_each_pair_of_parts(each, tmp_path):
    """A bound, gradients for all weights, one log p(x, z), and the same after a file."""
    vae, x, covariates = case(**each)
    loss = negative_elbo(vae, x, covariates)
    loss.backward()
    assert loss.isfinite()
    assert loss.dtype == x.dtype
    for name, parameter in vae.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    with torch.no_grad():
        z = vae.posterior(x, covariates).sample((3,))
        joint = vae.log_joint(z, x, covariates)
        one = torch.stack([vae.log_joint(draw[None], x, covariates)[0] for draw in z])
    assert joint.shape == (3, len(x))
    torch.testing.assert_close(joint, one)
    vae.save(tmp_path / "vae.safetensors")
    loaded = VAE.load(tmp_path / "vae.safetensors").to(x.dtype)
    assert loaded.config == vae.config
    torch.testing.assert_close(negative_elbo(loaded, x, covariates), loss)


@pytest.mark.parametrize("name", SINGLE)
def test_each_part_is_fitted_alike_by_eager_and_recorded_steps(name):
    ends = []
    for engine in ("eager", "graph"):
        vae, x, covariates = case(**SINGLE[name])
        given = {"covariates": covariates, "batch_size": 10, "progress": False}
        result = fit(vae, x, epochs=3, engine=engine, **given)
        ends.append(result.history.train_loss.values)
    assert ends[1] == pytest.approx(ends[0], rel=1e-4)


@pytest.fixture
def short(monkeypatch):
    """Few steps and temperatures, also where checks have no option for them."""
    monkeypatch.setattr(local_normal, "_WINDOW", 5)
    monkeypatch.setattr(local_normal, "_COOLING", 10)
    monkeypatch.setattr(nuts, "_TEMPERATURES", (5, 5))
    monkeypatch.setattr(missed, "_TEMPERATURES", 5)


def calls(vae, x, covariates=None):
    """Every check, tree and picture, at toy size."""
    few = x[:6]
    some = {} if covariates is None else {"covariates": covariates[:6]}
    one = {} if covariates is None else {"covariates": covariates[:1]}
    quiet = {"progress": False}
    images = len(vae.event_shape) > 1
    yield lambda: SVI(vae.model, vae.guide, pyro.optim.Adam({}), Trace_ELBO()).step(few, **some)
    yield lambda: sample_posterior(vae, few, num_samples=20, **some)
    yield lambda: log_evidence(vae, few, num_samples=40, **some, **quiet)
    yield lambda: log_evidence(
        vae, few, method="ais", num_samples=4, num_temperatures=4, **some, **quiet
    )
    yield lambda: sandwich(vae, num_rows=4, num_samples=4, num_temperatures=4, **some, **quiet)
    yield lambda: to_datatree(vae, few, num_samples=5, **some, **quiet)
    yield lambda: from_pyro_svi(
        vae.model, vae.guide, model_args=(few, *some.values()), num_samples=10, **quiet
    )
    yield lambda: active_units(vae, few, **some)
    yield lambda: amortization_gap(vae, few, num_samples=40, max_steps=25, **some, **quiet)
    yield lambda: refine(vae, few, rows="all", num_samples=40, max_steps=25, **some, **quiet)
    two = {} if covariates is None else {"covariates": covariates[:2]}
    chains = {"method": "nuts", "num_samples": 5, "num_warmup": 5, "num_chains": 2, "max_steps": 5}
    yield lambda: refine(vae, few[:2], rows="all", **chains, **two, **quiet)
    yield lambda: calibrate(vae, num_simulations=20, num_samples=9, **some, **quiet)
    yield lambda: predictive_check(vae, few, num_samples=10, **some, **quiet)
    if vae.missing:
        yield lambda: impute(vae, few, num_samples=40, **some, **quiet)
    yield lambda: diagnose(
        vae, few, num_samples=40, num_simulations=20, gap_rows=2, refined_rows=2, **some, **quiet
    ).summary()
    yield lambda: plot_reconstructions(vae, few, **some)
    yield lambda: plot_draws(vae, num_rows=4, **one)
    yield lambda: plot_latents(vae, few, **some)
    yield lambda: plot_latent_map(vae, few, **some)
    yield lambda: plot_traversals(vae, num_values=3, **one)
    if images:
        yield lambda: plot_manifold(vae, size=3, **one)
    if hasattr(vae.decoder, "network"):
        yield lambda: independent_log_prob(vae.decoder, x[:30], few)


def check_all(vae, x, covariates=None):
    pyro.clear_param_store()
    with warnings.catch_warnings():
        # Programs that cannot run for all draws at once run one by one, and say so.
        warnings.filterwarnings("ignore", ".*cannot run for all draws at once")
        for call in calls(vae, x, covariates):
            call()


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("name", SINGLE)
def test_each_part_goes_through_all_checks(name):
    check_all(*case(**SINGLE[name]))


def test_covariates_go_through_all_checks():
    vae, x, covariates = case(covariate_dim=2)
    pyro.clear_param_store()
    for call in list(calls(vae, x, covariates))[1:10]:
        call()


def test_a_decoder_without_a_network_has_no_baseline():
    vae, x = WRITTEN["decoder of the docstring"]()
    with pytest.raises(TypeError, match="has no attribute network"):
        independent_log_prob(vae.decoder, x, x)


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("name", WRITTEN)
def test_parts_as_users_write_them_go_through_all_checks(name):
    vae, x = WRITTEN[name]()
    fit(vae, x, epochs=2, engine="eager", progress=False)
    check_all(vae, x)
