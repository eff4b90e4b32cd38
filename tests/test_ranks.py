"""A fit in several processes is the fit in one: same rows, same noise, same weights."""

import os
import shutil
import signal
import time

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from ranks import fitted, fixed, rows, run, small

from ppl_vae import fit
from ppl_vae.batches import shares
from ppl_vae.rows import Rows


def weights_and_history(rank, options):
    """One fit after the other, in one process group."""
    fabric = Fabric(accelerator="cpu", devices=int(os.environ["WORLD_SIZE"]), strategy="ddp")
    fabric.launch()
    return [fixed(fabric=fabric, **each) for each in options]


def assert_same(found, expected, tolerance=1e-6):
    for key, value in expected[0].items():
        np.testing.assert_allclose(found[0][key], value, rtol=0, atol=tolerance)
    for key, values in expected[1].items():
        np.testing.assert_allclose(found[1][key], values, rtol=tolerance, atol=tolerance)


FITS = [
    {"engine": "eager", "validation": 0.2},
    {"engine": "graph", "average": 0.1},
    {"engine": "compiled"},
    {"engine": "eager", "optimizer": torch.optim.SGD, "row_weights": torch.arange(53.0)},
    {"engine": "graph", "accumulate": 2, "max_gradient_norm": 0.1, "objective": "mean_field"},
]


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_of_a_batch_are_one_rank_of_a_larger_batch(world):
    """53 rows leave a last step that cannot be shared evenly: 3 and 2, or 2, 2 and 1.

    One rank is not compiled, nor are three, which would take seconds more.
    """
    fits = FITS if world == 2 else FITS[:2]
    found = run(weights_and_history, world, fits)
    for i, options in enumerate(fits):
        alone = {"batch_size": 8 * world, "fabric": Fabric(devices=1)}
        if options["engine"] == "compiled":
            alone["engine"] = "graph"
        expected = fixed(**options | alone)
        for rank in range(world):
            assert_same(found[rank][i], expected)
            for key, value in found[0][i][0].items():
                np.testing.assert_array_equal(found[rank][i][0][key], value)


def own_noise(rank):
    return fitted(epochs=2), torch.rand(1).item()


def test_ranks_draw_noise_of_their_own_and_end_with_the_same_weights():
    first, second = run(own_noise, 2)
    alone = fitted(epochs=2, batch_size=16)
    for key, value in first[0][0].items():
        np.testing.assert_array_equal(second[0][0][key], value)
    assert max(np.abs(value - alone[0][key]).max() for key, value in first[0][0].items()) > 1e-6


def stopped(rank, folder, after):
    """A fit of three epochs that is stopped after some, or gone on with."""

    def stop(epoch):
        if epoch == after:
            raise ValueError("stopped")

    options = {"epochs": 3, "validation": 0.2, "checkpoint_dir": folder, "checkpoint_every": 0}
    return fitted(**options, resume=True, on_epoch=stop)


def test_a_checkpoint_of_two_ranks_is_gone_on_with_by_one_and_three(tmp_path):
    whole = run(stopped, 2, None, 9)[0]
    left = tmp_path / "left"
    assert run(stopped, 2, left, 2) == ["ValueError: stopped"] * 2
    assert [path.name for path in left.iterdir()] == ["fit.safetensors"]
    for world in (1, 2, 3):
        folder = shutil.copytree(left, tmp_path / str(world))
        found = [stopped(0, folder, 9)] if world == 1 else run(stopped, world, folder, 9)
        before, after = whole[1]["train_loss"], found[0][1]["train_loss"]
        assert before[0] == after[0]
        assert len(after) == 3
        assert (before == after) == (world == 2)
        for other in found:
            for key, value in found[0][0].items():
                np.testing.assert_array_equal(other[0][key], value)
                if world == 2:
                    np.testing.assert_array_equal(value, whole[0][key])


def killed(rank):
    def kill(epoch):
        if rank == 1 and epoch == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    return fitted(epochs=1000, engine="graph", on_epoch=kill)


def test_a_rank_that_is_killed_ends_the_others_with_a_sentence():
    start = time.monotonic()
    first, second, third = run(killed, 3)
    assert second is None
    for rank, said in ((0, first), (2, third)):
        assert said.startswith(f"LostError: rank {rank} of 3: another process of this fit")
    assert time.monotonic() - start < 60


def different(rank):
    return fitted(learning_rate=0.01 * (1 + rank))


def test_ranks_given_different_arguments_are_refused():
    for said in run(different, 2):
        assert "of rank 0 and 1, learning_rate was 0.01, is 0.02; give all of them" in said


def other_weights(rank):
    vae = small()
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter += rank
    fit(vae, rows(), epochs=1, batch_size=8, progress=False)
    return [parameter.tolist() for parameter in vae.parameters()]


def test_all_ranks_start_from_the_weights_of_the_first():
    first, second = run(other_weights, 2)
    assert first == second


@pytest.mark.parametrize(
    ("size", "world", "least"), [(53, 3, 1), (53, 3, 2), (48, 2, 1), (7, 7, 1)]
)
@pytest.mark.parametrize("together", [None, 4])
def test_every_row_is_in_one_batch_of_one_rank(size, world, least, together, monkeypatch):
    monkeypatch.setattr(Rows, "together", together)
    data, order = Rows(torch.rand(size, 2)), torch.randperm(size)
    batch_size = max(1, size // world // 2)
    each = [
        shares(data, order, batch_size, rank=rank, world=world, least=least)
        for rank in range(world)
    ]
    assert sorted(torch.cat([part for mine in each for part, _ in mine]).tolist()) == [*range(size)]
    for step in zip(*each, strict=True):
        sizes = [len(part) for part, _ in step]
        assert min(sizes) >= least
        assert {total for _, total in step} == {sum(sizes)}
        if together is None:  # the rows of one process's step, shared
            torch.testing.assert_close(
                torch.cat([part for part, _ in step]), order[: sum(sizes)], rtol=0, atol=0
            )
            order = order[sum(sizes) :]


def test_more_ranks_than_rows_are_refused():
    fabric = Fabric(accelerator="cpu", devices=4)
    with pytest.raises(ValueError, match="batch_size is 2 but there are 6 rows to fit to for 4"):
        fit(small(), rows(6), batch_size=2, fabric=fabric, progress=False)
