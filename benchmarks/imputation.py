r"""How far imputed cells are off, beside scikit-learn's imputers, in tables whose cells we know.

Columns are standardized, and cells removed. "high": in the first half of the columns every cell
above its mean, as not-MIWAE does (Ipsen et al. 2021, section 4.1). "random": half of all cells.
Root mean squared errors are of the removed cells, in standard deviations of the column. Every
method is fitted to the table with holes and fills these. A VAE is what VAEConfig.for_data chooses,
fitted by the MIWAE bound. Of cells removed at random its 90 % intervals should cover nine in ten;
of those removed because they are high, only as many as the model of why they are missing is right.

    python benchmarks/imputation.py --seeds 3 --json imputation.json
    python benchmarks/imputation.py --removed random --likelihoods normal --data white breast wine \
        diabetes --seeds 3 --forest
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
from sklearn.ensemble import RandomForestRegressor
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer

from ppl_vae import VAE, VAEConfig, fit, impute

BUNDLED = {"breast": load_breast_cancer, "wine": load_wine, "diabetes": load_diabetes}


def table(name: str, folder: Path) -> np.ndarray:
    """A table without holes, standardized: (row, column)."""
    if name in BUNDLED:
        values = BUNDLED[name]().data
    else:
        path = folder / "tabular" / "winequality-white.csv"
        values = pd.read_csv(path, header=None).to_numpy()[:, :-1]  # the last is a grade
    return (values - values.mean(0)) / values.std(0)


def removed(x: np.ndarray, how: str, seed: int) -> np.ndarray:
    """Which cells are removed: (row, column)."""
    if how == "random":
        return np.random.default_rng(seed).random(x.shape) < 0.5
    half = np.arange(x.shape[1]) < x.shape[1] // 2
    return (x > x.mean(0)) & half


def by_vae(x: np.ndarray, likelihood: str, seed: int, args: argparse.Namespace) -> dict:
    rows = torch.tensor(x, dtype=torch.float32)
    seen = rows[~rows.isnan().all(1)]
    choices = {
        name: getattr(args, name)
        for name in ("latent_dim", "network")
        if getattr(args, name) not in (0, "none")
    }
    vae = VAE.from_config(VAEConfig.for_data(seen, likelihood=likelihood, **choices), seed=seed)
    fit(
        vae,
        seen,
        epochs=max(20, args.steps * args.batch_size // len(seen)),
        batch_size=args.batch_size,
        learning_rate=args.learning_rate,
        objective=f"iwae:num_particles={args.particles}",
        seed=seed,
        progress=False,
    )
    found = impute(vae, rows, seed=seed, progress=False)
    return {
        "x": found.x.values,
        "low": found.low.values,
        "high": found.high.values,
        "weights_usable": float(found.weights_usable.mean()),
    }


def by_peer(x: np.ndarray, imputer: object) -> dict:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*Early stopping criterion")
        return {"x": imputer.fit_transform(x)}


def methods(args: argparse.Namespace) -> dict[str, Callable[[np.ndarray, int], dict]]:
    peers = {
        "mean": lambda _: SimpleImputer(),
        "IterativeImputer, BayesianRidge": lambda seed: IterativeImputer(random_state=seed),
        "KNNImputer, 10 neighbors": lambda _: KNNImputer(n_neighbors=10),
    }
    if args.forest:
        # Five rounds rather than ten, and 30 trees rather than 100, for time.
        peers["IterativeImputer, random forest"] = lambda seed: IterativeImputer(
            RandomForestRegressor(args.trees, random_state=seed), random_state=seed, max_iter=5
        )
    found = {name: lambda x, s, p=p: by_peer(x, p(s)) for name, p in peers.items()}
    for likelihood in args.likelihoods:
        found[f"ppl_vae, {likelihood}"] = lambda x, s, k=likelihood: by_vae(x, k, s, args)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--data", nargs="+", default=["white", "breast"], choices=["white", *BUNDLED]
    )
    parser.add_argument("--data-root", default=os.environ.get("PPL_VAE_DATA", "../shared/data"))
    parser.add_argument("--removed", choices=("high", "random"), default="high")
    parser.add_argument("--likelihoods", nargs="*", default=["normal", "self_masking:hides=high"])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--latent-dim", type=int, default=0, help="0 is the package's default")
    parser.add_argument("--network", default="none", help="none is that too")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--particles", type=int, default=10)
    parser.add_argument("--forest", action="store_true", help="random forests: minutes")
    parser.add_argument("--trees", type=int, default=30)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    results = []
    print("| data | method | RMSE | 90 % intervals cover | weights usable | seconds |")
    print("|---|---|---:|---:|---:|---:|")
    for name in args.data:
        whole = table(name, Path(args.data_root))
        for method, imputed in methods(args).items():
            runs = []
            for seed in range(args.seeds):
                gone = removed(whole, args.removed, seed)
                started = time.perf_counter()
                found = imputed(np.where(gone, np.nan, whole), seed)
                run = {"seconds": time.perf_counter() - started}
                run["rmse"] = float(np.sqrt(np.mean((found["x"] - whole)[gone] ** 2)))
                if "low" in found:
                    inside = (found["low"] <= whole) & (whole <= found["high"])
                    run["coverage"] = float(inside[gone].mean())
                    run["weights_usable"] = found["weights_usable"]
                runs.append(run)
            mean = {key: statistics.mean(run[key] for run in runs) for key in runs[0]}
            cover, usable = (
                f"{100 * mean[key]:.0f}%" if key in mean else "-"
                for key in ("coverage", "weights_usable")
            )
            spread = f" ({np.ptp([run['rmse'] for run in runs]):.3f})" if args.seeds > 1 else ""
            print(
                f"| {name} | {method} | {mean['rmse']:.3f}{spread} | {cover} | {usable} "
                f"| {mean['seconds']:.0f} |",
                flush=True,
            )
            results.append({"data": name, "removed": args.removed, "method": method, "runs": runs})
    errors: dict[str, list[float]] = {}
    for result in results:
        rmse = statistics.mean(run["rmse"] for run in result["runs"])
        errors.setdefault(result["method"], []).append(rmse)
    for method, each in errors.items():
        print(f"| mean of {len(each)} | {method} | {statistics.mean(each):.3f} | - | - | - |")
    if args.json:
        settings = {key: value for key, value in vars(args).items() if key != "json"}
        args.json.write_text(json.dumps({"settings": settings, "results": results}, indent=2))


if __name__ == "__main__":
    main()
