"""Memory and waiting of a fit to rows that do not fit into memory.

Writes rows of bytes to a .npy file, and fits to them by its path: an epoch of at most so many
steps, of rows spread over the whole file. Memory is what the process holds of its own (anonymous
pages): pages of the file that the system keeps are not the process's. Waiting is the time in which
the fit has no batch to go on with.

    python benchmarks/rows_on_disk.py --rows 5000000 --steps 2000 --json rows_on_disk.json
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch

import ppl_vae.batches as batches
from ppl_vae import VAE, VAEConfig, fit
from ppl_vae.rows import Rows


class Memory:
    """The most anonymous memory that this process held while a block ran, in GB."""

    def __enter__(self) -> Memory:
        self.before = self.most = anonymous()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def _look(self) -> None:
        while not self._done.wait(0.05):
            self.most = max(self.most, anonymous())

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()


def anonymous() -> float:
    """Anonymous memory of this process, GB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1e6
    raise OSError("/proc/self/status does not say RssAnon")


def written(path: Path, rows: int, entries: int) -> None:
    """Blobs of bytes: four prototypes, with noise."""
    out = np.lib.format.open_memmap(path, "w+", np.uint8, (rows, entries))
    rng = np.random.default_rng(0)
    prototypes = rng.integers(0, 256, (4, entries), dtype=np.uint8)
    for start in range(0, rows, 100_000):
        stop = min(start + 100_000, rows)
        noise = rng.integers(0, 64, (stop - start, entries), dtype=np.uint8)
        out[start:stop] = prototypes[rng.integers(0, 4, stop - start)] // 2 + noise
    out.flush()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--entries", type=int, default=784)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--hidden", type=int, nargs="*", default=[400])
    parser.add_argument("--folder", type=Path, help="for the file; a temporary one if not given")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    waited: list[float] = []

    def timed(*arguments, **given):
        items = original(*arguments, **given)
        while True:
            started = time.perf_counter()
            try:
                item = next(items)
            except StopIteration:
                return
            waited.append(time.perf_counter() - started)
            yield item

    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = Path(folder, "rows.npy")
        started = time.perf_counter()
        written(path, options.rows, options.entries)
        print(
            f"written: {path.stat().st_size / 1e9:.2f} GB in {time.perf_counter() - started:.0f} s"
        )
        rows = Rows(path)
        number = min(options.rows, options.steps * options.batch)
        chosen = torch.randperm(options.rows, generator=torch.Generator().manual_seed(0))[:number]
        rows = rows.select(chosen)
        config = VAEConfig.for_data(
            rows.take(slice(0, 1000), torch.zeros(())).x,
            latent_dim=20,
            hidden=tuple(options.hidden),
            likelihood="bernoulli",
        )
        vae = VAE.from_config(config)
        few = {"epochs": 1, "binarize": "dynamic", "engine": "graph", "progress": False}
        fit(vae, rows.select(slice(0, 512)), **few)
        original, epoch = batches.ahead, []
        batches.ahead = timed
        try:
            with Memory() as memory:
                fit(
                    vae,
                    rows,
                    batch_size=options.batch,
                    on_epoch=lambda _: epoch.append(time.perf_counter()),
                    **few,
                )
        finally:
            batches.ahead = original
    seconds = epoch[1] - epoch[0]
    share, first = sum(waited) / seconds, waited[0]
    print(
        f"{number // options.batch} steps of {options.batch} rows, spread over {options.rows:,} x "
        f"{options.entries}: {seconds:.1f} s, {number / seconds:,.0f} rows/s\n"
        f"waiting for rows: {share:.1%} of the time ({first:.2f} s of it for the first)\n"
        f"memory of its own: {memory.before:.2f} GB before, at most {memory.most:.2f} GB"
    )
    if options.json:
        found = {
            "rows": options.rows,
            "entries": options.entries,
            "steps": number // options.batch,
            "seconds": seconds,
            "waiting": share,
            "gb_before": memory.before,
            "gb_most": memory.most,
        }
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
