"""Draws of z with log-weights for MNIST test rows: ppl_vae beside the obvious ways with Pyro.

The VAE is 784-500-500-50 with fresh weights; all ways do the same arithmetic, in single precision.

- ppl_vae: ``sample_posterior``.
- Pyro: ``Predictive(guide)`` as it comes, then traces of model and guide at its draws, under an
  outer plate, for the log-probabilities; ``--pyro-rows`` rows at a time, so that it fits memory.
- Pyro, parallel: the same with ``Predictive(parallel=True)``; ``--parallel-rows`` rows at a time.
- Matrix products: those of the decoder and nothing else. No way in this precision beats it.

The defaults of the two chunk sizes were each Pyro way's fastest of 5, 20, 50 and 100 rows, or not
distinguishable from it. Every way takes its rows in chunks, so that rows per second do not depend
on their number: the others are given ``--peer-rows`` of them, ppl_vae all. Rounds are interleaved
and medians reported; memory is the peak of a fresh process that does one way once, its result
included (z alone is 2 GB for 10,000 rows x 1000 draws).

    python benchmarks/posterior_draws.py --rows 10000 --peer-rows 200 --json draws.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyro
import torch
from pyro import poutine
from pyro.infer import Predictive
from torch import Tensor, nn
from torchvision.datasets import MNIST

from ppl_vae import VAE, VAEConfig, binarize, sample_posterior


def ppl_vae_draws(vae: VAE, x: Tensor, options: argparse.Namespace) -> None:
    sample_posterior(vae, x, num_samples=options.draws)


def pyro_draws(vae: VAE, x: Tensor, options: argparse.Namespace, parallel: bool = False) -> None:
    z, log_weight = [], []
    for rows in x.split(options.parallel_rows if parallel else options.pyro_rows):
        predictive = Predictive(vae.guide, num_samples=options.draws, parallel=parallel)
        z.append(predictive(rows)["z"])
        log_weight.append(pyro_log_weight(vae, rows, z[-1]))
    torch.cat(z, 1), torch.cat(log_weight, 1)


def pyro_log_weight(vae: VAE, x: Tensor, z: Tensor) -> Tensor:
    """log p(x, z) - log q(z|x), shape (draw, row), as Pyro's traces say."""
    with torch.no_grad(), pyro.plate("draw", len(z), dim=-2):
        p = poutine.trace(poutine.condition(vae.model, {"z": z})).get_trace(x)
        q = poutine.trace(poutine.condition(vae.guide, {"z": z})).get_trace(x)
        p.compute_log_prob()
        q.compute_log_prob()
    log_p = p.nodes["x"]["log_prob"] + p.nodes["z"]["log_prob"]
    return log_p - q.nodes["z"]["log_prob"]


def matrix_products(vae: VAE, x: Tensor, options: argparse.Namespace) -> None:
    weights = [m.weight.T for m in vae.decoder.modules() if isinstance(m, nn.Linear)]
    with torch.inference_mode():
        for block in torch.randn(len(x) * options.draws, vae.latent_dim).split(512):
            hidden = block
            for weight in weights:
                hidden = hidden @ weight


WAYS: dict[str, Callable[[VAE, Tensor, argparse.Namespace], None]] = {
    "ppl_vae": ppl_vae_draws,
    "Pyro": pyro_draws,
    "Pyro, parallel": lambda vae, x, options: pyro_draws(vae, x, options, parallel=True),
    "matrix products": matrix_products,
}


def setting(options: argparse.Namespace) -> tuple[VAE, Tensor]:
    images = MNIST(options.data_root, train=False, download=False).data[: options.rows]
    config = VAEConfig(event_shape=(28, 28), latent_dim=50, hidden=(500, 500))
    return VAE.from_config(config), binarize(images, "static")


def disagreement(vae: VAE, x: Tensor) -> float:
    """The largest difference between the two log-weights of the same draws, in nats."""
    ours = sample_posterior(vae, x[:2], num_samples=500)
    theirs = pyro_log_weight(vae, x[:2], torch.tensor(ours.z.values))
    return (torch.tensor(ours.log_weight.values) - theirs).abs().max().item()


def peak_memory(way: str, argv: list[str]) -> float:
    """GB of a fresh process that does one way."""
    command = [sys.executable, __file__, *argv, "--peak-memory-of", way]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=200, help="10000 for the whole test set")
    parser.add_argument("--peer-rows", type=int, default=100, help="of them, for the other ways")
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pyro-rows", type=int, default=50)
    parser.add_argument("--parallel-rows", type=int, default=5)
    parser.add_argument("--data-root", default=os.environ.get("PPL_VAE_DATA", "../shared/data"))
    parser.add_argument("--json", help="write the numbers to this file")
    parser.add_argument("--peak-memory-of", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    vae, x = setting(options)

    def rows_of(way: str) -> Tensor:
        return x if way == "ppl_vae" else x[: options.peer_rows]

    if options.peak_memory_of:
        WAYS[options.peak_memory_of](vae, rows_of(options.peak_memory_of), options)
        # Not getrusage, whose peak a process takes over from the one that started it.
        status = Path("/proc/self/status")
        peak = re.search(r"VmHWM:\s+(\d+)", status.read_text()) if status.exists() else None
        print(int(peak[1]) / 2**20 if peak else float("nan"))
        return

    difference = disagreement(vae, x)
    assert difference < 0.01, f"log-weights of the same draws differ by {difference} nats"
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(options.rounds):
        for way, run in WAYS.items():
            start = time.perf_counter()
            run(vae, rows_of(way), options)
            seconds[way].append(time.perf_counter() - start)

    size = {way: len(rows_of(way)) for way in WAYS}
    speed = {way: size[way] / statistics.median(times) for way, times in seconds.items()}
    memory = {way: peak_memory(way, argv) for way in WAYS}
    print(f"{len(x)} rows x {options.draws} draws, {torch.get_num_threads()} threads, ", end="")
    print(f"torch {torch.__version__}; log-weights agree within {difference:.1g} nats")
    print(f"{'':16}{'rows':>6}{'rows/s':>9}{'against Pyro':>14}{'peak GB':>9}   rows/s by round")
    for way, times in seconds.items():
        each = "  ".join(f"{size[way] / t:.1f}" for t in times)
        ratio = speed[way] / speed["Pyro"]
        print(f"{way:16}{size[way]:6}{speed[way]:9.1f}{ratio:13.2f}x{memory[way]:9.2f}   {each}")
    if options.json:
        result = {
            "rows": size,
            "draws": options.draws,
            "threads": torch.get_num_threads(),
            "machine": platform.processor() or platform.machine(),
            "versions": {"torch": torch.__version__, "pyro": pyro.__version__},
            "disagreement_nats": difference,
            "seconds": seconds,
            "rows_per_second": speed,
            "peak_gigabytes": memory,
        }
        Path(options.json).write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main(sys.argv[1:])
