"""Rows to fit to, and the rows held out to choose the best epoch by."""

from __future__ import annotations

__all__ = ["split"]

import torch
from torch import Tensor

from ..amortized import AmortizedModel
from ..rows import Rows


def split(
    vae: AmortizedModel,
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
        given = validation if isinstance(validation, tuple) else (validation,)
        held_out = Rows(*given, table=vae.table)
        _check_rows(vae, held_out, binarize, "validation")
    return Rows(rows, binarize=binarize, seed=seed), Rows(held_out, binarize=once, seed=seed)


def _check_rows(vae: AmortizedModel, rows: Rows, binarize: str, name: str) -> None:
    # Which bits are drawn does not matter to what the model accepts.
    seen = rows if binarize == "none" else Rows(rows, binarize="threshold")
    seen.check(vae, name=name)
