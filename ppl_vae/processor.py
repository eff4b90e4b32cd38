"""Two states of a process's memory that decide how fast PyTorch is on a processor."""

from __future__ import annotations

__all__ = ["map_constants", "reuse_freed_memory"]

import math

import torch


def map_constants() -> None:
    """Read into memory the constants that vectorized functions use for special cases.

    ``log1p`` works on 16 numbers at once. It loads the constant minus infinity for those numbers
    that are -1, under a mask. If none of them is -1, the mask is empty, and the load should cost
    nothing. But if the memory page with the constant was never read, the processor runs into a
    page fault, suppresses it because of the mask, and does so again at every call, which takes 20
    to 40 times as long (``python benchmarks/mapped_constants.py``, AMD EPYC, Zen 5). This function
    computes the special cases once, so that their pages are read. The system may drop pages that
    are idle, so the function is called again now and then.
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

    glibc gives freed memory back to the system once there is more of it than a threshold: twice the
    largest block that was freed so far, up to 32 MB. A convolutional step needs 20 MB, gets them
    from the system anew each time, and spends half of its time on page faults. Freeing one large
    block raises the threshold. The block itself costs nothing, as nothing is written to it.
    """
    torch.empty(31 * 2**20, dtype=torch.uint8)
