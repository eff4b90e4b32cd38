"""Compiled objectives give the numbers of Pyro's own, whatever changes between steps."""

import warnings
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
import zuko
from pyro import poutine
from pyro.contrib.zuko import ZukoToPyro
from pyro.distributions.transforms import (
    conditional_spline_autoregressive,
    spline_autoregressive,
    spline_coupling,
)
from pyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import (
    AutoDiagonalNormal,
    AutoIAFNormal,
    AutoMultivariateNormal,
    AutoNormal,
)
from pyro.nn import PyroModule, PyroSample
from torch import Tensor, nn
from torch.distributions import constraints

from ppl_vae import VAE, VAEConfig
from ppl_vae.inference.engine import compiled
from ppl_vae.inference.engine.compiled import CompiledTrace_ELBO, CompiledTraceMeanField_ELBO

pytestmark = pytest.mark.usefixtures("double")

# A program: how to build model and guide, and the arguments of each step.
Build = Callable[[], tuple[Any, Any]]
Call = tuple[tuple[Any, ...], dict[str, Any]]


@pytest.fixture
def double():
    kept = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(kept)


@pytest.fixture(autouse=True)
def _uncompiled(monkeypatch):
    """Compiling takes seconds: only in tests that set this again."""
    monkeypatch.setattr(compiled, "_REPLAYS", 10**9)


def history(objective: Any, build: Build, calls: list[Call], between=None) -> list[list[Tensor]]:
    """Losses and gradients of some steps down the gradient, and random numbers drawn after."""
    pyro.clear_param_store()
    torch.manual_seed(0)
    model, guide = build()
    made = []
    for step, (args, kwargs) in enumerate(calls):
        if between is not None:
            between(step, model, guide)
        loss = objective.loss_and_grads(model, guide, *args, **kwargs)
        parameters = dict(pyro.get_param_store().named_parameters())
        gradients = [p.grad for p in parameters.values() if p.grad is not None]
        made.append([torch.tensor(float(loss)), *(g.clone() for g in gradients), torch.rand(2)])
        with torch.no_grad():
            for parameter in parameters.values():
                if parameter.grad is not None:
                    parameter -= 1e-3 * parameter.grad / (1 + parameter.grad.norm())
                    parameter.grad = None
    return made


def assert_same(build: Build, calls: list[Call], between=None, pair=None, replays=None) -> None:
    """Losses, gradients and random state of Pyro's objective and ours, to 1e-10."""
    theirs, ours = pair or (Trace_ELBO(), CompiledTrace_ELBO())
    expected = history(theirs, build, calls, between)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # PyTorch 2.13's own compiler.
        warnings.filterwarnings("ignore", ".torch.jit.script_method. is deprecated")
        made = history(ours, build, calls, between)
    for one, other in zip(made, expected, strict=True):
        assert len(one) == len(other) > 2
        for value, exact in zip(one, other, strict=True):
            torch.testing.assert_close(value, exact, rtol=1e-10, atol=1e-10)
    count = sum(len(program.replays) for program in ours._programs.values())
    assert count == (1 if replays is None else replays)


def repeated(*args: Any, times: int = 4, **kwargs: Any) -> list[Call]:
    return [(args, kwargs)] * times


def build_vae(**options: Any) -> tuple[Any, Any]:
    config = VAEConfig(event_shape=(8, 8), latent_dim=2, **{"hidden": (16,), **options})
    vae = VAE.from_config(config)
    return vae.double().model, vae.guide


def images(rows: int = 12) -> Tensor:
    return (torch.rand(rows, 8, 8, generator=torch.Generator().manual_seed(0)) < 0.3).double()


SCHOOLS = torch.tensor([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0]).double()
ERRORS = torch.tensor([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0]).double()


def schools(y: Tensor, sigma: Tensor) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 10.0))
    tau = pyro.sample("tau", dist.HalfCauchy(torch.tensor(10.0)))
    with pyro.plate("school", len(y)):
        theta = pyro.sample("theta", dist.Normal(mu, tau))
        pyro.sample("y", dist.Normal(theta, sigma), obs=y)


def subsampled(x: Tensor) -> None:
    loc = pyro.sample("loc", dist.Normal(0.0, 10.0))
    with pyro.plate("row", len(x), subsample_size=5) as rows:
        pyro.sample("x", dist.Normal(loc, 1.0), obs=x[rows])


def constrained_guide(x: Tensor) -> None:
    loc = pyro.param("loc_q", torch.tensor(0.5))
    scale = pyro.param("scale_q", torch.tensor(0.5), constraint=constraints.positive)
    pyro.sample("loc", dist.Normal(loc, scale))
    pyro.plate("row", len(x), subsample_size=5)


class BayesianRegression(PyroModule):
    """Pyro's tutorial, whose priors are made, and expanded, outside of the program."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = PyroModule[nn.Linear](3, 1)
        self.linear.weight = PyroSample(dist.Normal(0.0, 1.0).expand([1, 3]).to_event(2))
        self.linear.bias = PyroSample(dist.Normal(0.0, 10.0).expand([1]).to_event(1))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        sigma = pyro.sample("sigma", dist.Uniform(0.0, 10.0))
        mean = self.linear(x).squeeze(-1)
        with pyro.plate("data", len(x)):
            pyro.sample("obs", dist.Normal(mean, sigma), obs=y)
        return mean


def regression(kind: Any) -> tuple[Any, Any]:
    with pyro.validation_enabled(True):
        model = BayesianRegression()
    return model, kind(model)


def spline_programs(transform: Any) -> tuple[Any, Any]:
    decoder = nn.Linear(2, 4)

    def model(x: Tensor) -> None:
        pyro.module("decoder", decoder)
        with pyro.plate("row", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(decoder(z), 1.0).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        pyro.module("transform", transform)
        with pyro.plate("row", len(x)):
            if isinstance(transform, zuko.lazy.LazyDistribution):
                q = ZukoToPyro(transform(x))
            else:
                base = dist.Normal(torch.zeros(len(x), 2), 0.9)
                given = transform.condition(x) if hasattr(transform, "condition") else transform
                q = dist.TransformedDistribution(base, [given])
            pyro.sample("z", q)

    return model, guide


# Their first step selects by a mask, which no recording can hold.
SPLINES: dict[str, Callable[[], Any]] = {
    "conditional_spline_autoregressive": lambda: conditional_spline_autoregressive(2, 4),
    "spline_autoregressive": lambda: spline_autoregressive(2),
    "spline_coupling": lambda: spline_coupling(2),
}

# Programs of which Pyro's own particles are not vectorized.
OTHERS: dict[str, tuple[Build, list[Call]]] = {
    **{
        f"regression, {kind.__name__}": (
            lambda kind=kind: regression(kind),
            repeated(
                torch.linspace(-2, 2, 60).reshape(20, 3).square().double(),
                torch.linspace(-1, 1, 20).double(),
            ),
        )
        for kind in (AutoDiagonalNormal, AutoMultivariateNormal)
    },
    # The data lie in other pieces of the splines at each step.
    "zuko's NSF": (
        lambda: spline_programs(zuko.flows.NSF(2, 4, transforms=1, hidden_features=(4,))),
        [((torch.full((6, 4), value).double(),), {}) for value in (0.1, 1.0, 9.0, -3.0)],
    ),
}

PROGRAMS: dict[str, tuple[Build, list[Call]]] = {
    "vae": (build_vae, repeated(images())),
    "convolutional vae": (
        lambda: build_vae(network="conv", hidden=(4, 8, 16)),
        repeated(images()),
    ),
    "vae of counts": (lambda: build_vae(likelihood="negative_binomial"), repeated(images() * 3)),
    "schools, AutoNormal": (lambda: (schools, AutoNormal(schools)), repeated(SCHOOLS, ERRORS)),
    "schools, AutoMultivariateNormal": (
        lambda: (schools, AutoMultivariateNormal(schools)),
        repeated(SCHOOLS, ERRORS),
    ),
    "schools, AutoIAFNormal": (
        lambda: (schools, AutoIAFNormal(schools, hidden_dim=[16])),
        repeated(SCHOOLS, ERRORS),
    ),
    "subsampled plate": (
        lambda: (subsampled, constrained_guide),
        repeated(torch.arange(20.0).double()),
    ),
}


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize(
    "options",
    [{}, {"num_particles": 3}, {"num_particles": 3, "vectorize_particles": True}],
    ids=["one particle", "three", "three, vectorized"],
)
def test_same_as_trace_elbo(name, options):
    if name == "schools, AutoIAFNormal" and options.get("vectorize_particles"):
        options = {**options, "max_plate_nesting": 1}
    assert_same(*PROGRAMS[name], pair=(Trace_ELBO(**options), CompiledTrace_ELBO(**options)))


@pytest.mark.parametrize("name", OTHERS)
def test_same_as_trace_elbo_of_one_particle(name):
    assert_same(*OTHERS[name])


@pytest.mark.parametrize("particles", [1, 3])
@pytest.mark.parametrize("name", ["vae", "schools, AutoNormal", "subsampled plate"])
def test_same_as_mean_field_elbo(name, particles):
    options = {"num_particles": particles}
    pair = (TraceMeanField_ELBO(**options), CompiledTraceMeanField_ELBO(**options))
    assert_same(*PROGRAMS[name], pair=pair)


@pytest.mark.parametrize("name", ["vae", "schools, AutoMultivariateNormal", "subsampled plate"])
def test_compiled_is_the_same_too(name, monkeypatch):
    monkeypatch.setattr(compiled, "_REPLAYS", 2)
    build, calls = PROGRAMS[name]
    assert_same(build, calls[:1] * 6)


def test_a_new_shape_is_a_new_recording():
    x = images(20)
    assert_same(build_vae, [((x[:n],), {}) for n in (8, 8, 4, 8, 4, 4)], replays=2)


class Noisy(nn.Module):
    """A network with dropout and batch normalization."""

    out_features = 16

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(64, 16), nn.BatchNorm1d(16), nn.Dropout(0.3))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.flatten(-2))


def build_noisy() -> tuple[Any, Any]:
    from ppl_vae import BernoulliDecoder, NormalEncoder, StandardNormal

    encoder = NormalEncoder(Noisy(), 2)
    vae = VAE(StandardNormal(2), BernoulliDecoder(nn.Linear(2, 64), (8, 8)), encoder)
    return vae.double().model, vae.guide


def test_dropout_and_batch_normalization_in_training_and_evaluation():
    statistics = []

    def between(step, model, guide):
        vae = guide.__self__
        vae.train(step not in (3, 4))
        statistics.append(vae.encoder.network.layers[1].running_mean.clone())

    assert_same(build_noisy, repeated(images(), times=7), between, replays=2)
    theirs, ours = statistics[:7], statistics[7:]
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    assert not torch.equal(ours[3], ours[6])
    assert torch.equal(ours[3], ours[5])  # evaluation leaves them be


def test_a_replaced_module_is_seen():
    def between(step, model, guide):
        if step == 3:
            guide.__self__.encoder.loc_head = nn.Linear(16, 2)
            pyro.clear_param_store()

    assert_same(build_vae, repeated(images(), times=6), between, replays=2)


def test_a_parameter_that_is_added_is_seen():
    def model(x):
        pyro.sample("z", dist.Normal(0.0, 1.0))

    def build():
        flags = {"more": torch.nn.Module()}

        def guide(x):
            loc = pyro.param("loc", torch.tensor(0.5))
            for name, _ in flags["more"].named_parameters():
                loc = loc + pyro.param(name, torch.tensor(0.1))
            pyro.sample("z", dist.Normal(loc, 1.0))

        guide.more = flags["more"]
        guide.call = flags["more"].forward = lambda: None
        more = flags["more"]

        def seen(x):
            more()
            return guide(x)

        seen.more = more
        return model, seen

    def between(step, model, guide):
        if step == 3:
            guide.more.extra = nn.Parameter(torch.tensor(0.1))

    assert_same(build, repeated(torch.ones(2), times=6), between, replays=2)


def test_a_replaced_parameter_is_seen():
    def between(step, model, guide):
        if step == 3:
            store = pyro.get_param_store()
            store["scale_q"] = torch.tensor(2.0)

    build, calls = PROGRAMS["subsampled plate"]
    assert_same(build, calls[:1] * 6, between, replays=2)


def test_a_frozen_part_gets_no_gradient():
    def between(step, model, guide):
        for parameter in guide.__self__.decoder.parameters():
            parameter.requires_grad_(step not in (3, 4))

    assert_same(build_vae, repeated(images(), times=7), between, replays=2)


def test_masks_and_weights_that_change_each_step():
    def build():
        vae = build_vae()[0].__self__

        def model(x, weight, *, mask):
            pyro.module("decoder", vae.decoder)
            with pyro.plate("row", len(x)):
                with poutine.scale(scale=weight):
                    z = pyro.sample("z", vae.prior())
                with poutine.mask(mask=mask):
                    pyro.sample("x", vae.decoder(z), obs=x)

        def guide(x, weight, *, mask):
            pyro.module("encoder", vae.encoder)
            with pyro.plate("row", len(x)), poutine.scale(scale=weight):
                pyro.sample("z", vae.encoder(x))

        return model, guide

    x = images()
    masks = torch.rand(5, len(x), generator=torch.Generator().manual_seed(1)) < 0.5
    calls = [((x, torch.tensor(0.1 + 0.2 * i)), {"mask": masks[i]}) for i in range(5)]
    assert_same(build, calls)


def test_other_arguments_are_constants_of_their_own_recording():
    def model(x, *, scale, name="x"):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("row", len(x)):
            pyro.sample(name, dist.Normal(z, scale), obs=x)

    def guide(x, **_):
        pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.5)), 1.0))

    calls = [((torch.ones(3),), {"scale": s}) for s in (1.0, 1.0, 2.0, 1.0, 2.0, 2.0)]
    assert_same(lambda: (model, guide), calls, replays=2)


def test_two_models_at_once():
    objective, eager = CompiledTrace_ELBO(), Trace_ELBO()
    losses = {}
    for each in (objective, eager):
        pyro.clear_param_store()
        torch.manual_seed(0)
        vaes = [
            VAE.from_config(VAEConfig(event_shape=(8, 8), latent_dim=d, hidden=(8,)), name=f"v{d}")
            for d in (2, 3)
        ]
        svis = [
            SVI(vae.double().model, vae.guide, pyro.optim.Adam({"lr": 0.01}), each) for vae in vaes
        ]
        losses[each] = [svi.step(images()) for _ in range(5) for svi in svis]
    assert losses[objective] == pytest.approx(losses[eager], rel=1e-10)


def test_svi_steps_are_the_same():
    losses = {}
    for each in (CompiledTrace_ELBO(), Trace_ELBO()):
        pyro.clear_param_store()
        torch.manual_seed(0)
        svi = SVI(schools, AutoNormal(schools), pyro.optim.Adam({"lr": 0.05}), each)
        losses[each] = [svi.step(SCHOOLS, ERRORS) for _ in range(50)]
    one, other = losses.values()
    assert one == pytest.approx(other, rel=1e-9)
    assert one[-1] < one[0]


def test_differentiable_loss_has_the_same_gradients():
    model, guide = build_vae()
    parameters = list(guide.__self__.parameters())
    made = []
    for each in (CompiledTrace_ELBO(), Trace_ELBO()):
        for step in range(3):
            torch.manual_seed(step)
            loss = 0.5 * each.differentiable_loss(model, guide, images())
            made.append([loss.detach(), *torch.autograd.grad(loss, parameters)])
    for ours, theirs in zip(made[:3], made[3:], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def test_gradients_add_up():
    model, guide = build_vae()
    parameters = list(guide.__self__.parameters())
    objective = CompiledTrace_ELBO()
    for step in range(4):
        torch.manual_seed(0)
        objective.loss_and_grads(model, guide, images())
        if step == 0:
            once = [p.grad.clone() for p in parameters]
    torch.testing.assert_close([p.grad for p in parameters], [4 * g for g in once])


def discrete(x: Tensor) -> None:
    with pyro.plate("row", len(x)):
        z = pyro.sample("z", dist.Bernoulli(0.3))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def discrete_guide(x: Tensor) -> None:
    with pyro.plate("row", len(x)):
        pyro.sample("z", dist.Bernoulli(pyro.param("p", torch.tensor(0.4))))


def branching(x: Tensor) -> None:
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    if z > 0:
        z = z * 2
    with pyro.plate("row", len(x)):
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def branching_guide(x: Tensor) -> None:
    pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.4)), 1.0))


@pytest.mark.parametrize(
    ("model", "guide", "reason"),
    [
        (discrete, discrete_guide, r"score-function terms.*\['z'\]"),
        (branching, branching_guide, "if z > 0.* reads the value of a tensor by __bool__"),
    ],
)
def test_what_cannot_be_recorded_runs_eagerly_and_says_so_once(model, guide, reason):
    objective = CompiledTrace_ELBO()
    pyro.clear_param_store()
    torch.manual_seed(0)
    with pytest.warns(RuntimeWarning, match=f"runs eagerly: .*{reason}") as said:
        ours = [objective.loss_and_grads(model, guide, torch.ones(4)) for _ in range(4)]
    assert len(said) == 1
    pyro.clear_param_store()
    torch.manual_seed(0)
    assert ours == [Trace_ELBO().loss_and_grads(model, guide, torch.ones(4)) for _ in range(4)]


@pytest.mark.parametrize("name", SPLINES)
def test_shapes_that_depend_on_values_are_noticed_when_recording(name):
    """Pyro's splines: the same numbers as eagerly, with data whose selections differ in size."""
    losses = {}
    for each in (CompiledTrace_ELBO(), Trace_ELBO()):
        pyro.clear_param_store()
        torch.manual_seed(0)
        model, guide = spline_programs(SPLINES[name]())
        svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), each)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            losses[each] = [svi.step(torch.full((9, 4), float(i % 4))) for i in range(8)]
        if each.__class__ is CompiledTrace_ELBO:
            assert len(said) == 1
            assert "runs eagerly: the program selects by a mask in line " in str(said[0].message)
            assert "of test_engine_compiled.py" in str(said[0].message)
    one, other = losses.values()
    assert one == other


def test_handlers_around_it_and_arguments_with_gradients_run_eagerly():
    model, guide = build_vae()
    objective = CompiledTrace_ELBO()
    torch.manual_seed(0)
    with poutine.scale(scale=0.5), pytest.warns(RuntimeWarning, match="inside of effect handlers"):
        half = objective.loss_and_grads(model, guide, images())
    torch.manual_seed(0)
    assert objective.loss_and_grads(model, guide, images()) == pytest.approx(2 * half)
    with pytest.warns(RuntimeWarning, match="an argument requires gradients"):
        objective.loss_and_grads(model, guide, images().requires_grad_())


def test_constants_that_never_stop_changing_are_said():
    def model(weight):
        pyro.sample("z", dist.Normal(weight, 1.0))

    def guide(weight):
        pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 1.0))

    objective = CompiledTrace_ELBO()
    losses = (
        objective.loss_and_grads(model, guide, float(step)) for step in range(compiled._MOST + 5)
    )
    with pytest.warns(RuntimeWarning, match="pass what changes") as said:
        list(losses)
    assert len(said) == 1


def test_without_a_compiler_it_replays_and_says_so_once(monkeypatch):
    from torch._inductor import config

    monkeypatch.setattr(compiled, "_REPLAYS", 2)
    model, guide = build_vae()
    objective = CompiledTrace_ELBO()

    def loss(step):
        torch.manual_seed(step)
        return objective.loss_and_grads(model, guide, images())

    with (
        config.patch({"cpp.cxx": ("no-such-compiler",), "fx_graph_cache": False}),
        pytest.warns(RuntimeWarning, match="replays uncompiled: .*ompiler") as said,
    ):
        ours = [loss(step) for step in range(5)]
    # PyTorch 2.13's own compiler warns of itself.
    assert len([each for each in said if issubclass(each.category, RuntimeWarning)]) == 1
    for step, loss in enumerate(ours):
        torch.manual_seed(step)
        assert Trace_ELBO().loss_and_grads(model, guide, images()) == pytest.approx(loss)


@pytest.mark.gpu
def test_gpu_gives_the_same_numbers():
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    made = []
    for objective in (Trace_ELBO(), CompiledTrace_ELBO()):
        pyro.clear_param_store()
        torch.manual_seed(0)
        model, guide = build_vae()
        guide.__self__.cuda()
        torch.cuda.manual_seed(0)
        made.append([objective.loss_and_grads(model, guide, images().cuda()) for _ in range(14)])
    assert made[0] == pytest.approx(made[1], rel=1e-10)
