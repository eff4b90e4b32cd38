"""A plane through the latents: that rows lie in it where they are."""

import numpy as np
import pytest

from ppl_vae import VAE, VAEConfig
from ppl_vae.workflow.draws.plane import map_rows, plane_of


def test_two_latents_are_the_plane():
    z = np.random.default_rng(0).normal(size=(20, 2))
    np.testing.assert_array_equal(plane_of(z).at(z), z)


def test_one_latent_lies_on_a_line():
    z = np.arange(4.0)[:, None]
    np.testing.assert_array_equal(plane_of(z).at(z), np.column_stack([z, np.zeros(4)]))


def test_of_more_it_keeps_the_distances_that_a_plane_can():
    rng = np.random.default_rng(0)
    flat = rng.normal(size=(50, 2)) @ rng.normal(size=(2, 6)) + rng.normal(size=6)
    points = plane_of(flat).at(flat)
    there, here = (np.linalg.norm(a[:, None] - a, axis=-1) for a in (flat, points))
    np.testing.assert_allclose(here, there, atol=1e-8)


@pytest.mark.parametrize("latent_dim", [1, 2, 5])
def test_rows_are_mapped_with_their_labels(digits, latent_dim):
    vae = VAE.from_config(VAEConfig.for_data(digits, latent_dim=latent_dim, hidden=(8,)))
    found = map_rows(vae, digits, labels=np.arange(1797) % 10, max_rows=30)
    assert found.sizes == {"row": 30}
    assert found.label.values.tolist()[9:11] == ["9", "0"]
    assert np.isfinite(found.x).all()
    assert (found.y != 0).any() == (latent_dim > 1)
