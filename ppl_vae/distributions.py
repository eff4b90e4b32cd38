"""What may be asked of any distribution: draws, and moments, with a formula or without."""

from __future__ import annotations

__all__ = ["batch_shape", "density", "draw", "drawn_moments", "for_pyro", "inside", "moments"]

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from pyro.distributions import Distribution, TorchDistribution
from torch import Tensor

# Draws that estimate moments without a formula, and how many are in memory together.
_DRAWS = 1000
_TOGETHER = 100


def batch_shape(q: Any) -> tuple[int, ...]:
    """The batch shape of a distribution; empty where it does not say."""
    return tuple(getattr(q, "batch_shape", ()))


def draw(q: Any, shape: Sequence[int] = (), *, rows: int | None = None) -> Tensor:
    """Draw from ``q`` without gradients, by whichever way it has.

    Parameters
    ----------
    q
        A distribution of Pyro, torch or zuko, or anything with one of ``sample``, ``rsample`` and
        a call that draws, as Pyro's wrapper of zuko has.
    shape
        The shape of the draws, before the batch shape.
    rows
        A batch shape for a distribution that has none, such as a prior without covariates.

    Returns
    -------
    Shape ``(*shape, *batch, *event)``.

    Raises
    ------
    TypeError
        If there is no way to draw from it.

    Examples
    --------
    >>> draw(torch.distributions.Normal(torch.zeros(2), 1.0), (3,)).shape
    torch.Size([3, 2])
    """
    shape = torch.Size((*shape, *(() if rows is None or batch_shape(q) else (rows,))))
    with torch.no_grad():
        for way in ("sample", "rsample", "__call__"):
            if hasattr(q, way):
                try:
                    return getattr(q, way)(shape)
                except NotImplementedError:
                    continue
    raise TypeError(
        f"{type(q).__name__} has no way to draw from it; give it a method sample(shape) or "
        "rsample(shape)"
    )


def density(q: Any, z: Tensor) -> Tensor:
    """log q(z) of draws ``(draw, *batch, latent)``, infinite where ``q`` is a point.

    A distribution that puts everything on one value, such as Pyro's ``Delta``, says that its
    density there is one, which would make it the best posterior of all.

    Examples
    --------
    >>> q = torch.distributions.Normal(torch.zeros(1), torch.tensor([1.0]))
    >>> density(torch.distributions.Independent(q, 1), torch.tensor([[2.0], [2.0]]))
    tensor([inf, inf])
    """
    log_q = q.log_prob(z)
    if len(z) > 1 and z.is_floating_point() and (z[0] == z[-1]).any() and not _is_discrete(q):
        return log_q.masked_fill((z == z[:1]).all(0).any(-1), torch.inf)
    return log_q


def _is_discrete(q: Any) -> bool:
    try:
        return getattr(getattr(q, "support", None), "is_discrete", False)
    except NotImplementedError:
        return False


def moments(q: Any) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of ``q``, shape ``(*batch, *event)`` each.

    Its formulas give them where these are finite, and else 1000 draws.

    Examples
    --------
    >>> mean, sd = moments(torch.distributions.Gamma(torch.tensor([4.0]), 2.0))
    >>> mean, sd
    (tensor([2.]), tensor([1.]))
    """
    with torch.no_grad():
        try:
            mean, variance = q.mean, q.variance
        except (NotImplementedError, AttributeError):
            return drawn_moments(q)
        lost = ~(mean.isfinite() & variance.isfinite())
        if lost.any():
            drawn, spread = drawn_moments(q)
            return torch.where(lost, drawn, mean), torch.where(lost, spread, variance.sqrt())
        return mean, variance.sqrt()


def drawn_moments(q: Any, of: Callable[[Tensor], Tensor] | None = None) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of 1000 draws, or of a function of draws and their batch."""
    with torch.no_grad():
        zero = _values(q, 1, of)[0]
        # Squares count from the first draw, so that a mean far from zero costs no precision.
        total, squares = torch.zeros_like(zero).double(), torch.zeros_like(zero).double()
        for _ in range(_DRAWS // _TOGETHER):
            away = _values(q, _TOGETHER, of).double() - zero  # (draw, *batch, *event)
            total, squares = total + away.sum(0), squares + away.square().sum(0)
    mean = total / _DRAWS
    sd = (squares / _DRAWS - mean.square()).clamp(min=0.0).sqrt()
    return (zero + mean).to(zero.dtype), sd.to(zero.dtype)


def _values(q: Any, number: int, of: Callable[[Tensor], Tensor] | None) -> Tensor:
    z = draw(q, (number,))
    z = z if z.is_floating_point() else z.to(torch.get_default_dtype())
    return z if of is None else of(z)


def inside(q: Any) -> tuple[Any, list[Any]] | None:
    """The distribution inside another, and the transforms around it; None if there is none inside.

    Examples
    --------
    >>> base, transforms = inside(torch.distributions.LogNormal(0.0, 1.0))
    >>> base, len(transforms)
    (Normal(loc: 0.0, scale: 1.0), 1)
    """
    if isinstance(q, torch.distributions.TransformedDistribution):
        return q.base_dist, list(q.transforms)
    if hasattr(q, "transform") and hasattr(q, "base"):  # zuko's, which maps latents to noise
        return q.base, [q.transform.inv]
    for wrapped in ("base_dist", "dist", "inner"):  # Independent, expanded; wrappers for Pyro
        if hasattr(q, wrapped):
            return getattr(q, wrapped), []
    return None


def for_pyro(q: Any) -> Any:
    """``q`` as ``pyro.sample`` takes it: distributions of torch and zuko lack what Pyro adds.

    Examples
    --------
    >>> for_pyro(torch.distributions.Normal(torch.zeros(2), 1.0)).to_event(1).event_shape
    torch.Size([2])
    """
    if isinstance(q, torch.distributions.Distribution) and not isinstance(q, Distribution):
        return _ForPyro(q)
    return q


class _ForPyro(TorchDistribution):
    """A distribution of torch or zuko with what Pyro adds."""

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(self, inner: torch.distributions.Distribution) -> None:
        self.inner = inner
        super().__init__(inner.batch_shape, inner.event_shape, validate_args=False)

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        return self.inner.has_rsample

    @property
    def support(self) -> Any:
        return getattr(self.inner, "support", torch.distributions.constraints.real_vector)

    @property
    def mean(self) -> Tensor:
        return self.inner.mean

    @property
    def variance(self) -> Tensor:
        return self.inner.variance

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return draw(self.inner, sample_shape)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return self.inner.rsample(torch.Size(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        return self.inner.log_prob(value)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> _ForPyro:
        return _ForPyro(self.inner.expand(torch.Size(batch_shape)))
