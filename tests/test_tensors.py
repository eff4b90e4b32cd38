"""Arrays as tensors: masked cells are missing, and what holds no real numbers is refused."""

from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from ppl_vae import VAE, VAEConfig, fit, impute
from ppl_vae.sources import in_memory
from ppl_vae.tensors import as_tensor

ROWS = np.random.default_rng(0).normal(size=(40, 3))


@pytest.fixture(scope="module")
def vae():
    return VAE.from_config(VAEConfig.for_data(ROWS, hidden=(4,), latent_dim=2, missing=True))


@pytest.fixture(scope="module")
def conditional():
    return VAE.from_config(VAEConfig.for_data(ROWS, hidden=(4,), latent_dim=2, covariate_dim=3))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64, np.int8, bool])
def test_masked_cells_are_missing(dtype):
    given = np.ma.masked_array((10 * ROWS).astype(dtype), ROWS > 1)
    x = in_memory(given).numpy()
    assert (np.isnan(x) == (ROWS > 1)).all()
    assert (x == given.data)[ROWS <= 1].all()


def test_a_mask_that_masks_nothing_changes_nothing():
    bytes_ = np.arange(200, 206, dtype=np.uint8).reshape(2, 3)
    assert in_memory(np.ma.masked_array(bytes_)).dtype == torch.uint8
    with pytest.raises(ValueError, match=r"masked array of bytes.*x / 255"):
        in_memory(np.ma.masked_equal(bytes_, 203))


def test_masked_cells_are_imputed(vae):
    given = np.ma.masked_array(ROWS, ROWS > 1)
    assert VAEConfig.for_data(given).missing
    found = impute(vae, given, num_samples=50, progress=False)
    assert (found.missing.values == (ROWS > 1)).all()


REFUSED = {
    "complex": (ROWS + 1j, "complex128; .*real and imaginary parts"),
    "tensor of complex numbers": (torch.as_tensor(ROWS + 1j), "complex128; .*view_as_real"),
    "text": (ROWS.astype(str), "text become levels"),
    "objects": (np.array([["a", 1.0, 2.0]] * 3, dtype=object), "holds 'a', which is no number"),
    "digits in text": (np.array([["1", 1.0, 2.0]] * 3, dtype=object), "holds '1'"),
    "objects of complex numbers": (np.array([[1j, 1.0, 2.0]] * 3, dtype=object), "holds 1j"),
    "dates": (ROWS.astype("M8[s]"), "dates become days"),
    "fields": (np.zeros(3, [("a", float)]), r"pandas.DataFrame\(x\)"),
    "csr": (sparse.csr_array(ROWS), r"x is sparse.*x.toarray\(\)"),
    "coo": (torch.as_tensor(ROWS).to_sparse(), r"x is sparse.*x.to_dense\(\)"),
    "frame of complex numbers": (pd.DataFrame(ROWS + 1j), "holds no numbers"),
}


@pytest.mark.parametrize(("given", "said"), REFUSED.values(), ids=REFUSED)
def test_what_holds_no_real_numbers_is_refused_at_every_door(vae, given, said):
    for door in (
        VAEConfig.for_data,
        lambda x: fit(vae, x, epochs=1, progress=False),
        lambda x: impute(vae, x, progress=False),
        vae.model,
    ):
        with pytest.raises((TypeError, ValueError), match=said):
            door(given)


@pytest.mark.parametrize("name", ["complex", "text", "objects", "csr", "coo"])
def test_covariates_are_read_alike(conditional, name):
    given, said = REFUSED[name]
    with pytest.raises((TypeError, ValueError), match=said.replace("x is", "covariates is")[:20]):
        fit(conditional, ROWS, covariates=given, epochs=1, progress=False)
    masked = np.ma.masked_array(ROWS, ROWS > 1)
    with pytest.raises(ValueError, match="covariates has NaN"):
        fit(conditional, ROWS, covariates=masked, epochs=1, progress=False)


def test_objects_that_are_numbers_are_read():
    given = np.array([[None, Decimal("1.5"), 2, True]], dtype=object)
    assert as_tensor(given)[0, 1:].tolist() == [1.5, 2.0, 1.0]
    assert as_tensor(given)[0, 0].isnan()
    assert as_tensor(ROWS.astype(np.longdouble)).dtype == torch.float64


@pytest.mark.parametrize("of", [np.asarray, torch.as_tensor, pd.DataFrame])
def test_numbers_beyond_the_precision_are_refused(vae, conditional, of):
    given = ROWS.copy()
    given[7, 1] = -1e300
    said = r"beyond the largest of torch.float32.*-1e\+300 in row 7"
    for door in (VAEConfig.for_data, lambda x: fit(vae, x, progress=False)):
        with pytest.raises(ValueError, match=said):
            door(of(given))
    with pytest.raises(ValueError, match=r"covariates has .*row 7.*torch.float32"):
        fit(conditional, ROWS, covariates=given, progress=False)
    double = VAE.from_config(vae.config).double()
    double.check(torch.as_tensor(given))  # in double precision they are numbers as others


def test_large_whole_numbers_stay_apart():
    identifiers = 2**30 + np.arange(6).reshape(2, 3)
    assert len(in_memory(identifiers).unique()) == 6
    assert in_memory(np.arange(6).reshape(2, 3)).dtype == torch.float32
