"""Checkpoints: written beside a fit, as seldom as they have to be, whole whatever happens."""

import itertools
import threading
import time

import pytest
import torch

import ppl_vae.inference.checkpoint as module
from ppl_vae.inference.checkpoint import Checkpoints, load_checkpoint

SETTINGS = {"seed": 0}


def offer(checkpoints, weight, **options):
    checkpoints.offer(lambda: {"vae": {"weight": weight}}, {"loss": [1.0]}, 1.0, **options)


def kept(folder):
    groups, history, _ = load_checkpoint(folder, settings=SETTINGS)
    return groups["vae"]["weight"].tolist(), history["loss"]


def test_what_is_kept_is_the_state_of_the_moment_it_was_offered(tmp_path, monkeypatch):
    """The fit goes on, in place, while a thread waits to write."""
    go_on, save = threading.Event(), module.save_checkpoint

    def slow(*args, **options):
        go_on.wait()
        save(*args, **options)

    monkeypatch.setattr(module, "save_checkpoint", slow)
    weight, history = torch.zeros(3), {"loss": [1.0]}
    with Checkpoints(tmp_path, SETTINGS, every=0) as checkpoints:
        checkpoints.offer(lambda: {"vae": {"weight": weight}}, history, 1.0)
        weight += 5.0
        history["loss"].append(9.0)
        assert load_checkpoint(tmp_path, settings=SETTINGS) is None
        go_on.set()
    assert kept(tmp_path) == ([0.0] * 3, [1.0])


def test_every_state_offered_is_kept_if_asked_and_the_last_two_stay(tmp_path):
    with Checkpoints(tmp_path, SETTINGS, every=0) as checkpoints:
        for i in range(4):
            offer(checkpoints, torch.full((2,), float(i)))
    assert kept(tmp_path)[0] == [3.0, 3.0]
    (tmp_path / "fit.safetensors").unlink()
    assert kept(tmp_path)[0] == [2.0, 2.0]


def test_by_default_the_cost_of_one_decides_when_the_next_is_due(tmp_path, monkeypatch):
    now, written = [0.0], []
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def costly(*args, **options):
        written.append(now[0])
        start = time.thread_time()
        while time.thread_time() < start + 0.3:  # of a processor: due again after 10 s
            pass

    monkeypatch.setattr(module, "save_checkpoint", costly)
    with Checkpoints(tmp_path, SETTINGS) as checkpoints:
        for second in range(41):
            now[0] = float(second)
            offer(checkpoints, torch.zeros(2))
            if checkpoints._thread is not None:
                checkpoints._thread.join()
        assert written[0] == 5.0  # small states cost nothing, and yet are five seconds apart
        assert all(10 <= b - a <= 12 for a, b in itertools.pairwise(written))
        offer(checkpoints, torch.zeros(2), last=True)
    assert written[-1] == 40.0


def test_a_large_state_is_first_kept_after_what_it_will_cost(tmp_path, monkeypatch):
    now, written = [0.0], []
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(module, "save_checkpoint", lambda *args, **options: written.append(now[0]))
    monkeypatch.setattr(module, "_SPEED", 1e3)
    with Checkpoints(tmp_path, SETTINGS) as checkpoints:
        for second in range(45):
            now[0] = float(second)
            offer(checkpoints, torch.zeros(300))  # 1200 bytes: 1.2 s, 3 % of 40 s
    assert written == [40.0]


def test_a_state_that_could_not_be_written_ends_the_fit_and_says_so(tmp_path):
    (tmp_path / "file").touch()
    fit = Checkpoints(tmp_path / "file", SETTINGS, every=0)
    with pytest.raises(FileExistsError), fit as checkpoints:
        offer(checkpoints, torch.zeros(2))

    def interrupted():
        with Checkpoints(tmp_path / "file", SETTINGS, every=0) as checkpoints:
            offer(checkpoints, torch.zeros(2))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as stop:  # what ends it first is what is said first
        interrupted()
    assert "the last checkpoint was not written" in stop.value.__notes__[0]


@pytest.mark.parametrize("every", [-1.0, float("nan"), float("inf")])
def test_seconds_that_are_none(tmp_path, every):
    with pytest.raises(ValueError, match=r"checkpoint_every is .*; pass seconds, 0 for each"):
        Checkpoints(tmp_path, SETTINGS, every)


def test_no_folder_keeps_nothing():
    with Checkpoints(None, SETTINGS, every=0) as checkpoints:
        checkpoints.offer(lambda: 1 / 0, {}, 1.0, last=True)
        assert checkpoints.load() is None
