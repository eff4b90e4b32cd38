"""Residual convolutions, for images of any size."""

from __future__ import annotations

__all__ = ["ResidualBlock", "ResidualNetwork", "ResidualReader", "ResidualWriter"]

from collections.abc import Sequence
from itertools import pairwise
from math import ceil, prod

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle

from .network import NETWORKS, Network, activation_of, checked_sizes, join

# An image is halved by default until a side is no longer than this.
_SMALL = 8


class ResidualBlock(nn.Module):
    r"""Two convolutions beside a path that changes nothing: :math:`x + f(x)`.

    :math:`f` starts at zero, so that a deep network starts as a shallow one.

    Source: He et al. (2016), *Identity mappings in deep residual networks*, figure 4e; Zhang et al.
    (2019), *Fixup initialization*, for its start without normalization.

    Parameters
    ----------
    channels
        Channels of the input and of the output.
    activation
        A name in ``ACTIVATIONS``.
    """

    def __init__(self, channels: int, activation: str) -> None:
        super().__init__()
        last = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]
        self.branch = nn.Sequential(
            activation_of(activation),
            nn.Conv2d(channels, channels, 3, padding=1),
            activation_of(activation),
            last,
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


class ResidualReader(nn.Module):
    """Residual blocks at each of several sizes of an image, then one dense layer of features.

    Parameters
    ----------
    in_shape
        ``(height, width)``, or with any number of channel dimensions before these.
    channels
        At each size, the first the image's own; from one to the next it is halved.
    blocks
        Residual blocks at each size.
    width
        Features of the dense layer.
    halved
        Whether the first convolution halves the image, so that no block works at its own size.
    activation, covariate_dim
        As in :class:`~ppl_vae.MLP`; the covariates join at the dense layer.

    Examples
    --------
    >>> import torch
    >>> ResidualReader((3, 15, 17), (8, 16), blocks=1, width=32)(torch.zeros(7, 3, 15, 17)).shape
    torch.Size([7, 32])
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        channels: Sequence[int],
        *,
        blocks: int,
        width: int,
        activation: str = "silu",
        halved: bool = False,
        covariate_dim: int = 0,
    ) -> None:
        super().__init__()
        self.in_shape = tuple(in_shape)
        self._channels, sizes = _image_sizes(in_shape, len(channels) + halved)
        self.first = nn.Conv2d(self._channels, channels[0], 3, stride=1 + halved, padding=1)
        layers: list[nn.Module] = []
        for i, size in enumerate(channels):
            if i:
                layers.append(nn.Conv2d(channels[i - 1], size, 3, stride=2, padding=1))
            layers += [ResidualBlock(size, activation) for _ in range(blocks)]
        self.convolutions = nn.Sequential(*layers, activation_of(activation))
        flat = channels[-1] * prod(sizes[-1]) + covariate_dim
        self.dense = nn.Sequential(nn.Linear(flat, width), activation_of(activation))
        self.out_features = width

    def forward(self, x: Tensor, covariates: Tensor | None = None) -> Tensor:
        batch_shape = x.shape[: x.dim() - len(self.in_shape)]
        images = x.reshape(-1, self._channels, *self.in_shape[-2:])  # (prod(batch), C, H, W)
        maps = self.first(images).contiguous(memory_format=torch.channels_last)
        features = self.convolutions(maps).reshape(*batch_shape, -1)
        return self.dense(join(features, covariates))


class ResidualWriter(nn.Module):
    """The mirror image of :class:`ResidualReader`: an image grows from size to size.

    Parameters
    ----------
    latent_dim
        The number of latents.
    out_shape
        ``(height, width)`` or ``(channel, height, width)``.
    channels, blocks, width, activation, halved, covariate_dim
        Those of the reader that it mirrors; the covariates join the latents.

    Examples
    --------
    >>> import torch
    >>> ResidualWriter(2, (3, 15, 17), (8, 16), blocks=1, width=32)(torch.zeros(7, 2)).shape
    torch.Size([7, 3, 15, 17])
    """

    def __init__(
        self,
        latent_dim: int,
        out_shape: Sequence[int],
        channels: Sequence[int],
        *,
        blocks: int,
        width: int,
        activation: str = "silu",
        halved: bool = False,
        covariate_dim: int = 0,
    ) -> None:
        super().__init__()
        self.out_shape = tuple(out_shape)
        image_channels, sizes = _image_sizes(out_shape, len(channels) + halved)
        self._seed_shape = (channels[-1], *sizes[-1])
        self.dense = nn.Sequential(
            nn.Linear(latent_dim + covariate_dim, width),
            activation_of(activation),
            nn.Linear(width, prod(self._seed_shape)),
        )
        layers: list[nn.Module] = [ResidualBlock(channels[-1], activation) for _ in range(blocks)]
        grown = sizes[-2:0:-1] if halved else sizes[-2::-1]
        for (fan_in, fan_out), size in zip(pairwise(channels[::-1]), grown, strict=True):
            layers.append(_Enlarging(fan_in, fan_out, size))
            layers += [ResidualBlock(fan_out, activation) for _ in range(blocks)]
        layers.append(activation_of(activation))
        layers.append(
            _Enlarging(channels[0], image_channels, sizes[0])
            if halved
            else nn.Conv2d(channels[0], image_channels, 3, padding=1)
        )
        self.convolutions = nn.Sequential(*layers)

    def forward(self, z: Tensor, covariates: Tensor | None = None) -> Tensor:
        joined = join(z, covariates)
        seeds = self.dense(joined).reshape(-1, *self._seed_shape)
        seeds = seeds.contiguous(memory_format=torch.channels_last)
        return self.convolutions(seeds).reshape(*joined.shape[:-1], *self.out_shape)


class _Enlarging(nn.Conv2d):
    """A convolution whose output has twice the height and width, cut to ``size``.

    Each pixel of the input writes four of the output, which costs a quarter of a convolution of the
    enlarged image. Source: Shi et al. (2016), *Real-time single image and video super-resolution
    using an efficient sub-pixel convolutional neural network*.
    """

    def __init__(self, fan_in: int, fan_out: int, size: tuple[int, int]) -> None:
        super().__init__(fan_in, 4 * fan_out, 3, padding=1)
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        height, width = self.size
        return pixel_shuffle(super().forward(x), 2)[..., :height, :width]


def _image_sizes(shape: Sequence[int], levels: int) -> tuple[int, list[tuple[int, int]]]:
    """The channels of an image, and its size at each level.

    Raises
    ------
    ValueError
        If ``out_shape`` is not that of an image.
    """
    if len(shape) < 2:
        raise ValueError(
            f"residual convolutions need images, (height, width) or (channel, height, width), but "
            f"event_shape is {tuple(shape)}; use network='mlp'"
        )
    sizes = [(shape[-2], shape[-1])]
    for _ in range(levels - 1):
        sizes.append((ceil(sizes[-1][0] / 2), ceil(sizes[-1][1] / 2)))
    return prod(shape[:-2]), sizes


@NETWORKS.register("resnet")
class ResidualNetwork(Network):
    """Residual convolutions for the encoder, and their mirror image for the decoder.

    Parameters
    ----------
    channels
        At each size of the image, which is halved from one to the next; by default 16, 32, 64, 64,
        ... until the shorter side is 8 or below.
    blocks
        Residual blocks at each size.
    width
        Features of the dense layer between convolutions and latents.
    activation
        A name in ``ACTIVATIONS``.
    halved
        Whether the encoder's first convolution halves the image, and the decoder's last step
        enlarges it: the first of ``channels`` are then those of the half size. Blocks at the full
        size take most of the time of a step.

    Raises
    ------
    ValueError
        If an option is not accepted.

    Examples
    --------
    >>> ResidualNetwork().reader((28, 28)).out_features
    256
    """

    def __init__(
        self,
        channels: Sequence[int] | None = None,
        blocks: int = 1,
        width: int = 256,
        activation: str = "silu",
        halved: bool = False,
    ) -> None:
        self.channels = checked_sizes(channels, name="channels")
        if self.channels == ():
            raise ValueError("channels is (); pass at least one number, as (16, 32)")
        for name, number in (("blocks", blocks), ("width", width)):
            if not (isinstance(number, int) and number >= 1):
                raise ValueError(f"{name} is {number!r}; pass a whole number of at least 1")
        activation_of(activation)  # refuse an unknown name at once
        self.blocks, self.width, self.activation = blocks, width, activation
        self.halved = bool(halved)

    def reader(self, in_shape: Sequence[int], *, covariate_dim: int = 0) -> nn.Module:
        return ResidualReader(
            in_shape,
            self._channels(in_shape),
            blocks=self.blocks,
            width=self.width,
            activation=self.activation,
            halved=self.halved,
            covariate_dim=covariate_dim,
        )

    def writer(
        self, latent_dim: int, out_shape: Sequence[int], *, covariate_dim: int = 0
    ) -> nn.Module:
        return ResidualWriter(
            latent_dim,
            out_shape,
            self._channels(out_shape),
            blocks=self.blocks,
            width=self.width,
            activation=self.activation,
            halved=self.halved,
            covariate_dim=covariate_dim,
        )

    def _channels(self, shape: Sequence[int]) -> tuple[int, ...]:
        if self.channels is not None:
            return self.channels
        side, channels = min(shape[-2:]) if len(shape) > 1 else 1, [16]
        if self.halved:
            side = ceil(side / 2)
        while side > _SMALL:
            side = ceil(side / 2)
            channels.append(min(2 * channels[-1], 64))
        return tuple(channels)
