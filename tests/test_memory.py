import runpy
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ppl_vae.memory import map_constants

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "mapped_constants.py"


def seconds(function: Callable[[], object]) -> float:
    times = []
    for _ in range(15):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="asks Linux what is in memory")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log1p_is_as_fast_as_log_once_its_constants_are_mapped(dtype: torch.dtype) -> None:
    unmap_constants = runpy.run_path(str(BENCHMARK))["unmap_constants"]
    x = torch.rand(20_000, dtype=dtype)
    unmap_constants()
    before = seconds(lambda: torch.log1p(x))
    map_constants()
    after, log = seconds(lambda: torch.log1p(x)), seconds(lambda: torch.log(x))
    if before < 4 * log:
        pytest.skip("this processor suppresses page faults at no cost")
    assert after < 4 * log
