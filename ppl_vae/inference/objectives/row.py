"""What an objective must say: a number for each row, and a bound on log p(x) beside it."""

from __future__ import annotations

__all__ = ["OBJECTIVES", "RowObjective", "Terms", "sum_of"]

import abc
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from pyro import plate, poutine
from pyro.distributions.util import scale_and_mask
from pyro.infer import ELBO
from pyro.infer.util import is_validation_enabled
from pyro.poutine.util import prune_subsample_sites
from pyro.util import check_model_guide_match
from torch import Tensor

from ...components.registry import Registry


@dataclass(frozen=True)
class Terms:
    """What the bound of a batch is made of, in nats, of shape ``(particle, row)``.

    Attributes
    ----------
    log_likelihood
        log p(x|z).
    log_prior, log_q
        log p(z) and log q(z|x) of each latent site.
    z, p, q
        The draws of each latent site, ``(particle, row, latent)``, and its distributions in the
        model and in the guide.
    log_q_at
        By latent site, a function that gives log q(z|x) of other draws of the same shape.
    """

    log_likelihood: Tensor
    log_prior: Mapping[str, Tensor]
    log_q: Mapping[str, Tensor]
    z: Mapping[str, Tensor]
    p: Mapping[str, Any]
    q: Mapping[str, Any]
    log_q_at: Mapping[str, Callable[[Tensor], Tensor]]

    @property
    def log_ratio(self) -> Tensor:
        """log q(z|x) - log p(z), of all latents together."""
        return sum_of([self.log_q[site] - self.log_prior[site] for site in self.z])

    @property
    def log_weight(self) -> Tensor:
        """log p(x, z) - log q(z|x)."""
        return self.log_likelihood - self.log_ratio


def sum_of(parts: list[Tensor]) -> Tensor:
    """The sum of one or more tensors."""
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


OBJECTIVES: Registry[RowObjective] = Registry("objective")


class RowObjective(ELBO, abc.ABC):
    r"""An objective that is a sum over rows, for :func:`~ppl_vae.fit` and for Pyro's ``SVI``.

    .. math:: \mathcal{L} = \frac{N}{B} \sum_{i \in B} \mathcal{L}_i

    A subclass says what is maximized for each row, :meth:`by_row`, from the :class:`Terms` of a
    batch. Where that is no bound on log p(x), as with a weight on the KL divergence,
    :meth:`bound` still is: validation, early stopping and the history of a fit go by it. The
    factor N/B of a subsampled plate stands outside of all that.

    Model and guide have reparameterized latents, and all their sites are in one plate, that of
    the rows.

    Parameters
    ----------
    num_particles
        Draws of the latents for each row.

    Attributes
    ----------
    separable
        Whether what is maximized for a row depends on that row alone, so that rows can be weighted.

    Notes
    -----
    It is recorded as it stands: no number is taken out of a tensor, and what changes from step to
    step is a tensor.

    Examples
    --------
    >>> from ppl_vae import VAE, VAEConfig, fit
    >>> class Tempered(RowObjective):
    ...     def by_row(self, terms, num_rows):
    ...         return (0.5 * terms.log_likelihood - terms.log_ratio).mean(0)
    >>> vae = VAE.from_config(VAEConfig(event_shape=(4,), latent_dim=2, hidden=(8,)))
    >>> fit(vae, torch.ones(20, 4), epochs=2, objective=Tempered(), progress=False).stop_reason
    'all 2 epochs done'
    """

    separable = True

    def __init__(self, num_particles: int = 1) -> None:
        if num_particles < 1:
            raise ValueError(f"num_particles is {num_particles}; pass at least 1")
        super().__init__(num_particles=num_particles)

    @abc.abstractmethod
    def by_row(self, terms: Terms, num_rows: int) -> Tensor:
        """What is maximized, in nats, shape ``(row,)``; ``num_rows`` is that of the whole data."""

    def bound(self, terms: Terms) -> Tensor:
        """A lower bound on log p(x) in expectation, in nats, shape ``(row,)``: the ELBO."""
        return terms.log_weight.mean(0)

    def advance(self, t: float) -> None:
        """Move what depends on the progress of a fit, ``t`` in [0, 1], in place."""

    def to(self, device: torch.device) -> None:
        """Move tensors to a device."""

    def settings(self) -> dict[str, Any]:
        """What a resumed fit must agree with: the name of the class and its options."""
        options = inspect.signature(type(self)).parameters
        return {
            "objective": type(self).__name__,
            **{name: getattr(self, name) for name in options if hasattr(self, name)},
        }

    def differentiable_loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Minus the objective, in nats, to be differentiated."""
        terms, num_rows, factor = self.terms(model, guide, *args, **kwargs)
        return -factor * self.by_row(terms, num_rows).sum()

    def negative_bound(
        self, model: Any, guide: Any, *args: Any, weights: Tensor | None = None
    ) -> Tensor:
        """Minus the bound on log p(x), in nats, whatever is maximized; rows may have weights."""
        terms, _, factor = self.terms(model, guide, *args)
        bound = self.bound(terms)
        return -factor * (bound if weights is None else weights * bound).sum()

    def loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> float:
        """Minus the objective, in nats."""
        with torch.no_grad():
            return self.differentiable_loss(model, guide, *args, **kwargs).item()

    def loss_and_grads(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> float:
        """Minus the objective, in nats; its gradients are added to those of the parameters."""
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        if loss.requires_grad:
            loss.backward()
        return loss.item()

    def terms(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> tuple[Terms, int, float]:
        """The terms of a batch, the number of all rows, and all rows over those of the batch.

        Raises
        ------
        ValueError
            If a site is in no plate, or not all are in the same, or a latent is not
            reparameterized.
        """
        guided = poutine.trace(self._drawn(guide)).get_trace(*args, **kwargs)
        modeled = poutine.trace(poutine.replay(self._vectorized(model), trace=guided)).get_trace(
            *args, **kwargs
        )
        guided, modeled = prune_subsample_sites(guided), prune_subsample_sites(modeled)
        if is_validation_enabled():
            check_model_guide_match(modeled, guided)
        guided.compute_log_prob()
        modeled.compute_log_prob()
        sites = {
            name: modeled.nodes[name]
            for name in (*modeled.stochastic_nodes, *modeled.observation_nodes)
        }
        latents = [name for name, site in sites.items() if not site["is_observed"]]
        frame = _plate_of({**sites, **{f"q of {k}": guided.nodes[k] for k in latents}})
        for name in latents:
            if not getattr(guided.nodes[name]["fn"], "has_rsample", False):
                raise ValueError(
                    f"the guide's site {name!r} is not reparameterized, so that "
                    f"{type(self).__name__} has no gradient for it; pass "
                    "objective=pyro.infer.Trace_ELBO()"
                )
        num_rows = frame.full_size or frame.size
        factor = num_rows / frame.size

        def log_prob(site: Any) -> Tensor:
            value: Tensor = site["log_prob"] / factor if factor != 1 else site["log_prob"]
            return value.expand(self.num_particles, frame.size)

        def log_prob_of(site: Any, z: Tensor) -> Tensor:
            value = scale_and_mask(site["fn"].log_prob(z), site["scale"] / factor, site["mask"])
            return cast(Tensor, value).expand(self.num_particles, frame.size)

        observed = [log_prob(site) for site in sites.values() if site["is_observed"]]
        if not (observed and latents):
            raise ValueError(
                f"the model has {len(observed)} observed and {len(latents)} latent sites; an "
                "objective by row needs both: pass rows to model and guide"
            )
        terms = Terms(
            log_likelihood=sum_of(observed),
            log_prior={name: log_prob(sites[name]) for name in latents},
            log_q={name: log_prob(guided.nodes[name]) for name in latents},
            z={name: cast(Tensor, guided.nodes[name]["value"]) for name in latents},
            p={name: sites[name]["fn"] for name in latents},
            q={name: guided.nodes[name]["fn"] for name in latents},
            log_q_at={name: partial(log_prob_of, guided.nodes[name]) for name in latents},
        )
        return terms, num_rows, factor

    def _vectorized(self, program: Callable[..., Any]) -> Callable[..., Any]:
        if self.num_particles == 1:
            return program
        return plate("_particles", self.num_particles, dim=-2)(program)

    def _drawn(self, guide: Callable[..., Any]) -> Callable[..., Any]:
        """The guide, with all particles at once."""
        return self._vectorized(guide)

    def _get_trace(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError  # Pyro's own way to make traces, which is not used here


def _plate_of(sites: Mapping[str, Any]) -> Any:
    """The plate that all sites are in, the last dimension."""
    frames = {
        name: [f for f in site["cond_indep_stack"] if f.vectorized and f.name != "_particles"]
        for name, site in sites.items()
    }
    for name, found in frames.items():
        if len(found) != 1 or found[0].dim != -1:
            inside = ", ".join(frame.name for frame in found) or "none"
            raise ValueError(
                f"site {name!r} is in these plates: {inside}; an objective by row needs all sites "
                "in one plate, that of the rows: use pyro.infer.Trace_ELBO() for others"
            )
    names = {found[0].name for found in frames.values()}
    if len(names) != 1:
        raise ValueError(
            f"sites are in the plates {', '.join(sorted(names))}; an objective by row needs all in "
            "one: use pyro.infer.Trace_ELBO() for others"
        )
    return next(iter(frames.values()))[0]
