"""A million rows into a zarr store: memory, speed, and whether kills leave a trace.

Writes rows of bytes to a .npy file. One process writes their results into a store, and says how
much memory it needed. Others write a second store, are killed by SIGKILL at random moments, with
one more of them each time, and two go on to the end. Both stores are then compared, file by file.

    python benchmarks/store.py --rows 1000000 --json store.json
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np


def write(path: str, store: str, rank: int, world: int, what: str, draws: int) -> None:
    """What each process runs: results of its share of the rows at a path, into a store."""
    import torch

    from ppl_vae import VAE, Store, VAEConfig, diagnose, encode, judge_rows, sample_posterior
    from ppl_vae.rows import Rows

    torch.set_num_threads(1)
    rows = Rows(path, binarize="threshold")
    # Small where each row has draws, so that a million of them take minutes.
    sizes = (
        {"latent_dim": 20, "hidden": (400,)} if not draws else {"latent_dim": 4, "hidden": (16,)}
    )
    vae = VAE.from_config(VAEConfig(event_shape=rows.event_shape, center=0.5, **sizes))
    place = Store(store, rank=rank, world=world)
    before = anonymous()
    started = time.perf_counter()
    options = {"num_samples": draws} if draws else {}
    if what == "diagnose":  # what is of some rows, however many there are, in short
        options |= {"max_samples": draws, "refined_rows": 200}
        options |= {"annealed_rows": 5, "gap_rows": 5, "num_simulations": 100}
    known = {"encode": encode, "judge": judge_rows, "draw": sample_posterior, "diagnose": diagnose}
    of = known[what]
    of(vae, rows, store=place, progress=False, **options)
    spent = time.perf_counter() - started
    print(json.dumps({"before": before, "seconds": spent}))


def anonymous() -> float:
    """Anonymous memory of this process, GB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1e6
    raise OSError("/proc/self/status does not say RssAnon")


def writers(
    path: Path, store: Path, world: int, what: str, draws: int
) -> list[subprocess.Popen[str]]:
    return [
        subprocess.Popen(
            [
                *(sys.executable, __file__, "--writer", str(path), str(store)),
                *(str(rank), str(world), what, str(draws)),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(world)
    ]


def watched(process: subprocess.Popen[str]) -> tuple[dict[str, float], float]:
    """What a process printed in the end, and the most anonymous memory that it was seen with."""
    most = 0.0
    status = Path(f"/proc/{process.pid}/status")
    while process.poll() is None:
        try:
            for line in status.read_text().splitlines():
                if line.startswith("RssAnon"):
                    most = max(most, int(line.split()[1]) / 1e6)
        except OSError:
            break
        time.sleep(0.05)
    output, _ = process.communicate()
    return json.loads(output), most


def listed(beside: Path) -> int:
    """How many regions of an unfinished store are there, or of its step that is not complete."""
    found = 0
    for path in beside.rglob("finished-*"):
        with contextlib.suppress(FileNotFoundError):  # that step was completed just now
            found += len(path.read_text().splitlines())
    return found


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def main() -> None:
    if sys.argv[1:2] == ["--writer"]:
        path, store, rank, world, what, draws = sys.argv[2:]
        write(path, store, int(rank), int(world), what, int(draws))
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--entries", type=int, default=784)
    parser.add_argument("--what", choices=("encode", "judge", "draw", "diagnose"), default="encode")
    parser.add_argument(
        "--draws", type=int, default=100, help="of each row, to judge it or to keep"
    )
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="for all files; a temporary one if not given")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    asked = options.what, 0 if options.what == "encode" else options.draws
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path, whole, killed = (Path(folder, n) for n in ("x.npy", "whole.zarr", "killed.zarr"))
        out = np.lib.format.open_memmap(path, "w+", np.uint8, (options.rows, options.entries))
        rng = np.random.default_rng(0)
        for start in range(0, options.rows, 100_000):
            size = min(100_000, options.rows - start)
            out[start : start + size] = rng.integers(0, 256, (size, options.entries), np.uint8)
        out.flush()
        del out
        told, most = watched(writers(path, whole, 1, *asked)[0])
        print(
            f"{options.rows:,} rows x {options.entries}, "
            f"{asked[0]}{f', {asked[1]} draws' if asked[1] else ''}: "
            f"{told['seconds']:.1f} s, {options.rows / told['seconds']:,.0f} rows/s\n"
            f"memory of its own: {told['before']:.2f} GB before, at most {most:.2f} GB",
            flush=True,
        )
        beside = killed.with_name(f"{killed.name}.unfinished")
        regions = [0]
        for world in range(1, options.kills + 1):
            processes = writers(path, killed, world, *asked)
            while listed(beside) == regions[-1] and any(p.poll() is None for p in processes):
                time.sleep(0.01)
            time.sleep(draw.uniform(0, told["seconds"] / (10 * options.kills)))
            for process in processes:
                if process.poll() is None:
                    os.kill(process.pid, signal.SIGKILL)
                process.communicate()
            regions.append(listed(beside))
            print(f"{world} killed, {regions[-1]} regions are there", flush=True)
        for process in writers(path, killed, 2, *asked):
            process.communicate()
        one, other = files(whole), files(killed)
    same = one == other
    print(f"the store of those killed is {'' if same else 'NOT '}the same, {len(one)} files")
    if options.json:
        found = {
            **{name: getattr(options, name) for name in ("rows", "entries", "what", "draws")},
            "seconds": told["seconds"],
            "gb_before": told["before"],
            "gb_most": most,
            "regions_at_kills": regions[1:],
            "same": same,
        }
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    if not same:
        sys.exit(1)


if __name__ == "__main__":
    main()
