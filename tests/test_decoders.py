"""Likelihoods: normalized, and as their docstrings say."""

import pytest
import torch
from torch import nn

from ppl_vae import (
    BernoulliDecoder,
    ContinuousBernoulliDecoder,
    NegativeBinomialDecoder,
    NormalDecoder,
)
from ppl_vae.components.decoders import DECODERS


def at(raw, decoder):
    """The likelihood of one entry where the network returns ``raw``."""
    return decoder.likelihood(torch.tensor([raw], dtype=torch.float64))


@pytest.mark.parametrize("raw", [-40.0, -3.0, -1e-3, 0.0, 0.5, 12.0, 40.0])
def test_each_integrates_to_one(raw):
    network = nn.Linear(2, 1)
    grid = torch.linspace(0, 1, 200_001, dtype=torch.float64)
    density = at(raw, ContinuousBernoulliDecoder(network, (1,))).log_prob(grid).exp()
    assert torch.trapezoid(density, grid).item() == pytest.approx(1, abs=1e-4)
    both = at(raw, BernoulliDecoder(network, (1,))).log_prob(torch.tensor([0.0, 1.0])).exp()
    assert both.sum().item() == pytest.approx(1)
    line = torch.linspace(-400, 400, 400_001, dtype=torch.float64)
    normal = NormalDecoder(network, (1,), scale=0.5, center=3.0, spread=2.0)
    density = at(raw, normal).log_prob(line).exp()
    assert torch.trapezoid(density, line).item() == pytest.approx(1, abs=1e-4)
    if raw < 3:
        counts = torch.arange(20_000.0, dtype=torch.float64)
        mass = at(raw, NegativeBinomialDecoder(network, (1,), center=5.0)).log_prob(counts).exp()
        assert mass.sum().item() == pytest.approx(1, abs=1e-4)


def test_negative_binomial_mean_and_variance():
    decoder = NegativeBinomialDecoder(nn.Linear(2, 1), (1,), center=5.0)
    with torch.no_grad():
        decoder.raw_dispersion.fill_(torch.tensor(3.0).log())
    mean = 5.0 * torch.tensor(0.5).exp().item()
    counts = at(0.5, decoder)
    assert counts.mean.item() == pytest.approx(mean, rel=1e-5)
    assert counts.variance.item() == pytest.approx(mean + mean**2 / 3, rel=1e-5)


@pytest.mark.parametrize(
    ("scale", "shape", "learnt"), [("feature", (3,), 3), ("shared", (), 1), (0.7, (), 0)]
)
def test_normal_scales(scale, shape, learnt):
    decoder = NormalDecoder(nn.Linear(2, 3), (3,), scale=scale, spread=2.0)
    assert decoder.raw_scale.shape == shape
    own = [p for name, p in decoder.named_parameters() if not name.startswith("network")]
    assert sum(p.numel() for p in own) == learnt
    expected = 2.0 * (0.7 if learnt == 0 else 1.0)
    torch.testing.assert_close(
        decoder(torch.zeros(4, 2)).stddev, torch.full((4, 3), expected), rtol=1e-6, atol=0.0
    )


@pytest.mark.parametrize("scale", [0.0, -1.0, float("inf"), float("nan"), "own"])
def test_bad_normal_scale(scale):
    with pytest.raises(ValueError, match="accepted are 'feature', 'shared' or a positive number"):
        NormalDecoder(nn.Linear(2, 3), (3,), scale=scale)


@pytest.mark.parametrize("decoder", DECODERS.values())
def test_batches_before_the_row(decoder):
    p = decoder(nn.Linear(2, 6), (2, 3))(torch.zeros(4, 5, 2))
    assert p.batch_shape == (4, 5)
    assert p.event_shape == (2, 3)


@pytest.mark.parametrize("decoder", DECODERS.values())
def test_extreme_networks_give_finite_numbers(decoder):
    network = nn.Linear(1, 1)
    with torch.no_grad():
        network.weight.fill_(1.0)
        network.bias.zero_()
    p = decoder(network, (1,))(torch.tensor([[-1e4], [1e4]]))
    assert p.log_prob(torch.ones(2, 1)).isfinite().all()


def test_bernoulli_starts_at_the_center():
    class Zero(torch.nn.Module):
        def forward(self, z):
            return torch.zeros(*z.shape[:-1], 3)

    center = torch.tensor([0.0, 0.2, 0.9])
    decoder = BernoulliDecoder(Zero(), (3,), center=center)
    torch.testing.assert_close(decoder(torch.zeros(2, 1)).mean[0], center.clamp(1e-3, 1 - 1e-3))
    torch.testing.assert_close(
        BernoulliDecoder(Zero(), (3,))(torch.zeros(1)).mean, torch.full((3,), 0.5)
    )


def test_loaded_centering_is_used():
    network, z = torch.nn.Linear(2, 6), torch.randn(7, 2)
    given = BernoulliDecoder(network, (6,), center=[0.3] * 6)
    loaded = BernoulliDecoder(network, (6,), center=[0.0] * 6)
    loaded.load_state_dict(given.state_dict())
    assert torch.equal(loaded(z).mean, given(z).mean)
