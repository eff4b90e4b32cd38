"""Objectives that weigh or limit parts of the KL divergence; none is a bound on log p(x)."""

from __future__ import annotations

__all__ = ["TCVAE", "Beta", "FreeBits"]

import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Independent, kl_divergence

from .row import OBJECTIVES, RowObjective, Terms, sum_of


@OBJECTIVES.register("beta")
class Beta(RowObjective):
    r"""The ELBO with a weight on the KL divergence, constant or warmed up.

    .. math:: E_q[\log p(x \mid z)] - \beta(t) \operatorname{KL}(q(z \mid x) \,\|\, p(z))

    Source: Higgins et al. (2017), *beta-VAE*, equation 4; Sønderby et al. (2016), *Ladder
    variational autoencoders*, for the linear warm-up; Fu et al. (2019), *Cyclical annealing
    schedule*, for cycles.

    Parameters
    ----------
    beta
        The weight in the end.
    warmup
        The part of a fit, 0 to 1, over which the weight rises from 0 in a straight line; with
        ``cycles`` the part of each cycle.
    cycles
        How often the weight starts from 0 again.
    num_particles
        Draws of the latents for each row.

    Raises
    ------
    ValueError
        If an option is out of its range.

    Examples
    --------
    >>> beta = Beta(2.0, warmup=0.5)
    >>> beta.advance(0.25)
    >>> beta.weight
    tensor(1.)
    """

    def __init__(
        self, beta: float = 1.0, warmup: float = 0.0, cycles: int = 1, *, num_particles: int = 1
    ) -> None:
        super().__init__(num_particles)
        if not 0 <= beta < math.inf:
            raise ValueError(f"beta is {beta}; pass a number of at least 0")
        if not 0 <= warmup <= 1:
            raise ValueError(f"warmup is {warmup}; pass a part of the fit, from 0 to 1")
        if not (isinstance(cycles, int) and cycles >= 1):
            raise ValueError(f"cycles is {cycles}; pass a whole number of at least 1")
        self.beta = float(beta)
        self.warmup = float(warmup)
        self.cycles = cycles
        self.weight = torch.tensor(0.0 if warmup else self.beta)

    def advance(self, t: float) -> None:
        # The last cycle ends at the end, and does not start anew there.
        position = t * self.cycles - min(math.floor(t * self.cycles), self.cycles - 1)
        risen = min(1.0, position / self.warmup) if self.warmup else 1.0
        self.weight.fill_(self.beta * risen)

    def to(self, device: torch.device) -> None:
        self.weight = self.weight.to(device)

    def by_row(self, terms: Terms, num_rows: int) -> Tensor:
        weight = self.weight.to(terms.log_likelihood.dtype)
        return (terms.log_likelihood - weight * terms.log_ratio).mean(0)


@OBJECTIVES.register("free_bits")
class FreeBits(RowObjective):
    r"""The ELBO in which each latent may cost some nats for nothing.

    .. math:: E_q[\log p(x \mid z)] - \sum_j \max\Bigl(\lambda, \frac1B \sum_{i \in B}
        \operatorname{KL}(q(z_j \mid x_i) \,\|\, p(z_j))\Bigr)

    Latents that the encoder would leave at the prior are held in use: only what exceeds
    :math:`\lambda` on average over the batch is paid for. Where the guide's or the prior's latents
    are not independent of each other, all latents of a site are one group.

    Source: Kingma et al. (2016), *Improving variational inference with inverse autoregressive
    flow*, equation 15.

    Parameters
    ----------
    nats
        What each latent, or group of latents, may cost.
    num_particles
        Draws of the latents for each row.

    Raises
    ------
    ValueError
        If ``nats`` is negative or infinite.

    Examples
    --------
    >>> from ppl_vae import VAE, VAEConfig
    >>> config = VAEConfig(event_shape=(4,), latent_dim=2, hidden=(8,))
    >>> vae = VAE.from_config(config, name="freebi")
    >>> loss = FreeBits(nats=0.5).differentiable_loss(vae.model, vae.guide, torch.ones(5, 4))
    >>> loss.shape, loss.requires_grad
    (torch.Size([]), True)
    """

    separable = False

    def __init__(self, nats: float = 0.1, *, num_particles: int = 1) -> None:
        super().__init__(num_particles)
        if not 0 <= nats < math.inf:
            raise ValueError(f"nats is {nats}; pass a number of at least 0")
        self.nats = float(nats)

    def by_row(self, terms: Terms, num_rows: int) -> Tensor:
        cost = sum_of([self._kl(terms, site).clamp(min=self.nats).sum() for site in terms.z])
        return terms.log_likelihood.mean(0) - cost

    def _kl(self, terms: Terms, site: str) -> Tensor:
        """The mean KL divergence over the batch, by latent, or of all: shape ``(group,)``."""
        parts = _independent(terms.p[site]), _independent(terms.q[site])
        if None in parts:
            return (terms.log_q[site] - terms.log_prior[site]).mean((0, 1)).reshape(1)
        p, q = parts
        try:
            kl = kl_divergence(q, p)
        except NotImplementedError:
            kl = q.log_prob(terms.z[site]) - p.log_prob(terms.z[site])
        return kl.reshape(-1, kl.shape[-1]).mean(0)


@OBJECTIVES.register("tcvae")
class TCVAE(RowObjective):
    r"""The ELBO with a weight on the total correlation of the latents.

    .. math:: E_q[\log p(x \mid z)] - I(x; z)
        - \beta \operatorname{KL}\Bigl(q(z) \,\Big\|\, \prod_j q(z_j)\Bigr)
        - \sum_j \operatorname{KL}(q(z_j) \,\|\, p(z_j))

    The aggregate posterior :math:`q(z)` is estimated from the batch by minibatch-weighted
    sampling, which knows how many rows there are in all. The guide's latents are independent of
    each other given the row.

    Source: Chen et al. (2018), *Isolating sources of disentanglement in variational
    autoencoders*, equations 4 and S.8.

    Parameters
    ----------
    beta
        The weight on the total correlation.
    num_particles
        Draws of the latents for each row.

    Raises
    ------
    ValueError
        If ``beta`` is negative or infinite; when it is evaluated, if the guide's latents are not
        independent.

    Examples
    --------
    >>> from ppl_vae import VAE, VAEConfig
    >>> config = VAEConfig(event_shape=(4,), latent_dim=2, hidden=(8,))
    >>> vae = VAE.from_config(config, name="tcvae")
    >>> loss = TCVAE(beta=4.0).differentiable_loss(vae.model, vae.guide, torch.ones(5, 4))
    >>> loss.shape, loss.requires_grad
    (torch.Size([]), True)
    """

    separable = False

    def __init__(self, beta: float = 6.0, *, num_particles: int = 1) -> None:
        super().__init__(num_particles)
        if not 0 <= beta < math.inf:
            raise ValueError(f"beta is {beta}; pass a number of at least 0")
        self.beta = float(beta)

    def by_row(self, terms: Terms, num_rows: int) -> Tensor:
        correlation = sum_of([self._total_correlation(terms, site, num_rows) for site in terms.z])
        # The ELBO holds the total correlation once.
        return (terms.log_weight - (self.beta - 1.0) * correlation).mean(0)

    def _total_correlation(self, terms: Terms, site: str, num_rows: int) -> Tensor:
        """log q(z) - sum_j log q(z_j) of each draw, estimated: shape ``(particle, row)``."""
        q = _independent(terms.q[site])
        if q is None:
            raise ValueError(
                f"the latents of the guide's site {site!r} are not independent given a row, as "
                "TCVAE needs them to be; use the guide 'normal', or another objective"
            )
        z = terms.z[site].expand(self.num_particles, *terms.z[site].shape[-2:])
        # Each draw under the posterior of each row of the batch: (particle, row, row, latent).
        each = q.log_prob(z[:, :, None, :])
        total = math.log(each.shape[2] * num_rows)
        joint = each.sum(-1).logsumexp(2) - total
        return joint - (each.logsumexp(2) - total).sum(-1)


def _independent(q: Any) -> Any:
    """The distribution of each latent where these are independent, (row, latent), or None."""
    while isinstance(q, Independent) and q.reinterpreted_batch_ndims == 1:
        q = q.base_dist
        if not q.event_shape:
            return q
    return None
