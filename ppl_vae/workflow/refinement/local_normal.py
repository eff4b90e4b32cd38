"""The best normal posterior for each row by itself: what q(z|x) could be without amortization."""

from __future__ import annotations

__all__ = [
    "PARTICLES",
    "Gaussian",
    "LocalPosterior",
    "better_of",
    "chunks",
    "encoded",
    "local_posterior",
    "log_weight",
]

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ...amortized import AmortizedModel
from ...rows import Batch, Rows, rows_within_budget
from ..draws.gaussian import Gaussian
from ..draws.latents import Coordinates, coordinates, density, draw

PARTICLES = 8
_WINDOW = 25
_COOLING = 300
_TOLERANCE = 0.01
# Draws that tell which of two posteriors is better, from the same noise or each from its own.
_PAIRED = 64
_UNPAIRED = 500


@dataclass(frozen=True)
class LocalPosterior:
    """A posterior of each row: a normal in coordinates of the latents.

    Attributes
    ----------
    normal
        In ``coordinates``.
    coordinates
        The coordinates of the encoder's distribution.
    own
        The encoder's distribution, where ``keeps`` says so: that of rows whose draws come from
        it, as no normal stands for it exactly.
    keeps
        Shape ``(row,)``: rows that stay as the encoder has them.
    """

    normal: Gaussian
    coordinates: Coordinates
    own: Any
    keeps: Tensor

    @property
    def family(self) -> str:
        """What a normal in these coordinates is, in words."""
        return self.coordinates.family

    @property
    def loc(self) -> Tensor:
        """Of the normal, ``(row, latent)``."""
        return self.normal.loc

    @property
    def scale(self) -> Tensor:
        """Of the normal, ``(row, latent)`` or ``(row, latent, latent)``."""
        return self.normal.scale

    def noise(self, *shape: int) -> Tensor:
        """Standard normal noise for :meth:`draws`, shape ``(*shape, row, latent)``."""
        return self.normal.noise(*shape)

    def at(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Latents of noise ``(draw, row, latent)`` and their log-density, all by the normal."""
        u = self.normal.at(noise)
        z, log_det = self.coordinates.map(u)
        return z, self.normal.distribution.log_prob(u) - log_det

    def draws(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Latents and log q(z), ``(draw, row)``: of the encoder's own draws in rows it keeps.

        Where coordinates are exact, these are functions of the noise in all rows.
        """
        z, log_q = self.at(noise)
        if self.coordinates.exact or not self.keeps.any():
            return z, log_q
        own = draw(self.own, (len(noise),))
        log_own = density(self.own, own)
        return torch.where(self.keeps[:, None], own, z), torch.where(self.keeps, log_own, log_q)


def local_posterior(
    vae: AmortizedModel,
    x: Tensor,
    covariates: Tensor | None = None,
    *,
    dense: bool = False,
    max_steps: int = 1000,
    learning_rate: float = 0.1,
) -> tuple[LocalPosterior, LocalPosterior]:
    r"""The encoder's posterior of each row, and the normal that maximizes that row's ELBO.

    Normals are over coordinates u of the latents, :math:`z = T(u)`, in which the encoder's
    distribution is normal, such as the noise of a normalizing flow: see
    :func:`~ppl_vae.workflow.draws.latents.coordinates`. For normal encoders T is the identity.

    All rows at once, by Adam on :math:`(a, b)`, from zero on, where the location is
    :math:`\mu(x) + \sigma(x) a` and the scale :math:`\sigma(x) e^b`. Draws are antithetic, and the
    gradient leaves out the score of q, whose mean is zero, so that its noise vanishes where q
    becomes exact. As soon as no row's ELBO rises by more than 0.01 nats and its noise any more, the
    learning rate falls to zero over 300 steps. A row keeps what the encoder says if fresh draws
    find no better ELBO in the fitted normal.

    Source: Roeder et al. (2017), *Sticking the landing*.

    Parameters
    ----------
    vae
        A model; neither its parameters nor their gradients change.
    x, covariates
        Rows as the model reads them, of its dtype and on its device: see :func:`chunks`.
    dense
        Give each row a full covariance, whatever the encoder's family, once the best of that
        family is found.
    max_steps
        Steps before the learning rate falls, at most.
    learning_rate
        Adam's learning rate, in units of the encoder's standard deviation.

    Returns
    -------
    The encoder's :class:`LocalPosterior` and the fitted one.

    Raises
    ------
    ValueError
        If the latents are discrete.

    Examples
    --------
    Draws come from the global random state, which ``evaluating`` sets and gives back:

    >>> from ppl_vae import VAE, VAEConfig
    >>> from ppl_vae.workflow.draws.posterior import evaluating
    >>> vae = VAE.from_config(VAEConfig(event_shape=(8, 8), latent_dim=2, hidden=(16,)))
    >>> with evaluating(vae, seed=0):
    ...     encoder, best = local_posterior(vae, torch.ones(5, 8, 8), max_steps=50)
    >>> best.normal.loc.shape, best.normal.scale.shape
    (torch.Size([5, 2]), torch.Size([5, 2]))
    """
    with torch.no_grad():
        encoder = encoded(vae, x, covariates)
        best = _fit(vae, x, covariates, encoder, max_steps, learning_rate)
        if dense and best.normal.scale.dim() == 2:
            # The noise of a row of the scale adds up over its entries.
            rate = learning_rate / vae.latent_dim**0.5
            start = replace(best, normal=best.normal.dense(), keeps=~encoder.keeps)
            best = _fit(vae, x, covariates, start, max_steps, rate)
    return encoder, best


def encoded(vae: AmortizedModel, x: Tensor, covariates: Tensor | None) -> LocalPosterior:
    """The encoder's posterior of each row as a normal in coordinates of its own."""
    q = vae.posterior(x, covariates)
    found = coordinates(q, len(x))
    every = torch.ones(len(x), dtype=torch.bool, device=x.device)
    return LocalPosterior(found.normal, found, q, keeps=every)


def better_of(
    vae: AmortizedModel,
    x: Tensor,
    covariates: Tensor | None,
    start: LocalPosterior,
    fitted: LocalPosterior,
) -> LocalPosterior:
    """``fitted`` in rows in which the same fresh draws give it a better ELBO, else ``start``."""
    noise = start.noise(_PAIRED if start.coordinates.exact else _UNPAIRED)
    before, after = (log_weight(vae, x, covariates, q, noise).mean(0) for q in (start, fitted))
    better = after.isfinite() & ~(after <= before)  # NaN is never better
    return replace(
        start, normal=fitted.normal.where(better, start.normal), keeps=start.keeps & ~better
    )


def _fit(
    vae: AmortizedModel,
    x: Tensor,
    covariates: Tensor | None,
    start: LocalPosterior,
    max_steps: int,
    rate: float,
) -> LocalPosterior:
    shift = torch.zeros_like(start.normal.loc).requires_grad_()
    stretch = torch.zeros_like(start.normal.scale).requires_grad_()
    # Adam turns rounding errors into full steps unless eps is larger than they are.
    adam = torch.optim.Adam([shift, stretch], rate, betas=(0.9, 0.99), eps=1e-4)

    def step() -> Tensor:
        half = start.noise(PARTICLES // 2)
        with torch.enable_grad():
            normal = start.normal.moved(shift, stretch)
            u = normal.at(torch.cat([half, -half]))  # (draw, row, latent)
            z, log_det = start.coordinates.map(u)
            log_q = normal.detach().distribution.log_prob(u) - log_det
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
            # Written so that a row whose ELBO is NaN does not hold up the others.
            if not (mean - last[0] > _TOLERANCE + 4 * error).any():
                break
        last = mean, variance
    for left in torch.linspace(0.25, 0.0, _COOLING).tolist():
        adam.param_groups[0]["lr"] = left * rate
        step()
    none = torch.zeros_like(start.keeps)
    fitted = replace(start, normal=start.normal.moved(shift, stretch).detach(), keeps=none)
    return better_of(vae, x, covariates, start, fitted)


def log_weight(
    vae: AmortizedModel, x: Tensor, covariates: Tensor | None, q: LocalPosterior, noise: Tensor
) -> Tensor:
    """log p(x, z) - log q(z) of ``q.draws(noise)``, shape ``(draw, row)``, nats."""
    z, log_q = q.draws(noise)
    return vae.log_joint(z, x, covariates) - log_q


def chunks(
    vae: AmortizedModel,
    x: Tensor | Rows,
    covariates: Tensor | None = None,
    chunk_rows: int | None = None,
    *,
    max_rows: int | None = None,
) -> Iterator[Batch]:
    """Rows and their covariates as the model reads them, ``chunk_rows`` at a time.

    By default as many as :func:`local_posterior` has memory for, at most ``max_rows``.
    """
    size = rows_within_budget(vae.event_shape, PARTICLES, gradients=True, chunk_rows=chunk_rows)
    if chunk_rows is None:
        size = min(size, max_rows or size)
    for _, batch in Rows.of(x, covariates, vae).chunks(size, vae.like):
        yield batch
