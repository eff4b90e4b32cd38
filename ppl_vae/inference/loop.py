"""The loop of a fit: epochs of steps, validation, and what is kept of them."""

from __future__ import annotations

__all__ = ["Loop", "Loss", "NotFiniteError", "default_objective"]

import math
from collections.abc import Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import pyro
import torch
from pyro.infer import ELBO, Trace_ELBO
from torch import Tensor, nn

from ..amortized import AmortizedModel
from ..batches import batches, shares, shuffled
from ..isolation import isolated, seeded
from ..processor import map_constants
from ..progress import Progress
from ..rows import Rows
from .averaging import Average
from .engine.step import Step
from .objectives import Elbo, MeanField, RowObjective, StickingTheLanding
from .schedules import Schedule
from .threads import Threads

if TYPE_CHECKING:
    import xarray as xr
    from lightning_fabric import Fabric

# Steps between two looks at the loss, for which a GPU has to be waited for.
_REPORT = 50
# Steps between two looks at what a recording read, where no code of the user runs between steps.
_LOOK = 16
# Rows of a batch of validation.
_VALIDATED = 1024


class NotFiniteError(ArithmeticError):
    """A loss, a gradient or a weight is not finite."""


class Loss(nn.Module):
    """Minus the objective of a batch, nats per row, as the forward pass that Fabric wraps.

    Parameters
    ----------
    vae, objective
        What is fitted, and what is maximized.
    num_rows
        How many rows there are in all.
    weighted
        Whether the last input of a batch is the weights of its rows.
    """

    def __init__(
        self, vae: AmortizedModel, objective: ELBO, num_rows: int, *, weighted: bool = False
    ) -> None:
        super().__init__()
        self.vae = vae
        self.objective = objective
        self.num_rows = num_rows
        self.weighted = weighted

    def forward(self, *inputs: Tensor) -> Tensor:
        size = len(inputs[0])
        if isinstance(self.objective, RowObjective):
            *given, weights = inputs if self.weighted else (*inputs, None)
            terms, _, factor = self.objective.terms(self.vae.model, self.vae.guide, *given)
            by_row = self.objective.by_row(terms, self.num_rows)
            return -factor * (by_row if weights is None else weights * by_row).sum() / size
        loss: Any = self.objective
        return loss.differentiable_loss(self.vae.model, self.vae.guide, *inputs) / size


def default_objective(vae: AmortizedModel, rows: Rows) -> ELBO:
    """The ELBO by row, or Pyro's own for programs of another structure, or not reparameterized."""
    was_training = vae.training
    vae.eval()
    try:
        with isolated(0), torch.no_grad():
            first = rows.take(torch.arange(min(2, len(rows))), vae.like).inputs
            Elbo().terms(vae.model, vae.guide, *first)
    except ValueError:
        return Trace_ELBO()
    finally:
        vae.train(was_training)
    return Elbo()


class Loop:
    """The state of a fit, and how one epoch changes it.

    Parameters
    ----------
    vae
        The model that is fitted.
    objective
        What is maximized.
    fabric
        The device and the precision.
    epochs
        Passes over the data.
    num_rows
        How many rows there are to fit to.
    weighted
        Whether rows have weights.
    average
        The part of a fit over which weights are averaged; 0 does not: see :class:`Average`.
    threads
        Learns how long steps take; by default nothing is made of it.
    options
        Arguments of :class:`~ppl_vae.inference.engine.step.Step`.
    """

    def __init__(
        self,
        vae: AmortizedModel,
        objective: ELBO,
        fabric: Fabric,
        *,
        epochs: int,
        num_rows: int,
        weighted: bool = False,
        average: float = 0.0,
        threads: Threads | None = None,
        **options: Any,
    ) -> None:
        self.vae = vae
        self.threads = threads or Threads()
        self.objective = objective
        self.epochs = epochs
        self.average = Average(vae, average) if average else None
        self.device = fabric.device
        if isinstance(objective, RowObjective):
            objective.to(fabric.device)
        of_pyro = not isinstance(objective, RowObjective)
        elbo = isinstance(objective, Trace_ELBO) or type(objective) in _ELBOS
        self.called = "ELBO" if elbo else "objective"
        loss = Loss(vae, objective, num_rows, weighted=weighted)
        self.step = Step(loss, fabric, of_pyro=of_pyro, **options)
        self.ranks = self.step.ranks
        # Two rows of normalization have a variance; one has none.
        self.least = 2 if any(isinstance(m, _NORMALIZATIONS) for m in vae.modules()) else 1
        self.best = self.weights()
        self.history: dict[str, list[float]] = {
            "train_loss": [],
            "validation_loss": [],
            "learning_rate": [],
        }

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return len(self.history["train_loss"])

    @property
    def best_epoch(self) -> int:
        """The epoch, from 0, whose weights are kept."""
        losses = self.history["validation_loss"]
        return losses.index(min(losses)) if losses else self.epoch - 1

    @property
    def epochs_since_best(self) -> int:
        """How long the best epoch is ago."""
        return self.epoch - 1 - self.best_epoch

    def weights(self) -> dict[str, Tensor]:
        """A copy of the state of what is fitted."""
        return {key: value.clone() for key, value in self.vae.state_dict().items()}

    def run_epoch(
        self, rows: Rows, batch_size: int, learning_rate: float, schedule: Schedule, bar: Progress
    ) -> None:
        """Go through all rows once, in an order of its own.

        Raises
        ------
        NotFiniteError
            If a loss or its gradient is not finite.
        """
        map_constants()
        self.vae.train()
        like = self.vae.like
        order = shuffled(rows)
        if self.epoch == 0:
            # Once, with Pyro's checks on: a program with a wrong structure fails here, and says so.
            with pyro.validation_enabled(True), torch.no_grad(), seeded(0):
                few = rows.take(order[: max(2, self.least)], like).inputs
                objective: Any = self.objective
                objective.loss(self.vae.model, self.vae.guide, *few)
        ranks, total, unread = self.ranks, 0.0, []
        shared = shares(
            rows, order, batch_size, rank=ranks.rank, world=ranks.world, least=self.least
        )
        batch_size *= ranks.world
        # Only code of the user changes what a recording read: a source of rows, an objective, a
        # schedule, or what it did between epochs; other threads may at any time.
        ours = rows.in_memory and all(
            getattr(part, "__module__", "").startswith(__package__)
            for part in (type(self.objective), schedule)
        )
        done = 0
        with ranks.own_noise():
            read = batches(rows, [part for part, _ in shared], like)
            for i, ((chosen, size), batch) in enumerate(zip(shared, read, strict=True)):
                now = (self.epoch + (done + 0.5 * batch_size) / len(rows)) / self.epochs
                if isinstance(self.objective, RowObjective):
                    self.objective.advance(min(now, 1.0))
                factor = schedule(now)
                rate = learning_rate * factor
                inputs = batch.inputs
                weights = rows.weights(chosen, like)
                if weights is not None:
                    inputs = (*inputs, weights)
                whole = size == batch_size
                with self.threads.timed(counts=whole):
                    loss, norm = self.step(
                        inputs,
                        rate,
                        factor=factor,
                        share=len(chosen) / size,
                        whole=whole,
                        look=not ours or i % _LOOK == 0,
                    )
                if self.average is not None:
                    self.average.update()
                unread.append((i, rate, size, loss, norm))
                done += size
                if len(unread) == _REPORT or done == len(rows):
                    total += self._read(unread, bar)
                    unread = []
        self._share_buffers()
        self.history["train_loss"].append(total / len(rows))
        self.history["learning_rate"].append(rate)

    def _share_buffers(self) -> None:
        """Average what ranks normalize by; of what else a rank changed by itself, keep one's."""
        running = {
            f"{name}.{kind}" if name else kind
            for name, module in self.vae.named_modules()
            if isinstance(module, _NORMALIZATIONS)
            for kind in ("running_mean", "running_var")
        }
        buffers = dict(self.vae.named_buffers())
        mean = {} if self.average is None else self.average.mean
        averaged = [value for key, value in [*buffers.items(), *mean.items()] if key in running]
        self.ranks.average(averaged)
        self.ranks.follow_first([value for key, value in buffers.items() if key not in running])

    def _read(self, steps: list[tuple[int, float, int, Tensor, Tensor]], bar: Progress) -> float:
        """The sum over rows of the losses of some steps, all of which have to be finite."""
        values = torch.stack([torch.stack(step[3:]) for step in steps]).tolist()
        total, size = 0.0, 0
        for (step, rate, rows, *_), (loss, norm) in zip(steps, values, strict=True):
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise NotFiniteError(self._explanation(loss, norm, step, rate))
            total, size = total + loss * rows, size + rows
        bar.advance(size, f"{self.called} {-values[-1][0]:.2f} nats per row")
        return total

    @torch.no_grad()
    def end_epoch(self, rows: Rows | None, seed: int) -> None:
        """Record the validation loss, by the same draws each time, and keep the best weights.

        It is minus a bound on log p(x), whatever is maximized: a warm-up that has hardly begun
        would else look best.

        Raises
        ------
        NotFiniteError
            If it, or a weight, is not finite.
        """
        fitted = nullcontext() if self.average is None else self.average.applied()
        with fitted:
            self._end_epoch(rows, seed)

    def _end_epoch(self, rows: Rows | None, seed: int) -> None:
        kept = f"after epoch {self.best_epoch + 1}" if self.epoch > 1 else "that it started with"
        for name, parameter in self.vae.named_parameters():
            if not parameter.isfinite().all():
                raise NotFiniteError(
                    f"{name} has weights that are not finite after epoch {self.epoch}, while the "
                    f"loss is a number. The weights are those {kept}"
                )
        if rows is not None:
            self.vae.eval()
            total = self.ranks.total(self._validation_loss(rows, seed))
            if not math.isfinite(total):
                raise NotFiniteError(
                    f"the validation loss is {total} after epoch {self.epoch}, while the training "
                    "loss is a number: a validation row may lie far from every training row"
                )
            self.history["validation_loss"].append(total / len(rows))
        if self.epochs_since_best == 0:
            self.best = self.weights()

    def _validation_loss(self, rows: Rows, seed: int) -> float:
        """The sum over those chunks of rows that are this rank's, each by draws of its own."""
        like, size = self.vae.like, len(rows)
        starts = range(0, size, _VALIDATED)[self.ranks.rank :: self.ranks.world]
        chunks = [slice(start, min(start + _VALIDATED, size)) for start in starts]
        total = 0.0
        for chunk, batch in zip(chunks, rows.stream(chunks, like), strict=True):
            with seeded(seed + chunk.start // _VALIDATED):
                total += self._validated(batch.inputs, rows.weights(chunk, like)).item()
        return total

    def _validated(self, inputs: tuple[Tensor, ...], weights: Tensor | None) -> Tensor:
        given = self.vae.model, self.vae.guide, *inputs
        with self.step.fabric.autocast():
            if isinstance(self.objective, RowObjective):
                return self.objective.negative_bound(*given, weights=weights)
            try:
                return Elbo().negative_bound(*given)
            except ValueError:  # a structure that only the user's own ELBO can evaluate
                loss: Any = self.objective
                return loss.differentiable_loss(*given)

    def state(self) -> dict[str, Mapping[str, Tensor]]:
        """Groups of tensors from which the fit can be gone on with, which the next step changes."""
        random = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            random["cuda"] = torch.cuda.get_rng_state()
        groups: dict[str, Mapping[str, Tensor]] = {
            "vae": self.vae.state_dict(),
            "best": self.best,
            "adam": self.step.state,
            "random": random,
        }
        if self.average is not None:
            groups["average"] = self.average.state()
        return groups

    def restore(
        self, groups: Mapping[str, Mapping[str, Tensor]], history: dict[str, list[float]]
    ) -> None:
        """Go on from what :meth:`state` gave."""
        self.vae.load_state_dict(groups["vae"])
        if self.average is not None:
            self.average.restore(groups["average"])
        self.best = {k: v.to(self.device) for k, v in groups["best"].items()}
        for name, value in self.step.state.items():
            value.copy_(groups["adam"][name])
        torch.set_rng_state(groups["random"]["cpu"])
        if "cuda" in groups["random"] and torch.cuda.is_available():
            torch.cuda.set_rng_state(groups["random"]["cuda"])
        self.history = history

    def history_dataset(self) -> xr.Dataset:
        """What was recorded by epoch; NaN of one that ended before its validation did."""
        import xarray as xr

        recorded = {
            key: ("epoch", [*values, *[math.nan] * (self.epoch - len(values))])
            for key, values in self.history.items()
            if values
        }
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


# What is maximized by these is the ELBO itself.
_ELBOS = (Elbo, MeanField, StickingTheLanding)
_NORMALIZATIONS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
