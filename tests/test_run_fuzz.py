"""Run folders that were damaged: a command does its work, or ends in one line; nothing is lost."""

import json
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest

QUICK = ["--epochs", "1", "--draws", "50", "--hidden", "4", "--latent-dim", "2", "--quiet"]

DAMAGES = {
    "empty": lambda content: b"",
    "half": lambda content: content[: len(content) // 2],
    "first bytes": lambda content: content[:7],
    "a flipped bit": lambda content: content[:-9] + bytes([content[-9] ^ 4]) + content[-8:],
    "a flipped bit in front": lambda content: bytes([content[0] ^ 4]) + content[1:],
    "zeros": lambda content: bytes(len(content)),
    "appended": lambda content: content + b"\n{}",
    "no text": lambda content: b"\xff\xfe\x00" + content,
    "a list": lambda content: b"[1, 2]",
    "a number": lambda content: b"3",
    "null": lambda content: b"null",
    "no keys": lambda content: b"{}",
    "deep": lambda content: b"[" * 100_000,
    "other types": lambda content: _retyped(content),
    "half of its keys": lambda content: _halved(content),
}
FILES = ["config.json", "metrics.json", "vae.safetensors", "history.nc", "posterior.nc"]
COMMANDS = [
    ("evaluate", "run", "--draws", "50", "--quiet"),
    ("sample", "run", "--num-samples", "3", "--quiet"),
    ("encode", "run", "d.npy", "--draws", "30", "--quiet"),
    ("report", "run", "--quiet"),
]


def _retyped(content):
    """JSON with numbers for texts, texts for numbers and lists for objects."""

    def changed(value):
        if isinstance(value, dict):
            return {key: changed(part) for key, part in value.items()}
        if isinstance(value, str):
            return 7
        return [value] if isinstance(value, list) else str(value)

    try:
        return json.dumps(changed(json.loads(content))).encode()
    except ValueError:
        return content[::-1]


def _halved(content):
    try:
        whole = json.loads(content)
        return json.dumps(dict(list(whole.items())[::2])).encode()
    except (ValueError, AttributeError):
        return content[1::2]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder with data and the run of a small VAE."""
    folder = tmp_path_factory.mktemp("whole")
    np.save(folder / "d.npy", np.random.default_rng(0).normal(size=(60, 3)))
    done = subprocess.run(
        [sys.executable, "-m", "ppl_vae.cli", "fit", "d.npy", "--out", "run", *QUICK],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("damage", [*DAMAGES, "missing", "a folder"])
@pytest.mark.parametrize("name", FILES)
def test_damaged_files(command, tmp_path, whole, name, damage):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "run" / name
    content = path.read_bytes()
    path.unlink()
    if damage == "a folder":
        path.mkdir()
    elif damage != "missing":
        path.write_bytes(DAMAGES[damage](content))
    before = {p.name for p in (tmp_path / "run").iterdir()}
    # Two of the four for each damage, every one of them for some.
    first = (list(DAMAGES).index(damage) if damage in DAMAGES else 1) % 2
    for arguments in COMMANDS[first::2]:
        code, out, err = command(*arguments)
        assert code in (0, 2), (arguments, out, err)
        assert err.count("\n") == (code == 2), (arguments, err)
        assert "Traceback" not in err
        left = {p.name for p in (tmp_path / "run").iterdir()}
        assert before <= left
        assert not [n for n in left if n.startswith(".")]
        if code == 0 and name == "vae.safetensors" and arguments[0] != "report":
            assert path.read_bytes() == content, "another weight was used without a word"


@pytest.mark.parametrize("wait", [0.0, 0.5])
def test_killed_runs_leave_a_way_on(tmp_path, whole, wait):
    """Whenever it is killed: no run, or an unfinished one, which --resume ends."""
    shutil.copy(whole / "d.npy", tmp_path)
    fit = [sys.executable, "-m", "ppl_vae.cli", "fit", "d.npy", "--out", "run", *QUICK]
    process = subprocess.Popen(fit, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("run*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(wait)
    process.kill()
    process.communicate()
    assert not [p.name for p in tmp_path.iterdir() if p.name.startswith(".")]
    again = subprocess.run(
        fit if (tmp_path / "run").exists() else [*fit, "--resume"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    if (tmp_path / "run.partial").exists() or again.returncode:
        assert "already" in again.stderr  # it had ended before it was killed
        assert again.stderr.count("\n") == 1
    assert (tmp_path / "run" / "vae.safetensors").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["d.npy", "run"]


def test_two_fits_of_one_folder(tmp_path, whole):
    """One of them ends in a run; the other says why it does not."""
    shutil.copy(whole / "d.npy", tmp_path)
    fit = [sys.executable, "-m", "ppl_vae.cli", "fit", "d.npy", "--out", "run", "--force", *QUICK]
    both = [
        subprocess.Popen(
            fit, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    found = [(process.communicate()[1], process.returncode) for process in both]
    assert 0 in [code for _, code in found]
    for err, code in found:
        assert code in (0, 2)
        assert err.count("\n") == (code == 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["d.npy", "run"]
    assert (tmp_path / "run" / "metrics.json").exists()
