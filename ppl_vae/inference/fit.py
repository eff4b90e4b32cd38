"""Fit a VAE by stochastic variational inference: the loop around a Pyro ELBO."""

from __future__ import annotations

__all__ = ["FitResult", "fit"]

import math
import os
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from pyro.infer import ELBO

from ..amortized import AmortizedModel
from ..components.registry import Choice
from ..isolation import isolated, seeded
from ..progress import Progress
from ..renamed import renamed
from ..rows import Rows
from .checkpoint import Checkpoints
from .engine.step import ENGINES, choose_engine
from .held_out import split
from .log import Log
from .loop import Loop, NotFiniteError, default_objective
from .objectives import objective_of
from .ranks import Ranks, launched, suitable
from .schedules import Schedule, schedule_of
from .settings import description, name_of, settings_of
from .threads import Threads

if TYPE_CHECKING:
    import xarray as xr
    from lightning_fabric import Fabric


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
    threads
        How many steps were taken by each number of threads of the processor.
    """

    history: xr.Dataset
    stop_reason: str
    finite: bool
    seconds: float
    rows_per_second: float
    threads: Mapping[int, int]


@renamed(context="covariates")
def fit(
    vae: AmortizedModel,
    x: Any,
    *,
    covariates: Any = None,
    row_weights: Any = None,
    validation: Any = None,
    epochs: int = 100,
    batch_size: int | None = None,
    accumulate: int = 1,
    learning_rate: float = 2e-3,
    schedule: str | Schedule = "one_cycle",
    optimizer: str | Callable[..., torch.optim.Optimizer] = "adam",
    max_gradient_norm: float = 100.0,
    average: float = 0.0,
    patience: int | None = None,
    binarize: str = "none",
    objective: str | Choice | ELBO | None = None,
    engine: str = "auto",
    on_epoch: Callable[[int], None] | None = None,
    on_metrics: Callable[[dict[str, float]], Any] | None = None,
    fabric: Fabric | None = None,
    threads: int | str | None = None,
    seed: int = 0,
    checkpoint_dir: str | os.PathLike[str] | None = None,
    checkpoint_every: float | None = None,
    resume: bool = False,
    progress: bool = True,
) -> FitResult:
    """Fit a VAE to rows of data by SVI, in place.

    Each step takes a batch of rows, the gradient of a Pyro ELBO, and one fused Adam step. With the
    same seed, engine and number of threads on the same machine the result is the same to the last
    bit; random state, param store and validation flag are given back as they were.

    Parameters
    ----------
    vae
        Its parameters change in place; frozen ones (``requires_grad=False``) do not.
    x
        Rows, shape ``(row, *event)``: floating point with NaN for missing entries, or ``uint8``
        intensities, which stay so until they are a batch. Of what is not in memory (a memory map, a
        zarr array, a data set of torch, the path of a .npy, .zarr or .parquet file) batches are
        read ahead by a thread.
    covariates
        Shape ``(row, covariate)``, for a conditional VAE.
    row_weights
        What each row counts in the objective, shape ``(row,)``, such as survey weights: at least 0.
        They are divided by their mean. Rows held out as a fraction keep theirs.
    validation
        Held-out rows, or a pair of rows and covariates, or the fraction of ``x`` to hold out. Their
        loss is taken after each epoch, and the weights of the best epoch are kept.
    epochs
        Passes over the data.
    batch_size
        Rows a step, of each process; by default 128, or all rows where there are fewer. The last
        batch of a pass may be shorter.
    accumulate
        In how many parts the gradient of a batch is computed, one after the other, so that memory
        holds one part, of two rows at least. Objectives that look at a whole batch see a part.
    learning_rate, schedule
        Adam's, and how it moves: ``"one_cycle"`` rises over the first tenth of the steps and
        then falls to zero along a cosine; ``"constant"`` stays; a function of t in [0, 1] returns
        the factor at that part of the fit.
    optimizer
        ``"adam"``; ``"adamw:weight_decay=0.01"`` (Loshchilov & Hutter, 2019); or a function that
        makes one of ``torch.optim`` from a list of parameters, whose own learning rates the
        schedule then multiplies. That runs eagerly, and keeps no checkpoints.
    max_gradient_norm
        The gradient of the loss per row is scaled down to this norm where it exceeds it.
    average
        The part of the fit so far over which weights are averaged, such as 0.1; 0, the default,
        does not average. Validated and kept are the averaged weights (Karras et al., 2024).
    patience
        Stop after this many epochs without a better validation loss. None never does.
    binarize
        ``"none"``, ``"threshold"`` (at one half), ``"static"`` (drawn once, from ``seed``) or
        ``"dynamic"`` (drawn afresh each epoch). Validation rows are drawn once.
    objective
        ``"elbo"`` if not given, ``"mean_field"``, ``"beta:beta=4,warmup=0.5"``,
        ``"iwae:num_particles=10"``, an instance of :class:`~ppl_vae.RowObjective`, or any Pyro ELBO
        with a differentiable loss. Validation goes by a bound on log p(x) in any case.
    engine
        How to take a step; the result is the same but for rounding. ``"eager"`` runs Pyro's
        handlers every time. ``"graph"`` runs them once, and from then on replays the tensor
        operations that they led to. ``"compiled"`` compiles these, which takes seconds and needs
        a C++ compiler. ``"auto"`` chooses by the number of steps: graph from 1,000 on, compiled
        from 10,000 on, but for convolutions on a CPU, which it does not make faster. Shorter last
        batches are run eagerly, and so is all that cannot be recorded, with a warning that says
        why.
    on_epoch
        Called with the number of epochs done, before the first step and after each epoch, while
        the VAE has the weights of that moment. What it draws does not change the fit; what it
        raises ends it.
    on_metrics
        Called after each epoch with its numbers: ``epoch``, ``train_loss``, ``learning_rate``,
        ``validation_loss`` and ``bound``, its negative, in nats per row, and ``rows_per_second``.
    fabric
        Where, and in what precision, to run: by default on one device, or by all processes that
        ``torchrun``, ``fabric run`` or ``srun`` started. ``Fabric(devices=4, num_nodes=2)`` of
        ``lightning_fabric`` starts them. Each has all parameters, a share of the rows of each step,
        and noise of its own; it is given all rows, best as a path. Rank 0 alone writes and shows
        progress, and any number of processes goes on from its checkpoints. What looks at a whole
        batch, such as a batch normalization, sees one process's. The VAE stays on its device.
        With ``precision="bf16-mixed"`` matrix products and convolutions round to bfloat16, while
        parameters, inputs and the optimizer keep theirs. For TensorFloat-32 on a GPU call
        ``torch.set_float32_matmul_precision("high")`` before. Its loggers, as of
        ``Fabric(loggers=CSVLogger("logs"))``, are told what ``on_metrics`` is.
    threads
        Of the processor, while the fit runs: by default PyTorch's number. ``"auto"`` takes as many
        as pay, by the time of steps, and looks again: the more so where other programs run. Sums by
        another number of threads differ in their last digits, so that two such fits may too.
    seed
        Decides the order of rows, binarization and the guide's draws.
    checkpoint_dir, checkpoint_every, resume
        Where to keep the state of the fit, at the end of epochs, after how many seconds again (0:
        after each epoch), and whether to go on from the state that is there. A resumed fit ends
        exactly as it would have without the stop. States are written beside the fit, by default as
        often as costs less than 3 % of its time, and at most every five seconds.
    progress
        Show loss, rows per second and time left on standard error.

    Returns
    -------
    FitResult

    Raises
    ------
    TypeError, ValueError
        If an argument is not accepted, ``x`` is not what the VAE describes, the checkpoint is
        of another fit, or processes were given different arguments.
    ConnectionError
        If another process of this fit has ended, or does not answer for ten minutes.

    Warns
    -----
    RuntimeWarning
        If the loss, its gradient or a weight is not finite. The fit stops there and says why; the
        VAE is given the weights of the best epoch, or of the last one where there is no validation.

    Notes
    -----
    Source: Kingma & Welling (2014), algorithm 1; dynamic binarization: Burda et al. (2016).

    Examples
    --------
    >>> from ppl_vae import VAE, VAEConfig
    >>> x = (torch.rand(256, 8, 8) < 0.5).float()
    >>> vae = VAE.from_config(VAEConfig.for_data(x, hidden=(32,)))
    >>> result = fit(vae, x, epochs=3, validation=0.25, progress=False)
    >>> dict(result.history.sizes), result.stop_reason
    ({'epoch': 3}, 'all 3 epochs done')
    """
    factor = schedule_of(schedule)
    _check_options(epochs, learning_rate, max_gradient_norm, patience, validation, engine)
    rows = Rows(x, covariates, weights=row_weights, table=vae.table)
    vae.table = vae.table or rows.table  # by which other rows are read from now on
    rows, held_out = split(vae, rows, validation, binarize, seed)
    objective = default_objective(vae, rows) if objective is None else objective_of(objective)
    if not any(parameter.requires_grad for parameter in vae.parameters()):
        raise ValueError(
            "vae has no parameters to fit: all are frozen; call requires_grad_(True) on some part"
        )
    if len(rows) < 2:
        raise ValueError("x has 1 row to fit to; a VAE describes how rows differ: pass at least 2")
    fabric = suitable(fabric)
    most = len(rows) // fabric.world_size
    if batch_size is None:
        batch_size = max(1, min(128, most))
    if not 1 <= batch_size <= most:
        each = f" for {fabric.world_size} processes" if fabric.world_size > 1 else ""
        raise ValueError(
            f"batch_size is {batch_size} but there are {len(rows)} rows to fit to{each}; "
            f"pass a number from 1 to {most}"
        )
    if not 1 <= accumulate <= max(1, batch_size // 2):
        raise ValueError(
            f"accumulate is {accumulate} with {batch_size} rows a step; pass a number from 1 to "
            f"{max(1, batch_size // 2)}: a part has two rows at least"
        )
    if row_weights is not None and not getattr(objective, "separable", False):
        raise ValueError(
            f"row_weights were given, but {type(objective).__name__} is no sum of one number for "
            "each row; use objective 'elbo', 'mean_field', 'beta', 'iwae', 'dreg' or 'stl'"
        )
    ranks = Ranks(launched(fabric))
    settings = {
        "config": description(vae),
        "rows": len(rows),
        "epochs": epochs,
        "batch_size": batch_size,
        "accumulate": accumulate,
        "average": average,
        "learning_rate": learning_rate,
        "schedule": schedule if isinstance(schedule, str) else name_of(schedule),
        "optimizer": optimizer if isinstance(optimizer, str) else name_of(optimizer),
        "max_gradient_norm": max_gradient_norm,
        "patience": patience,
        "binarize": binarize,
        "objective": settings_of(objective),
        "engine": engine,
        "precision": str(fabric._precision.precision),
        "seed": seed,
    }
    if checkpoint_dir is not None and callable(optimizer):
        raise ValueError(
            "checkpoint_dir was given, but checkpoints keep the state of 'adam' and 'adamw' alone; "
            "leave it out, or use one of these as optimizer"
        )
    if checkpoint_dir is not None or not ranks.alone:
        settings["data"] = rows.fingerprint()
        settings["validation"] = held_out.fingerprint() if held_out else None
    vae.to(fabric.device)
    was_training = vae.training
    with (
        Checkpoints(checkpoint_dir if ranks.first else None, settings, checkpoint_every) as kept,
        Threads(threads, on_cpu=fabric.device.type == "cpu", alone=ranks.alone) as pool,
        ranks.together(),
        isolated(seed),
        warnings.catch_warnings(),
        Progress(epochs * len(rows), show=progress and ranks.first) as bar,
    ):
        # The check of finite losses below says more than Pyro's warning.
        warnings.filterwarnings("ignore", "Encountered NaN", UserWarning)
        ranks.agree(vae, settings)
        loop = Loop(
            vae,
            objective,
            fabric,
            epochs=epochs,
            num_rows=len(rows),
            weighted=row_weights is not None,
            average=average,
            threads=pool,
            accumulate=accumulate,
            max_gradient_norm=max_gradient_norm,
            engine=choose_engine(engine, epochs * (most // batch_size), vae, fabric.device),
            optimizer=optimizer,
        )
        rows, held_out = rows.to(fabric.device), held_out and held_out.to(fabric.device)
        spent = 0.0
        saved = ranks.made_by_first(kept.load) if resume else None
        log = Log(fabric.loggers if ranks.first else (), on_metrics, len(rows))
        if saved is not None:
            groups, history, spent = saved
            loop.restore(groups, history)
            bar.resume(loop.epoch * len(rows))
        else:
            log.start(settings)
        started = time.perf_counter() - spent
        reason, finite = f"all {epochs} epochs done", True

        def result() -> FitResult:
            seconds = time.perf_counter() - started
            speed = loop.epoch * len(rows) / max(seconds, 1e-9)
            return FitResult(
                loop.history_dataset(), reason, finite, seconds, speed, dict(pool.steps)
            )

        try:
            _call(on_epoch, loop.epoch)
            while loop.epoch < epochs:
                try:
                    loop.run_epoch(rows, batch_size, learning_rate, factor, bar)
                    loop.end_epoch(held_out, seed)
                    log.epoch(loop.history)
                    _call(on_epoch, loop.epoch)
                except NotFiniteError as failure:
                    reason, finite = str(failure), False
                    break
                if patience is not None and loop.epochs_since_best >= patience:
                    reason = f"no better validation loss for {patience} epochs"
                    break
                seconds = time.perf_counter() - started
                kept.offer(loop.state, loop.history, seconds, last=loop.epoch == epochs)
        except KeyboardInterrupt as stop:
            reason = f"interrupted after {loop.epoch} epochs"
            if loop.epoch:
                stop.result = result()  # type: ignore[attr-defined]
                stop.add_note(f"the fit was {reason}; what it did is error.result, a FitResult")
            raise
        finally:
            # Whatever ended the fit, the VAE is whole: an epoch's weights, in the mode it was in.
            vae.load_state_dict(loop.best)
            vae.train(was_training)
            log.close()
    if not finite:
        warnings.warn(f"the fit stopped early: {reason}", RuntimeWarning, stacklevel=3)
    return result()


def _call(on_epoch: Callable[[int], None] | None, epoch: int) -> None:
    if on_epoch is not None:
        with seeded(0):
            on_epoch(epoch)


def _check_options(
    epochs: int,
    learning_rate: float,
    max_gradient_norm: float,
    patience: int | None,
    validation: object,
    engine: str,
) -> None:
    if epochs < 1:
        raise ValueError(f"epochs is {epochs}; pass at least 1")
    if not 0 < learning_rate < math.inf:
        raise ValueError(f"learning_rate is {learning_rate}; pass a positive number")
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
