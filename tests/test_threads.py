"""The number of threads of a fit: as asked for, or by what steps take."""

import json

import pytest
import torch

from ppl_vae import VAE, VAEConfig, fit
from ppl_vae.cli import wait_passively
from ppl_vae.inference.threads import Threads


@pytest.fixture
def four():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def taken(threads, costs, steps, every=0):
    """Steps that cost what the number of threads says; each ``every``-th is of another kind."""
    used = []
    for i in range(steps):
        used.append(torch.get_num_threads())
        threads.took(50.0 if every and i % every == 0 else costs[used[-1]])
    return used


@pytest.mark.parametrize("best", [1, 2, 4])
def test_what_pays_is_found_and_looked_at_again(four, best):
    quiet = {n: 1.0 if n == best else 1.0 + abs(n - best) for n in (1, 2, 4)}
    with Threads("auto") as threads:
        used = taken(threads, quiet, 2000, every=97)
        assert used[-1] == best
        assert sum(n != best for n in used) < 0.1 * len(used)
        # Another program begins, and each thread more makes it worse; then it ends.
        busy = {1: 2.0, 2: 20.0, 4: 60.0}
        used = taken(threads, busy, 2000)
        assert used[-1] == 1
        assert sum(busy[n] for n in used) < 1.5 * 2.0 * len(used)
        used = taken(threads, quiet, 20_000)
        assert used[-1] == best
    assert torch.get_num_threads() == 4
    assert sum(threads.steps.values()) == 24_000


def test_a_number_that_hardly_pays_is_not_taken(four):
    with Threads("auto") as threads:
        assert set(taken(threads, {4: 1.0, 2: 0.95, 1: 2.0}, 3000)[-50:]) <= {4, 2}
        assert threads.steps[4] > 2500


@pytest.mark.parametrize("number", [None, 1, 3])
def test_a_number_is_kept(four, number):
    with Threads(number) as threads:
        assert set(taken(threads, {4: 9.0, 3: 5.0, 1: 1.0}, 500)) == {number or 4}
    assert torch.get_num_threads() == 4


def test_nothing_is_chosen_where_steps_are_not_the_processors_alone(four):
    for where in ({"on_cpu": False}, {"alone": False}):
        with Threads("auto", **where) as threads:
            assert set(taken(threads, {4: 9.0, 2: 1.0}, 300)) == {4}
        assert sum(threads.steps.values()) == (0 if "on_cpu" in where else 300)


@pytest.mark.parametrize("number", [0, -1, 1.5, True, "two", "1"])
def test_what_is_no_number_is_refused(number):
    x = torch.rand(4, 3).round()
    vae = VAE.from_config(VAEConfig.for_data(x, latent_dim=2, hidden=(4,)))
    with pytest.raises(ValueError, match=r"threads is .*; pass a number of at least 1, 'auto'"):
        fit(vae, x, epochs=1, threads=number, progress=False)


def test_a_fit_says_how_many_it_used(four):
    x = (torch.rand(60, 4) < 0.5).float()
    vae = VAE.from_config(VAEConfig.for_data(x, latent_dim=2, hidden=(4,)))
    seen = []
    options = {"epochs": 3, "batch_size": 20, "progress": False}
    result = fit(
        vae, x, threads=2, on_epoch=lambda _: seen.append(torch.get_num_threads()), **options
    )
    assert result.threads == {2: 9}
    assert set(seen) == {2}
    assert torch.get_num_threads() == 4


def test_the_command_line_says_so_too_and_waits_passively(command, tmp_path, monkeypatch):
    for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    options = ["--epochs", "1", "--draws", "30", "--hidden", "4", "--latent-dim", "1", "--out"]
    code, out, _ = command("fit", "digits", *options, "one", "--threads", 1)
    assert code == 0
    assert " rows/s on 1 thread; weights of epoch" in out
    fitted = json.loads((tmp_path / "one" / "metrics.json").read_text())["fit"]
    assert list(fitted["steps_by_threads"]) == ["1"]
    for given in ("none", "0", "-2", "1.5"):
        code, _, error = command("fit", "digits", *options, "two", "--threads", given)
        assert code == 2
        assert f"--threads is '{given}'; pass auto, or a number of at least 1" in error
    import os

    assert os.environ["GOMP_SPINCOUNT"] == "1000"
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    wait_passively()
    assert os.environ["GOMP_SPINCOUNT"] == "7"
