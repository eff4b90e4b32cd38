"""Latents and verdicts of cells, in an AnnData and in a copy of its file."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from ppl_vae import VAE, VAEConfig, annotate, denoise, encode, judge_rows, load_data
from ppl_vae.run import Run

QUIET = {"progress": False}


def counts(size=60):
    generator = np.random.default_rng(0)
    share = np.where(generator.random((size, 1)) < 0.5, [0.6, 0.2, 0.1, 0.1], [0.1, 0.1, 0.2, 0.6])
    return generator.poisson(share * generator.integers(20, 80, (size, 1))).astype(np.float32)


def test_what_is_written_is_what_the_checks_say():
    x = torch.tensor(counts(20))
    vae = VAE.from_config(VAEConfig.for_data(x, latent_dim=2, hidden=(8,)))
    obs = pd.DataFrame({"batch": ["1"] * 20}, index=[f"c{i}" for i in range(20)])
    cells = SimpleNamespace(n_obs=20, n_vars=4, obs=obs, obsm={}, layers={})
    annotate(cells, vae, x, key="z", denoised="clean", num_samples=100, **QUIET)
    latents = encode(vae, x, **QUIET)
    np.testing.assert_array_equal(cells.obsm["z"], latents["mean"])
    np.testing.assert_array_equal(cells.obsm["z_sd"], latents.sd)
    judged = judge_rows(vae, x, num_samples=100, **QUIET)
    words = judged.verdict.attrs["flag_meanings"].split()
    said = [words[code].replace("_", " ") for code in judged.verdict.values]
    assert cells.obs.vae_verdict.tolist() == said
    np.testing.assert_array_equal(cells.obs.vae_pareto_k, judged.pareto_k)
    np.testing.assert_array_equal(
        cells.layers["clean"], denoise(vae, x, total=1e4, **QUIET)["mean"]
    )
    with pytest.raises(ValueError, match="x has 7 rows and adata 20 cells"):
        annotate(cells, vae, x[:7], **QUIET)
    cells.n_vars = 5
    with pytest.raises(ValueError, match="denoised='clean' is to be a layer of 5 genes"):
        annotate(cells, vae, x, denoised="clean", **QUIET)


def test_a_file_gets_a_copy(run_command, tmp_path):
    """By the layer, the covariates and the genes of the fit, in whatever order they come."""
    anndata = pytest.importorskip("anndata")
    x = counts()
    cells = anndata.AnnData(
        np.log1p(x),
        obs=pd.DataFrame({"batch": ["1", "2"] * 30}, index=[f"c{i}" for i in range(60)]),
        var=pd.DataFrame(index=list("abcd")),
        layers={"counts": x},
    )
    path, run, out = tmp_path / "cells.h5ad", tmp_path / "run", tmp_path / "with.h5ad"
    cells.write_h5ad(path)
    code, _, error = run_command(
        *("fit", path, "--layer", "counts", "--context", "batch", "--context", "library"),
        *("--out", run, "--epochs", 2, "--hidden", 8, "--latent-dim", 2, "--draws", 50),
    )
    assert code == 0, error
    cells[:, list("dbca")].write_h5ad(tmp_path / "other.h5ad")
    code, printed, error = run_command(
        *("encode", run, tmp_path / "other.h5ad", "--out", out, "--denoised", "clean")
    )
    assert code == 0, error
    assert printed == f"60 cells with their latents written to {out}\n"
    found = anndata.read_h5ad(out)
    data = load_data(cells, None, layer="counts", context=Run(run).codings)
    latents = encode(Run(run).vae(), data, **QUIET)
    np.testing.assert_allclose(found.obsm["X_vae"], latents["mean"], rtol=1e-5)
    assert set(found.obs.vae_verdict.cat.categories) == {"not", "reweighted", "as it is"}
    np.testing.assert_allclose(found.layers["clean"].sum(1), 1e4, rtol=1e-4)
    np.testing.assert_array_equal(found.layers["counts"], x[:, [3, 1, 2, 0]])


def test_no_other_file_gets_one(run_command, tmp_path):
    np.savez(tmp_path / "cells.npz", x=counts())
    run = tmp_path / "run"
    made = ("--out", run, "--epochs", 1, "--hidden", 8, "--latent-dim", 2, "--draws", 50)
    assert run_command("fit", tmp_path / "cells.npz", *made)[0] == 0
    for options, message in (
        (("--out", tmp_path / "with.h5ad"), "a .h5ad file is written of another"),
        (("--layer", "counts"), "leave --layer out"),
        (("--denoised", "clean"), "--denoised is a layer of a .h5ad file"),
    ):
        code, _, error = run_command("encode", run, tmp_path / "cells.npz", *options)
        assert code == 2
        assert message in error
        assert len(error.splitlines()) == 1
