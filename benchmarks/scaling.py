"""What ppl_vae costs against rows, latents and draws, and how much memory it takes.

- rows: an epoch of ``fit`` on synthetic uint8 images from a memory-mapped file, 784-200-10,
  batches of 500; time, and the largest anonymous memory, which leaves out the pages of the file.
- latents: a step of ``fit``, 784-200-200, batches of 128.
- draws: ``log_evidence`` of 200 rows.
- ranks: steps of ``fit`` in two processes of one thread each, against one, batches of 128 each;
  what summing the gradients takes by itself; and, to tell what it costs from what two busy cores
  cost, one such fit beside another that it does not talk to.

    python benchmarks/scaling.py --json scaling.json
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ppl_vae import VAE, VAEConfig, fit, log_evidence
from ppl_vae.inference.ranks import Ranks, launched, suitable


def measured(function: Callable[[], Any]) -> tuple[float, float]:
    """Seconds, and the largest anonymous memory meanwhile in MB (Linux; elsewhere NaN)."""
    peak, done = [0.0], threading.Event()
    status = Path("/proc/self/status")

    def watch() -> None:
        while not done.wait(0.01):
            found = re.search(r"RssAnon:\s+(\d+)", status.read_text()) if status.exists() else None
            peak[0] = max(peak[0], int(found[1]) / 1024 if found else float("nan"))

    thread = threading.Thread(target=watch)
    thread.start()
    start = time.perf_counter()
    function()
    seconds = time.perf_counter() - start
    done.set()
    thread.join()
    return seconds, peak[0]


def small(latents: int = 10) -> VAE:
    config = VAEConfig(event_shape=(28, 28), latent_dim=latents, hidden=(200,))
    return VAE.from_config(config)


def by_rows(sizes: list[int], folder: Path) -> list[dict[str, float]]:
    made = []
    options: dict[str, Any] = {"binarize": "dynamic", "engine": "graph", "progress": False}
    for size in [1000, *sizes]:  # the first, which loads what is loaded once, is not reported
        path = folder / f"{size}.npy"
        images = np.lib.format.open_memmap(path, "w+", np.uint8, (size, 28, 28))
        generator = np.random.default_rng(0)
        for start in range(0, size, 10_000):
            part = images[start : start + 10_000]
            part[:] = generator.integers(0, 255, part.shape, dtype=np.uint8)
        images.flush()
        x = torch.from_numpy(np.load(path, mmap_mode="c"))
        vae = small()
        seconds, memory = measured(lambda: fit(vae, x, epochs=1, batch_size=500, **options))  # noqa: B023
        made.append(
            {
                "rows": size,
                "seconds": seconds,
                "microseconds_a_row": seconds / size * 1e6,
                "anonymous_mb": memory,
                "data_mb": size * 784 / 2**20,
            }
        )
        path.unlink()
    return made[1:]


def by_latents(sizes: list[int]) -> list[dict[str, float]]:
    x = (torch.rand(12_800, 28, 28, generator=torch.Generator().manual_seed(0)) < 0.2).float()
    made = []
    for latents in sizes:
        marks: list[float] = []
        fit(
            small(latents),
            x,
            epochs=4,
            batch_size=128,
            engine="graph",
            progress=False,
            on_epoch=lambda _: marks.append(time.perf_counter()),  # noqa: B023
        )
        seconds = float(np.median(np.diff(marks)[1:]))
        made.append({"latents": latents, "ms_a_step": seconds * 10})
    return made


def by_draws(sizes: list[int]) -> list[dict[str, float]]:
    x, vae = torch.zeros(200, 28, 28), small()
    log_evidence(vae, x[:10], num_samples=30, progress=False)
    made = []
    for draws in sizes:
        seconds, memory = measured(
            lambda: log_evidence(vae, x, num_samples=draws, progress=False)  # noqa: B023
        )
        made.append(
            {
                "draws": draws,
                "seconds": seconds,
                "anonymous_mb": memory,
                "microseconds_a_draw": seconds / draws / len(x) * 1e6,
            }
        )
    return made


# What is fitted by one and by two processes: latents, hidden widths, steps an epoch.
SHARED = ((10, (200,), 100), (50, (400,), 60), (50, (1000, 1000), 20))


def as_rank(out: str) -> None:
    """What one of some processes measures; the first writes it."""
    torch.set_num_threads(1)
    fabric = launched(suitable(accelerator="cpu"))
    ranks = Ranks(fabric)
    made = []
    for latents, hidden, steps in SHARED:
        config = VAEConfig(event_shape=(784,), latent_dim=latents, hidden=hidden)
        generator = torch.Generator().manual_seed(0)
        x = (torch.rand(128 * steps * ranks.world, 784, generator=generator) < 0.2).float()
        marks: list[float] = []
        vae = VAE.from_config(config)
        fit(
            vae,
            x,
            epochs=8,
            batch_size=128,
            engine="graph",
            fabric=fabric,
            progress=False,
            on_epoch=lambda _: marks.append(time.perf_counter()),  # noqa: B023
        )
        gradients = torch.ones(sum(p.numel() for p in vae.parameters()) + 1)
        sums = []
        for _ in range(50):
            start = time.perf_counter()
            ranks.sum(gradients)
            sums.append(time.perf_counter() - start)
        made.append(
            {
                "parameters": len(gradients) - 1,
                "ms_a_step": float(np.median(np.diff(marks)[1:])) / steps * 1e3,
                "ms_to_sum": float(np.median(sums)) * 1e3,
            }
        )
    if ranks.first:
        Path(out).write_text(json.dumps(made))


def by_ranks(folder: Path) -> list[dict[str, float]]:
    def started(number: int, name: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc-per-node", str(number), __file__, "--as-rank", str(folder / name)]
        return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})

    for group in ([(1, "one")], [(2, "two")], [(1, "beside"), (1, "other")]):
        for process in [started(*each) for each in group]:
            if process.wait():
                raise RuntimeError(f"the processes of {group} ended with {process.returncode}")
    one, two, beside = (
        json.loads((folder / name).read_text()) for name in ("one", "two", "beside")
    )
    return [
        {
            "parameters": a["parameters"],
            "ms_one": a["ms_a_step"],
            "ms_two": b["ms_a_step"],
            "ms_to_sum": b["ms_to_sum"],
            "ms_beside": c["ms_a_step"],
            "steps_ratio": a["ms_a_step"] / b["ms_a_step"],
            "rows_ratio": 2 * a["ms_a_step"] / b["ms_a_step"],
        }
        for a, b, c in zip(one, two, beside, strict=True)
    ]


def show(rows: list[dict[str, float]]) -> None:
    print("".join(f"{name:>20}" for name in rows[0]))
    for row in rows:
        print("".join(f"{value:20,.2f}" for value in row.values()))
    print(flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--latents", type=int, nargs="+", default=[2, 8, 32, 128])
    parser.add_argument("--draws", type=int, nargs="+", default=[100, 1_000, 10_000])
    parser.add_argument("--ranks", action="store_true", help="measure nothing but processes")
    parser.add_argument("--as-rank", metavar="FILE", help=argparse.SUPPRESS)
    parser.add_argument("--json", help="write the numbers to this file")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.as_rank:
        as_rank(options.as_rank)
        return
    result = {}
    with tempfile.TemporaryDirectory() as folder:
        if not options.ranks:
            result["rows"] = by_rows(options.rows, Path(folder))
            show(result["rows"])
            result["latents"] = by_latents(options.latents)
            show(result["latents"])
            result["draws"] = by_draws(options.draws)
            show(result["draws"])
        result["ranks"] = by_ranks(Path(folder))
        show(result["ranks"])
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
