"""Memory whose state decides how fast PyTorch is on a processor."""

from __future__ import annotations

__all__ = ["map_constants", "reuse_freed_memory"]

import math

import torch


def map_constants() -> None:
    """Have the constants of vectorized functions in memory, those of special cases too.

    ``log1p`` of 16 numbers at once loads minus infinity for those that are -1, under a mask. Where
    none is, and nobody has read the page of that constant before, the processor suppresses a page
    fault, each time anew, and takes 20 to 40 times as long (``python
    benchmarks/mapped_constants.py``, AMD EPYC, Zen 5). Whether somebody has depends on what the
    system holds of PyTorch's file. Who computes the special cases has the pages, until the system
    takes them back.
    """
    special = [0.0, 1.0, 2.0, 100.0, 1e-40, 3e38, math.inf]
    for dtype in (torch.float32, torch.float64):
        x = torch.tensor(
            [*special, *(-value for value in special), math.nan], dtype=dtype, device="cpu"
        )
        for function in (torch.log1p, torch.expm1, torch.sigmoid):
            function(x)


def reuse_freed_memory() -> None:
    """Have memory that a step frees kept for the next one.

    glibc returns it to the system beyond twice the largest block that was freed so far, up to 32
    MB. A convolutional step then takes its 20 MB anew each time, and half of its time are page
    faults. So free a large block once, which nobody has touched and which costs nothing.
    """
    torch.empty(31 * 2**20, dtype=torch.uint8)
