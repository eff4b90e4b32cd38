"""Pictures: that they are drawn from what they are given; they were looked at by eye."""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from ppl_vae import VAE, VAEConfig, fit
from ppl_vae.pictures import rows as plots


@pytest.mark.parametrize("shape", [(6,), (8, 8), (3, 8, 8)])
@pytest.mark.parametrize("latent_dim", [1, 2, 5])
def test_every_picture_of_every_kind_of_row(shape, latent_dim, tmp_path):
    x = torch.rand(40, *shape, generator=torch.Generator().manual_seed(0))
    vae = VAE.from_config(VAEConfig.for_data(x, latent_dim=latent_dim, hidden=(8,)))
    figures = [
        plots.plot_reconstructions(vae, x),
        plots.plot_draws(vae, num_rows=5),
        plots.plot_latents(vae, x, labels=np.arange(40) % 12),
        plots.plot_latents(vae, x),
    ]
    for i, figure in enumerate(figures):
        assert isinstance(figure, Figure)
        figure.savefig(tmp_path / f"{i}.png")


def test_losses_shows_both_curves(digits):
    vae = VAE.from_config(VAEConfig.for_data(digits, hidden=(8,)))
    history = fit(vae, digits[:100], epochs=6, validation=0.2, progress=False).history
    (axes,) = plots.plot_losses(history).axes
    labels = [line.get_label() for line in axes.lines]
    assert labels == ["training", "validation", f"weights kept (epoch {history.best_epoch})"]
    np.testing.assert_array_equal(axes.lines[1].get_ydata(), history.validation_loss)


def test_originals_are_the_data(digits):
    vae = VAE.from_config(VAEConfig.for_data(digits, hidden=(8,)))
    figure = plots.plot_reconstructions(vae, digits, num_rows=3)
    drawn = [axes.images[0].get_array() for axes in figure.axes[:3]]
    np.testing.assert_allclose(np.stack(drawn), digits[:3], atol=1e-6)
