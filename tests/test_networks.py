"""Networks: shapes in and out, whatever comes before them."""

import pytest
import torch

from ppl_vae import MLP, VAE, ConvDecoder, ConvEncoder, VAEConfig
from ppl_vae.components.networks import NETWORKS

SHAPES = [(28, 28), (32, 32), (64, 64), (3, 32, 32), (28, 20), (7, 9), (1, 5, 13), (1, 1), (2, 3)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("hidden", [(4, 8), (4, 8, 16), (4, 4, 4, 8)])
def test_convolutional_pair_returns_the_exact_event_shape(shape, hidden):
    encoder, decoder = ConvEncoder(shape, hidden), ConvDecoder((2,), hidden, shape)
    assert encoder(torch.zeros(3, *shape)).shape == (3, hidden[-1])
    assert encoder(torch.zeros(4, 3, *shape)).shape == (4, 3, hidden[-1])
    assert decoder(torch.zeros(3, 2)).shape == (3, *shape)
    assert decoder(torch.zeros(4, 3, 2)).shape == (4, 3, *shape)


@pytest.mark.parametrize("shape", SHAPES)
def test_convolutional_pair_without_a_dense_layer(shape):
    network = NETWORKS.build("conv:hidden=(4,8),dense=false")
    encoder, decoder = network.reader(shape), network.writer(2, shape)
    assert encoder(torch.zeros(4, 3, *shape)).shape == (4, 3, encoder.out_features)
    assert decoder(torch.zeros(4, 3, 2)).shape == (4, 3, *shape)


@pytest.mark.parametrize("network", ["mlp", "conv", "conv:dense=false"])
@pytest.mark.parametrize("shape", SHAPES)
def test_vae_of_any_image_size(network, shape):
    config = VAEConfig(event_shape=shape, latent_dim=2, network=network, hidden=(4, 8))
    assert VAE.from_config(config).model(size=3).shape == (3, *shape)


def test_conv_and_mlp_batches_are_computed_row_by_row():
    x = torch.rand(6, 7, 9)
    for network in (MLP((7, 9), (5,)), ConvEncoder((7, 9), (4, 5))):
        one = torch.cat([network(row[None]) for row in x])
        torch.testing.assert_close(network(x), one)
        torch.testing.assert_close(network(x.reshape(2, 3, 7, 9)), one.reshape(2, 3, 5))


def test_context_joins_each_row():
    decoder = MLP((2,), (5,), (3,), covariate_dim=4)
    covariates = torch.rand(6, 4)
    z = torch.rand(10, 6, 2)
    one = decoder(z[3], covariates)
    torch.testing.assert_close(decoder(z, covariates)[3], one)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: MLP((3,), (4,), activation="cosine"), "activation is 'cosine'; accepted are"),
        (lambda: ConvEncoder((5,), (4, 8)), r"event_shape is \(5,\); use network='mlp'"),
        (lambda: ConvDecoder((2,), (8,), (5, 5)), r"hidden is \(8,\); network='conv' needs"),
    ],
)
def test_bad_networks(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_default_sizes_suit_the_image():
    """Not the 98 million parameters that two layers of 500 channels would have."""
    for shape, most in (((8, 8), 5e5), ((28, 28), 2e6), ((3, 64, 64), 5e6), ((3, 256, 256), 5e6)):
        vae = VAE.from_config(VAEConfig(event_shape=shape, latent_dim=8, network="conv"))
        assert sum(p.numel() for p in vae.parameters()) < most, shape


@pytest.mark.parametrize("halved", [False, True])
@pytest.mark.parametrize("shape", [(28, 28), (7, 9), (3, 5, 13), (1, 1)])
def test_residual_pair_returns_the_exact_event_shape(shape, halved):
    network = NETWORKS.build(f"resnet:channels=(4,8),width=6,halved={str(halved).lower()}")
    encoder, decoder = network.reader(shape), network.writer(2, shape)
    assert encoder(torch.zeros(4, 3, *shape)).shape == (4, 3, 6)
    assert decoder(torch.zeros(4, 3, 2)).shape == (4, 3, *shape)


def test_a_halved_residual_network_has_no_block_at_the_images_own_size():
    sizes = []
    network = NETWORKS.build("resnet:channels=(4,8),halved=true")
    for part, given in ((network.reader((28, 28)), (28, 28)), (network.writer(2, (28, 28)), (2,))):
        for module in part.modules():
            if type(module).__name__ == "ResidualBlock":
                module.register_forward_hook(lambda m, i, out: sizes.append(out.shape[-1]))
        part(torch.zeros(1, *given))
    assert sorted(sizes) == [7, 7, 14, 14]
