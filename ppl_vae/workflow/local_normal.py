"""The best normal posterior for each row by itself: what q(z|x) could be without amortization."""

from __future__ import annotations

__all__ = ["Gaussian", "chunks", "local_posterior", "log_weight"]

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor

from ..rows import to_float
from ..vae import VAE

# Entries of data that the decoder is given at once: about 16 MB in single precision.
_ENTRIES = 2**22
_PARTICLES = 8
_WINDOW = 25
_COOLING = 300
_TOLERANCE = 0.01


@dataclass(frozen=True)
class Gaussian:
    """A normal over the latents of each row.

    ``loc`` is ``(row, latent)``; ``scale`` holds standard deviations, ``(row, latent)``, or lower
    triangular factors of covariances, ``(row, latent, latent)``.
    """

    loc: Tensor
    scale: Tensor

    @classmethod
    def of(cls, q: TorchDistributionMixin) -> Gaussian:
        """The same distribution as ``q``, what an encoder returned.

        Raises
        ------
        TypeError
            If that is not a normal.
        """
        base = getattr(q, "base_dist", None)
        if isinstance(base, dist.Normal):
            return cls(base.loc, base.scale)
        if isinstance(q, dist.MultivariateNormal):
            return cls(q.loc, q.scale_tril)
        raise TypeError(
            f"the encoder returned {q}, whose parameters cannot be fitted row by row; accepted "
            "are independent normals and MultivariateNormal, so use an encoder of these"
        )

    @property
    def distribution(self) -> TorchDistributionMixin:
        """With batch shape ``(row,)`` and event shape ``(latent,)``."""
        if self.scale.dim() == 3:
            return dist.MultivariateNormal(self.loc, scale_tril=self.scale)
        return dist.Normal(self.loc, self.scale).to_event(1)

    def noise(self, *shape: int) -> Tensor:
        """Standard normal noise for :meth:`at`, shape ``(*shape, row, latent)``."""
        like = self.loc
        return torch.randn(*shape, *like.shape, dtype=like.dtype, device=like.device)

    def at(self, noise: Tensor) -> Tensor:
        """Latents of the shape of ``noise``, ``(*shape, row, latent)``."""
        if self.scale.dim() == 3:
            return self.loc + torch.einsum("rij,...rj->...ri", self.scale, noise)
        return self.loc + self.scale * noise

    def dense(self) -> Gaussian:
        """The same distribution with a scale of shape ``(row, latent, latent)``."""
        return self if self.scale.dim() == 3 else Gaussian(self.loc, self.scale.diag_embed())

    def detach(self) -> Gaussian:
        """The same numbers, without their history."""
        return Gaussian(self.loc.detach(), self.scale.detach())

    def moved(self, shift: Tensor, stretch: Tensor) -> Gaussian:
        """Shifted in units of the scale, and stretched by the exponential of ``stretch``.

        ``stretch`` has the shape of ``scale``. Below its diagonal, where it has one, it is not
        exponentiated, and above it is not looked at.
        """
        if self.scale.dim() == 2:
            return Gaussian(self.at(shift), self.scale * stretch.exp())
        inner = stretch.tril(-1) + stretch.diagonal(dim1=-2, dim2=-1).exp().diag_embed()
        return Gaussian(self.at(shift), self.scale @ inner)

    def where(self, condition: Tensor, other: Gaussian) -> Gaussian:
        """The same in the rows where ``condition`` (row) holds, and ``other`` elsewhere."""
        in_scale = condition.reshape(-1, *[1] * (self.scale.dim() - 1))
        return Gaussian(
            torch.where(condition[:, None], self.loc, other.loc),
            torch.where(in_scale, self.scale, other.scale),
        )


def local_posterior(
    vae: VAE,
    x: Tensor,
    covariates: Tensor | None = None,
    *,
    dense: bool = False,
    max_steps: int = 1000,
    learning_rate: float = 0.1,
) -> tuple[Gaussian, Gaussian]:
    r"""The encoder's normal for each row, and the normal that maximizes that row's ELBO.

    All rows at once, by Adam on :math:`(a, b)`, from zero on, where the location is
    :math:`\mu(x) + \sigma(x) a` and the scale :math:`\sigma(x) e^b`. Draws are antithetic, and the
    gradient leaves out the score of q, whose mean is zero, so that its noise vanishes where q
    becomes exact. As soon as no row's ELBO rises by more than 0.01 nats and its noise any more, the
    learning rate falls to zero over 300 steps. A row keeps the encoder's normal if 64 fresh draws
    find no better ELBO in the fitted one.

    Source: Roeder et al. (2017), *Sticking the landing*.

    Parameters
    ----------
    vae
        A VAE; neither its parameters nor their gradients change.
    x, covariates
        Rows as the VAE reads them, of its dtype and on its device: see :func:`chunks`.
    dense
        Give each row a full covariance, whatever the encoder's family, once the best of that
        family is found.
    max_steps
        Steps before the learning rate falls, at most.
    learning_rate
        Of Adam, in units of the encoder's standard deviation.

    Returns
    -------
    The encoder's :class:`Gaussian` and the fitted one.

    Raises
    ------
    TypeError
        If the encoder does not return normals.

    Examples
    --------
    Draws come from the global random state, which ``evaluating`` sets and gives back:

    >>> from ppl_vae import VAEConfig
    >>> from ppl_vae.workflow.posterior import evaluating
    >>> vae = VAE.from_config(VAEConfig(event_shape=(8, 8), latent_dim=2, hidden=(16,)))
    >>> with evaluating(vae, seed=0):
    ...     encoder, best = local_posterior(vae, torch.ones(5, 8, 8), max_steps=50)
    >>> best.loc.shape, best.scale.shape
    (torch.Size([5, 2]), torch.Size([5, 2]))
    """
    with torch.no_grad():
        encoder = Gaussian.of(vae.posterior(x, covariates))
        best = _fit(vae, x, covariates, encoder, max_steps, learning_rate)
        if dense and best.scale.dim() == 2:
            # The noise of a row of the scale adds up over its entries.
            rate = learning_rate / vae.latent_dim**0.5
            best = _fit(vae, x, covariates, best.dense(), max_steps, rate)
    return encoder, best


def _fit(
    vae: VAE, x: Tensor, covariates: Tensor | None, start: Gaussian, max_steps: int, rate: float
) -> Gaussian:
    shift = torch.zeros_like(start.loc).requires_grad_()
    stretch = torch.zeros_like(start.scale).requires_grad_()
    # Adam blows any gradient up to full steps, rounding errors too, unless eps is above them.
    adam = torch.optim.Adam([shift, stretch], rate, betas=(0.9, 0.99), eps=1e-4)

    def step() -> Tensor:
        half = start.noise(_PARTICLES // 2)
        with torch.enable_grad():
            q = start.moved(shift, stretch)
            z = q.at(torch.cat([half, -half]))  # (draw, row, latent)
            log_q = q.detach().distribution.log_prob(z)
            elbo = (vae.log_joint(z, x, covariates) - log_q).mean(0)
            shift.grad, stretch.grad = torch.autograd.grad(-elbo.sum(), [shift, stretch])
        adam.step()
        return elbo.detach()

    last = None
    for _ in range(0, max_steps, _WINDOW):
        elbos = torch.stack([step() for _ in range(_WINDOW)]).double()  # (step, row)
        mean, variance = elbos.mean(0), elbos.var(0) / _WINDOW
        if last is not None:
            error = (variance + last[1]).sqrt()
            # Written so that a row whose ELBO is no number does not hold up the others.
            if not (mean - last[0] > _TOLERANCE + 4 * error).any():
                break
        last = mean, variance
    for left in torch.linspace(0.25, 0.0, _COOLING).tolist():
        adam.param_groups[0]["lr"] = left * rate
        step()
    fitted, noise = start.moved(shift, stretch), start.noise(64)
    gain = log_weight(vae, x, covariates, fitted, noise) - log_weight(
        vae, x, covariates, start, noise
    )
    return fitted.where(gain.mean(0) > 0, start)


def log_weight(
    vae: VAE, x: Tensor, covariates: Tensor | None, q: Gaussian, noise: Tensor
) -> Tensor:
    """log p(x, z) - log q(z) of ``q.at(noise)``, shape ``(draw, row)``, nats."""
    z = q.at(noise)
    return vae.log_joint(z, x, covariates) - q.distribution.log_prob(z)


def chunks(
    vae: VAE,
    x: Tensor,
    covariates: Tensor | None,
    chunk_rows: int | None,
    *,
    max_rows: int | None = None,
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Rows and their covariates as the VAE reads them, ``chunk_rows`` at a time.

    By default as many as :func:`local_posterior` has memory for, at most ``max_rows``.
    """
    if chunk_rows is None:
        chunk_rows = max(1, _ENTRIES // (_PARTICLES * prod(vae.event_shape)))
        chunk_rows = min(chunk_rows, max_rows or chunk_rows)
    elif chunk_rows < 1:
        raise ValueError(f"chunk_rows is {chunk_rows}; pass at least 1, or None to choose")
    like = next(vae.parameters())
    for start in range(0, len(x), chunk_rows):
        rows = slice(start, start + chunk_rows)
        given = None if covariates is None else covariates[rows].to(like)
        yield to_float(x[rows].to(like.device), like.dtype), given
