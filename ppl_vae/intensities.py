"""Intensities of pixels as numbers in [0, 1], or as bits."""

from __future__ import annotations

__all__ = ["binarize", "to_float"]

import torch
from torch import Tensor


def to_float(x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Intensities 0 to 255 as numbers in [0, 1]; floating point as it is, or as ``dtype``.

    Images stay uint8, a quarter of the memory, until they are a batch.

    Examples
    --------
    >>> to_float(torch.tensor([[0, 51, 255]], dtype=torch.uint8))
    tensor([[0.0000, 0.2000, 1.0000]])
    """
    if x.dtype == torch.uint8:
        return x.to(dtype or torch.get_default_dtype()) / 255
    return x if dtype is None else x.to(dtype)


def binarize(
    x: Tensor,
    method: str,
    *,
    seed: int | torch.Generator | None = None,
) -> Tensor:
    """Turn intensities into zeros and ones.

    Missing entries stay NaN. With uint8 there is nothing to check, and "dynamic" draws whole
    bytes, in which P(1) = x / 255 is exact, faster than floats; so pass batches as uint8.

    Parameters
    ----------
    x
        Any shape: uint8 in 0 to 255, or numbers in [0, 1].
    method
        "none" is ``to_float``; "static" draws from Bernoulli(x), the same for the same seed
        (Salakhutdinov and Murray, 2008); "dynamic" draws afresh at each call from torch's global
        random state; "threshold" is x > 0.5.
    seed
        For "static" only, where it defaults to 0; the global random state is left alone. A CPU
        generator goes on where it is, so that chunks of rows get the bits of the whole.

    Returns
    -------
    Shape of ``x``; its dtype if that is floating point, else the default one.

    Raises
    ------
    ValueError
        ``method`` is unknown, ``x`` leaves [0, 1], or a seed is given to "dynamic".

    Examples
    --------
    >>> binarize(torch.tensor([0.0, 0.4, 0.6, 1.0]), "threshold")
    tensor([0., 0., 1., 1.])
    """
    methods = ("none", "static", "dynamic", "threshold")
    if method not in methods:
        raise ValueError(f"method is {method!r}; accepted are {', '.join(methods)}")
    if method == "dynamic" and seed is not None:
        raise ValueError(
            f"seed={seed} was given to method='dynamic', which draws from torch's global random "
            "state; leave seed out, or use method='static'"
        )
    dtype = x.dtype if x.is_floating_point() else torch.get_default_dtype()
    if method == "none":
        return to_float(x, dtype)
    if method == "dynamic" and x.dtype == torch.uint8:
        # 0 to 254 leaves 255 values, of which x lie below x.
        return (torch.randint_like(x, 0, 255) < x).to(dtype)

    p = to_float(x, dtype)
    missing = x.dtype != torch.uint8 and _check_unit_interval(p)
    if method == "threshold":
        ones = p > 0.5
    elif method == "dynamic":
        ones = torch.rand_like(p) < p
    else:
        # The CPU draws, so that a seed means the same on every device.
        generator = (
            seed
            if isinstance(seed, torch.Generator)
            else torch.Generator().manual_seed(0 if seed is None else seed)
        )
        ones = torch.rand(p.shape, generator=generator, dtype=dtype).to(p.device) < p
    return torch.where(p.isnan(), p, ones.to(dtype)) if missing else ones.to(dtype)


def _check_unit_interval(x: Tensor) -> bool:
    """Whether ``x`` has missing entries; an error if any other entry leaves [0, 1]."""
    if x.numel() == 0:
        return False
    low, high = (end.item() for end in torch.aminmax(x))  # NaN if any entry is
    missing = low != low
    if missing:
        present = x[~x.isnan()]
        low, high = (end.item() for end in torch.aminmax(present)) if len(present) else (0.0, 1.0)
    if low < 0 or high > 1:
        raise ValueError(
            f"x ranges from {low:g} to {high:g}, but its entries are probabilities in [0, 1]; "
            "pass intensities 0..255 as uint8, rescale x, or use method='none'"
        )
    return missing
