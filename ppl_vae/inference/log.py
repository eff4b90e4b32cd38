"""What a fit tells of each epoch while it runs: to loggers of Fabric, and to a function."""

from __future__ import annotations

__all__ = ["Log"]

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ..components.registry import Choice
from ..isolation import seeded

if TYPE_CHECKING:
    from lightning_fabric.loggers.logger import Logger


class Log:
    """The numbers of each epoch, told as they come.

    Of every epoch these are ``train_loss`` and ``learning_rate``, ``validation_loss`` and its
    negative ``bound``, on log p(x), where rows are held out, all as in ``FitResult.history``, and
    ``rows_per_second``, of training rows, validation included. A function gets ``epoch`` too.

    Parameters
    ----------
    loggers
        Fabric's, such as ``fabric.loggers``; their steps are epochs, from 1.
    function
        Called with a dictionary.
    num_rows
        Rows of an epoch.

    Examples
    --------
    >>> told = []
    >>> log = Log((), told.append, num_rows=100)
    >>> log.epoch({"train_loss": [9.0, 8.5], "validation_loss": [8.75], "learning_rate": [0.01]})
    >>> told[0]["epoch"], told[0]["bound"]
    (2, -8.75)
    """

    def __init__(
        self,
        loggers: Sequence[Logger],
        function: Callable[[dict[str, float]], Any] | None,
        num_rows: int,
    ) -> None:
        self.loggers = loggers
        self.function = function
        self.num_rows = num_rows
        self.since = time.perf_counter()

    def start(self, settings: Mapping[str, Any]) -> None:
        """Tell loggers how it is fitted, those that keep such things."""
        kept = {key: value for key, value in settings.items() if key not in _LONG}
        kept |= settings["objective"]
        config = settings["config"]
        if isinstance(config, Mapping):
            kept["latent_dim"] = config["latent_dim"]
            for part in _PARTS:
                kept[part] = str(Choice(config[part], config[f"{part}_options"]))
        for logger in self.loggers:
            with suppress(NotImplementedError):  # the one that writes CSV
                logger.log_hyperparams(kept)

    def epoch(self, history: Mapping[str, Sequence[float]]) -> None:
        """Tell of the epoch that has ended. What is called does not change the fit by drawing."""
        seconds = time.perf_counter() - self.since
        number = len(history["train_loss"])
        told = {name: values[-1] for name, values in history.items() if values}
        if "validation_loss" in told:
            told["bound"] = -told["validation_loss"]
        told["rows_per_second"] = self.num_rows / max(seconds, 1e-9)
        with seeded(0):
            for logger in self.loggers:
                logger.log_metrics(told, step=number)
            if self.function is not None:
                self.function({"epoch": number, **told})
        self.since = time.perf_counter()

    def close(self) -> None:
        """Have loggers write what they hold. They stay open: whoever made them ends them."""
        for logger in self.loggers:
            logger.save()


# What is told otherwise, or is long, or means nothing to a reader.
_LONG = ("config", "data", "objective", "validation")
_PARTS = ("network", "likelihood", "prior", "guide")
