"""The DataTree that ArviZ reads."""

import numpy as np
import pytest
import torch
import xarray as xr

from ppl_vae import VAE, VAEConfig, fit, to_datatree
from ppl_vae.trees.vae import GROUPS, write_datatree


@pytest.fixture
def tree(digits) -> xr.DataTree:
    bits = (digits > 0.5).float()
    vae = VAE.from_config(VAEConfig.for_data(bits, latent_dim=2, hidden=(16,)))
    history = fit(vae, bits[:200], epochs=2, progress=False).history
    return to_datatree(
        vae, bits[:6], num_samples=50, labels=list("abcdef"), history=history, progress=False
    )


def test_groups_and_dims(tree):
    assert set(tree.children) == set(GROUPS)
    dims = {
        group: {name: tree[group][name].dims for name in tree[group].data_vars} for group in GROUPS
    }
    sample, event = ("chain", "draw"), ("pixel_y", "pixel_x")
    assert dims["posterior"] == {"z": (*sample, "row", "latent")}
    assert dims["prior"] == {"z": (*sample, "latent")}
    assert dims["posterior_predictive"] == {"x": (*sample, "row", *event)}
    assert dims["prior_predictive"] == {"x": (*sample, *event)}
    assert dims["log_likelihood"] == {"x": (*sample, "row")}
    assert dims["sample_stats"] == dict.fromkeys(("log_p", "log_q", "log_weight"), (*sample, "row"))
    assert dims["observed_data"] == {"x": ("row", *event)}
    assert dims["constant_data"] == {"label": ("row",)}
    assert dims["fit_history"]["train_loss"] == ("epoch",)


def test_file_goes_through_arviz(tree, tmp_path):
    import arviz_plots
    import arviz_stats

    write_datatree(tree, tmp_path / "posterior.nc")
    read = xr.open_datatree(tmp_path / "posterior.nc", engine="h5netcdf").load()
    assert read["posterior"].to_dataset().identical(tree["posterior"].to_dataset())
    rows = {"row": [0, 1]}
    summary = arviz_stats.summary(read, var_names="z", coords=rows, kind="stats", round_to=3)
    assert len(summary) == 4
    arviz_plots.plot_forest(read, var_names=["z"], coords=rows, combined=True)
    # The minus is arviz-stats' convention: it smooths the tail of what PSIS-LOO divides by.
    log_weight = read["sample_stats"]["log_weight"]
    khat = (-log_weight).azstats.psislw(dim=["chain", "draw"])[1]
    assert khat.dims == ("row",)


def test_tables_have_feature_names_and_predictions_of_missing_entries():
    x = torch.randn(30, 2, generator=torch.Generator().manual_seed(0)) * 3
    x[0, 1] = torch.nan
    vae = VAE.from_config(VAEConfig.for_data(x, hidden=(4,)))
    tree = to_datatree(vae, x[:3], num_samples=20, feature_names=("height", "width"))
    assert list(tree.observed_data.feature) == ["height", "width"]
    assert np.isnan(tree.observed_data.x.values[0, 1])
    assert np.isfinite(tree.posterior_predictive.x).all()


def test_conditional_priors_have_rows():
    vae = VAE.from_config(VAEConfig(event_shape=(3,), latent_dim=2, hidden=(4,), covariate_dim=2))
    x, covariates = torch.ones(5, 3), torch.rand(5, 2)
    tree = to_datatree(vae, x, covariates=covariates, num_samples=4)
    assert tree.prior_predictive.x.sizes == {"chain": 1, "draw": 4, "row": 5, "feature": 3}


def test_only_the_groups_asked_for(digits):
    vae = VAE.from_config(VAEConfig(event_shape=(8, 8), latent_dim=2, hidden=(16,)))
    x = (digits[:3] > 0.5).float()
    assert set(to_datatree(vae, x, groups=("posterior", "sample_stats")).children) == {
        "posterior",
        "sample_stats",
    }
    with pytest.raises(ValueError, match=r"groups has \['weights'\]; accepted are 'posterior'"):
        to_datatree(vae, x, groups=("weights",))
    with pytest.raises(ValueError, match="labels has 2 entries but x has 3 rows"):
        to_datatree(vae, x, labels=[1, 2])


def test_failed_write_leaves_nothing(tree, tmp_path):
    with pytest.raises(OSError, match="missing"):
        write_datatree(tree, tmp_path / "missing" / "posterior.nc")
    assert not list(tmp_path.iterdir())


def test_groups_say_what_they_are_not(oracle):
    """ArviZ would take log p(x|z) for what PSIS-LOO needs; the attribute names the one call."""
    tree = to_datatree(oracle.vae(), oracle.rows(5), num_samples=20, progress=False)
    assert "log_evidence(vae, x)" in tree.log_likelihood.attrs["caution"]
    assert "PSIS-LOO" in tree.log_likelihood.attrs["caution"]
    assert "not of the posterior" in tree.posterior.attrs["caution"]
    assert "caution" not in tree.observed_data.attrs
