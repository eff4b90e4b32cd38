"""A copy of a .h5ad file with latents, as encode writes it."""

from __future__ import annotations

__all__ = ["write_annotated"]

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files import written_whole

if TYPE_CHECKING:
    from torch import Tensor

    from ..vae import VAE


def write_annotated(
    vae: VAE,
    x: Tensor,
    data: str,
    out: Path,
    *,
    num_samples: int,
    **options: Any,
) -> None:
    """Write the cells of ``data``, whose rows are ``x``, with what :func:`annotate` says of them.

    Raises
    ------
    ValueError
        As :func:`~ppl_vae.annotate`.
    """
    import anndata

    from ..anndata import annotate

    cells = anndata.read_h5ad(data)
    annotate(cells, vae, x, num_samples=num_samples, **options)
    with written_whole(out) as temporary:
        cells.write_h5ad(temporary)
