"""A whole training step of one VAE: ppl_vae's fit beside Pyro, PyTorch by hand, NumPyro and pythae.

All train the same network on the same rows with Adam in single precision. Per step: take a batch
of rows in random order, the loss, its gradients, the update. Every way has a process of its own and
takes some steps a round while the others wait, and as many before that are not timed; rounds are
interleaved, and medians over them are reported. Compiling is not in them. All processes have the
constants of log1p in memory, which of these ways only ours sees to (mapped_constants.py).

- fit: the loop of ``ppl_vae.fit`` by each of its engines.
- SVI, compiled: Pyro's ``SVI.step`` with ``CompiledTrace_ELBO`` in place of ``Trace_ELBO``.
- Pyro: ``SVI.step`` as in Pyro's own VAE example; and with its ``JitTrace_ELBO``.
- PyTorch: the loop one writes by hand, with the KL divergence in closed form and one fused Adam;
  eager, and its loss under ``torch.compile``.
- NumPyro: ``svi.update`` under ``jit``, and a ``lax.scan`` over the steps of a round.
- pythae: its ``BaseTrainer``, data loader included.
- matrix products: those of the step, or its convolutions, and nothing else, as PyTorch does them;
  with oneDNN, by the faster library that a compiled fit uses.

Peers that are not installed are left out: ``pip install -e ".[benchmarks]"``.

    python benchmarks/svi_step.py --json svi_step.json
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, JitTrace_ELBO, Trace_ELBO
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  as everyone calls it

from ppl_vae import VAE, BernoulliDecoder, NormalEncoder, StandardNormal
from ppl_vae.inference.engine.compiled import CompiledTrace_ELBO
from ppl_vae.inference.engine.rewrites import LARGE_PRODUCT
from ppl_vae.processor import map_constants

SIZES = {"100x64x2": (100, 64, 2), "128x400x50": (128, 400, 50), "256x400x50": (256, 400, 50)}
CONVOLUTIONAL = "convolutional 32x2"
RATE = 1e-3


class Setting:
    """One size: its rows and its networks."""

    def __init__(self, name: str, steps: int) -> None:
        self.name = name
        self.steps = steps
        self.convolutional = name == CONVOLUTIONAL
        self.batch, self.hidden, self.latent = (32, 0, 2) if self.convolutional else SIZES[name]
        generator = torch.Generator().manual_seed(0)
        shape = (self.batch * steps, 784)
        self.x = (torch.rand(shape, generator=generator) < 0.2).float()

    def networks(self) -> tuple[nn.Module, int, nn.Module]:
        """The encoder's trunk, how many features it returns, and the decoder."""
        torch.manual_seed(0)
        if self.convolutional:
            encoder = nn.Sequential(
                nn.Unflatten(-1, (1, 28, 28)),
                nn.Conv2d(1, 32, 3, 2),
                nn.ReLU(),
                nn.Conv2d(32, 64, 3, 2),
                nn.ReLU(),
                nn.Flatten(-3),
            )
            decoder = nn.Sequential(
                nn.Linear(self.latent, 7 * 7 * 32),
                nn.ReLU(),
                nn.Unflatten(-1, (32, 7, 7)),
                nn.ConvTranspose2d(32, 64, 3, 2, 1, 1),
                nn.ReLU(),
                nn.ConvTranspose2d(64, 32, 3, 2, 1, 1),
                nn.ReLU(),
                nn.ConvTranspose2d(32, 1, 3, 1, 1),
                nn.Flatten(-3),
            )
            return encoder, 64 * 6 * 6, decoder
        encoder = nn.Sequential(nn.Linear(784, self.hidden), nn.Softplus())
        decoder = nn.Sequential(
            nn.Linear(self.latent, self.hidden), nn.Softplus(), nn.Linear(self.hidden, 784)
        )
        return encoder, self.hidden, decoder

    def batches(self) -> list[Tensor]:
        return list(torch.randperm(len(self.x)).split(self.batch))


def ours(setting: Setting) -> VAE:
    trunk, width, decoder = setting.networks()
    trunk.out_features = width
    encoder = NormalEncoder(trunk, setting.latent)
    return VAE(StandardNormal(setting.latent), BernoulliDecoder(decoder, (784,)), encoder)


def fit_by(engine: str) -> Callable[[Setting], Callable[[], Any]]:
    def build(setting: Setting) -> Callable[[], Any]:
        from lightning_fabric import Fabric

        from ppl_vae.inference.loop import Loop
        from ppl_vae.inference.objectives import Elbo
        from ppl_vae.inference.schedules import constant
        from ppl_vae.progress import Progress
        from ppl_vae.rows import Rows

        fabric = Fabric(accelerator="auto", devices=1)
        options = {"epochs": 10**6, "max_gradient_norm": 100.0, "engine": engine}
        loop = Loop(ours(setting), Elbo(), fabric, num_rows=len(setting.x), **options)
        rows, bar = Rows(setting.x).to(fabric.device), Progress(1, show=False).__enter__()
        return lambda: loop.run_epoch(rows, setting.batch, RATE, constant, bar)

    return build


def svi_compiled(setting: Setting) -> Callable[[], Any]:
    vae = ours(setting)
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": RATE}), CompiledTrace_ELBO())
    return lambda: [svi.step(setting.x[rows]) for rows in setting.batches()]


class PyroExample(nn.Module):
    """The VAE of Pyro's examples/vae/vae.py, with networks of any size."""

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        self.latent = setting.latent
        self.encoder_trunk, width, self.decoder = setting.networks()
        self.loc, self.log_scale = nn.Linear(width, self.latent), nn.Linear(width, self.latent)

    def encoder(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.encoder_trunk(x)
        return self.loc(hidden), torch.exp(self.log_scale(hidden))

    def model(self, x: Tensor) -> None:
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", x.shape[0]):
            zeros = torch.zeros(x.shape[0], self.latent, dtype=x.dtype, device=x.device)
            z = pyro.sample("latent", dist.Normal(zeros, torch.ones_like(zeros)).to_event(1))
            image = torch.sigmoid(self.decoder(z))
            pyro.sample("obs", dist.Bernoulli(image, validate_args=False).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        pyro.module("encoder", nn.ModuleList([self.encoder_trunk, self.loc, self.log_scale]))
        with pyro.plate("data", x.shape[0]):
            loc, scale = self.encoder(x)
            pyro.sample("latent", dist.Normal(loc, scale).to_event(1))


def pyro_by(objective: Any) -> Callable[[Setting], Callable[[], Any]]:
    def build(setting: Setting) -> Callable[[], Any]:
        vae = PyroExample(setting)
        options: dict[str, Any] = {} if objective is Trace_ELBO else {"ignore_jit_warnings": True}
        svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": RATE}), objective(**options))
        return lambda: [svi.step(setting.x[rows]) for rows in setting.batches()]

    return build


def by_hand(compiled: bool) -> Callable[[Setting], Callable[[], Any]]:
    def build(setting: Setting) -> Callable[[], Any]:
        vae = PyroExample(setting)
        adam = torch.optim.Adam(vae.parameters(), RATE, fused=True)

        def loss(x: Tensor) -> Tensor:
            hidden = vae.encoder_trunk(x)
            loc, log_variance = vae.loc(hidden), vae.log_scale(hidden)
            z = loc + torch.exp(0.5 * log_variance) * torch.randn_like(loc)
            logits = vae.decoder(z)
            nats = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
            kl = -0.5 * (1 + log_variance - loc.square() - log_variance.exp()).sum()
            return (nats + kl) / len(x)

        function = torch.compile(loss) if compiled else loss

        def steps() -> None:
            total = 0.0
            for rows in setting.batches():
                adam.zero_grad(set_to_none=True)
                value = function(setting.x[rows])
                value.backward()
                adam.step()
                total += value.item()

        return steps

    return build


def numpyro_by(scan: bool) -> Callable[[Setting], Callable[[], Any]]:
    def build(setting: Setting) -> Callable[[], Any]:
        import jax
        import numpyro
        import numpyro.distributions as npd
        from jax.example_libraries import stax
        from numpyro.infer import SVI, Trace_ELBO

        latent, batch = setting.latent, setting.batch
        heads = stax.parallel(stax.Dense(latent), stax.serial(stax.Dense(latent), stax.Exp))
        if setting.convolutional:
            trunk = [
                stax.Conv(32, (3, 3), (2, 2)),
                stax.Relu,
                stax.Conv(64, (3, 3), (2, 2)),
                stax.Relu,
                stax.Flatten,
            ]
            first = stax.serial(stax.Dense(7 * 7 * 32), stax.Relu)
            last = stax.serial(
                stax.ConvTranspose(64, (3, 3), (2, 2), "SAME"),
                stax.Relu,
                stax.ConvTranspose(32, (3, 3), (2, 2), "SAME"),
                stax.Relu,
                stax.ConvTranspose(1, (3, 3), (1, 1), "SAME"),
                stax.Flatten,
            )
            reshape = (
                lambda key, shape: ((shape[0], 7, 7, 32), ()),
                lambda parameters, x, **_: x.reshape(-1, 7, 7, 32),
            )
            decode = stax.serial(first, reshape, last)
            shape = (batch, 28, 28, 1)
        else:
            trunk = [stax.Dense(setting.hidden), stax.Softplus]
            decode = stax.serial(stax.Dense(setting.hidden), stax.Softplus, stax.Dense(784))
            shape = (batch, 784)
        encode = stax.serial(*trunk, stax.FanOut(2), heads)

        def model(x: Any) -> None:
            decoder = numpyro.module("decoder", decode, (batch, latent))
            with numpyro.plate("row", batch):
                z = numpyro.sample("z", npd.Normal(0, 1).expand([latent]).to_event(1))
                logits = decoder(z)
                numpyro.sample("x", npd.Bernoulli(logits=logits).to_event(1), obs=x)

        def guide(x: Any) -> None:
            encoder = numpyro.module("encoder", encode, shape)
            with numpyro.plate("row", batch):
                loc, scale = encoder(x.reshape(shape))
                numpyro.sample("z", npd.Normal(loc, scale).to_event(1))

        data = jax.numpy.asarray(setting.x.numpy())
        svi = SVI(model, guide, numpyro.optim.Adam(RATE), Trace_ELBO())
        state = [svi.init(jax.random.PRNGKey(0), data[:batch])]
        update = jax.jit(lambda state, rows: svi.update(state, data[rows]))
        epoch = jax.jit(lambda state, rows: jax.lax.scan(update, state, rows))

        def steps() -> None:
            if scan:
                rows = torch.stack(setting.batches()).numpy()
                state[0], losses = epoch(state[0], rows)
                losses.block_until_ready()
                return
            for rows in setting.batches():
                state[0], value = update(state[0], rows.numpy())
                float(value)

        return steps

    return build


def pythae(setting: Setting) -> Callable[[], Any]:
    from pythae.data.datasets import BaseDataset
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    trunk, width, decoder = setting.networks()

    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.trunk = trunk
            self.loc, self.raw = nn.Linear(width, setting.latent), nn.Linear(width, setting.latent)

        def forward(self, x: Tensor) -> Any:
            hidden = self.trunk(x)
            return ModelOutput(embedding=self.loc(hidden), log_covariance=self.raw(hidden))

    class Decoder(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.layers = decoder

        def forward(self, z: Tensor) -> Any:
            return ModelOutput(reconstruction=self.layers(z).sigmoid())

    config = VAEConfig(input_dim=(784,), latent_dim=setting.latent, reconstruction_loss="bce")
    folder = tempfile.mkdtemp()
    trainer = BaseTrainer(
        VAE(config, Encoder(), Decoder()),
        BaseDataset(setting.x, torch.zeros(len(setting.x))),
        training_config=BaseTrainerConfig(
            output_dir=folder,
            num_epochs=1,
            per_device_train_batch_size=setting.batch,
            learning_rate=RATE,
            no_cuda=True,
        ),
    )
    trainer.prepare_training()
    return lambda: trainer.train_step(epoch=1)


def matrix_products(onednn: bool) -> Callable[[Setting], Callable[[], Any]]:
    def build(setting: Setting) -> Callable[[], Any]:
        trunk, width, decoder = setting.networks()
        heads = [nn.Linear(width, setting.latent), nn.Linear(width, setting.latent)]
        work: list[Callable[[], Any]] = []
        with torch.no_grad():
            for network, value in (
                (trunk, setting.x[: setting.batch]),
                (decoder, torch.randn(setting.batch, setting.latent)),
            ):
                for layer in network:
                    made = layer(value)
                    if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                        first = layer is trunk[0]
                        work.append(products(layer, value, torch.randn_like(made), first, onednn))
                    value = made
                if network is trunk:
                    gradient = torch.randn(setting.batch, setting.latent)
                    work += [products(head, value, gradient, False, onednn) for head in heads]

        def steps() -> None:
            with torch.inference_mode():
                for _ in range(setting.steps):
                    for each in work:
                        each()

        return steps

    return build


def products(
    layer: Any, x: Tensor, gradient: Tensor, first: bool, onednn: bool
) -> Callable[[], Any]:
    """A layer forwards, and backwards to its weight and, unless it is the first, its input."""
    weight = layer.weight.detach()
    if isinstance(layer, nn.Linear):

        def times(one: Tensor, other: Tensor) -> Tensor:
            if onednn and one.numel() * other.shape[1] >= LARGE_PRODUCT:
                return torch.ops.mkldnn._linear_pointwise(one, other.T, None, "none", [], "")
            return one @ other

        return lambda: (
            times(x, weight.T),
            times(gradient.T, x),
            None if first else times(gradient, weight),
        )
    transposed = isinstance(layer, nn.ConvTranspose2d)
    padding = layer.output_padding if transposed else (0, 0)
    options = (layer.stride, layer.padding, (1, 1), transposed, padding, 1)
    mask = (not first, True, False)
    return lambda: (
        torch.ops.aten.convolution(x, weight, None, *options),
        torch.ops.aten.convolution_backward(gradient, x, weight, None, *options, mask),
    )


WAYS: dict[str, tuple[str, Callable[[Setting], Callable[[], Any]]]] = {
    "fit, compiled": ("ppl_vae", fit_by("compiled")),
    "fit, graph": ("ppl_vae", fit_by("graph")),
    "fit, eager": ("ppl_vae", fit_by("eager")),
    "SVI, compiled": ("ppl_vae", svi_compiled),
    "Pyro": ("pyro", pyro_by(Trace_ELBO)),
    "Pyro, jit": ("pyro", pyro_by(JitTrace_ELBO)),
    "PyTorch": ("torch", by_hand(compiled=False)),
    "PyTorch, compiled": ("torch", by_hand(compiled=True)),
    "NumPyro, update": ("numpyro", numpyro_by(scan=False)),
    "NumPyro, scan": ("numpyro", numpyro_by(scan=True)),
    "pythae": ("pythae", pythae),
    "matrix products": ("torch", matrix_products(onednn=False)),
    "with oneDNN": ("torch", matrix_products(onednn=True)),
}


def work(way: str, name: str, steps: int) -> None:
    """Run a round for each line that comes in, and say how many milliseconds a step took."""
    warnings.simplefilter("ignore")
    map_constants()
    run = WAYS[way][1](Setting(name, steps))
    run()  # records, compiles
    for _ in sys.stdin:
        run()  # warms up: a process that has waited starts slowly
        start = time.perf_counter()
        run()
        print((time.perf_counter() - start) * 1e3 / steps, flush=True)


def measure(name: str, ways: list[str], options: argparse.Namespace) -> dict[str, list[float]]:
    """Milliseconds a step by round, of each way; in a process each, one of which runs at a time."""
    steps = options.steps if name != CONVOLUTIONAL else max(1, options.steps // 4)
    command = [sys.executable, __file__, "--sizes", name, "--steps", str(steps)]
    workers = {}
    times: dict[str, list[float]] = {way: [] for way in ways}
    for round_ in range(options.rounds + 1):
        for way in ways:
            if round_ == 0:
                workers[way] = subprocess.Popen(
                    [*command, "--work", way],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    text=True,
                    bufsize=1,
                    env={**os.environ, "TQDM_DISABLE": "1"},
                )
            pipes: Any = workers[way]
            pipes.stdin.write("\n")
            times[way].append(float(pipes.stdout.readline()))
    for worker in workers.values():
        worker.communicate()
    return {way: each[1:] for way, each in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", default=[*SIZES, CONVOLUTIONAL])
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--steps", type=int, default=100, help="in a round")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", help="write the numbers to this file")
    parser.add_argument("--work", choices=list(WAYS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.work, *options.sizes, options.steps)
        return
    ways = [way for way in options.ways if importlib.util.find_spec(WAYS[way][0])]
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, pyro {pyro.__version__};")
    print(f"medians of {options.rounds} rounds of {options.steps} steps")
    result = {}
    for name in options.sizes:
        steps = measure(name, ways, options)
        batch = Setting(name, 1).batch
        best = statistics.median(steps[ways[0]])
        print(f"\n{name:24}{'ms/step':>9}{'rows/s':>11}   {ways[0]} takes")
        for way, times in steps.items():
            middle = statistics.median(times)
            print(f"{way:24}{middle:9.2f}{1e3 * batch / middle:11,.0f}{best / middle:10.2f} x")
        result[name] = steps
    if options.json:
        versions = {"torch": torch.__version__, "pyro": pyro.__version__}
        Path(options.json).write_text(
            json.dumps({"versions": versions, "ms_per_step": result}, indent=2)
        )


if __name__ == "__main__":
    main()
