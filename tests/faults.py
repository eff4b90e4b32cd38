"""Faults under load: corrupted files, and fits that are killed or lose their disk or their folder.

    python tests/faults.py --files 1000 --kills 30 --losses 6

ends with exit code 0 if nothing was lost, nothing hung, and no file took more than 1 GB to refuse.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ppl_vae import VAE, VAEConfig, fit, load_data
from ppl_vae.inference.checkpoint import load_checkpoint
from ppl_vae.rows import Rows

# What the command line says in one line.
SAID = (ValueError, TypeError, OSError, MemoryError, RecursionError)
# Seconds that reading a small file may take.
_LIMIT = 20
FIT = ("--epochs", "40", "--draws", "30", "--hidden", "4", "--latent-dim", "2")
FIT += ("--checkpoint-every", "0", "--threads", "1", "--out", "run", "--quiet")


class HangError(BaseException):
    """Reading a file took too long."""


def files(folder: Path) -> dict[str, Callable[[], Any]]:
    """A small file of each format in a folder, and what reads it."""
    import pandas
    import zarr
    from PIL import Image

    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 3)).astype(np.float32)
    frame = pandas.DataFrame(x, columns=["a", "b", "c"]).assign(kind=["one", "two"] * 20)
    frame.to_csv(folder / "t.csv", index=False)
    frame.to_csv(folder / "t.tsv", index=False, sep="\t")
    (folder / "t.txt").write_text("\n".join(" ".join(f"{v:.3f}" for v in row) for row in x))
    np.save(folder / "x.npy", x)
    np.savez(folder / "x.npz", x=x, kind=np.arange(40) % 2)
    frame.to_parquet(folder / "t.parquet")
    zarr.create_array(folder / "x.zarr", data=x, chunks=(10, 3))
    (folder / "images").mkdir()
    for i in range(12):
        pixels = rng.integers(0, 256, (8, 8), np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{i}.{('png', 'jpg', 'bmp')[i % 3]}")
    torch.manual_seed(0)
    vae = VAE.from_config(VAEConfig.for_data(torch.as_tensor(x), latent_dim=2, hidden=(4,)))
    vae.save(folder / "vae.safetensors")
    checkpoints = folder / "checkpoint"
    fit(vae, x, epochs=2, checkpoint_dir=checkpoints, checkpoint_every=0, progress=False)
    settings = json.loads(_metadata(checkpoints / "fit.safetensors")["settings"])
    (checkpoints / "fit-before.safetensors").unlink(missing_ok=True)

    def through(path: str) -> Any:
        data = Rows(folder / path)
        return [batch.x for _, batch in data.chunks(16, torch.zeros(()))]

    readers: dict[str, Callable[[], Any]] = {
        name: (lambda name=name: load_data(folder / name, None))
        for name in ("t.csv", "t.tsv", "t.txt", "x.npy", "x.npz", "t.parquet")
    }
    readers["images/0.png"] = readers["images/1.jpg"] = readers["images/2.bmp"] = lambda: load_data(
        folder / "images", None
    )
    readers["vae.safetensors"] = lambda: VAE.load(folder / "vae.safetensors").state_dict()
    readers["checkpoint/fit.safetensors"] = lambda: load_checkpoint(checkpoints, settings=settings)
    readers["x.zarr/zarr.json"] = readers["x.zarr/c/1/0"] = lambda: through("x.zarr")
    return readers


def _metadata(path: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(path, "pt") as held:
        return dict(held.metadata())


# Of these a file that is read at all is what was written.
CHECKED = ("vae.safetensors", "checkpoint/fit.safetensors")


def corrupted(content: bytes, rng: np.random.Generator) -> bytes:
    """A file's bytes after one of the things that happen to files."""
    size = len(content)
    at = int(rng.integers(size))
    some = int(rng.integers(1, max(2, size // 4)))
    noise = rng.integers(0, 256, some, np.uint8).tobytes()
    way = int(rng.integers(7))
    if way == 0:  # cut off
        return content[:at]
    if way == 1:  # a bit that flipped
        flipped = content[at] ^ (1 << int(rng.integers(8)))
        return content[:at] + bytes([flipped]) + content[at + 1 :]
    if way == 2:  # a block that was never written
        return content[:at] + bytes(some) + content[at + some :]
    if way == 3:  # another file's block
        return content[:at] + noise + content[at + some :]
    if way == 4:  # lost in the middle
        return content[:at] + content[at + some :]
    if way == 5:  # appended to by another program
        return content + noise
    return noise


@contextlib.contextmanager
def limited() -> Iterator[None]:
    def hung(*_: Any) -> None:
        raise HangError

    before = signal.signal(signal.SIGALRM, hung)
    signal.alarm(_LIMIT)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def read_corrupted(folder: Path, number: int, *, seed: int = 0) -> Counter[str]:
    """Read so many corrupted files, of each format in turn; say how many were read and refused.

    Raises
    ------
    AssertionError
        If one was read as something else where a checksum tells.
    Exception
        What was raised that is no error in one line.
    """
    readers = files(folder)
    rng, counts = np.random.default_rng(seed), Counter[str]()
    held = {name: str(read()) for name, read in readers.items() if name in CHECKED}
    for i in range(number):
        name = list(readers)[i % len(readers)]
        path = folder / name
        whole = path.read_bytes()
        path.write_bytes(corrupted(whole, rng))
        try:
            with limited():
                found = readers[name]()
            counts["read"] += 1
            if name in CHECKED and found is not None:
                assert str(found) == held[name], f"{name}, number {i}, was read as another"
        except SAID as error:
            counts["refused" if str(error).strip() else "refused without a word"] += 1
        except BaseException as error:
            error.add_note(f"{name}, number {i} of seed {seed}")
            raise
        finally:
            path.write_bytes(whole)
    return counts


def command(*arguments: str, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "ppl_vae.cli", *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def done_in(folder: Path) -> int:
    """How many epochs the checkpoint of an unfinished run is after."""
    found = [0]
    for name in ("fit", "fit-before"):
        path = folder / "run.partial" / "checkpoint" / f"{name}.safetensors"
        with contextlib.suppress(Exception):
            history = json.loads(_metadata(path)["history"])
            found.append(len(history["train_loss"]))
    return max(found)


def begun(folder: Path, *more: str) -> subprocess.Popen[str]:
    """A fit that has kept an epoch more than was kept before, or has ended."""
    before, until = done_in(folder), time.monotonic() + 1200
    process = command("fit", "x.npy", *FIT, *more, folder=folder)
    while done_in(folder) <= before and process.poll() is None:
        assert time.monotonic() < until, "a fit hung"
        time.sleep(0.005)
    return process


def killed_fits(folder: Path, kills: int, *, seed: int = 0) -> Iterator[tuple[str, int]]:
    """Stop a fit again and again, and go on; say by what, and the epochs that were kept.

    Raises
    ------
    AssertionError
        If an epoch that was kept is lost, a message has more than one line, or an exit code is not
        that of the signal.
    """
    rng = np.random.default_rng(seed)
    before, stops = 0, 0
    while stops < kills:
        process = begun(folder, *(["--resume"] if before else []))
        time.sleep(float(rng.uniform(0, 0.3)))
        name = ("SIGKILL", "SIGKILL", "SIGKILL", "SIGTERM", "SIGINT")[stops % 5]
        process.send_signal(getattr(signal, name))
        _, error = process.communicate()
        if (folder / "run").exists():  # it was faster
            assert process.returncode in (0, 130, 143, -signal.SIGKILL)
            before = 0
            _clear(folder)
            continue
        code = {"SIGKILL": -signal.SIGKILL, "SIGTERM": 143, "SIGINT": 130}[name]
        assert process.returncode == code, (name, process.returncode, error)
        if name != "SIGKILL":
            assert error.count("\n") == 1, error
            assert "goes on with --resume" in error, error
        kept = done_in(folder)
        assert kept >= before, f"{before} epochs were kept, and {kept} are after {name}"
        before, stops = kept, stops + 1
        yield name, kept


def bereft_fits(folder: Path, losses: int) -> Iterator[str]:
    """Let the disk be full, or the folder gone, in mid-fit, in turn; say what came of it.

    Raises
    ------
    AssertionError
        If what was kept is lost, a message has more than one line, or a fit cannot be made after.
    """
    for i in range(losses):
        process, kept, full = begun(folder), 0, i % 2 == 0
        if full:  # no file grows beyond this
            unlimited = resource.RLIM_INFINITY
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (2000, unlimited))
            kept = done_in(folder)
        else:
            shutil.rmtree(folder / "run.partial", ignore_errors=True)
        _, error = process.communicate()
        name = "a full disk" if full else "a deleted folder"
        if not full and process.returncode == 0:  # it was made again
            assert (folder / "run").exists(), "a fit that ended well is not there"
        else:
            assert (process.returncode, error.count("\n")) == (2, 1), (name, error)
            assert done_in(folder) >= kept > 0 or not full, f"{kept} epochs were kept before {name}"
        if full:
            finished(folder, "--resume")
        _clear(folder)
        yield f"{name}: exit code {process.returncode} {error.strip()}"


def _clear(folder: Path) -> None:
    for name in ("run", "run.partial"):
        shutil.rmtree(folder / name, ignore_errors=True)


def finished(folder: Path, *more: str) -> dict[str, torch.Tensor]:
    """The weights of a run that is gone on with to its end, or made anew."""
    process = command("fit", "x.npy", *FIT, *more, folder=folder)
    _, error = process.communicate()
    assert process.returncode == 0, error
    weights = VAE.load(folder / "run" / "vae.safetensors").state_dict()
    _clear(folder)
    return weights


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--losses", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        counts = read_corrupted(Path(name), options.files, seed=options.seed)
        more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6 - before
        assert "refused without a word" not in counts, counts
        print(
            f"{options.files} corrupted files: {dict(counts)}, {more:.2f} GB more at most",
            flush=True,
        )
        assert more < 1.0, "a corrupted file took too much memory"
    with tempfile.TemporaryDirectory() as name:
        folder, stops = Path(name), Counter[str]()
        np.save(folder / "x.npy", np.random.default_rng(0).normal(size=(400, 6)))
        for how, kept in killed_fits(folder, options.kills, seed=options.seed):
            stops[how] += 1
            print(f"{how} after {kept} epochs", flush=True)
        resumed = finished(folder, *(["--resume"] if done_in(folder) else []))
        whole = finished(folder)
        assert all(torch.equal(whole[key], value) for key, value in resumed.items())
        print(f"stopped by {dict(stops)}, and ended at the same weights as without", flush=True)
        for said in bereft_fits(folder, options.losses):
            print(said, flush=True)


if __name__ == "__main__":
    main()
