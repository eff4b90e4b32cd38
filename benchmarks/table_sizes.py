"""Do the sizes that VAEConfig.for_data chooses for tables serve rows that it has not seen?

Each table is split, fitted to and judged as `ppl-vae fit` does it, but for the numbers of latents
and the hidden layers: as chosen now, and as until 0.1, an eighth of the columns and two layers of
256. Printed are log p(x) of test rows, nats per row, by 500 importance draws, the share of rows
whose weights are usable, and the difference, paired by row, with its standard error.

    python benchmarks/table_sizes.py --seeds 3 --json sizes.json
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
import pandas as pd
from held_out_cells import TABLES
from sklearn import datasets

from ppl_vae import VAE, fit, log_evidence
from ppl_vae.data import load_splits
from ppl_vae.run import Recipe
from ppl_vae.run.prepared import chosen

BUNDLED = {
    "breast": datasets.load_breast_cancer,
    "wine": datasets.load_wine,
    "diabetes": datasets.load_diabetes,
    "digits": datasets.load_digits,  # 64 columns, as a table and not as images
}


def source(name: str, folder: Path) -> dict:
    """Arguments of load_splits."""
    if name in BUNDLED:
        return {"name_or_path": pd.DataFrame(BUNDLED[name]().data)}
    if name == "white":
        return {"name_or_path": folder / "winequality-white.csv", "header": False}
    file, options = TABLES[name]
    return {"name_or_path": folder / file, **options}


def before(columns: int) -> dict:
    return {"latent_dim": min(50, max(2, columns // 8)), "hidden": (256, 256)}


def judged(data: dict, choices: dict, seed: int) -> dict:
    train, test = load_splits(**data, seed=seed)
    recipe = Recipe(choices=choices, seed=seed)
    found = chosen(recipe, train, test)
    recipe = recipe.sized(len(train.x))
    vae = VAE.from_config(found.config, seed=seed)
    started = time.perf_counter()
    fit(
        vae,
        train.x,
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        validation=recipe.validation,
        seed=seed,
        progress=False,
    )
    seconds = time.perf_counter() - started
    evidence = log_evidence(vae, found.x_test, num_samples=500, seed=seed, progress=False)
    return {
        "latents": found.config.latent_dim,
        "hidden": found.config.hidden,
        "log_evidence": evidence.log_evidence.values,
        "usable": float((evidence.pareto_k < 0.7).mean()),
        "seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    names = ["white", *BUNDLED, *TABLES]
    parser.add_argument("--data", nargs="+", default=names, choices=names)
    parser.add_argument("--data-root", default=os.environ.get("PPL_VAE_DATA", "../shared/data"))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    results = []
    print("| table | latents, hidden | log p(x) | usable | seconds | before | gain |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for name in args.data:
        data = source(name, Path(args.data_root) / "tabular")
        now, then = [], []
        for seed in range(args.seeds):
            now.append(judged(data, {}, seed))
            columns = load_splits(**data)[0].x.shape[1]
            then.append(judged(data, before(columns), seed))
        rows = [np.concatenate([run["log_evidence"] for run in runs]) for runs in (now, then)]
        gain = rows[0] - rows[1]
        error = gain.std() / len(gain) ** 0.5
        usable, old = (100 * np.mean([run["usable"] for run in runs]) for runs in (now, then))
        seconds, slower = (np.mean([run["seconds"] for run in runs]) for runs in (now, then))
        print(
            f"| {name} | {now[0]['latents']}, {now[0]['hidden']} | {rows[0].mean():.2f} "
            f"| {usable:.0f}% | {seconds:.0f} | {rows[1].mean():.2f}, {old:.0f}%, {slower:.0f} s "
            f"| {gain.mean():.2f} +- {error:.2f} |",
            flush=True,
        )
        for runs in (now, then):
            for run in runs:
                run["log_evidence"] = float(run["log_evidence"].mean())
        results.append({"table": name, "now": now, "before": then, "gain": float(gain.mean())})
    if args.json:
        args.json.write_text(json.dumps({"seeds": args.seeds, "results": results}, indent=2))


if __name__ == "__main__":
    main()
