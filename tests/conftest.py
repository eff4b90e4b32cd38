"""What every test starts from."""

import importlib
import inspect
import io
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pyro
import pytest
import torch
from oracle import LinearGaussian

from ppl_vae.cli import main

# Tensors here are small: threads would only wait for each other, for minutes on a busy machine.
torch.set_num_threads(1)

_SHARED = Path(__file__).parents[2] / "shared" / "data"


def pytest_addoption(parser):
    parser.addoption(
        "--engine",
        choices=("graph", "compiled"),
        help="what fit(engine='auto') stands for in all tests, in place of 'eager' for short fits",
    )


@pytest.fixture(autouse=True)
def chosen_engine(request, monkeypatch):
    engine = request.config.getoption("--engine")
    if engine:
        monkeypatch.setattr(
            importlib.import_module("ppl_vae.inference.fit"),
            "choose_engine",
            lambda given, *_: engine if given == "auto" else given,
        )


@pytest.fixture(autouse=True)
def untouched_world():
    """Start each test from one random state and an empty param store; find both flags as left."""
    pyro.clear_param_store()
    torch.manual_seed(0)
    yield
    assert torch.get_default_dtype() == torch.float32


@pytest.fixture
def oracle() -> LinearGaussian:
    return LinearGaussian.random(latent_dim=3, num_features=8)


@pytest.fixture(scope="session")
def digits() -> torch.Tensor:
    from sklearn.datasets import load_digits

    return torch.tensor(load_digits().images / 16, dtype=torch.float32)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data that is not part of the package."""
    folder = Path(os.environ.get("PPL_VAE_DATA", _SHARED))
    if not (folder / "MNIST").is_dir():
        pytest.skip(f"no shared data in {folder}; set PPL_VAE_DATA to the folder that holds it")
    return folder


@pytest.fixture(scope="session")
def run_command():
    """Run `ppl-vae ...` in the current folder: exit code, standard output, standard error."""

    def run(*arguments):
        out, error = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(error):
            patch.setattr(sys, "argv", ["ppl-vae", *map(str, arguments)])
            with pytest.raises(SystemExit) as exit_:
                main()
        return exit_.value.code or 0, out.getvalue(), error.getvalue()

    return run


@pytest.fixture
def command(run_command, monkeypatch, tmp_path):
    """The same in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return run_command


@pytest.fixture
def brief(monkeypatch):
    """Fits of one epoch, and checks of few rows and draws, to see that everything runs."""
    from ppl_vae import diagnose, refine

    fit = importlib.import_module("ppl_vae.inference.fit").fit

    def one_epoch(*args, **options):
        return fit(*args, **{**options, "epochs": 1})

    for module in ("ppl_vae", "ppl_vae.inference.fit", "ppl_vae.run.making"):
        monkeypatch.setattr(importlib.import_module(module), "fit", one_epoch)
    small = {"num_samples": 100, "max_samples": 100, "num_simulations": 50, "gap_rows": 2}
    fewer = {
        diagnose: {**small, "refined_rows": 2, "annealed_rows": 2},
        refine: {"num_samples": 100, "max_steps": 5, "num_warmup": 10},
    }
    for function, sizes in fewer.items():
        defaults = inspect.unwrap(function).__kwdefaults__
        for name, size in sizes.items():
            assert name in defaults
            monkeypatch.setitem(defaults, name, size)
