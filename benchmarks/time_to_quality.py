"""Seconds from the start of a process to a VAE of MNIST, and to -92 nats: ours beside Pyro's.

- Pyro: its example examples/vae/vae.py as written: 784-400-50, softplus, torchvision's data set
  through a DataLoader, batches of 256, Adam at 1e-3, SVI.step with Trace_ELBO, gray pixels as if
  they were bits.
- same network: ``fit`` of that network with batches of 256 and the same Adam; compiled, with the
  compiler's cache empty and full. Bits are drawn afresh for each batch, which is in its time.
- default: what ``ppl-vae fit mnist --binarize dynamic`` fits, 784-500-500-50, whose learning rate
  falls to zero over ``--default-epochs``.

Each way is a process, timed from its start, importing and compiling included. Pyro's example and
the same network are looked at after ``--epochs`` and, the clock stopped, every ``--every`` epochs
from then on, until the mean log p(x) is at ``--target``. It is that of ``--rows`` test rows, evenly
spaced and drawn as bits once, by 500 importance draws.

    python benchmarks/time_to_quality.py --json time_to_quality.json
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


class ReachedError(Exception):
    pass


class Watch:
    """The seconds of a process, and what its VAE is worth, printed after some of its epochs."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.started = options.started

    def __call__(self, epoch: int, log_evidence: Callable[[Tensor], Tensor]) -> None:
        """Print a line, the clock stopped; raise ReachedError when there is nothing left to do."""
        options = self.options
        if epoch < options.epochs or (epoch - options.epochs) % options.every:
            return
        paused = time.time()
        from ppl_vae import binarize, load_data

        images = load_data("mnist", "test", root=options.data_root).x
        rows = binarize(images[:: len(images) // options.rows], "static", seed=0)
        value = log_evidence(rows).double()
        made = {
            "epochs": epoch,
            "seconds": paused - self.started,
            "log_evidence": value.mean().item(),
            "standard_error": value.std().item() / len(value) ** 0.5,
        }
        print(json.dumps(made), flush=True)
        if made["log_evidence"] >= options.target:
            raise ReachedError
        self.started += time.time() - paused


def pyro_example(options: argparse.Namespace, watch: Watch) -> None:
    import pyro
    from pyro.infer import SVI, Trace_ELBO
    from svi_step import PyroExample, Setting
    from torchvision.datasets import MNIST
    from torchvision.transforms import ToTensor

    def log_evidence(x: Tensor) -> Tensor:
        x = x.flatten(1)
        with torch.no_grad():
            q = torch.distributions.Normal(*vae.encoder(x))
            z = q.sample((500,))
            likelihood = torch.distributions.Bernoulli(logits=vae.decoder(z)).log_prob(x).sum(-1)
            prior = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(-1)
            weight = likelihood + prior - q.log_prob(z).sum(-1)
        return weight.logsumexp(0) - torch.tensor(500.0).log()

    rows = MNIST(options.data_root, train=True, transform=ToTensor(), download=False)
    loader = torch.utils.data.DataLoader(rows, batch_size=256, shuffle=True)
    vae = PyroExample(Setting("256x400x50", 1))
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-3}), Trace_ELBO())
    for epoch in range(1, options.most_epochs + 1):
        for x, _ in loader:
            svi.step(x.reshape(-1, 784))
        watch(epoch, lambda x: torch.cat([log_evidence(part) for part in x.split(50)]))


def ours(options: argparse.Namespace, watch: Watch) -> None:
    from ppl_vae import VAE, VAEConfig, fit, load_data, log_evidence

    x = load_data("mnist", root=options.data_root).x
    if options.work == "default":
        network: dict[str, Any] = {"hidden": (500, 500), "activation": "tanh"}
        how: dict[str, Any] = {"batch_size": 128}
    else:
        network = {"hidden": (400,), "activation": "softplus"}
        how = {"batch_size": 256, "learning_rate": 1e-3, "schedule": "constant"}
    vae = VAE.from_config(VAEConfig(event_shape=(28, 28), latent_dim=50, **network))

    def evidence(x: Tensor) -> Tensor:
        return torch.tensor(log_evidence(vae, x, num_samples=500).log_evidence.values)

    fit(
        vae,
        x,
        **how,
        epochs=options.most_epochs,
        binarize="dynamic",
        engine="compiled",
        progress=False,
        on_epoch=lambda epoch: watch(epoch, evidence),
    )


WAYS = {"Pyro": pyro_example, "same network": ours, "default": ours}


def work(options: argparse.Namespace) -> None:
    warnings.simplefilter("ignore")
    with contextlib.suppress(ReachedError):
        WAYS[options.work](options, Watch(options))


def measure(
    way: str, epochs: int, most_epochs: int, cache: str, argv: list[str]
) -> list[dict[str, float]]:
    command = [sys.executable, __file__, *argv, "--work", way]
    command += ["--epochs", str(epochs), "--most-epochs", str(most_epochs)]
    worker = subprocess.run(
        [*command, "--started", str(time.time())],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": cache},
    )
    if worker.returncode:
        raise SystemExit(f"{way} failed; run: {' '.join(command)}")
    return [json.loads(line) for line in worker.stdout.splitlines()]


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--target", type=float, default=-92.0, help="nats per row")
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--most-epochs", type=int, default=200)
    parser.add_argument("--default-epochs", type=int, nargs="*", default=[15, 20])
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--data-root", default=os.environ.get("PPL_VAE_DATA", "../shared/data"))
    parser.add_argument("--json", help="write the numbers to this file")
    parser.add_argument("--work", choices=list(WAYS), help=argparse.SUPPRESS)
    parser.add_argument("--started", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.work:
        work(options)
        return
    result = {}
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"{'':34}{'epochs':>7}{'seconds':>9}{'of Pyro':>9}   log p(x), nats per row")
    with tempfile.TemporaryDirectory() as cache:
        epochs, most = options.epochs, options.most_epochs
        plan = [
            ("Pyro's example", "Pyro", epochs, most),
            ("same network", "same network", epochs, most),
            ("same network, cache warm", "same network", epochs, epochs),
            *((f"default, {n} epochs", "default", n, n) for n in options.default_epochs),
        ]
        for name, way, *counts in plan:
            looks = result[name] = measure(way, *counts, cache, argv)
            pyro = result["Pyro's example"]
            # A whole fit of the default is compared with Pyro's example at the target.
            for look in [looks[0], *looks[1:][-1:]]:
                first = look is looks[0] and way != "default"
                ratio = look["seconds"] / pyro[0 if first else -1]["seconds"]
                print(
                    f"{name:34}{look['epochs']:7}{look['seconds']:9.1f}{ratio:8.2f}x   "
                    f"{look['log_evidence']:.2f} +- {look['standard_error']:.2f}",
                    flush=True,
                )
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main(sys.argv[1:])
