"""A run folder: what `ppl-vae fit` leaves behind, and what is read from it later."""

from __future__ import annotations

__all__ = ["Run", "evaluate", "fit_run"]

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric

from .. import __version__
from ..config import VAEConfig
from ..data import Dataset, load_splits
from ..inference.fit import FitResult, fit
from ..pictures import latents
from ..pictures import rows as plots
from ..pictures.film import TrainingFilm
from ..rows import binarize, to_float
from ..trees.vae import to_datatree, write_datatree
from ..vae import VAE
from ..workflow.evidence import independent_log_prob, log_evidence
from .unfinished import unfinished

_POSTERIOR_ROWS = 100
# Enough to choose an epoch by: the mean of so many rows has a standard error below half a nat.
_VALIDATION_ROWS = 2000
_PRECISIONS: dict[str, Any] = {"32": "32-true", "tf32": "32-true", "bf16": "bf16-mixed"}


@dataclass(frozen=True)
class Run:
    """A finished run folder.

    Parameters
    ----------
    folder
        Where ``ppl-vae fit`` wrote.

    Raises
    ------
    FileNotFoundError
        If it is no such folder.
    """

    folder: Path

    def __post_init__(self) -> None:
        if not _is_run(self.folder):
            raise FileNotFoundError(
                f"RUN is {str(self.folder)!r}, which is no run folder (it has no config.json of "
                "ppl_vae); make one with ppl-vae fit"
            )

    @property
    def settings(self) -> dict[str, Any]:
        """What the run was asked for: ``data``, ``vae``, ``fit`` and ``binarize``."""
        return json.loads((self.folder / "config.json").read_text())

    def vae(self) -> VAE:
        """The fitted VAE."""
        vae = VAE.load(self.folder / "vae.safetensors")
        recorded = VAEConfig(**self.settings["vae"])
        if vae.config != recorded:
            raise ValueError(
                f"config.json in {str(self.folder)!r} was changed after the fit: it no longer "
                "describes vae.safetensors; undo the change or fit again"
            )
        return vae

    def splits(self) -> tuple[Dataset, Dataset]:
        """Training and test rows, as they were split for the fit."""
        return load_splits(**self.settings["data"])

    def rows(self, data: Dataset) -> torch.Tensor:
        """Rows as the VAE was fitted to them; drawn bits are drawn once, from the run's seed."""
        return _rows_once(data, self.settings["binarize"], self.settings["fit"]["seed"])


def fit_run(
    out: Path,
    data: Mapping[str, Any],
    *,
    choices: Mapping[str, Any],
    binarize: str,
    epochs: int | None,
    validation: float | None,
    num_samples: int,
    film: bool,
    force: bool,
    resume: bool,
    progress: bool,
    device: str,
    precision: str,
    **options: Any,
) -> tuple[Path, VAEConfig, FitResult, dict[str, Any]]:
    """Fit a VAE to a named data set or file, and write the run folder ``out``.

    Everything is written to ``out`` + ``.partial`` and moved to ``out`` when whole; an
    interrupted fit is continued from there by ``resume``.

    Parameters
    ----------
    out
        The folder to write.
    data
        Arguments of :func:`~ppl_vae.data.load_splits`.
    choices
        Fields of :class:`~ppl_vae.VAEConfig` to set rather than choose from the data.
    binarize, options
        As in :func:`~ppl_vae.fit`.
    epochs
        None for about 2,000 steps, but from 20 to 200 passes.
    validation
        The fraction of rows to choose the best epoch by; None for a tenth, but at most 2,000 rows.
    num_samples
        Draws for each test row that log p(x) is estimated from.
    film
        Draw the training, in about thirty frames: ``training.gif``. Images only.
    force
        Replace ``out`` if it is a run folder.
    resume
        Go on with an unfinished run.
    device
        ``"auto"``, ``"cpu"`` or ``"cuda"``.
    precision
        Of matrix products and convolutions: ``"32"``, ``"tf32"`` or ``"bf16"``.

    Returns
    -------
    The folder, the config, the fit's result and the metrics, which are also in the folder. It is
    another folder than ``out`` if somebody made that while the fit ran.
    """
    if precision not in _PRECISIONS:
        raise ValueError(
            f"--precision is {precision!r}; accepted are {', '.join(map(repr, _PRECISIONS))}"
        )
    with unfinished(out, force=force, resume=resume) as work, _products(precision):
        folder = work.folder
        train, test = load_splits(**data)
        seed = options["seed"]
        x_test = _rows_once(test, binarize, seed)
        sample = train.x if binarize == "none" else _rows_once(train, "threshold", seed)
        missing = bool(to_float(sample).isnan().any() or x_test.isnan().any())
        config = VAEConfig.for_data(
            sample, feature_names=train.feature_names, **{"missing": missing, **choices}
        )
        vae = VAE.from_config(config, seed=seed)
        if binarize == "none":
            vae.check(x_test, name="the test rows")
        if validation is None:
            validation = min(0.1, _VALIDATION_ROWS / len(train.x)) if len(train.x) >= 20 else 0.0
        elif not 0 <= validation < 1:
            raise ValueError(
                f"--validation is {validation}; pass the fraction of rows to hold out, from 0 "
                "(none) to below 1"
            )
        held_out = validation or None
        kept = len(train.x) - round(len(train.x) * (held_out or 0))
        if options["batch_size"] is None:
            # Small tables need smaller batches to be gone through in enough steps.
            options["batch_size"] = min(kept, 128, max(16, kept // 10))
        steps = math.ceil(kept / options["batch_size"])
        epochs = epochs if epochs is not None else min(200, max(20, math.ceil(2000 / steps)))
        frames = TrainingFilm(vae, every=math.ceil(epochs / 30), seed=seed) if film else None
        result = fit(
            vae,
            train.x,
            validation=held_out,
            epochs=epochs,
            binarize=binarize,
            fabric=Fabric(accelerator=device, devices=1, precision=_PRECISIONS[precision]),
            checkpoint_dir=folder / "checkpoint",
            resume=resume,
            progress=progress,
            on_epoch=frames,
            **options,
        )
        vae.save(folder / "vae.safetensors")
        settings = {
            "ppl_vae": __version__,
            "data": {k: str(v) if isinstance(v, Path) else v for k, v in data.items()},
            "binarize": binarize,
            "vae": config.model_dump(),
            "fit": {"epochs": epochs, "validation": held_out, "precision": precision, **options},
        }
        (folder / "config.json").write_text(json.dumps(settings, indent=2) + "\n")
        metrics = {
            "data": {"name": train.name, "source": train.source, "train_rows": len(train.x)},
            "test": evaluate(
                vae,
                _rows_once(train, binarize, seed),
                x_test,
                num_samples=num_samples,
                seed=seed,
                progress=progress,
            ),
            "fit": {
                "stop_reason": result.stop_reason,
                "finite": result.finite,
                "epochs": result.history.sizes["epoch"],
                "best_epoch": result.history.attrs["best_epoch"],
                "seconds": result.seconds,
                "rows_per_second": result.rows_per_second,
            },
        }
        some = slice(_POSTERIOR_ROWS)
        labels = None if test.labels is None else test.labels[some]
        tree = to_datatree(
            vae,
            x_test[some],
            labels=labels,
            feature_names=test.feature_names,
            history=result.history,
            progress=progress,
        )
        write_datatree(tree, folder / "posterior.nc")
        write_datatree(result.history, folder / "history.nc")
        for name, figure in {
            "losses": plots.plot_losses(result.history),
            "reconstructions": plots.plot_reconstructions(vae, x_test),
            "prior_draws": plots.plot_draws(vae),
            "latents": latents.plot_latents(vae, x_test, labels=test.labels),
        }.items():
            figure.savefig(folder / f"{name}.png")
        if frames is not None:
            frames.save(folder / "training.gif")
        (folder / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    return work.out, config, result, metrics


def evaluate(
    vae: VAE,
    x_train: torch.Tensor,
    x_test: torch.Tensor,
    *,
    num_samples: int,
    seed: int,
    progress: bool,
) -> dict[str, Any]:
    """How well test rows are described: ELBO, log p(x) and independent entries, nats per row.

    Each mean comes with its standard error over rows. ``monte_carlo_error`` is what of log p(x)'s
    is due to importance sampling.
    """
    evidence = log_evidence(vae, x_test, num_samples=num_samples, seed=seed, progress=progress)
    baseline = independent_log_prob(vae.decoder, x_train, x_test)
    dimensions = float((~x_test.isnan()).flatten(1).sum(1).double().mean())
    quantities = {
        "elbo": evidence.elbo.values,
        "log_evidence": evidence.log_evidence.values,
        "independent": baseline.numpy(),
    }
    return {
        "rows": len(x_test),
        "num_samples": num_samples,
        **{
            name: {
                "nats_per_row": float(np.mean(values)),
                "standard_error": float(np.std(values, ddof=1) / math.sqrt(len(values)))
                if len(values) > 1
                else None,
                "bits_per_dimension": float(-np.mean(values) / (dimensions * math.log(2))),
            }
            for name, values in quantities.items()
        },
        "monte_carlo_error": float(np.sqrt((evidence.standard_error**2).sum()) / len(x_test)),
        "rows_with_pareto_k_above_0.7": int((evidence.pareto_k > 0.7).sum()),
    }


@contextmanager
def _products(precision: str) -> Iterator[None]:
    """Let a GPU take products of single precision in TensorFloat-32, if asked to."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else before)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _rows_once(data: Dataset, method: str, seed: int) -> torch.Tensor:
    return binarize(
        data.x,
        "static" if method == "dynamic" else method,
        seed=None if method in ("none", "threshold") else seed,
    )


def _is_run(folder: Path) -> bool:
    try:
        return "ppl_vae" in json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        return False
