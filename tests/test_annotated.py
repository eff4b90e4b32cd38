"""Tests of ppl_vae.data.annotated: counts of cells, from memory and from .h5ad files."""

import numpy as np
import pytest
from scipy import sparse

from ppl_vae import VAEConfig, load_data
from ppl_vae.rows import Rows

anndata = pytest.importorskip("anndata")
pandas = pytest.importorskip("pandas")

COUNTS = np.array([[0, 3, 0], [1, 0, 2], [0, 0, 5], [4, 0, 0]])


def annotated(form=sparse.csr_matrix):
    return anndata.AnnData(
        form(COUNTS.astype(np.float32) / 2),
        obs=pandas.DataFrame(
            {"kind": pandas.Categorical(["T", "B", "T", "B"]), "batch": ["1", "2", "1", "2"]},
            index=list("wxyz"),
        ),
        var=pandas.DataFrame(index=["HES4", "TP53", "MYC"]),
        layers={"counts": form(COUNTS)},
    )


@pytest.mark.parametrize("form", [sparse.csr_matrix, sparse.csc_matrix, np.asarray])
def test_matrices_and_layers(tmp_path, monkeypatch, form):
    monkeypatch.setattr("ppl_vae.data.annotated._AT_A_TIME", 6)  # two rows
    adata = annotated(form)
    adata.write_h5ad(tmp_path / "cells.h5ad")
    for source in (adata, tmp_path / "cells.h5ad"):
        data = load_data(source, None, layer="counts", label="kind", context="batch")
        assert data.x.tolist() == COUNTS.tolist()
        assert data.feature_names == ("HES4", "TP53", "MYC")
        assert data.labels.tolist() == ["T", "B", "T", "B"]
        assert data.covariates.argmax(1).tolist() == [0, 1, 0, 1]
        np.testing.assert_array_equal(load_data(source, None).x, COUNTS / 2)
        assert len(load_data(source, "test", test_fraction=0.5).x) == 2


def test_cells_are_rows():
    adata = annotated()
    np.testing.assert_array_equal(Rows(adata).numbers(), COUNTS / 2)
    config = VAEConfig.for_data(anndata.AnnData(np.tile(COUNTS, (20, 1))))
    assert config.likelihood in ("negative_binomial", "poisson", "zero_inflated_negative_binomial")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": "raw"}, r"has no layer='raw' \(--layer\); its layers are 'counts'"),
        ({"label": "age"}, "'age' .* is no column of obs .* which has 'kind', 'batch'"),
        ({"drop": "MYC"}, r"are of tables, .* is an AnnData; .*adata\[:, genes\]"),
    ],
)
def test_what_is_not_there(tmp_path, options, message):
    annotated().write_h5ad(tmp_path / "cells.h5ad")
    for source in (annotated(), tmp_path / "cells.h5ad"):
        with pytest.raises(ValueError, match=message):
            load_data(source, None, **options)


def test_damage_and_size_are_told(tmp_path, monkeypatch):
    (tmp_path / "cells.h5ad").write_bytes(b"no HDF5")
    with pytest.raises(ValueError, match="cannot be read as an AnnData"):
        load_data(tmp_path / "cells.h5ad")
    monkeypatch.setattr("ppl_vae.data.annotated._MOST_ENTRIES", 11)
    with pytest.raises(ValueError, match="4 cells of 3 genes, too many to be held dense"):
        load_data(annotated(), None)
