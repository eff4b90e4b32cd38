"""Refined posteriors against the exact ones, and a VAE that is left as it was."""

import math

import arviz_stats
import numpy as np
import pyro
import pytest
import torch
import xarray as xr
from folded import Folded, folded_evidence, folded_rows
from oracle import LinearGaussian
from pyro import poutine

from ppl_vae import VAE, VAEConfig
from ppl_vae.trees.vae import write_datatree
from ppl_vae.workflow.draws.latents import EXACT, MOMENTS
from ppl_vae.workflow.draws.posterior import evaluating
from ppl_vae.workflow.refinement.local_normal import Gaussian, local_posterior, log_weight
from ppl_vae.workflow.refinement.nuts import STARTS
from ppl_vae.workflow.refinement.refine import refine


def rescaled(oracle: LinearGaussian, factor: torch.Tensor, shift: float = 0.0) -> VAE:
    """The oracle's VAE with wrong scales, (latent,) or (row, latent), and means."""
    vae = oracle.vae()
    _, sd = oracle.posterior(oracle.rows(1))

    def forward(module, inputs, q):
        rows = len(inputs[0])
        loc, scale = q.base_dist.loc, q.base_dist.scale
        factors = factor.expand(max(rows, len(factor)), -1)[:rows].to(scale)
        return pyro.distributions.Normal(loc + shift * sd.to(loc), scale * factors).to_event(1)

    vae.encoder.register_forward_hook(forward)
    return vae


def narrow_where(oracle: LinearGaussian, narrow: torch.Tensor) -> VAE:
    """The oracle's VAE, for rows of which some get a tenth of the right scale."""
    return rescaled(oracle, torch.where(narrow, 0.1, 1.0)[:, None])


@pytest.fixture(scope="module")
def large() -> LinearGaussian:
    return LinearGaussian.random(16, 64)


@pytest.mark.parametrize("fault", ["exact", "scale halved", "scale doubled", "mean shifted"])
def test_svi_finds_the_exact_posterior(large, fault):
    factor = {"scale halved": 0.5, "scale doubled": 2.0}.get(fault, 1.0)
    vae = rescaled(large, torch.full((1, 16), factor), 1.0 if fault == "mean shifted" else 0.0)
    x = large.rows(50)
    tree = refine(vae, x, rows="all", num_samples=500)
    _check_exact(large, vae, x, tree)
    numbers = tree.constant_data
    assert numbers.refined.all() or fault == "exact"
    if fault == "scale halved":
        assert (numbers.pareto_k_before > 0.7).any()


def test_svi_finds_a_latent_that_the_encoder_ignores(large):
    vae, x = large.vae(), large.rows(50)
    with torch.no_grad():
        vae.encoder.loc_head.weight[0] = 0
        vae.encoder.loc_head.bias[0] = vae.encoder.scale_head.bias[0] = 0
    _check_exact(large, vae, x, refine(vae, x, rows="all", num_samples=500))


def _check_exact(oracle: LinearGaussian, vae: VAE, x: torch.Tensor, tree: xr.DataTree) -> None:
    """Within 2 % of a standard deviation, from the draws' own fit: weights are equal."""
    mean, sd = oracle.posterior(x)
    with evaluating(vae, 0):
        _, best = local_posterior(vae, x)
    assert (abs(best.loc - mean) / sd).max() < 0.02
    assert abs(best.scale / sd - 1).max() < 0.02
    numbers = tree.constant_data
    assert (numbers.pareto_k_after < 0.5).all()
    np.testing.assert_allclose(numbers.elbo_after, oracle.log_evidence(x), atol=0.01)
    # 800 means of 500 draws: one beyond 5.5 standard errors has probability below 1e-4.
    error = (tree.posterior.z.mean(("chain", "draw")) - mean.numpy()) / sd.numpy()
    assert abs(error).max() < 5.5 / 500**0.5


def test_svi_finds_the_best_of_a_family_that_is_too_small():
    oracle = LinearGaussian.random(16, 64, correlation=0.5)
    vae, x = oracle.vae(), oracle.rows(50)
    with evaluating(vae, 0):
        encoder, best = local_posterior(vae, x)
    precision = oracle.posterior_precision
    mean, _ = oracle.posterior(x)
    scale = precision.diagonal().rsqrt()
    assert (abs(best.loc - mean) / scale).max() < 0.02
    assert abs((best.scale / scale).mean(0) - 1).max() < 0.02  # each row's own have some noise
    lost = (precision.diagonal() * (best.scale**2 - scale**2)).sum(1) / 2
    lost -= (best.scale / scale).log().sum(1)
    assert lost.max() < 0.05  # nats, of the ELBO
    assert not torch.equal(encoder.scale, best.scale)


def test_svi_keeps_a_full_covariance_where_the_encoder_has_one():
    oracle = LinearGaussian.random(4, 16, correlation=0.8)
    vae, x = oracle.vae(), oracle.rows(20)
    vae.encoder.register_forward_hook(
        lambda module, inputs, q: pyro.distributions.MultivariateNormal(
            q.base_dist.loc, scale_tril=q.base_dist.scale.diag_embed()
        )
    )
    with evaluating(vae, 0):
        _, best = local_posterior(vae, x)
        weights = log_weight(vae, x, None, best, best.noise(100))
    covariance = torch.linalg.inv(oracle.posterior_precision)
    sd = covariance.diagonal().sqrt()
    error = (best.scale @ best.scale.mT - covariance) / (sd[:, None] * sd)
    assert abs(error).max() < 0.02
    assert abs(weights.mean(0) - oracle.log_evidence(x)).max() < 0.01
    tree = refine(vae, x, rows="all", num_samples=1000)
    assert (tree.constant_data.pareto_k_after < 0.5).all()


def _check_draws(oracle: LinearGaussian, x: torch.Tensor, tree: xr.DataTree) -> None:
    """Means, variances and correlations within 6 Monte Carlo errors; R-hat below its own noise.

    R-hat of chains that agree is above one by a share that falls as one over their length: twice
    what was seen of independent draws, 1.005 of 1000.
    """
    assert tree.constant_data.r_hat.max() < 1 + 10 / tree.posterior.sizes["draw"]
    mean, sd = (value.numpy() for value in oracle.posterior(x))
    covariance = torch.linalg.inv(oracle.posterior_precision).numpy()
    correlation = xr.DataArray(covariance / np.outer(sd, sd), dims=("latent", "other"))
    unit = (tree.posterior.z.drop_vars("latent") - xr.DataArray(mean, dims=("row", "latent"))) / sd
    product = unit * unit.rename(latent="other")
    for drawn, expected, spread in (
        (unit, 0.0, 1.0),
        (product, correlation, (1 + correlation**2) ** 0.5),
    ):
        ess = arviz_stats.ess(drawn.to_dataset(name="z"), method="mean").z
        error = spread / ess**0.5
        assert (abs(drawn.mean(("chain", "draw")) - expected) < 6 * error).all()
        assert error.max() < 0.06


def test_nuts_draws_from_the_exact_posterior():
    """From an encoder of half the scale, no correlations and a shifted mean; 4 rows, float32.

    48 numbers within 6 Monte Carlo errors, which are themselves estimated to about 10 %: the
    false-alarm rate is below 1e-5. R-hat of 12 exactly drawn latents is below 1.005.
    """
    oracle = LinearGaussian.random(3, 8, correlation=0.8)
    x = oracle.rows(4)
    vae = rescaled(oracle, torch.full((1, 3), 0.5), 1.0).float()
    tree = refine(vae, x, method="nuts", rows="all", num_warmup=150)
    assert dict(tree.posterior.sizes) == {"chain": 8, "draw": 1000, "row": 4, "latent": 3}
    assert tree.posterior.z.dtype == np.float32
    assert not tree.sample_stats.diverging.any()
    assert tree.constant_data.r_hat.dims == ("row", "latent")
    _check_draws(oracle, x, tree)


@pytest.mark.slow
def test_nuts_draws_from_a_large_posterior():
    """20 rows of 16 correlated latents, in two chunks; as above, of 5440 numbers."""
    oracle = LinearGaussian.random(16, 64, correlation=0.5)
    x = oracle.rows(20)
    _check_draws(oracle, x, refine(oracle.vae(), x, method="nuts", rows="all", chunk_rows=10))


def test_only_unreliable_rows_are_refined(oracle):
    narrow = torch.arange(30) % 10 == 3
    vae, x = narrow_where(oracle, narrow), oracle.rows(30)
    tree = refine(vae, x, num_samples=1000)
    for group in ("posterior", "sample_stats", "observed_data", "constant_data"):
        np.testing.assert_array_equal(tree[group].row, [3, 13, 23])
    np.testing.assert_array_equal(tree.observed_data.x, x[narrow])
    assert tree.attrs == {"method": "svi", "seed": 0, "threshold": 0.7, "family": EXACT}
    np.testing.assert_allclose(
        tree.constant_data.elbo_after, oracle.log_evidence(x[narrow]), atol=0.01
    )
    some = refine(vae, x, rows=np.array([29, 4]), num_samples=200)
    np.testing.assert_array_equal(some.posterior.row, [29, 4])
    np.testing.assert_array_equal(some.observed_data.x, x[[29, 4]])
    assert "threshold" not in some.attrs


@pytest.mark.parametrize("made", ["bfloat16", "half", "double", "requires_grad_"])
def test_rows_of_any_kind(oracle, made):
    """Whatever a program left on the rows: NumPy knows no bfloat16, and no gradients."""
    x = getattr(oracle.rows(2).clone(), made)()
    tree = refine(oracle.vae(), x, rows="all", num_samples=30, progress=False)
    expected = x.detach().double().numpy()
    np.testing.assert_array_equal(tree["observed_data"]["x"].values, expected)


@pytest.mark.parametrize("method", ["svi", "nuts"])
def test_nothing_to_refine_is_a_tree_of_no_rows(oracle, method, tmp_path):
    vae, x = oracle.vae(), oracle.rows(10)
    none = refine(vae, x, method=method, num_samples=50)
    some = refine(vae, x, method=method, rows=[1], num_samples=50, num_warmup=5, max_steps=0)
    for group, node in some.children.items():
        assert set(none[group].data_vars) == set(node.data_vars)
        for name, variable in node.data_vars.items():
            assert none[group][name].dims == variable.dims
            sizes = {**variable.sizes, "row": 0}
            assert none[group][name].sizes == sizes
    for tree in (none, some):
        write_datatree(tree, tmp_path / "tree.nc")
        again = xr.open_datatree(tmp_path / "tree.nc", engine="h5netcdf").load()
        assert again.attrs == tree.attrs
        np.testing.assert_array_equal(again.posterior.z, tree.posterior.z)


@pytest.mark.parametrize("method", ["svi", "nuts"])
def test_log_probabilities_are_pyros(digits, method):
    bits = (digits[:5] > 0.5).float()
    vae = VAE.from_config(VAEConfig.for_data(bits, latent_dim=2, hidden=(8,), covariate_dim=3))
    covariates = torch.randn(5, 3)
    tree = refine(
        vae, bits, covariates=covariates, method=method, rows=[0, 4], num_samples=30, num_warmup=10
    )
    stats = tree.sample_stats
    for draw in (0, 24):
        z = torch.tensor(tree.posterior.z[0, draw].values)
        p = poutine.trace(poutine.condition(vae.model, {"z": z})).get_trace(
            bits[[0, 4]], covariates[[0, 4]]
        )
        np.testing.assert_allclose(stats.log_p[0, draw].sum(), p.log_prob_sum().item(), rtol=1e-5)
    if method == "svi":
        np.testing.assert_allclose(stats.log_weight, stats.log_p - stats.log_q, atol=1e-4)


@pytest.mark.parametrize("method", ["svi", "nuts"])
def test_missing_entries_are_left_out(oracle, method):
    """One latent and three entries, of which one is missing: the mean is the closed form's."""
    oracle = LinearGaussian.random(1, 3)
    config = VAEConfig(
        event_shape=(3,),
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
    x = oracle.rows(5)
    x[:, 1] = torch.nan
    seen = LinearGaussian(oracle.weight[::2], oracle.bias[::2], oracle.noise)
    mean, sd = seen.posterior(x[:, ::2])
    tree = refine(vae, x, method=method, rows="all", num_samples=300, num_warmup=50)
    error = (tree.posterior.z.mean(("chain", "draw")) - mean.numpy()) / sd.numpy()
    assert abs(error).max() < 5 / 300**0.5


@pytest.mark.parametrize("method", ["svi", "nuts"])
def test_the_world_is_left_as_found(oracle, method):
    vae, x = oracle.vae().train(), oracle.rows(3)
    vae.decoder.network.bias.requires_grad_(False)
    vae.decoder.network.weight.grad = torch.ones_like(vae.decoder.network.weight)
    before = {name: p.clone() for name, p in vae.named_parameters()}
    state = torch.get_rng_state()
    options = {"method": method, "rows": "all", "num_samples": 30, "num_warmup": 10}
    one = refine(vae, x, **options)
    assert torch.equal(torch.get_rng_state(), state)
    assert vae.training
    assert pyro.infer.util.is_validation_enabled()
    assert not list(pyro.get_param_store().keys())
    for name, parameter in vae.named_parameters():
        assert torch.equal(parameter, before[name])
        assert parameter.requires_grad == (name != "decoder.network.bias")
        assert (parameter.grad is None) == (name != "decoder.network.weight")
    assert (vae.decoder.network.weight.grad == 1).all()
    torch.randn(3)
    assert refine(vae, x, **options).posterior.z.equals(one.posterior.z)
    assert not refine(vae, x, seed=1, **options).posterior.z.equals(one.posterior.z)


def test_a_row_that_cannot_be_improved_keeps_the_encoders_normal(oracle):
    """A decoder that returns no numbers for one row: that row is kept, the others are refined."""
    vae = rescaled(oracle, torch.full((1, 3), 0.5))
    x = oracle.rows(4)
    bad = torch.tensor([0.0, 0.0, torch.nan, 0.0])[:, None]
    vae.decoder.network.register_forward_hook(
        lambda module, inputs, raw: (raw.unflatten(0, (-1, 4)) + bad).flatten(0, 1)
    )
    with evaluating(vae, 0):
        encoder, best = local_posterior(vae, x)
    assert torch.equal(best.loc[2], encoder.loc[2])
    assert torch.equal(best.scale[2], encoder.scale[2])
    others = [0, 1, 3]
    mean, sd = oracle.posterior(x)
    assert abs(best.scale[others] / sd - 1).max() < 0.02
    assert (abs(best.loc[others] - mean[others]) / sd).max() < 0.02


def test_stretch_is_exponentiated_on_the_diagonal_only():
    start = Gaussian(torch.zeros(1, 2), torch.eye(2)[None])
    moved = start.moved(torch.ones(1, 2), torch.tensor([[[0.0, 9.0], [3.0, math.log(2.0)]]]))
    torch.testing.assert_close(moved.loc, torch.ones(1, 2))
    torch.testing.assert_close(moved.scale, torch.tensor([[[1.0, 0.0], [3.0, 2.0]]]))
    torch.testing.assert_close(moved.at(torch.ones(5, 1, 2))[4], torch.tensor([[2.0, 6.0]]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "magic"}, "method is 'magic'; accepted are 'svi', 'natural_gradient', 'nuts'"),
        ({"rows": "some"}, "rows is 'some'; accepted are 'unreliable', 'all', or indices"),
        ({"rows": [5]}, "indices from 0 to 4"),
        ({"rows": [-1]}, "indices from 0 to 4"),
        ({"rows": np.ones(5, bool)}, "indices from 0 to 4"),
        ({"rows": [0.5]}, "indices from 0 to 4"),
        ({"num_samples": 10}, "num_samples is 10, too few .* pass at least 30"),
        ({"num_samples": 3, "method": "nuts"}, "pass at least 4"),
        ({"num_chains": 0}, "num_chains is 0"),
        ({"max_steps": -1}, "max_steps is -1"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"rows": "all", "chunk_rows": 0}, "chunk_rows is 0"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_bad_options(oracle, options, message):
    with pytest.raises(ValueError, match=message):
        refine(oracle.vae(), oracle.rows(5), **options)


def test_a_second_mode_is_seen():
    """The encoder knows one of two modes that chains do not cross between: some start in either.

    Over 180 rows and three seeds none was missed.
    """
    vae, x = Folded(), folded_rows(20)
    options = {"rows": "all", "num_chains": 4, "num_warmup": 50, "num_samples": 50}
    tree = refine(vae, x, method="nuts", **options, progress=False)
    assert (tree.constant_data.r_hat > 1.1).all()
    below = (tree.posterior.z < 0).mean(("chain", "draw"))
    assert ((below > 0) & (below < 1)).all()


def test_a_row_keeps_an_encoder_that_no_normal_betters():
    """Draws of both modes are kept, and their weights give the evidence that quadrature gives."""
    vae, x = Folded(modes=2), folded_rows(10)
    tree = refine(vae, x, rows="all", num_samples=2000, progress=False)
    assert tree.attrs["family"] == MOMENTS
    assert not tree.constant_data.refined.any()
    below = (tree.posterior.z < 0).mean(("chain", "draw"))
    assert (abs(below - 0.5) < 6 * 0.5 / 2000**0.5).all()
    weights = tree.sample_stats.log_weight.values[0]
    evidence = np.log(np.exp(weights).mean(0))
    np.testing.assert_allclose(evidence, folded_evidence(x), atol=0.05)
    np.testing.assert_allclose(tree.constant_data.elbo_after, weights.mean(0))


def through(oracle: LinearGaussian, flow: torch.nn.Module) -> VAE:
    vae = oracle.vae().float()
    vae.encoder.register_forward_hook(
        lambda module, inputs, q: pyro.distributions.TransformedDistribution(q, [flow])
    )
    return vae


def test_the_coordinates_of_a_flow():
    """The ELBO rises, and weights average to p(x): 20 rows, 6 standard errors."""
    oracle = LinearGaussian.random(3, 8, correlation=0.2)
    torch.manual_seed(0)
    vae = through(oracle, pyro.distributions.transforms.affine_autoregressive(3, [8]))
    x = oracle.rows(20)
    tree = refine(vae, x, rows="all", num_samples=2000, progress=False)
    assert tree.attrs["family"] == EXACT
    numbers, exact = tree.constant_data, oracle.log_evidence(x)
    assert numbers.refined.all()
    assert (numbers.elbo_after > numbers.elbo_before).all()
    weights = np.exp(tree.sample_stats.log_weight.values[0] - exact.numpy())
    assert (abs(weights.mean(0) - 1) < 6 * weights.std(0) / 2000**0.5).all()
    draws = refine(vae, x[:3], rows="all", method="nuts", num_samples=800, progress=False)
    assert (draws.attrs["family"], draws.attrs["starts"]) == (EXACT, STARTS[True])
    _check_draws(oracle, x[:3], draws)


def test_a_flow_without_an_inverse(oracle):
    """Chains start from the local normal alone, and it is said."""
    vae, x = through(oracle, pyro.distributions.transforms.planar(3)), oracle.rows(3)
    options = {"num_samples": 30, "num_chains": 2, "num_warmup": 30, "progress": False}
    tree = refine(vae, x, rows="all", method="nuts", **options)
    assert (tree.attrs["family"], tree.attrs["starts"]) == (EXACT, STARTS[False])
    assert tree.posterior.z.notnull().all()


def test_a_row_without_a_density_does_not_hold_up_the_others(oracle):
    vae, x = oracle.vae(), oracle.rows(4)
    bad = torch.tensor([0.0, 0.0, torch.nan, 0.0])[:, None]
    vae.decoder.network.register_forward_hook(
        lambda module, inputs, raw: (raw.unflatten(0, (-1, 4)) + bad).flatten(0, 1)
    )
    tree = refine(vae, x, rows="all", method="nuts", num_samples=300, progress=False)
    assert tree.posterior.z.isnull().all(("chain", "draw", "latent")).values.tolist() == [
        False, False, True, False,
    ]  # fmt: skip
    others = [0, 1, 3]
    _check_draws(oracle, x[others], tree.isel(row=others))


def test_discrete_latents_are_refused_at_once(oracle):
    vae = oracle.vae()
    vae.encoder.register_forward_hook(
        lambda module, inputs, q: pyro.distributions.Bernoulli(logits=q.mean).to_event(1)
    )
    with pytest.raises(ValueError, match="discrete latents, which have no density to climb"):
        refine(vae, oracle.rows(3), rows="all", progress=False)
