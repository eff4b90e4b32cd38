"""What would mend a VAE: the prior's gap by closed form, and what diagnose says of it."""

import numpy as np
import pytest
import torch
import xarray as xr
from oracle import LinearGaussian

from ppl_vae import prior_gap
from ppl_vae.workflow.verdict.cures import cures_of, in_words

SIZE = 3000


@pytest.fixture(scope="module")
def linear():
    return LinearGaussian.random(2, 6, seed=3)


def aggregate(linear, locations, scale):
    """q(z) of the exact encoder, for rows whose latents are of a mixture: in closed form."""
    eye = torch.eye(2, dtype=torch.float64)
    covariance = torch.linalg.inv(linear.posterior_precision)
    gain = covariance @ linear.weight.T / linear.noise**2
    both = gain @ linear.weight
    spread = both @ both.T * scale**2 + linear.noise**2 * gain @ gain.T + covariance
    normals = torch.distributions.MultivariateNormal(locations @ both.T, spread)
    mixture = torch.distributions.Categorical(torch.ones(len(locations)).double())
    q = torch.distributions.MixtureSameFamily(mixture, normals)
    prior = torch.distributions.MultivariateNormal(torch.zeros(2).double(), eye)
    return q, prior


def rows(linear, locations, scale, size, seed):
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randint(len(locations), (size,), generator=generator)
    noise = torch.randn(size, 2, generator=generator, dtype=torch.float64)
    z = locations[chosen] + scale * noise
    x = z @ linear.weight.T + linear.bias
    return x + linear.noise * torch.randn(x.shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("given", [False, True])
def test_the_gap_of_a_prior_is_the_aggregate_posteriors_divergence(linear, given):
    """Within 0.05 nats of KL(q(z) || p(z)); the standard errors of both are below 0.02."""
    locations = torch.tensor([[1.5, 1.0], [-1.5, 1.0], [0.0, -2.0]], dtype=torch.float64)
    q, prior = aggregate(linear, locations, 0.3)
    torch.manual_seed(0)
    z = q.sample((100_000,))
    exact = (q.log_prob(z) - prior.log_prob(z)).mean().item()
    assert exact > 0.5
    x = rows(linear, locations, 0.3, SIZE, seed=1)
    training = rows(linear, locations, 0.3, SIZE, seed=2) if given else None
    gap = prior_gap(linear.vae(), x, training=training, progress=False)
    assert gap.gain.mean().item() == pytest.approx(exact, abs=0.05)


def test_a_prior_that_is_right_leaves_nothing_to_win(linear):
    gap = prior_gap(linear.vae(), linear.rows(SIZE), progress=False)
    assert abs(gap.gain.mean().item()) < 0.02


def test_chunks_and_seeds(linear):
    x = linear.rows(100)
    gaps = [
        prior_gap(linear.vae(), x, seed=seed, chunk_rows=size, progress=False)
        for seed, size in ((0, None), (0, None), (1, 7))
    ]
    assert gaps[0].identical(gaps[1])
    assert not gaps[0].equals(gaps[2])
    with pytest.raises(ValueError, match="chunk_rows is 0"):
        prior_gap(linear.vae(), x, chunk_rows=0, progress=False)


def test_few_rows_say_nothing(linear):
    assert np.isnan(prior_gap(linear.vae(), linear.rows(19), progress=False).gain).all()


def gaps_of(approximation, amortization, low=False, search=0.0):
    return xr.Dataset(
        {
            "search": ("row", [search] * len(approximation)),
            "approximation": ("row", approximation),
            "amortization": ("row", amortization),
            "low": ("row", [low] * len(approximation)),
        }
    )


def test_the_change_that_wins_most_comes_first():
    prior = xr.Dataset({"gain": ("row", [1.9, 2.1, np.nan])})
    gaps = gaps_of([0.5, 0.6], [3.0, 4.0], low=True)
    cures = cures_of(prior, gaps, {"guide": "full_rank"})
    assert [cure.name for cure in cures] == ["fit", "prior", "guide"]
    assert [cure.nats for cure in cures] == pytest.approx([3.5, 2.0, 0.55])
    assert [cure.at_least for cure in cures] == [False, True, True]
    assert cures[2].option == "--guide flow"
    words = in_words(cures, prior, gaps)
    assert "3.50 +- 0.50" in words[1]
    assert ">= 2.00" in words[2]


def test_what_is_small_or_not_shown_is_no_cure():
    prior = xr.Dataset({"gain": ("row", [0.05, 0.06])})
    gaps = gaps_of([0.0, 0.01], [5.0, -4.0])
    assert cures_of(prior, gaps, {}) == []
    assert "neither a learned prior" in in_words([], prior, gaps)[0]


def test_what_is_not_finite_is_left_out_of_no_mean_in_silence():
    gain = xr.Dataset({"gain": ("row", [np.nan, np.nan])})
    lost = gaps_of([np.nan, np.nan], [np.nan, np.nan])
    assert "cannot be said" in in_words(cures_of(gain, lost, {}), gain, lost)[0]
    some = gaps_of([0.0, 0.0, np.nan], [4.0, 4.1, np.nan])
    words = in_words(cures_of(gain, some, {}), gain, some)
    assert "less 1 of 3 rows in which it is not finite" in words[0]


def test_a_search_that_did_not_end_blames_no_family():
    prior = xr.Dataset({"gain": ("row", [0.0, 0.0])})
    given = [5.0, 5.1], [40.0, 41.0]
    assert [cure.name for cure in cures_of(prior, gaps_of(*given), {})] == ["fit", "guide"]
    assert [cure.name for cure in cures_of(prior, gaps_of(*given, search=6.0), {})] == ["fit"]


def test_a_prior_that_is_a_flow_already_gets_a_larger_one():
    prior = xr.Dataset({"gain": ("row", [1.0, 1.1])})
    cures = cures_of(prior, gaps_of([0.0, 0.0], [0.0, 0.0]), {"prior": "flow", "guide": "flow"})
    assert [cure.option for cure in cures] == ["--prior flow:transforms=8"]
