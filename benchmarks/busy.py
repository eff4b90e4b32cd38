"""What another program costs a fit: the same jobs on a quiet machine, and beside one that spins.

`ppl-vae fit digits` and two epochs of MNIST by each engine, as whole commands, in turn quiet and
beside a competitor that keeps one core busy, by several ways to choose and to wait for threads:

- default: as the command is.
- before: OpenMP's own way to wait, on as many threads as there are cores.
- passive: threads that wait sleep soon, on as many as there are cores.
- chosen: OpenMP's own way to wait, on as many threads as pay.
- one: one thread.

Medians of rounds, and the ratio of the busy median to the quiet one, of the command and of the fit
in it. The machine has to be quiet but for that: its load is printed first.

    python benchmarks/busy.py --data-root ../shared/data --json busy.json
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# OpenMP's own number of looks before a thread that waits sleeps.
_OWN = "300000"
_CORES = str(len(os.sched_getaffinity(0)))
WAYS: dict[str, tuple[dict[str, str], list[str]]] = {
    "default": ({}, []),
    "before": ({"GOMP_SPINCOUNT": _OWN}, ["--threads", _CORES]),
    "passive": ({}, ["--threads", _CORES]),
    "chosen": ({"GOMP_SPINCOUNT": _OWN}, ["--threads", "auto"]),
    "one": ({}, ["--threads", "1"]),
}
# Few draws: what comes after the fit is not what this is about.
_MNIST = ["mnist", "--epochs", "2", "--hidden", "400", "--latent-dim", "20", "--draws", "30"]
JOBS = {
    "digits": ["digits"],
    **{f"mnist, {name}": [*_MNIST, "--engine", name] for name in ("eager", "graph", "compiled")},
}


@contextmanager
def competitors(number: int) -> Iterator[None]:
    """Keep so many cores busy."""
    spinning = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        yield
    finally:
        for process in spinning:
            process.kill()
            process.wait()


def timed(job: str, way: str, data_root: str | None) -> dict[str, Any]:
    """Seconds of a command, and of the fit in it."""
    environment, more = WAYS[way]
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_", "MKL_"))}
    if data_root and "mnist" in job:
        more = [*more, "--data-root", data_root]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "run")
        command = [sys.executable, "-m", "ppl_vae.cli", "fit", *JOBS[job], *more]
        started = time.perf_counter()
        subprocess.run(
            [*command, "--out", str(out), "--quiet"],
            check=True,
            env={**kept, **environment},
            stderr=subprocess.DEVNULL,
        )
        whole = time.perf_counter() - started
        fitted = json.loads((out / "metrics.json").read_text())["fit"]
    threads = {int(n): steps for n, steps in fitted["steps_by_threads"].items()}
    return {"whole": whole, "fit": fitted["seconds"], "threads": threads}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", nargs="+", choices=list(JOBS), default=list(JOBS))
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=["before", "default"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--competitors", type=int, default=1)
    parser.add_argument("--data-root", help="the folder that holds MNIST")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(f"{_CORES} cores, load {os.getloadavg()[0]:.1f}; {options.competitors} competitors")
    found: dict[str, dict[str, dict[str, list[dict[str, Any]]]]] = {}
    for job in options.jobs:
        found[job] = {way: {"quiet": [], "busy": []} for way in options.ways}
        for _ in range(options.rounds):
            for way in options.ways:
                found[job][way]["quiet"].append(timed(job, way, options.data_root))
                with competitors(options.competitors):
                    found[job][way]["busy"].append(timed(job, way, options.data_root))
        print(f"\n{job:16}{'quiet':>8}{'busy':>8}{'ratio':>7}   of these the fit")
        for way, times in found[job].items():
            quiet, busy = (
                {part: statistics.median(t[part] for t in each) for part in ("whole", "fit")}
                for each in times.values()
            )
            used = times["busy"][-1]["threads"]
            ratio = busy["whole"] / quiet["whole"]
            print(
                f"{way:16}{quiet['whole']:8.1f}{busy['whole']:8.1f}{ratio:7.2f}   "
                f"{quiet['fit']:.1f} and {busy['fit']:.1f} s ({busy['fit'] / quiet['fit']:.2f}), "
                f"steps by threads {used}",
                flush=True,
            )
        if options.json:
            options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
