"""Chains from a distribution to the posterior of each row, and the weights that they gather."""

from __future__ import annotations

__all__ = ["STARTS", "Path", "annealed", "there_and_back"]

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from ...amortized import AmortizedModel
from ...progress import Progress
from ..draws.latents import NO_INVERSE, draw

# How much closer together temperatures are at the ends than in the middle: 4 is that of Wu et al.
# (2017), who start from the prior; from an encoder, 2 left log-weights a fifth less spread.
STARTS = {"encoder": 2.0, "prior": 4.0}
_PILOT_CHAINS, _PILOT_WARMUP, _ACCEPTANCE = 4, 10, 0.65


def _temperatures(number: int, steepness: float) -> Tensor:
    """From 0 to 1 along a sigmoid, shape ``(number + 1,)``."""
    along = torch.linspace(-steepness, steepness, number + 1, dtype=torch.float64).sigmoid()
    return (along - along[0]) / (along[-1] - along[0])


@dataclass(frozen=True)
class _Point:
    """Where the chains are: z, and log p_0 and log p(x, z) with their gradients there.

    Kept apart for both ends of the path, so that a new temperature needs no new gradient.
    """

    z: Tensor  # (chain, row, latent)
    log_start: Tensor  # (chain, row)
    log_joint: Tensor  # (chain, row)
    start_gradient: Tensor  # (chain, row, latent)
    joint_gradient: Tensor  # (chain, row, latent)

    def log_density(self, beta: float) -> Tensor:
        return torch.lerp(self.log_start, self.log_joint, beta)

    def gradient(self, beta: float) -> Tensor:
        return torch.lerp(self.start_gradient, self.joint_gradient, beta)

    def where(self, accepted: Tensor, other: _Point) -> _Point:
        """Itself in the chains that accept it, ``other`` in the rest."""
        chosen = {}
        for field in fields(self):
            new, old = getattr(self, field.name), getattr(other, field.name)
            mask = accepted if new.dim() == 2 else accepted[..., None]
            chosen[field.name] = torch.where(mask, new, old)
        return _Point(**chosen)


class Path:
    """The densities from p_0(z) to p(x, z), for a chunk of rows, and moves that leave them be.

    Parameters
    ----------
    vae, x, covariates
        A model, and rows as it reads them.
    start
        ``"encoder"``, ``"prior"`` or a distribution over the latents.
    num_leapfrog
        Leapfrog steps of a move.
    """

    def __init__(
        self,
        vae: AmortizedModel,
        x: Tensor,
        covariates: Tensor | None,
        *,
        start: Any,
        num_leapfrog: int = 3,
    ) -> None:
        self.vae = vae
        self.x = x
        self.covariates = covariates
        self.steepness = STARTS["encoder" if start == "encoder" else "prior"]
        if start == "encoder":
            start = vae.posterior(x, covariates)
        elif start == "prior":
            start = vae.prior_at(covariates)
        self.start = start
        self.num_leapfrog = num_leapfrog
        try:
            self.start.log_prob(self.sample(1).clone())
        except NO_INVERSE as error:
            raise ValueError(
                f"{type(self.start).__name__} has no density at latents other than its own draws, "
                f"as annealing needs ({type(error).__name__}: {error}); use start='prior'"
            ) from error
        # From draws, since not every distribution knows its own standard deviation.
        self.scale = self.sample(64).std(0)  # (row, latent)
        if (self.scale == 0).all(0).any():
            raise ValueError(
                f"{type(self.start).__name__} does not vary in some latents, and annealing cannot "
                "start from a point; use start='prior'"
            )

    def sample(self, number: int) -> Tensor:
        """Draws of z from p_0, shape ``(number, row, latent)``."""
        return draw(self.start, (number,), rows=len(self.x))

    def at(self, z: Tensor) -> _Point:
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            log_start = self.start.log_prob(z)
            log_joint = self.vae.log_joint(z, self.x, self.covariates)
            start_gradient, joint_gradient = _gradient(log_start, z), _gradient(log_joint, z)
        return _Point(
            z.detach(), log_start.detach(), log_joint.detach(), start_gradient, joint_gradient
        )

    def move(self, here: _Point, beta: float, step: Tensor) -> tuple[_Point, Tensor]:
        """One Hamiltonian transition, and the probability of its acceptance, ``(chain, row)``."""
        # Steps that vary by a fifth keep trajectories from closing where they began.
        jitter = 0.8 + 0.4 * torch.rand_like(here.log_joint)
        size = (step * jitter)[..., None] * self.scale  # (chain, row, latent)
        momentum = torch.randn_like(here.z)
        there, moved = here, momentum
        for _ in range(self.num_leapfrog):
            half = moved + 0.5 * size * there.gradient(beta)
            there = self.at(there.z + size * half)
            moved = half + 0.5 * size * there.gradient(beta)
        kinetic = 0.5 * (momentum.square() - moved.square()).sum(-1)
        log_ratio = there.log_density(beta) - here.log_density(beta) + kinetic
        # A trajectory that diverged is NaN, and stays where it was.
        acceptance = log_ratio.exp().clamp(max=1.0).nan_to_num(nan=0.0)
        return there.where(torch.rand_like(acceptance) < acceptance, here), acceptance


def _gradient(value: Tensor, z: Tensor) -> Tensor:
    """The gradient of each sum over latents; zero where a density is flat."""
    if not value.requires_grad:
        return torch.zeros_like(z)
    # Flows keep what they computed last, which two densities may share.
    (gradient,) = torch.autograd.grad(
        value.sum(), z, retain_graph=True, allow_unused=True, materialize_grads=True
    )
    return gradient


def annealed(
    path: Path, num_chains: int, num_temperatures: int, bar: Progress | None = None
) -> tuple[Tensor, Tensor]:
    """Where chains from the start of a path end, ``(chain, row, latent)``, and log-weights."""
    temperatures = _temperatures(num_temperatures, path.steepness)
    steps = _tune(path, temperatures)
    return _run(path, path.sample(num_chains), temperatures, steps, bar)


def there_and_back(
    path: Path, z: Tensor, num_temperatures: int, bar: Progress | None = None
) -> tuple[Tensor, Tensor]:
    """Log-weights ``(chain, row)`` of chains from the start, and of those from z back to it.

    ``z`` holds exact draws from p(z|x), ``(chain, row, latent)``; both take the same steps.
    """
    temperatures = _temperatures(num_temperatures, path.steepness)
    steps = _tune(path, temperatures)
    _, there = _run(path, path.sample(len(z)), temperatures, steps, bar)
    _, back = _run(path, z, temperatures.flip(0), steps.flip(0), bar)
    return there, back


def _tune(path: Path, temperatures: Tensor) -> Tensor:
    """Step sizes ``(temperature, row)`` that accept 0.65 of the moves of a few pilot chains."""
    between = temperatures[1:-1].tolist()
    here = path.at(path.sample(_PILOT_CHAINS))
    log_step = torch.zeros_like(here.log_joint[0])
    log_steps = torch.empty(len(between), len(log_step)).to(log_step)
    for i, beta in enumerate(between[:1] * _PILOT_WARMUP + between, start=-_PILOT_WARMUP):
        if i >= 0:
            log_steps[i] = log_step
        here, acceptance = path.move(here, beta, log_step.exp())
        log_step = log_step + 0.5 * (acceptance.mean(0) - _ACCEPTANCE)
    return log_steps.exp()


def _run(
    path: Path, z: Tensor, temperatures: Tensor, steps: Tensor, bar: Progress | None
) -> tuple[Tensor, Tensor]:
    """Ends and log-weights of chains from ``z`` along the temperatures, up or down."""
    rows, increments, betas = len(path.x), temperatures.diff().tolist(), temperatures.tolist()
    here = path.at(z)
    total = torch.zeros_like(here.log_joint, dtype=torch.float64)
    for i, increment in enumerate(increments):
        total += increment * (here.log_joint - here.log_start).double()
        if i < len(steps):  # a move at the last temperature would not change the weight
            here, _ = path.move(here, betas[i + 1], steps[i])
        if bar is not None:
            bar.advance(rows * (i + 1) // len(increments) - rows * i // len(increments))
    return here.z, total
