"""Sizes that are chosen by the shape and the number of rows."""

import pytest
import torch

from ppl_vae import VAEConfig
from ppl_vae.sizes import latents_for, passes_for


@pytest.mark.parametrize("columns", [6, 8, 11, 13, 30, 56])
def test_a_table_has_as_many_latents_as_factors_can_be_told_apart(columns):
    """Loadings up to rotation and a scale for each column are no more than a covariance has."""

    def free(latents):
        covariance = columns * (columns + 1) / 2
        return covariance - columns * (latents + 1) + latents * (latents - 1) / 2

    found = latents_for((columns,))
    assert free(found) >= 0
    assert free(found + 1) < 0


def test_sizes_of_tables_and_images():
    x = torch.randn(1000, 12)
    large, small = VAEConfig.for_data(x), VAEConfig.for_data(x[:999])
    assert (large.latent_dim, large.hidden) == (7, (256, 256))
    assert (small.latent_dim, small.hidden) == (7, (128,))
    image = VAEConfig.for_data(x[:50].reshape(50, 3, 4))
    assert (image.latent_dim, image.hidden) == (2, (256, 256))
    wide = VAEConfig.for_data(torch.randn(40, 120))
    assert (wide.latent_dim, wide.hidden) == (50, (500, 500))
    assert VAEConfig.for_data(x[:9], latent_dim=3, hidden=(5,)).hidden == (5,)


@pytest.mark.parametrize(
    ("rows", "batch_size", "passes"),
    [(20, 16, 200), (999, 99, 182), (4000, 128, 63), (10**6, 128, 20)],
)
def test_fewer_rows_are_gone_through_more_often(rows, batch_size, passes):
    assert passes_for(rows, batch_size) == passes
