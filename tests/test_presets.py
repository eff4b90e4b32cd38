"""Presets: published VAEs, as choices of parts."""

import json

import numpy as np
import pytest
import torch
from test_data import write_idx

from ppl_vae import PRESETS, VAE, fit, log_evidence
from ppl_vae.run.recipe import Recipe


@pytest.mark.parametrize("supported", [True, False])
def test_a_preset_takes_bfloat16_only_where_the_processor_has_it(monkeypatch, supported):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: supported)
    assert Recipe.of_preset("best-mnist", device="cpu").precision == ("bf16" if supported else "32")
    assert Recipe.of_preset("best-mnist", device="cpu", precision="bf16").precision == "bf16"


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_learns(digits, name):
    preset = PRESETS[name]
    # Layers of 1200 units take minutes on a busy machine, and learn as smaller ones do.
    choices = {}
    if max(preset.vae.get("hidden", (0,))) > 1000:
        choices["hidden"] = (100, 100)
    if name in ("flow-prior", "best-mnist"):
        choices["network"] = "resnet:channels=(4,8),halved=true,width=32"
    if name == "vamp":
        choices["prior"] = "vamp:components=20"
    vae = VAE.from_config(preset.config(digits, **choices))
    bits = (digits > 0.5).float()
    before = log_evidence(vae, bits[:100], num_samples=50, progress=False).log_evidence.mean()
    options = {**preset.fit, "epochs": 8, "learning_rate": 3e-3, "batch_size": 50}
    if name == "burda-iwae":
        options["objective"] = "iwae:num_particles=5"
    result = fit(vae, digits, **options, progress=False)
    after = log_evidence(vae, bits[:100], num_samples=50, progress=False).log_evidence.mean()
    assert result.finite
    assert after > before + 1


@pytest.mark.parametrize(
    ("name", "count"),
    [
        # Weights and biases, by hand: encoder, heads, decoder.
        ("keras-mlp", 785 * 256 + 2 * 257 * 2 + 3 * 256 + 257 * 784),
        ("keras-r", 785 * 256 + 257 * 4 + 3 * 256 + 257 * 784),
        (
            "tf-cvae",
            (9 * 32 + 32) + (9 * 32 * 64 + 64) + (7 * 7 * 64 + 1) * 4
            + 3 * 7 * 7 * 32 + (9 * 32 * 64 + 64) + (9 * 64 * 32 + 32) + (9 * 32 + 1),
        ),
        ("pyro-vae", 785 * 400 + 2 * 401 * 50 + 51 * 400 + 401 * 784),
        ("aevb", 785 * 500 + 2 * 501 * 20 + 21 * 500 + 501 * 784),
        (
            "burda-vae",
            785 * 200 + 201 * 200 + 2 * 201 * 50 + 51 * 200 + 201 * 200 + 201 * 784,
        ),
        (
            "burda-iwae",
            785 * 200 + 201 * 200 + 2 * 201 * 50 + 51 * 200 + 201 * 200 + 201 * 784,
        ),
        (
            "vamp",
            785 * 300 + 301 * 300 + 2 * 301 * 40 + 41 * 300 + 301 * 300 + 301 * 784
            + 500 * 784 + 500,
        ),
        (
            "pyro-flow-prior",
            785 * 1024 + 1025 * 1024 + 1025 * 32 + 17 * 1024 + 1025 * 1024 + 1025 * 784
            + 3 * (17 * 256 + 257 * 256 + 257 * 32),
        ),
        ("beta-vae", 785 * 1200 + 1201 * 1200 + 1201 * 20 + 11 * 1200 + 1201 * 1200 + 1201 * 784),
    ],
)  # fmt: skip
def test_sizes_are_the_sources(name, count):
    vae = VAE.from_config(PRESETS[name].config(torch.rand(9, 28, 28)))
    assert sum(p.numel() for p in vae.parameters()) == count


def test_one_concatenated_layer_or_two_heads_are_one_function(digits):
    """The R version and the Python version of Keras's VAE, given the same weights.

    The one learns the log variance, the other the log scale: half of it.
    """
    torch.manual_seed(0)
    r = VAE.from_config(PRESETS["keras-r"].config(digits)).double()
    keras = VAE.from_config(PRESETS["keras-mlp"].config(digits)).double()
    torch.nn.init.normal_(r.encoder.head.weight)
    loc, raw = r.encoder.head.weight.chunk(2)
    loc_bias, raw_bias = r.encoder.head.bias.chunk(2)
    keras.decoder.load_state_dict(r.decoder.state_dict())
    keras.encoder.network.load_state_dict(r.encoder.network.state_dict())
    with torch.no_grad():
        keras.encoder.loc_head.weight.copy_(loc)
        keras.encoder.loc_head.bias.copy_(loc_bias)
        keras.encoder.scale_head.weight.copy_(raw / 2)
        keras.encoder.scale_head.bias.copy_(raw_bias / 2)
    x = (digits[:100] > 0.5).double()
    draws = []
    for vae in (r, keras):
        torch.manual_seed(1)
        draws.append(vae.encoder.draw(x))
    torch.testing.assert_close(draws[1], draws[0], rtol=1e-12, atol=1e-12)
    one, two = (log_evidence(vae, x, num_samples=50, progress=False) for vae in (r, keras))
    np.testing.assert_allclose(two.log_evidence, one.log_evidence, rtol=1e-10)


def test_parts_are_usable_on_their_own(digits):
    """Keras's tutorial makes an encoder and a generator of the same layers."""
    vae = VAE.from_config(PRESETS["keras-mlp"].config(digits))
    assert vae.encoder(digits[:7]).mean.shape == (7, 2)
    assert vae.decoder(torch.tensor([[0.0, 1.0]])).mean.shape == (1, 8, 8)


@pytest.fixture
def small_mnist(tmp_path, digits):
    """Images in MNIST's own files, few and easy."""
    folder = tmp_path / "data" / "MNIST" / "raw"
    folder.mkdir(parents=True)
    images = torch.nn.functional.interpolate(digits[:300, None], size=28)[:, 0] * 255
    for split, rows in {"train": slice(200), "t10k": slice(200, 300)}.items():
        write_idx(folder / f"{split}-images-idx3-ubyte", images[rows].byte().numpy())
        write_idx(folder / f"{split}-labels-idx1-ubyte", np.arange(len(images[rows])) % 10)
    return tmp_path / "data"


def test_reproduce_sets_theirs_beside_ours(command, small_mnist, tmp_path):
    quick = ("--epochs", 1, "--draws", 50, "--data-root", small_mnist)
    code, out, err = command("reproduce", "burda-vae", *quick, "--film")
    assert (code, err) == (0, "")
    assert "-86.76" in out
    assert "none published" in out
    assert "all 1 epochs done" in out
    assert "seed 0" in out
    run = tmp_path / "runs" / "burda-vae"
    found = json.loads((run / "reproduction.json").read_text())
    assert found["published"] == "-86.76"
    assert found["test"]["rows"] == 100
    assert (run / "training.gif").stat().st_size > 0
    settings = json.loads((run / "config.json").read_text())
    assert settings["fit"]["validation"] is None
    assert settings["vae"]["network_options"]["hidden"] == [200, 200]
    code, out, err = command("reproduce", "burda-vae", *quick, "--json")
    assert json.loads(out)["run"] == "runs/burda-vae-2"


def test_reproduce_without_a_name_lists_all(command):
    code, out, err = command("reproduce")
    assert (code, err) == (0, "")
    assert all(name in out for name in PRESETS)
    assert "sprites" in out


def test_options_replace_what_a_preset_says(command, tmp_path):
    options = ("--epochs", 1, "--draws", 50, "--latent-dim", 3, "--learning-rate", 0.01)
    code, _, err = command(
        "fit", "--preset", "aevb", *options, "--validation", 0.1, "--precision", "bf16", "--quiet"
    )
    assert (code, err) == (0, "")
    settings = json.loads((tmp_path / "runs" / "aevb" / "config.json").read_text())
    assert settings["vae"]["latent_dim"] == 3
    assert settings["vae"]["network_options"]["hidden"] == [500]
    assert settings["fit"]["learning_rate"] == 0.01
    assert settings["fit"]["validation"] == 0.1
    assert settings["fit"]["precision"] == "bf16"
    assert settings["binarize"] == "dynamic"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("reproduce", "vae"), "there is no preset 'vae'; accepted are keras-mlp, keras-r,"),
        (("fit", "--preset", "VAE"), "there is no preset 'VAE'; accepted are keras-mlp"),
        (("fit", "--validation", 1), "--validation is 1.0; pass the fraction of rows"),
        (("fit", "--schedule", "linear"), "schedule is 'linear'; accepted are 'one_cycle'"),
        (("fit", "--precision", "8"), "--precision is '8'; accepted are '32', 'tf32', 'bf16'"),
        (("fit", "--preset", "tf-cvae", "table.csv"), "convolutions need images"),
        (("fit", "--film", "table.csv"), "a film shows images"),
    ],
)
def test_bad_presets_and_options(command, tmp_path, arguments, message):
    (tmp_path / "table.csv").write_text("a,b\n" + "0,1\n1,0\n" * 20)
    code, out, err = command(*arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "runs").exists() or not any((tmp_path / "runs").iterdir())
