"""Several distributions as one: blocks of latents, each drawn given those before it."""

from __future__ import annotations

__all__ = ["Chain", "level_sizes"]

from collections.abc import Callable, Sequence
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import Distribution, constraints

# Draws that stand in for a formula of the moments.
_DRAWS = 1000


class Chain(TorchDistribution):
    r"""Blocks drawn one after the other, as one vector of latents.

    .. math:: p(z) = \prod_i p(z_i \mid z_1, \ldots, z_{i-1})

    A hierarchy of latents, or a sequence of them, is a chain. To a VAE, and to all checks, it is
    one distribution over the blocks side by side.

    Parameters
    ----------
    links
        One function for each block: ``link(*earlier)`` takes the blocks before it, of shape
        ``(*sample, *batch, size)``, and returns a distribution with event shape ``(size,)``.
    sizes
        The number of latents in each block.
    batch_shape
        Of the chain; the links' distributions have it, or broadcast to it.

    Raises
    ------
    ValueError
        If there are not as many sizes as links.

    Examples
    --------
    >>> import pyro.distributions as dist
    >>> top = lambda: dist.Normal(torch.zeros(2), 1.0).to_event(1)
    >>> low = lambda z2: dist.Normal(z2.sum(-1, keepdim=True), 0.1).to_event(1)
    >>> chain = Chain([top, low], sizes=[2, 1], batch_shape=(7,))
    >>> chain.rsample((5,)).shape, chain.log_prob(torch.zeros(7, 3)).shape
    (torch.Size([5, 7, 3]), torch.Size([7]))
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012  as in torch
    support = constraints.real_vector
    has_rsample = True

    def __init__(
        self,
        links: Sequence[Callable[..., Distribution]],
        sizes: Sequence[int],
        batch_shape: Sequence[int] = (),
        validate_args: bool | None = None,
    ) -> None:
        if len(links) != len(sizes):
            raise ValueError(f"there are {len(links)} links and {len(sizes)} sizes; pass one each")
        self.links, self.sizes = tuple(links), tuple(sizes)
        super().__init__(
            torch.Size(batch_shape), torch.Size([sum(sizes)]), validate_args=validate_args
        )

    def rsample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:
        """Draws of shape ``(*sample, *batch, latent)``, with gradients."""
        shape = torch.Size((*sample_shape, *self.batch_shape))
        blocks: list[Tensor] = []
        for link in self.links:
            distribution = link(*blocks)
            # Given earlier blocks, a distribution has their shape; the first has not.
            extra = shape[: len(shape) - len(distribution.batch_shape)]
            block = distribution.rsample(extra)
            blocks.append(block.expand(*shape, block.shape[-1]))
        return torch.cat(blocks, -1)

    def sample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:
        """Draws of shape ``(*sample, *batch, latent)``, without gradients."""
        with torch.no_grad():
            return self.rsample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(z), of shape ``(*sample, *batch)``."""
        blocks = value.split(self.sizes, -1)
        each = [
            link(*blocks[:i]).log_prob(block)
            for i, (link, block) in enumerate(zip(self.links, blocks, strict=True))
        ]
        return torch.stack(torch.broadcast_tensors(*each)).sum(0)

    @property
    def mean(self) -> Tensor:
        """The mean of draws, as no formula gives it; torch's random state is given back."""
        with torch.random.fork_rng(devices=[]):
            return self.sample((_DRAWS,)).mean(0)

    @property
    def variance(self) -> Tensor:
        """The variance of draws; torch's random state is given back."""
        with torch.random.fork_rng(devices=[]):
            return self.sample((_DRAWS,)).var(0)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> Chain:
        """The same chain for more rows."""
        return Chain(self.links, self.sizes, batch_shape)

    def __repr__(self) -> str:
        return f"Chain(sizes={self.sizes}, batch_shape={tuple(self.batch_shape)})"


def level_sizes(levels: int | Sequence[int], latent_dim: int) -> tuple[int, ...]:
    """The number of latents of each level, from the top down.

    Raises
    ------
    ValueError
        If there are fewer than two levels or more than latents, or they do not add up.

    Examples
    --------
    >>> level_sizes(2, 5), level_sizes((1, 4), 5)
    ((2, 3), (1, 4))
    """
    if isinstance(levels, int):
        if not 2 <= levels <= latent_dim:
            raise ValueError(
                f"levels is {levels}; pass a number from 2 to {latent_dim}, the number of latents"
            )
        # The lower levels take the remainder.
        return tuple((latent_dim + i) // levels for i in range(levels))
    sizes = tuple(levels)
    if len(sizes) < 2 or not all(isinstance(n, int) and n > 0 for n in sizes):
        raise ValueError(f"levels is {levels!r}; pass two or more whole numbers of at least 1")
    if sum(sizes) != latent_dim:
        raise ValueError(
            f"levels is {sizes}, {sum(sizes)} latents together, but latent_dim is {latent_dim}; "
            "make them agree"
        )
    return sizes
