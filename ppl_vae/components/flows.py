"""Normalizing flows, by zuko: invertible networks that make one distribution of another."""

from __future__ import annotations

__all__ = ["FlowDistribution", "Transforms"]

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import zuko
from torch import Tensor, nn
from torch.distributions import Transform, constraints

from .networks.network import ACTIVATIONS, activation_of, checked_sizes

_KINDS = ("coupling", "autoregressive", "inverse_autoregressive")
_UNIVARIATE = ("affine", "spline")


class FlowDistribution(zuko.distributions.NormalizingFlow):  # type: ignore[misc]
    """The distribution of what a transform makes of draws from a base.

    The density of its latest draws is known from drawing them, which saves the inverse: of an
    autoregressive transform it takes as many passes as there are latents.
    """

    _drawn: tuple[Tensor, Tensor] | None = None

    @property
    def support(self) -> constraints.Constraint:
        """Vectors of real numbers."""
        return constraints.real_vector

    def rsample(self, shape: Sequence[int] = ()) -> Tensor:
        """Draws of shape ``(*shape, *batch, latent)``, with gradients."""
        z, log_prob = self.rsample_and_log_prob(torch.Size(shape))
        self._drawn = z, log_prob
        return z

    def log_prob(self, z: Tensor) -> Tensor:
        """The log-density of ``z``, shape ``(*draw, *batch)``."""
        if self._drawn is not None and self._drawn[0] is z:
            return self._drawn[1]
        # zuko's transforms do not broadcast latents to the rows that they are given.
        batch = torch.broadcast_shapes(z.shape[:-1], self.batch_shape)
        return super().log_prob(z.expand(*batch, -1))

    def expand(self, batch_shape: Sequence[int], new: Any = None) -> FlowDistribution:
        """The same flow for more rows."""
        return type(self)(self.transform, self.base.expand(torch.Size(batch_shape)))


class Transforms(nn.Module):
    """Invertible transforms of latents, one after the other, perhaps given features of a row.

    Before they are fitted they change nothing.

    Parameters
    ----------
    latent_dim
        The number of latents.
    context
        The number of features that they are given.
    kind
        ``"coupling"``: half of the latents move the others; draws and densities take one pass.
        ``"autoregressive"``: each latent is moved by those before it; densities take one pass, and
        draws as many as there are latents. ``"inverse_autoregressive"``: the other way round.
    univariate
        How a latent is moved: ``"affine"``, or ``"spline"``, by a monotonic rational-quadratic
        spline of ``bins`` pieces between -5 and 5.
    transforms
        How many there are.
    hidden
        Hidden widths of each transform's network.
    activation
        A name in ``ACTIVATIONS``.
    bins
        Pieces of a spline.

    Raises
    ------
    ValueError
        If an option is not accepted.

    Notes
    -----
    Sources: Dinh et al. (2017), *Density estimation using Real NVP*; Papamakarios et al. (2017),
    *Masked autoregressive flow*; Kingma et al. (2016), *Inverse autoregressive flow*; Durkan et al.
    (2019), *Neural spline flows*.

    Examples
    --------
    >>> base = torch.distributions.Normal(torch.zeros(7, 3), 1.0)
    >>> flow = Transforms(3, context=4)
    >>> q = flow(torch.distributions.Independent(base, 1), torch.zeros(7, 4))
    >>> q.rsample((5,)).shape, q.log_prob(torch.zeros(7, 3)).shape
    (torch.Size([5, 7, 3]), torch.Size([7]))
    """

    def __init__(
        self,
        latent_dim: int,
        *,
        context: int = 0,
        kind: str = "coupling",
        univariate: str = "affine",
        transforms: int = 4,
        hidden: Sequence[int] = (128, 128),
        activation: str = "silu",
        bins: int = 8,
    ) -> None:
        super().__init__()
        for name, value, accepted in (
            ("kind", kind, _KINDS),
            ("univariate", univariate, _UNIVARIATE),
        ):
            if value not in accepted:
                raise ValueError(
                    f"{name} is {value!r}; accepted are {', '.join(map(repr, accepted))}"
                )
        for name, number, least in (("transforms", transforms, 1), ("bins", bins, 2)):
            if not (isinstance(number, int) and number >= least):
                raise ValueError(f"{name} is {number!r}; pass a whole number of at least {least}")
        activation_of(activation)  # refuse an unknown name
        options = {
            "hidden_features": checked_sizes(hidden),
            "activation": ACTIVATIONS[activation],
            "univariate": zuko.transforms.MonotonicAffineTransform,
            "shapes": ((), ()),
        }
        if univariate == "spline":
            options["univariate"] = zuko.transforms.MonotonicRQSTransform
            options["shapes"] = ((bins,), (bins,), (bins - 1,))
        self.kind = kind
        self.transforms = nn.ModuleList(
            self._transform(latent_dim, context, i, options) for i in range(transforms)
        )
        for transform in self.transforms:
            for last in _last_parameters(transform):
                nn.init.zeros_(last)

    def _transform(self, latent_dim: int, context: int, i: int, options: Any) -> nn.Module:
        if latent_dim == 1:
            return zuko.flows.gaussianization.ElementWiseTransform(1, context, **options)
        # Every other transform goes the other way, after a permutation that mixes the halves.
        if self.kind == "coupling":
            mask = torch.randperm(latent_dim) % 2 == i % 2
            return _Coupling(latent_dim, context, mask, **options)
        order = torch.arange(latent_dim)
        return zuko.flows.MaskedAutoregressiveTransform(
            latent_dim, context, order=order if i % 2 == 0 else order.flip(0), **options
        )

    def forward(self, base: Any, features: Tensor | None = None) -> FlowDistribution:
        """What the transforms make of ``base``, given features ``(*batch, context)``."""
        parts = [transform(features) for transform in self.transforms]
        # A flow maps latents to its base; an inverse autoregressive one was built from the base.
        transform: Transform = zuko.transforms.ComposedTransform(*parts)
        if self.kind == "inverse_autoregressive":
            transform = transform.inv
        return FlowDistribution(transform, base)


class _Coupling(zuko.flows.GeneralCouplingTransform):  # type: ignore[misc]
    """zuko's coupling, whose halves are known when it is made, and not looked for in each pass."""

    idx_a: Tensor
    idx_b: Tensor
    back: Tensor

    def __init__(self, features: int, context: int, mask: Tensor, **options: Any) -> None:
        super().__init__(features, context, mask, **options)
        order = torch.cat([mask.nonzero().flatten(), (~mask).nonzero().flatten()])
        self.register_buffer("idx_a", order[: int(mask.sum())])
        self.register_buffer("idx_b", order[int(mask.sum()) :])
        self.register_buffer("back", order.argsort())

    def forward(self, c: Tensor | None = None) -> Transform:
        return _Halves(partial(self.meta, c), self.idx_a, self.idx_b, self.back)


class _Halves(zuko.transforms.CouplingTransform):  # type: ignore[misc]
    """A coupling transform of given halves."""

    def __init__(self, meta: Any, idx_a: Tensor, idx_b: Tensor, back: Tensor) -> None:
        Transform.__init__(self)
        self.meta, self.idx_a, self.idx_b, self.back = meta, idx_a, idx_b, back

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.index_select(-1, self.idx_a), x.index_select(-1, self.idx_b)

    def merge(self, x_a: Tensor, x_b: Tensor, shape: Any) -> Tensor:
        return torch.cat([x_a.expand(*x_b.shape[:-1], -1), x_b], -1).index_select(-1, self.back)


def _last_parameters(transform: nn.Module) -> Sequence[Tensor]:
    """The last layer of a transform's network, or the transform's own parameters."""
    parameters = list(transform.parameters())
    return parameters[-2:] if hasattr(transform, "hyper") else parameters
