"""The functions inside encoders and decoders: plain torch, with no probability in them."""

from __future__ import annotations

__all__ = ["ACTIVATIONS", "INITIALIZATIONS", "MLP", "NETWORKS", "ConvDecoder", "ConvEncoder"]

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from math import ceil, prod

import torch
from torch import Tensor, nn

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "softplus": nn.Softplus,
    "elu": nn.ELU,
}


def _activation(name: str) -> nn.Module:
    if name not in ACTIVATIONS:
        accepted = ", ".join(map(repr, ACTIVATIONS))
        raise ValueError(f"activation is {name!r}; accepted are {accepted}")
    return ACTIVATIONS[name]()


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
            layers += [nn.Linear(fan_in, fan_out), _activation(activation)]
        if out_shape is not None:
            layers.append(nn.Linear(widths[-1], prod(out_shape)))
        self.layers = nn.Sequential(*layers)
        self.out_features = widths[-1] if out_shape is None else prod(out_shape)

    def forward(self, x: Tensor, covariates: Tensor | None = None) -> Tensor:
        batch_shape = x.shape[: x.dim() - len(self.in_shape)]
        flat = _join(x.reshape(*batch_shape, -1), covariates)  # (*batch, in + covariates)
        return self.layers(flat).reshape(*batch_shape, *(self.out_shape or (self.out_features,)))


class ConvEncoder(nn.Module):
    """Strided convolutions, each halving the image, then one dense layer of features.

    Parameters
    ----------
    in_shape
        ``(height, width)``, or with any number of channel dimensions before these.
    hidden
        Output channels of each convolution; the last number is the width of the dense layer.
    activation, covariate_dim
        As in :class:`MLP`; the covariates join at the dense layer.
    dense
        False leaves the dense layer out: ``hidden`` are channels only, and the features are the
        last convolution's, as in TensorFlow's CVAE tutorial.

    Examples
    --------
    >>> ConvEncoder((3, 30, 17), hidden=(32, 64, 128))(torch.zeros(7, 3, 30, 17)).shape
    torch.Size([7, 128])
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        hidden: Sequence[int] = (32, 64, 256),
        *,
        activation: str = "relu",
        covariate_dim: int = 0,
        dense: bool = True,
    ) -> None:
        super().__init__()
        self.in_shape = tuple(in_shape)
        self._channels, widths, sizes = _image_sizes(in_shape, hidden, dense)
        channels = [self._channels, *widths]
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise(channels):
            layers += [nn.Conv2d(fan_in, fan_out, 3, stride=2, padding=1), _activation(activation)]
        self.convolutions = nn.Sequential(*layers)
        flat = channels[-1] * prod(sizes[-1]) + covariate_dim
        self.dense = (
            nn.Sequential(nn.Linear(flat, hidden[-1]), _activation(activation))
            if dense
            else nn.Identity()
        )
        self.out_features = hidden[-1] if dense else flat

    def forward(self, x: Tensor, covariates: Tensor | None = None) -> Tensor:
        batch_shape = x.shape[: x.dim() - len(self.in_shape)]
        images = x.reshape(-1, self._channels, *self.in_shape[-2:])  # (prod(batch), C, H, W)
        features = self.convolutions(images).reshape(*batch_shape, -1)
        return self.dense(_join(features, covariates))


class ConvDecoder(nn.Module):
    """The mirror image of :class:`ConvEncoder`: a dense layer, then transposed convolutions.

    Each transposed convolution undoes one halving, so that the output has exactly ``out_shape``
    for every height and width, odd ones too.

    Parameters
    ----------
    in_shape
        ``(latent,)``.
    hidden
        Channels and dense width of the encoder that it mirrors, in the encoder's order.
    out_shape
        ``(height, width)`` or ``(channel, height, width)``.
    activation, covariate_dim
        As in :class:`MLP`; the covariates join the latents.
    dense
        As in :class:`ConvEncoder`. False maps the latents to as many small images as the first
        convolution has channels, and ends with a convolution that halves nothing, as in
        TensorFlow's CVAE tutorial.

    Examples
    --------
    >>> ConvDecoder((2,), (32, 64, 128), (3, 30, 17))(torch.zeros(5, 7, 2)).shape
    torch.Size([5, 7, 3, 30, 17])
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        hidden: Sequence[int],
        out_shape: Sequence[int],
        *,
        activation: str = "relu",
        covariate_dim: int = 0,
        dense: bool = True,
    ) -> None:
        super().__init__()
        self.out_shape = tuple(out_shape)
        channels, widths, sizes = _image_sizes(out_shape, hidden, dense)
        maps = [*widths[::-1], channels] if dense else [widths[0], *widths[::-1]]
        self._seed_shape = (maps[0], *sizes[-1])
        fan_in, seed = prod(in_shape) + covariate_dim, prod(self._seed_shape)
        self.dense = (
            nn.Sequential(
                nn.Linear(fan_in, hidden[-1]), _activation(activation), nn.Linear(hidden[-1], seed)
            )
            if dense
            else nn.Linear(fan_in, seed)
        )
        layers: list[nn.Module] = []
        for i, (fan_in, fan_out) in enumerate(pairwise(maps)):
            small, large = sizes[-1 - i], sizes[-2 - i]
            extra = [b - (2 * a - 1) for a, b in zip(small, large, strict=True)]
            layers += [
                _activation(activation),
                nn.ConvTranspose2d(
                    fan_in, fan_out, 3, stride=2, padding=1, output_padding=(extra[0], extra[1])
                ),
            ]
        if not dense:
            layers += [_activation(activation), nn.Conv2d(maps[-1], channels, 3, padding=1)]
        self.convolutions = nn.Sequential(*layers)

    def forward(self, z: Tensor, covariates: Tensor | None = None) -> Tensor:
        seeds = self.dense(_join(z, covariates)).reshape(-1, *self._seed_shape)
        return self.convolutions(seeds).reshape(*z.shape[:-1], *self.out_shape)


def _join(x: Tensor, covariates: Tensor | None) -> Tensor:
    if covariates is None:
        return x
    covariates = covariates.expand(*x.shape[:-1], covariates.shape[-1])
    return torch.cat([x, covariates], dim=-1)


def _image_sizes(
    shape: Sequence[int], hidden: Sequence[int], dense: bool
) -> tuple[int, Sequence[int], list[tuple[int, int]]]:
    """Channels of the image and of each layer, and the size before and after each halving."""
    if len(shape) < 2:
        raise ValueError(
            f"convolutions need images, (height, width) or (channel, height, width), but "
            f"event_shape is {tuple(shape)}; use network='mlp'"
        )
    widths = hidden[:-1] if dense else hidden
    if not widths:
        raise ValueError(
            f"hidden is {tuple(hidden)}; network='conv' needs the channels of at least one "
            "convolution and then the width of a dense layer, such as hidden=(32, 64, 256), and "
            "network='cvae' the channels alone"
        )
    sizes = [(shape[-2], shape[-1])]
    for _ in widths:
        sizes.append((ceil(sizes[-1][0] / 2), ceil(sizes[-1][1] / 2)))
    return prod(shape[:-2]), widths, sizes


NETWORKS: dict[str, tuple[Callable[..., nn.Module], Callable[..., nn.Module]]] = {
    "mlp": (MLP, MLP),
    "conv": (ConvEncoder, ConvDecoder),
    "cvae": (partial(ConvEncoder, dense=False), partial(ConvDecoder, dense=False)),
}


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
