"""Multilayer perceptrons, for rows of any shape."""

from __future__ import annotations

__all__ = ["MLP", "MLPNetwork"]

from collections.abc import Sequence
from itertools import pairwise
from math import prod

from torch import Tensor, nn

from .network import NETWORKS, Network, activation_of, checked_sizes, join


class MLP(nn.Module):
    """A multilayer perceptron from events of one shape to events of another.

    Parameters
    ----------
    in_shape
        The shape of an input event; any batch dimensions stand before it.
    hidden
        Width of each hidden layer; none gives a linear map.
    out_shape
        The shape of an output event. None stops after the last hidden layer, whose activations
        are then the features that an encoder's heads read.
    activation
        A name in ``ACTIVATIONS``.
    covariate_dim
        Number of covariates, joined to the input.

    Examples
    --------
    >>> import torch
    >>> MLP((28, 28), hidden=(400, 200))(torch.zeros(7, 28, 28)).shape
    torch.Size([7, 200])
    >>> MLP((2,), hidden=(400,), out_shape=(28, 28))(torch.zeros(5, 7, 2)).shape
    torch.Size([5, 7, 28, 28])
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        hidden: Sequence[int] = (),
        out_shape: Sequence[int] | None = None,
        *,
        activation: str = "relu",
        covariate_dim: int = 0,
    ) -> None:
        super().__init__()
        self.in_shape, self.out_shape = tuple(in_shape), tuple(out_shape or ())
        widths = [prod(in_shape) + covariate_dim, *hidden]
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise(widths):
            layers += [nn.Linear(fan_in, fan_out), activation_of(activation)]
        if out_shape is not None:
            layers.append(nn.Linear(widths[-1], prod(out_shape)))
        self.layers = nn.Sequential(*layers)
        self.out_features = widths[-1] if out_shape is None else prod(out_shape)

    def forward(self, x: Tensor, covariates: Tensor | None = None) -> Tensor:
        batch_shape = x.shape[: x.dim() - len(self.in_shape)]
        flat = join(x.reshape(*batch_shape, -1), covariates)  # (*batch, in + covariates)
        return self.layers(flat).reshape(*batch_shape, *(self.out_shape or (self.out_features,)))


@NETWORKS.register("mlp")
class MLPNetwork(Network):
    """Two multilayer perceptrons; the decoder's hidden widths are the encoder's, backwards.

    Parameters
    ----------
    hidden
        The encoder's hidden widths; by default two of 500, or of 256 for rows of 100 entries or
        fewer.
    activation
        A name in ``ACTIVATIONS``.

    Examples
    --------
    >>> MLPNetwork().reader((28, 28)).out_features
    500
    """

    def __init__(self, hidden: Sequence[int] | None = None, activation: str = "silu") -> None:
        self.hidden = checked_sizes(hidden)
        activation_of(activation)  # refuse an unknown name at once
        self.activation = activation

    def reader(self, in_shape: Sequence[int], *, covariate_dim: int = 0) -> nn.Module:
        return MLP(
            in_shape,
            self._hidden(in_shape),
            activation=self.activation,
            covariate_dim=covariate_dim,
        )

    def writer(
        self, latent_dim: int, out_shape: Sequence[int], *, covariate_dim: int = 0
    ) -> nn.Module:
        return MLP(
            (latent_dim,),
            self._hidden(out_shape)[::-1],
            out_shape,
            activation=self.activation,
            covariate_dim=covariate_dim,
        )

    def _hidden(self, shape: Sequence[int]) -> tuple[int, ...]:
        if self.hidden is not None:
            return self.hidden
        return (500, 500) if prod(shape) > 100 else (256, 256)
