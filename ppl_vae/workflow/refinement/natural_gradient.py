"""A better normal for each row in a few steps: natural gradients in place of local SVI."""

from __future__ import annotations

__all__ = ["STEPS", "natural_gradient"]

from dataclasses import replace

import torch
from torch import Tensor

from ...amortized import AmortizedModel
from .local_normal import PARTICLES, LocalPosterior, better_of, encoded

# Steps that reach most of what local SVI does, and the first and the last of their sizes.
STEPS = 12
_FIRST, _LAST = 0.8, 0.05
# Step t moves precisions by 4 / (t + this): an average whose weights grow with the steps.
_DELAY = 6.0
# A step is no longer than this many standard deviations.
_LONGEST = 3.0
# What a step leaves of a precision, at least: noise may make one negative.
_LEAST = 0.25


def natural_gradient(
    vae: AmortizedModel,
    x: Tensor,
    covariates: Tensor | None = None,
    *,
    steps: int = STEPS,
) -> tuple[LocalPosterior, LocalPosterior]:
    r"""The encoder's posterior of each row, and a normal with nearly the best ELBO of that row.

    In noise v of the encoder's distribution, in which it is standard normal, the mean m and the
    standard deviation s of each coordinate move along the natural gradient of the ELBO,

    .. math:: s^{-2} \leftarrow (1 - \rho) s^{-2} - \rho \operatorname{E}[\partial^2 \log p], \quad
        m \leftarrow m + \rho \, s^2 \operatorname{E}[\partial \log p],

    by gradients at eight antithetic draws for all rows at once. The second derivative is that of
    Stein's lemma, :math:`\operatorname{E}[\varepsilon \, \partial \log w]`, with weights
    :math:`w = p / q`, whose noise vanishes where q is exact. Later steps are smaller, so that
    noise averages out. A row keeps what the encoder says if fresh draws find no better ELBO.

    Importance-weighted moment matching (Paananen et al. 2021) needs no gradients, but its weights
    leave few effective draws of 50 latents: see ``benchmarks/refinement.py``, where it is a peer.

    Source: Khan & Nielsen (2018), *Fast yet simple natural-gradient descent for variational
    inference in complex models*; Roeder et al. (2017), *Sticking the landing*.

    Parameters
    ----------
    vae
        A model; neither its parameters nor their gradients change.
    x, covariates
        Rows as the model reads them, of its dtype and on its device.
    steps
        Steps, each of which costs a gradient at eight draws of each row.

    Returns
    -------
    The encoder's :class:`~ppl_vae.workflow.refinement.local_normal.LocalPosterior` and the better
    one, of the encoder's family: a full covariance is stretched along its own axes.

    Raises
    ------
    ValueError
        If the latents are discrete.

    Examples
    --------
    >>> from ppl_vae import VAE, VAEConfig
    >>> from ppl_vae.workflow.draws.posterior import evaluating
    >>> vae = VAE.from_config(VAEConfig(event_shape=(8, 8), latent_dim=2, hidden=(16,)))
    >>> with evaluating(vae, seed=0):
    ...     encoder, best = natural_gradient(vae, torch.ones(5, 8, 8))
    >>> best.normal.loc.shape
    torch.Size([5, 2])
    """
    with torch.no_grad():
        encoder = encoded(vae, x, covariates)
        start = encoder.normal
        mean, sd = torch.zeros_like(start.loc), torch.ones_like(start.loc)
        for step in range(steps):
            # With the mean and the variance of a standard normal, these few draws have no noise
            # where log p is quadratic.
            half = start.noise(PARTICLES // 2)
            half = half / half.square().mean(0).sqrt()
            noise = torch.cat([half, -half])  # (draw, row, latent)
            with torch.enable_grad():
                v = (mean + sd * noise).requires_grad_()
                z, log_det = encoder.coordinates.map(start.at(v))
                log_p = vae.log_joint(z, x, covariates) + log_det
                (slope,) = torch.autograd.grad(log_p.sum(), v)
            # Of log p / q, by noise. A row without a finite slope stays where it is.
            slope = (sd * slope + noise).nan_to_num(0.0, 0.0, 0.0)
            # Of precisions in units of the one there is.
            change = 4 / (step + _DELAY) * (slope * noise).mean(0)
            new = sd * (1 - change).clamp(min=_LEAST).rsqrt()
            rho = _FIRST + (_LAST - _FIRST) * step / max(1, steps - 1)
            move = rho * new.square() / sd * slope.mean(0)
            length = (move / new).norm(dim=-1, keepdim=True)
            mean = mean + move * (_LONGEST / length).clamp(max=1.0)
            sd = new
        stretch = sd.log() if start.scale.dim() == 2 else sd.log().diag_embed()
        fitted = replace(
            encoder, normal=start.moved(mean, stretch), keeps=torch.zeros_like(encoder.keeps)
        )
        return encoder, better_of(vae, x, covariates, encoder, fitted)
