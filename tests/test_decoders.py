"""Likelihoods: normalized, and as their docstrings say."""

from math import prod

import numpy as np
import pytest
import scipy.stats
import torch
from torch import nn

from ppl_vae import (
    BernoulliDecoder,
    CategoricalDecoder,
    Choice,
    ContinuousBernoulliDecoder,
    NegativeBinomialDecoder,
    NormalDecoder,
    PoissonDecoder,
    ZeroInflatedNegativeBinomialDecoder,
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
    ("scale", "shape", "learned"), [("feature", (3,), 3), ("shared", (), 1), (0.7, (), 0)]
)
def test_normal_scales(scale, shape, learned):
    decoder = NormalDecoder(nn.Linear(2, 3), (3,), scale=scale, spread=2.0)
    assert decoder.raw_scale.shape == shape
    own = [p for name, p in decoder.named_parameters() if not name.startswith("network")]
    assert sum(p.numel() for p in own) == learned
    expected = 2.0 * (0.7 if learned == 0 else 1.0)
    torch.testing.assert_close(
        decoder(torch.zeros(4, 2)).stddev, torch.full((4, 3), expected), rtol=1e-6, atol=0.0
    )


@pytest.mark.parametrize("scale", [0.0, -1.0, float("inf"), float("nan"), "own"])
def test_bad_normal_scale(scale):
    with pytest.raises(ValueError, match="accepted are 'feature', 'shared' or a positive number"):
        NormalDecoder(nn.Linear(2, 3), (3,), scale=scale)


def built(name, event_shape, latent_dim):
    """A decoder of that name with a linear network of as many outputs as it takes."""
    options = {"levels": 3} if name in ("categorical", "ordinal") else {}
    if name == "mixed":
        kinds = ("normal", "log_normal", "ordinal:levels=3", "categorical:levels=3", "beta")
        options = {"columns": [kinds[i % 5] for i in range(event_shape[0])]}
    decoder = DECODERS.build(Choice(name, options), network=nn.Identity(), event_shape=event_shape)
    decoder.network = nn.Linear(latent_dim, prod(decoder.raw_shape))
    return decoder


@pytest.mark.parametrize("name", DECODERS)
def test_batches_before_the_row(name):
    shape = (6,) if name == "mixed" else (2, 3)
    p = built(name, shape, 2)(torch.zeros(4, 5, 2))
    assert p.batch_shape == (4, 5)
    assert p.event_shape == shape


@pytest.mark.parametrize("name", DECODERS)
def test_entries_that_are_not_observed_are_left_out(name):
    """One by one: what is left is the sum over the others."""
    decoder, z, x = built(name, (6,), 2), torch.randn(4, 5, 2), torch.ones(5, 6)
    observed = torch.rand(5, 6, generator=torch.Generator().manual_seed(0)) < 0.5
    found = decoder(z, None, observed).log_prob(x)
    entries = decoder(z).base_dist.log_prob(x)  # (draw, row, entry)
    unseen = torch.zeros(())
    if decoder.needs_missing:  # these count by being missing
        unseen = decoder(z).base_dist.log_prob(torch.full_like(x, torch.nan))
    torch.testing.assert_close(found, torch.where(observed, entries, unseen).sum(-1))


@pytest.mark.parametrize("name", DECODERS)
def test_extreme_networks_give_finite_numbers(name):
    decoder = built(name, (1,), 1)
    with torch.no_grad():
        decoder.network.weight.fill_(1.0)
        decoder.network.bias.zero_()
    p = decoder(torch.tensor([[-1e4], [1e4]]))
    assert p.log_prob(torch.ones(2, 1)).isfinite().all()


@pytest.mark.parametrize("mean", [0.5, 40.0])
def test_counts_are_those_of_scipy(mean):
    x = torch.arange(30.0, dtype=torch.float64)
    poisson_at = PoissonDecoder(nn.Linear(1, 1), (1,), center=mean)
    np.testing.assert_allclose(
        at(0.0, poisson_at).log_prob(x).detach(), scipy.stats.poisson(mean).logpmf(x), rtol=1e-5
    )
    zinb = ZeroInflatedNegativeBinomialDecoder(nn.Linear(1, 2), (1,), center=mean)
    found = zinb.likelihood(torch.tensor([[0.0, 1.0]], dtype=torch.float64)).log_prob(x).detach()
    gate, p = 1 / (1 + np.exp(1.0)), 1 / (1 + mean)
    mass = (1 - gate) * scipy.stats.nbinom(1, p).pmf(x) + gate * (x.numpy() == 0)
    np.testing.assert_allclose(found, np.log(mass), rtol=1e-5)


def test_the_first_that_describes_the_data():
    """With the options that fit them: what the default of center would not."""
    counts = torch.poisson(torch.full((200, 3), 40.0), generator=torch.Generator().manual_seed(0))
    described = PoissonDecoder.describes(counts)
    torch.testing.assert_close(torch.tensor(described["center"]), counts.mean(0))
    assert BernoulliDecoder.describes(counts) is None
    assert BernoulliDecoder.describes(counts.clamp(max=1)) == {}
    assert CategoricalDecoder.describes(counts.clamp(max=4))["levels"] == 5
    assert NegativeBinomialDecoder.describes(counts - 100) is None


def test_moments_are_those_of_double_precision():
    """Of values far from zero, and in units that single precision cannot square."""
    for scale, shift in ((1.0, 1e6), (1e-26, 0.0), (1e22, 0.0)):
        x = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0)) * scale + shift
        described = NormalDecoder.describes(x)
        np.testing.assert_allclose(described["spread"], x.double().std(0, correction=0), rtol=1e-6)


class Normalized(nn.Module):
    """A network as most people write it, for ``(row, latent)`` alone."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(2, 8)
        self.norm = nn.BatchNorm1d(8)
        self.image = nn.Unflatten(1, (2, 2, 2))
        self.up = nn.ConvTranspose2d(2, 1, 2, stride=2)

    def forward(self, z):
        return self.up(self.image(self.norm(self.first(z))))


def test_networks_of_one_batch_dimension():
    """Normalization sees features, whatever the number of rows; 8 rows of 8 are no exception."""
    decoder = NormalDecoder(Normalized(), (4, 4))
    decoder(torch.randn(50, 2))  # running moments
    decoder.eval()
    z = torch.randn(3, 8, 2)
    torch.testing.assert_close(decoder(z).mean, torch.stack([decoder(each).mean for each in z]))


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
