"""Pictures of the latent space: that what is drawn is what the encoder and the decoder say."""

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from torch import nn

import ppl_vae
from ppl_vae import VAE, VAEConfig


def small(event_shape=(8, 8), latent_dim=2, **choices):
    config = VAEConfig(event_shape=event_shape, latent_dim=latent_dim, hidden=(16,), **choices)
    return VAE.from_config(config)


class Fixed(nn.Module):
    """The same q(z|x) for every row."""

    def __init__(self, q):
        super().__init__()
        self.q = q

    def forward(self, x, covariates=None):
        return self.q.expand((len(x),))


CORRELATED = dist.MultivariateNormal(
    torch.tensor([1.0, -1.0, 0.5]),
    torch.tensor([[1.0, 0.9, 0.0], [0.9, 2.0, 0.3], [0.0, 0.3, 0.5]]),
)
POSTERIORS = {
    "independent": dist.Normal(torch.tensor([1.0, 0.0]), torch.tensor([0.2, 3.0])).to_event(1),
    "correlated": CORRELATED,
    # Normal too, but in a form that hides its covariance.
    "unknown": dist.TransformedDistribution(
        CORRELATED, [dist.transforms.AffineTransform(torch.ones(3), 2.0, event_dim=1)]
    ),
}


@pytest.mark.parametrize("name", POSTERIORS)
def test_an_ellipse_holds_the_mass_it_says(name):
    """Of 20,000 draws; the bound is 4.3 standard errors, plus 0.01 for estimated moments."""
    q = POSTERIORS[name]
    vae = small(latent_dim=q.event_shape[0])
    vae.encoder = Fixed(q)
    figure = ppl_vae.plot_latent_map(vae, torch.ones(2, 8, 8), which=(0, 1), mass=0.8)
    _, ellipses = (c for c in figure.axes[0].collections if hasattr(c, "get_angles"))
    angle = np.radians(ellipses.get_angles()[0])
    z = (q.sample((20_000,))[:, :2].numpy() - ellipses.get_offsets()[0]).T
    along = z[0] * np.cos(angle) + z[1] * np.sin(angle)
    across = -z[0] * np.sin(angle) + z[1] * np.cos(angle)
    radii = ellipses.get_widths()[0] / 2, ellipses.get_heights()[0] / 2
    inside = (along / radii[0]) ** 2 + (across / radii[1]) ** 2 <= 1
    slack = 0.01 if name == "unknown" else 0.0
    assert abs(inside.mean() - 0.8) < 4.3 * np.sqrt(0.16 / 20_000) + slack


def test_the_map_takes_the_two_most_active_latents_and_writes_the_labels():
    vae = small(latent_dim=4)
    with torch.no_grad():
        vae.encoder.loc_head.weight.mul_(torch.tensor([[0.1], [2.0], [0.1], [3.0]]))
    axes = ppl_vae.plot_latent_map(vae, torch.rand(30, 8, 8).round(), labels=[3, 7] * 15).axes
    assert (axes[0].get_xlabel(), axes[0].get_ylabel()) == ("latent 1", "latent 3")
    assert [text.get_text() for text in axes[0].texts] == ["3", "7"]


def test_the_manifold_shows_each_z_where_its_axes_say():
    vae = small()
    figure = ppl_vae.plot_manifold(vae, size=3)
    mosaic = figure.axes[0].images[0].get_array()
    low, high = (dist.Normal(0.0, 1.0).icdf(torch.tensor(level)) for level in (1 / 6, 5 / 6))
    with torch.no_grad():
        top_left, bottom_right, middle = vae.decoder(
            torch.tensor([[low, high], [high, low], [0.0, 0.0]])
        ).mean.numpy()
    # Tiles of 8 pixels, one apart.
    np.testing.assert_allclose(mosaic[:8, :8], top_left, atol=1e-5)
    np.testing.assert_allclose(mosaic[-8:, -8:], bottom_right, atol=1e-5)
    np.testing.assert_allclose(mosaic[9:17, 9:17], middle, atol=1e-5)


def test_traversals_move_one_latent_through_the_prior_most_effective_first():
    vae = small(latent_dim=3)
    with torch.no_grad():
        vae.decoder.network.layers[0].weight.mul_(torch.tensor([0.1, 5.0, 1.0]))
    figure = ppl_vae.plot_traversals(vae, num_latents=2, num_values=3)
    labels = [axes.get_ylabel() for axes in figure.axes[::3]]
    assert labels == ["latent 1", "latent 2"]
    last = dist.Normal(0.0, 1.0).icdf(torch.tensor(0.98))
    with torch.no_grad():
        expected = vae.decoder(torch.tensor([[0.0, last, 0.0]])).mean[0].numpy()
    np.testing.assert_allclose(figure.axes[2].images[0].get_array(), expected, atol=1e-5)


def test_traversals_leave_unused_latents_out():
    vae = small(latent_dim=4)
    with torch.no_grad():
        vae.decoder.network.layers[0].weight.mul_(torch.tensor([1.0, 0.01, 1.0, 0.0]))
    figure = ppl_vae.plot_traversals(vae, num_values=3)
    assert {axes.get_ylabel() for axes in figure.axes[::3]} == {"latent 0", "latent 2"}


def test_features_are_named():
    vae = small(event_shape=(3,))
    names = ["height", "a name that is longer than there is room for", "$x$"]
    figure = ppl_vae.plot_traversals(vae, num_values=3, feature_names=names)
    shown = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    assert shown[0] == "height"
    assert len(shown[1]) < 30
    assert shown[2] == r"\$x\$"
    draws = ppl_vae.plot_draws(vae, num_rows=4, feature_names=names).axes[0]
    assert [tick.get_text() for tick in draws.get_xticklabels()] == shown
    with pytest.raises(ValueError, match="feature_names has 2 entries and rows have 3"):
        ppl_vae.plot_reconstructions(vae, torch.ones(2, 3), feature_names=names[:2])


def test_traversals_stay_at_the_row_that_is_given(digits):
    vae = VAE.from_config(VAEConfig.for_data(digits, latent_dim=2, hidden=(16,)))
    with torch.no_grad():
        vae.encoder.loc_head.bias.add_(3.0)
    at_row = ppl_vae.plot_traversals(vae, digits[:1]).axes[4].images[0].get_array()
    at_prior = ppl_vae.plot_traversals(vae).axes[4].images[0].get_array()
    assert np.abs(at_row - at_prior).max() > 0.01


def test_interpolation_begins_and_ends_with_the_rows(digits):
    vae = VAE.from_config(VAEConfig.for_data(digits, latent_dim=2, hidden=(16,)))
    figure = ppl_vae.plot_interpolation(vae, digits, rows=(5, 2), num_steps=3)
    images = [axes.images[0].get_array() for axes in figure.axes]
    for line in (images[:5], images[5:]):
        np.testing.assert_allclose(line[0], digits[5], atol=1e-6)
        np.testing.assert_allclose(line[-1], digits[2], atol=1e-6)
    np.testing.assert_allclose(images[7], digits[[5, 2]].mean(0), atol=1e-6)
    with torch.no_grad():
        first, last = vae.encoder(digits[[5, 2]]).mean
        decoded = vae.decoder(torch.stack([first, (first + last) / 2, last])).mean
    np.testing.assert_allclose(np.stack(images[1:4]), decoded, atol=1e-5)


def test_a_picture_of_a_conditional_vae_needs_one_context(digits):
    vae = VAE.from_config(VAEConfig.for_data(digits, latent_dim=3, hidden=(16,), covariate_dim=2))
    covariates = torch.rand(len(digits), 2)
    ppl_vae.plot_latent_map(vae, digits, covariates=covariates, max_rows=20)
    ppl_vae.plot_interpolation(vae, digits, covariates=covariates)
    ppl_vae.plot_traversals(vae, digits[:1], covariates=covariates[:1])
    ppl_vae.plot_manifold(vae, covariates=covariates[:1], size=2)
    with pytest.raises(
        ValueError, match=r"covariates has 1797 rows; pass one, such as covariates\[:1\]"
    ):
        ppl_vae.plot_manifold(vae, covariates=covariates)


@pytest.mark.parametrize("shape", [(6,), (8, 8), (3, 8, 8)])
@pytest.mark.parametrize("latent_dim", [1, 5])
def test_traversals_of_every_kind_of_row(shape, latent_dim, tmp_path):
    vae = small(event_shape=shape, latent_dim=latent_dim)
    ppl_vae.plot_traversals(vae).savefig(tmp_path / "traversals.png")
    if len(shape) > 1 and latent_dim > 1:
        ppl_vae.plot_manifold(vae, size=3).savefig(tmp_path / "manifold.png")


x = torch.ones(3, 8, 8)
ERRORS = {
    "one latent": (lambda: ppl_vae.plot_latent_map(small(latent_dim=1), x), "this VAE has 1"),
    "no grid": (lambda: ppl_vae.plot_manifold(small(latent_dim=1)), "use plot_traversals"),
    "which": (
        lambda: ppl_vae.plot_latent_map(small(latent_dim=50), x, which=(3, 50)),
        "which is .3, 50.; pass two different latents of 0 to 49",
    ),
    "the same": (lambda: ppl_vae.plot_manifold(small(), which=(1, 1)), "two different"),
    "mass": (lambda: ppl_vae.plot_latent_map(small(), x, mass=1.0), "mass is 1.0"),
    "labels": (lambda: ppl_vae.plot_latent_map(small(), x, labels=[1]), "labels has 1 entr"),
    "shape": (lambda: ppl_vae.plot_latent_map(small(), x[:, 1:]), "was built for"),
    "table": (lambda: ppl_vae.plot_manifold(small(event_shape=(6,))), "rows have the shape"),
    "size": (lambda: ppl_vae.plot_manifold(small(), size=1), "size is 1"),
    "rows": (lambda: ppl_vae.plot_interpolation(small(), x, rows=(0, 3)), "from 0 to 2"),
    "steps": (lambda: ppl_vae.plot_interpolation(small(), x, num_steps=1), "num_steps is 1"),
    "many rows": (lambda: ppl_vae.plot_traversals(small(), x), "x has 3 rows; pass one"),
    "values": (lambda: ppl_vae.plot_traversals(small(), num_values=1), "num_values 1"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_say_what_to_do(name):
    call, message = ERRORS[name]
    with pytest.raises(ValueError, match=message):
        call()


def test_the_random_state_is_left_alone():
    vae = small(latent_dim=3)
    vae.encoder = Fixed(POSTERIORS["unknown"])
    before = torch.get_rng_state()
    ppl_vae.plot_latent_map(vae, x)
    ppl_vae.plot_manifold(vae, size=2)
    ppl_vae.plot_traversals(vae)
    assert torch.equal(before, torch.get_rng_state())
