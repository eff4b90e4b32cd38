"""`ppl-vae fit` in several processes: one folder, one voice, and one line for what ends them."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from ranks import by_srun, by_torchrun, run

from ppl_vae.cli import main
from ppl_vae.cli.printing import Words
from ppl_vae.cli.starting import _ending, start
from ppl_vae.run import making

FIT = ["--epochs", "4", "--hidden", "8", "--latent-dim", "2", "--draws", "30"]


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.npy"
    np.save(path, np.random.default_rng(0).normal(size=(90, 3)))
    return path


def commanded(rank, folder, arguments, until=None):
    """Exit code, standard output and standard error of `ppl-vae`, stopped after some epochs.

    Nothing is drawn or judged after the fit. A list of a rank stands for what differs by rank.
    """
    os.chdir(folder)
    fit = making.fit

    def stop(epoch):
        if epoch == until:
            raise KeyboardInterrupt

    out, error = io.StringIO(), io.StringIO()
    arguments = [part[rank] if isinstance(part, tuple) else str(part) for part in arguments]
    with (
        mock.patch.object(sys, "argv", ["ppl-vae", *arguments]),
        mock.patch.object(making, "fit", lambda *x, **of: fit(*x, **of | {"on_epoch": stop})),
        mock.patch.object(making, "afterwards", return_value=()),
        redirect_stdout(out),
        redirect_stderr(error),
    ):
        try:
            main()
        except SystemExit as end:
            return end.code or 0, out.getvalue(), error.getvalue()


def test_ranks_of_srun_write_one_run_that_other_numbers_of_ranks_go_on_with(rows, tmp_path):
    fit = ["fit", rows, *FIT, "--checkpoint-every", "0", "--out", "run"]
    said = "ppl-vae: interrupted; the fit in 'run.partial' goes on with --resume\n"
    found = run(commanded, 2, tmp_path, fit, 2, started=by_srun)
    assert found == [(130, "", said), (130, "", "")]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.npy", "run.partial"]
    for world in (1, 3):
        folder = shutil.copytree(tmp_path, tmp_path.with_name(f"{tmp_path.name}-{world}"))
        arguments = [*fit, "--resume"]
        first, *others = run(commanded, world, folder, arguments, started=by_torchrun)
        assert first[0] == 0
        assert "all 4 epochs done" in first[1]
        assert first[2] == ""
        assert others == [(0, "", "")] * (world - 1)
        assert sorted(path.name for path in folder.iterdir()) == ["rows.npy", "run"]
        settings = json.loads((folder / "run" / "config.json").read_text())
        assert settings["fit"]["processes"] == world
        assert json.loads((folder / "run" / "metrics.json").read_text())["fit"]["epochs"] == 4


def test_what_one_rank_cannot_do_is_said_by_the_first(rows, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("years of work")
    fit = ["fit", (str(rows), "nowhere.npy"), *FIT, "--out"]
    first, second = run(commanded, 2, tmp_path, [*fit, "new"])
    assert first[:2] == (2, "")
    assert first[2].startswith("ppl-vae: rank 1 of 2: there is no file or folder nowhere.npy")
    assert second == (2, "", "")
    first, second = run(commanded, 2, tmp_path, [*fit, "run"])
    assert first[:2] == (2, "")
    assert first[2].startswith("ppl-vae: --out is 'run', which exists")
    assert second == (2, "", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.npy", "run"]


@pytest.mark.parametrize(
    ("environment", "arguments", "message"),
    [
        ({}, ["--devices", "0"], "--devices is 0; pass at least 1"),
        ({}, ["--nodes", "-1"], "--nodes is -1; pass at least 1"),
        ({}, ["--devices", "two"], "'--devices'"),
        ({}, ["--nodes", "2"], "--nodes is 2, and the machines do not know of each other"),
        ({"MASTER_ADDR": "here"}, ["--nodes", "2"], "set MASTER_ADDR to the name of one of them"),
        ({"WORLD_SIZE": "2"}, [], "neither torchrun nor srun started"),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, [], "neither torchrun nor srun started"),
        (
            by_torchrun(0, 2, 1),
            ["--devices", "3"],
            "--devices is 3, but torchrun started 2 process",
        ),
        (
            by_torchrun(0, 1, 1),
            ["--devices", "2"],
            "--devices is 2, but torchrun started 1 process",
        ),
        (by_srun(0, 2, 1), ["--nodes", "2"], "--nodes is 2, but srun started 2 processes on each"),
        (
            {k: v for k, v in by_srun(0, 2, 1).items() if k != "SLURM_NTASKS_PER_NODE"},
            [],
            "Use `--ntasks-per-node=2` instead",
        ),
        ({}, ["--devices", "2", "--device", "cuda"], "--device is 'cuda', but PyTorch finds no"),
        ({}, ["--devices", "2", "--resume", "--out", "new", "--seed", "-1"], "--seed is -1"),
    ],
)
def test_combinations_that_cannot_work_are_refused(
    command, tmp_path, monkeypatch, environment, arguments, message
):
    for name, value in environment.items():
        monkeypatch.setenv(name, str(value))
    code, out, error = command("fit", *FIT, *arguments)
    assert (code, out, error.count("\n")) == (2, "", 1)
    assert message in error
    assert list(tmp_path.iterdir()) == []


def test_gpus_that_are_not_there_are_refused(command, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    code, _, error = command("fit", *FIT, "--devices", "2")
    assert code == 2
    assert "2 processes need a GPU each, but PyTorch finds 1 here; pass --devices 1, or" in error


def test_a_published_vae_is_reproduced_by_one_process(command, monkeypatch):
    for rank, said in enumerate(("ppl-vae: reproduce is one process, and 2 were started", "")):
        monkeypatch.setattr("ppl_vae.cli.starting._GRACE", 0.0)
        for name, value in by_torchrun(rank, 2, 1).items():
            monkeypatch.setenv(name, str(value))
        code, out, error = command("reproduce", "aevb")
        assert (code, out) == (2, "")
        assert error.startswith(said)
        assert bool(error) == bool(said)


OWN, LOST = Words("no rows", 2), Words("rank 0 of 3: another process", 1, own=False)
ENDED = Words("terminated", 143, own=False)


@pytest.mark.parametrize(
    ("died", "said", "message", "code"),
    [
        ({1: 2, 0: 143}, {0: ENDED, 1: OWN}, "no rows", 2),
        ({0: 1, 2: -9, 1: -15}, {0: LOST}, "rank 2 of 3 was ended by SIGKILL, as for want of", 1),
        ({0: 1, 1: -15, 2: -11}, {0: LOST}, "rank 2 of 3 was ended by SIGSEGV; the same", 1),
        ({2: 1, 0: 1}, {0: LOST}, "rank 2 of 3 ended with exit code 1, for what it said", 1),
        ({0: 1}, {0: LOST}, "rank 0 of 3: another process", 1),
        ({0: -15, 1: -15}, {}, "all processes were terminated", 143),
    ],
)
def test_what_ended_all_processes(died, said, message, code):
    found = _ending(died, said, 3)
    assert found.message.startswith(message)
    assert found.code == code


WORKER = """
import json, os, signal, sys, time
rank, folder = int(os.environ["RANK"]), os.environ["PPL_VAE_LAST_WORDS"]
assert (os.environ["WORLD_SIZE"], os.environ["LOCAL_WORLD_SIZE"]) == ("2", "2")
def say(*words):
    open(f"{folder}/{rank}.words", "w").write(json.dumps(words))
    sys.exit(words[1])
signal.signal(signal.SIGTERM, lambda *_: say("terminated", 143, False))
exec(sys.argv[1])
"""


@pytest.mark.parametrize(
    ("doing", "code", "message"),
    [
        ("pass", 0, ""),
        ("time.sleep(60 * rank) if rank == 0 else os.kill(os.getpid(), 9)", 1, "rank 1 of 2 was"),
        ("say('no rows', 2, True) if rank else time.sleep(60)", 2, "no rows"),
        ("os.kill(os.getppid(), 15) if rank else None; time.sleep(60)", 143, "terminated"),
    ],
)
def test_processes_are_started_and_end_together(doing, code, message, capsys, monkeypatch):
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    started = time.monotonic()
    with mock.patch.dict(os.environ), pytest.raises(SystemExit) as ended:
        start(2, 1, [sys.executable, "-S", "-c", WORKER, doing])
    error = capsys.readouterr().err
    assert (ended.value.code, error.count("\n")) == (code, 1 if message else 0)
    assert error.startswith(f"ppl-vae: {message}" if message else "")
    assert time.monotonic() - started < 30
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ended", "code", "message"),
    [
        ("first", 1, "rank 0 of 2 was ended by SIGKILL"),
        ("second", 1, "rank 1 of 2 was ended by SIGKILL"),
        (signal.SIGINT, 130, "interrupted; the fit in 'run.partial' goes on with --resume"),
        (signal.SIGTERM, 143, "terminated; the fit in 'run.partial' goes on with --resume"),
    ],
)
def test_a_fit_on_two_devices_ends_with_a_line_and_goes_on(rows, tmp_path, ended, code, message):
    fit = [sys.executable, "-m", "ppl_vae.cli", "fit", str(rows), *FIT, "--out", "run"]
    fit += ["--device", "cpu", "--checkpoint-every", "0", "--devices"]
    process = subprocess.Popen(
        [*fit, "2", "--epochs", "1000000"], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    checkpoint = tmp_path / "run.partial" / "checkpoint" / "fit.safetensors"
    until = time.monotonic() + 120
    while not checkpoint.exists():
        assert time.monotonic() < until
        assert process.poll() is None
        time.sleep(0.1)
    ranks = {}
    for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        given = Path(f"/proc/{child}/environ").read_text().split("\0")
        ranks |= {part: int(child) for part in given if part.startswith("RANK=")}
    if isinstance(ended, str):
        os.kill(ranks["RANK=0" if ended == "first" else "RANK=1"], signal.SIGKILL)
    else:
        process.send_signal(ended)
    _, error = process.communicate(timeout=60)
    assert (process.returncode, error.count("\n")) == (code, 1)
    assert error.startswith(f"ppl-vae: {message}")
    assert not any(Path(f"/proc/{child}").exists() for child in ranks.values())
    assert checkpoint.exists()
    whole = subprocess.run([*fit, "2", "--force"], cwd=tmp_path, capture_output=True, text=True)
    assert (whole.returncode, whole.stderr) == (0, "")
    assert "Written to run" in whole.stdout
    assert whole.stdout.count("epochs done") == 1
