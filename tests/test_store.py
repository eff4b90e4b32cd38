"""Results on disk: the same as in memory, and the same whoever was killed while writing them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch

from ppl_vae import (
    VAE,
    Store,
    VAEConfig,
    encode,
    impute,
    judge_rows,
    log_evidence,
    sample_posterior,
    simulate,
    to_datatree,
)
from ppl_vae.store import StoreSink
from ppl_vae.store.manifest import beside, finished

QUIET = {"progress": False}
# What takes seconds to import, and is imported once for all processes.
PRELOADED = (
    "vae",
    "workflow.weights.evidence",
    "workflow.draws.encoding",
    "workflow.draws.simulation",
    "trees.vae",
)
# What is killed: twenty regions of 1024 rows.
ROWS, OF = 20_000, {"num_samples": 10, "chunk_rows": 1024, **QUIET}


def small(**options):
    return VAE.from_config(VAEConfig(event_shape=(16,), latent_dim=3, hidden=(8,), **options))


def rows(size=500):
    generator = torch.Generator().manual_seed(0)
    return (torch.rand(size, 16, generator=generator) < 0.5).float()


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


RESULTS = {
    "draws": partial(sample_posterior, num_samples=20),
    "evidence": partial(log_evidence, num_samples=40),
    "annealed": partial(log_evidence, method="ais", num_samples=4, num_temperatures=3),
    "encoded": encode,
    "judged": partial(judge_rows, num_samples=60),
}


@pytest.mark.parametrize("dask", [True, False])
@pytest.mark.parametrize("name", RESULTS)
def test_a_store_holds_what_memory_would(tmp_path, name, dask, monkeypatch):
    if not dask:
        monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    of = partial(RESULTS[name], small(), rows(), chunk_rows=60, **QUIET)
    found = of(store=tmp_path / "z.zarr")
    in_memory = {var: values.variable._in_memory for var, values in found.data_vars.items()}
    assert not any(in_memory.values())
    assert found.compute().identical(of())
    assert not beside(tmp_path / "z.zarr").exists()


@pytest.mark.parametrize("named", [True, False])
def test_imputed_rows_are_those_of_memory(tmp_path, named):
    x = torch.where(torch.rand(130, 16) < 0.2, torch.nan, rows(130))
    x[40:80] = rows(130)[40:80]  # a chunk without a gap
    x[3] = torch.nan
    options = {"num_samples": 40, "num_draws": 3, "chunk_rows": 30, "conformal": x[:50], **QUIET}
    given = pandas.DataFrame(x.numpy(), columns=list("abcdefghijklmnop")) if named else x
    of = partial(impute, small(missing=True), **options)
    found = of(given, store=tmp_path / "z.zarr")
    assert not found.draws.variable._in_memory
    assert found.compute().identical(of(given))
    np.save(tmp_path / "x.npy", x.numpy())
    on_disk = of(tmp_path / "x.npy").assign_coords(feature=found.feature)
    assert on_disk.equals(found.compute())
    with pytest.raises(ValueError, match="num_draws was 3, is 4"):
        of(given, store=tmp_path / "z.zarr", num_draws=4)


def test_simulated_rows_go_on_with_covariates_in_turn(tmp_path):
    vae, covariates = small(covariate_dim=1), torch.arange(7.0)[:, None]
    of = partial(simulate, vae, 100, covariates=covariates, chunk_rows=30, **QUIET)
    found = of(store=tmp_path / "z.zarr").compute()
    assert found.identical(of())
    np.testing.assert_array_equal(found.covariates[:, 0], np.arange(100) % 7)


@pytest.mark.parametrize("labels", [np.arange(500), np.array(["one", "two"] * 250)])
@pytest.mark.parametrize("covariates", [None, torch.rand(500, 2)])
def test_a_store_of_groups_is_the_tree_of_memory(tmp_path, labels, covariates):
    vae = small(covariate_dim=0 if covariates is None else 2)
    options = {"covariates": covariates, "labels": labels, "num_samples": 10, "chunk_rows": 70}
    tree = to_datatree(vae, rows(), **options, **QUIET)
    stored = to_datatree(vae, rows(), **options, store=tmp_path / "z.zarr", **QUIET)
    if covariates is not None:
        tree = tree.drop_nodes(["prior", "prior_predictive"])
    assert set(stored.children) == set(tree.children)
    for name, group in tree.children.items():
        assert dict(group.sizes) == dict(stored[name].sizes)
        for key, values in group.variables.items():
            np.testing.assert_array_equal(values, stored[name][key], err_msg=f"{name}/{key}")
        assert stored[name].attrs.get("caution") == group.attrs.get("caution")
        assert stored[name].attrs["inference_library"] == "ppl_vae"


def test_arviz_reads_a_selection(tmp_path):
    import arviz_stats

    tree = to_datatree(small(), rows(), num_samples=10, store=tmp_path / "z.zarr", **QUIET)
    some = tree.isel(row=[3]).load()
    found = arviz_stats.summary(some, var_names="z", kind="stats", round_to="none")
    mean = tree["posterior"]["z"].mean(("chain", "draw")).values[3]
    np.testing.assert_allclose(np.asarray(found["mean"], float), mean, rtol=1e-5)


def _write(path: str, rank: int, world: int, pause: float) -> None:
    """What a process of the test below runs."""
    torch.set_num_threads(1)
    finish = StoreSink.finish

    def slowly(self, region):
        finish(self, region)
        time.sleep(pause)

    StoreSink.finish = slowly
    store = Store(path, rank=rank, world=world)
    sample_posterior(small(), rows(ROWS), store=store, **OF)


def test_killed_twice_and_gone_on_with_by_others_a_store_is_the_same(tmp_path):
    """One process, killed; two ranks, killed; three ranks, of which the last finishes."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([f"ppl_vae.{name}" for name in PRELOADED] + ["zarr", "xarray"])
    path, threads = tmp_path / "killed.zarr", torch.get_num_threads()
    torch.set_num_threads(1)
    sample_posterior(small(), rows(ROWS), store=tmp_path / "whole.zarr", **OF)
    torch.set_num_threads(threads)
    before = 0
    for world in (1, 2):
        writers = [
            context.Process(target=_write, args=(str(path), rank, world, 0.2))
            for rank in range(world)
        ]
        for writer in writers:
            writer.start()
        until = time.monotonic() + 60
        while len(finished(path)) < before + 4:
            assert time.monotonic() < until
            time.sleep(0.03)
        for writer in writers:
            os.kill(writer.pid, signal.SIGKILL)
        for writer in writers:
            writer.join()
            assert writer.exitcode == -signal.SIGKILL
        before = len(finished(path))
        assert 4 <= before < 20
        missing = Store(path).open().attrs["missing_rows"]
        assert ROWS - 1024 * before <= missing < ROWS
        assert not Store(path).complete
    for rank in range(3):
        writer = context.Process(target=_write, args=(str(path), rank, 3, 0.0))
        writer.start()
        writer.join()
        assert writer.exitcode == 0
        assert Store(path).complete == (rank == 2)
    assert files(path) == files(tmp_path / "whole.zarr")
    assert not beside(path).exists()


def test_what_was_damaged_meanwhile_is_computed_again(tmp_path):
    path, of = tmp_path / "z.zarr", partial(encode, small(), rows(), chunk_rows=60, **QUIET)
    computed = []

    class StopError(Exception):
        pass

    finish = StoreSink.finish

    def stop(self, region):
        finish(self, region)
        computed.append(region.start)
        if len(computed) == 3:
            raise StopError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ppl_vae.workflow.draws.encoding._REGION", 60)
        patch.setattr(StoreSink, "finish", stop)
        with pytest.raises(StopError):
            of(store=path)
        (path / "mean" / "c" / "1" / "0").write_bytes(b"")
        for log in beside(path).glob("finished-*"):
            log.write_text(log.read_text()[:-7])  # as a kill leaves the last line
        found = of(store=path)
        assert computed == [0, 60, 120, *range(60, 500, 60)]
    assert found.compute().identical(of())


def test_who_goes_on_must_ask_for_the_same(tmp_path):
    path, x = tmp_path / "z.zarr", rows()
    sample_posterior(small(), x, num_samples=5, store=path, **QUIET)
    same = sample_posterior(small(), x, num_samples=5, store=path, **QUIET)  # nothing left to do
    assert same.sizes["draw"] == 5
    for message, of in {
        "num_samples was 5, is 6; go on with": partial(sample_posterior, num_samples=6),
        "seed was 0, is 1": partial(sample_posterior, num_samples=5, seed=1),
        "what was 'sample_posterior', is 'encode'": encode,
    }.items():
        with pytest.raises(ValueError, match=message):
            of(small(), x, store=path, **QUIET)
    with pytest.raises(ValueError, match="other results: x was '"):
        sample_posterior(small(), 1 - x, num_samples=5, store=path, **QUIET)
    with torch.no_grad():
        other = small()
        next(other.parameters()).add_(1.0)
    with pytest.raises(ValueError, match="other results: vae was '"):
        sample_posterior(other, x, num_samples=5, store=path, **QUIET)


def test_what_is_no_store_stays_as_it_is(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    for path in (tmp_path, tmp_path / "thesis.txt"):
        with pytest.raises(FileExistsError, match="exists and is no store of ppl_vae"):
            encode(small(), rows(), store=path, **QUIET)
        with pytest.raises(FileExistsError, match="is no store of ppl_vae, so that it is not"):
            Store(path).remove()
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_which_process_this_is(monkeypatch):
    assert (Store("z").rank, Store("z").world) == (0, 1)
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert (Store("z").rank, Store("z").world) == (2, 3)
    assert (Store("z", rank=0, world=1).rank, Store.of("z").world) == (0, 3)
    with pytest.raises(ValueError, match="rank is 3 of 3 processes; pass a number from 0 to 2"):
        Store("z", rank=3, world=3)


def test_more_processes_than_regions(tmp_path):
    found = [
        encode(small(), rows(), store=Store(tmp_path / "z.zarr", rank=rank, world=3), **QUIET)
        for rank in range(3)
    ]
    assert all("missing_rows" not in one.attrs for one in found)
    assert found[0].compute().identical(encode(small(), rows(), **QUIET))
