"""Convolutions, for images of any size."""

from __future__ import annotations

__all__ = ["ConvDecoder", "ConvEncoder", "ConvNetwork"]

from collections.abc import Sequence
from itertools import pairwise
from math import ceil, prod

from torch import Tensor, nn

from .network import NETWORKS, Network, activation_of, checked_sizes, join

# An image is halved by default until a side is no longer than this.
_SMALL = 8


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
    >>> import torch
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
            layers += [
                nn.Conv2d(fan_in, fan_out, 3, stride=2, padding=1),
                activation_of(activation),
            ]
        self.convolutions = nn.Sequential(*layers)
        flat = channels[-1] * prod(sizes[-1]) + covariate_dim
        self.dense = (
            nn.Sequential(nn.Linear(flat, hidden[-1]), activation_of(activation))
            if dense
            else nn.Identity()
        )
        self.out_features = hidden[-1] if dense else flat

    def forward(self, x: Tensor, covariates: Tensor | None = None) -> Tensor:
        batch_shape = x.shape[: x.dim() - len(self.in_shape)]
        images = x.reshape(-1, self._channels, *self.in_shape[-2:])  # (prod(batch), C, H, W)
        features = self.convolutions(images).reshape(*batch_shape, -1)
        return self.dense(join(features, covariates))


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
    >>> import torch
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
                nn.Linear(fan_in, hidden[-1]),
                activation_of(activation),
                nn.Linear(hidden[-1], seed),
            )
            if dense
            else nn.Linear(fan_in, seed)
        )
        layers: list[nn.Module] = []
        for i, (fan_in, fan_out) in enumerate(pairwise(maps)):
            small, large = sizes[-1 - i], sizes[-2 - i]
            extra = [b - (2 * a - 1) for a, b in zip(small, large, strict=True)]
            layers += [
                activation_of(activation),
                nn.ConvTranspose2d(
                    fan_in, fan_out, 3, stride=2, padding=1, output_padding=(extra[0], extra[1])
                ),
            ]
        if not dense:
            layers += [activation_of(activation), nn.Conv2d(maps[-1], channels, 3, padding=1)]
        self.convolutions = nn.Sequential(*layers)

    def forward(self, z: Tensor, covariates: Tensor | None = None) -> Tensor:
        seeds = self.dense(join(z, covariates)).reshape(-1, *self._seed_shape)
        return self.convolutions(seeds).reshape(*z.shape[:-1], *self.out_shape)


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
            "dense=False the channels alone"
        )
    sizes = [(shape[-2], shape[-1])]
    for _ in widths:
        sizes.append((ceil(sizes[-1][0] / 2), ceil(sizes[-1][1] / 2)))
    return prod(shape[:-2]), widths, sizes


@NETWORKS.register("conv")
class ConvNetwork(Network):
    """Strided convolutions for the encoder, and their mirror image for the decoder.

    Parameters
    ----------
    hidden
        Output channels of each convolution, and then the width of the dense layer; without one,
        ``dense=False``, the channels alone. By default as many convolutions of 32, 64, 128, 128,
        ... channels as bring the shorter side to 8 or below, and a dense layer of 256.
    activation
        A name in ``ACTIVATIONS``.
    dense
        Whether there is a dense layer between convolutions and latents. False is the network of
        TensorFlow's CVAE tutorial.

    Examples
    --------
    >>> sum(p.numel() for p in ConvNetwork().reader((28, 28)).parameters())
    821888
    """

    def __init__(
        self,
        hidden: Sequence[int] | None = None,
        activation: str = "silu",
        dense: bool = True,
    ) -> None:
        self.hidden = checked_sizes(hidden)
        activation_of(activation)  # refuse an unknown name at once
        self.activation = activation
        self.dense = dense

    def reader(self, in_shape: Sequence[int], *, covariate_dim: int = 0) -> nn.Module:
        return ConvEncoder(
            in_shape,
            self._hidden(in_shape),
            activation=self.activation,
            covariate_dim=covariate_dim,
            dense=self.dense,
        )

    def writer(
        self, latent_dim: int, out_shape: Sequence[int], *, covariate_dim: int = 0
    ) -> nn.Module:
        return ConvDecoder(
            (latent_dim,),
            self._hidden(out_shape),
            out_shape,
            activation=self.activation,
            covariate_dim=covariate_dim,
            dense=self.dense,
        )

    def _hidden(self, shape: Sequence[int]) -> tuple[int, ...]:
        if self.hidden is not None:
            return self.hidden
        side, channels = min(shape[-2:]) if len(shape) > 1 else 1, [32]
        while (side := ceil(side / 2)) > _SMALL:
            channels.append(min(2 * channels[-1], 128))
        return (*channels, 256) if self.dense else tuple(channels)
