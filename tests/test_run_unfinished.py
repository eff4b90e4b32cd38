"""A run folder while it is written: nothing is lost that no run wrote."""

import json
import os
import subprocess
import sys

import pytest

from ppl_vae.run.unfinished import free_folder, unfinished


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(work, text="{}"):
    (work.folder / "config.json").write_text(json.dumps({"ppl_vae": text}))


def finish(out, text="1", **options):
    with unfinished(out, **{"force": False, "resume": False, **options}) as work:
        write(work, text)
    return work.out


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("name", ["..", ".", ""])
def test_ways_to_folders_are_no_names(name):
    assert free_folder(name).name not in ("", ".", "..")


def test_a_way_to_a_folder_is_no_place_for_a_run(tmp_path):
    with pytest.raises(ValueError, match="a way to a folder"):
        finish(tmp_path / "..", force=True)


def test_a_folder_made_meanwhile_is_left_as_it_is(tmp_path):
    out = tmp_path / "run"
    writing = unfinished(out, force=True, resume=False)
    write(writing.__enter__())
    out.mkdir()
    (out / "chapter1.txt").write_text("irreplaceable")
    with pytest.warns(RuntimeWarning, match="made by somebody else .* the run is in .*run-2"):
        writing.__exit__(None, None, None)
    assert names(out) == ["chapter1.txt"]
    assert names(tmp_path / "run-2") == ["config.json"]


def test_force_replaces_a_run_and_keeps_what_no_run_wrote(tmp_path):
    out = finish(tmp_path / "run")
    (out / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="exists; choose another folder, or pass --force"):
        finish(out, "2")
    with pytest.warns(RuntimeWarning, match=r"keeps notes.txt, which no run wrote"):
        finish(out, "2", force=True)
    assert json.loads((out / "config.json").read_text()) == {"ppl_vae": "2"}
    assert names(tmp_path) == ["run", "run.replaced"]
    assert names(tmp_path / "run.replaced") == ["notes.txt"]


def test_force_replaces_no_other_folder(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.txt").write_text("irreplaceable")
    with pytest.raises(FileExistsError, match="no run folder"):
        finish(tmp_path / "thesis", force=True)
    (tmp_path / "other.partial").mkdir()
    (tmp_path / "other.partial" / "chapter1.txt").write_text("irreplaceable")
    with pytest.warns(RuntimeWarning, match="keeps chapter1.txt"):
        finish(tmp_path / "other", force=True)
    assert (tmp_path / "other" / "chapter1.txt").read_text() == "irreplaceable"


def test_links_and_the_current_folder_are_refused_at_the_start(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "dangling").symlink_to("nowhere")
    for name in ("link", "dangling"):
        with pytest.raises(FileExistsError, match="symbolic link"):
            finish(tmp_path / name, force=True)
    with pytest.raises(FileExistsError, match="holds the current folder"):
        finish(tmp_path, force=True)
    assert names(tmp_path) == ["dangling", "link", "real"]


HOLD = """
import sys, time
from pathlib import Path
from ppl_vae.run.unfinished import unfinished
with unfinished(Path("run"), force=False, resume=False) as work:
    (work.folder / "checkpoint").mkdir()
    print("ready", flush=True)
    time.sleep(60)
"""


def test_another_process_is_refused_and_a_killed_one_can_be_resumed(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    try:
        for options in ({"force": True}, {"resume": True}):
            with pytest.raises(FileExistsError, match="is being written by another process"):
                finish(tmp_path / "run", **options)
    finally:
        process.kill()
        process.communicate()
    with pytest.raises(FileExistsError, match="go on with it by --resume"):
        finish(tmp_path / "run")
    assert finish(tmp_path / "run", resume=True) == tmp_path / "run"
    assert names(tmp_path / "run") == ["config.json"]


def test_killed_between_two_renames(tmp_path):
    """The old run comes back, and the new one can be gone on with."""
    finish(tmp_path / "run")
    os.rename(tmp_path / "run", tmp_path / "run.replaced")
    (tmp_path / "run.partial" / "checkpoint").mkdir(parents=True)
    with pytest.raises(FileExistsError, match="exists"):
        finish(tmp_path / "run")
    assert names(tmp_path) == ["run", "run.partial"]
    finish(tmp_path / "run", "2", force=True, resume=True)
    assert json.loads((tmp_path / "run" / "config.json").read_text()) == {"ppl_vae": "2"}
    assert names(tmp_path) == ["run"]


def test_an_error_leaves_nothing_behind_where_nothing_can_be_resumed(tmp_path):
    with (
        pytest.raises(ZeroDivisionError),
        unfinished(tmp_path / "run", force=False, resume=False),
    ):
        raise ZeroDivisionError
    assert names(tmp_path) == []
