"""How well counts of cells are described that were not fitted to, beside scvi-tools.

Cells of pbmc68k (700 cells, 765 genes) are split into folds; each is held out once. Of held-out
cells log p(x) given their library sizes, nats per cell, is estimated by importance sampling, with
as many draws and the same estimator for all: what scvi-tools fitted is wrapped as a model that
ppl_vae can ask, and --check sets its own estimate beside. Differences are taken cell by cell.
Labels of held-out cells are told by the 10 nearest fitted cells, in latents, and in as many
principal components of log(1 + counts / total).

    python benchmarks/single_cells.py --peer nb zinb --early-stopping --json cells.json
"""

from __future__ import annotations

import argparse
import json
import os
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyro.distributions as dist
import torch
from sklearn.decomposition import PCA
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import KFold
from sklearn.neighbors import KNeighborsClassifier

from ppl_vae import VAE, VAEConfig, encode, fit, load_data, log_evidence
from ppl_vae.amortized import AmortizedModel

LIKELIHOODS = {
    "poisson": "poisson",
    "nb": "negative_binomial",
    "zinb": "zero_inflated_negative_binomial",
}


@dataclass
class Cells:
    """Some cells: rows ``(cell, gene)``, labels ``(cell,)``, and covariates."""

    x: torch.Tensor
    labels: np.ndarray
    covariates: torch.Tensor


class Peer(AmortizedModel):
    """An SCVI of scvi-tools as a model that checks may ask; its covariate is the log of totals."""

    def __init__(self, module, latent_dim: int, genes: int) -> None:
        super().__init__()
        self.module = module
        self.event_shape = (genes,)
        self.latent_names = tuple(f"z[{i}]" for i in range(latent_dim))
        self.eval()

    def posterior(self, x, covariates=None):
        q, _ = self.module.z_encoder(x.log1p(), torch.zeros(len(x), 1))
        return dist.Normal(q.loc, q.scale).to_event(1)

    def prior_at(self, covariates=None):
        return dist.Normal(torch.zeros(self.latent_dim), 1.0).to_event(1)

    def likelihood(self, z, covariates=None, observed=None):
        library = covariates.expand(*z.shape[:-1], 1)
        return self.module.generative(z, library, torch.zeros(z.shape[-2], 1))["px"]

    def log_likelihood(self, z, x, covariates=None):
        # Distributions of scvi-tools do not say their batch shape, so that none is an event.
        some = z.split(self._block(len(x)))
        return torch.cat([self.likelihood(part, covariates).log_prob(x).sum(-1) for part in some])

    def check(self, x, covariates=None, *, name="x"):
        """Rows come from this script."""


def by_vae(likelihood: str, train: Cells, test: Cells, coding, seed: int, args) -> dict:
    """Fit a VAE with an observed library size, as ``ppl-vae fit --context library`` would."""
    config = VAEConfig.for_data(
        train.x,
        latent_dim=args.latent_dim,
        hidden=args.hidden,
        covariate_dim=1,
        likelihood=f"{LIKELIHOODS[likelihood]}:library=observed",
        likelihood_options={"library_center": coding.center, "library_spread": coding.spread},
    )
    vae = VAE.from_config(config, seed=seed)
    fit(
        vae,
        train.x,
        covariates=train.covariates,
        validation=0.1,
        epochs=args.epochs,
        learning_rate=args.learning_rate,
        engine="graph",
        seed=seed,
        progress=False,
    )
    return judged(vae, train, test, seed, args)


def by_scvi(likelihood: str, train: Cells, test: Cells, coding, seed: int, args) -> dict:
    """Fit an SCVI, stopped early or not, and ask it for the same numbers."""
    import anndata
    import scvi

    scvi.settings.verbosity = 40
    scvi.settings.seed = seed
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cells = anndata.AnnData(train.x.numpy())
        scvi.model.SCVI.setup_anndata(cells)
        model = scvi.model.SCVI(cells, n_latent=args.latent_dim, gene_likelihood=likelihood)
        model.train(
            max_epochs=args.peer_epochs,
            train_size=0.9,
            early_stopping=args.early_stopping,
            accelerator="cpu",
            enable_progress_bar=False,
        )
    peer = Peer(model.module, args.latent_dim, train.x.shape[1])
    as_logs = [
        Cells(part.x, part.labels, part.x.sum(1, keepdim=True).log()) for part in (train, test)
    ]
    found = judged(peer, *as_logs, seed, args)
    found["epochs"] = int(model.trainer.current_epoch)
    if args.check:
        held_out = anndata.AnnData(test.x.numpy())
        own = model.get_marginal_ll(held_out, n_mc_samples=args.draws, return_mean=False)
        found["own_log_evidence"] = float(np.mean(np.asarray(own)))
    return found


def judged(model: AmortizedModel, train: Cells, test: Cells, seed: int, args) -> dict:
    """Held-out log p(x) by cell, and how well latents tell the labels."""
    evidence = log_evidence(
        model,
        test.x,
        covariates=test.covariates,
        num_samples=args.draws,
        seed=seed,
        progress=False,
    )
    latents = [
        encode(model, part.x, covariates=part.covariates, progress=False)["mean"].values
        for part in (train, test)
    ]
    return {
        "log_evidence": evidence.log_evidence.values.tolist(),
        "elbo": float(evidence.elbo.mean()),
        "weights_usable": float(evidence.weights_usable.mean()),
        **told(*latents, train.labels, test.labels),
    }


def by_components(likelihood: str, train: Cells, test: Cells, coding, seed: int, args) -> dict:
    """Principal components of log(1 + counts), of cells brought to one total."""
    total = float(train.x.sum(1).median())
    shares = [part.x / part.x.sum(1, keepdim=True) for part in (train, test)]
    logs = [(total * share).log1p().numpy() for share in shares]
    components = PCA(args.latent_dim, random_state=0).fit(logs[0])
    return told(*map(components.transform, logs), train.labels, test.labels)


def told(train: np.ndarray, test: np.ndarray, labels: np.ndarray, truth: np.ndarray) -> dict:
    """How often the nearest fitted cells have the label of a held-out one."""
    said = KNeighborsClassifier(10).fit(train, labels).predict(test)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a rare label may be in no fold's fitted cells
        balanced = balanced_accuracy_score(truth, said)
    return {"right": (said == truth).tolist(), "balanced": float(balanced)}


def paired(first: list[list[float]], second: list[list[float]]) -> tuple[float, float, int]:
    """The mean difference by cell, its error over folds, and in how many folds it is positive."""
    pairs = zip(first, second, strict=True)
    by_fold = np.array([np.mean(np.subtract(a, b, dtype=float)) for a, b in pairs])
    return by_fold.mean(), by_fold.std(ddof=1) / len(by_fold) ** 0.5, int((by_fold > 0).sum())


def print_tables(runs: dict[str, dict[str, dict]], folds: list[str]) -> None:
    """Means over folds, and paired differences, of methods that have all folds."""
    print("| | log p(x) | ELBO | weights usable | 10-NN right | balanced | CPU s |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name, by_fold in runs.items():
        found = [by_fold[fold] for fold in folds]
        numbers = ["-"] * 3
        if "elbo" in found[0]:
            evidence = np.mean([np.mean(run["log_evidence"]) for run in found])
            elbo = np.mean([run["elbo"] for run in found])
            usable = np.mean([run["weights_usable"] for run in found])
            numbers = [f"{evidence:.2f}", f"{elbo:.2f}", f"{100 * usable:.0f}%"]
        right = np.mean([np.mean(run["right"]) for run in found])
        balanced = np.mean([run["balanced"] for run in found])
        seconds = np.mean([run["cpu_seconds"] for run in found])
        print(f"| {name} | {' | '.join(numbers)} | {right:.3f} | {balanced:.3f} | {seconds:.0f} |")
    ours = [name for name in runs if name.startswith("ppl_vae")]
    theirs = [name for name in runs if name.startswith("scvi")]
    against = [(one, other) for one in ours for other in theirs]
    pairs = [(b, a) for i, a in enumerate(ours) for b in ours[i + 1 :]] + against
    print("\n| paired by cell | log p(x) | error over folds | folds above 0 |")
    print("|---|---:|---:|---:|")
    for pair in pairs if len(folds) > 1 else ():
        both = ([runs[name][fold]["log_evidence"] for fold in folds] for name in pair)
        print_difference(pair, *paired(*both), len(folds))
    print("\n| paired by cell | 10-NN right | error over folds | folds above 0 |")
    print("|---|---:|---:|---:|")
    for name in [*ours, *theirs] if len(folds) > 1 else ():
        both = ([runs[each][fold]["right"] for fold in folds] for each in (name, "PCA"))
        print_difference((name, "PCA"), *paired(*both), len(folds))


def print_difference(
    pair: tuple[str, str], mean: float, error: float, above: int, folds: int
) -> None:
    print(f"| {pair[0]} - {pair[1]} | {mean:.3f} | {error:.3f} | {above} of {folds} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data-root", default=os.environ.get("PPL_VAE_DATA", "../shared/data"))
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--only", type=int, help="the first so many folds")
    parser.add_argument("--likelihoods", nargs="*", default=list(LIKELIHOODS))
    parser.add_argument("--peer", nargs="*", default=[], metavar="LIKELIHOOD", help="of scvi-tools")
    parser.add_argument("--latent-dim", type=int, default=10)
    parser.add_argument("--hidden", type=int, nargs="+", default=[128], help="as scvi-tools has it")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--peer-epochs", type=int, default=400, help="as scvi-tools has it")
    parser.add_argument("--early-stopping", action="store_true", help="of scvi-tools")
    parser.add_argument("--check", action="store_true", help="ask scvi-tools for log p(x) too")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="a file that was begun is gone on with")
    args = parser.parse_args()
    torch.set_num_threads(1)
    path = Path(args.data_root) / "counts" / "pbmc68k_reduced_counts.npz"
    data = load_data(path, None, context="library")
    parts = list(KFold(args.folds, shuffle=True, random_state=args.seed).split(data.x))
    parts = parts[: args.only]
    methods = {f"ppl_vae, {name}": (by_vae, name) for name in args.likelihoods}
    methods |= {f"scvi-tools, {name}": (by_scvi, name) for name in args.peer}
    methods["PCA"] = (by_components, "")
    skip = ("json", "only", "likelihoods", "peer", "data_root")
    settings = {key: value for key, value in vars(args).items() if key not in skip}
    runs: dict[str, dict[str, dict]] = {}
    if args.json and args.json.exists():
        begun = json.loads(args.json.read_text())
        if begun["settings"] != settings:
            parser.error(f"{args.json} is of other settings, {begun['settings']}")
        runs = begun["runs"]
    for fold, rows in enumerate(parts):
        train, test = (Cells(data.x[i], data.labels[i], data.covariates[i]) for i in rows)
        for name, (method, likelihood) in methods.items():
            if str(fold) in runs.setdefault(name, {}):
                continue
            started = time.process_time()
            given = {"coding": data.codings[0], "seed": fold, "args": args}
            run = method(likelihood, train, test, **given)
            run["cpu_seconds"] = time.process_time() - started
            runs[name][str(fold)] = run
            if args.json:
                args.json.write_text(json.dumps({"settings": settings, "runs": runs}))
    print(f"{len(parts)} of {args.folds} folds, {args.latent_dim} latents, {args.draws} draws\n")
    print_tables({name: runs[name] for name in methods}, [str(i) for i in range(len(parts))])


if __name__ == "__main__":
    main()
