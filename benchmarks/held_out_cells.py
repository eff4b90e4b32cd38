"""Cells held out of real tables, imputed by a VAE as the README has it, beside scikit-learn.

Tables are read as they are; what is told of their columns is what `ppl-vae fit FILE --dry-run` asks
for, or what the table's own description says. A fifth of the cells that are there is hidden at
random, the table with these holes is fitted to, and they are imputed. The error of a column, root
mean square of numbers and share of wrong levels, is relative to that of the mean or the most
frequent level of the cells that were left. Intervals of numbers should hold 90 % of the hidden
cells. Sets of levels take the most probable ones until 90 % are in; as the last of them would take
in too much, it counts as far as is needed (randomized sets: Romano, Sesia & Candes 2020).

    python benchmarks/held_out_cells.py --seeds 3 --json held_out.json
"""

from __future__ import annotations

import argparse
import json
import os
import time
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from sklearn.ensemble import RandomForestRegressor
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer

from ppl_vae import VAE, Dataset, VAEConfig, fit, impute, judge_rows, load_data

LEVEL = 0.9
HIDDEN = 0.2
# Of the horses, by the description beside the table: columns are numbered from 0.
_CATEGORIES = [*range(2), *range(6, 12), 14, 16, 17, 20, 22, 23, 27]
HORSES = {**{str(i): "categorical" for i in _CATEGORIES}, "12": "ordinal", "13": "ordinal"}
TABLES = {
    "penguins": ("penguins.csv", {"column": {"year": "ordinal"}}),
    "breast-cancer-wisconsin": (
        "breast-cancer-wisconsin.data",
        {"drop": [0], "column": {**{str(i): "ordinal" for i in range(1, 10)}, "10": "binary"}},
    ),
    # Numbers of hospital and codes of lesions are names.
    "horse-colic": ("horse-colic.csv", {"drop": [2, 24, 25, 26], "column": HORSES}),
}


def by_vae(holes: Dataset, seed: int, args: argparse.Namespace) -> dict:
    vae = VAE.from_config(VAEConfig.for_data(holes), seed=seed)
    fit(
        vae,
        holes,
        epochs=max(20, args.steps * 32 // len(holes.x)),
        batch_size=32,
        validation=args.validation or None,
        objective="iwae:num_particles=10",
        seed=seed,
        progress=False,
    )
    found = impute(vae, holes, num_draws=1000, level=LEVEL, seed=seed, progress=False)
    verdict = judge_rows(vae, holes, seed=seed, progress=False).verdict
    words = verdict.attrs["flag_meanings"].split()
    return {
        "x": found.x.values,
        "low": found.low.values,
        "high": found.high.values,
        "draws": found.draws.values,
        "verdicts": {word: float((verdict == code).mean()) for code, word in enumerate(words)},
    }


def by_column(holes: Dataset) -> np.ndarray:
    """The mean of each column, or its most frequent level."""
    x = holes.x.numpy()
    filled = np.empty_like(x)
    for j, kind in enumerate(holes.columns):
        known = x[~np.isnan(x[:, j]), j]
        levels, counts = np.unique(known, return_counts=True)
        filled[:, j] = known.mean() if kind.levels is None else levels[counts.argmax()]
    return filled


def by_peer(holes: Dataset, imputer: IterativeImputer) -> np.ndarray:
    """By scikit-learn: categories one-hot, levels in order as numbers; the nearest level is it."""
    x = holes.x.numpy().astype(np.float64)
    parts, sizes = [], []
    for column, kind in zip(x.T, holes.columns, strict=True):
        if kind.kind == "categorical":
            codes = np.unique(column[~np.isnan(column)])
            part = np.where(np.isnan(column)[:, None], np.nan, column[:, None] == codes)
        else:
            codes, part = None, column[:, None]
        parts.append(part)
        sizes.append(codes)
    wide = np.concatenate(parts, 1)
    center, spread = np.nanmean(wide, 0), np.nanstd(wide, 0) + 1e-9
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*Early stopping criterion")
        wide = imputer.fit_transform((wide - center) / spread) * spread + center
    filled, at = [], 0
    for kind, codes in zip(holes.columns, sizes, strict=True):
        if codes is not None:
            filled.append(codes[wide[:, at : at + len(codes)].argmax(1)])
            at += len(codes)
            continue
        found = wide[:, at]
        filled.append(found if kind.levels is None else found.round().clip(0, len(kind.levels) - 1))
        at += 1
    return np.stack(filled, 1)


def covered(truth: float, draws: np.ndarray) -> float:
    """How much of a level is in the set of the most probable ones that hold 90 % of draws."""
    levels, counts = np.unique(draws, return_counts=True)
    shares = counts / counts.sum()
    if truth not in levels:
        return 0.0
    own = shares[levels == truth][0]
    before = shares[(shares > own) | ((shares == own) & (levels < truth))].sum()
    return float(np.clip((LEVEL - before) / own, 0, 1))


def one(data: Dataset, seed: int, args: argparse.Namespace) -> tuple[list[dict], dict]:
    """What is said of every hidden cell, and the verdicts of the rows."""
    whole = data.x.numpy()
    hidden = (np.random.default_rng(seed).random(whole.shape) < HIDDEN) & ~np.isnan(whole)
    hidden &= ~(hidden | np.isnan(whole)).all(1)[:, None]  # no row is left without a cell
    holes = replace(data, x=torch.where(torch.tensor(hidden), torch.nan, data.x))
    peers = {"IterativeImputer, BayesianRidge": IterativeImputer(random_state=seed)}
    if args.forest:
        forest = RandomForestRegressor(50, random_state=seed)
        peers["IterativeImputer, random forest"] = IterativeImputer(forest, random_state=seed)
    guesses = {"mean or mode": by_column(holes)}
    guesses |= {name: by_peer(holes, imputer) for name, imputer in peers.items()}
    vae = by_vae(holes, seed, args)
    levels = np.array([kind.levels is not None for kind in data.columns])
    # Of a binary column x is a probability; a table is filled with the nearest level, as to_frame.
    guesses["ppl_vae"] = np.where(levels, vae["x"].round(), vae["x"])
    cells = []
    for row, j in zip(*hidden.nonzero(), strict=True):
        truth, levels = whole[row, j], data.columns[j].levels is not None
        if levels:
            inside = covered(truth, vae["draws"][:, row, j])
        else:
            inside = float(vae["low"][row, j] <= truth <= vae["high"][row, j])
        off = {name: guess[row, j] - truth for name, guess in guesses.items()}
        error = {name: float(gap != 0 if levels else gap**2) for name, gap in off.items()}
        cells.append({"column": int(j), "inside": inside, "error": error})
    return cells, vae["verdicts"]


def errors_by_column(data: Dataset, cells: list[dict]) -> dict[str, list[float]]:
    """Of each method and column the error over that of the mean or mode."""
    relative: dict[str, list[float]] = {}
    for j, kind in enumerate(data.columns):
        own = [cell["error"] for cell in cells if cell["column"] == j]
        if not own:
            continue
        mean = {name: np.mean([error[name] for error in own]) for name in own[0]}
        power = 0.5 if kind.levels is None else 1.0
        for name, value in mean.items():
            if mean["mean or mode"] > 0:
                ratio = (value / mean["mean or mode"]) ** power
                relative.setdefault(name, []).append(float(ratio))
    return relative


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tables", nargs="+", default=list(TABLES), choices=list(TABLES))
    parser.add_argument("--data-root", default=os.environ.get("PPL_VAE_DATA", "../shared/data"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument(
        "--validation", type=float, default=0.0, help="of rows, held out of the fit"
    )
    parser.add_argument("--forest", action="store_true", help="random forests, which take minutes")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    results, inside_by_kind = [], {}
    print("| table | method | error, mean or mode = 1 | columns better than that | CPU seconds |")
    print("|---|---|---:|---:|---:|")
    for name in args.tables:
        file, options = TABLES[name]
        data = load_data(Path(args.data_root) / "tabular" / file, None, **options)
        started, cells, verdicts, by_seed = time.process_time(), [], [], []
        for seed in range(args.seeds):
            more, words = one(data, seed, args)
            cells += more
            verdicts.append(words)
            by_seed.append(errors_by_column(data, more))
        seconds = (time.process_time() - started) / args.seeds
        relative = errors_by_column(data, cells)
        for method, ratios in relative.items():
            better = sum(ratio < 1 for ratio in ratios)
            each = [np.mean(errors[method]) for errors in by_seed]
            error = f" +- {np.std(each, ddof=1) / len(each) ** 0.5:.3f}" if len(each) > 1 else ""
            print(
                f"| {name} | {method} | {np.mean(each):.3f}{error} | {better} of {len(ratios)} "
                f"| {seconds if method == 'ppl_vae' else 0:.0f} |",
                flush=True,
            )
        for cell in cells:
            kind = data.columns[cell["column"]].kind
            inside_by_kind.setdefault(kind, {}).setdefault(name, []).append(cell["inside"])
        results.append(
            {"table": name, "relative_errors": by_seed, "verdicts": verdicts, "cells": len(cells)}
        )
        said = {word: np.mean([v[word] for v in verdicts]) for word in verdicts[0]}
        print("verdicts by row: " + ", ".join(f"{w} {100 * s:.0f}%" for w, s in said.items()))
    print("\n| kind of column | cells | 90 % intervals and sets cover | by table |")
    print("|---|---:|---:|---|")
    for kind, tables in inside_by_kind.items():
        every = np.concatenate([np.asarray(values) for values in tables.values()])
        error = every.std() / len(every) ** 0.5
        each = ", ".join(f"{table} {100 * np.mean(v):.1f}%" for table, v in tables.items())
        said = f"{100 * every.mean():.1f}% +- {100 * error:.1f}"
        print(f"| {kind} | {len(every)} | {said} | {each} |")
    if args.json:
        settings = {key: value for key, value in vars(args).items() if key != "json"}
        coverage = {
            kind: {table: float(np.mean(v)) for table, v in tables.items()}
            for kind, tables in inside_by_kind.items()
        }
        whole = {"settings": settings, "results": results, "coverage": coverage}
        args.json.write_text(json.dumps(whole, indent=2))


if __name__ == "__main__":
    main()
