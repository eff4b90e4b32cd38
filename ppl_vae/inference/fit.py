"""Fit a VAE by stochastic variational inference: the loop around a Pyro ELBO."""

from __future__ import annotations

__all__ = ["FitResult", "fit"]

import math
import os
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyro
import torch
from pyro.infer import ELBO, Trace_ELBO
from torch import Tensor, nn

from ..isolation import isolated, seeded
from ..processor import map_constants
from ..progress import Progress
from ..renamed import renamed
from ..rows import Rows
from ..vae import VAE
from .checkpoint import load_checkpoint, save_checkpoint
from .engine.step import ENGINES, Step, choose_engine

if TYPE_CHECKING:
    import xarray as xr
    from lightning_fabric import Fabric

_REPORT = 50  # steps between two looks at the loss, for which a GPU has to be waited for

_SCHEDULES: dict[str, Callable[[float], float]] = {
    "one_cycle": lambda t: t / 0.1 if t < 0.1 else 0.5 * (1 + math.cos(math.pi * (t - 0.1) / 0.9)),
    "constant": lambda t: 1.0,
}


@dataclass(frozen=True)
class FitResult:
    """What a fit did.

    Attributes
    ----------
    history
        By epoch: ``train_loss`` and ``validation_loss``, minus the ELBO in nats per row, and
        ``learning_rate``. The attribute ``best_epoch`` says whose weights were kept.
    stop_reason
        Why it ended, in words.
    finite
        Whether the loss was a number to the end.
    seconds
        Wall-clock time of fitting; of a resumed fit, with what it took before it was stopped.
    rows_per_second
        Rows of training data over that time, validation included.
    """

    history: xr.Dataset
    stop_reason: str
    finite: bool
    seconds: float
    rows_per_second: float


@renamed(context="covariates")
def fit(
    vae: VAE,
    x: Tensor,
    *,
    covariates: Tensor | None = None,
    validation: Tensor | tuple[Tensor, Tensor] | float | None = None,
    epochs: int = 100,
    batch_size: int | None = None,
    learning_rate: float = 2e-3,
    schedule: str = "one_cycle",
    max_gradient_norm: float = 100.0,
    patience: int | None = None,
    binarize: str = "none",
    objective: ELBO | None = None,
    engine: str = "auto",
    on_epoch: Callable[[int], None] | None = None,
    fabric: Fabric | None = None,
    seed: int = 0,
    checkpoint_dir: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: bool = True,
) -> FitResult:
    """Fit a VAE to rows of data by SVI, in place.

    Each step takes a batch of rows, the gradient of a Pyro ELBO, and one fused Adam step. With
    the same seed and engine on the same machine the result is the same to the last bit; random
    state, param store and validation flag are given back as they were.

    Parameters
    ----------
    vae
        Its parameters change in place; frozen ones (``requires_grad=False``) do not.
    x
        Rows, shape ``(row, *event)``: floating point with NaN for missing entries, or ``uint8``
        intensities, which stay so until they are a batch.
    covariates
        Shape ``(row, covariate)``, for a conditional VAE.
    validation
        Held-out rows, or a pair of rows and covariates, or the fraction of ``x`` to hold out. Their
        loss is taken after each epoch, and the weights of the best epoch are kept.
    epochs
        Passes over the data.
    batch_size
        Rows a step; by default 128, or all rows where there are fewer. The last batch of a pass
        may be shorter.
    learning_rate, schedule
        Adam's, and how it moves: ``"one_cycle"`` rises over the first tenth of the steps and
        then falls to zero along a cosine; ``"constant"`` stays.
    max_gradient_norm
        The gradient of the loss per row is scaled down to this norm where it exceeds it.
    patience
        Stop after this many epochs without a better validation loss. None never does.
    binarize
        ``"none"``, ``"threshold"`` (at one half), ``"static"`` (drawn once, from ``seed``) or
        ``"dynamic"`` (drawn afresh each epoch). Validation rows are drawn once.
    objective
        Any Pyro ELBO with a differentiable loss; ``Trace_ELBO()`` if not given.
    engine
        How to take a step; the result is the same but for rounding. ``"eager"`` runs Pyro's
        handlers every time. ``"graph"`` runs them once, and from then on replays the tensor
        operations that they led to. ``"compiled"`` compiles these, which takes seconds and needs
        a C++ compiler. ``"auto"`` chooses by the number of steps: graph from 1,000 on, compiled
        from 10,000 on. Shorter last batches are run eagerly, and so is all that cannot be
        recorded, with a warning that says why.
    on_epoch
        Called with the number of epochs done, before the first step and after each epoch, while
        the VAE has the weights of that moment. What it draws does not change the fit; what it
        raises ends it.
    fabric
        Where, and in what precision, to run: by default
        ``lightning_fabric.Fabric(accelerator="auto", devices=1)``. The VAE stays on its device.
        With ``precision="bf16-mixed"`` matrix products and convolutions round to bfloat16, while
        parameters, inputs and the optimizer keep theirs. For TensorFloat-32 on a GPU call
        ``torch.set_float32_matmul_precision("high")`` before.
    seed
        Decides the order of rows, binarization and the guide's draws.
    checkpoint_dir, resume
        Where to keep the state of the fit, at the end of epochs and at most every five seconds,
        and whether to go on from the state that is there. A resumed fit ends exactly as it would
        have without the stop.
    progress
        Show loss, rows per second and time left on standard error.

    Returns
    -------
    FitResult

    Raises
    ------
    TypeError, ValueError
        If an argument is not accepted, ``x`` is not what the VAE describes, or the checkpoint is
        of another fit.

    Warns
    -----
    RuntimeWarning
        If the loss or its gradient is not finite. The fit stops there and says why; the VAE is
        given the weights of the best epoch, or of the last one where there is no validation.

    Notes
    -----
    Source: Kingma & Welling (2014), algorithm 1; dynamic binarization: Burda et al. (2016).

    Examples
    --------
    >>> from ppl_vae import VAEConfig
    >>> x = (torch.rand(256, 8, 8) < 0.5).float()
    >>> vae = VAE.from_config(VAEConfig.for_data(x, hidden=(32,)))
    >>> result = fit(vae, x, epochs=3, validation=0.25, progress=False)
    >>> dict(result.history.sizes), result.stop_reason
    ({'epoch': 3}, 'all 3 epochs done')
    """
    objective = Trace_ELBO() if objective is None else objective
    _check_options(
        objective, epochs, learning_rate, schedule, max_gradient_norm, patience, validation, engine
    )
    rows, validation_rows = _split(vae, Rows(x, covariates), validation, binarize, seed)
    if not any(parameter.requires_grad for parameter in vae.parameters()):
        raise ValueError(
            "vae has no parameters to fit: all are frozen; call requires_grad_(True) on some part"
        )
    if len(rows) < 2:
        raise ValueError("x has 1 row to fit to; a VAE describes how rows differ: pass at least 2")
    if batch_size is None:
        batch_size = min(128, len(rows))
    elif not 1 <= batch_size <= len(rows):
        raise ValueError(
            f"batch_size is {batch_size} but there are {len(rows)} rows to fit to; "
            f"pass a number from 1 to {len(rows)}"
        )
    settings = {
        "config": vae.config.model_dump() if vae.config else repr(vae),
        "rows": len(rows),
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "schedule": schedule,
        "max_gradient_norm": max_gradient_norm,
        "binarize": binarize,
        "objective": type(objective).__name__,
        "seed": seed,
    }
    fabric = _one_process(fabric)
    vae.to(fabric.device)
    rows = rows.to(fabric.device)
    validation_rows = validation_rows.to(fabric.device) if validation_rows else None
    checkpoint = Path(checkpoint_dir) if checkpoint_dir is not None else None
    was_training = vae.training
    with (
        isolated(seed),
        warnings.catch_warnings(),
        Progress(epochs * len(rows), show=progress) as bar,
    ):
        # The guard below says more.
        warnings.filterwarnings("ignore", "Encountered NaN", UserWarning)
        loop = _Loop(
            vae,
            objective,
            fabric,
            max_gradient_norm,
            choose_engine(engine, epochs * (len(rows) // batch_size)),
        )
        spent = 0.0
        if checkpoint and resume:
            saved = load_checkpoint(checkpoint, settings=settings)
            if saved is not None:
                groups, history, spent = saved
                loop.restore(groups, history)
                bar.resume(loop.epoch * len(rows))
        started = time.perf_counter() - spent
        _call(on_epoch, loop.epoch)
        written, reason, finite = time.perf_counter(), f"all {epochs} epochs done", True
        while loop.epoch < epochs:
            try:
                loop.run_epoch(
                    rows,
                    batch_size,
                    lambda t: learning_rate * _SCHEDULES[schedule](t / epochs),
                    bar,
                )
                loop.end_epoch(validation_rows, seed)
                _call(on_epoch, loop.epoch)
            except _NotFiniteError as failure:
                reason, finite = str(failure), False
                break
            if patience is not None and loop.epochs_since_best >= patience:
                reason = f"no better validation loss for {patience} epochs"
                break
            if checkpoint and (time.perf_counter() - written > 5 or loop.epoch == epochs):
                save_checkpoint(
                    checkpoint,
                    loop.state(),
                    settings=settings,
                    history=loop.history,
                    seconds=time.perf_counter() - started,
                )
                written = time.perf_counter()
        seconds = time.perf_counter() - started
        vae.load_state_dict(loop.best)
        vae.train(was_training)
    if not finite:
        warnings.warn(f"the fit stopped early: {reason}", RuntimeWarning, stacklevel=2)
    speed = loop.epoch * len(rows) / max(seconds, 1e-9)
    return FitResult(loop.history_dataset(), reason, finite, seconds, speed)


def _call(on_epoch: Callable[[int], None] | None, epoch: int) -> None:
    if on_epoch is not None:
        with seeded(0):
            on_epoch(epoch)


class _NotFiniteError(ArithmeticError):
    pass


class _Loss(nn.Module):
    """Minus the ELBO of a batch, nats per row, as the forward pass that Fabric wraps."""

    def __init__(self, vae: VAE, objective: Any) -> None:
        super().__init__()
        self.vae = vae
        self.objective = objective

    def forward(self, x: Tensor, covariates: Tensor | None = None) -> Tensor:
        return self.objective.differentiable_loss(
            self.vae.model, self.vae.guide, x, covariates
        ) / len(x)


class _Loop:
    """The state of a fit, and how one epoch changes it."""

    def __init__(
        self, vae: VAE, objective: Any, fabric: Fabric, max_gradient_norm: float, engine: str
    ) -> None:
        self.vae = vae
        self.objective = objective
        self.device = fabric.device
        self.step = Step(
            _Loss(vae, objective), fabric, max_gradient_norm=max_gradient_norm, engine=engine
        )
        self.best = self.weights()
        self.history: dict[str, list[float]] = {
            "train_loss": [],
            "validation_loss": [],
            "learning_rate": [],
        }

    @property
    def epoch(self) -> int:
        return len(self.history["train_loss"])

    @property
    def best_epoch(self) -> int:
        losses = self.history["validation_loss"]
        return losses.index(min(losses)) if losses else self.epoch - 1

    @property
    def epochs_since_best(self) -> int:
        return self.epoch - 1 - self.best_epoch

    def weights(self) -> dict[str, Tensor]:
        return {key: value.clone() for key, value in self.vae.state_dict().items()}

    def run_epoch(
        self,
        rows: Rows,
        batch_size: int,
        learning_rate: Callable[[float], float],
        bar: Progress,
    ) -> None:
        map_constants()
        self.vae.train()
        like = self.vae.like
        order = torch.randperm(len(rows))
        if self.epoch == 0:
            # Once, with Pyro's checks on: a program with a wrong structure fails here, and says so.
            with pyro.validation_enabled(True), torch.no_grad(), seeded(0):
                first = rows.take(order[:2], like).inputs
                self.objective.loss(self.vae.model, self.vae.guide, *first)
        total, unread = 0.0, []
        for start in range(0, len(rows), batch_size):
            rate = learning_rate(self.epoch + (start + 0.5 * batch_size) / len(rows))
            batch = rows.take(order[start : start + batch_size], like).inputs
            size = len(batch[0])
            loss, norm = self.step(batch, rate, whole=size == batch_size)
            unread.append((start // batch_size, rate, size, loss, norm))
            if len(unread) == _REPORT or start + batch_size >= len(rows):
                total += self.read(unread, bar)
                unread = []
        self.history["train_loss"].append(total / len(rows))
        self.history["learning_rate"].append(rate)

    def read(self, steps: list[tuple[int, float, int, Tensor, Tensor]], bar: Progress) -> float:
        """The sum over rows of the losses of some steps, all of which have to be numbers."""
        values = torch.stack([torch.stack(step[3:]) for step in steps]).tolist()
        total, size = 0.0, 0
        for (step, rate, rows, *_), (loss, norm) in zip(steps, values, strict=True):
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise _NotFiniteError(self._explanation(loss, norm, step, rate))
            total, size = total + loss * rows, size + rows
        bar.advance(size, f"{values[-1][0]:.2f} nats per row")
        return total

    @torch.no_grad()
    def end_epoch(self, rows: Rows | None, seed: int) -> None:
        """Record the validation loss, by the same draws each time, and keep the best weights."""
        if rows is not None:
            self.vae.eval()
            with seeded(seed):
                total = sum(
                    self.step.loss(*batch.inputs).item() * len(batch.x)
                    for _, batch in rows.chunks(1024, self.vae.like)
                )
            if not math.isfinite(total):
                raise _NotFiniteError(
                    f"the validation loss is {total} after epoch {self.epoch}, while the training "
                    "loss is a number: a validation row may lie far from every training row"
                )
            self.history["validation_loss"].append(total / len(rows))
        if self.epochs_since_best == 0:
            self.best = self.weights()

    def state(self) -> dict[str, Mapping[str, Tensor]]:
        adam = {name: value.clone() for name, value in self.step.state.items()}
        random = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            random["cuda"] = torch.cuda.get_rng_state()
        return {"vae": self.weights(), "best": self.best, "adam": adam, "random": random}

    def restore(
        self, groups: Mapping[str, Mapping[str, Tensor]], history: dict[str, list[float]]
    ) -> None:
        self.vae.load_state_dict(groups["vae"])
        self.best = {k: v.to(self.device) for k, v in groups["best"].items()}
        for name, value in self.step.state.items():
            value.copy_(groups["adam"][name])
        torch.set_rng_state(groups["random"]["cpu"])
        if "cuda" in groups["random"] and torch.cuda.is_available():
            torch.cuda.set_rng_state(groups["random"]["cuda"])
        self.history = history

    def history_dataset(self) -> xr.Dataset:
        import xarray as xr

        recorded = {key: ("epoch", values) for key, values in self.history.items() if values}
        return xr.Dataset(
            recorded,
            coords={"epoch": range(1, self.epoch + 1)},
            attrs={"unit": "nats per row", "best_epoch": self.best_epoch + 1},
        )

    def _explanation(self, loss: float, norm: float, step: int, rate: float) -> str:
        if self.epoch == step == 0:
            cause = "this is the first step, so that the data are too large or too far from zero"
        elif self.epoch == 0 or norm != norm or loss != loss:
            cause = f"a learning rate of {rate:.2g} is likely too high; try a tenth of it"
        else:
            cause = "a row may lie far from all others; look for outliers in x"
        kept = f"after epoch {self.best_epoch + 1}" if self.epoch else "that it started with"
        return (
            f"the loss is {loss} and its gradient's norm {norm} at epoch {self.epoch + 1}, "
            f"step {step + 1}: {cause}. The weights are those {kept}"
        )


def _check_options(
    objective: ELBO,
    epochs: int,
    learning_rate: float,
    schedule: str,
    max_gradient_norm: float,
    patience: int | None,
    validation: object,
    engine: str,
) -> None:
    if not hasattr(objective, "differentiable_loss"):
        raise TypeError(
            f"objective is {objective!r}; pass an instance of a Pyro ELBO with a differentiable "
            "loss, such as Trace_ELBO() or TraceMeanField_ELBO()"
        )
    if epochs < 1:
        raise ValueError(f"epochs is {epochs}; pass at least 1")
    if not 0 < learning_rate < math.inf:
        raise ValueError(f"learning_rate is {learning_rate}; pass a positive number")
    if schedule not in _SCHEDULES:
        accepted = ", ".join(map(repr, _SCHEDULES))
        raise ValueError(f"schedule is {schedule!r}; accepted are {accepted}")
    if not max_gradient_norm > 0:
        raise ValueError(f"max_gradient_norm is {max_gradient_norm}; pass a positive number")
    if patience is not None and (patience < 1 or validation is None):
        raise ValueError(
            f"patience is {patience} and validation {'not ' if validation is None else ''}given; "
            "pass a patience of at least 1 together with validation rows"
        )
    if engine not in ENGINES:
        accepted = ", ".join(map(repr, ENGINES))
        raise ValueError(f"engine is {engine!r}; accepted are {accepted}")


def _split(
    vae: VAE,
    rows: Rows,
    validation: Tensor | Rows | tuple[Tensor, Tensor] | float | None,
    binarize: str,
    seed: int,
) -> tuple[Rows, Rows | None]:
    """Rows to fit to and held-out rows, as bits if these are asked for: the latter drawn once."""
    _check_rows(vae, rows, binarize, "x")
    once = "static" if binarize == "dynamic" else binarize
    if validation is None:
        return Rows(rows, binarize=binarize, seed=seed), None
    if isinstance(validation, float):
        size = round(len(rows) * validation)
        if not 1 <= size < len(rows):
            raise ValueError(
                f"validation is {validation} of {len(rows)} rows, which holds out {size}; pass a "
                "fraction that holds out at least one row and not all"
            )
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
        held_out, rows = rows.select(order[:size]), rows.select(order[size:])
    else:
        held_out = Rows(*(validation if isinstance(validation, tuple) else (validation,)))
        _check_rows(vae, held_out, binarize, "validation")
    return Rows(rows, binarize=binarize, seed=seed), Rows(held_out, binarize=once, seed=seed)


def _check_rows(vae: VAE, rows: Rows, binarize: str, name: str) -> None:
    # Which bits are drawn does not matter to what the model accepts.
    seen = rows if binarize == "none" else Rows(rows, binarize="threshold")
    seen.check(vae, name=name)


def _one_process(fabric: Fabric | None) -> Fabric:
    if fabric is None:
        from lightning_fabric import Fabric

        fabric = Fabric(accelerator="auto", devices=1)
    if fabric.world_size > 1:
        raise ValueError(
            f"fabric runs {fabric.world_size} processes; fit runs in one: pass Fabric(devices=1)"
        )
    if getattr(fabric.strategy.precision, "scaler", None) is not None:
        raise ValueError(
            "fabric's precision is '16-mixed', which scales losses and gradients; pass "
            "Fabric(precision='bf16-mixed'), which has no need to"
        )
    fabric.launch()
    return fabric
