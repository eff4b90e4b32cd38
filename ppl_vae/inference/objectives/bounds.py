"""Lower bounds on log p(x): the ELBO, by draws or by formula, and the importance-weighted one."""

from __future__ import annotations

__all__ = ["IWAE", "Elbo", "MeanField"]

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.distributions import kl_divergence

from .antithetic import mirrored
from .row import OBJECTIVES, RowObjective, Terms, sum_of


@OBJECTIVES.register("elbo")
class Elbo(RowObjective):
    r"""The evidence lower bound, :math:`E_q[\log p(x, z) - \log q(z \mid x)]`.

    The numbers and gradients of Pyro's ``Trace_ELBO``.

    Source: Kingma & Welling (2014), equation 7.

    Parameters
    ----------
    num_particles
        Draws of the latents for each row.
    antithetic
        Whether half of the draws are the others' mirror images, with the mean of q in the middle:
        an even number of draws, of a guide that is symmetric around its mean. In a linear VAE two
        such draws of half of the rows have a gradient with a tenth less noise than one draw of
        each: ``benchmarks/gradient_noise.py``.

    Raises
    ------
    ValueError
        If ``antithetic`` is asked of an odd number of draws, or, once there is a guide, of one that
        is not known to be symmetric.

    Examples
    --------
    >>> import torch
    >>> from ppl_vae import VAE, VAEConfig
    >>> config = VAEConfig(event_shape=(4,), latent_dim=2, hidden=(8,))
    >>> vae = VAE.from_config(config, name="e")
    >>> loss = Elbo().differentiable_loss(vae.model, vae.guide, torch.ones(5, 4))
    >>> loss.shape
    torch.Size([])
    """

    def __init__(self, num_particles: int = 1, antithetic: bool = False) -> None:
        super().__init__(num_particles)
        if antithetic and num_particles % 2:
            raise ValueError(
                f"num_particles is {num_particles}; antithetic draws come in pairs: pass an even "
                "number"
            )
        self.antithetic = antithetic

    def by_row(self, terms: Terms, num_rows: int) -> Tensor:
        return terms.log_weight.mean(0)

    def _drawn(self, guide: Callable[..., Any]) -> Callable[..., Any]:
        drawn = self._vectorized(guide)
        return mirrored(drawn) if self.antithetic else drawn


@OBJECTIVES.register("mean_field")
class MeanField(RowObjective):
    r"""The ELBO with the KL divergence by its formula, where there is one.

    .. math:: E_q[\log p(x \mid z)] - \operatorname{KL}(q(z \mid x) \,\|\, p(z))

    The numbers of Pyro's ``TraceMeanField_ELBO``.

    Source: Kingma & Welling (2014), equation 8.

    Examples
    --------
    >>> import torch
    >>> from ppl_vae import VAE, VAEConfig
    >>> config = VAEConfig(event_shape=(4,), latent_dim=2, hidden=(8,))
    >>> vae = VAE.from_config(config, name="meanfi")
    >>> loss = MeanField().differentiable_loss(vae.model, vae.guide, torch.ones(5, 4))
    >>> loss.shape, loss.requires_grad
    (torch.Size([]), True)
    """

    def by_row(self, terms: Terms, num_rows: int) -> Tensor:
        return terms.log_likelihood.mean(0) - sum_of([self._kl(terms, site) for site in terms.z])

    def bound(self, terms: Terms) -> Tensor:
        return self.by_row(terms, 0)

    def _kl(self, terms: Terms, site: str) -> Tensor:
        try:
            kl = kl_divergence(terms.q[site], terms.p[site])
        except NotImplementedError:
            kl = terms.log_q[site] - terms.log_prior[site]
        return kl.expand(self.num_particles, -1).mean(0) if kl.dim() < 2 else kl.mean(0)


@OBJECTIVES.register("iwae")
class IWAE(RowObjective):
    r"""The importance-weighted bound, :math:`E \log \frac1K \sum_k p(x, z_k) / q(z_k \mid x)`.

    It rises to log p(x) with the number of particles. Under a subsampled plate each row keeps its
    own logarithm, which Pyro's ``RenyiELBO`` takes of all rows together.

    Of rows with missing entries, which the likelihood leaves out, it bounds log p(x_observed): the
    MIWAE bound, by which :func:`~ppl_vae.impute` has weights that can be used.

    Source: Burda et al. (2016), equation 8; Mattei & Frellsen (2019), *MIWAE*, equation 4.

    Parameters
    ----------
    num_particles
        The number K of draws for each row.

    Examples
    --------
    >>> import torch
    >>> from ppl_vae import VAE, VAEConfig
    >>> config = VAEConfig(event_shape=(4,), latent_dim=2, hidden=(8,))
    >>> vae = VAE.from_config(config, name="iwae")
    >>> loss = IWAE(num_particles=8).differentiable_loss(vae.model, vae.guide, torch.ones(5, 4))
    >>> loss.shape, loss.requires_grad
    (torch.Size([]), True)
    """

    def __init__(self, num_particles: int = 10) -> None:
        super().__init__(num_particles)

    def by_row(self, terms: Terms, num_rows: int) -> Tensor:
        return self.bound(terms)

    def bound(self, terms: Terms) -> Tensor:
        return terms.log_weight.logsumexp(0) - math.log(self.num_particles)
