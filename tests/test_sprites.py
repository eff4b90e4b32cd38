"""Sprites: every combination of factors once, and no two alike."""

import numpy as np
import pytest
import torch

from ppl_vae import VAEConfig, load_data
from ppl_vae.data.sprites import read_sprites


@pytest.fixture(scope="module")
def sprites():
    return read_sprites()


def test_factors_are_independent_and_decide_the_image(sprites):
    assert sprites.x.shape == (3 * 4 * 8 * 8 * 8, 32, 32)
    levels = [np.unique(v, return_inverse=True)[1] for v in sprites.factors.values()]
    assert len(np.unique(np.stack(levels), axis=1).T) == len(sprites.x)
    assert len(sprites.x.flatten(1).unique(dim=0)) == len(sprites.x)
    assert set(sprites.x.unique().tolist()) == {0, 1}


def test_a_sprite_is_where_and_what_its_factors_say(sprites):
    """The moments of its pixels, up to what a pixel may be off."""
    x = sprites.x.double()
    kind, size, angle = (sprites.factors[name] for name in ("shape", "size", "angle"))
    pixel = (2 * torch.arange(32) + 1).double() / 32 - 1
    area = x.sum((1, 2))
    across, down = (x.sum(1) @ pixel / area).numpy(), (x.sum(2) @ pixel / area).numpy()
    whole = kind != "triangle"  # whose center of gravity is not its center
    assert np.abs(across - sprites.factors["x"])[whole].max() < 0.03
    assert np.abs(down - sprites.factors["y"])[whole].max() < 0.03
    share = {"ellipse": np.pi / 2, "rectangle": 2.0, "triangle": 2.0}
    expected = np.array([share[k] for k in kind]) * size**2
    assert np.abs((area * (2 / 32) ** 2).numpy() / expected - 1).max() < 0.16
    # Of long sprites the principal axis lies at the angle, of 0 to 90 degrees down from the right.
    long = kind == "rectangle"
    u, v = pixel - torch.tensor(across)[:, None], pixel - torch.tensor(down)[:, None]
    uu, vv = (x.sum(1) * u**2).sum(1), (x.sum(2) * v**2).sum(1)
    uv = torch.einsum("ryx,ry,rx->r", x, v, u)
    axis = np.degrees(0.5 * torch.atan2(2 * uv, uu - vv).numpy())
    assert np.abs(axis - angle)[long].max() < 6


def test_splits_share_out_rows_with_their_factors():
    train, test = load_data("Sprites", "train"), load_data("sprites", "test")
    assert (len(train.x), len(test.x)) == (4915, 1229)
    for part in (train, test):
        assert all(len(values) == len(part.x) for values in part.factors.values())
        assert (part.labels == part.factors["shape"]).all()
    row = np.flatnonzero([np.isclose(v, test.factors["x"][7]) for v in train.factors["x"]])[0]
    assert abs(train.x[row].sum(0).argmax() - test.x[7].sum(0).argmax()) < 8
    assert VAEConfig.for_data(train.x[:500]).likelihood == "bernoulli"


def test_larger_sprites_are_drawn_and_not_resized():
    large = load_data("sprites", "test", image_size=40)
    assert large.x.shape[1:] == (40, 40)
    assert set(large.x.unique().tolist()) == {0, 1}
    with pytest.raises(ValueError, match=r"image_size is 16, too few pixels .* at least 32"):
        load_data("sprites", image_size=16)


@pytest.mark.slow
def test_sprites_are_fitted_by_name(command, tmp_path):
    quick = ("--epochs", 1, "--draws", 50, "--hidden", 16, "--latent-dim", 2, "--quiet")
    code, _, err = command("fit", "sprites", *quick)
    assert (code, err) == (0, "")
    assert (tmp_path / "runs" / "sprites" / "metrics.json").is_file()
