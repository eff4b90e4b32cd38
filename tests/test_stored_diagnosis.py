"""A diagnosis in a store: the same as in memory, whoever was killed while it was made."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pkgutil import resolve_name

import pytest
import torch
from test_store import PRELOADED, files

from ppl_vae import VAE, Store, VAEConfig, diagnose
from ppl_vae.store import Contents, StoreSink
from ppl_vae.store.manifest import beside
from ppl_vae.workflow.refinement.local_normal import local_posterior
from ppl_vae.workflow.verdict.stages import Stages, StoredStages

GROUPS = ("rows", "latents", "calibration", "gaps", "prior_gap")
FEW = {
    "num_samples": 30,
    "max_samples": 60,
    "num_simulations": 20,
    "gap_rows": 1,
    "annealed_rows": 0,
}


def small():
    torch.manual_seed(0)
    return VAE.from_config(VAEConfig(event_shape=(6,), latent_dim=2, hidden=(8,)))


def rows(size=150):
    return (torch.rand(size, 6, generator=torch.Generator().manual_seed(0)) < 0.5).float()


def found(store=None, **options):
    given = {**FEW, "progress": False, **options}
    return diagnose(small(), rows(), store=store, **given)


def searched(*given, **options):
    """As local_posterior, in few steps."""
    return local_posterior(*given, **{**options, "max_steps": 3})


def set_small(setattr_) -> None:
    """Several regions in each step, and short searches."""
    setattr_("ppl_vae.workflow.checks.gaps", "local_posterior", searched)
    setattr_("ppl_vae.workflow.checks.calibration", "local_posterior", searched)
    setattr_("ppl_vae.workflow.checks.gaps", "_TEMPERATURES", 4)
    setattr_("ppl_vae.workflow.verdict.missed", "_TEMPERATURES", 4)
    setattr_("ppl_vae.workflow.checks.aggregate", "_MIXTURES", ((1, "full"),))
    setattr_("ppl_vae.workflow.draws.chunked.region_rows", "__defaults__", (40,))
    setattr_("ppl_vae.workflow.refinement.local_normal", "_COOLING", 3)
    setattr_("ppl_vae.workflow.verdict.verdicts", "_SIMULATED", 20)
    setattr_("ppl_vae.workflow.verdict.kept_diagnosis", "_ROWS", 60)
    setattr_("ppl_vae.workflow.verdict.verdicts", "rows_within_budget", lambda *_: 20)
    setattr_("ppl_vae.workflow.verdict.verdicts", "refined_at_once", lambda *_: 20)
    setattr_("ppl_vae.workflow.verdict.refined", "refined_at_once", lambda *_: 20)


@pytest.fixture
def regions(monkeypatch):
    set_small(lambda where, name, value: monkeypatch.setattr(resolve_name(where), name, value))


def test_a_store_holds_what_memory_would(tmp_path, regions):
    in_memory, path = found(annealed_rows=1), tmp_path / "z.zarr"
    stored = found(path, annealed_rows=1)
    assert not stored.rows.kl.variable._in_memory
    for name in GROUPS:
        assert getattr(stored, name).compute().identical(getattr(in_memory, name)), name
    assert stored.summary() == in_memory.summary()
    assert stored.cures == in_memory.cures
    assert Store(path).open_tree().attrs["summary"] == in_memory.summary()
    assert [p.name for p in tmp_path.iterdir()] == ["z.zarr"]
    again = found(path, annealed_rows=1)  # nothing is left to do
    assert again.rows.identical(stored.rows)
    with pytest.raises(ValueError, match=r"tolerance was 0\.1, is 0\.2; go on with the same"):
        found(path, annealed_rows=1, tolerance=0.2)


class StopError(Exception):
    pass


def test_what_was_stopped_anywhere_goes_on(tmp_path, regions, monkeypatch):
    """At the end of regions of whichever step, and each time by another number of processes."""
    found(tmp_path / "whole.zarr")
    path, finish, steps = tmp_path / "z.zarr", StoreSink.finish, []

    def stop(self, region):
        if len(steps) % 4 == 3:  # a region that is computed, and not written
            steps.append("stopped")
            raise StopError
        finish(self, region)
        steps.append(self.store.path.name)

    monkeypatch.setattr(StoreSink, "finish", stop)
    stops = 0
    while not Store(path).complete:
        world = 1 + stops % 3
        try:
            found(Store(path, rank=stops % world, world=world))
        except StopError:
            stops += 1
    names = [name for name in steps if name != "stopped"]
    assert len(set(names)) >= 4
    assert stops >= 4
    assert files(path) == files(tmp_path / "whole.zarr")
    assert not beside(path).exists()


def _write(path: str, rank: int, world: int, pause: float) -> None:
    """What a process of the test below runs."""
    torch.set_num_threads(1)
    set_small(lambda where, name, value: setattr(resolve_name(where), name, value))
    finish = StoreSink.finish

    def slowly(self, region):
        time.sleep(pause)
        finish(self, region)

    StoreSink.finish = slowly
    found(Store(path, rank=rank, world=world))


@pytest.mark.slow
def test_processes_share_it_and_one_of_them_is_killed(tmp_path, regions):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([f"ppl_vae.{name}" for name in PRELOADED] + ["zarr", "xarray"])
    path = tmp_path / "z.zarr"
    found(tmp_path / "whole.zarr")
    writers = [
        context.Process(target=_write, args=(str(path), rank, 3, pause))
        for rank, pause in enumerate((0.0, 0.02, 1000.0))
    ]
    for writer in writers:
        writer.start()
    first, until = beside(path) / "judged-0.zarr", time.monotonic() + 300
    while not Store(first).complete:  # without the third, whose share the others take
        assert time.monotonic() < until
        time.sleep(0.02)
    os.kill(writers[2].pid, signal.SIGKILL)
    for writer, code in zip(writers, (0, 0, -signal.SIGKILL), strict=True):
        writer.join()
        assert writer.exitcode == code
    assert files(path) == files(tmp_path / "whole.zarr")
    assert not beside(path).exists()


def test_steps_are_shared_and_then_taken_in_turn(tmp_path):
    """Who has all goes on by itself; who comes meanwhile computes what it would wait for."""
    place, computed = Store(tmp_path / "z.zarr", rank=0, world=2), []
    StoreSink(place, 10, 10, Contents({}), {})

    def compute(sink):
        for region in sink.regions():
            computed.append(region.start)
            sink.write("row_number", region, torch.arange(region.start, region.stop))
            sink.finish(region)

    with StoredStages(place) as stages:
        first = stages.run("one", 10, 3, compute)
    assert computed == [0, 6, 9, 3]
    with StoredStages(place) as stages:
        again = stages.run("one", 10, 3, compute)
    assert computed == [0, 6, 9, 3]
    in_memory = Stages().run("one", 10, 3, compute)
    for values in (first, again, in_memory):
        assert values["row_number"].tolist() == list(range(10))
