"""Entries that are missing because of what they are: closed forms, fits and imputation."""

import numpy as np
import pytest
import torch
from torch import nn

from ppl_vae import (
    MLP,
    VAE,
    NormalDecoder,
    NormalEncoder,
    SelfMaskingDecoder,
    StandardNormal,
    VAEConfig,
    fit,
    impute,
    log_evidence,
)
from ppl_vae.components.decoders.self_masking import SelfMaskedNormal

QUIET = {"progress": False}
# loc, scale, intercept, slope; rarely missing, and rarely observed.
CASES = [(0.3, 1.2, -0.5, 2.0), (0.3, 0.5, 0.5, -3.0), (1.0, 2.0, -30.0, 1.0), (5.0, 1.0, 9.0, 3.0)]


def on_a_grid(parameters):
    """The distribution, a grid, and on it the density times the chance to be missing, or not."""
    loc, scale, intercept, slope = torch.tensor(parameters, dtype=torch.float64)
    x = torch.linspace(loc - 16 * scale, loc + 16 * scale, 200_001, dtype=torch.float64)
    density = torch.distributions.Normal(loc, scale).log_prob(x)
    missing = (density + torch.special.log_ndtr(intercept + slope * x)).exp()
    observed = (density + torch.special.log_ndtr(-intercept - slope * x)).exp()
    return SelfMaskedNormal(loc, scale, intercept, slope), x, missing, observed


@pytest.mark.parametrize("parameters", CASES)
def test_probabilities_are_those_of_quadrature(parameters):
    p, x, missing, observed = on_a_grid(parameters)
    nan = torch.tensor(torch.nan, dtype=torch.float64)
    chance = torch.trapezoid(missing, x)
    torch.testing.assert_close(p.log_prob(nan), chance.log(), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(p.log_prob(x).exp(), observed)
    # What is filled in where a number is missing does not matter.
    given = p.given(torch.tensor([True, False]))
    values = torch.tensor([0.7, 123.0], dtype=torch.float64)
    exact = torch.stack([p.log_prob(values[0]), p.log_prob(nan)])
    assert torch.equal(given.log_prob(values), exact)


@pytest.mark.parametrize("parameters", CASES)
@pytest.mark.parametrize("seen", [False, True])
def test_draws_are_of_the_number_given_whether_it_is_missing(parameters, seen):
    """Mean and sd of 100,000 draws within 5 standard errors; 16 numbers, false alarms 1e-5."""
    p, x, missing, observed = on_a_grid(parameters)
    weight = observed if seen else missing
    weight = weight / torch.trapezoid(weight, x)
    mean = torch.trapezoid(weight * x, x)
    sd = torch.trapezoid(weight * (x - mean).square(), x).sqrt()
    given = p.given(torch.tensor(seen))
    torch.testing.assert_close(given.mean, mean, rtol=1e-6, atol=1e-6)
    torch.manual_seed(1)
    drawn = given.sample((100_000,))
    assert abs(drawn.mean() - mean) < 5 * sd / 100_000**0.5
    assert abs(drawn.std() - sd) < 5 * sd / 100_000**0.5


def test_draws_from_the_model_are_missing_as_often_as_it_says():
    """Of 100,000 numbers, within 5 standard errors."""
    p, x, missing, _ = on_a_grid(CASES[0])
    chance = torch.trapezoid(missing, x)
    torch.manual_seed(1)
    lost = p.sample((100_000,)).isnan().double().mean()
    assert abs(lost - chance) < 5 * (chance * (1 - chance) / 100_000) ** 0.5


def table(size=2000, seed=0):
    """Three measures of one thing, of which the first is mostly missing where it is above 0.3."""
    generator = torch.Generator().manual_seed(seed)
    z, noise = torch.randn(size, 1, generator=generator), torch.randn(size, 3, generator=generator)
    whole = z @ torch.tensor([[0.8, 0.6, -0.5]]) + 0.5 * noise
    x, chance = whole.clone(), torch.special.ndtr(4.0 * (whole[:, 0] - 0.3))
    x[torch.rand(size, generator=generator) < chance, 0] = torch.nan
    return whole, x


def factor_model(decoder):
    """Factor analysis: a linear decoder of one latent."""
    return VAE(StandardNormal(1), decoder, NormalEncoder(MLP((2, 3), (16,)), 1, missing=True))


def test_the_mean_of_a_masked_column_is_recovered_where_miwae_s_is_not():
    """Of 2,000 rows: its mean, 0, has a standard error of 0.02; 0.1 is five of these."""
    whole, x = table()
    means, errors = {}, {}
    for name, kind in (("miwae", NormalDecoder), ("self-masking", SelfMaskingDecoder)):
        torch.manual_seed(0)
        vae = factor_model(kind(nn.Linear(1, 3), (3,)))
        options = {"objective": "iwae:num_particles=5", "learning_rate": 2e-2, "engine": "graph"}
        fit(vae, x, epochs=25, **options, **QUIET)
        found = impute(vae, x, num_samples=200, **QUIET)
        means[name] = found.x.values[:, 0].mean() - whole[:, 0].mean().item()
        off = (found.x.values - whole.numpy())[found.missing.values]
        errors[name] = np.sqrt(np.mean(off**2))
        inside = ((found.low <= whole.numpy()) & (whole.numpy() <= found.high)).values
        inside = inside[found.missing.values].mean()
    assert means["miwae"] < -0.2
    assert abs(means["self-masking"]) < 0.1
    assert errors["self-masking"] < 0.8 * errors["miwae"]
    assert abs(inside - 0.9) < 0.06
    # The others have no missing entries: their chance of it is small.
    assert (vae.decoder.slope[0] > 1.0).all()


@pytest.fixture
def known():
    """A VAE of one latent whose parameters are set, and rows of it."""
    torch.manual_seed(3)
    decoder = SelfMaskingDecoder(nn.Linear(1, 3), (3,), center=(0.5, 0.0, -1.0), spread=2.0)
    with torch.no_grad():
        decoder.intercept.copy_(torch.tensor([-0.5, 0.0, -2.0]))
        decoder.raw_slope.copy_(torch.tensor([1.0, -0.5, 0.1]))
        decoder.raw_scale.fill_(-1.0)
    vae = factor_model(decoder).double()
    x = table(12)[1].double()
    x[0, 1], x[1, :2], x[2] = torch.nan, torch.nan, torch.nan
    return vae, x


def test_evidence_and_imputation_agree_with_quadrature(known):
    """By 4,000 draws: log p of 12 rows, and means of their missing entries, within 5 errors."""
    vae, x = known
    z = torch.linspace(-8, 8, 4001, dtype=torch.float64)[:, None, None]
    with torch.no_grad():
        log_joint = vae.log_joint(z.expand(-1, len(x), -1), x)  # (grid, row)
        _, means = vae.complete(z.expand(-1, len(x), -1), x)
    exact = (log_joint.logsumexp(0) + np.log(16 / 4000)).numpy()
    weight = log_joint.softmax(0)
    partly = ~x.isnan().all(1)
    evidence = log_evidence(vae, x[partly], num_samples=4000, **QUIET)
    error = np.maximum(evidence.standard_error, 1e-3)
    assert (abs(evidence.log_evidence - exact[partly.numpy()]) < 5 * error).all()
    mean = (weight[..., None] * means).sum(0)
    spread = (weight[..., None] * (means - mean).square()).sum(0).sqrt()
    found = impute(vae, x, num_samples=4000, **QUIET)
    cells = found.missing.values
    sd = spread.numpy()[cells] + 0.02 * found.sd.values[cells]
    effective = found.effective_samples.values[:, None].repeat(3, 1)[cells]
    assert (abs(found.x.values[cells] - mean.numpy()[cells]) < 5 * sd / np.sqrt(effective)).all()
    # What is missing tells something even of a row without any entry.
    assert found.effective_samples[2] < 3900


def test_what_intervals_rest_on_is_said_and_cannot_be_conformalized(known):
    vae, x = known
    assert "because of what they are" in impute(vae, x, num_samples=50, **QUIET).assumes
    with pytest.raises(ValueError, match="conformal hides entries at random, but this model"):
        impute(vae, x, num_samples=50, conformal=x, **QUIET)


def test_rows_drawn_from_the_model_have_missing_entries(known):
    vae, _ = known
    torch.manual_seed(0)
    z, x, _ = vae.simulate(500)
    assert x.isnan().any()
    assert z.isfinite().all()
    assert vae.typical(z).isfinite().all()


def test_its_network_is_small_by_default():
    x = table(50)[1]
    assert VAEConfig.for_data(x, likelihood="self_masking").hidden == (128,)
    assert VAEConfig.for_data(x, likelihood="self_masking", hidden=(9,)).hidden == (9,)
    assert VAEConfig.for_data(x).likelihood == "normal"


def test_where_nothing_may_be_missing_it_is_refused():
    x = torch.randn(20, 4)
    with pytest.raises(ValueError, match="build both with missing=True"):
        VAE.from_config(VAEConfig.for_data(x, likelihood="self_masking"))
    with pytest.raises(ValueError, match="hides is 'some'; accepted are 'either', 'high', 'low'"):
        VAE.from_config(VAEConfig.for_data(x, likelihood="self_masking:hides=some", missing=True))
