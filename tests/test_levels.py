"""Likelihoods of digital data: probabilities of levels, and which data have levels."""

import numpy as np
import pytest
import scipy.stats
import torch
from torch import nn

from ppl_vae import (
    VAE,
    BinomialDecoder,
    DiscretizedLogisticDecoder,
    NormalEncoder,
    StandardNormal,
    VAEConfig,
    fit,
)
from ppl_vae.components.decoders.levels import grid_of
from ppl_vae.run.metrics import tied, words

EXTREMES = torch.tensor([-1e4, -40.0, -3.0, 0.0, 0.5, 12.0, 40.0, 1e4])


def likelihoods(levels, dtype, low=0.0, high=1.0):
    """Of entries whose network returns each pair of extremes."""
    given = {"event_shape": (len(EXTREMES) ** 2,), "levels": levels, "low": low, "high": high}
    pairs = torch.cartesian_prod(EXTREMES, EXTREMES).to(dtype).requires_grad_()
    logistic = DiscretizedLogisticDecoder(nn.Linear(2, 2), **given, center=0.3, spread=0.2)
    binomial = BinomialDecoder(nn.Linear(2, 1), **given, center=0.3)
    return pairs, [
        logistic.to(dtype).likelihood(pairs),
        binomial.to(dtype).likelihood(pairs[:, 0]),
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("levels", "low", "high"), [(17, 0.0, 1.0), (256, 0.0, 1.0), (5, 1.0, 5.0)]
)
def test_probabilities_sum_to_one_and_have_gradients(levels, low, high, dtype):
    pairs, both = likelihoods(levels, dtype, low, high)
    numbers = torch.linspace(low, high, levels, dtype=dtype)
    for q in both:
        log_prob = q.log_prob(numbers[:, None])  # (level, entry)
        assert (log_prob <= 0).all()
        total = log_prob.exp().sum(0)
        torch.testing.assert_close(total, torch.ones_like(total), rtol=1e-4, atol=1e-4)
        (gradient,) = torch.autograd.grad(log_prob.sum(), pairs)
        assert gradient.isfinite().all()
        mean = (log_prob.exp() * numbers[:, None]).sum(0)
        torch.testing.assert_close(q.mean, mean, rtol=1e-3, atol=1e-3 * (high - low))
        assert q.support.check(q.sample((20,))).all()


def test_binomial_is_scipys():
    decoder = BinomialDecoder(nn.Linear(2, 1), (1,), levels=17, center=0.5)
    q = decoder.likelihood(torch.tensor([0.7], dtype=torch.float64))
    found = q.log_prob(torch.arange(17.0, dtype=torch.float64)[:, None] / 16)[:, 0]
    chance = 1 / (1 + np.exp(-0.7))
    np.testing.assert_allclose(
        found, scipy.stats.binom.logpmf(np.arange(17), 16, chance), rtol=1e-6
    )


def test_logistic_is_a_rounded_one():
    """Of 40,000 draws each share of a level is within 4.5 sd: missed by chance in 1 of 8,000."""
    torch.manual_seed(0)
    pairs = torch.tensor([[0.3, 0.2]])
    decoder = DiscretizedLogisticDecoder(nn.Linear(2, 2), (1,), levels=17, center=0.3, spread=0.3)
    q = decoder.likelihood(pairs)
    shares = torch.bincount((q.sample((40_000,)) * 16).round().long().flatten(), minlength=17) / 4e4
    exact = scipy.stats.logistic.cdf(np.arange(0.5, 16), loc=q.loc.item(), scale=q.scale.item())
    exact = torch.tensor(np.diff([0, *exact, 1]))
    assert ((shares - exact).abs() < 4.5 * (exact * (1 - exact) / 4e4).sqrt()).all()
    numbers = torch.arange(17.0)[:, None] / 16
    torch.testing.assert_close(
        q.log_prob(numbers)[:, 0].exp().double(), exact, rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize(
    ("x", "grid"),
    [
        (torch.tensor([[0, 255], [3, 7]], dtype=torch.uint8), (256, 0.0, 1.0)),
        (torch.arange(256.0).reshape(-1, 2) / 255, (256, 0.0, 1.0)),
        (torch.tensor([[0.25, 0.5], [0.75, 1.0]]), (5, 0.0, 1.0)),
        (torch.tensor([[0.0, 0.5], [torch.nan, 1.0]]), (3, 0.0, 1.0)),
        (torch.tensor([[1.0, 5.0], [2.0, 3.0]]), (5, 1.0, 5.0)),
        (torch.tensor([[-1.0, -0.5], [0.0, 1.0]]), (5, -1.0, 1.0)),
        (torch.tensor([[0.1, 0.2], [0.3, 1.0]]).double(), (11, 0.0, 1.0)),
        (torch.rand(100, 3), None),
        (torch.tensor([[0.0, 0.1], [0.35, 1.0]]), (21, 0.0, 1.0)),
        (torch.tensor([[0.0, 0.1], [0.35321, 1.0]]), None),
        (torch.arange(600.0).reshape(-1, 2), None),
        (torch.ones(5, 2), None),
    ],
)
def test_the_grid_that_numbers_lie_on(x, grid):
    found = grid_of(x)
    assert (None if found is None else tuple(found.values())) == grid


def test_numbers_between_levels_are_refused(digits):
    vae = VAE.from_config(VAEConfig.for_data(digits, hidden=(8,)))
    vae.check(digits)
    with pytest.raises(ValueError, match="accepts 17 levels from 0 to 1"):
        vae.check(digits * 0.9)


@pytest.mark.parametrize(
    "engine", ["eager", "graph", pytest.param("compiled", marks=pytest.mark.slow)]
)
def test_every_engine_fits_levels(digits, engine):
    vae = VAE.from_config(VAEConfig.for_data(digits, hidden=(16,), latent_dim=2))
    result = fit(vae, digits[:256], epochs=3, batch_size=64, engine=engine, progress=False)
    assert result.history.train_loss.values[-1] == pytest.approx(_ended(digits), rel=1e-3)


def _ended(digits, found=[]):  # noqa: B006  the same for all engines
    if not found:
        vae = VAE.from_config(VAEConfig.for_data(digits, hidden=(16,), latent_dim=2))
        result = fit(vae, digits[:256], epochs=3, batch_size=64, engine="eager", progress=False)
        found.append(result.history.train_loss.values[-1])
    return found[0]


def test_missing_levels_are_left_out():
    decoder = DiscretizedLogisticDecoder(nn.Linear(2, 6), (3,), levels=5)
    vae = VAE(StandardNormal(2), decoder, NormalEncoder(nn.Linear(3, 4), 2))
    z, x = torch.zeros(1, 2), torch.tensor([[0.25, 0.0, 1.0]])
    observed = torch.tensor([[True, False, True]])
    each = decoder.likelihood(decoder.network(z).reshape(1, 3, 2)).log_prob(x)
    found = vae.likelihood(z, None, observed).log_prob(x)
    torch.testing.assert_close(found, each[:, [0, 2]].sum(-1))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"levels": 1}, "levels is 1; pass"), ({"low": 1.0, "high": 1.0}, "low is 1.0 and high 1.0")],
)
def test_options_that_are_not_accepted(options, message):
    with pytest.raises(ValueError, match=message):
        BinomialDecoder(nn.Linear(2, 1), (1,), **options)


def test_a_density_of_ties_says_so():
    x = torch.rand(50, 4)
    x[:30, 0] = 0.0
    test = {
        "log_evidence": {"nats_per_row": 5.0},
        "independent": {"nats_per_row": 1.0},
        "tied": tied(x),
    }
    (said,) = words(test | {"measure": "density"})
    assert said.startswith("These nats are of a density, in which 15% of the entries repeat")
    assert words(test | {"measure": "probability"}) == []
    assert tied(torch.rand(50, 4)) == 0.0
