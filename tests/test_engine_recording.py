"""A recording gives what its function gives, now and after its tensors have moved."""

import importlib.util
from pathlib import Path

import pyro
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from torch.nn.functional import one_hot

from ppl_vae import (
    MLP,
    VAE,
    BernoulliDecoder,
    CompiledTrace_ELBO,
    NormalEncoder,
    StandardNormal,
    fit,
)
from ppl_vae.inference.engine import step
from ppl_vae.inference.engine.recording import Recording, RecordingError


def operations(recording):
    return [str(node.target) for node in recording._module.graph.nodes if node.op != "placeholder"]


def test_the_world_is_as_it_was_and_may_move():
    noise = torch.get_rng_state()
    scale = torch.tensor(2.0)
    recording = Recording(lambda x: [x * scale + torch.randn(3)], [torch.ones(3)])
    assert torch.equal(torch.get_rng_state(), noise)
    expected = 5 * scale + torch.randn(3)
    torch.set_rng_state(noise)
    (made,) = recording(torch.full((3,), 5.0))
    assert torch.equal(made, expected)
    scale.fill_(0.0)
    torch.set_rng_state(noise)
    (made,) = recording(torch.full((3,), 5.0))
    torch.testing.assert_close(made, expected - 10.0)


def test_what_decides_by_values_cannot_be_recorded():
    with pytest.raises(RecordingError, match="reads the value of a tensor by __bool__"):
        Recording(lambda x: [x if x.sum() > 0 else -x], [torch.ones(3)])


def of_library(name, body):
    """A function of a tensor whose code lies in an installed package."""
    folder = Path(importlib.util.find_spec(name).origin).parent
    found = {}
    exec(compile(f"def function(x):\n    {body}", folder / "inside.py", "exec"), found)
    return found["function"]


BY_VALUE = {
    "x[x > 0]": (lambda x: [x[x > 0]], "selects by a mask"),
    "index_put": (lambda x: [x.index_put((x > 0,), torch.ones(2))], "selects by a mask"),
    "unique": (lambda x: [x.unique()], "calls _unique2"),
    "where": (lambda x: [torch.where(x > 0)[0]], "calls nonzero"),
    "one_hot": (lambda x: [one_hot((x > 0).long())], "reads the value of a tensor"),
    "tolist": (lambda x: [x.sum().tolist() * x], "reads the value of a tensor by tolist"),
    "wrong": (lambda x: [x.reshape(7)], "shape '.7.' is invalid for input of size 3"),
}


@pytest.mark.parametrize("name", BY_VALUE)
def test_the_line_is_the_users(name):
    """Not that of a library which the line calls, nor of one that calls the program."""
    function, what = BY_VALUE[name]
    line = function.__code__.co_firstlineno
    with pytest.raises(RecordingError, match=what) as refused:
        Recording(function, [torch.tensor([1.0, -1.0, 2.0])])
    assert f"line {line} of test_engine_recording.py" in str(refused.value)


@pytest.mark.parametrize("library", ["torch", "pyro", "zuko", "ppl_vae"])
@pytest.mark.parametrize(
    "body", ["return [x.sum().item() * x]", "return [x[x > 0]]", "raise KeyError(x)"]
)
def test_lines_of_libraries_are_not_named(library, body):
    inside = of_library(library, body)

    def through(x):
        return inside(x)

    with pytest.raises(RecordingError) as refused:
        Recording(through, [torch.ones(3)])
    line = through.__code__.co_firstlineno + 1
    assert f"line {line} of test_engine_recording.py" in str(refused.value)
    assert "inside.py" not in str(refused.value)


def test_changes_in_place_are_made_again():
    count = torch.zeros(3)
    recording = Recording(lambda x: [count.add_(x).clone()], [torch.ones(3)])
    recording.captured[0].zero_()
    for _ in range(3):
        (made,) = recording(torch.ones(3))
    assert torch.equal(count, torch.full((3,), 3.0))
    assert torch.equal(made, count)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this PyTorch has no oneDNN")
@pytest.mark.parametrize("compiled", [False, True])
def test_large_products_are_onednns(compiled):
    """Forwards and backwards, whichever factor is transposed; small and double ones are not."""

    def function(x, weight, bias):
        y = torch.addmm(bias, x, weight.t()).tanh()
        (gradient,) = torch.autograd.grad(y.square().sum(), [weight])
        return [y.detach(), gradient, y.detach() @ weight.detach()]

    def inputs(rows, dtype):
        generator = torch.Generator().manual_seed(0)
        return [
            torch.randn(*shape, generator=generator).to(dtype).requires_grad_(shape == (300, 200))
            for shape in ((rows, 200), (300, 200), (300,))
        ]

    given = inputs(128, torch.float32)
    recording = Recording(function, given)
    assert operations(recording).count("mkldnn._linear_pointwise.default") == 3
    assert not {"aten.mm.default", "aten.addmm.default"} & set(operations(recording))
    if compiled:
        recording.compile(*given)
    for made, expected in zip(recording(*given), function(*given), strict=True):
        torch.testing.assert_close(made, expected, rtol=1e-4, atol=1e-4)
    for other in (inputs(4, torch.float32), inputs(128, torch.float64)):
        assert "mkldnn._linear_pointwise.default" not in operations(Recording(function, other))


def test_standard_normals_are_drawn_at_once():
    recording = Recording(
        lambda x: [x + torch.randn_like(x), x + torch.randn(2, 3)], [torch.ones(2, 3)]
    )
    torch.manual_seed(1)
    made = recording(torch.zeros(2, 3))
    torch.manual_seed(1)
    assert torch.equal(made[0], torch.randn(2, 3))
    assert torch.equal(made[1], torch.randn(2, 3))
    normal = torch.distributions.Normal(torch.zeros(2, 3), torch.ones(2, 3))
    recording = Recording(lambda x: [x + normal.rsample()], [torch.ones(2, 3)])
    assert "aten.randn.default" in operations(recording)
    torch.manual_seed(1)
    (made,) = recording(torch.zeros(2, 3))
    torch.manual_seed(1)
    assert torch.equal(made, normal.rsample())


class ChannelsLast(torch.nn.Module):
    """Two convolutions of images that lie channels last, as their gradients then do."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Conv2d(1, 6, 3, padding=1)
        self.second = torch.nn.Conv2d(6, 4, 3, padding=1)

    out_features = 144

    def forward(self, x, covariates=None):
        maps = self.first(x.reshape(-1, 1, 6, 6)).contiguous(memory_format=torch.channels_last)
        return self.second(maps.relu()).reshape(*x.shape[:-2], -1)


@pytest.mark.parametrize(("engine", "accumulate"), [("graph", 1), ("graph", 2), ("compiled", 1)])
def test_gradients_in_another_layout_go_to_their_own_weights(engine, accumulate):
    """A fused kernel goes through memory in order, whatever the strides of a gradient say."""
    x = (torch.rand(32, 6, 6, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    ends = []
    for each in ("eager", engine):
        torch.manual_seed(0)
        decoder = BernoulliDecoder(MLP((2,), (8,), (6, 6)), (6, 6))
        vae = VAE(StandardNormal(2), decoder, NormalEncoder(ChannelsLast(), 2))
        fit(vae, x, epochs=8, batch_size=16, engine=each, accumulate=accumulate, progress=False)
        ends.append(vae.state_dict())
    for name, value in ends[0].items():
        torch.testing.assert_close(ends[1][name], value, rtol=1e-3, atol=1e-4, msg=name)


def test_a_fused_optimizer_of_pyro_reads_gradients_in_the_layout_of_their_weights():
    x = (torch.rand(16, 6, 6, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    ends = []
    for elbo in (Trace_ELBO(), CompiledTrace_ELBO()):
        pyro.clear_param_store()
        torch.manual_seed(0)
        decoder = BernoulliDecoder(MLP((2,), (8,), (6, 6)), (6, 6))
        vae = VAE(StandardNormal(2), decoder, NormalEncoder(ChannelsLast(), 2))
        svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-2, "fused": True}), elbo)
        for _ in range(12):
            svi.step(x)
        ends.append(vae.state_dict())
    for name, value in ends[0].items():
        torch.testing.assert_close(ends[1][name], value, rtol=1e-3, atol=1e-3, msg=name)


def test_a_replayed_gradient_that_is_not_that_of_the_program_is_noticed(monkeypatch):
    x = (torch.rand(32, 6, 6, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    decoder = BernoulliDecoder(MLP((2,), (8,), (6, 6)), (6, 6))
    vae = VAE(StandardNormal(2), decoder, NormalEncoder(ChannelsLast(), 2))
    monkeypatch.setattr(step, "laid_out_as", lambda parameter, gradient: gradient)
    with pytest.warns(RuntimeWarning, match="gradient of a replayed step is off by"):
        fit(vae, x, epochs=3, batch_size=16, engine="graph", progress=False)
