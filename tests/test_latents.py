"""Coordinates of any distribution over latents: densities agree, and normals are found."""

import math

import pyro.distributions as dist
import pytest
import torch
import torch.distributions as td
from oracle import LinearGaussian
from pyro.contrib.zuko import ZukoToPyro
from pyro.distributions.transforms import (
    affine_coupling,
    conditional_affine_autoregressive,
    spline_autoregressive,
)

from ppl_vae import diagnose, log_evidence, refine, sample_posterior
from ppl_vae.workflow.draws.latents import EXACT, MOMENTS, coordinates, density, draw, moments

ROWS, LATENTS = 5, 3


class Chain(dist.TorchDistribution):
    """As components' chain: blocks drawn one after the other, each given those before it."""

    arg_constraints = {}  # noqa: RUF012

    def __init__(self, links, sizes, batch):
        self.links, self.sizes = links, sizes
        super().__init__(torch.Size(batch), torch.Size([sum(sizes)]), validate_args=False)

    def rsample(self, shape=()):
        blocks = []
        for link in self.links:
            blocks.append(link(*blocks).rsample(shape if not blocks else ()))
        return torch.cat(blocks, -1)

    def log_prob(self, z):
        blocks = z.split(self.sizes, -1)
        return sum(link(*blocks[:i]).log_prob(blocks[i]) for i, link in enumerate(self.links))


def normal(loc, scale):
    return dist.Normal(loc, scale).to_event(1)


def exact_families():
    torch.manual_seed(1)
    loc, scale = torch.randn(ROWS, LATENTS), torch.rand(ROWS, LATENTS) + 0.5
    root = torch.randn(ROWS, LATENTS, LATENTS).tril(-1) + scale.diag_embed()
    base = normal(loc, scale)
    dense = dist.MultivariateNormal(loc, scale_tril=root)
    iaf = conditional_affine_autoregressive(LATENTS, 2, hidden_dims=[8])
    flows = [affine_coupling(LATENTS, [8]), spline_autoregressive(LATENTS, [8])]
    import zuko

    given = torch.randn(ROWS, 2)
    zuko_flow = zuko.flows.MAF(LATENTS, 2, transforms=2, hidden_features=(8,))(given)
    spline_flow = zuko.flows.NSF(LATENTS, 2, transforms=2, hidden_features=(8,))(given)
    layer = torch.nn.Linear(1, 4)
    raw = lambda z: layer(z).chunk(2, -1)  # noqa: E731
    sigmoid = [td.transforms.SigmoidTransform()]
    return {
        "normal": base,
        "expanded": normal(loc[0], scale[0]).expand((ROWS,)),
        "full covariance": dense,
        "low rank": dist.LowRankMultivariateNormal(loc, root[..., :1], scale),
        "log-normal": dist.LogNormal(loc, scale).to_event(1),
        "bounded": dist.TransformedDistribution(dense, sigmoid),
        "IAF": dist.TransformedDistribution(base, [iaf.condition(torch.randn(ROWS, 2))]),
        "two flows": dist.TransformedDistribution(dense, flows),
        "zuko": zuko_flow,
        "zuko's spline": spline_flow,
        "zuko in Pyro": ZukoToPyro(zuko_flow),
        "chain": Chain(
            [
                lambda: normal(loc[:, :1], scale[:, :1]),
                lambda z: normal(raw(z)[0], raw(z)[1].exp()),
            ],
            [1, 2],
            (ROWS,),
        ),
        "chain of flows": Chain(
            [
                lambda: dist.LogNormal(loc[:, :1], scale[:, :1]).to_event(1),
                lambda z: dist.MultivariateNormal(raw(z)[0], scale_tril=0.5 * torch.eye(2)),
            ],
            [1, 2],
            (ROWS,),
        ),
    }


@pytest.mark.parametrize("family", exact_families())
def test_exact_coordinates(family):
    """log q(z) = log N(u) - log |dz/du|, for all draws and rows, and u comes back from z."""
    q = exact_families()[family]
    with torch.no_grad():
        found = coordinates(q, ROWS)
        assert found.family == EXACT
        u = found.normal.at(found.normal.noise(7))
        z, log_det = found.map(u)
        assert z.shape == (7, ROWS, LATENTS)
        torch.testing.assert_close(
            found.normal.distribution.log_prob(u) - log_det,
            q.log_prob(z).expand(7, ROWS),
            rtol=1e-3,
            atol=1e-3,
        )
        torch.testing.assert_close(found.map.back(z), u, rtol=1e-2, atol=2e-3)
    with torch.enable_grad():  # gradients reach u
        v = u.clone().requires_grad_()
        z, log_det = found.map(v)
        (gradient,) = torch.autograd.grad(z.sum() + torch.as_tensor(log_det).sum(), v)
    assert gradient.isfinite().all()
    assert (gradient != 0).any(0).all()


def other_families():
    torch.manual_seed(1)
    loc, scale = torch.randn(ROWS, LATENTS), torch.rand(ROWS, LATENTS) + 0.5
    pair = normal(torch.stack([loc, loc + 3], 1), torch.stack([scale, scale], 1))
    weights = dist.Categorical(logits=torch.zeros(ROWS, 2))
    return {
        "Laplace": dist.Laplace(loc, scale).to_event(1),
        "mixture": dist.MixtureSameFamily(weights, pair),
        "mixture of gammas": dist.MixtureSameFamily(
            weights, dist.Gamma(pair.mean.exp(), 2.0).to_event(1)
        ),
        "gamma": dist.Gamma(scale + 1, 2.0).to_event(1),
        "beta": dist.Beta(scale + 1, scale).to_event(1),
        "folded": dist.HalfNormal(scale).to_event(1),
        "heavy tails": dist.StudentT(3.0, loc, scale).to_event(1),
    }


@pytest.mark.parametrize("family", other_families())
def test_other_families_get_a_normal_with_the_moments_of_draws(family):
    """Within bounds of the support; means and sds of 15 latents within 6 standard errors."""
    q = other_families()[family]
    with torch.no_grad():
        found = coordinates(q, ROWS)
        assert found.family == MOMENTS
        z, log_det = found.map(found.normal.at(found.normal.noise(50)))
        assert z.shape == (50, ROWS, LATENTS)
        assert (torch.as_tensor(log_det) + q.log_prob(z)).isfinite().all()
        u = found.map.back(q.sample((20_000,)))
    sd = u.std(0)
    assert ((u.mean(0) - found.normal.loc).abs() < 6 * sd / 1000**0.5).all()
    if family != "heavy tails":
        assert ((found.normal.scale / sd - 1).abs() < 0.25).all()


class OnlySample:
    def __init__(self, q):
        self.q, self.batch_shape = q, q.batch_shape

    def sample(self, shape=()):
        return self.q.sample(shape)

    def log_prob(self, z):
        return self.q.log_prob(z)


class OnlyRsample(OnlySample):
    def sample(self, shape=()):
        raise NotImplementedError

    def rsample(self, shape=()):
        return self.q.rsample(shape)


@pytest.mark.parametrize("kind", [OnlySample, OnlyRsample])
def test_a_distribution_that_has_little(kind):
    loc = torch.zeros(ROWS, LATENTS, requires_grad=True)
    q = kind(normal(loc + 2, 0.5))
    assert draw(q, (4,)).shape == (4, ROWS, LATENTS)
    assert not draw(q, (4,)).requires_grad
    mean, sd = moments(q)
    # 15 of each, of 1000 draws: within 6 standard errors.
    assert ((mean - 2).abs() < 6 * 0.5 / 1000**0.5).all()
    assert ((sd / 0.5 - 1).abs() < 6 / 2000**0.5).all()
    assert coordinates(q, ROWS).family == MOMENTS


def test_a_point_gets_some_width():
    found = coordinates(dist.Delta(torch.ones(ROWS, LATENTS)).to_event(1), ROWS)
    assert found.family == MOMENTS
    assert (found.normal.loc == 1).all()
    assert ((found.normal.scale > 0) & (found.normal.scale < 0.01)).all()


def test_moments_by_formula_and_by_draws():
    """A row whose formula is NaN has the moments of its draws, and the others keep theirs."""
    freedom = torch.tensor([1.0, 30.0])[:, None]
    mean, sd = moments(dist.StudentT(freedom, torch.zeros(2, 1), 1.0).to_event(1))
    assert mean.isfinite().all()
    assert mean[1] == 0
    torch.testing.assert_close(sd[1], torch.tensor([math.sqrt(30 / 28)]))


def test_discrete_latents_are_refused_with_the_reason():
    q = dist.Bernoulli(torch.full((ROWS, LATENTS), 0.5)).to_event(1)
    with pytest.raises(ValueError, match="over discrete latents, which have no density to climb"):
        coordinates(q, ROWS)


def test_what_cannot_be_drawn_from():
    with pytest.raises(TypeError, match="object has no way to draw from it; give it a method"):
        draw(object())


def test_a_point_is_no_posterior():
    """Its weights are zero, no verdict believes it, and annealing does not start from it."""
    oracle = LinearGaussian.random(latent_dim=3, num_features=8)
    vae, x = oracle.vae(), oracle.rows(4)
    vae.encoder.register_forward_hook(
        lambda module, inputs, q: dist.Delta(q.base_dist.loc).to_event(1)
    )
    assert (sample_posterior(vae, x, num_samples=30, progress=False).log_weight == -math.inf).all()
    assert not (log_evidence(vae, x, num_samples=30, progress=False).pareto_k < 1).any()
    refined = refine(vae, x, rows="all", num_samples=500, progress=False)
    assert refined.constant_data.refined.all()
    difference = refined.constant_data.elbo_after - oracle.log_evidence(x).numpy()
    assert (abs(difference) < 0.05).all()
    with pytest.raises(ValueError, match="cannot start from a point; use start='prior'"):
        log_evidence(vae, x, method="ais", progress=False)
    found = diagnose(vae, x, num_simulations=20, gap_rows=2, refined_rows=2, progress=False)
    assert not (found.rows.verdict == "as it is").any()


def test_certain_discrete_latents_are_no_points():
    z = torch.ones(5, 2, 1)
    q = dist.Bernoulli(torch.ones(2, 1)).to_event(1)
    assert density(q, z).isfinite().all()
