"""What a kind of network must say: how it reads rows, and how it writes them."""

from __future__ import annotations

__all__ = [
    "ACTIVATIONS",
    "INITIALIZATIONS",
    "NETWORKS",
    "Network",
    "activation_of",
    "called",
    "checked_sizes",
    "join",
]

import abc
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ..registry import Registry


class Network(abc.ABC):
    """A kind of network: one that reads rows for an encoder, one that writes them for a decoder.

    A subclass is a choice of sizes and activations, its options, and builds both. It states its
    own defaults, which may depend on the shape of a row. What it builds are plain modules, with
    no probability in them, called with a batch of any number of rows in one dimension, and with
    covariates as a second argument where there are some.

    Examples
    --------
    >>> import torch
    >>> from ppl_vae import MLP
    >>> class Narrow(Network):
    ...     def reader(self, in_shape, *, covariate_dim=0):
    ...         return MLP(in_shape, hidden=(8,), covariate_dim=covariate_dim)
    ...
    ...     def writer(self, latent_dim, out_shape, *, covariate_dim=0):
    ...         return MLP((latent_dim,), (8,), out_shape=out_shape, covariate_dim=covariate_dim)
    >>> Narrow().writer(2, (5, 5))(torch.zeros(10, 2)).shape
    torch.Size([10, 5, 5])
    """

    @abc.abstractmethod
    def reader(self, in_shape: Sequence[int], *, covariate_dim: int = 0) -> nn.Module:
        """A module from rows ``(row, *in_shape)`` to features ``(row, out_features)``.

        It says the number of features as ``out_features``, and ``in_shape``.
        """

    @abc.abstractmethod
    def writer(
        self, latent_dim: int, out_shape: Sequence[int], *, covariate_dim: int = 0
    ) -> nn.Module:
        """A module from latents ``(row, latent)`` to real numbers ``(row, *out_shape)``."""


NETWORKS: Registry[Network] = Registry("network")

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "softplus": nn.Softplus,
    "elu": nn.ELU,
}


def checked_sizes(hidden: Sequence[int] | None, *, name: str = "hidden") -> tuple[int, ...] | None:
    """The hidden sizes of a network; None leaves them to be chosen.

    Raises
    ------
    ValueError
        If one is not a whole number of at least 1.
    """
    if hidden is None:
        return None
    sizes = (hidden,) if isinstance(hidden, int) else tuple(hidden)
    if not all(isinstance(size, int) and size > 0 for size in sizes):
        raise ValueError(f"{name} is {hidden!r}; pass whole numbers of at least 1, as (256, 256)")
    return sizes


def activation_of(name: str) -> nn.Module:
    """The activation of that name.

    Raises
    ------
    ValueError
        If there is none.
    """
    if name not in ACTIVATIONS:
        accepted = ", ".join(map(repr, ACTIVATIONS))
        raise ValueError(f"activation is {name!r}; accepted are {accepted}")
    return ACTIVATIONS[name]()


def called(network: nn.Module, x: Tensor, covariates: Tensor | None, event_dim: int) -> Tensor:
    """What a network makes of ``x``, whose batch dimensions, any number of them, become one.

    Networks of most people are written for ``(row, ...)``; normalization over a batch, and
    convolutions, would take further dimensions for something else. ``x`` and covariates are
    broadcast against each other.

    Parameters
    ----------
    network
        A module.
    x
        Shape ``(*batch, *event)``.
    covariates
        Shape ``(*batch, covariate)``, or None.
    event_dim
        The number of dimensions of an event of ``x``.

    Returns
    -------
    Shape ``(*batch, *out)``.
    """
    batch, event = x.shape[: x.dim() - event_dim], x.shape[x.dim() - event_dim :]
    if covariates is None:
        if len(batch) == 1:
            return network(x)
        out = network(x.reshape(-1, *event))  # (prod(batch), *out)
        return out.reshape(*batch, *out.shape[1:])
    batch = torch.broadcast_shapes(batch, covariates.shape[:-1])
    x = x.expand(*batch, *event).reshape(-1, *event)
    covariates = covariates.expand(*batch, -1).reshape(-1, covariates.shape[-1])
    out = network(x, covariates)  # (prod(batch), *out)
    return out.reshape(*batch, *out.shape[1:])


def join(x: Tensor, covariates: Tensor | None) -> Tensor:
    """Features ``(*batch, feature)`` with the covariates behind them."""
    if covariates is None:
        return x
    batch = torch.broadcast_shapes(x.shape[:-1], covariates.shape[:-1])
    return torch.cat([x.expand(*batch, -1), covariates.expand(*batch, -1)], dim=-1)


def _glorot(network: nn.Module) -> None:
    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


# How weights start: as PyTorch has it, or as Keras and TensorFlow do, by Glorot & Bengio (2010).
INITIALIZATIONS: dict[str, Callable[[nn.Module], None]] = {
    "torch": lambda network: None,
    "glorot": _glorot,
}
