import ctypes
import mmap
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ppl_vae.memory import map_constants

MAPS = Path("/proc/self/maps")


def unmap_constants() -> None:
    """Have this process forget which pages of PyTorch's constants it has read."""
    lines = [line.split() for line in MAPS.read_text().splitlines()]
    lines = [line for line in lines if line[-1].endswith("libtorch_cpu.so")]
    kinds = [line[1] for line in lines]
    # After the code; what follows them are tables that the loader has written to.
    start, end = lines[kinds.index("r-xp") + 1][0].split("-")
    address, size = int(start, 16), int(end, 16) - int(start, 16)
    libc = ctypes.CDLL(None, use_errno=True)
    assert not libc.madvise(ctypes.c_void_p(address), ctypes.c_size_t(size), mmap.MADV_DONTNEED)


def seconds(function: Callable[[], object]) -> float:
    times = []
    for _ in range(15):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


@pytest.mark.skipif(not MAPS.exists(), reason="asks Linux which pages a process has")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log1p_is_as_fast_as_log_once_its_constants_are_mapped(dtype: torch.dtype) -> None:
    x = torch.rand(20_000, dtype=dtype)
    unmap_constants()
    before = seconds(lambda: torch.log1p(x))
    map_constants()
    after, log = seconds(lambda: torch.log1p(x)), seconds(lambda: torch.log(x))
    if before < 4 * log:
        pytest.skip("this processor suppresses page faults at no cost")
    assert after < 4 * log
