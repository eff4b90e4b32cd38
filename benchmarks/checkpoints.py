"""What checkpoints cost a fit: a large VAE fitted with and without them, in turn.

Both ways take the same steps. The time of the state that is kept at the very end, for which the fit
waits, is told apart: it comes once, however long the fit.

    python benchmarks/checkpoints.py --epochs 60 --json checkpoints.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch

import ppl_vae.inference.checkpoint as checkpoint
from ppl_vae import VAE, VAEConfig, fit


def fitted(x: torch.Tensor, width: int, epochs: int, folder: str | None, every: float | None):
    """Seconds of a fit, those of its last checkpoint, and how many there were."""
    vae = VAE.from_config(VAEConfig.for_data(x, latent_dim=32, hidden=(width, width)))
    ends, writes = [], []
    save = checkpoint.save_checkpoint

    def counted(*args, **options):
        started = time.perf_counter()
        save(*args, **options)
        writes.append(time.perf_counter() - started)

    checkpoint.save_checkpoint = counted
    try:
        fit(
            vae,
            x,
            epochs=epochs,
            batch_size=128,
            engine="graph",
            checkpoint_dir=folder,
            checkpoint_every=every,
            on_epoch=lambda _: ends.append(time.perf_counter()),
            progress=False,
        )
    finally:
        checkpoint.save_checkpoint = save
    finished = time.perf_counter()
    parameters = sum(p.numel() for p in vae.parameters())
    return ends[-1] - ends[1], finished - ends[-1], len(writes), parameters


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--width", type=int, default=4000, help="of the two hidden layers")
    parser.add_argument("--rows", type=int, default=1280)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--every", type=float, help="seconds; chosen by their cost if not given")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    x = (torch.rand(options.rows, 784, generator=torch.Generator().manual_seed(0)) < 0.3).float()
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(options.rounds):
        for kept in (False, True):
            with tempfile.TemporaryDirectory() as folder:
                spent, last, number, size = fitted(
                    x, options.width, options.epochs, folder if kept else None, options.every
                )
                if kept:
                    held = Path(folder, "fit.safetensors").stat().st_size / 1e6
            seconds[kept].append(spent)
            print(
                f"{'with' if kept else 'without':>8}: {spent:.1f} s"
                + (f", {number} checkpoints, the last in {last:.2f} s" if kept else ""),
                flush=True,
            )
    without, with_ = (statistics.median(seconds[kept]) for kept in (False, True))
    cost = with_ / without - 1
    print(
        f"{size / 1e6:.1f} million parameters, {held:.0f} MB a checkpoint: {cost:+.1%} of the time"
    )
    if options.json:
        found = {"parameters": size, "megabytes": held, "seconds": seconds, "cost": cost}
        options.json.write_text(json.dumps({**found, "checkpoints": number}, indent=2) + "\n")


if __name__ == "__main__":
    main()
