"""What each part is worth on MNIST in the same time, and how many rows can be believed with it.

All have the network that `ppl-vae fit mnist --binarize dynamic` chooses, 784-500-500-50, and fit
for the same minutes: how many epochs that is each finds out by its own steps, and its learning
rate falls to zero by the last. log p(x) is of all test rows, drawn as bits once, by 500 draws each;
gains over the plain VAE are paired by row. Draws understate log p(x) where an encoder is poor. The
first ``--judged`` of the rows are judged by 2000 draws: as they are, reweighted, or neither.

    python benchmarks/mnist_parts.py --root DIR --minutes 4 --json mnist_parts.json
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from ppl_vae import VAE, VAEConfig, binarize, fit, judge_rows, load_data, log_evidence

_FLOW_PRIOR = {"prior": "flow:transforms=8,hidden=(128,128)"}
_FLOW_ENCODER = {"guide": "flow:transforms=2,hidden=(128,)"}
_DREG = "dreg:num_particles=8"
WAYS: dict[str, tuple[dict[str, Any], str]] = {
    "plain": ({}, "elbo"),
    "VampPrior": ({"prior": "vamp:components=500"}, "elbo"),
    "flow prior": (_FLOW_PRIOR, "elbo"),
    "flow encoder": (_FLOW_ENCODER, "elbo"),
    "IWAE, 8 draws": ({}, "iwae:num_particles=8"),
    "DReG, 8 draws": ({}, _DREG),
    "flow prior and encoder": ({**_FLOW_PRIOR, **_FLOW_ENCODER}, "elbo"),
    "flow prior, DReG": (_FLOW_PRIOR, _DREG),
    "flow prior and encoder, DReG": ({**_FLOW_PRIOR, **_FLOW_ENCODER}, _DREG),
}
_HEADS = (
    *(("epochs", 7), ("min", 6), ("ELBO", 9), ("log p(x)", 10), ("gain", 7), ("+-", 6)),
    *(("as it is", 10), ("reweighted", 12)),
)


def made(bits: torch.Tensor, choices: dict[str, Any], seed: int) -> VAE:
    return VAE.from_config(VAEConfig.for_data(bits, **choices), seed=seed)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", help="folder of MNIST")
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--rows", type=int, default=10_000, help="test rows")
    parser.add_argument("--judged", type=int, default=500, help="rows that are judged")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    train = load_data("mnist", root=options.root).x
    test = binarize(load_data("mnist", "test", root=options.root).x, "static", seed=0)
    test = test[: options.rows]
    print(f"{torch.get_num_threads()} threads, {options.minutes} minutes each, {len(test)} rows")
    print(" " * 30 + "".join(f"{name:>{width}}" for name, width in _HEADS))
    bits = (train[:2000] > 127).float()
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
            made(bits, choices, options.seed),
            few,
            epochs=4,
            on_epoch=lambda _, marks=marks: marks.append(time.perf_counter()),
            **how,
        )
        epoch = (marks[-1] - marks[0]) / 3 * len(train) / len(few)
        epochs = max(1, round(60 * options.minutes / epoch))
        vae = made(bits, choices, options.seed)
        result = fit(vae, train, epochs=epochs, **how)
        found = log_evidence(vae, test, num_samples=options.draws, seed=1, progress=False)
        value = found.log_evidence.values
        base = value if base is None else base
        gain = value - base
        judged = judge_rows(vae, test[: options.judged], seed=2, progress=False).verdict.values
        row = {
            "epochs": epochs,
            "minutes": result.seconds / 60,
            "elbo": float(found.elbo.mean()),
            "log_evidence": float(value.mean()),
            "gain": float(gain.mean()),
            "gain_error": float(gain.std(ddof=1) / len(gain) ** 0.5),
            "as_it_is": float((judged == 2).mean()),
            "reweighted": float((judged == 1).mean()),
        }
        table[name] = row
        print(
            f"{name:30}{epochs:7}{row['minutes']:6.1f}{row['elbo']:9.2f}{row['log_evidence']:10.2f}"
            f"{row['gain']:7.2f}{row['gain_error']:6.2f}{row['as_it_is']:10.0%}"
            f"{row['reweighted']:12.0%}",
            flush=True,
        )
        if options.json:
            options.json.write_text(json.dumps(table, indent=2) + "\n")


if __name__ == "__main__":
    main()
