"""What beta-VAE pays in ELBO for latents that stand for factors, and the scores beside disent's.

VAEs are fitted to sprites under several weights on the KL divergence, and their latents scored.
--peer sets the scores of the first seed, and of latents made by hand, beside those of the package
disent, which is asked as its users ask it and draws its own rows: a grid of factors whose
observations are the latents. Both then take every factor for a number, as disent's SAP can take
all or none. Its DCI boosts trees that classify, where ours are forests that regress.

    python benchmarks/disentanglement.py --peer --json trade.json --pictures docs/pictures
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from pathlib import Path

import numpy as np
import pyro.distributions as dist
import torch

from ppl_vae import (
    VAE,
    VAEConfig,
    disentanglement,
    fit,
    load_data,
    plot_factors,
    sample_posterior,
)
from ppl_vae.amortized import AmortizedModel
from ppl_vae.data import load_splits
from ppl_vae.pictures.colors import COLORS
from ppl_vae.pictures.panels import blank_figure
from ppl_vae.workflow.draws.posterior import posterior_means

SCORES = (
    *("mig", "dci_disentanglement", "dci_completeness", "dci_informativeness"),
    *("sap", "factor_vae"),
)


class Given(AmortizedModel):
    """A model whose rows are its latents."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.event_shape, self.latent_names = (size,), tuple(f"z[{i}]" for i in range(size))

    def posterior(self, x, covariates=None):
        return dist.Normal(x, 0.1).to_event(1)

    def prior_at(self, covariates=None):
        return dist.Normal(torch.zeros(self.latent_dim), 1.0).to_event(1)

    def likelihood(self, z, covariates=None, observed=None):
        return dist.Normal(z, 0.1).to_event(1)

    def check(self, x, covariates=None, *, name="x"):
        """Any rows will do."""

    def model(self, x):
        """The scores ask for posteriors alone."""

    guide = model


def fitted(train, beta: float, seed: int, options) -> VAE:
    config = VAEConfig.for_data(train.x, latent_dim=options.latents, hidden=(256, 256))
    vae = VAE.from_config(config, seed=seed)
    fit(
        vae,
        train.x,
        epochs=options.epochs,
        objective=f"beta:beta={beta}",
        engine="graph",
        seed=seed,
        progress=False,
    )
    return vae


def theirs(codes: np.ndarray, sizes: dict[str, int]) -> dict[str, float]:
    """The scores by disent of latents ``(row, latent)``, whose rows are all factors in order."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from disent.dataset import DisentDataset
        from disent.dataset.data import GroundTruthData
        from disent.metrics import metric_dci, metric_factor_vae, metric_mig, metric_sap

    class Codes(GroundTruthData):
        factor_names = tuple(sizes)
        factor_sizes = tuple(sizes.values())
        img_shape = (1, codes.shape[1], 1)

        def _get_observation(self, idx):
            return torch.from_numpy(codes[idx])

    np.random.seed(0)
    data = DisentDataset(Codes())

    def represent(rows):
        return rows

    dci = metric_dci(data, represent, num_train=1000, num_test=500)
    return {
        "mig": metric_mig(data, represent, num_train=10_000)["mig.discrete_score"],
        "dci_disentanglement": dci["dci.disentanglement"],
        "dci_completeness": dci["dci.completeness"],
        "sap": metric_sap(data, represent, num_train=10_000, num_test=1, continuous_factors=True)[
            "sap.score"
        ],
        "factor_vae": metric_factor_vae(
            data, represent, num_train=2000, num_eval=2000, num_variance_estimate=len(codes)
        )["factor_vae.eval_accuracy"],
    }


def by_their_formula(importance: np.ndarray) -> tuple[float, float]:
    """Disentanglement and completeness that disent computes of importance (factor, latent)."""
    from disent.metrics import _dci

    return _dci._disentanglement(importance.T), _dci._completeness(importance.T)


def compare(latents: dict[str, np.ndarray], factors) -> list[dict]:
    """Our scores and theirs of the same latents; prints a line for each."""
    levels = {name: np.unique(v, return_inverse=True)[1] for name, v in factors.items()}
    sizes = {name: int(level.max()) + 1 for name, level in levels.items()}
    rows = []
    columns = ("mig", "dci_disentanglement", "dci_completeness", "sap", "factor_vae")
    print("\n" + f"{'ours / disent':>16}" + "".join(f"{name:>22}" for name in columns))
    for name, codes in latents.items():
        start = time.perf_counter()
        # disent leaves no collapsed latent out.
        scores = disentanglement(
            Given(codes.shape[1]), torch.from_numpy(codes).float(), levels, threshold=0.0
        )
        middle = time.perf_counter()
        other = theirs(codes, sizes)
        end = time.perf_counter()
        formula = by_their_formula(scores.importance.values)
        off = max(
            abs(formula[0] - scores.dci_disentanglement.item()),
            abs(formula[1] - scores.dci_completeness.item()),
        )
        rows.append(
            {
                "latents": name,
                "ours": {key: scores[key].item() for key in SCORES},
                "disent": {key: float(value) for key, value in other.items()},
                "seconds": {"ours": middle - start, "disent": end - middle},
                "dci_by_disents_formula_differs": off,
            }
        )
        pairs = (f"{scores[key].item():.3f} / {other[key]:.3f}" for key in columns)
        print(f"{name:>16}" + "".join(f"{pair:>22}" for pair in pairs), flush=True)
    return rows


def by_hand(factors) -> dict[str, np.ndarray]:
    """Latents of known scores: the factors themselves, turned, and noise."""
    levels = np.stack([np.unique(v, return_inverse=True)[1] for v in factors.values()], 1)
    aligned = (levels - levels.mean(0)) / levels.std(0)
    random = np.random.default_rng(0)
    turn = np.linalg.qr(random.standard_normal((aligned.shape[1],) * 2))[0]
    return {
        "the factors": aligned,
        "turned": aligned @ turn,
        "noise": random.standard_normal(aligned.shape),
    }


def draw_trade(fits: list[dict], path: Path) -> None:
    """MIG against ELBO, a point for each fit and a line through the means of each weight."""
    figure, ((axes,),) = blank_figure(5.6, 4.0)
    betas = sorted({each["beta"] for each in fits})
    means = []
    for i, beta in enumerate(betas):
        points = np.array([(each["elbo"], each["mig"]) for each in fits if each["beta"] == beta])
        means.append(points.mean(axis=0))
        color = COLORS[i % len(COLORS)]
        axes.scatter(*points.T, s=26, color=color, label=f"beta {beta:g}", zorder=2)
        axes.scatter(*means[-1], s=90, marker="_", color=color, zorder=2)
    axes.plot(*np.array(means).T, color="0.6", linewidth=1, zorder=1)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set(xlabel="ELBO of test rows, nats per row", ylabel="MIG", title="Sprites")
    axes.title.set_fontsize("medium")
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--betas", type=float, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--latents", type=int, default=6)
    parser.add_argument("--peer", action="store_true", help="compare with the package disent")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--pictures", type=Path, help="folder to draw trade and factors in")
    options = parser.parse_args()
    train, test = load_splits("sprites")
    every = load_data("sprites", None)

    fits, latents, best = [], by_hand(every.factors), None
    print(f"{'beta':>5} {'seed':>4} {'ELBO':>8}" + "".join(f"{name:>20}" for name in SCORES))
    for beta in options.betas:
        for seed in range(options.seeds):
            start = time.perf_counter()
            vae = fitted(train, beta, seed, options)
            seconds = time.perf_counter() - start
            draws = sample_posterior(vae, test.x, num_samples=20, progress=False)
            elbo = draws.log_weight.mean().item()
            scores = disentanglement(vae, every.x, every.factors)
            found = {name: scores[name].item() for name in SCORES}
            fits.append({"beta": beta, "seed": seed, "elbo": elbo, "seconds": seconds, **found})
            print(
                f"{beta:>5g} {seed:>4} {elbo:>8.2f}"
                + "".join(f"{found[name]:>20.3f}" for name in SCORES),
                flush=True,
            )
            if seed == 0:
                latents[f"beta {beta:g}"] = posterior_means(vae, every.x).astype(float)
            if best is None or scores.mig > best.mig:
                best = scores
    for beta in options.betas:
        ours = [each for each in fits if each["beta"] == beta]
        parts = []
        for name in ("elbo", "mig"):
            values = [each[name] for each in ours]
            error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
            parts.append(f"{name} {statistics.mean(values):.3f} +- {error:.3f}")
        print(f"beta {beta:g}: {', '.join(parts)}")
    peers = compare(latents, every.factors) if options.peer else []
    if options.json:
        options.json.write_text(json.dumps({"fits": fits, "peers": peers}, indent=2))
    if options.pictures:
        options.pictures.mkdir(parents=True, exist_ok=True)
        draw_trade(fits, options.pictures / "beta_trade.png")
        plot_factors(best).savefig(options.pictures / "factors.png")


if __name__ == "__main__":
    main()
