import runpy
from pathlib import Path

import pytest
import torch

from ppl_vae.processor import map_constants

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "mapped_constants.py"


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="asks Linux what is in memory")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log1p_is_as_fast_as_log_once_its_constants_are_mapped(dtype: torch.dtype) -> None:
    benchmark = runpy.run_path(str(BENCHMARK))
    unmap_constants, microseconds = benchmark["unmap_constants"], benchmark["microseconds"]
    x = torch.rand(20_000, dtype=dtype)
    unmap_constants()
    before = microseconds(lambda: torch.log1p(x), 15)
    map_constants()
    after = microseconds(lambda: torch.log1p(x), 15)
    log = microseconds(lambda: torch.log(x), 15)
    if before < 4 * log:
        pytest.skip("this processor suppresses page faults at no cost")
    assert after < 4 * log
