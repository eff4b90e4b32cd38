"""What the draws of a conditional VAE are given, as the command line says it."""

from __future__ import annotations

__all__ = ["covariates_of"]

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from ..run import Run


def covariates_of(run: Run, context: Sequence[str], num_samples: int, seed: int) -> Tensor | None:
    """Covariates ``(num_samples, covariate)`` by ``COLUMN=VALUE``, or those of training rows.

    Raises
    ------
    ValueError
        If a column is not one that the run is conditional on, or lacks a value, or the value is no
        number or level of it.
    """
    import numpy as np
    import torch

    codings = {coding.name: coding for coding in run.codings}
    if context and not codings:
        raise ValueError(
            f"--context is {context[0]!r}, but the run is not conditional on anything; leave it out"
        )
    if not codings:
        return None
    if not context:
        covariates = run.splits()[0].covariates
        assert covariates is not None
        rows = np.random.default_rng(seed).integers(len(covariates), size=num_samples)
        return covariates[torch.from_numpy(rows)]
    values: dict[str, str] = {}
    for text in context:
        name, equals, value = text.partition("=")
        if not equals or name not in codings:
            raise ValueError(
                f"--context is {text!r}; pass COLUMN=VALUE, with a column of the fit: "
                f"{', '.join(codings)}"
            )
        values[name] = value
    if lost := [name for name in codings if name not in values]:
        raise ValueError(
            f"--context says nothing of {', '.join(lost)}; pass a value for each column that the "
            f"run is conditional on: {', '.join(codings)}"
        )
    parts = []
    for name, coding in codings.items():
        try:
            one = np.array([values[name] if coding.levels else float(values[name])])
        except ValueError:
            raise ValueError(
                f"--context is '{name}={values[name]}', but {name} is a number; pass one"
            ) from None
        parts.append(coding.encode(one, "--context"))
    return torch.from_numpy(np.concatenate(parts, 1)).float().expand(num_samples, -1)
