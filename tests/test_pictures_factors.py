"""A picture of factors against latents: that it shows what the scores rest on."""

import numpy as np
import xarray as xr

from ppl_vae import plot_factors


def scores(factors, latents):
    random = np.random.default_rng(0)
    names = ("mutual_information", "importance", "predictability", "votes")
    matrices = {
        name: (("factor", "latent"), random.random((factors, latents)) / 2) for name in names
    }
    dci = ("dci_disentanglement", "dci_completeness", "dci_informativeness")
    return xr.Dataset(
        {**matrices, **dict.fromkeys(("mig", *dci, "sap", "factor_vae"), 0.25)}
        | {"entropy": ("factor", np.full(factors, 2.0)), "variance": ("latent", range(latents))},
        coords={"factor": [f"$f_{i}" for i in range(factors)], "latent": range(latents)},
    )


def test_cells_are_the_matrices():
    found = scores(3, 4)
    figure = plot_factors(found)
    cells = [axes.images[0].get_array() for axes in figure.axes]
    np.testing.assert_allclose(cells[0], found.mutual_information / 2)
    np.testing.assert_allclose(cells[1], found.importance)
    np.testing.assert_allclose(cells[2], found.predictability)
    np.testing.assert_allclose(cells[3], found.votes)
    assert figure.axes[0].get_title().startswith("MIG 0.25")
    assert figure.axes[0].texts[0].get_text() == f"{found.mutual_information[0, 0] / 2:.2f}"
    figure.canvas.draw()  # names with dollars are no formulas


def test_of_many_latents_the_most_used_are_drawn():
    figure = plot_factors(scores(2, 50), max_latents=12)
    labels = [int(label.get_text()) for label in figure.axes[0].get_xticklabels()]
    assert labels == list(range(38, 50))
    assert not figure.axes[0].texts
