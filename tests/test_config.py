"""VAEConfig: which parts, and why."""

import pytest
import torch
from pydantic import ValidationError

from ppl_vae import VAE, Choice, VAEConfig

UNIFORM = torch.rand(50, 6, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("x", "likelihood", "reason"),
    [
        ((UNIFORM > 0.5).float(), "bernoulli", "only 0 and 1"),
        (UNIFORM, "continuous_bernoulli", r"\[0, 1\]"),
        ((UNIFORM * 255).byte(), "discretized_logistic", "intensities on 256 levels"),
        ((UNIFORM * 16).round() / 16, "discretized_logistic", "intensities on 17 levels"),
        (1950 + (UNIFORM * 70).round(), "normal", "feature 0 is no count (whole numbers from 19"),
        ((UNIFORM * 1e6).round(), "normal", "is no count (whole numbers"),
        (10_000 + (UNIFORM * 89_999).round(), "normal", "is no count"),
        ((UNIFORM * 1e6).round() / 100, "normal", "real"),
        ((UNIFORM > 0.5).byte() * 255, "bernoulli", "only 0 and 1"),
        ((UNIFORM * 20).floor(), "negative_binomial", "whole numbers"),
        (UNIFORM * 20, "normal", "real numbers"),
        (UNIFORM - 0.5, "normal", "real numbers"),
    ],
)
def test_likelihood_is_the_narrowest_that_fits(x, likelihood, reason):
    config = VAEConfig.for_data(x)
    assert config.likelihood == likelihood
    assert reason.replace("\\", "") in config.reason
    VAE.from_config(config).check(x)


def test_tables_are_centred_by_feature_and_images_over_all():
    scales = torch.tensor([1.0, 10.0, 100.0, 1.0, 2.0, 3.0])
    config = VAEConfig.for_data(UNIFORM * scales - 0.5)
    torch.testing.assert_close(torch.tensor(config.spread), (UNIFORM * scales).std(0, correction=0))
    image = VAEConfig.for_data(UNIFORM.reshape(50, 2, 3) * 3 - 1)
    assert isinstance(image.center, float)


def test_missing_entries_are_seen_and_left_out_of_the_centre():
    x = UNIFORM * 10 - 5
    x[0, 0] = torch.nan
    config = VAEConfig.for_data(x)
    assert config.missing
    torch.testing.assert_close(config.center[0], x[1:, 0].mean().item())


def test_choices_are_kept():
    config = VAEConfig.for_data(UNIFORM, latent_dim=3, likelihood="normal", heads="joint")
    assert (config.latent_dim, config.likelihood, config.heads) == (3, "normal", "joint")
    assert config.reason == "the caller chose it"


def test_json_round_trip():
    config = VAEConfig.for_data(UNIFORM * 10)
    assert VAEConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize("field", ["network", "likelihood", "prior", "guide"])
def test_unknown_component(field):
    with pytest.raises(ValidationError, match=rf"{field}\n.*accepted are '.*input_value='foo'"):
        VAEConfig(**{"event_shape": (3,), "latent_dim": 2, field: "foo"})
    with pytest.raises(ValidationError, match=r"has no option 'foo'; (accepted|it has none)"):
        VAEConfig(**{"event_shape": (3,), "latent_dim": 2, f"{field}_options": {"foo": 1}})


@pytest.mark.parametrize("option", ["activation", "scale", "heads"])
def test_unknown_value_of_an_option(option):
    with pytest.raises(ValueError, match=rf"{option} is 'foo'; accepted are '"):
        VAE.from_config(VAEConfig(**{"event_shape": (3,), "latent_dim": 2, option: "foo"}))


def test_one_choice_in_three_ways():
    """As text, as fields, and as options; a part's options replace none of another's."""
    text = VAEConfig(event_shape=(9,), latent_dim=2, network="mlp:hidden=(8,4),activation=tanh")
    fields = VAEConfig(event_shape=(9,), latent_dim=2, hidden=[8, 4], activation="tanh")
    options = {"hidden": (8, 4), "activation": "tanh"}
    assert text == fields
    assert text == VAEConfig(event_shape=(9,), latent_dim=2, network_options=options)
    assert text == VAEConfig(event_shape=(9,), latent_dim=2, network=Choice("mlp", options))
    assert (text.hidden, text.activation, text.scale) == ((8, 4), "tanh", "log_variance")
    assert VAEConfig.model_validate_json(text.model_dump_json()) == text


def test_a_config_of_version_0_1():
    old = {"network": "cvae", "hidden": [32, 64], "activation": "relu", "scale": "softplus"}
    config = VAEConfig(event_shape=(28, 28), latent_dim=2, heads="joint", **old)
    assert config.choice("network") == Choice.parse(
        "conv:dense=false,hidden=(32,64),activation=relu"
    )
    assert config.choice("guide") == Choice.parse("normal:scale=softplus,heads=joint")


@pytest.mark.parametrize(
    "change",
    [
        {"latent_dim": 0},
        {"event_shape": ()},
        {"hidden": (0,)},
        {"covariate_dim": -1},
        {"layers": 3},
    ],
)
def test_bad_values(change):
    with pytest.raises(ValidationError, match=next(iter(change))):
        VAEConfig(**{"event_shape": (3,), "latent_dim": 2, **change})


def test_convolutions_need_images():
    config = VAEConfig(event_shape=(3,), latent_dim=2, network="conv", hidden=(4, 8))
    with pytest.raises(ValueError, match="convolutions need images"):
        VAE.from_config(config)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(0, 3), "at least one row"),
        (torch.rand(1, 3), "x has 1 row"),
        (torch.rand(5), "it needs at least one row of at least one entry"),
        (torch.tensor([[1.5, 2.0], [2.5, 2.0]]), r"x never varies in features \[1\]"),
        (torch.tensor([[1.5, 2.0], [torch.nan, torch.nan]]), r"no observed entry.*\[1\]"),
        (torch.tensor([[1.5, 2.0], [torch.inf, 1.0]]), "infinite values, the first in row 1"),
    ],
)
def test_data_that_say_nothing_are_refused(x, message):
    with pytest.raises(ValueError, match=message):
        VAEConfig.for_data(x)


def test_constant_columns_are_named():
    x = torch.tensor([[1.5, 2.0], [2.5, 2.0]])
    with pytest.raises(ValueError, match=r"\['width'\].*drop these features \(--drop width\)"):
        VAEConfig.for_data(x, feature_names=("height", "width"))


def test_center_by_feature_is_the_mean_of_each_entry(digits):
    config = VAEConfig.for_data(digits, center="feature", hidden=(16,))
    vae = VAE.from_config(VAEConfig(**config.model_dump()))
    torch.testing.assert_close(vae.encoder.inputs.center, digits.mean(0))
    seen = []
    vae.encoder.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    vae.encoder(digits)
    torch.testing.assert_close(seen[0], (digits - digits.mean(0)) / digits.std(correction=0))


def test_center_must_fit_the_row():
    config = VAEConfig(event_shape=(2, 3), latent_dim=2, center=(0.0, 1.0))
    with pytest.raises(ValueError, match="center has 2 numbers but a row has 6 entries"):
        config.parts()


def test_glorot_bounds_the_weights_of_both_networks():
    config = VAEConfig(
        event_shape=(28, 28),
        latent_dim=2,
        network="conv:dense=false",
        hidden=(32, 64),
        initialization="glorot",
    )
    vae = VAE.from_config(config)
    # sqrt(6 / (fan in + fan out)), by hand.
    for layer, fans in (
        (vae.encoder.network.convolutions[2], 9 * 32 + 9 * 64),
        (vae.decoder.network.dense, 2 + 7 * 7 * 32),
        (vae.decoder.network.convolutions[1], 9 * 32 + 9 * 64),
    ):
        bound = (6 / fans) ** 0.5
        assert 0.98 * bound < layer.weight.abs().max() <= bound
        assert not layer.bias.any()
    torch.testing.assert_close(vae.encoder(torch.rand(3, 28, 28)).variance, torch.ones(3, 2))
