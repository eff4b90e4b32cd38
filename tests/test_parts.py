"""Rows that are read a part at a time: the same rows, wherever they lie, and read ahead."""

import threading
import time

import numpy as np
import pandas
import pytest
import torch
import zarr
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from ppl_vae import VAE, VAEConfig, encode, fit, log_evidence, sample_posterior
from ppl_vae.ahead import ahead
from ppl_vae.batches import batches, shuffled
from ppl_vae.parts import ParquetRows
from ppl_vae.rows import Rows

X = np.random.default_rng(0).random((300, 6)).astype(np.float32)
LIKE = torch.zeros(())


class Items(Dataset):
    """A data set of pairs, as torchvision's are."""

    def __init__(self, x=X):
        self.x = torch.as_tensor(x)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, row):
        return self.x[row], 7


def sources(folder):
    np.save(folder / "x.npy", X)
    array = zarr.create_array(folder / "x.zarr", shape=X.shape, chunks=(32, 6), dtype=X.dtype)
    array[:] = X
    frame = pandas.DataFrame(X, columns=list("abcdef"))
    frame.to_parquet(folder / "x.parquet", row_group_size=50)
    (folder / "many.parquet").mkdir()
    for i in range(3):
        frame[i * 100 : (i + 1) * 100].to_parquet(folder / "many.parquet" / f"{i}.parquet")
    return {
        "npy": folder / "x.npy",
        "text": str(folder / "x.npy"),
        "zarr": folder / "x.zarr",
        "zarr array": array,
        "parquet": folder / "x.parquet",
        "folder": folder / "many.parquet",
        "data set": Items(),
        "loader": DataLoader(Items(), batch_size=10, shuffle=True),
        "subset": torch.utils.data.Subset(Items(np.concatenate([X, X])), range(300)),
        "tensors": TensorDataset(torch.as_tensor(X), torch.zeros(300)),
    }


def test_all_sources_give_the_same_rows(tmp_path):
    chosen = [250, 3, 3, 299, 0]
    for kind, source in sources(tmp_path).items():
        rows = Rows(source)
        assert (len(rows), rows.event_shape) == (300, (6,)), kind
        assert rows.in_memory == (kind == "tensors")
        np.testing.assert_array_equal(rows.take(chosen, LIKE).x, X[chosen], err_msg=kind)
        np.testing.assert_array_equal(rows.take(slice(45, 105), LIKE).x, X[45:105], err_msg=kind)
        some = rows.select(torch.tensor(chosen))
        np.testing.assert_array_equal(some.take([1, 0], LIKE).x, X[[3, 250]], err_msg=kind)
        assert len(rows.take(slice(0, 0), LIKE).x) == 0
        whole = torch.cat([batch.x for _, batch in rows.chunks(70, LIKE)])
        np.testing.assert_array_equal(whole, X, err_msg=kind)


@pytest.fixture
def vae():
    return VAE.from_config(
        VAEConfig(event_shape=(6,), latent_dim=2, hidden=(8,), likelihood="normal")
    )


def test_fit_and_checks_are_those_of_rows_in_memory(tmp_path, vae):
    quiet = {"progress": False}
    expected, weights = {}, vae.state_dict()
    for kind, source in {"memory": torch.as_tensor(X), **sources(tmp_path)}.items():
        one = VAE.from_config(vae.config)
        one.load_state_dict(weights)
        fitted = fit(one, source, epochs=2, batch_size=64, validation=0.2, **quiet)
        found = {
            "encoded": encode(vae, source, chunk_rows=70, **quiet),
            "evidence": log_evidence(vae, source, num_samples=30, chunk_rows=70, **quiet),
            "draws": sample_posterior(vae, source, num_samples=3, chunk_rows=70, **quiet),
        }
        if Rows(source).together is None:  # chunks come in an order of their own
            found["history"] = fitted.history
        expected = expected or found
        for name, one_of in found.items():
            assert one_of.equals(expected[name]), f"{name} of {kind}"
        assert fitted.finite


def test_an_epoch_is_all_rows_once_and_few_chunks_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr("ppl_vae.batches._ENTRIES", 6)
    sources(tmp_path)
    rows = Rows(tmp_path / "x.zarr").select(torch.randperm(300)[:280])
    read = []
    get = zarr.Array.oindex

    class Counting:
        def __getitem__(self, wanted):
            read.append(len(np.unique(wanted // 32)))
            return get.__get__(rows._source)[wanted]

    torch.manual_seed(0)
    order = shuffled(rows)
    assert sorted(order.tolist()) == list(range(280))
    monkeypatch.setattr(zarr.Array, "oindex", Counting())
    parts = list(order.split(16))
    found = torch.cat([batch.x for batch in batches(rows, parts, LIKE)])
    np.testing.assert_array_equal(found, rows.take(order, LIKE).x)
    assert max(read[:-1]) <= 4  # windows of two chunks of ten, which are not all whole
    # Rows that lie side by side come apart: a window's rows are mixed.
    positions = rows.positions[order]
    assert (positions.diff().abs() == 1).float().mean() < 0.1
    torch.manual_seed(1)
    assert not torch.equal(shuffled(rows), order)


@pytest.mark.parametrize("method", ["none", "dynamic"])
def test_weights_covariates_and_bits_go_with_their_rows(tmp_path, method):
    sources(tmp_path)
    covariates = torch.arange(300.0)[:, None]
    stored = Rows(tmp_path / "x.npy", covariates, binarize=method)
    memory = Rows(torch.as_tensor(X), covariates, binarize=method)
    parts = list(torch.randperm(300).split(64))
    found = []
    for rows in (stored, memory):
        torch.manual_seed(3)
        found.append(list(batches(rows, parts, LIKE)))
    for one, other, part in zip(*found, parts, strict=True):
        assert torch.equal(one.x, other.x)
        assert torch.equal(one.covariates[:, 0], part.float())


def test_parquet_with_missing_entries_chosen_columns_and_whole_numbers(tmp_path):
    path = tmp_path / "x.parquet"
    pandas.DataFrame({"a": [1, 2, 3], "kind": ["x", "y", "z"], "b": [0.5, None, 2.0]}).to_parquet(
        path
    )
    rows = Rows(ParquetRows(path, columns=["b", "a"]))
    expected = torch.tensor([[0.5, 1], [torch.nan, 2], [2, 3]])
    torch.testing.assert_close(rows.take([0, 1, 2], LIKE).x, expected, equal_nan=True)
    with pytest.raises(ValueError, match=r"column 'kind' of .* holds \w*string, no numbers; leave"):
        Rows(path)
    with pytest.raises(ValueError, match="has no column 'c'; it has 'a', 'kind', 'b'"):
        ParquetRows(path, columns=["c"])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match="which is no whole Parquet file"):
        Rows(path)


class Stream(IterableDataset):
    def __iter__(self):
        return iter(X)


class Noisy(Items):
    def __getitem__(self, row):
        return self.x[row] + torch.rand(6)


class Ragged(Items):
    def __getitem__(self, row):
        return self.x[row, : 6 - row // 200]


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (Stream(), TypeError, "x is a Stream, which can be gone through once and in one order"),
        (DataLoader(Stream()), TypeError, "x is a Stream, which can be gone through once"),
        (iter(X), TypeError, "which can be gone through once"),
        (Noisy(), ValueError, "x is a Noisy whose items are drawn at random when they are read"),
        ("x.csv", ValueError, r"accepted are paths that end in .npy, .zarr, .parquet, .*load_data"),
        ("x.npy", FileNotFoundError, "x is 'x.npy', where there is nothing"),
    ],
)
def test_what_cannot_be_read_by_number(x, error, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        Rows(x)


def test_other_files_of_a_suffix(tmp_path):
    (tmp_path / "x.npy").write_bytes(b"no array")
    with pytest.raises(ValueError, match="which is no whole array"):
        Rows(tmp_path / "x.npy")
    zarr.create_group(tmp_path / "x.zarr").create_array("part", shape=(2, 2), dtype="f4")
    with pytest.raises(ValueError, match=r"a group of zarr arrays \('part'\); pass the path of"):
        Rows(tmp_path / "x.zarr")
    with pytest.raises(ValueError, match=r"rows of several shapes: row 200 has \(5,\), the first"):
        Rows(Ragged()).take(slice(None), LIKE)


def test_reading_goes_on_while_a_step_is_taken():
    steps, reading = 10, 0.02

    def read():
        for i in range(steps):
            time.sleep(reading)
            yield i

    started = time.perf_counter()
    found = []
    for i in ahead(read()):
        time.sleep(reading)
        found.append(i)
    assert found == list(range(steps))
    assert time.perf_counter() - started < 1.75 * steps * reading  # twice, one after the other


def test_what_reading_raises_is_raised_and_its_thread_ends():
    before = threading.active_count()

    def broken():
        yield 1
        raise OSError("the disk is gone")

    found = ahead(broken())
    assert next(found) == 1
    with pytest.raises(OSError, match="the disk is gone"):
        next(found)
    endless = ahead(iter(int, 1))
    assert next(endless) == 0
    endless.close()
    assert threading.active_count() == before
