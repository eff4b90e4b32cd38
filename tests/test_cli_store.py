"""Stores on the command line: `--out z.zarr` of encode and sample, by one process or several."""

import numpy as np
import pandas
import pytest
import xarray as xr
import zarr

from ppl_vae.store import Store, StoreSink
from ppl_vae.workflow.draws.chunked import sink_for


@pytest.fixture
def run(command, tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((300, 5)))
    options = ["--epochs", "1", "--draws", "50", "--hidden", "8", "--latent-dim", "2"]
    assert command("fit", "x.npy", *options, "--out", "run", "--quiet") == (0, "", "")
    return tmp_path / "run"


def test_encode_writes_a_store_that_holds_what_a_file_would(command, run, tmp_path, monkeypatch):
    encode = ["encode", run, "x.npy", "--draws", "30", "--out"]
    code, out, _ = command(*encode, "z.zarr")
    assert code == 0
    assert "z {'chain': 1, 'draw': 30, 'row': 300, 'latent': 2} and its log-weights" in out
    assert command(*encode, "z.nc")[0] == 0
    tree = xr.open_datatree(tmp_path / "z.nc", engine="h5netcdf").load()
    stored = xr.open_datatree(tmp_path / "z.zarr", engine="zarr", consolidated=False).load()
    assert set(stored.children) == set(tree.children)
    for name in tree.children:
        assert stored[name].to_dataset().equals(tree[name].to_dataset())
    code, _, error = command(*encode, "z.zarr")
    assert code == 2
    assert "is complete; choose another, or replace it with --force" in error
    assert command(*encode, "z.zarr", "--force", "--quiet") == (0, "", "")

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setitem(sink_for.__kwdefaults__, "rows", 100)
    monkeypatch.setattr("ppl_vae.budget._BUDGET", 100 * 30 * 5)
    for rank, said in enumerate(["two.zarr waits for 100 rows of other processes", "written to"]):
        monkeypatch.setenv("RANK", str(rank))
        code, out, _ = command(*encode, "two.zarr")
        assert code == 0
        assert said in out
    code, _, error = command(*encode, "two.zarr", "--force")
    assert code == 2
    assert "--force was given to 2 processes" in error


def test_what_was_interrupted_is_gone_on_with(command, run, tmp_path, monkeypatch):
    sample = ["sample", run, "--num-samples", "250", "--out"]
    monkeypatch.setattr("ppl_vae.budget._BUDGET", 50 * 5)
    assert command(*sample, "whole.zarr")[0] == 0
    finish, starts = StoreSink.finish, []

    def interrupted(self, region):
        starts.append(region.start)
        if len(starts) == 3:
            raise KeyboardInterrupt
        finish(self, region)

    monkeypatch.setattr(StoreSink, "finish", interrupted)
    code, _, error = command(*sample, "z.zarr")
    assert code == 130
    assert "interrupted; the same command goes on with 'z.zarr'" in error
    assert command(*sample, "z.zarr", "--quiet") == (0, "", "")
    assert starts == [0, 50, 100, 100, 150, 200]
    stored = Store(tmp_path / "z.zarr").open().load()
    assert stored.identical(Store(tmp_path / "whole.zarr").open().load())
    assert stored.x.shape == (250, 5)


def test_other_places_are_refused(command, run, tmp_path):
    (tmp_path / "other.zarr").mkdir()
    (tmp_path / "other.zarr" / "thesis.txt").touch()
    for options in ([], ["--force"]):
        code, _, error = command("sample", run, "--out", "other.zarr", *options)
        assert code == 2
        assert "is no store of ppl_vae" in error
        assert len(error.splitlines()) == 1
    code, _, error = command("sample", run, "--out", "there/z.zarr")
    assert code == 2
    assert "whose folder does not exist" in error


@pytest.mark.parametrize("suffix", [".zarr", ".parquet"])
def test_rows_on_disk_are_encoded_as_those_of_a_file(command, run, tmp_path, suffix):
    x = np.load(tmp_path / "x.npy").astype(np.float32)
    if suffix == ".zarr":
        zarr.create_array(tmp_path / "rows.zarr", data=x, chunks=(50, 5))
    else:
        pandas.DataFrame(x, columns=list("abcde")).to_parquet(tmp_path / "rows.parquet")
    encode = ["--draws", "30", "--quiet", "--out"]
    assert command("encode", run, f"rows{suffix}", *encode, "z.zarr") == (0, "", "")
    assert command("encode", run, "x.npy", *encode, "z.nc") == (0, "", "")
    tree = xr.open_datatree(tmp_path / "z.nc", engine="h5netcdf").load()
    stored = xr.open_datatree(tmp_path / "z.zarr", engine="zarr", consolidated=False).load()
    for name in tree.children:
        assert stored[name].to_dataset().equals(tree[name].to_dataset())
    code, _, error = command("encode", run, f"rows{suffix}", "--label", "a", "--out", "y.zarr")
    assert code == 2
    assert f"--label is of tables and images, and DATA is 'rows{suffix}'" in error


def test_a_conditional_run_needs_its_context(command, tmp_path):
    x, kind = np.random.default_rng(0).random((60, 3)), np.arange(60) % 2
    np.savez(tmp_path / "x.npz", x=x, kind=kind)
    options = ["--context", "kind", "--epochs", "1", "--draws", "50", "--hidden", "8"]
    assert command("fit", "x.npz", *options, "--out", "run", "--quiet")[0] == 0
    zarr.create_array(tmp_path / "rows.zarr", data=x)
    code, _, error = command("encode", "run", "rows.zarr", "--out", "z.zarr")
    assert code == 2
    assert "the run is conditional on kind, which is read from tables and .npz files alone" in error


def test_diagnose_writes_a_store_and_leaves_the_run_alone(command, run, tmp_path):
    before = {path.name for path in run.iterdir()}
    options = ["--draws", 30, "--quiet", "--out"]
    assert command("diagnose", run, *options, "z.zarr") == (0, "", "")
    assert {path.name for path in run.iterdir()} == before
    tree = xr.open_datatree(tmp_path / "z.zarr", engine="zarr", consolidated=False).load()
    assert command("diagnose", run, "--draws", 30, "--quiet") == (0, "", "")
    whole = xr.open_datatree(run / "diagnosis.nc", engine="h5netcdf").load()
    assert set(tree.children) == set(whole.children)
    assert tree["rows"].to_dataset().equals(whole["rows"].to_dataset())
    code, _, error = command("diagnose", run, *options, "z.zarr")
    assert code == 2
    assert "is complete; choose another, or replace it with --force" in error
    code, _, error = command("diagnose", run, "x.npy")
    assert (code, error.count("\n")) == (2, 1)
    assert "add --out" in error
    zarr.create_array(tmp_path / "rows.zarr", data=np.load(tmp_path / "x.npy")[:40])
    assert command("diagnose", run, "rows.zarr", *options, "y.zarr") == (0, "", "")
    assert xr.open_zarr(tmp_path / "y.zarr", group="rows", consolidated=False).sizes["row"] == 40


def test_impute_writes_a_store_of_any_rows(command, tmp_path):
    x = np.random.default_rng(0).normal(size=(90, 4)).astype(np.float32)
    x[::7, 1] = np.nan
    np.save(tmp_path / "x.npy", x)
    zarr.create_array(tmp_path / "rows.zarr", data=x, chunks=(20, 4))
    options = ["--epochs", "1", "--draws", "30", "--hidden", "8", "--latent-dim", "2"]
    assert command("fit", "x.npy", *options, "--out", "run", "--quiet")[0] == 0
    code, out, _ = command("impute", "run", "rows.zarr", "--draws", 40, "--out", "z.zarr")
    assert code == 0
    assert "13 cells of 13 rows filled; written to z.zarr" in out
    found = Store(tmp_path / "z.zarr").open().load()
    assert dict(found.sizes) == {"row": 90, "feature": 4, "draw": 20}
    np.testing.assert_array_equal(found.x.values[~np.isnan(x)], x[~np.isnan(x)])
    assert np.isfinite(found.draws).all()
    code, _, error = command("impute", "run", "rows.zarr", "--out", "z.csv")
    assert code == 2
    assert "with --out z.zarr" in error
