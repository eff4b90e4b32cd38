"""All that is asked of a GPU, in less time than ten minutes, into one JSON file.

Each part is a process of its own and has a share of the time, with what the parts before left over.
The file is written with each number that comes, so that a part that fails, hangs or is cut short
takes no other with it, and what warnings a way gave stand beside its time. A GPU that this was not
run on is spoken of nowhere.

- tests: `pytest -m gpu`.
- steps: milliseconds a step of `fit` at the sizes of svi_step.py and larger ones: eager, a graph,
  compiled with CUDA graphs and without, in single precision, TensorFloat-32 and bfloat16; beside
  PyTorch by hand, eager and under `torch.compile`, and NumPyro where it is installed and its JAX
  finds the GPU. Medians of rounds, one way after the other.
- diagnosis: `diagnose` of 500, 2,000 and 10,000 test rows of MNIST, after a short fit.
- best_mnist: the preset for the time that is left, its one cycle of the rate as long as that, and
  log p(x) of test rows.

    python benchmarks/gpu.py --budget 570 --data-root ../shared/data --json gpu.json
    python benchmarks/gpu.py --device cpu --budget 60    # that it runs; its numbers say nothing
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest import mock

import pyro
import torch

# Parts in their order, with the share of the time that each may take.
PARTS = {"tests": 0.1, "steps": 0.37, "diagnosis": 0.18, "best_mnist": 0.35}
# Seconds before its end by which a part should have said what it knows.
_MARGIN = 3.0
# Larger than any that pays on a processor: rows of a batch, width, latents.
_LARGER = {"512x1000x64": (512, 1000, 64), "2048x2000x128": (2048, 2000, 128)}
_PRECISIONS = {"32": "32-true", "tf32": "32-true", "bf16": "bf16-mixed"}


def say(**found: Any) -> None:
    """A line for whoever started this process."""
    print(json.dumps(found), flush=True)


class Clock:
    """How long a part has left."""

    def __init__(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds - _MARGIN

    @property
    def left(self) -> float:
        return self._until - time.monotonic()


def tests(options: argparse.Namespace, clock: Clock) -> None:
    house = Path(__file__).parents[1]
    files = [str(f) for f in house.glob("tests/test_*.py") if "mark.gpu" in f.read_text()]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-n0", "-p", "no:cacheprovider"]
    found = subprocess.run([*command, *files], cwd=house, capture_output=True, text=True)
    said = [line for out in (found.stdout, found.stderr) for line in out.splitlines()[-1:]]
    say(returncode=found.returncode, said=said)


def steps(options: argparse.Namespace, clock: Clock) -> None:
    import svi_step

    svi_step.SIZES.update(_LARGER)
    sizes = [*svi_step.SIZES, svi_step.CONVOLUTIONAL]
    # The ways in their order of interest, at all sizes each, so that the last ones are cut short.
    for way, build in _ways(options.device):
        for size in sizes:
            if clock.left < 0:
                return
            pyro.clear_param_store()  # which holds the VAE of the way before
            try:
                say(size=size, way=way, **_timed(build(svi_step, size), clock))
            except Exception as error:
                said = " ".join(f"{type(error).__name__}: {error}".split())
                say(size=size, way=way, failed=said[:300])
            if options.device == "cuda":
                torch.cuda.empty_cache()


def _ways(device: str) -> Iterator[tuple[str, Callable[[Any, str], tuple[Callable[[], Any], int]]]]:
    def ours(engine: str, precision: str = "32", *, cuda_graphs: bool = True) -> Any:
        def build(svi_step: Any, size: str) -> tuple[Callable[[], Any], int]:
            from lightning_fabric import Fabric

            from ppl_vae.inference.loop import Loop
            from ppl_vae.inference.objectives import Elbo
            from ppl_vae.inference.schedules import constant
            from ppl_vae.progress import Progress
            from ppl_vae.rows import Rows

            setting = svi_step.Setting(size, _number(device, size))
            fabric = Fabric(accelerator=device, devices=1, precision=_PRECISIONS[precision])
            loop = Loop(
                svi_step.ours(setting),
                Elbo(),
                fabric,
                epochs=10**6,
                num_rows=len(setting.x),
                max_gradient_norm=100.0,
                engine=engine,
            )
            rows, bar = Rows(setting.x).to(fabric.device), Progress(1, show=False).__enter__()

            def run() -> None:
                with _products(precision), _launched(cuda_graphs):
                    loop.run_epoch(rows, setting.batch, svi_step.RATE, constant, bar)

            return run, setting.steps

        return build

    def by_hand(compiled: bool) -> Any:
        def build(svi_step: Any, size: str) -> tuple[Callable[[], Any], int]:
            setting = svi_step.Setting(size, _number(device, size))
            setting.x = setting.x.to(device)
            with torch.device(device):
                run = svi_step.by_hand(compiled)(setting)

            def on_device() -> None:
                with torch.device(device):
                    run()

            return on_device, setting.steps

        return build

    def numpyro(scan: bool) -> Any:
        def build(svi_step: Any, size: str) -> tuple[Callable[[], Any], int]:
            import jax

            where = jax.devices()[0].platform
            if where == "cpu" and device == "cuda":
                raise OSError("JAX finds no GPU")
            setting = svi_step.Setting(size, _number(device, size))
            return svi_step.numpyro_by(scan)(setting), setting.steps

        return build

    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    yield "fit, compiled", ours("compiled")
    yield "fit, eager", ours("eager")
    yield "PyTorch", by_hand(False)
    yield "PyTorch, compiled", by_hand(True)
    if importlib.util.find_spec("numpyro"):
        yield "NumPyro, scan", numpyro(True)
        yield "NumPyro, update", numpyro(False)
    yield "fit, compiled, bf16", ours("compiled", "bf16")
    yield "fit, compiled, tf32", ours("compiled", "tf32")
    yield "fit, compiled, without CUDA graphs", ours("compiled", cuda_graphs=False)
    yield "fit, graph", ours("graph")


def _number(device: str, size: str) -> int:
    """Steps of a round."""
    return 100 if device == "cuda" else 5


def _timed(made: tuple[Callable[[], Any], int], clock: Clock) -> dict[str, Any]:
    """Milliseconds a step: the median, the quartiles and the number of rounds of two seconds."""
    run, number = made
    started = time.perf_counter()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", RuntimeWarning)  # such as that it is not compiled
        run()  # records, compiles
    first = time.perf_counter() - started
    times: list[float] = []
    started = time.perf_counter()
    while len(times) < 3 or (time.perf_counter() - started < 2 and len(times) < 50):
        begun = time.perf_counter()
        run()
        times.append(1e3 * (time.perf_counter() - begun) / number)
        if clock.left < 0:
            break
    quartiles = statistics.quantiles(times, n=4) if len(times) > 1 else times
    return {
        "ms_per_step": statistics.median(times),
        "quartiles": [quartiles[0], quartiles[-1]],
        "rounds": len(times),
        "seconds_before": first,
        **({"warned": [str(each.message)[:300] for each in told]} if told else {}),
    }


@contextmanager
def _products(precision: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def _launched(at_once: bool) -> Iterator[None]:
    """Let kernels be launched as one CUDA graph, or one by one."""
    if at_once:
        yield
        return
    with mock.patch("ppl_vae.inference.engine.recording.launched_at_once", lambda run, *_: run):
        yield


def _mnist(options: argparse.Namespace) -> tuple[Any, Any, str]:
    """Rows to fit to and to test by, and what they are."""
    from ppl_vae.data import load_splits

    try:
        train, test = load_splits("mnist", root=options.data_root)
        return train.x, test.x, "mnist"
    except Exception as error:
        generator = torch.Generator().manual_seed(0)
        x = (torch.rand(70_000, 28, 28, generator=generator) < 0.2).to(torch.uint8) * 255
        why = " ".join(str(error).split())[:100]
        return x[:60_000], x[60_000:], f"noise, as MNIST is not there ({why})"


def _fabric(device: str, precision: str = "32") -> Any:
    from lightning_fabric import Fabric

    return Fabric(accelerator=device, devices=1, precision=_PRECISIONS[precision])


def diagnosis(options: argparse.Namespace, clock: Clock) -> None:
    from ppl_vae import VAE, VAEConfig, diagnose, fit
    from ppl_vae.rows import Rows

    x, x_test, name = _mnist(options)
    bits = (x[:5000] > 127).float()
    vae = VAE.from_config(VAEConfig.for_data(bits, latent_dim=20, hidden=(400,)))

    def enough(_: int) -> None:
        if clock.left < 0.7 * options.seconds:
            raise KeyboardInterrupt

    started = time.perf_counter()
    with suppress(KeyboardInterrupt):
        fit(
            vae,
            x,
            epochs=20,
            schedule="constant",
            binarize="dynamic",
            fabric=_fabric(options.device),
            on_epoch=enough,
            progress=False,
        )
    say(data=name, seconds_of_fit=time.perf_counter() - started)
    for size in (500, 2_000, 10_000):
        if clock.left < 0:
            return
        started = time.perf_counter()
        rows = Rows(x_test[:size], binarize="threshold")
        found = diagnose(vae, rows, progress=False)
        verdicts, counts = found.rows.verdict.values.tolist(), {}
        for verdict in verdicts:
            counts[verdict] = counts.get(verdict, 0) + 1
        say(rows=size, seconds_of_diagnosis=time.perf_counter() - started, verdicts=counts)


def best_mnist(options: argparse.Namespace, clock: Clock) -> None:
    from ppl_vae import PRESETS, VAE, VAEConfig, fit, log_evidence
    from ppl_vae.rows import Rows

    x, x_test, name = _mnist(options)
    preset = PRESETS["best-mnist"]
    if options.device == "cpu":  # that it runs at all
        x, x_test = x[:1280], x_test[:64]
    given = {**preset.fit, "fabric": _fabric(options.device, preset.precision), "progress": False}
    ends: list[float] = []

    def fitted(epochs: int, until: float) -> tuple[VAE, int]:
        torch.manual_seed(0)
        bits = (x[:5000] > 127).float()
        vae = VAE.from_config(VAEConfig.for_data(bits, **preset.vae))

        def on_epoch(done: int) -> None:
            ends.append(time.perf_counter())
            if done and clock.left < until:
                raise KeyboardInterrupt

        with suppress(KeyboardInterrupt):
            fit(vae, x, **{**given, "epochs": epochs, "on_epoch": on_epoch})
        done = len(ends) - 1
        return vae, done

    fitted(2, 0.8 * options.seconds)
    epoch = ends[-1] - ends[-2]
    kept = 0.15 * options.seconds  # to evaluate
    epochs = max(1, int((clock.left - kept) / epoch) - 1)
    say(data=name, seconds_an_epoch=epoch, epochs_planned=epochs)
    ends.clear()
    vae, done = fitted(epochs, kept)
    say(epochs=done, seconds_of_fit=ends[-1] - ends[0])
    device = next(vae.parameters()).device
    for size in (64, 1000, len(x_test)):
        if clock.left < 0:
            return
        rows = Rows(x_test[:size], binarize="static", seed=0)
        started = time.perf_counter()
        draws = preset.num_samples if options.device == "cuda" else 30
        evidence = log_evidence(vae, rows, num_samples=draws, progress=False).log_evidence.values
        error = evidence.std(ddof=1) / len(evidence) ** 0.5
        say(
            rows=len(evidence),
            draws=draws,
            log_evidence=float(evidence.mean()),
            standard_error=float(error),
            seconds=time.perf_counter() - started,
            device=str(device),
        )


def run_part(
    name: str, options: argparse.Namespace, seconds: float, part: dict[str, Any], keep: Callable
) -> None:
    """Give a part its time, in a process of its own, and keep each thing that it says."""
    command = [sys.executable, __file__, "--part", name, "--seconds", str(seconds)]
    command += ["--device", options.device]
    if options.data_root:
        command += ["--data-root", str(options.data_root)]
    started = time.monotonic()
    errors: list[str] = []
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )

    def read() -> None:
        for line in process.stdout or ():
            with suppress(ValueError):
                said = json.loads(line)
                if "whole" in said:
                    part["cut_short"] = False
                else:
                    part["found"].append(said)
                    print(f"  {line.strip()}", flush=True)
                    keep()

    readers = [
        threading.Thread(target=read, daemon=True),
        threading.Thread(target=lambda: errors.extend(process.stderr or ()), daemon=True),
    ]
    try:
        for reader in readers:
            reader.start()
        code = process.wait(max(1.0, seconds))
    except subprocess.TimeoutExpired:
        code = None
    finally:  # also what it started, and when this process is stopped
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    for reader in readers:
        reader.join(5)
    part["seconds"] = time.monotonic() - started
    if code:
        part["failed"] = [f"exit code {code}", *(line.rstrip() for line in errors[-3:])]


def about(device: str) -> dict[str, Any]:
    """What the numbers are of."""
    cuda = device == "cuda"
    return {
        "device": torch.cuda.get_device_name() if cuda else platform.processor() or "cpu",
        "torch": torch.__version__,
        "cuda": torch.version.cuda if cuda else None,
        "pyro": pyro.__version__,
        "says_something": cuda,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--budget", type=float, default=570.0, help="seconds for all parts")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--data-root", type=Path, help="the folder that holds MNIST")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--part", choices=list(PARTS), help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        warnings.simplefilter("ignore")
        clock = Clock(options.seconds)
        globals()[options.part](options, clock)
        if clock.left > 0:
            say(whole=True)
        return
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("PyTorch finds no GPU here; --device cpu shows that all parts run")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    started = time.monotonic()
    whole: dict[str, Any] = {**about(options.device), "budget": options.budget, "parts": {}}

    def keep() -> None:
        whole["seconds"] = time.monotonic() - started
        if options.json:
            temporary = options.json.with_suffix(".partial")
            temporary.write_text(json.dumps(whole, indent=2) + "\n")
            temporary.replace(options.json)

    keep()
    shares = {name: PARTS[name] for name in options.parts}
    for i, name in enumerate(shares):
        left = options.budget - (time.monotonic() - started)
        share = shares[name] / sum(list(shares.values())[i:])
        print(f"{name}: at most {left * share:.0f} s", flush=True)
        part = whole["parts"][name] = {"cut_short": True, "found": []}
        run_part(name, options, left * share, part, keep)
        keep()
    for name, part in whole["parts"].items():
        ended = "failed" if "failed" in part else "cut short" if part["cut_short"] else "whole"
        print(f"{name}: {ended}, {part['seconds']:.0f} s, {len(part['found'])} results")
    print(f"{whole['device']}: {whole['seconds']:.0f} s of {options.budget:.0f}")


if __name__ == "__main__":
    main()
