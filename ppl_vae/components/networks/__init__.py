"""The functions inside encoders and decoders: plain torch, with no probability in them."""

from __future__ import annotations

__all__ = [
    "ACTIVATIONS",
    "INITIALIZATIONS",
    "MLP",
    "NETWORKS",
    "ConvDecoder",
    "ConvEncoder",
    "ConvNetwork",
    "MLPNetwork",
    "Network",
    "ResidualNetwork",
    "ResidualReader",
    "ResidualWriter",
    "called",
]

# The network for rows of any shape comes first.
# isort: off
from .mlp import MLP, MLPNetwork
from .conv import ConvDecoder, ConvEncoder, ConvNetwork
from .network import ACTIVATIONS, INITIALIZATIONS, NETWORKS, Network, called
from .resnet import ResidualNetwork, ResidualReader, ResidualWriter
