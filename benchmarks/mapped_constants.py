"""What a vectorized function costs while the constants of its special cases are not in memory.

PyTorch's functions of vectors come from SLEEF. On AVX-512 these load what to return for special
numbers, such as minus infinity for log1p(-1), under a mask; where no number is special and the page
of that constant was never read, some processors suppress a page fault at each call. Whether it was
read depends on what else the process did and on what the system holds of PyTorch's file, so whole
hours can be slow. Here the pages are given back before each function, on one thread; `mapped` is
after `ppl_vae.processor.map_constants()`, which a VAE calls when it is made.

    python benchmarks/mapped_constants.py --json mapped_constants.json
"""

from __future__ import annotations

import argparse
import ctypes
import json
import mmap
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  as everyone calls it

from ppl_vae.processor import map_constants

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "log1p": torch.log1p,
    "expm1": torch.expm1,
    "sigmoid": torch.sigmoid,
    "softplus": F.softplus,
    "logsigmoid": F.logsigmoid,
    "logaddexp": lambda x: torch.logaddexp(x, x),
    "Bernoulli's log p": lambda x: F.binary_cross_entropy_with_logits(x, x),
    "log": torch.log,
    "exp": torch.exp,
    "numpy.log1p": lambda x: np.log1p(x.numpy()),
}


def unmap_constants() -> None:
    """Have this process forget which pages of PyTorch's constants it has read."""
    libc = ctypes.CDLL(None, use_errno=True)
    for mapping in re.split(r"\n(?=[0-9a-f]+-)", Path("/proc/self/smaps").read_text()):
        addresses, permissions, *_, path = mapping.partition("\n")[0].split()
        # What the loader has written to would be lost.
        clean = re.search(r"Private_Dirty: +0 kB", mapping)
        if path.endswith("libtorch_cpu.so") and permissions == "r--p" and clean:
            start, end = (int(number, 16) for number in addresses.split("-"))
            libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), mmap.MADV_DONTNEED)


def microseconds(function: Callable[[], Any], calls: int) -> float:
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return 1e6 * min(times)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--numbers", type=int, default=100_000)
    parser.add_argument("--calls", type=int, default=30, help="of which the fastest counts")
    parser.add_argument("--json", help="write the numbers to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"microseconds for {options.numbers:,} numbers, torch {torch.__version__}")
    result: dict[str, dict[str, list[float]]] = {}
    for dtype in (torch.float32, torch.float64):
        name = str(dtype).removeprefix("torch.")
        print(f"\n{name:20}{'not mapped':>12}{'mapped':>10}{'times':>8}")
        x = torch.rand(options.numbers, dtype=dtype)
        result[name] = {}
        for label, function in FUNCTIONS.items():
            unmap_constants()
            before = microseconds(lambda f=function, x=x: f(x), options.calls)
            map_constants()
            after = microseconds(lambda f=function, x=x: f(x), options.calls)
            print(f"{label:20}{before:12.0f}{after:10.0f}{before / after:8.1f}")
            result[name][label] = [before, after]
    if options.json:
        versions = {"torch": torch.__version__, "numpy": np.__version__}
        Path(options.json).write_text(
            json.dumps({"versions": versions, "us_not_mapped_and_mapped": result}, indent=2)
        )


if __name__ == "__main__":
    main()
