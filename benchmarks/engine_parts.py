"""What recording and compiling cost for each part, and what a step takes then.

Each registered prior, guide, likelihood, network and objective of default size stands beside the
default others, 28x28 bits with 20 latents and batches of 128 where the part takes them. Each engine
starts in a process of its own with the compiler's cache empty: the first step holds recording and
compiling, and the median of the steps after it is told.

    python benchmarks/engine_parts.py --json engine_parts.json [--only guide]
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
import warnings
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

ENGINES = ("eager", "graph", "compiled")
_ROWS, _STEPS = 128, 40


def parts() -> Iterator[tuple[str, str]]:
    """The kind and the name of each registered part."""
    from ppl_vae.components.decoders import DECODERS
    from ppl_vae.components.encoders import ENCODERS
    from ppl_vae.components.networks import NETWORKS
    from ppl_vae.components.priors import PRIORS
    from ppl_vae.inference.objectives import OBJECTIVES

    for kind, registry in (
        ("prior", PRIORS),
        ("guide", ENCODERS),
        ("network", NETWORKS),
        ("likelihood", DECODERS),
        ("objective", OBJECTIVES),
    ):
        for name in registry:
            yield kind, name


def rows_of(likelihood: str) -> Any:
    """Rows that a likelihood describes, shape (row, 28, 28)."""
    import torch

    uniform = torch.rand(_ROWS * 4, 28, 28, generator=torch.Generator().manual_seed(0))
    if likelihood in {"poisson", "negative_binomial", "zero_inflated_negative_binomial"}:
        return (uniform * 9).floor()
    if likelihood in {"categorical", "ordinal"}:
        return (uniform * 4).floor()
    if likelihood in {"discretized_logistic", "discretized_logistic_mixture", "binomial"}:
        return (uniform * 255).round() / 255
    if likelihood in {"normal", "student_t", "self_masking"}:
        x = uniform * 6 - 3
        return x.masked_fill(uniform > 0.9, torch.nan) if likelihood == "self_masking" else x
    if likelihood in {"log_normal", "beta", "continuous_bernoulli"}:
        return uniform.clamp(1e-3, 1 - 1e-3)
    return (uniform > 0.5).float()


def measure(kind: str, name: str, engine: str) -> dict[str, Any]:
    """Seconds of the first step and of those after it."""
    import torch

    from ppl_vae import VAE, VAEConfig, fit

    torch.set_num_threads(1)
    likelihood = name if kind == "likelihood" else "bernoulli"
    option = {"categorical": ":levels=4", "ordinal": ":levels=4", "self_masking": ":hides=high"}
    choices: dict[str, Any] = {"likelihood": likelihood + option.get(likelihood, "")}
    if likelihood == "mixed":
        choices["likelihood"] = f"mixed:columns=({','.join(['bernoulli'] * 20)})"
    objective = name if kind == "objective" else "elbo"
    if kind in {"prior", "guide", "network"}:
        choices[kind] = name
    x = rows_of(likelihood)
    if likelihood == "mixed":
        x = x[:, 0, :20]
    covariates = None
    if name == "conditional":
        covariates = torch.rand(len(x), 3)
        choices["covariate_dim"] = 3
    missing = likelihood == "self_masking"
    vae = VAE.from_config(VAEConfig.for_data(x, latent_dim=20, missing=missing, **choices))
    marks = [time.perf_counter()]
    said = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(
            vae,
            x[:_ROWS],
            covariates=None if covariates is None else covariates[:_ROWS],
            epochs=_STEPS,
            batch_size=_ROWS,
            objective=objective,
            engine=engine,
            progress=False,
            on_epoch=lambda _: marks.append(time.perf_counter()),
        )
        said = [str(w.message) for w in caught if issubclass(w.category, RuntimeWarning)]
    steps = [b - a for a, b in pairwise(marks)]
    return {
        "first": steps[0],
        "step": statistics.median(steps[_STEPS // 4 :]),
        "fell_back": said[0].splitlines()[0] if said else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", help="a kind of part")
    parser.add_argument("--engines", nargs="+", default=ENGINES, choices=ENGINES)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(*options.measure)))
        return
    print(f"{'part':44}{'engine':10}{'first step, s':>14}{'then, ms':>10}{'x eager':>9}")
    table = []
    for kind, name in parts():
        if options.only not in (None, kind):
            continue
        eager = None
        for engine in options.engines:
            with tempfile.TemporaryDirectory() as cache:
                done = subprocess.run(
                    [sys.executable, __file__, "--measure", kind, name, engine],
                    env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": cache},
                    capture_output=True,
                    text=True,
                )
            if done.returncode:
                print(f"{kind + ' ' + name:44}{engine:10} {done.stderr.splitlines()[-1]}")
                continue
            found = json.loads(done.stdout.splitlines()[-1])
            eager = found["step"] if engine == "eager" else eager
            ratio = f"{eager / found['step']:9.2f}" if eager else ""
            print(
                f"{kind + ' ' + name:44}{engine:10}{found['first']:14.1f}"
                f"{found['step'] * 1e3:10.2f}{ratio} {found['fell_back'] or ''}",
                flush=True,
            )
            table.append({"kind": kind, "name": name, "engine": engine, **found})
    if options.json:
        options.json.write_text(json.dumps(table, indent=2) + "\n")


if __name__ == "__main__":
    main()
