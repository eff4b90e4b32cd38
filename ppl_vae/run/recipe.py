"""The recipe of a run: data, parts, how it is fitted and judged, with every default once."""

from __future__ import annotations

__all__ = ["DEVICES", "LOGS", "PRECISIONS", "Recipe"]

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..presets import PRESETS
from ..sizes import passes_for

# Precisions of matrix products and convolutions, and Fabric's names for them.
PRECISIONS: Mapping[str, Any] = {"32": "32-true", "tf32": "32-true", "bf16": "bf16-mixed"}
DEVICES = ("auto", "cpu", "cuda")
LOGS = ("csv", "tensorboard")
# Enough to choose an epoch by: the mean of so many rows has a standard error below half a nat.
_VALIDATION_ROWS = 2000
_FEWEST_DRAWS = 30


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a run but the place where it is written.

    In Python :func:`~ppl_vae.fit` has the same defaults where a number suits all data. It differs
    in three that a command has to choose by the data, of which it knows only a name: the number
    of epochs, the rows of a batch, and the rows held out for validation.

    Attributes
    ----------
    data
        Arguments of :func:`~ppl_vae.data.load_splits`.
    choices
        Fields of :class:`~ppl_vae.VAEConfig` to set rather than choose from the data.
    epochs
        None for about 2,000 steps, but from 20 to 200 passes.
    batch_size
        None for a tenth of the rows, but from 16 to 128.
    validation
        The fraction of rows to choose the best epoch by; None for a tenth, but at most 2,000 rows.
    accumulate, learning_rate, schedule, optimizer, average, objective, binarize, patience, engine,
    seed
        As in :func:`~ppl_vae.fit`.
    num_samples
        Draws for each test row that log p(x) is estimated from.
    device
        ``"auto"``, ``"cpu"`` or ``"cuda"``.
    threads
        Of the processor, as in :func:`~ppl_vae.fit`.
    devices, nodes
        How many processes on each machine, each with a device, and how many machines; None for
        one, or what ``torchrun`` or ``srun`` started.
    precision
        The precision of matrix products and convolutions: ``"32"``, ``"tf32"`` or ``"bf16"``.
    checkpoint_every
        Seconds between two checkpoints, as in :func:`~ppl_vae.fit`; None chooses.
    log
        What writes the numbers of each epoch into the run's folder ``log``: ``"csv"`` or
        ``"tensorboard"``; None writes none but ``history.nc``.
    film
        Draw the training, in about thirty frames. Images only.
    preset
        The published VAE that the choices are of, if any.
    continues
        The folder of a finished run whose VAE is fitted further, if any.
    """

    data: Mapping[str, Any] = field(default_factory=lambda: {"name_or_path": "digits"})
    choices: Mapping[str, Any] = field(default_factory=dict)
    epochs: int | None = None
    batch_size: int | None = None
    validation: float | None = None
    accumulate: int = 1
    learning_rate: float = 2e-3
    schedule: str = "one_cycle"
    optimizer: str = "adam"
    average: float = 0.0
    objective: str = "elbo"
    binarize: str = "none"
    patience: int | None = None
    engine: str = "auto"
    seed: int = 0
    num_samples: int = 500
    device: str = "auto"
    threads: int | str | None = None
    devices: int | None = None
    nodes: int | None = None
    precision: str = "32"
    checkpoint_every: float | None = None
    log: str | None = None
    film: bool = False
    preset: str | None = None
    continues: Path | None = None

    @classmethod
    def of_preset(cls, name: str | None, **given: Any) -> Recipe:
        """The recipe of a published VAE, or the default one, with the options given in place.

        Raises
        ------
        ValueError
            If there is no such preset.

        Examples
        --------
        >>> Recipe.of_preset("aevb", epochs=1).learning_rate
        0.001
        """
        given = {key: value for key, value in given.items() if value is not None}
        if name is None:
            return cls(**given)
        if name not in PRESETS:
            raise ValueError(f"there is no preset {name!r}; accepted are {', '.join(PRESETS)}")
        preset = PRESETS[name]
        choices = {**preset.vae, **given.pop("choices", {})}
        # Published VAEs were fitted to all rows.
        published = {
            "validation": 0.0,
            "num_samples": preset.num_samples,
            "precision": _at_hand(preset.precision, given.get("device", "auto")),
            **preset.fit,
        }
        return cls(**{**published, "choices": choices, "preset": name, **given})

    def check(self) -> None:
        """Refuse at once what could not be done after hours of fitting.

        Raises
        ------
        ValueError
            With the option as the command line calls it.
        """
        for name, value, accepted in (
            ("--precision", self.precision, tuple(PRECISIONS)),
            ("--device", self.device, DEVICES),
            ("--log", self.log, (None, *LOGS)),
        ):
            if value not in accepted:
                names = ", ".join(map(repr, filter(None, accepted)))
                raise ValueError(f"{name} is {value!r}; accepted are {names}")
        for name, number in (
            *(("--epochs", self.epochs), ("--batch-size", self.batch_size)),
            *(("--devices", self.devices), ("--nodes", self.nodes)),
        ):
            if number is not None and number < 1:
                raise ValueError(f"{name} is {number}; pass at least 1")
        if self.num_samples < _FEWEST_DRAWS:
            raise ValueError(
                f"--draws is {self.num_samples}, too few to see the tail of the weights; pass at "
                f"least {_FEWEST_DRAWS}, better 500"
            )
        if self.validation is not None and not 0 <= self.validation < 1:
            raise ValueError(
                f"--validation is {self.validation}; pass the fraction of rows to hold out, from 0 "
                "(none) to below 1"
            )
        if self.checkpoint_every is not None and not 0 <= self.checkpoint_every < math.inf:
            raise ValueError(
                f"--checkpoint-every is {self.checkpoint_every}; pass seconds of at least 0"
            )
        if self.seed < 0:
            raise ValueError(f"--seed is {self.seed}; pass a whole number of at least 0")

    def sized(self, rows: int) -> Recipe:
        """The recipe with what is chosen by the number of training rows.

        Examples
        --------
        >>> recipe = Recipe().sized(1438)
        >>> recipe.batch_size, recipe.epochs, recipe.validation
        (128, 182, 0.1)
        """
        validation = self.validation
        if validation is None:
            validation = min(0.1, _VALIDATION_ROWS / rows) if rows >= 20 else 0.0
        kept = rows - round(rows * validation)
        # Small tables need smaller batches to be gone through in enough steps.
        batch_size = self.batch_size or min(kept, 128, max(16, kept // 10))
        epochs = self.epochs or passes_for(kept, batch_size)
        return replace(self, validation=validation, batch_size=batch_size, epochs=epochs)


def _at_hand(precision: str, device: str) -> str:
    """A preset's precision, or "32" on a processor that would work out bfloat16 in software."""
    if precision != "bf16":
        return precision
    import torch

    on_cpu = device == "cpu" or not (torch.cuda.is_available() or torch.mps.is_available())
    fast = not on_cpu or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return precision if fast else "32"
