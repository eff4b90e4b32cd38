"""What averaging of weights wins: fits of digits with and without it, at two courses of the rate.

Each fit starts from another seed, which decides weights and order of rows alike for all ways; the
gain is the difference of the mean ELBO of test rows to the fit without averaging of the same seed.

    python benchmarks/averaging.py --seeds 10 --json averaging.json
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

from ppl_vae import VAE, VAEConfig, fit, load_data, log_evidence

PARTS = (0.0, 0.05, 0.1, 0.2)


def elbo(train, test, *, seed: int, schedule: str, average: float, epochs: int) -> float:
    """The mean ELBO of test rows after a fit, nats per row."""
    vae = VAE.from_config(VAEConfig.for_data(train, latent_dim=8, hidden=(128,)), seed=seed)
    fit(
        vae,
        train,
        epochs=epochs,
        schedule=schedule,
        average=average,
        seed=seed,
        progress=False,
    )
    return float(log_evidence(vae, test, num_samples=100, progress=False).elbo.mean())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    train, test = load_data("digits", "train").x, load_data("digits", "test").x
    results = []
    print(f"{'rate':>10} {'average':>8} {'ELBO':>9} {'gain':>7} {'+-':>6} {'smallest':>9}")
    for schedule in ("constant", "one_cycle"):
        without: list[float] = []
        for average in PARTS:
            found = [
                elbo(
                    train,
                    test,
                    seed=seed,
                    schedule=schedule,
                    average=average,
                    epochs=options.epochs,
                )
                for seed in range(options.seeds)
            ]
            without = without or found
            gains = [after - before for after, before in zip(found, without, strict=True)]
            error = statistics.stdev(gains) / len(gains) ** 0.5 if len(gains) > 1 else 0.0
            results.append(
                {
                    "schedule": schedule,
                    "average": average,
                    "elbo": statistics.mean(found),
                    "gain": statistics.mean(gains),
                    "standard_error": error,
                    "smallest_gain": min(gains),
                }
            )
            print(
                f"{schedule:>10} {average:>8} {results[-1]['elbo']:>9.2f} "
                f"{results[-1]['gain']:>7.2f} {error:>6.2f} {min(gains):>9.2f}"
            )
    if options.json:
        options.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
