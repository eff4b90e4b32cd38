"""Any Pyro program as a DataTree, judged by models whose evidence is known in closed form."""

import math

import arviz_plots
import arviz_stats
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.contrib.autoname import scope
from pyro.infer import SVI, Trace_ELBO, autoguide, config_enumerate
from pyro.infer.util import is_validation_enabled
from pyro.poutine.plate_messenger import block_plate
from torch.distributions import constraints

from ppl_vae import to_datatree
from ppl_vae.trees.pyro_svi import from_pyro_svi
from ppl_vae.trees.vae import write_datatree

SCHOOLS = ["Choate", "Deerfield", "Andover", "Exeter", "Hotchkiss", "Lawrence", "Paul", "Hermon"]
EFFECT = torch.tensor([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
ERROR = torch.tensor([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


def fitted(model, guide, *args, steps=300, rate=0.03):
    svi = SVI(model, guide, pyro.optim.Adam({"lr": rate}), Trace_ELBO())
    return [svi.step(*args) for _ in range(steps)]


def mean_weight(tree):
    """log of the mean weight, and its standard error by the delta method."""
    log_weight = tree.sample_stats.log_weight.values[0]  # (draw, ...)
    largest = log_weight.max(0)
    weight = np.exp(log_weight - largest)
    error = weight.std(0, ddof=1) / weight.mean(0) / math.sqrt(len(weight))
    return np.log(weight.mean(0)) + largest, error


def eight_schools(effect=EFFECT):
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfNormal(5.0))
    with pyro.plate("school", len(ERROR)):
        eta = pyro.sample("eta", dist.Normal(0.0, 1.0))
        theta = pyro.deterministic("theta", mu + tau * eta)
        pyro.sample("effect", dist.Normal(theta, ERROR), obs=effect)


def normal_gamma(y):
    """Mean and precision unknown: a positive site, so that the Jacobian counts."""
    tau = pyro.sample("tau", dist.Gamma(3.0, 2.0))
    mu = pyro.sample("mu", dist.Normal(0.0, (2.0 * tau) ** -0.5))
    with pyro.plate("row", len(y)):
        pyro.sample("y", dist.Normal(mu, tau**-0.5), obs=y)


def normal_gamma_evidence(y):
    n, mean = len(y), y.mean().item()
    a, k = 3 + n / 2, 2 + n
    b = 2 + (y - mean).square().sum().item() / 2 + 2 * n * mean**2 / (2 * k)
    log_gammas = math.lgamma(a) - math.lgamma(3) + 3 * math.log(2) - a * math.log(b)
    return log_gammas + 0.5 * math.log(2 / k) - n / 2 * math.log(2 * math.pi)


@pytest.mark.parametrize(
    "kind",
    [
        "AutoNormal",
        "AutoDiagonalNormal",
        "AutoMultivariateNormal",
        "AutoLowRankMultivariateNormal",
        "AutoIAFNormal",
        "AutoLaplaceApproximation",
    ],
)
def test_mean_weight_is_the_evidence(kind):
    """Within 5 standard errors of the closed form, each below 0.05 nats.

    Six guides: the false-alarm rate is below 6 * 6e-7 where weights are not heavy-tailed.
    """
    y = torch.randn(12) * 0.7 + 0.5
    guide = getattr(autoguide, kind)(normal_gamma)
    fitted(normal_gamma, guide, y)
    if kind == "AutoLaplaceApproximation":
        guide = guide.laplace_approximation(y)
    tree = from_pyro_svi(normal_gamma, guide, model_args=(y,), num_samples=4000, parallel=True)
    got, error = mean_weight(tree)
    assert error < 0.05
    assert abs(got - normal_gamma_evidence(y)) < 5 * error
    assert set(tree.posterior.data_vars) == {"tau", "mu"}
    assert (tree.posterior.tau > 0).all()


@pytest.fixture
def regression():
    """Inputs, targets, and the exact posterior of the coefficients for noise 0.5."""
    x = torch.randn(20, 3)
    y = x @ torch.tensor([1.0, -1.0, 0.5]) + 0.5 * torch.randn(20)
    covariance = torch.linalg.inv(x.T @ x / 0.25 + torch.eye(3))
    mean = covariance @ x.T @ y / 0.25
    return x, y, dist.MultivariateNormal(mean, covariance)


def broadcasting(x, y):
    beta = pyro.sample("beta", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    with pyro.plate("row", len(x)):
        pyro.sample("y", dist.Normal((x * beta).sum(-1), 0.5), obs=y)


def by_matrix_product(x, y):
    beta = pyro.sample("beta", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    with pyro.plate("row", len(x)):
        pyro.sample("y", dist.Normal(x @ beta, 0.5), obs=y)


@pytest.mark.parametrize("model", [broadcasting, by_matrix_product])
def test_regression_with_the_exact_posterior(regression, model):
    """Weights all equal to the evidence; predictions with the exact mean and spread.

    Sixty-six means and spreads of 2000 draws lie within 5 standard errors: a false alarm has
    probability below 66 * 6e-7. The matrix product does not broadcast and runs draw by draw.
    """
    x, y, exact = regression

    def guide(x, y):
        pyro.sample("beta", exact)

    options = {"model_args": (x, y), "num_samples": 2000}
    if model is broadcasting:
        tree = from_pyro_svi(model, guide, parallel=True, **options)
    else:
        with pytest.warns(UserWarning, match="the model cannot run for all draws at once"):
            tree = from_pyro_svi(model, guide, **options)
        quiet = from_pyro_svi(model, guide, parallel=False, num_samples=50, model_args=(x, y))
        assert dict(quiet.posterior.sizes) == {"chain": 1, "draw": 50, "beta_dim_0": 3}
    evidence = dist.MultivariateNormal(torch.zeros(20), x @ x.T + 0.25 * torch.eye(20)).log_prob(y)
    np.testing.assert_allclose(tree.sample_stats.log_weight, evidence.item(), atol=1e-3)

    for got, mean, covariance in [
        (tree.posterior.beta, exact.mean, exact.covariance_matrix),
        (
            tree.posterior_predictive.y,
            x @ exact.mean,
            x @ exact.covariance_matrix @ x.T + 0.25 * torch.eye(20),
        ),
        (tree.prior_predictive.y, torch.zeros(20), x @ x.T + 0.25 * torch.eye(20)),
    ]:
        sd = covariance.diagonal().sqrt().numpy()
        z = (got.values[0].mean(0) - mean.numpy()) / sd
        assert (abs(z) < 5 / math.sqrt(2000)).all()
        assert (abs(got.values[0].std(0) / sd - 1) < 5 / math.sqrt(2 * 2000)).all()
    assert tree.log_likelihood.y.dims == ("chain", "draw", "row")


@pytest.mark.parametrize("parallel", [True, False])
def test_log_probabilities_are_pyros(parallel):
    guide = autoguide.AutoNormal(eight_schools)
    fitted(eight_schools, guide, steps=20)
    tree = from_pyro_svi(eight_schools, guide, num_samples=30, parallel=parallel, chunk_draws=12)
    for index in (0, 11, 12, 29):
        draw = tree.posterior.isel(chain=0, draw=index)
        values = {name: torch.tensor(draw[name].values) for name in ("mu", "tau", "eta")}
        trace = poutine.trace(poutine.condition(eight_schools, values)).get_trace()
        stats = tree.sample_stats.isel(chain=0, draw=index)
        trace.compute_log_prob()
        assert stats.log_p.item() == pytest.approx(trace.log_prob_sum().item(), rel=1e-5)
        np.testing.assert_allclose(
            tree.log_likelihood.effect[0, index], trace.nodes["effect"]["log_prob"], rtol=1e-5
        )
        np.testing.assert_allclose(draw.theta, trace.nodes["theta"]["value"], rtol=1e-5)
        # The density of a log-normal tau: the normal's of its logarithm, less the Jacobian.
        log_q = -values["tau"].log()
        for name, value in values.items():
            loc, scale = getattr(guide.locs, name), getattr(guide.scales, name)
            free = value.log() if name == "tau" else value
            log_q = log_q + dist.Normal(loc, scale).log_prob(free).sum()
        assert stats.log_q.item() == pytest.approx(log_q.item(), rel=1e-4)
        assert stats.log_weight.item() == stats.log_p.item() - stats.log_q.item()


def test_eight_schools_reads_well_in_arviz(tmp_path):
    guide = autoguide.AutoMultivariateNormal(eight_schools)
    losses = fitted(eight_schools, guide, steps=30)
    tree = from_pyro_svi(
        eight_schools, guide, num_samples=200, losses=losses, coords={"school": SCHOOLS}
    )
    assert list(tree.children) == [
        "posterior",
        "prior",
        "posterior_predictive",
        "prior_predictive",
        "log_likelihood",
        "sample_stats",
        "observed_data",
        "fit_history",
    ]
    assert list(tree.posterior.data_vars) == ["mu", "tau", "eta", "theta"]
    assert tree.posterior.mu.dims == ("chain", "draw")
    for array in (
        tree.posterior.theta,
        tree.prior.eta,
        tree.posterior_predictive.effect,
        tree.prior_predictive.effect,
        tree.log_likelihood.effect,
    ):
        assert array.dims == ("chain", "draw", "school")
        assert list(array.school.values) == SCHOOLS
    np.testing.assert_array_equal(tree.observed_data.effect, EFFECT)
    np.testing.assert_array_equal(tree.fit_history.loss, losses)
    assert tree.fit_history.loss.dims == ("step",)
    table = arviz_stats.summary(tree, var_names=["mu", "theta"], kind="stats", round_to=3)
    assert list(table.index) == ["mu", *(f"theta[{school}]" for school in SCHOOLS)]
    arviz_plots.plot_forest(tree, var_names=["theta"], combined=True, backend="none")
    write_datatree(tree, tmp_path / "schools.nc")


@pytest.mark.parametrize(
    ("where", "event_dim", "expected"),
    [
        ("inside", None, ("school", "curve_dim_0")),
        ("inside", 1, ("school", "curve_dim_0")),
        ("outside", None, ("curve_dim_0", "curve_dim_1")),
    ],
)
def test_dimensions_of_deterministic_sites(where, event_dim, expected):
    def model():
        with pyro.plate("school", 8):
            eta = pyro.sample("eta", dist.Normal(0.0, 1.0))
            curve = eta[..., None] * torch.arange(3.0)
            if where == "inside":
                pyro.deterministic("curve", curve, event_dim=event_dim)
        if where == "outside":
            pyro.deterministic("curve", curve)

    guide = autoguide.AutoNormal(model)
    tree = from_pyro_svi(model, guide, num_samples=5, parallel=True)
    assert tree.posterior.curve.dims == ("chain", "draw", *expected)
    np.testing.assert_allclose(tree.posterior.curve[..., 2], 2 * tree.posterior.eta, rtol=1e-6)
    for names in (["time"], ["place", "time"]) if where == "inside" else (["place", "time"],):
        named = from_pyro_svi(model, guide, num_samples=5, dims={"curve": names})
        wanted = ("school", "time") if len(names) == 1 else ("place", "time")
        assert named.posterior.curve.dims == ("chain", "draw", *wanted)


def stacked(y):
    """Stacks draws in the wrong place: the right number of entries, in the wrong order."""
    a = pyro.sample("a", dist.Normal(0.0, 1.0))
    b = pyro.sample("b", dist.Normal(0.0, 1.0))
    both = pyro.deterministic("both", torch.stack([a, b]))
    pyro.sample("y", dist.Normal(both.sum(), 1.0), obs=y)


def branching(y):
    a = pyro.sample("a", dist.Normal(0.0, 1.0))
    pyro.sample("y", dist.Normal(a if a.item() > 0 else -a, 1.0), obs=y)


def mixing(y):
    """Runs at once without complaint, but with the mean of all draws."""
    a = pyro.sample("a", dist.Normal(0.0, 1.0))
    pyro.sample("y", dist.Normal(a.mean(), 1.0), obs=y)


@pytest.mark.parametrize("model", [stacked, branching, mixing])
def test_programs_that_cannot_run_at_once_run_draw_by_draw(model):
    guide = autoguide.AutoNormal(model)
    args = (torch.tensor(0.3),)
    with pytest.warns(UserWarning, match="the model cannot run for all draws at once.*parallel"):
        tree = from_pyro_svi(model, guide, model_args=args, num_samples=20)
    alone = from_pyro_svi(model, guide, model_args=args, num_samples=20, parallel=False)
    with pytest.raises(ValueError, match="pass parallel=None or False"):
        from_pyro_svi(model, guide, model_args=args, num_samples=20, parallel=True)
    for both in (tree, alone):
        for index in range(20):
            draw = both.posterior.isel(chain=0, draw=index)
            values = {n: torch.tensor(draw[n].values) for n in draw if n in ("a", "b")}
            trace = poutine.trace(poutine.condition(model, values)).get_trace(*args)
            log_p = both.sample_stats.log_p[0, index].item()
            assert log_p == pytest.approx(trace.log_prob_sum().item(), rel=1e-5)
            if model is stacked:
                np.testing.assert_allclose(draw.both, [draw.a, draw.b])


def test_a_latent_drawn_once_for_all_draws_is_noticed():
    def model():
        a = pyro.sample("a", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(a, 1.0), obs=torch.tensor(0.5))

    def guide():
        with block_plate("_draws", strict=False):
            pyro.sample("a", dist.Normal(0.0, 1.0))

    with pytest.warns(UserWarning, match="the guide cannot.*'a' is then drawn only once"):
        tree = from_pyro_svi(model, guide, num_samples=5)
    assert len(np.unique(tree.posterior.a)) == 5


def mixture(y):
    with pyro.plate("row", len(y)):
        c = pyro.sample("c", dist.Categorical(torch.tensor([0.3, 0.7])))
        pyro.sample("y", dist.Normal(torch.tensor([-1.0, 2.0])[c], 1.0), obs=y)


def test_mixture_with_amortized_assignments():
    """With the exact responsibilities every weight of a row is that row's evidence."""
    y = torch.randn(15) * 2
    parts = dist.Normal(torch.tensor([-1.0, 2.0]), 1.0)
    joint = torch.tensor([0.3, 0.7]).log() + parts.log_prob(y[:, None])  # (row, component)

    def guide(y):
        # A linear function of y, as the logits of two normals of equal scale are.
        logits = torch.stack([torch.zeros_like(y), 3 * y - 1.5 + math.log(7 / 3)], -1)
        with pyro.plate("row", len(y)):
            pyro.sample("c", dist.Categorical(logits=logits))

    tree = from_pyro_svi(mixture, guide, model_args=(y,), num_samples=200, parallel=True)
    assert tree.sample_stats.log_weight.dims == ("chain", "draw", "row")
    expected = np.broadcast_to(joint.logsumexp(-1), (1, 200, 15))
    np.testing.assert_allclose(tree.sample_stats.log_weight, expected, atol=1e-5)


def test_mixture_with_assignments_summed_out():
    """Unknown locations, known by quadrature: the mean weight is within 5 standard errors.

    The false-alarm rate is below 6e-7.
    """
    y = torch.cat([torch.randn(15) - 2, torch.randn(15) + 2])

    def likelihood(loc):
        parts = dist.Normal(torch.stack([loc - 2, loc + 2], -1), 1.0)
        weights = torch.full_like(parts.loc, 0.5)
        return dist.MixtureSameFamily(dist.Categorical(weights), parts)

    def model(y):
        loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
        with pyro.plate("row", len(y)):
            pyro.sample("y", likelihood(loc), obs=y)

    guide = autoguide.AutoNormal(model)
    fitted(model, guide, y, steps=200)
    grid = torch.linspace(-4, 4, 4001, dtype=torch.float64)
    log_joint = dist.Normal(0.0, 1.0).log_prob(grid) + likelihood(grid[:, None]).log_prob(y).sum(1)
    exact = (log_joint.logsumexp(0) + math.log(8 / 4000)).item()
    got, error = mean_weight(from_pyro_svi(model, guide, model_args=(y,), parallel=True))
    assert error < 0.05
    assert abs(got - exact) < 5 * error


def test_vae_has_weights_by_row(oracle):
    vae, rows = oracle.vae(), oracle.rows(6)
    tree = from_pyro_svi(vae.model, vae.guide, model_args=(rows,), num_samples=50, parallel=True)
    assert tree.posterior.z.dims == ("chain", "draw", "row", "z_dim_0")
    assert tree.log_likelihood.x.dims == ("chain", "draw", "row")
    expected = np.broadcast_to(oracle.log_evidence(rows), (1, 50, 6))
    np.testing.assert_allclose(tree.sample_stats.log_weight, expected, atol=1e-6)
    ours = to_datatree(vae, rows, num_samples=50, progress=False)
    assert tree.sample_stats.log_weight.dims == ours.sample_stats.log_weight.dims
    np.testing.assert_array_equal(tree.observed_data.x, ours.observed_data.x)


def test_the_world_is_left_as_found(oracle):
    vae, rows = oracle.vae(), oracle.rows(6)
    guide = autoguide.AutoNormal(eight_schools)
    svi = SVI(eight_schools, guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
    svi.step()
    vae.train()
    store = pyro.get_param_store()
    before = {name: value.clone() for name, value in store.items()}
    unconstrained = [store[name].unconstrained() for name in before]
    state, validating = torch.get_rng_state(), is_validation_enabled()
    first = from_pyro_svi(eight_schools, guide, num_samples=5)
    from_pyro_svi(vae.model, vae.guide, model_args=(rows,), num_samples=5)
    with pytest.raises(ValueError, match="groups has"):
        from_pyro_svi(eight_schools, guide, groups=("posteriors",))
    assert torch.equal(torch.get_rng_state(), state)
    assert is_validation_enabled() == validating
    assert vae.training
    assert vae.encoder.training
    assert set(store.keys()) == set(before)
    assert all(torch.equal(store[name], value) for name, value in before.items())
    now = [store[name].unconstrained() for name in before]
    assert all(a is b for a, b in zip(unconstrained, now, strict=True))
    svi.step()  # goes on training what it did
    assert not torch.equal(store["AutoNormal.locs.mu"], before["AutoNormal.locs.mu"])

    again = from_pyro_svi(eight_schools, guide, num_samples=5)
    assert not again.posterior.equals(first.posterior)
    few = from_pyro_svi(eight_schools, guide, num_samples=5, groups=("posterior",))
    assert few.posterior.equals(again.posterior)
    assert list(few.children) == ["posterior"]


def test_dropout_is_off():
    class Net(pyro.nn.PyroModule):
        def __init__(self):
            super().__init__()
            self.dropout = torch.nn.Dropout(0.5)

        def forward(self, y):
            a = pyro.sample("a", dist.Normal(torch.zeros(8), 1.0).to_event(1))
            pyro.sample("y", dist.Normal(self.dropout(a), 1.0).to_event(1), obs=y)

    model = Net()
    guide = autoguide.AutoNormal(model)
    tree = from_pyro_svi(model, guide, model_args=(torch.zeros(8),), num_samples=5, parallel=True)
    expected = dist.Normal(torch.tensor(tree.posterior.a.values), 1.0).log_prob(torch.zeros(8))
    np.testing.assert_allclose(tree.log_likelihood.y, expected.sum(-1), rtol=1e-5)
    assert model.dropout.training


def test_point_estimates_have_no_weights():
    guide = autoguide.AutoDelta(eight_schools)
    with pytest.warns(UserWarning, match="the guide fixes mu, tau, eta at one point"):
        tree = from_pyro_svi(eight_schools, guide, num_samples=5)
    assert list(tree.sample_stats.data_vars) == ["log_p"]
    assert tree.sample_stats.attrs["point_estimates"] == "mu, tau, eta"


def test_point_estimates_beside_draws():
    """Given tau fixed, the mean weight is p(y, tau), within 5 standard errors (below 6e-7)."""
    y = torch.randn(12) * 0.7 + 0.5
    guide = autoguide.AutoGuideList(normal_gamma)
    guide.append(autoguide.AutoDelta(poutine.block(normal_gamma, expose=["tau"])))
    guide.append(autoguide.AutoNormal(poutine.block(normal_gamma, expose=["mu"])))
    fitted(normal_gamma, guide, y)
    with pytest.warns(UserWarning, match="the guide fixes tau at one point"):
        tree = from_pyro_svi(normal_gamma, guide, model_args=(y,))
    tau = torch.tensor(tree.posterior.tau.values[0, 0]).double()
    covariance = (torch.eye(12) + torch.full((12, 12), 0.5)) / tau
    p_y = dist.MultivariateNormal(torch.zeros(12, dtype=torch.float64), covariance)
    exact = p_y.log_prob(y.double()) + dist.Gamma(3.0, 2.0).log_prob(tau)
    got, error = mean_weight(tree)
    assert error < 0.05
    assert abs(got - exact.item()) < 5 * error


def test_factors_count_and_are_no_data():
    def model():
        a = pyro.sample("a", dist.Normal(0.0, 1.0))
        pyro.factor("penalty", -(a**2))

    tree = from_pyro_svi(model, autoguide.AutoNormal(model), num_samples=8)
    a = torch.tensor(tree.posterior.a.values)
    expected = dist.Normal(0.0, 1.0).log_prob(a) - a**2
    np.testing.assert_allclose(tree.sample_stats.log_p, expected, rtol=1e-5)
    assert list(tree.children) == ["posterior", "prior", "sample_stats"]


def scaled(y):
    with poutine.scale(scale=0.1):
        normal_gamma(y)


def improper():
    a = pyro.sample("a", dist.ImproperUniform(constraints.real, (), ()))
    pyro.sample("y", dist.Normal(a, 1.0), obs=torch.tensor(0.0))


def at_zero():
    pyro.sample("a", dist.Normal(0.0, 1.0))


def with_more():
    at_zero()
    pyro.sample("b", dist.Normal(0.0, 1.0))


def in_a_draw():
    with pyro.plate("draw", 3):
        pyro.sample("a", dist.Normal(0.0, 1.0))


def called_chain():
    pyro.sample("chain", dist.Normal(0.0, 1.0))


def called_alike():
    for name in ("a/b", "a.b"):
        pyro.sample(name, dist.Normal(0.0, 1.0))


def all_known():
    pyro.sample("a", dist.Normal(0.0, 1.0), obs=torch.tensor(0.0))


Y = (torch.ones(3),)


@pytest.mark.parametrize(
    ("model", "guide", "options", "message"),
    [
        (scaled, None, {"model_args": Y}, "scales the log-probability of site 'tau' by 0.1"),
        (config_enumerate(mixture), lambda y: None, {"model_args": Y}, "enumerates c.*MixtureSame"),
        (with_more, at_zero, {}, "the guide has no site b, which the model draws"),
        (at_zero, with_more, {}, "the model does not draw b.*is_auxiliary"),
        (all_known, lambda: None, {}, "draws nothing"),
        (improper, at_zero, {}, "prior cannot be drawn from.*leave 'prior'"),
        (in_a_draw, None, {}, "rename the plate"),
        (called_chain, called_chain, {}, "a site called 'chain'.*rename the site"),
        (called_alike, called_alike, {}, "'a/b' and 'a.b', which a DataTree would both call 'a.b'"),
        (eight_schools, None, {"groups": ["posteriors"]}, r"groups has \['posteriors'\]; accepted"),
        (eight_schools, None, {"num_samples": 0}, "num_samples is 0"),
        (eight_schools, None, {"chunk_draws": 0}, "chunk_draws is 0"),
        (eight_schools, None, {"seed": -1}, "seed is -1"),
        (eight_schools, None, {"dims": {"etta": ["a"]}}, r"dims has \['etta'\].*mu, tau"),
        (eight_schools, None, {"dims": {"mu": ["a"]}}, r"dims\['mu'\] has 1 names.*has 0"),
        (eight_schools, None, {"coords": {"scool": "a"}}, "coords has 'scool'.*school"),
        (eight_schools, None, {"coords": {"school": "abc"}}, "3 labels.*of size 8"),
    ],
)
def test_what_is_refused(model, guide, options, message):
    guide = guide or autoguide.AutoNormal(model)
    with pytest.raises(ValueError, match=message):
        from_pyro_svi(model, guide, **{"num_samples": 5, **options})


def test_improper_priors_have_a_posterior():
    tree = from_pyro_svi(improper, at_zero, num_samples=5, groups=("posterior", "sample_stats"))
    assert tree.posterior.a.shape == (1, 5)


def test_only_local_latents_have_no_leave_one_out(oracle):
    """The caution's own formula gives each row's exact log p(x); global latents have none."""
    vae, x = oracle.vae(), oracle.rows(6)
    tree = from_pyro_svi(vae.model, vae.guide, model_args=(x,), num_samples=200)
    assert "PSIS-LOO" in tree.log_likelihood.attrs["caution"]
    weight = tree.sample_stats.log_weight[0]
    found = torch.logsumexp(torch.as_tensor(weight.values), 0) - np.log(weight.sizes["draw"])
    torch.testing.assert_close(found, oracle.log_evidence(x), rtol=1e-6, atol=1e-6)

    def model(y):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("school", len(y)):
            pyro.sample("y", dist.Normal(mu, 1.0), obs=y)

    tree = from_pyro_svi(
        model, autoguide.AutoNormal(model), model_args=(torch.ones(8),), num_samples=20
    )
    assert "caution" not in tree.log_likelihood.attrs
    assert "not of the posterior" in tree.posterior.attrs["caution"]


def test_names_with_a_slash_are_read(tmp_path):
    def model(y):
        with scope(prefix="left"):
            mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("left/row", len(y)):
            z = pyro.sample("z", dist.Normal(mu, 1.0))
            pyro.sample("of/y", dist.Normal(z, 1.0), obs=y)

    def guide(y):
        pyro.sample("left/mu", dist.Normal(0.0, 1.0))
        with pyro.plate("left/row", len(y)):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    options = {"model_args": (torch.ones(3),), "num_samples": 5}
    tree = from_pyro_svi(
        model, guide, coords={"left/row": list("abc")}, dims={"of/y": ["it/em"]}, **options
    )
    write_datatree(tree, tmp_path / "tree.nc")
    assert list(tree.posterior.data_vars) == ["left.mu", "z"]
    assert tree.posterior.z.dims == ("chain", "draw", "left.row")
    assert tree.posterior["left.row"].values.tolist() == ["a", "b", "c"]
    assert tree.observed_data["of.y"].dims == ("it.em",)
    assert tree.log_likelihood["of.y"].shape == (1, 5, 3)
