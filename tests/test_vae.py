"""The VAE as Pyro programs: under SVI, handlers and inside larger models."""

import io
import json
import math
import random

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import (
    SVI,
    Predictive,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceMeanField_ELBO,
    config_enumerate,
)
from pyro.nn import PyroModule, PyroSample
from torch import nn

from ppl_vae import (
    MLP,
    VAE,
    BernoulliDecoder,
    NormalEncoder,
    StandardNormal,
    VAEConfig,
    fit,
    log_evidence,
)
from ppl_vae.files import load_tensors, save_tensors

CONFIG = VAEConfig(event_shape=(8, 8), latent_dim=3, hidden=(32,))


@pytest.fixture
def vae() -> VAE:
    return VAE.from_config(CONFIG)


@pytest.fixture
def bits(digits):
    return (digits > 0.5).float()


@pytest.mark.parametrize("objective", [Trace_ELBO, TraceMeanField_ELBO])
def test_plain_svi_improves_the_elbo(vae, bits, objective):
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-2}), objective())
    before = svi.evaluate_loss(bits[:500])
    for _ in range(50):
        svi.step(bits[:500])
    # About 45 nats a row at first; 50 steps take more than 10 of them.
    assert svi.evaluate_loss(bits[:500]) < before - 10 * 500


def test_mean_field_elbo_has_the_same_mean(oracle):
    vae, x = oracle.vae(), oracle.rows(50)
    sampled = Trace_ELBO(num_particles=200, vectorize_particles=True)
    analytic = TraceMeanField_ELBO(num_particles=200, vectorize_particles=True)
    exact = oracle.log_evidence(x).sum().item()
    assert -sampled.loss(vae.model, vae.guide, x) == pytest.approx(exact, abs=1e-8)
    # Analytic KL leaves the likelihood's noise: its sd over draws and rows is about 0.09 nats.
    assert -analytic.loss(vae.model, vae.guide, x) == pytest.approx(exact, abs=5.0)


def test_sites_and_plate(vae, bits):
    trace = poutine.trace(vae.model).get_trace(bits[:7])
    assert [name for name in trace.stochastic_nodes if name != "row"] == ["z"]
    assert trace.observation_nodes == ["x"]
    assert [f.name for f in trace.nodes["x"]["cond_indep_stack"]] == ["row"]
    assert set(trace.param_nodes) == {
        f"vae.decoder$$${key}" for key, _ in vae.decoder.named_parameters()
    }


def test_prior_predictive(vae):
    draws = Predictive(vae.model, num_samples=20)(size=5)
    assert draws["z"].shape == (20, 5, 3)
    assert draws["x"].shape == (20, 5, 8, 8)


@pytest.mark.parametrize("parallel", [False, True])
def test_posterior_predictive(vae, bits, parallel):
    replicated = poutine.uncondition(vae.model)
    predictive = Predictive(replicated, guide=vae.guide, num_samples=400, parallel=parallel)
    draws = predictive(bits[:5])
    z = draws["z"].squeeze()
    assert z.shape == (400, 5, 3)
    assert draws["x"].squeeze().shape == (400, 5, 8, 8)
    q = vae.encoder(bits[:5])
    # Fifteen means of 400 draws: a gap of 5 standard errors has probability below 1e-5.
    assert ((z.mean(0) - q.mean).abs() < 5 * q.stddev / 20).all()


def test_condition_replaces_the_argument(vae, bits):
    conditioned = poutine.condition(vae.model, data={"x": bits[:5]})
    trace = poutine.trace(conditioned).get_trace(size=5)
    assert trace.nodes["x"]["is_observed"]
    torch.manual_seed(3)
    given = poutine.trace(vae.model).get_trace(bits[:5]).log_prob_sum()
    torch.manual_seed(3)
    torch.testing.assert_close(poutine.trace(conditioned).get_trace(size=5).log_prob_sum(), given)


def test_parts_of_a_larger_model(vae, bits):
    """A regression of y on the latents, with a prior of its own, around the VAE's parts."""
    y = bits[:200].flatten(1).mean(1)

    def model(x, y):
        pyro.module("decoder", vae.decoder)
        slope = pyro.sample("slope", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", vae.prior())
            pyro.sample("x", vae.decoder(z), obs=x)
            pyro.sample("y", dist.Normal(z @ slope, 0.1), obs=y)

    def guide(x, y):
        pyro.module("encoder", vae.encoder)
        loc = pyro.param("loc", torch.zeros(3))
        pyro.sample("slope", dist.Normal(loc, 0.1).to_event(1))
        with pyro.plate("rows", len(x)):
            pyro.sample("z", vae.encoder(x))

    svi = SVI(model, guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO())
    first = svi.step(bits[:200], y)
    for _ in range(30):
        last = svi.step(bits[:200], y)
    assert last < first
    assert pyro.param("loc").abs().max() > 1e-3


def test_built_from_parts(bits):
    encoder = NormalEncoder(nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh()), 2)
    vae = VAE(StandardNormal(2), BernoulliDecoder(nn.Linear(2, 64), (8, 8)), encoder)
    assert vae.event_shape == (8, 8)
    assert vae.latent_dim == 2
    assert torch.isfinite(torch.tensor(Trace_ELBO().loss(vae.model, vae.guide, bits[:7])))


def test_conditional_vae(digits, bits):
    labels = nn.functional.one_hot(torch.arange(100) % 10, 10).float()
    vae = VAE.from_config(
        VAEConfig(event_shape=(8, 8), latent_dim=2, hidden=(16,), covariate_dim=10)
    )
    trace = poutine.trace(vae.guide).get_trace(bits[:100], labels)
    assert trace.nodes["z"]["value"].shape == (100, 2)
    assert vae.model(covariates=labels).shape == (100, 8, 8)
    other = vae.encoder(bits[:100], labels.roll(1, 0)).mean
    assert not torch.allclose(vae.encoder(bits[:100], labels).mean, other)
    with pytest.raises(ValueError, match="covariates has 0 features but this VAE was built for 10"):
        vae.guide(bits[:100])


def test_a_cell_that_is_run_twice_is_told_what_to_do(bits):
    def cell():
        vae = VAE.from_config(CONFIG)
        SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO()).step(bits[:20])

    cell()
    with pytest.raises(ValueError, match=r"Call pyro\.clear_param_store\(\)"):
        cell()


def test_a_param_store_from_disk_is_told_what_to_do(bits, tmp_path):
    """Its weights would be trained beside those of the VAE; they belong into a file of the VAE."""
    vae = VAE.from_config(CONFIG)
    SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO()).step(bits[:20])
    pyro.get_param_store().save(tmp_path / "store.pt")
    pyro.clear_param_store()  # as in a new session
    pyro.get_param_store().load(tmp_path / "store.pt")
    again = VAE.from_config(CONFIG)
    with pytest.raises(ValueError, match=r"load weights with VAE\.load rather than into the store"):
        Predictive(again.model, guide=again.guide, num_samples=2)(bits[:20])


def test_two_vaes_never_share_parameters(bits):
    one, two = VAE.from_config(CONFIG, seed=0), VAE.from_config(CONFIG, seed=1)
    optimizer = pyro.optim.Adam({"lr": 1e-2})
    SVI(one.model, one.guide, optimizer, Trace_ELBO()).step(bits[:50])
    weights = [p.clone() for p in two.parameters()]
    with pytest.raises(ValueError, match=r"name='other'.*param_store\(\)\.scope\(\)"):
        two.guide(bits[:50])
    assert all(torch.equal(a, b) for a, b in zip(weights, two.parameters(), strict=True))

    with pyro.get_param_store().scope():
        two.guide(bits[:50])
    two.name = "other"
    SVI(two.model, two.guide, optimizer, Trace_ELBO()).step(bits[:50])
    assert not torch.equal(weights[0], next(two.parameters()))


def test_frozen_parts_stay(vae, bits):
    vae.decoder.requires_grad_(False)
    before = [p.clone() for p in vae.decoder.parameters()]
    SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO()).step(bits[:50])
    assert all(torch.equal(a, b) for a, b in zip(before, vae.decoder.parameters(), strict=True))


def test_prior_draws_have_the_oracles_mean_and_covariance(oracle):
    """Question 3: drawing from the prior and decoding draws data.

    Each of the 8 means and 36 covariances of 100,000 draws lies within 5 of its standard errors;
    by chance one would not with probability below 44 * 6e-7.
    """
    size = 100_000
    draws = Predictive(oracle.vae().model, num_samples=1)(size=size)["x"][0]
    variance = oracle.covariance.diagonal()
    assert ((draws.mean(0) - oracle.bias).abs() < 5 * (variance / size).sqrt()).all()
    # Var of a sample covariance of normals: (C_ij^2 + C_ii C_jj) / n.
    error = ((oracle.covariance**2 + variance[:, None] * variance) / size).sqrt()
    assert ((draws.T.cov() - oracle.covariance).abs() < 5 * error).all()


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(5, 64), r"x has shape \(5, 64\) but this VAE was built for \(row, 8, 8\)"),
        (torch.zeros(5, 8, 8, dtype=torch.int64), r"dtype torch.int64.*pass x\.float\(\)"),
        (torch.zeros(5, 8, 8, dtype=torch.complex64), r"dtype torch.complex64"),
        (torch.zeros(0, 8, 8), r"at least one row"),
        (torch.full((5, 8, 8), 255.0), r"values such as 255.*accepts only 0 and 1.*rescale"),
        (torch.full((5, 8, 8), 0.5), r"values such as 0.5.*binarize"),
        (torch.full((5, 8, 8), torch.inf), "infinite values, the first in row 0"),
        (torch.full((5, 8, 8), torch.nan), "no observed entry in 5 rows"),
        (torch.ones(5, 8, 8).index_fill(1, torch.tensor([0]), torch.nan), r"missing=True"),
        (torch.ones(5, 8, 8, dtype=torch.uint8), "none is above 1"),
    ],
)
def test_bad_rows_are_refused(vae, x, message):
    with pytest.raises(ValueError, match=message):
        vae.check(x)


def test_negative_counts_are_refused():
    config = VAEConfig(event_shape=(3,), latent_dim=2, hidden=(4,), likelihood="negative_binomial")
    with pytest.raises(ValueError, match=r"values such as -1.*whole numbers of at least 0"):
        VAE.from_config(config).check(torch.tensor([[1.0, 2.0, -1.0]]))


def test_rows_that_are_no_tensor_are_refused(vae):
    with pytest.raises(TypeError, match=r"x is a list; pass a torch\.Tensor"):
        vae.check([[1.0]])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float64, torch.float16])
def test_rows_of_any_precision_in_plain_svi(digits, dtype):
    """As fit takes them: bytes are intensities, and all else is read in the VAE's precision."""
    gray = (digits[:40] * 16 * 15).round()  # 0 to 240
    x = gray.to(dtype) if dtype == torch.uint8 else (gray / 255).to(dtype)
    losses = []
    for rows in (x, gray / 255 if dtype == torch.uint8 else x.float()):
        pyro.clear_param_store()
        torch.manual_seed(0)
        config = VAEConfig.for_data(gray.to(torch.uint8), latent_dim=2, hidden=(8,))
        vae = VAE.from_config(config, seed=0)
        if dtype == torch.float16:  # which does not hold the 256 levels exactly
            vae = VAE.from_config(VAEConfig.for_data(rows, latent_dim=2, hidden=(8,)), seed=0)
        svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
        losses.append([svi.step(rows) for _ in range(3)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf])
def test_covariates_that_are_no_numbers_are_refused_by_name(wrong):
    x, covariates = torch.randn(20, 5), torch.randn(20, 3)
    covariates[7, 1] = wrong
    vae = VAE.from_config(VAEConfig.for_data(x, hidden=(8,), covariate_dim=3))
    message = "covariates has NaN or infinite values, the first in row 7"
    for given in (covariates, covariates.numpy()):
        with pytest.raises(ValueError, match=message):
            fit(vae, x, covariates=given, epochs=1, progress=False)
        with pytest.raises(ValueError, match=message):
            log_evidence(vae, x, covariates=given, num_samples=30, progress=False)


def test_programs_check_shapes_and_sizes(vae, bits):
    with pytest.raises(ValueError, match=r"reshape x or build a VAE"):
        vae.model(bits.flatten(1))
    with pytest.raises(ValueError, match="disagree on the number of rows"):
        vae.model(bits[:5], size=4)
    with pytest.raises(ValueError, match="x=None and has nothing to encode"):
        vae.guide()


def test_save_and_load(tmp_path, vae, bits):
    vae.name = "mine"
    vae.save(tmp_path / "vae.safetensors")
    again = VAE.load(tmp_path / "vae.safetensors")
    assert again.name == "mine"
    assert again.config == vae.config
    assert torch.equal(again.encoder(bits).mean, vae.encoder(bits).mean)
    assert [p.name for p in tmp_path.iterdir()] == ["vae.safetensors"]


def test_load_refuses_what_is_no_vae(tmp_path, vae):
    path = tmp_path / "vae.safetensors"
    with pytest.raises(FileNotFoundError, match="there is no file"):
        VAE.load(path)
    vae.save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"not a whole \.safetensors file"):
        VAE.load(path)
    save_tensors(path, {"a": torch.zeros(1)}, {})
    with pytest.raises(ValueError, match="holds no VAE"):
        VAE.load(path)


def test_load_never_unpickles(tmp_path):
    import pickle

    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("the file was unpickled",))

    path = tmp_path / "vae.safetensors"
    path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ValueError, match=r"not a whole \.safetensors file"):
        VAE.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"latent_dim": 4}, "do not fit the config"),
        ({"guide_options": {"heads": "joint"}}, "do not fit the config"),
        ({"likelihood": "foo"}, "likelihood"),
    ],
)
def test_load_refuses_a_changed_config(tmp_path, vae, change, message):
    path = tmp_path / "vae.safetensors"
    vae.save(path)
    tensors, metadata = load_tensors(path)
    config = {**json.loads(metadata["vae"]), **change}
    save_tensors(path, tensors, {"vae": json.dumps(config)})
    with pytest.raises(ValueError, match=message):
        VAE.load(path)


def test_save_needs_a_config(tmp_path, oracle):
    with pytest.raises(ValueError, match="parts that no registry built"):
        oracle.vae().save(tmp_path / "vae.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_failed_save_leaves_the_old_file(tmp_path, vae, monkeypatch):
    path = tmp_path / "vae.safetensors"
    vae.save(path)
    before = path.read_bytes()

    class FullDisk(io.FileIO):
        def write(self, data):
            raise OSError("no space left on device")

    other = VAE.from_config(CONFIG, seed=1)
    with monkeypatch.context() as patched:
        patched.setattr("pathlib.Path.open", lambda path, mode: FullDisk(path, mode))
        with pytest.raises(OSError, match="no space left"):
            other.save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["vae.safetensors"]


def test_covariates_by_keyword_through_handlers_of_pyro(bits):
    """Handlers hand keywords on to the program, and have an argument called context themselves."""
    covariates = torch.rand(20, 3)
    vae = VAE.from_config(
        VAEConfig(event_shape=(8, 8), latent_dim=2, hidden=(16,), covariate_dim=3), name="keyword"
    )
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-3}), Trace_ELBO())
    svi.step(bits[:20], covariates=covariates)
    drawn = Predictive(vae.model, num_samples=2)(covariates=covariates)
    assert drawn["x"].shape == (2, 20, 8, 8)
    poutine.condition(vae.model, {"z": torch.zeros(20, 2)})(covariates=covariates)


@pytest.mark.parametrize("function", [VAE.model, VAE.guide, fit, log_evidence])
def test_the_old_name_of_covariates(function, bits):
    with pytest.raises(TypeError, match="an argument that is now called covariates"):
        function(None, bits[:20], context=torch.rand(20, 3))
    with pytest.raises(ValueError, match="context_dim is now called covariate_dim"):
        VAEConfig(event_shape=(8, 8), latent_dim=2, context_dim=3)


def test_a_file_of_version_0_1(tmp_path):
    """It calls the number of covariates by its old name."""
    vae = VAE.from_config(VAEConfig(event_shape=(4,), latent_dim=2, hidden=(3,), covariate_dim=2))
    fields = {"name": "vae", **vae.config.model_dump()}
    fields["context_dim"] = fields.pop("covariate_dim")
    save_tensors(tmp_path / "old.safetensors", vae.state_dict(), {"vae": json.dumps(fields)})
    assert VAE.load(tmp_path / "old.safetensors").config == vae.config


def test_a_flipped_bit_is_noticed(tmp_path, vae):
    """Each of forty, wherever it is."""
    path = tmp_path / "vae.safetensors"
    vae.save(path)
    good, chance = path.read_bytes(), random.Random(0)
    for _ in range(40):
        damaged, place = bytearray(good), chance.randrange(len(good))
        damaged[place] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"checksum|not a whole|do not fit|cannot be read"):
            VAE.load(path)


def test_a_file_that_describes_a_huge_vae_is_refused_before_it_is_built(tmp_path):
    config = VAEConfig(event_shape=(8,), latent_dim=2, hidden=(200_000, 200_000)).model_dump()
    path = tmp_path / "v.safetensors"
    save_tensors(path, {"x": torch.zeros(2)}, {"vae": json.dumps({"name": "vae", **config})})
    with pytest.raises(ValueError, match="none has the size 200000"):
        VAE.load(path)


def test_weights_that_are_not_finite_are_neither_saved_nor_loaded(tmp_path, vae):
    path = tmp_path / "vae.safetensors"
    vae.save(path)
    tensors, metadata = load_tensors(path)
    with torch.no_grad():
        next(vae.parameters())[0, 0] = torch.nan
    with pytest.raises(ValueError, match="weights that are not finite"):
        vae.save(path)
    tensors[next(iter(tensors))].view(-1)[0] = torch.inf
    save_tensors(path, tensors, metadata)
    with pytest.raises(ValueError, match="weights that are not finite"):
        VAE.load(path)


def test_parts_of_registries_are_saved_in_any_vae(tmp_path):
    """Also those of two VAEs put together."""
    one = VAEConfig(event_shape=(4,), latent_dim=2, hidden=(5,), center=(1.0, 2.0, 3.0, 4.0))
    other = one.model_copy(update={"prior": "mixture", "prior_options": {"components": 3}})
    vae = VAE(other.parts()[0], *one.parts()[1:], name="both")
    vae.save(tmp_path / "vae.safetensors")
    loaded = VAE.load(tmp_path / "vae.safetensors")
    assert loaded.name == "both"
    for key, value in vae.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key


def test_random_weights_are_refused_at_once():
    """They would be drawn within the plate of rows, and anew whenever a check asks."""
    network = PyroModule[nn.Sequential](PyroModule[nn.Linear](2, 5), nn.Tanh(), nn.Linear(5, 64))
    network[0].weight = PyroSample(dist.Normal(0.0, 1.0).expand([5, 2]).to_event(2))
    encoder = NormalEncoder(nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), 2)
    with pytest.raises(ValueError, match=r"decoder.network.0.weight is drawn by a PyroSample"):
        VAE(StandardNormal(2), BernoulliDecoder(network, (8, 8)), encoder)


def test_parameters_that_are_not_contiguous_are_refused():
    """Pyro's store would hold copies of them, which SVI would move in place of the VAE's own."""
    config = VAEConfig(event_shape=(8, 8), latent_dim=2, network="conv:hidden=(4,8,8)")
    vae = VAE.from_config(config, name="strided").to(memory_format=torch.channels_last)
    with pytest.raises(ValueError, match=r"not contiguous.*memory_format=torch\.contiguous"):
        vae.guide(torch.zeros(3, 8, 8))


@pytest.mark.parametrize(
    "network", ["mlp:hidden=(8,)", "conv:hidden=(3,6)", "resnet:channels=(3,)"]
)
def test_networks_broadcast_an_enumerated_class(network):
    """Kingma's M2: q(y|x) is summed out, with y in a dimension to the left of the rows."""
    config = VAEConfig(event_shape=(8, 8), latent_dim=2, network=network, covariate_dim=3)
    vae = VAE.from_config(config, name="m2")
    classifier = MLP((8, 8), (), (3,))

    def model(x, y=None):
        with pyro.plate("row", len(x)):
            y = pyro.sample("y", dist.OneHotCategorical(torch.ones(3) / 3), obs=y)
            z = pyro.sample("z", vae.prior(y))
            pyro.sample("x", vae.decoder(z, y), obs=x)

    def guide(x, y=None):
        with pyro.plate("row", len(x)):
            if y is None:
                y = pyro.sample("y", dist.OneHotCategorical(logits=classifier(x)))
            pyro.sample("z", vae.encoder(x, y))

    x = (torch.rand(5, 8, 8) < 0.5).float()
    objective = TraceEnum_ELBO(max_plate_nesting=1, num_particles=300, vectorize_particles=True)
    found = objective.loss(model, config_enumerate(guide), x)
    # The same by hand: the class's own bound, weighted by its probability, and its entropy.
    q = torch.softmax(classifier(x), -1)
    terms = []
    for k in range(3):
        y = torch.eye(3)[k].expand(5, 3)
        posterior = vae.encoder(x, y)
        z = posterior.sample((3000,))
        bound = vae.decoder(z, y.expand(3000, 5, 3)).log_prob(x) + vae.prior(y).log_prob(z)
        terms.append((bound - posterior.log_prob(z)).mean(0) - q[:, k].log() - math.log(3))
    expected = -(q * torch.stack(terms, -1)).sum().item()
    # The standard error of both together is below 0.1 nats.
    assert found == pytest.approx(expected, abs=0.5)
