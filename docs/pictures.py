"""Draw the pictures of the front page and of "Which rows can be believed".

``python docs/pictures.py`` draws all, ``python docs/pictures.py front`` one.

Rows of one or two latents, whose posteriors are known, beside encoders that are wrong in one way
each. What is printed above a picture is what the package says of that row.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyro.distributions as dist
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ppl_vae import AmortizedModel, amortization_gap, calibrate, sample_posterior
from ppl_vae.workflow.verdict.verdicts import verdicts

FOLDER = Path(__file__).parent / "pictures"
# Okabe and Ito's colors, which are told apart with any color vision.
BLUE, ORANGE, GREEN, GRAY = "#0072B2", "#E69F00", "#009E73", "#7F7F7F"
NOISE = 0.5


class Toy(AmortizedModel):
    """z ~ N(0, I), x | z ~ N(f(z), 0.5), and an encoder that is written down, not fitted."""

    def __init__(
        self,
        encoder: Callable[[Tensor], dist.TorchDistribution],
        mean: Callable[[Tensor], Tensor] = lambda z: z,
        latents: int = 1,
    ) -> None:
        super().__init__()
        self.encoder, self.mean = encoder, mean
        self.latent_names = tuple(f"z[{i}]" for i in range(latents))
        self.event_shape = (1,)

    def posterior(self, x: Tensor, covariates: Tensor | None = None) -> dist.TorchDistribution:
        return self.encoder(x)

    def prior_at(self, covariates: Tensor | None = None) -> dist.TorchDistribution:
        return dist.Normal(torch.zeros(self.latent_dim), 1.0).to_event(1)

    def likelihood(
        self, z: Tensor, covariates: Tensor | None = None, observed: Tensor | None = None
    ) -> dist.TorchDistribution:
        return dist.Normal(self.mean(z), NOISE).to_event(1)

    def check(self, x: Tensor, covariates: Tensor | None = None, *, name: str = "x") -> None:
        if x.shape[1:] != self.event_shape:
            raise ValueError(f"{name} has shape {tuple(x.shape)}; pass (row, 1)")

    def density(self, grid: Tensor, x: Tensor) -> Tensor:
        """p(z|x) on an even grid, (point, latent), by quadrature; and log p(x)."""
        log_p = self.log_joint(grid[:, None], x[None])[:, 0]
        cell = (grid[1:] - grid[:-1]).abs().max() ** self.latent_dim
        return (log_p - log_p.logsumexp(0)).exp() / cell


# The exact posterior of z ~ N(0, 1), x | z ~ N(z, 0.5).
SHRINK, SD = 1 / (1 + NOISE**2), math.sqrt(NOISE**2 / (1 + NOISE**2))


def off_by(shift: float, factor: float) -> Toy:
    """An encoder whose mean is ``shift`` sds off, and whose sd is ``factor`` times too large."""
    return Toy(lambda x: dist.Normal(SHRINK * x + shift * SD, factor * SD).to_event(1))


def verdict(model: Toy, x: Tensor) -> tuple[str, float, float]:
    """The verdict on one row, its KL(q || p) and its k-hat."""
    found = verdicts(model, x, refined_rows=1, annealed_rows=0, progress=False)
    return str(found.verdict.values[0]), float(found.kl[0]), float(found.pareto_k[0])


def curves(axes: Axes, model: Toy, x: Tensor, width: float = 4.0) -> None:
    """The posterior of one row, filled, and the encoder's density above it."""
    center = float(SHRINK * x)
    z = torch.linspace(center - width * SD, center + width * SD, 801)[:, None]
    p = model.density(z, x)
    q = model.encoder(x).log_prob(z[:, None])[:, 0].exp()
    axes.fill_between(z[:, 0], p, color=ORANGE, alpha=0.35, linewidth=0)
    axes.plot(z[:, 0], p, color=ORANGE, label="posterior p(z|x)")
    axes.plot(z[:, 0], q, color=BLUE, label="encoder q(z|x)")
    axes.set(yticks=[], ylim=(0, 1.9))
    axes.spines[["top", "right", "left"]].set_visible(False)


def four_rows() -> Figure:
    """One row, four encoders: densities, and the weights of 2000 draws."""
    x = torch.full((1, 1), 0.8)
    cases = {
        "exact": off_by(0.0, 1.0),
        "too wide": off_by(0.0, 1.5),
        "too narrow": off_by(0.0, 0.5),
        "misplaced": off_by(1.5, 1.0),
    }
    figure = Figure(figsize=(7, 8), layout="constrained", dpi=120)
    grid = figure.subplots(len(cases), 2, sharex="col")
    for (name, model), (left, right) in zip(cases.items(), grid, strict=True):
        word, kl, k = verdict(model, x)
        curves(left, model, x)
        left.set_title(f"{name}: {word}", loc="left")
        drawn = sample_posterior(model, x, num_samples=2000, progress=False)
        log_weight = np.sort(np.asarray(drawn.log_weight).ravel())[::-1]
        weight = np.exp(log_weight - log_weight.max())
        share = 100 * weight / weight.sum()
        print(
            f"{name:>20}: KL {kl:.2f} nats, k-hat {k:.2f}, {word}; "
            f"the heaviest draw has {share[0]:.2f} % of all weight"
        )
        right.plot(np.arange(1, len(share) + 1), share, color=BLUE, linewidth=2)
        right.axhline(100 / len(share), color=GRAY, linestyle=":")
        right.set(xscale="log", yscale="log", ylim=(1e-3, 30), ylabel="% of all weight")
        right.set_title(f"KL {kl:.2f} nats, k-hat {k:.2f}", loc="left")
        right.spines[["top", "right"]].set_visible(False)
    grid[-1, 0].set_xlabel("z")
    grid[-1, 1].set_xlabel("2000 draws, the heaviest first")
    grid[0, 0].legend(frameon=False, fontsize="small", loc="upper right")
    return figure


def front() -> Figure:
    """Four rows, and what the package says of each."""
    one, far = torch.full((1, 1), 0.8), torch.full((1, 1), 2.5)
    two = Toy(lambda x: dist.Normal(SHRINK * x, SD).to_event(1), torch.abs)
    cases = (
        (off_by(0.0, 1.0), one, 0),
        (off_by(0.0, 1.5), one, 0),
        (off_by(0.0, 0.45), one, 0),
        (two, far, 50),
    )
    said = {
        "as it is": "draws can be used",
        "reweighted": "weights mend the draws",
        "refined": "the row needs its own q",
        "not": "half of it is missed",
    }
    figure = Figure(figsize=(10, 2.3), layout="constrained", dpi=120)
    grid = figure.subplots(1, len(cases))
    for axes, (model, x, annealed) in zip(grid, cases, strict=True):
        found = verdicts(model, x, refined_rows=1, annealed_rows=annealed, progress=False)
        word = str(found.verdict.values[0])
        curves(axes, model, x, width=13.0 if annealed else 4.0)
        axes.set(xlabel="z", xticks=[], ylim=(0, 2.2))
        if annealed:
            axes.set(xlim=(-3.8, 3.8))
        axes.set_title(f"{word}:\n{said[word]}", loc="left")
        print(f"{word}: KL {float(found.kl[0]):.2f} nats, k-hat {float(found.pareto_k[0]):.2f}")
    grid[0].legend(frameon=False, fontsize="small", loc="upper left")
    return figure


def two_modes() -> Figure:
    """A row whose posterior has two modes, one of which the encoder does not know."""
    x = torch.full((1, 1), 2.5)
    z = torch.linspace(-4, 4, 1601)[:, None]
    model = Toy(lambda x: dist.Normal(SHRINK * x, SD).to_event(1), torch.abs)
    p = model.density(z, x)
    found = verdicts(model, x, refined_rows=0, annealed_rows=0, progress=False)
    asked = verdicts(model, x, refined_rows=0, annealed_rows=50, progress=False)
    exact = float(model.log_joint(z[:, None], x[None])[:, 0].logsumexp(0) + math.log(z[1] - z[0]))
    print(
        f"two modes: k-hat {float(found.pareto_k[0]):.2f}, {found.verdict.values[0]}; annealed: "
        f"{asked.verdict.values[0]}. log p(x) by weights {float(found.log_evidence[0]):.2f}, by "
        f"annealing {float(asked.annealed_log_evidence[0]):.2f}, exact {exact:.2f} nats"
    )
    figure = Figure(figsize=(7, 3), layout="constrained", dpi=120)
    axes = figure.subplots()
    q = model.encoder(x).log_prob(z[:, None])[:, 0].exp()
    axes.fill_between(z[:, 0], p, color=ORANGE, alpha=0.35, linewidth=0)
    axes.plot(z[:, 0], p, color=ORANGE, label="posterior p(z|x)")
    axes.plot(z[:, 0], q, color=BLUE, label="encoder q(z|x)")
    axes.set(yticks=[], xlabel="z")
    axes.legend(frameon=False, loc="upper left")
    axes.spines[["top", "right", "left"]].set_visible(False)
    return figure


def ranks() -> Figure:
    """Ranks of simulated truths among draws of four encoders."""
    cases = {
        "exact": off_by(0.0, 1.0),
        "too wide": off_by(0.0, 1.5),
        "too narrow": off_by(0.0, 0.6),
        "shifted": off_by(0.5, 1.0),
    }
    figure = Figure(figsize=(7, 4.6), layout="constrained", dpi=120)
    grid = figure.subplots(2, 2, sharex=True, sharey=True)
    for (name, model), axes in zip(cases.items(), grid.flat, strict=True):
        found = calibrate(model, num_simulations=2000, progress=False)
        word = str(found["shape"].values[0])
        print(f"{name:>20}: ranks are {word}, p {float(found.p_value[0]):.2g}")
        counts, _ = np.histogram(found["rank"].values[:, 0], np.linspace(0, 200, 21) - 0.5)
        axes.bar(np.arange(20) + 0.5, counts, 0.9, color=BLUE)
        low, high = 100 - 1.96 * math.sqrt(95), 100 + 1.96 * math.sqrt(95)
        axes.axhspan(low, high, color=GRAY, alpha=0.35, linewidth=0)
        axes.set(xticks=[0, 10, 20], xticklabels=["none", "half", "all"])
        axes.set_title(name, loc="left")
        axes.spines[["top", "right"]].set_visible(False)
    for axes in grid[:, 0]:
        axes.set_ylabel("simulated rows")
    for axes in grid[1]:
        axes.set_xlabel("draws below the truth")
    return figure


def gaps() -> Figure:
    """A row of two latents that depend on each other: what the encoder loses, and to what."""
    x = torch.full((1, 1), 1.0)
    precision = torch.eye(2) + torch.ones(2, 2) / NOISE**2
    covariance = torch.linalg.inv(precision)
    mean = covariance @ torch.ones(2) / NOISE**2
    best = precision.diagonal() ** -0.5  # of independent normals
    shift, factor = torch.tensor([0.45, 0.15]), torch.tensor([1.0, 1.5])
    model = Toy(
        lambda x: dist.Normal(x * mean + shift, best * factor).to_event(1),
        lambda z: z.sum(-1, keepdim=True),
        latents=2,
    )
    found = amortization_gap(model, x, num_samples=2000, progress=False)
    parts = {
        "location": float(found.location[0]),
        "scale": float(found.scale[0]),
        "family": float(found.approximation[0]),
    }
    print("gaps:", ", ".join(f"{name} {nats:.2f}" for name, nats in parts.items()), "nats")
    figure = Figure(figsize=(7, 6), layout="constrained", dpi=120)
    top, bottom = figure.subplots(2, 1, height_ratios=(3, 1))
    angle = np.linspace(0, 2 * np.pi, 200)
    circle = np.stack([np.cos(angle), np.sin(angle)])
    root = np.linalg.cholesky(covariance.numpy())
    for radius in (1, 2):
        called = (lambda name: name) if radius == 1 else (lambda name: None)
        ellipse = mean.numpy()[:, None] + radius * root @ circle
        top.fill(*ellipse, color=ORANGE, alpha=0.3, linewidth=0, label=called("posterior"))
        for center, sd, color, style, name in (
            (mean + shift, best * factor, BLUE, "-", "encoder"),
            (mean, best, GREEN, "--", "best independent normals"),
        ):
            around = center.numpy()[:, None] + radius * sd.numpy()[:, None] * circle
            top.plot(*around, color=color, linestyle=style, label=called(name))
    top.set(xlabel="z[0]", ylabel="z[1]", aspect="equal")
    top.spines[["top", "right"]].set_visible(False)
    top.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    start = 0.0
    colors = {"location": BLUE, "scale": "#56B4E9", "family": GREEN}
    for name, nats in parts.items():
        bottom.barh(0, nats, left=start, color=colors[name], height=0.5)
        text = f"{name}\n{nats:.2f}"
        bottom.annotate(text, (start + nats / 2, 0.3), ha="center")
        start += nats
    bottom.set(yticks=[], ylim=(-0.3, 0.8), xlabel="nats between the ELBO and log p(x)")
    bottom.spines[["top", "right", "left"]].set_visible(False)
    return figure


def main() -> None:
    """Draw them all, or those that are named."""
    for draw in (front, four_rows, two_modes, ranks, gaps):
        if len(sys.argv) == 1 or draw.__name__ in sys.argv:
            torch.manual_seed(0)
            name = draw.__name__ if draw is front else f"believing_{draw.__name__}"
            draw().savefig(FOLDER / f"{name}.png")


if __name__ == "__main__":
    main()
