"""fit: the oracle's optimum, to the last bit, and what it refuses."""

import copy
import math
import re
import warnings

import matplotlib.pyplot as pyplot
import numpy as np
import pyro
import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from pyro.infer import RenyiELBO, TraceMeanField_ELBO
from sklearn.decomposition import PCA
from torch import nn

from ppl_vae import (
    VAE,
    NormalDecoder,
    NormalEncoder,
    StandardNormal,
    VAEConfig,
    fit,
    plot_losses,
)
from ppl_vae.files import load_tensors
from ppl_vae.inference.engine.step import Step, choose_engine
from ppl_vae.inference.loop import Loop, Loss, NotFiniteError
from ppl_vae.inference.objectives import Elbo
from ppl_vae.inference.ranks import launched, suitable


def small(x, **choices):
    return VAE.from_config(VAEConfig.for_data(x, **{"hidden": (32,), "latent_dim": 2, **choices}))


def weights(vae):
    return {key: value.clone() for key, value in vae.state_dict().items()}


def same(one, two):
    return all(torch.equal(one[key], two[key]) for key in one)


@pytest.fixture
def bits(digits):
    return (digits > 0.5).float()


def test_linear_vae_reaches_probabilistic_pca(oracle):
    """Within 0.02 nats a row of the best there is, on held-out rows of the oracle."""
    train, test = oracle.rows(4000, seed=1), oracle.rows(4000, seed=2)
    config = VAEConfig.for_data(
        train,
        latent_dim=oracle.latent_dim,
        hidden=(),
        likelihood="normal",
        likelihood_options={"scale": "shared"},
        # One center and spread for all features, as PCA's noise is the same for all.
        center=0.0,
        spread=1.0,
    )
    vae = VAE.from_config(config).double()
    fit(vae, train, epochs=60, batch_size=100, learning_rate=1e-2, progress=False)
    linear = vae.decoder.network.layers[0]
    noise = vae.decoder.scale(vae.decoder.raw_scale)
    covariance = linear.weight @ linear.weight.T + noise**2 * torch.eye(8, dtype=torch.float64)
    p_x = torch.distributions.MultivariateNormal(linear.bias, covariance)
    best = PCA(oracle.latent_dim).fit(train.numpy()).score(test.numpy())
    assert p_x.log_prob(test).mean().item() == pytest.approx(best, abs=0.02)


def test_same_seed_same_result_to_the_last_bit(bits):
    ends = []
    for seed in (0, 0, 1):
        vae = small(bits)
        result = fit(vae, bits[:500], epochs=2, validation=0.2, seed=seed, progress=False)
        ends.append((weights(vae), result.history))
    assert same(ends[0][0], ends[1][0])
    assert ends[0][1].identical(ends[1][1])
    assert not same(ends[0][0], ends[2][0])


def test_the_world_is_left_as_found(bits):
    pyro.param("mine", torch.ones(()))
    pyro.enable_validation(False)
    vae = small(bits).eval()
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    fit(vae, bits[:200], epochs=1, progress=False)
    assert torch.equal(torch.get_rng_state(), state)
    assert (np.random.get_state()[1] == numpy_state).all()
    assert list(pyro.get_param_store().keys()) == ["mine"]
    assert not pyro.infer.util.is_validation_enabled()
    assert not vae.training
    pyro.enable_validation(True)


def test_history(bits):
    result = fit(small(bits), bits[:500], epochs=4, validation=bits[500:700], progress=False)
    assert list(result.history.epoch) == [1, 2, 3, 4]
    assert result.history.train_loss[-1] < result.history.train_loss[0]
    assert result.history.learning_rate.values.argmax() == 0
    assert result.finite
    assert result.stop_reason == "all 4 epochs done"
    assert result.rows_per_second == pytest.approx(4 * 500 / result.seconds)


def test_losses_are_nats_per_row_whatever_the_batch(oracle):
    """With the exact encoder every ELBO is log p(x), so the recorded losses are known."""
    vae, x = oracle.vae(), oracle.rows(50)
    for parameter in vae.parameters():
        parameter.requires_grad_(False)
    vae.decoder.network.bias.requires_grad_(True)
    exact = -oracle.log_evidence(x).mean().item()
    held_out = oracle.rows(30, seed=5)
    result = fit(
        vae,
        x,
        validation=held_out,
        epochs=1,
        batch_size=7,
        learning_rate=1e-12,
        progress=False,
    )
    assert result.history.train_loss.item() == pytest.approx(exact, abs=1e-6)
    expected = -oracle.log_evidence(held_out).mean().item()
    assert result.history.validation_loss.item() == pytest.approx(expected, abs=1e-6)


def test_early_stopping_keeps_the_best_weights(bits):
    x = bits[:60]
    vae = small(x, hidden=(128,), latent_dim=8)
    result = fit(
        vae,
        x,
        validation=bits[1000:1300],
        epochs=300,
        learning_rate=5e-3,
        schedule="constant",
        patience=5,
        progress=False,
    )
    losses = result.history.validation_loss.values
    assert result.stop_reason == "no better validation loss for 5 epochs"
    assert len(losses) < 300
    assert result.history.attrs["best_epoch"] == losses.argmin() + 1 == len(losses) - 5
    again = small(x, hidden=(128,), latent_dim=8)
    schedule = {"learning_rate": 5e-3, "schedule": "constant", "progress": False}
    fit(again, x, epochs=int(losses.argmin()) + 1, **schedule)
    assert same(weights(vae), weights(again))


@pytest.mark.parametrize("when", ["first step", "later"])
def test_nan_guard_stops_and_keeps_good_weights(bits, when):
    vae = small(bits)
    if when == "first step":
        with torch.no_grad():
            vae.encoder.loc_head.bias.fill_(1e30)
    rate = 1e-3 if when == "first step" else 1e30
    with pytest.warns(RuntimeWarning, match="the fit stopped early"):
        result = fit(vae, bits, epochs=30, learning_rate=rate, progress=False)
    assert not result.finite
    expected = "epoch 1, step 1" if when == "first step" else "learning rate of .* too high"
    assert re.search(expected, result.stop_reason)
    assert all(p.isfinite().all() for p in vae.parameters())


def test_uint8_is_what_its_floats_are(digits):
    images = (digits * 255).round().byte()
    ends = []
    for x in (images, images.float() / 255):
        vae = small(images)
        fit(vae, x[:300], epochs=1, progress=False)
        ends.append(weights(vae))
    assert same(*ends)


@pytest.mark.parametrize("method", ["static", "dynamic", "threshold"])
def test_binarization(digits, method):
    vae = small((digits > 0.5).float())
    seen = []
    vae.encoder.register_forward_pre_hook(lambda module, args: seen.append(args[0].clone()))
    # A hook of Python's sees each step of this engine only.
    options = {"epochs": 2, "batch_size": 100, "engine": "eager", "progress": False}
    fit(vae, digits[:100], binarize=method, **options)
    training = [x for x in seen if len(x) == 100]
    assert len(training) == 2
    assert all(((x == 0) | (x == 1)).all() for x in training)
    # Rows come in another order each epoch; their sum tells whether their bits are the same.
    sums = {int(x.sum()) for x in training}
    assert len(sums) == (2 if method == "dynamic" else 1)


@pytest.mark.parametrize("engine", ["eager", "graph"])
def test_resume_ends_as_without_the_stop(bits, tmp_path, monkeypatch, engine):
    whole = small(bits)
    options = {
        "epochs": 6,
        "validation": 0.2,
        "binarize": "dynamic",
        "engine": engine,
        "average": 0.1,
        "progress": False,
    }
    expected = fit(whole, bits[:400], **options)

    class StopError(Exception):
        pass

    def stop(epoch):
        if epoch == 4:  # before the state of this epoch is kept
            raise StopError

    kept = {"checkpoint_dir": tmp_path, **options}
    monkeypatch.setattr("time.perf_counter", iter(range(0, 10**6, 10)).__next__)
    with pytest.raises(StopError):
        fit(small(bits), bits[:400], checkpoint_every=0, on_epoch=stop, **kept)
    monkeypatch.undo()

    resumed = VAE.from_config(whole.config, seed=5)
    result = fit(resumed, bits[:400], resume=True, **kept)
    assert same(weights(whole), weights(resumed))
    assert result.history.identical(expected.history)
    assert result.seconds > 30  # by the clock of the stopped fit, ten a reading


@pytest.mark.parametrize("engine", ["eager", "graph"])
def test_parts_of_a_batch_add_up_to_its_gradient(bits, engine):
    """Blocks of 16 normals are drawn alike at once and in parts, so that noise is the same."""
    ends = []
    for accumulate in (1, 4):
        vae = small(bits)
        options = {"objective": "mean_field", "engine": engine, "accumulate": accumulate}
        result = fit(vae, bits[:256], epochs=3, validation=bits[:50], progress=False, **options)
        ends.append((weights(vae), result.history.train_loss))
    for key, value in ends[0][0].items():
        torch.testing.assert_close(ends[1][0][key], value, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(ends[1][1], ends[0][1], rtol=1e-5)


def test_parts_of_a_short_last_batch_have_two_rows(bits):
    """Normalization refuses a batch of one row: 67 rows leave a batch of three."""
    vae = small(bits)
    vae.encoder.network.layers.append(nn.BatchNorm1d(32))
    sizes = []
    vae.encoder.network.layers[-1].register_forward_pre_hook(
        lambda module, inputs: sizes.append(len(inputs[0]))
    )
    fit(vae, bits[:67], epochs=1, batch_size=32, accumulate=8, progress=False)
    assert min(sizes) >= 2
    assert sum(sizes) == 67 + 4  # two rows are looked at, twice, before the first step


@pytest.mark.parametrize("engine", ["eager", "graph"])
def test_rows_count_as_they_weigh(bits, engine):
    """Weights scale each row's term, and rows of weight zero do not exist for the fit."""
    ends = []
    for scale in (1.0, 5.0):
        vae = small(bits)
        noise = bits[:200].clone()
        noise[100:] = 1 - noise[100:] if scale == 5.0 else torch.rand(100, 8, 8).round()
        # Only ratios count, and what rows of weight zero hold does not.
        given = scale * (torch.arange(200) < 100) * torch.linspace(0.5, 2, 200)
        options = {"row_weights": given, "engine": engine, "batch_size": 200}
        result = fit(vae, noise, epochs=4, progress=False, **options)
        ends.append((weights(vae), result.history.train_loss))
    for key, value in ends[0][0].items():
        torch.testing.assert_close(ends[1][0][key], value, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(ends[1][1], ends[0][1], rtol=1e-5)


def test_weights_multiply_the_terms_of_rows(bits):
    vae, x = small(bits), bits[:6]
    given = torch.tensor([0.0, 1.0, 2.0, 0.5, 0.5, 2.0])
    torch.manual_seed(0)
    found = Loss(vae, Elbo(), 6, weighted=True)(x, given)
    torch.manual_seed(0)
    terms, *_ = Elbo().terms(vae.model, vae.guide, x)
    torch.testing.assert_close(found, -(given * terms.log_weight[0]).sum() / 6)


def test_held_out_rows_keep_their_weights(bits):
    """A validation row that weighs ten times as much as the others moves the mean loss."""
    heavy = torch.ones(100)
    heavy[:50] = 10
    losses = [
        fit(
            small(bits), bits[:100], row_weights=w, validation=0.5, epochs=1, progress=False
        ).history.validation_loss.item()
        for w in (torch.ones(100), torch.full((100,), 7.0), heavy)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert losses[0] != pytest.approx(losses[2], rel=1e-3)


def test_averaged_weights_are_validated_and_kept(bits):
    """Every step counts as s^gamma: weights are those means, and so is the validation loss."""
    train, held_out = bits[:200], bits[200:400]
    vae, seen = small(bits), []
    options = {"epochs": 9, "batch_size": 200, "schedule": "constant", "average": 0.1}
    result = fit(
        vae,
        train,
        validation=held_out,
        on_epoch=lambda epoch: seen.append(weights(vae)),
        progress=False,
        **options,
    )
    gamma = 6.937  # (gamma + 1)^(1/2) / ((gamma + 2) (gamma + 3)^(1/2)) = 0.1
    assert (gamma + 1) ** 0.5 / ((gamma + 2) * (gamma + 3) ** 0.5) == pytest.approx(0.1, abs=1e-4)
    products = [math.prod((1 - 1 / t) ** (gamma + 1) for t in range(s + 1, 10)) for s in range(10)]
    share = [0.0] + [(1 - (1 - 1 / s) ** (gamma + 1)) * products[s] for s in range(1, 10)]
    assert sum(share) == pytest.approx(1.0)
    expected = {key: sum(a * w[key] for a, w in zip(share, seen, strict=True)) for key in seen[0]}
    assert result.history.attrs["best_epoch"] == 9
    for key, value in weights(vae).items():
        torch.testing.assert_close(value, expected[key], rtol=1e-4, atol=1e-6)
    plain = small(bits)
    same_steps = fit(plain, train, validation=held_out, progress=False, **{**options, "average": 0})
    np.testing.assert_array_equal(result.history.train_loss, same_steps.history.train_loss)
    assert result.history.validation_loss[-1] > same_steps.history.validation_loss[-1]


def test_resume_refuses_another_fit(bits, tmp_path):
    options = {"checkpoint_dir": tmp_path, "progress": False}
    fit(small(bits), bits[:100], epochs=1, **options)
    with pytest.raises(ValueError, match="epochs was 1, is 2"):
        fit(small(bits), bits[:100], epochs=2, resume=True, **options)
    with pytest.raises(ValueError, match="heads was None, is 'joint'; resume"):
        fit(small(bits, heads="joint"), bits[:100], epochs=1, resume=True, **options)
    with pytest.raises(ValueError, match=r"config\.center was") as failure:
        fit(small(bits, center=[0.5] * 64), bits[:100], epochs=1, resume=True, **options)
    assert len(str(failure.value)) < 400
    assert load_tensors(tmp_path / "fit.safetensors")[0]


def test_resume_without_a_checkpoint_starts(bits, tmp_path):
    result = fit(
        small(bits),
        bits[:100],
        epochs=1,
        checkpoint_dir=tmp_path / "new",
        resume=True,
        progress=False,
    )
    assert result.history.sizes["epoch"] == 1


def test_conditional_with_validation_pair(bits):
    covariates = torch.rand(200, 3)
    vae = small(bits, covariate_dim=3)
    result = fit(
        vae,
        bits[:150],
        covariates=covariates[:150],
        validation=(bits[150:200], covariates[150:]),
        epochs=1,
        progress=False,
    )
    assert math.isfinite(result.history.validation_loss.item())


def test_other_objectives(bits):
    fit(small(bits), bits[:100], epochs=1, objective=TraceMeanField_ELBO(), progress=False)
    with pytest.raises(TypeError, match=r"or a Pyro ELBO with a differentiable loss"):
        fit(small(bits), bits[:100], epochs=1, objective=RenyiELBO(num_particles=2))


def test_missing_entries(digits):
    table = digits.flatten(1)[:200, 18:23] * 3 - 1
    x = torch.where(
        torch.rand(200, 5, generator=torch.Generator().manual_seed(0)) < 0.1, torch.nan, table
    )
    vae = VAE.from_config(VAEConfig.for_data(x, hidden=(16,)))
    result = fit(vae, x, epochs=10, validation=0.2, progress=False)
    assert result.history.train_loss[-1] < result.history.train_loss[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs is 0; pass at least 1"),
        ({"epochs": -3}, "epochs is -3"),
        ({"batch_size": 101}, "batch_size is 101 but there are 100 rows.*from 1 to 100"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": 9, "accumulate": 5}, "accumulate is 5 with 9 rows a step.* 1 to 4"),
        ({"accumulate": 0}, "accumulate is 0"),
        ({"average": 0.3}, "average is 0.3; pass the part"),
        ({"row_weights": torch.ones(99)}, r"row_weights has shape \(99,\).* 100 rows"),
        ({"row_weights": -torch.ones(100)}, "row_weights has entries that are negative"),
        ({"row_weights": torch.zeros(100)}, "row_weights .* all zero"),
        ({"row_weights": torch.ones(100), "objective": "free_bits"}, "FreeBits is no sum"),
        ({"row_weights": torch.ones(100), "objective": TraceMeanField_ELBO()}, "ELBO is no sum"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"learning_rate": math.nan}, "learning_rate is nan"),
        ({"schedule": "step"}, "schedule is 'step'; accepted are 'one_cycle', 'constant'"),
        ({"max_gradient_norm": 0.0}, "max_gradient_norm is 0.0"),
        ({"patience": 3}, "patience is 3 and validation not given"),
        ({"validation": 1.5}, "validation is 1.5 of 100 rows"),
        ({"validation": torch.full((3, 8, 8), 7.0)}, "validation holds values such as 7"),
        ({"binarize": "sometimes"}, "binarize is 'sometimes'|method is 'sometimes'"),
        ({"engine": "steam"}, "engine is 'steam'"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_bad_options_are_refused_before_anything_changes(bits, options, message):
    vae = small(bits)
    before = weights(vae)
    with pytest.raises(ValueError, match=message):
        fit(vae, bits[:100], **{"epochs": 1, "progress": False, **options})
    assert same(before, weights(vae))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(0, 8, 8), "at least one row"),
        (torch.zeros(1, 8, 8), "1 row to fit to"),
        (torch.full((9, 8, 8), 255.0), "values such as 255"),
        (torch.full((9, 8, 8), 128, dtype=torch.uint8), "binarize"),
        (torch.full((9, 8, 8), torch.nan), "no observed entry"),
        (torch.zeros(9, 8, 7), "reshape x"),
    ],
)
def test_bad_rows_are_refused(bits, x, message):
    with pytest.raises(ValueError, match=message):
        fit(small(bits), x, epochs=1, progress=False)


def test_a_vae_without_parameters_to_fit_is_refused(bits):
    with pytest.raises(ValueError, match=r"no parameters to fit: all are frozen"):
        fit(small(bits).requires_grad_(False), bits, epochs=1, progress=False)


def test_out_of_range_intensities_are_refused_before_binarizing(bits):
    with pytest.raises(ValueError, match="ranges from 0 to 16"):
        fit(small(bits), bits[:9] * 16, epochs=1, binarize="dynamic", progress=False)


def test_fit_shows_nothing_in_two_seconds_and_warns_of_nothing(bits, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(small(bits), bits[:100], epochs=1)
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


@pytest.mark.parametrize("engine", ["graph", "compiled"])
def test_engines_end_alike(digits, engine):
    """In double precision, with bits drawn afresh, short last batches, dropout and frozen parts."""
    ends = []
    for name in ("eager", engine):
        vae = small((digits > 0.5).float()).double()
        vae.encoder.network.layers.append(torch.nn.Dropout(0.2))
        vae.decoder.network.layers[0].bias.requires_grad_(False)
        x = (digits[:500] * 255).to(torch.uint8)
        result = fit(
            vae,
            x,
            epochs=3,
            batch_size=60,
            validation=0.2,
            binarize="dynamic",
            max_gradient_norm=3.0,
            engine=name,
            progress=False,
        )
        ends.append((weights(vae), result.history))
    for key, value in ends[0][0].items():
        torch.testing.assert_close(ends[1][0][key], value, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(ends[1][1].train_loss, ends[0][1].train_loss, rtol=1e-10)
    np.testing.assert_allclose(ends[1][1].validation_loss, ends[0][1].validation_loss, rtol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("engine", ["eager", "graph", "compiled"])
def test_a_step_is_that_of_adam_with_clipped_gradients(engine, dtype):
    class Quartic(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.at = torch.nn.Parameter(torch.linspace(-3, 3, 40))
            self.times = torch.nn.Parameter(torch.tensor(1.0))
            self.unused = torch.nn.Parameter(torch.zeros(2))

        def forward(self, x):
            return (self.times * (self.at - x) ** 4).sum()

    torch.manual_seed(0)
    batches = torch.randn(12, 40, dtype=dtype) * torch.linspace(0.1, 2, 12, dtype=dtype)[:, None]
    tolerance = {"rtol": 1e-6 if dtype == torch.float64 else 1e-4, "atol": 1e-6}
    ours, theirs = Quartic().to(dtype), Quartic().to(dtype)
    step = Step(ours, launched(suitable()), max_gradient_norm=1200.0, engine=engine)
    adam = torch.optim.Adam(theirs.parameters())
    clipped = set()
    for number, x in enumerate(batches):
        rate = 0.01 * (number + 1)
        adam.param_groups[0]["lr"] = rate
        adam.zero_grad()
        loss = theirs(x)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1200.0)
        adam.step()
        clipped.add(bool(norm > 1200))
        ended = step([x], rate, whole=number != 5)
        torch.testing.assert_close(ended, (loss.detach(), norm), **tolerance)
        for name in ("at", "times"):
            pair = getattr(ours, name), getattr(theirs, name)
            torch.testing.assert_close(*pair, **tolerance)
    assert clipped == {True, False}


@pytest.mark.gpu
@pytest.mark.parametrize("engine", ["graph", "compiled"])
def test_engines_end_alike_on_a_gpu(bits, engine):
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    ends = []
    for name in ("eager", engine):
        vae = small(bits).double()
        result = fit(vae, bits[:500], epochs=3, batch_size=60, engine=name, progress=False)
        assert {p.device.type for p in vae.parameters()} == {"cuda"}
        ends.append(result.history.train_loss)
    np.testing.assert_allclose(*ends, rtol=1e-6)


# A processor without bfloat16 takes minutes over what is compiled for it.
@pytest.mark.parametrize(
    "engine", ["eager", "graph", pytest.param("compiled", marks=pytest.mark.slow)]
)
def test_bfloat16_ends_where_single_precision_does(bits, engine):
    ends = {}
    for precision in ("32-true", "bf16-mixed"):
        vae = small(bits)
        fabric = Fabric(accelerator="cpu", devices=1, precision=precision)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            result = fit(vae, bits, epochs=3, engine=engine, fabric=fabric, progress=False)
        assert {p.dtype for p in vae.parameters()} == {torch.float32}
        ends[precision] = result.history.train_loss.values
    assert (ends["bf16-mixed"] != ends["32-true"]).all()
    np.testing.assert_allclose(ends["bf16-mixed"], ends["32-true"], rtol=0.01)


def test_parameters_take_the_precision_of_the_fabric(bits):
    vae = small(bits)
    fabric = Fabric(accelerator="cpu", devices=1, precision="64-true")
    fit(vae, bits[:200], validation=0.1, epochs=1, fabric=fabric, progress=False)
    assert {p.dtype for p in vae.parameters()} == {torch.float64}


def test_scaled_gradients_are_refused(bits):
    scaled = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))
    fabric = Fabric(accelerator="cpu", devices=1, plugins=scaled)
    with pytest.raises(ValueError, match=r"precision is '16-mixed'.*bf16-mixed"):
        fit(small(bits), bits, epochs=1, fabric=fabric, progress=False)


def test_what_cannot_be_recorded_is_fitted_eagerly_and_says_so(bits):
    class Looking(torch.nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    ends = []
    for engine in ("eager", "graph"):
        vae = small(bits)
        vae.encoder.network.layers.append(Looking())
        if engine == "graph":
            with pytest.warns(RuntimeWarning, match="fit runs eagerly: .*reads the value") as said:
                fit(vae, bits[:300], epochs=2, engine=engine, progress=False)
            assert len(said) == 1
        else:
            fit(vae, bits[:300], epochs=2, engine=engine, progress=False)
        ends.append(weights(vae))
    assert same(*ends)


def test_auto_counts_the_steps_ahead():
    def chosen(engine, steps, device="cpu", **options):
        config = VAEConfig(event_shape=(8, 8), latent_dim=2, **options)
        return choose_engine(engine, steps, VAE.from_config(config), torch.device(device))

    engines = [chosen("auto", steps) for steps in (100, 2000, 50_000)]
    assert engines == ["eager", "graph", "compiled"]
    assert chosen("eager", 10**9) == "eager"
    # Convolutions gain nothing on a CPU.
    assert chosen("auto", 50_000, network="conv") == "graph"
    assert chosen("auto", 50_000, "cuda", network="resnet") == "compiled"
    assert chosen("compiled", 10, network="conv") == "compiled"


def test_on_epoch_sees_the_weights_and_changes_nothing(bits):
    vae, epochs, seen = small(bits), [], []

    def look(epoch):
        epochs.append(epoch)
        seen.append(weights(vae))
        torch.rand(7)

    fit(vae, bits[:200], epochs=2, on_epoch=look, progress=False)
    assert epochs == [0, 1, 2]
    assert not same(seen[0], seen[1])
    assert same(seen[2], weights(vae))
    plain = small(bits)
    fit(plain, bits[:200], epochs=2, progress=False)
    assert same(weights(plain), weights(vae))


def test_an_interrupted_fit_leaves_a_whole_vae(bits):
    """Ctrl-C, or the stop button of a notebook: an epoch's weights, its mode, and the history."""
    vae, seen = small(bits).eval(), []

    def stop(epoch):
        seen.append({k: v.clone() for k, v in vae.state_dict().items()})
        if epoch == 3:
            with torch.no_grad():  # as in the middle of an epoch
                next(vae.parameters()).add_(1.0)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as stopped:
        fit(vae, bits, validation=0.2, epochs=9, on_epoch=stop, progress=False)
    assert not vae.training
    assert any(all(torch.equal(s[k], v) for k, v in vae.state_dict().items()) for s in seen)
    result = stopped.value.result
    assert result.history.sizes["epoch"] == 3
    assert result.stop_reason == "interrupted after 3 epochs"


@pytest.mark.parametrize("ended", [KeyboardInterrupt(), NotFiniteError("the validation is inf")])
def test_a_fit_that_ends_while_it_validates_has_a_history(bits, monkeypatch, ended):
    """Its last epoch has a training loss and no other, which is NaN."""
    validated = Loop._validated

    def stop(self, *arguments):
        if self.epoch == 6:
            raise ended
        return validated(self, *arguments)

    monkeypatch.setattr(Loop, "_validated", stop)
    options = {"validation": 0.2, "epochs": 9, "progress": False}
    if isinstance(ended, KeyboardInterrupt):
        with pytest.raises(KeyboardInterrupt) as stopped:
            fit(small(bits), bits, **options)
        result = stopped.value.result
    else:
        with pytest.warns(RuntimeWarning, match="the validation is inf"):
            result = fit(small(bits), bits, **options)
    assert result.history.validation_loss.isnull().values.tolist() == [False] * 5 + [True]
    assert result.history.train_loss.notnull().all()
    assert result.history.best_epoch <= 5
    pyplot.close(plot_losses(result.history))


def test_weights_that_are_not_finite_end_a_fit(bits):
    """Scales hide NaN from the loss, so that the weights themselves are looked at."""
    vae = small(bits)

    def spoil(epoch):
        if epoch == 2:
            with torch.no_grad():
                vae.encoder.scale_head.bias[0] = torch.nan

    with pytest.warns(RuntimeWarning, match="not finite|norm nan"):
        result = fit(vae, bits, epochs=5, engine="eager", on_epoch=spoil, progress=False)
    assert not result.finite
    assert all(parameter.isfinite().all() for parameter in vae.parameters())


def test_a_last_batch_of_one_row_is_joined_where_it_could_not_be_normalized():
    network = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 8))
    decoder = NormalDecoder(nn.Linear(2, 5), (5,))
    vae = VAE(StandardNormal(2), decoder, NormalEncoder(network, 2))
    sizes = []
    network.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    fit(vae, torch.randn(33, 5), batch_size=16, epochs=1, engine="eager", progress=False)
    assert sizes[-2:] == [16, 17]
    assert 1 not in sizes


def test_schedule_and_optimizer_of_ones_own(bits):
    given = {"epochs": 3, "batch_size": 100, "progress": False}
    named = fit(small(bits), bits, schedule="constant", **given)
    own = fit(small(bits), bits, schedule=lambda t: 1.0, **given)
    assert own.history.equals(named.history)
    made = []

    def sgd(parameters):
        made.append(torch.optim.SGD(parameters, lr=0.1))
        return made[0]

    fit(small(bits), bits, optimizer=sgd, schedule=lambda t: 0.5, **given)
    assert made[0].param_groups[0]["lr"] == 0.05
    with pytest.raises(ValueError, match="optimizer is 'sgd'; accepted are 'adam', 'adamw"):
        fit(small(bits), bits, optimizer="sgd", **given)


@pytest.mark.parametrize("engine", ["eager", "graph"])
def test_adamw_is_that_of_torch(engine):
    """Decoupled decay: a weight without a gradient shrinks by the rate times the decay."""
    module = nn.Linear(3, 1).double()
    other = copy.deepcopy(module)
    torch_adamw = torch.optim.AdamW(other.parameters(), lr=0.1, weight_decay=0.3)
    x = torch.randn(8, 3, dtype=torch.float64)

    class Loss(nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

        def forward(self, x):
            return self.module(x).square().mean()

    step = Step(
        Loss(module),
        launched(suitable()),
        max_gradient_norm=1e9,
        engine=engine,
        optimizer="adamw:weight_decay=0.3",
    )
    for _ in range(5):
        step([x], 0.1)
        torch_adamw.zero_grad()
        Loss(other)(x).backward()
        torch_adamw.step()
    torch.testing.assert_close(module.weight, other.weight)


def test_a_damaged_checkpoint_gives_way_to_the_one_before(bits, tmp_path):
    options = {"epochs": 4, "checkpoint_dir": tmp_path, "checkpoint_every": 0, "progress": False}
    whole = fit(small(bits), bits, **options)
    latest = tmp_path / "fit.safetensors"
    latest.write_bytes(latest.read_bytes()[:-5])
    with pytest.warns(RuntimeWarning, match="goes on from the checkpoint before"):
        resumed = fit(small(bits), bits, resume=True, **options)
    assert resumed.history.equals(whole.history)
    for path in tmp_path.iterdir():
        path.write_bytes(b"not a checkpoint")
    with (
        pytest.warns(RuntimeWarning),
        pytest.raises(ValueError, match=r"is damaged .* start afresh"),
    ):
        fit(small(bits), bits, resume=True, **options)
