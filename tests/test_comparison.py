"""Several models on the same rows: paired differences, bounds, and R-hat of fits."""

import json

import numpy as np
import pytest
import torch
from oracle import LinearGaussian

from ppl_vae import VAE, VAEConfig, compare
from ppl_vae.workflow.checks import comparison


def narrow(oracle, factor):
    vae = oracle.vae()
    with torch.no_grad():
        vae.encoder.scale_head.bias += 2 * np.log(factor)
    return vae


@pytest.fixture
def others(oracle):
    """The truth, and a model of another noise, whose difference is known exactly."""
    other = LinearGaussian(oracle.weight, oracle.bias, 0.7)
    return {"true": oracle.vae(), "other": other.vae()}, other


def test_differences_are_those_of_the_oracle(oracle, others):
    models, other = others
    x = oracle.rows(60)
    found = compare(models, x, num_samples=100, progress=False)
    exact = (oracle.log_evidence(x) - other.log_evidence(x)).numpy()
    pair = found.pairs.sel(model="true", other="other")
    assert pair.difference.item() == pytest.approx(exact.mean(), abs=1e-6)
    assert pair.standard_error.item() == pytest.approx(exact.std(ddof=1) / 60**0.5, rel=1e-6)
    # Pairing is what makes the error small.
    assert pair.standard_error.item() < oracle.log_evidence(x).std().item() / 60**0.5
    assert pair.rows_believed == 60
    assert pair.low < pair.difference < pair.high
    back = found.pairs.sel(model="other", other="true")
    assert back.difference == -pair.difference
    assert back.low == -pair.high
    assert found.order == ["true", "other"]
    assert "true is better than other by" in str(found)
    assert found.to_datatree().attrs["summary"] == str(found)


def test_the_same_model_is_no_better_than_itself(oracle):
    found = compare([oracle.vae(), oracle.vae()], oracle.rows(10), num_samples=50, progress=False)
    assert found.pairs.difference.values.tolist() == [[0.0, 0.0], [0.0, 0.0]]
    assert "do not tell from nothing" in found.summary()
    np.testing.assert_array_equal(found.rows.rhat, 1.0)


def test_rows_that_are_not_to_be_believed_are_told_and_bounded(oracle, monkeypatch):
    """An encoder that is far too narrow; what annealing reaches is believed, the rest is bounded.

    Bounds contain the exact difference, which is zero.
    """
    x = oracle.rows(8)
    models = {"exact": oracle.vae(), "narrow": narrow(oracle, 0.1)}
    few = {"num_samples": 300, "progress": False}
    unbounded = compare(models, x, annealed_rows=0, **few)
    pair = unbounded.pairs.sel(model="exact", other="narrow")
    assert pair.rows_believed == 0
    assert pair.low == -np.inf
    assert 0 < pair.high < np.inf
    assert "8 rows not to be believed" in unbounded.summary()
    assert "at most" in unbounded.summary()
    mended = compare(models, x, annealed_rows=4, **few)
    pair = mended.pairs.sel(model="exact", other="narrow")
    assert pair.rows_believed == mended.rows.believed.sel(model="narrow").sum() > 0
    assert mended.rows.believed.sel(model="exact").all()


def test_rhat_is_that_of_means_and_variances():
    """Two fits whose reconstructions differ by d in one entry: sqrt(1 + d^2 / 2 / W)."""
    size = comparison._DRAWS
    mean, variance = np.zeros((3, 2)), np.full((3, 2), 0.5)
    apart = mean + np.array([[0.0, 0.0], [1.0, 0.0], [4.0, 0.0]])
    got = comparison._rhat([(mean, variance), (apart, variance)])
    between = np.maximum(np.array([0.0, 0.5, 8.0]) - 1 / size, 0.0)
    np.testing.assert_allclose(got, np.sqrt(1 + between / 1.0))


def test_fits_that_disagree_on_a_row_are_told(oracle):
    """A decoder that is moved by three noise sds agrees on no row."""
    moved = LinearGaussian(oracle.weight, oracle.bias + 1.5, oracle.noise)
    found = compare([oracle.vae(), moved.vae()], oracle.rows(6), num_samples=50, progress=False)
    assert (found.rows.rhat > 1.1).all()
    assert "at most 1.1 in 0 of 6" in found.summary()


def test_what_does_not_compare_is_refused(oracle):
    x = oracle.rows(5)
    with pytest.raises(ValueError, match="models has 1"):
        compare([oracle.vae()], x)
    bits = VAE.from_config(VAEConfig(event_shape=(8,), latent_dim=2, hidden=(8,)))
    normal = VAE.from_config(
        VAEConfig(event_shape=(8,), latent_dim=2, hidden=(8,), likelihood="normal")
    )
    with pytest.raises(ValueError, match="'0' gives probabilities, '1' gives densities"):
        compare([bits, normal], (x > 0).float())
    with pytest.raises(ValueError, match="x, for '1',"):
        compare([oracle.vae(), LinearGaussian.random(2, 5).vae()], x)


def test_runs_are_compared(command, tmp_path):
    rows = np.random.default_rng(0).random((120, 5)).astype("float32")
    np.save("x.npy", rows)
    np.save("y.npy", rows[::-1].copy())
    options = ["--epochs", "1", "--draws", "30", "--hidden", "8", "--quiet"]
    for name, more in {
        "two": ["x.npy", "--latent-dim", "2"],
        "again": ["x.npy", "--latent-dim", "2", "--seed", "1"],
        "one": ["x.npy", "--latent-dim", "1"],
        "other": ["y.npy", "--latent-dim", "2"],
    }.items():
        assert command("fit", *more, *options, "--out", name) == (0, "", "")
    few = ["--draws", "50"]
    code, out, error = command("compare", "two", "again", "one", *few, "--out", "found.nc")
    assert (code, error) == (0, "")
    assert "log p(x) of" in out
    assert "two, again differ by their seed alone" in out
    assert (tmp_path / "found.nc").is_file()
    code, out, _ = command("compare", "two", "one", *few, "--json")
    numbers = json.loads(out)
    assert set(numbers["models"]) == {"two", "one"}
    assert len(numbers["pairs"]) == 1
    for arguments, message in (
        (["two"], "pass at least two runs"),
        (["two", "two"], "pass each once"),
        (["two", "other"], "the test rows of 'other' are not those of 'two'"),
        (["two", "nowhere"], "RUN is 'nowhere', which is no run folder"),
        (["two", "one", "--out", "found.nc"], "exists; choose another"),
    ):
        code, _, error = command("compare", *arguments, *few)
        assert code == 2
        assert message in error
        assert error.count("\n") == 1
