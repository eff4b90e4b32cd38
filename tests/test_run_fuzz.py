"""Run folders that were damaged: a command does its work, or ends in one line; nothing is lost."""

import json
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest

QUICK = ["--epochs", "1", "--draws", "50", "--hidden", "4", "--latent-dim", "2", "--quiet"]
# Two threads for layers of four units would only wait for each other on a busy machine.
QUICK += ["--threads", "1"]

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
FILES = ["config.json", "metrics.json", "vae.safetensors", "history.nc", "posterior.nc", "map.nc"]
COMMANDS = [
    ("evaluate", "run", "--draws", "50", "--quiet"),
    ("sample", "run", "--num-samples", "3", "--quiet"),
    ("encode", "run", "d.npy", "--draws", "30", "--quiet"),
    ("report", "run", "--quiet"),
    ("pictures", "run", "--quiet"),
    ("diagnose", "run", "--draws", "30", "--quiet"),
]
# Where these come after all else they take seconds; so they do only where a file is read by them.
SLOW = {
    "pictures": ["config.json", "vae.safetensors"],
    "diagnose": ["config.json", "vae.safetensors"],
}


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
    """A folder with data and the run of a small VAE, its latents drawn."""
    folder = tmp_path_factory.mktemp("whole")
    np.save(folder / "d.npy", np.random.default_rng(0).normal(size=(60, 3)))
    done = subprocess.run(
        [sys.executable, "-m", "ppl_vae.cli", "fit", "d.npy", "--out", "run", *QUICK],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    drawn = [sys.executable, "-m", "ppl_vae.cli", "pictures", "run", "--quiet"]
    assert subprocess.run(drawn, cwd=folder).returncode == 0
    return folder


# h5netcdf cannot close a file that it could not open.
@pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <function File.close:pytest.PytestUnraisableExceptionWarning"
)
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
    # Some of them for each damage, every one of them for some.
    first = (list(DAMAGES).index(damage) if damage in DAMAGES else 1) % 2
    for arguments in COMMANDS[first::2]:
        if name not in SLOW.get(arguments[0], FILES):
            continue
        code, out, err = command(*arguments)
        assert code in (0, 2), (arguments, out, err)
        assert err.count("\n") == (code == 2), (arguments, err)
        assert "Traceback" not in err
        left = {p.name for p in (tmp_path / "run").iterdir()}
        assert before <= left
        assert not [n for n in left if n.startswith(".")]
        if code == 0 and name == "vae.safetensors" and arguments[0] != "report":
            assert path.read_bytes() == content, "another weight was used without a word"


WRONG = [None, -1, 0, 1e300, "x", "", [], {}, ["a"], "../x"]


def _places(value, way=()):
    """The way to every part of JSON, from the outside in."""
    if way:
        yield way
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from _places(value[key], (*way, key))


@pytest.mark.parametrize(
    ("name", "command_line"),
    [
        ("config.json", ("evaluate", "run", "--draws", "30", "--quiet")),
        ("config.json", ("sample", "run", "--num-samples", "3", "--force", "--quiet")),
        ("config.json", ("report", "run", "--quiet")),
        ("metrics.json", ("report", "run", "--quiet")),
    ],
)
def test_one_part_of_a_file_is_another(command, tmp_path, whole, name, command_line):
    """Any part of it, lost or of another kind: 40 of some 700 ways, the same ones each time."""
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "run" / name
    content = path.read_text()
    ways = [(way, wrong) for way in _places(json.loads(content)) for wrong in (*WRONG, "lost")]
    for i in np.random.default_rng(0).choice(len(ways), 40, replace=False):
        (*outer, last), wrong = ways[i]
        changed = json.loads(content)
        part = changed
        for key in outer:
            part = part[key]
        if wrong == "lost":
            del part[last]
        else:
            part[last] = wrong
        path.write_text(json.dumps(changed))
        code, _, err = command(*command_line)
        assert code in (0, 2), (ways[i], err)
        assert err.count("\n") == (code == 2), (ways[i], err)


@pytest.mark.parametrize(
    "change",
    [
        {"data": {}},
        {"data": {"name_or_path": 3}},
        {"vae": {"prior": {}}},
        {"vae": {"network": {"options": 3}}},
    ],
)
def test_parts_that_were_not_looked_at(command, tmp_path, whole, change):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "run" / "config.json"
    settings = json.loads(path.read_text())
    for part, values in change.items():
        settings[part] = {**(settings[part] if values else {}), **values}
    path.write_text(json.dumps(settings))
    code, _, err = command("evaluate", "run", "--draws", "30")
    assert (code, err.count("\n")) == (2, 1), err


def test_diagnose_beside_changed_metrics(command, tmp_path, whole):
    """It takes what it finds there, and does without the rest."""
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "run" / "metrics.json"
    test = json.loads(_retyped(path.read_bytes()))["test"]
    path.write_text(json.dumps({"test": test}))
    code, out, err = command("diagnose", "run", "--draws", "30")
    assert (code, err) == (0, ""), err
    assert "Which of 12 rows can be believed" in out


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
    if "found no unfinished run" in again.stderr:  # killed before there was anything to keep
        assert again.stderr.count("\n") == 1
        assert subprocess.run(fit, cwd=tmp_path, capture_output=True).returncode == 0
    elif (tmp_path / "run.partial").exists() or again.returncode:
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
