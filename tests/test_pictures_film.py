"""The training as a film: its frames are the decoder's, and watching changes nothing."""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from ppl_vae import VAE, VAEConfig, fit
from ppl_vae.pictures.film import TrainingFilm


def small(event_shape=(8, 8)):
    return VAE.from_config(VAEConfig(event_shape=event_shape, latent_dim=2, hidden=(16,)))


def test_frames_are_the_decoder_at_the_same_latents():
    vae = small()
    film = TrainingFilm(vae, num_images=3, every=2)
    film(0)
    with torch.no_grad():
        vae.decoder.network.layers[-1].bias.add_(1.0)
    film(1)
    film(2)
    assert film.epochs == [0, 2]
    logits = [np.log(frame) - np.log1p(-frame) for frame in film.frames]
    np.testing.assert_allclose(logits[1] - logits[0], 1.0, atol=1e-3)


def test_the_seed_decides_the_latents_and_the_random_state_is_left_alone():
    vae = small()
    before = torch.get_rng_state()
    frames = []
    for seed in (0, 0, 1):
        film = TrainingFilm(vae, seed=seed)
        film(0)
        frames.append(film.frames[0])
    assert torch.equal(before, torch.get_rng_state())
    np.testing.assert_array_equal(frames[0], frames[1])
    assert np.abs(frames[0] - frames[2]).max() > 1e-3


@pytest.mark.parametrize("shape", [(8, 8), (3, 8, 8)])
def test_a_gif_has_every_frame_and_stays_at_the_last(shape, tmp_path):
    from PIL import Image

    vae = small(shape)
    film = TrainingFilm(vae, num_images=5)
    for epoch in range(3):
        film(epoch)
        with torch.no_grad():  # equal frames would be stored as one
            vae.decoder.network.layers[-1].bias.add_(1.0)
    assert isinstance(film.plot(), Figure)
    film.save(tmp_path / "film.gif", frames_per_second=10, pause=1.5)
    durations = []
    with Image.open(tmp_path / "film.gif") as gif:
        assert gif.n_frames == 3
        for i in range(3):
            gif.seek(i)
            durations.append(gif.info["duration"])
    assert durations == [100, 100, 1500]


def test_the_fit_is_the_same_with_a_film(digits):
    ends = []
    for watched in (False, True):
        vae = VAE.from_config(VAEConfig.for_data(digits, latent_dim=2, hidden=(16,)))
        film = TrainingFilm(vae, num_images=4)
        options = {"on_epoch": film} if watched else {}
        fit(vae, digits[:200], epochs=3, progress=False, **options)
        ends.append(torch.cat([p.detach().flatten() for p in vae.parameters()]))
    assert film.epochs == [0, 1, 2, 3]
    assert torch.equal(ends[0], ends[1])
    with torch.no_grad():
        last = vae.decoder(film._z).mean.numpy()
    np.testing.assert_allclose(film.frames[-1], last, atol=1e-6)


def test_errors_say_what_to_do(tmp_path):
    with pytest.raises(ValueError, match=r"rows have the shape \(6,\); plot_losses"):
        TrainingFilm(small((6,)))
    with pytest.raises(ValueError, match="every 0; pass at least 1"):
        TrainingFilm(small(), every=0)
    film = TrainingFilm(small())
    with pytest.raises(ValueError, match="no frame yet; pass it to fit as on_epoch"):
        film.save(tmp_path / "film.gif")
    film(0)
    with pytest.raises(ValueError, match="frames_per_second is 0"):
        film.save(tmp_path / "film.gif", frames_per_second=0)
    assert not list(tmp_path.iterdir())
