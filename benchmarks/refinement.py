"""How many rows a second are refined, and what each wins: natural gradients beside local SVI.

    python benchmarks/refinement.py [--root FOLDER] [--epochs 5] [--rows 128] [--json FILE]

Fits the default VAE to MNIST's bits, then gives each method the same test rows. The ELBO of each
row before and after is by 1000 draws of the same noise. The peer is importance-weighted moment
matching without gradients: tempered weights that keep a fixed number of effective draws move mean
and standard deviation, or the mean alone.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ppl_vae import VAE, VAEConfig, fit, load_data
from ppl_vae.processor import reuse_freed_memory
from ppl_vae.workflow.draws.gaussian import Gaussian
from ppl_vae.workflow.draws.posterior import evaluating
from ppl_vae.workflow.refinement.local_normal import (
    LocalPosterior,
    encoded,
    local_posterior,
    log_weight,
)
from ppl_vae.workflow.refinement.natural_gradient import natural_gradient
from ppl_vae.workflow.weights.khat import smoothed_tail_index

_CHUNK = 64
# k-hat above which a row's draws are no use.
_THRESHOLD = 0.7


def moment_matching(
    vae: VAE, x: Tensor, *, steps: int, draws: int, effective: int, scales: bool
) -> tuple[LocalPosterior, LocalPosterior]:
    """Adaptive importance sampling: the moments of weights, tempered to so many effective draws."""
    encoder = encoded(vae, x, None)
    normal = encoder.normal
    for _ in range(steps):
        u = normal.at(normal.noise(draws))  # (draw, row, latent)
        z, log_det = encoder.coordinates.map(u)
        log_q = normal.distribution.log_prob(u)
        log_weights = (vae.log_joint(z, x) + log_det - log_q).double()
        low, high = torch.zeros(len(x)).double(), torch.ones(len(x)).double()
        for _ in range(20):  # the largest temperature that leaves enough effective draws
            middle = (low + high) / 2
            weights = (middle * log_weights).softmax(0)
            enough = 1 / weights.square().sum(0) >= effective
            low, high = torch.where(enough, middle, low), torch.where(enough, high, middle)
        weights = (low * log_weights).softmax(0).to(u)
        mean = torch.einsum("sr,srd->rd", weights, u)
        variance = torch.einsum("sr,srd->rd", weights, (u - mean).square())
        normal = Gaussian(mean, variance.sqrt() if scales else normal.scale)
    return encoder, replace(encoder, normal=normal, keeps=torch.zeros_like(encoder.keeps))


Method = Callable[[VAE, Tensor], tuple[LocalPosterior, LocalPosterior]]
METHODS: dict[str, Method] = {
    "local SVI": local_posterior,
    "natural gradient, 8 steps": lambda vae, x: natural_gradient(vae, x, steps=8),
    "natural gradient, 12 steps": natural_gradient,
    "natural gradient, 16 steps": lambda vae, x: natural_gradient(vae, x, steps=16),
    "natural gradient, 32 steps": lambda vae, x: natural_gradient(vae, x, steps=32),
    "moments of weights, 10 x 100 draws": lambda vae, x: moment_matching(
        vae, x, steps=10, draws=100, effective=20, scales=True
    ),
    "means of weights, 10 x 200 draws": lambda vae, x: moment_matching(
        vae, x, steps=10, draws=200, effective=30, scales=False
    ),
    "means of weights, 5 x 400 draws": lambda vae, x: moment_matching(
        vae, x, steps=5, draws=400, effective=50, scales=False
    ),
}


def measure(vae: VAE, x: Tensor, method: Method) -> dict[str, list[float]]:
    """Seconds, and ELBO and k-hat of each row before and after."""
    found: dict[str, list[float]] = {"seconds": [], "gain": [], "k_before": [], "k_after": []}
    with evaluating(vae, seed=0):
        for some in x.split(_CHUNK):
            start = time.perf_counter()
            encoder, best = method(vae, some)
            found["seconds"].append(time.perf_counter() - start)
            noise = encoder.noise(1000)
            before, after = (
                log_weight(vae, some, None, q, noise).double() for q in (encoder, best)
            )
            found["gain"] += (after - before).mean(0).tolist()
            found["k_before"] += smoothed_tail_index(before.T.numpy()).tolist()
            found["k_after"] += smoothed_tail_index(after.T.numpy()).tolist()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", help="folder of MNIST")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    reuse_freed_memory()
    train, test = (load_data("mnist", split, root=options.root).x for split in ("train", "test"))
    vae = VAE.from_config(VAEConfig.for_data((train[:2000] > 127).float()))
    fit(vae, train, epochs=options.epochs, binarize="dynamic", engine="graph")
    x = (test[: options.rows] > 127).float()
    results = {name: measure(vae, x, method) for name, method in METHODS.items()}
    base = results["local SVI"]
    bad = torch.tensor(base["k_before"]) > _THRESHOLD
    print(
        f"\n{len(x)} rows of MNIST, {int(bad.sum())} with k-hat above {_THRESHOLD}; one thread of"
    )
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}\n")
    print(f"{'method':36}{'rows/s':>8}{'x SVI':>7}{'gain':>7}{'share':>7}{'of bad':>8}{'k>0.7':>7}")
    table = {}
    for name, found in results.items():
        gain, reference = torch.tensor(found["gain"]), torch.tensor(base["gain"])
        row = {
            "rows_per_second": len(x) / sum(found["seconds"]),
            "times_svi": sum(base["seconds"]) / sum(found["seconds"]),
            "gain": gain.mean().item(),
            "share_of_svi": (gain.mean() / reference.mean()).item(),
            "share_of_svi_in_bad_rows": (gain[bad].mean() / reference[bad].mean()).item(),
            "above": (torch.tensor(found["k_after"]) > _THRESHOLD).double().mean().item(),
        }
        table[name] = row
        print(
            f"{name:36}{row['rows_per_second']:8.1f}{row['times_svi']:7.1f}{row['gain']:7.2f}"
            f"{row['share_of_svi']:7.0%}{row['share_of_svi_in_bad_rows']:8.0%}{row['above']:7.0%}"
        )
    if options.json:
        options.json.write_text(json.dumps(table, indent=2) + "\n")


if __name__ == "__main__":
    main()
