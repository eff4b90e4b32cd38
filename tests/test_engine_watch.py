"""A replay is the program as it is now: what changes between steps is seen, or said."""

import contextvars
import functools
import os
import random
import sys
import types
import warnings
from dataclasses import dataclass

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from pyro.poutine.messenger import Messenger
from torch import nn

from ppl_vae import VAE, CompiledTrace_ELBO, VAEConfig, fit
from ppl_vae.inference.engine.watch import Watch

DATA = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)) + 1.0
KNOB = 1.0
TABLE = {"beta": [1.0, 2.0]}
module = types.ModuleType("settings_of_a_user")
module.beta = 1.0


@dataclass
class Settings:
    beta: float = 1.0
    name: str = "normal"


class Slotted:
    __slots__ = ("beta",)

    def __init__(self):
        self.beta = 1.0


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.beta = 1.0
        self.inner = nn.Sequential(nn.Dropout(0.5), nn.Linear(3, 3))
        self.register_buffer("offset", torch.zeros(3))

    def forward(self, x):
        return self.inner(x) * self.beta + self.offset


def program(scale, *, data=lambda: DATA[:10], layer=None):
    """A model whose KL weight is ``scale()`` at each run, and its guide."""

    def model():
        x = data()
        if layer is not None:
            x = layer(x).detach()
        mu = pyro.sample("mu", dist.Normal(torch.zeros(3), float(scale())).to_event(1))
        with pyro.plate("row", len(x)):
            pyro.sample("x", dist.Normal(mu, 1.0).to_event(1), obs=x)

    def guide():
        loc = pyro.param("loc", torch.zeros(3))
        pyro.sample("mu", dist.Normal(loc, 0.1).to_event(1))

    return model, guide


def by_global():
    def change(i):
        globals()["KNOB"] = 1.0 + i // 3

    return program(lambda: KNOB), change


def by_closure():
    beta = 1.0

    def scale():
        return beta

    def change(i):
        nonlocal beta
        beta = 1.0 + i // 3

    return program(scale), change


def by_object(made, name):
    def build():
        holder = made()
        return program(lambda: getattr(holder, name)), lambda i: setattr(holder, name, 1.0 + i // 3)

    return build


def by_list():
    return program(lambda: TABLE["beta"][0]), lambda i: TABLE["beta"].__setitem__(0, 1.0 + i // 3)


def by_dict():
    options = {"beta": 1.0}
    return program(lambda: options["beta"]), lambda i: options.update(beta=1.0 + i // 3)


def by_partial():
    options = functools.partial(dict, beta=1.0)
    return program(lambda: options()["beta"]), lambda i: options.keywords.update(beta=1.0 + i // 3)


def by_module_of_python():
    return program(lambda: module.beta), lambda i: setattr(module, "beta", 1.0 + i // 3)


def by_string():
    settings = Settings()
    scales = {"normal": 1.0, "wide": 5.0}
    return (
        program(lambda: scales[settings.name]),
        lambda i: setattr(settings, "name", "wide" if i // 3 % 2 else "normal"),
    )


def by_default_argument():
    def scale(beta=[1.0]):  # noqa: B006  what changes in place
        return beta[0]

    return program(scale), lambda i: scale.__defaults__[0].__setitem__(0, 1.0 + i // 3)


def by_array():
    beta = np.ones(2)
    return program(lambda: beta[1]), lambda i: beta.__setitem__(1, 1.0 + i // 3)


def by_method_of_a_class():
    class Schedule:
        beta = 1.0

        def value(self):
            return self.beta

    schedule = Schedule()
    return program(schedule.value), lambda i: setattr(Schedule, "beta", 1.0 + i // 3)


def by_batch_of_a_closure():
    batch = DATA[:10]

    def data():
        return batch

    def change(i):
        nonlocal batch
        batch = DATA[10 * (i % 4) :][:10]

    return program(lambda: 1.0, data=data), change


def by_random_of_python():
    return program(lambda: 1.0, data=lambda: DATA[random.randrange(4) :][:10]), lambda i: None


def by_random_of_numpy():
    return program(lambda: 1.0, data=lambda: DATA[np.random.randint(4) :][:10]), lambda i: None


def by_generator_of_numpy():
    generator = np.random.default_rng(0)
    return program(lambda: 1.0, data=lambda: DATA[generator.integers(4) :][:10]), lambda i: None


def by_counter():
    settings = Settings()

    def scale():
        settings.beta += 1.0
        return settings.beta

    return program(scale), lambda i: None


def by_value_of_a_tensor(read):
    def build():
        beta = torch.tensor([1.0])
        return program(lambda: read(beta)), lambda i: beta.fill_(1.0 + i // 3)

    return build


def by_tensor():
    offset = torch.zeros(3)
    return program(lambda: 1.0, data=lambda: DATA[:10] + offset), lambda i: offset.fill_(i // 3)


def by_other_tensor():
    holder = types.SimpleNamespace(offset=torch.zeros(3))
    return (
        program(lambda: 1.0, data=lambda: DATA[:10] + holder.offset),
        lambda i: setattr(holder, "offset", torch.full((3,), float(i // 3))),
    )


def by_selection():
    mask = torch.ones(10, dtype=torch.bool)
    return (
        program(lambda: 1.0, data=lambda: DATA[:10][mask]),
        lambda i: mask.__setitem__(slice(0, 5), i // 3 % 2 == 0),
    )


def by_layer(change):
    def build():
        torch.manual_seed(0)
        layer = Layer()
        return program(lambda: 1.0, layer=layer), lambda i: change(layer, i // 3)

    return build


def by_iterator():
    numbers = iter(1.0 + n // 3 for n in range(10**6))
    return program(lambda: next(numbers)), lambda i: None


def by_set():
    chosen = {1.0}

    def change(i):
        chosen.clear()
        chosen.add(1.0 + i // 3)

    return program(lambda: next(iter(chosen))), change


def by_large_array():
    beta = np.ones(50_000)
    return program(lambda: beta.mean()), lambda i: beta.fill(1.0 + i // 3)


def by_context_variable():
    beta = contextvars.ContextVar("beta", default=1.0)
    return program(beta.get), lambda i: beta.set(1.0 + i // 3)


def by_environment():
    def change(i):
        os.environ["PPL_VAE_TEST_BETA"] = str(1.0 + i // 3)

    return program(lambda: float(os.environ["PPL_VAE_TEST_BETA"])), change


def by_other_defaults():
    def scale(beta=1.0):
        return beta

    return program(lambda: scale()), lambda i: setattr(scale, "__defaults__", (1.0 + i // 3,))


def by_other_class():
    class Once:
        def value(self):
            return 1.0

    class Twice:
        def value(self):
            return 2.0

    chosen = Once()
    return (
        program(lambda: chosen.value()),
        lambda i: setattr(chosen, "__class__", Twice if i // 3 % 2 else Once),
    )


def by_generator_of_torch():
    generator = torch.Generator().manual_seed(0)
    return program(lambda: 1.0 + torch.rand((), generator=generator)), lambda i: None


def by_attribute_of_a_function():
    def scale():
        return scale.beta

    scale.beta = 1.0
    return program(scale), lambda i: setattr(scale, "beta", 1.0 + i // 3)


def by_import_inside():
    def scale():
        import settings_of_a_user

        return settings_of_a_user.beta

    sys.modules["settings_of_a_user"] = module
    return program(scale), lambda i: setattr(module, "beta", 1.0 + i // 3)


PROGRAMS = {
    "a set": by_set,
    "a large array": by_large_array,
    "a context variable": by_context_variable,
    "the environment": by_environment,
    "other defaults": by_other_defaults,
    "another class": by_other_class,
    "torch's generator": by_generator_of_torch,
    "an attribute of a function": by_attribute_of_a_function,
    "an import inside": by_import_inside,
    "a global": by_global,
    "a closure": by_closure,
    "an object": by_object(Settings, "beta"),
    "a namespace": by_object(lambda: types.SimpleNamespace(beta=1.0), "beta"),
    "slots": by_object(Slotted, "beta"),
    "a list in a dictionary": by_list,
    "a dictionary": by_dict,
    "a partial": by_partial,
    "a module of Python": by_module_of_python,
    "a string": by_string,
    "a default in place": by_default_argument,
    "an array": by_array,
    "a class": by_method_of_a_class,
    "a batch": by_batch_of_a_closure,
    "Python's random": by_random_of_python,
    "NumPy's random": by_random_of_numpy,
    "a generator": by_generator_of_numpy,
    "a counter": by_counter,
    "item": by_value_of_a_tensor(lambda t: t.item()),
    "tolist": by_value_of_a_tensor(lambda t: t.tolist()[0]),
    "numpy": by_value_of_a_tensor(lambda t: t.numpy()[0]),
    "float": by_value_of_a_tensor(float),
    "asarray": by_value_of_a_tensor(lambda t: np.asarray(t)[0]),
    "bool": by_value_of_a_tensor(lambda t: 2.0 if t > 1.5 else 1.0),
    "values in place": by_tensor,
    "another tensor": by_other_tensor,
    "a selection": by_selection,
    "eval of a part": by_layer(lambda layer, i: layer.inner[0].train(i % 2 == 0)),
    "p of dropout": by_layer(lambda layer, i: setattr(layer.inner[0], "p", 0.5 / (1 + i))),
    "an attribute": by_layer(lambda layer, i: setattr(layer, "beta", 1.0 + i)),
    "a layer": by_layer(
        lambda layer, i: setattr(layer, "inner", nn.Identity()) if i == 2 else None
    ),
    "a buffer": by_layer(lambda layer, i: layer.offset.fill_(i)),
    "a hook": by_layer(
        lambda layer, i: layer.register_forward_hook(lambda m, a, out: out + 1) if i == 2 else None
    ),
    "dtype": by_layer(lambda layer, i: torch.set_default_dtype(torch.get_default_dtype())),
    "an iterator": by_iterator,
}


def losses(objective, build):
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    TABLE["beta"][0], module.beta, globals()["KNOB"] = 1.0, 1.0, 1.0
    (model, guide), change = build()
    found = []
    for i in range(18):
        change(i)
        found.append(objective.loss_and_grads(model, guide))
    return found


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_replay_is_the_program_as_it_is_now(name):
    expected = losses(Trace_ELBO(), PROGRAMS[name])
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = losses(CompiledTrace_ELBO(), PROGRAMS[name])
    said = [str(w.message) for w in said if issubclass(w.category, RuntimeWarning)]
    if name == "an iterator":  # which nobody can look into: it is said, and no longer replayed
        assert "cannot be watched" in said[0]
    else:
        assert found == pytest.approx(expected, rel=1e-5), said


def test_what_is_watched_is_named():
    settings = Settings()
    model, guide = program(lambda: settings.beta)
    watch = Watch(model=model, guide=guide)
    assert watch.changed() is None
    settings.beta = 2.0
    assert watch.changed() == "settings.beta"
    settings.beta = 1.0
    assert watch.changed() is None


class Weight(Messenger):
    def __init__(self, beta):
        super().__init__()
        self.beta = beta

    def _pyro_sample(self, message):
        if message["name"] == "z":
            message["scale"] = message["scale"] * self.beta


class Weighted(Trace_ELBO):
    beta = 0.0

    def differentiable_loss(self, *args, **kwargs):
        with Weight(self.beta):
            return super().differentiable_loss(*args, **kwargs)


def freeze(vae, objective, epoch):
    vae.decoder.requires_grad_(epoch < 3)


def weigh(vae, objective, epoch):
    objective.beta = min(1.0, epoch / 4)


def drop(vae, objective, epoch):
    vae.encoder.network[1].p = 0.5 if epoch < 3 else 0.0


def rest(vae, objective, epoch):
    vae.encoder.network[1].eval()


@pytest.mark.parametrize("change", [freeze, weigh, drop, rest])
def test_a_fit_is_the_same_by_every_engine(change):
    """Whatever is changed between its epochs."""
    x = (torch.rand(128, 4, 4, generator=torch.Generator().manual_seed(0)) < 0.3).float()
    ends = []
    for engine in ("eager", "graph"):
        vae = VAE.from_config(VAEConfig(event_shape=(4, 4), latent_dim=2, hidden=(8,)))
        vae.encoder.network = nn.Sequential(vae.encoder.network, nn.Dropout(0.5))
        objective = Weighted()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "fit runs eagerly: objective.beta", RuntimeWarning)
            result = fit(
                vae,
                x,
                epochs=8,
                batch_size=16,
                engine=engine,
                objective=objective,
                on_epoch=lambda epoch: change(vae, objective, epoch),  # noqa: B023
                progress=False,
            )
        ends.append(result.history.train_loss.values)
    np.testing.assert_allclose(ends[1], ends[0], rtol=1e-5)
