r"""Bounds whose gradients leave out the score of the guide, which has mean zero and variance."""

from __future__ import annotations

__all__ = ["DReG", "StickingTheLanding"]

import math
from collections.abc import Callable

from torch import Tensor

from .bounds import IWAE
from .row import OBJECTIVES, RowObjective, Terms, sum_of


@OBJECTIVES.register("stl")
class StickingTheLanding(RowObjective):
    r"""The ELBO, whose gradient reaches the guide through the draws alone.

    .. math:: \nabla_\phi E_\epsilon[\log p(x, z) - \log q_{\bar\phi}(z \mid x)], \quad
        z = z_\phi(\epsilon), \; \bar\phi = \phi \text{ held constant}

    The part left out, the score of the guide, is zero on average. Without it the gradient has no
    variance where the guide is exact.

    Source: Roeder et al. (2017), *Sticking the landing*, equation 8.

    Examples
    --------
    >>> import torch
    >>> from ppl_vae import VAE, VAEConfig
    >>> config = VAEConfig(event_shape=(4,), latent_dim=2, hidden=(8,))
    >>> vae = VAE.from_config(config, name="sticki")
    >>> loss = StickingTheLanding().differentiable_loss(vae.model, vae.guide, torch.ones(5, 4))
    >>> loss.shape, loss.requires_grad
    (torch.Size([]), True)
    """

    def by_row(self, terms: Terms, num_rows: int) -> Tensor:
        return _without_score(terms).mean(0)


@OBJECTIVES.register("dreg")
class DReG(IWAE):
    r"""The importance-weighted bound with the doubly reparameterized gradient.

    .. math:: \nabla_\phi = E \sum_k \bar w_k^2 \,
        \frac{\partial \log w_k}{\partial z_k} \frac{\partial z_k}{\partial \phi}, \quad
        \bar w_k = w_k / \textstyle\sum_l w_l

    The guide's gradient improves with the number of particles, where that of ``"iwae"`` drowns in
    its noise. The model's gradient is that of ``"iwae"``.

    Source: Tucker et al. (2019), *Doubly reparameterized gradient estimators for Monte Carlo
    objectives*, equation 8.

    Parameters
    ----------
    num_particles
        The number K of draws for each row.

    Examples
    --------
    >>> import torch
    >>> from ppl_vae import VAE, VAEConfig
    >>> config = VAEConfig(event_shape=(4,), latent_dim=2, hidden=(8,))
    >>> vae = VAE.from_config(config, name="dreg")
    >>> loss = DReG(num_particles=8).differentiable_loss(vae.model, vae.guide, torch.ones(5, 4))
    >>> loss.shape, loss.requires_grad
    (torch.Size([]), True)
    """

    def by_row(self, terms: Terms, num_rows: int) -> Tensor:
        log_weight = _without_score(terms)
        weight = log_weight.detach().softmax(0)  # (particle, row)
        for z in terms.z.values():
            if z.requires_grad and self.num_particles > 1:
                # The logarithm of the mean gives one weight, this the other.
                z.register_hook(_scaled(weight))
        return log_weight.logsumexp(0) - math.log(self.num_particles)


def _without_score(terms: Terms) -> Tensor:
    """The log-weights, (particle, row), whose gradients pass through the draws alone."""
    scores = []
    for site, z in terms.z.items():
        # A density of constant draws moves with the guide's parameters alone.
        score = terms.log_q_at[site](z.detach())
        scores.append(score - score.detach())
    return terms.log_weight + sum_of(scores)


def _scaled(weight: Tensor) -> Callable[[Tensor], Tensor]:
    """A hook that multiplies the gradient of draws ``(particle, row, ...)`` by weights."""
    return lambda gradient: (
        gradient * weight.reshape(*weight.shape, *[1] * (gradient.dim() - weight.dim()))
    )
