"""What each part is worth on MNIST in the same time: log p(x) beside that of the plain VAE.

All have the same network, 784-300-300-40, and fit for the same minutes: how many epochs that is
each finds out by its own steps, and its learning rate falls to zero by the last. log p(x) is of
all test rows, drawn as bits once, by 500 draws of each; gains are paired by row. Draws understate
it where an encoder is poor, the plain one's the most: the share of rows whose weights have a
k-hat above 0.7 is told.

    python benchmarks/mnist_parts.py --root DIR --minutes 4 --json mnist_parts.json
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from ppl_vae import VAE, VAEConfig, binarize, fit, load_data, log_evidence

WAYS: dict[str, tuple[dict[str, Any], str]] = {
    "plain": ({}, "elbo"),
    "VampPrior": ({"prior": "vamp:components=500"}, "elbo"),
    "flow prior": ({"prior": "flow:transforms=8,hidden=(128,128)"}, "elbo"),
    "flow encoder": ({"guide": "flow:transforms=2,hidden=(128,)"}, "elbo"),
    "IWAE, 10 draws": ({}, "iwae:num_particles=10"),
    "flow prior, flow encoder": (
        {
            "prior": "flow:transforms=8,hidden=(128,128)",
            "guide": "flow:transforms=2,hidden=(128,)",
        },
        "elbo",
    ),
}


def made(choices: dict[str, Any], seed: int) -> VAE:
    config = VAEConfig(event_shape=(28, 28), latent_dim=40, hidden=(300, 300), **choices)
    return VAE.from_config(config, seed=seed)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", help="folder of MNIST")
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--rows", type=int, default=10_000, help="test rows")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    train = load_data("mnist", root=options.root).x
    test = binarize(load_data("mnist", "test", root=options.root).x, "static", seed=0)
    test = test[: options.rows]
    print(f"{torch.get_num_threads()} threads, {options.minutes} minutes each, {len(test)} rows")
    print(
        f"{'':28}{'epochs':>7}{'min':>6}{'ELBO':>9}{'log p(x)':>10}{'gain':>7}{'+-':>6}{'k>0.7':>7}"
    )
    table: dict[str, dict[str, Any]] = {}
    base = None
    for name in options.only:
        choices, objective = WAYS[name]
        how: dict[str, Any] = {
            "batch_size": 128,
            "learning_rate": 1e-3,
            "binarize": "dynamic",
            "objective": objective,
            "engine": "graph",
            "progress": False,
            "seed": options.seed,
        }
        marks: list[float] = []
        few = train[: 128 * 60]
        fit(
            made(choices, options.seed),
            few,
            epochs=4,
            on_epoch=lambda _, marks=marks: marks.append(time.perf_counter()),
            **how,
        )
        epoch = (marks[-1] - marks[0]) / 3 * len(train) / len(few)
        epochs = max(1, round(60 * options.minutes / epoch))
        vae = made(choices, options.seed)
        result = fit(vae, train, epochs=epochs, **how)
        found = log_evidence(vae, test, num_samples=options.draws, seed=1, progress=False)
        value = found.log_evidence.values
        base = value if base is None else base
        gain = value - base
        row = {
            "epochs": epochs,
            "minutes": result.seconds / 60,
            "elbo": float(found.elbo.mean()),
            "log_evidence": float(value.mean()),
            "standard_error": float(value.std(ddof=1) / len(value) ** 0.5),
            "gain": float(gain.mean()),
            "gain_error": float(gain.std(ddof=1) / len(gain) ** 0.5),
            "k_above": float((found.pareto_k > 0.7).mean()),
        }
        table[name] = row
        print(
            f"{name:28}{epochs:7}{row['minutes']:6.1f}{row['elbo']:9.2f}{row['log_evidence']:10.2f}"
            f"{row['gain']:7.2f}{row['gain_error']:6.2f}{row['k_above']:7.0%}",
            flush=True,
        )
        if options.json:
            options.json.write_text(json.dumps(table, indent=2) + "\n")


if __name__ == "__main__":
    main()
