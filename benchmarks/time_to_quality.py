"""Seconds from the start of a process to a fitted VAE of MNIST: ppl_vae beside Pyro's example.

- Pyro: its example examples/vae/vae.py as written: 784-400-50, softplus, torchvision's data set
  through a DataLoader, batches of 256, Adam at 1e-3, SVI.step with Trace_ELBO, grey pixels as if
  they were bits.
- same network: ``fit`` of that network with batches of 256; compiled, with the compiler's cache
  empty and full. Bits are drawn afresh for each batch, which is in its time.
- default: what ``ppl-vae fit mnist --binarize dynamic`` fits, 784-500-500-50.

Each way is a process, timed from its start, importing and compiling included. Afterwards, and not
in the time, log p(x) of ``--rows`` test rows, drawn as bits once, is estimated with 500 importance
draws. ``--epochs`` of each; the default way says by ``--default-epochs`` when it has -92 nats.

    python benchmarks/time_to_quality.py --json time_to_quality.json
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def pyro_example(options: argparse.Namespace) -> Any:
    import pyro
    from pyro.infer import SVI, Trace_ELBO
    from svi_step import PyroExample, Setting
    from torchvision.datasets import MNIST
    from torchvision.transforms import ToTensor

    rows = MNIST(options.data_root, train=True, transform=ToTensor(), download=False)
    loader = torch.utils.data.DataLoader(rows, batch_size=256, shuffle=True)
    vae = PyroExample(Setting("256x400x50", 1))
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-3}), Trace_ELBO())
    for _ in range(options.epochs):
        for x, _ in loader:
            svi.step(x.reshape(-1, 784))

    def log_evidence(x: Tensor) -> Tensor:
        x = x.flatten(1)
        with torch.no_grad():
            q = torch.distributions.Normal(*vae.encoder(x))
            z = q.sample((500,))
            likelihood = torch.distributions.Bernoulli(logits=vae.decoder(z)).log_prob(x).sum(-1)
            prior = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(-1)
            weight = likelihood + prior - q.log_prob(z).sum(-1)
        return weight.logsumexp(0) - torch.tensor(500.0).log()

    return lambda x: torch.cat([log_evidence(part) for part in x.split(50)])


def ours(options: argparse.Namespace) -> Any:
    from ppl_vae import VAE, VAEConfig, fit, load_data, log_evidence

    x = load_data("mnist", root=options.data_root).x
    same = options.work == "same network"
    config = VAEConfig(
        event_shape=(28, 28),
        latent_dim=50,
        hidden=(400,) if same else (500, 500),
        activation="softplus" if same else "tanh",
    )
    vae = VAE.from_config(config)
    fit(
        vae,
        x,
        epochs=options.epochs,
        batch_size=256 if same else 128,
        learning_rate=1e-3 if same else 2e-3,
        binarize="dynamic",
        engine="compiled",
        progress=False,
    )
    return lambda x: torch.tensor(
        log_evidence(vae, x, num_samples=500, progress=False).log_evidence.values
    )


WAYS = {"Pyro": pyro_example, "same network": ours, "default": ours}


def work(options: argparse.Namespace) -> None:
    warnings.simplefilter("ignore")
    log_evidence = WAYS[options.work](options)
    print("fitted", flush=True)
    from ppl_vae import binarize, load_data

    images = load_data("mnist", "test", root=options.data_root).x[: options.rows]
    value = log_evidence(binarize(images, "static", seed=0))
    print(value.mean().item(), value.std().item() / len(value) ** 0.5, flush=True)


def measure(way: str, epochs: int, cache: str, argv: list[str]) -> dict[str, float]:
    command = [sys.executable, __file__, *argv, "--epochs", str(epochs), "--work", way]
    start = time.perf_counter()
    worker = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": cache},
    )
    lines: Any = worker.stdout
    if lines.readline() != "fitted\n":
        raise SystemExit(f"{way} failed; run: {' '.join(command)}")
    seconds = time.perf_counter() - start
    value, error = map(float, lines.readline().split())
    worker.wait()
    return {"epochs": epochs, "seconds": seconds, "log_evidence": value, "standard_error": error}


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--default-epochs", type=int, nargs="*", default=[15, 20])
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--data-root", default=os.environ.get("PPL_VAE_DATA", "../shared/data"))
    parser.add_argument("--json", help="write the numbers to this file")
    parser.add_argument("--work", choices=list(WAYS), help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.work:
        work(options)
        return
    result = {}
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"{'':34}{'epochs':>7}{'seconds':>9}{'of Pyro':>9}   log p(x), nats per row")
    with tempfile.TemporaryDirectory() as cache:
        plan = [
            ("Pyro's example", "Pyro", options.epochs),
            ("ppl_vae, same network", "same network", options.epochs),
            ("ppl_vae, same network, cache warm", "same network", options.epochs),
            *((f"ppl_vae, default, {n}", "default", n) for n in options.default_epochs),
        ]
        for name, way, epochs in plan:
            made = result[name] = measure(way, epochs, cache, argv)
            ratio = made["seconds"] / result["Pyro's example"]["seconds"]
            print(
                f"{name:34}{epochs:7}{made['seconds']:9.1f}{ratio:8.2f}x   "
                f"{made['log_evidence']:.2f} +- {made['standard_error']:.2f}",
                flush=True,
            )
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main(sys.argv[1:])
