"""Pictures: that they are drawn from what they are given; they were looked at by eye."""

import warnings

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

import ppl_vae as plots
from ppl_vae import VAE, VAEConfig, fit


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
    np.testing.assert_array_equal(axes.lines[1].get_ydata(), -history.validation_loss)


def test_originals_are_the_data(digits):
    vae = VAE.from_config(VAEConfig.for_data(digits, hidden=(8,)))
    figure = plots.plot_reconstructions(vae, digits, num_rows=3)
    drawn = [axes.images[0].get_array() for axes in figure.axes[:3]]
    np.testing.assert_allclose(np.stack(drawn), digits[:3], atol=1e-6)


def test_counts_and_reals_are_shown_in_their_own_range():
    """Not all white, as they were when everything above one was."""
    generator = torch.Generator().manual_seed(0)
    for x in (
        torch.poisson(torch.rand(60, 8, 8, generator=generator) * 10, generator=generator),
        torch.randn(60, 8, 8, generator=generator) * 100,
    ):
        vae = VAE.from_config(VAEConfig.for_data(x, hidden=(16,)))
        image = plots.plot_reconstructions(vae, x[:3]).axes[0].images[0].get_array()
        assert (image >= 1).mean() < 0.05
        assert (image <= 0).mean() < 0.2
        assert image.std() > 0.1


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 6])
def test_images_of_any_number_of_channels(channels, tmp_path):
    x = torch.rand(12, channels, 8, 8, generator=torch.Generator().manual_seed(0))
    vae = VAE.from_config(VAEConfig.for_data(x, latent_dim=2, hidden=(8,)))
    for figure in (
        plots.plot_reconstructions(vae, x[:2]),
        plots.plot_draws(vae, num_rows=4),
        plots.plot_manifold(vae, size=2),
        plots.plot_traversals(vae, num_values=2),
        plots.plot_interpolation(vae, x),
    ):
        figure.savefig(tmp_path / "figure.png")


@pytest.mark.parametrize("label", ["$x", "a$b$c", r"\frac", "a_b^c", "nul\0", "${", "中文"])
def test_labels_are_plain_text(label, tmp_path):
    x = torch.rand(12, 4, 4, generator=torch.Generator().manual_seed(0))
    vae = VAE.from_config(VAEConfig.for_data(x, latent_dim=2, hidden=(8,)))
    labels = [label, "other"] * 6
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # the letters, not we
        for draw in (plots.plot_latents, plots.plot_latent_map):
            draw(vae, x, labels=labels).savefig(tmp_path / "figure.png")


def test_ten_labels_have_ten_colors(digits):
    vae = VAE.from_config(VAEConfig.for_data(digits, latent_dim=2, hidden=(8,)))
    axes = plots.plot_latents(vae, digits[:100], labels=np.arange(100) % 10).axes[0]
    colors = {tuple(points.get_facecolor()[0]) for points in axes.collections}
    assert len(colors) == 10
    assert all(color[3] == 1 for color in colors)  # what shines through has less contrast
