"""Faults under load, in short; at length with `-m slow`, or by `python tests/faults.py`."""

import os
import resource
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from faults import FIT, read_corrupted

from ppl_vae import VAE
from ppl_vae.inference.loop import Loop


@pytest.fixture
def fitting(command, tmp_path, monkeypatch):
    """Fit with something that happens at the end of the fifth epoch."""
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(60, 6)))
    end = Loop.end_epoch

    def run(happens=lambda: None, *more):
        def end_epoch(self, *arguments):
            end(self, *arguments)
            if self.epoch == 5:
                happens()

        monkeypatch.setattr(Loop, "end_epoch", end_epoch)
        return command("fit", "x.npy", *FIT, *more)

    return run


@pytest.mark.parametrize(
    ("name", "code", "said"), [("TERM", 143, "terminated"), ("INT", 130, "inte")]
)
def test_a_signal_ends_a_fit_that_goes_on_to_the_same_weights(fitting, tmp_path, name, code, said):
    found, out, error = fitting(lambda: os.kill(os.getpid(), getattr(signal, f"SIG{name}")))
    assert (found, out, error.count("\n")) == (code, "", 1)
    assert said in error
    assert "the fit in 'run.partial' goes on with --resume" in error
    assert fitting(lambda: None, "--resume")[0] == 0
    resumed = VAE.load(tmp_path / "run" / "vae.safetensors").state_dict()
    shutil.rmtree(tmp_path / "run")
    assert fitting()[0] == 0
    whole = VAE.load(tmp_path / "run" / "vae.safetensors").state_dict()
    assert all(torch.equal(whole[key], value) for key, value in resumed.items())


def test_a_folder_that_is_deleted_in_mid_fit_is_made_again_or_one_line(fitting, tmp_path):
    """The first where the state that is written meanwhile makes it, the second where it cannot."""
    code, _, error = fitting(lambda: shutil.rmtree(tmp_path / "run.partial"))
    left = sorted(path.name for path in tmp_path.iterdir())
    if code == 0:
        assert (error, left) == ("", ["run", "x.npy"])
        assert VAE.load(tmp_path / "run" / "vae.safetensors").latent_dim == 2
    else:
        assert (code, error.count("\n")) == (2, 1), error
        assert left in (["x.npy"], ["run.partial", "x.npy"])


def test_a_disk_that_holds_no_more_is_one_line(fitting, tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    full = 2000  # bytes of a file

    def fill():
        resource.setrlimit(resource.RLIMIT_FSIZE, (full, before[1]))

    try:
        code, _, error = fitting(fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (code, error.count("\n")) == (2, 1), error
    assert "too large" in error
    # What was kept before is there, and the run goes on when there is room again.
    assert fitting(lambda: None, "--resume") == (0, "", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "x.npy"]


def test_corrupted_files_are_refused_or_right(tmp_path):
    counts = read_corrupted(tmp_path, 26)
    assert set(counts) == {"read", "refused"}
    assert counts["refused"] > 5


@pytest.mark.slow
def test_a_thousand_corrupted_files_and_thirty_killed_fits():
    script = os.path.join(os.path.dirname(__file__), "faults.py")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
