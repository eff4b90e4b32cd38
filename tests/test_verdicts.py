"""Verdicts against exact posteriors: a smaller version of benchmarks/verdicts.py."""

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from torch import nn
from torch.distributions import constraints

from ppl_vae import VAE, Decoder, NormalDecoder, StandardNormal, judge_rows
from ppl_vae.workflow.draws.sampling import stage_seed
from ppl_vae.workflow.verdict.judgement import judge, verdict_of
from ppl_vae.workflow.verdict.verdicts import verdicts
from ppl_vae.workflow.weights.annealing import sandwich


class Off(nn.Module):
    """The posterior of a linear decoder with orthogonal columns, moved and stretched."""

    def __init__(self, weight: torch.Tensor, shift: float, stretch: float) -> None:
        super().__init__()
        precision = weight.square().sum(1) + 1
        self.register_buffer("gain", (weight / precision[:, None]).T)
        self.register_buffer("sd", precision.rsqrt())
        self.shift, self.stretch = shift, stretch
        self.unused = nn.Parameter(torch.zeros(()))

    def forward(self, x, covariates=None):
        mean = x @ self.gain + self.shift * self.sd
        return dist.Normal(mean, (self.stretch * self.sd).expand_as(mean)).to_event(1)


def linear(latents: int, shift: float, stretch: float, size: int) -> tuple[VAE, torch.Tensor]:
    """A VAE whose encoder is off by so many sds in the mean, and by a factor in the sd."""
    generator = torch.Generator().manual_seed(0)
    entries = max(2 * latents, 4)
    columns = torch.randn(entries, latents, generator=generator, dtype=torch.float64)
    weight = 3 * torch.linalg.qr(columns).Q.T
    decoder = NormalDecoder(nn.Linear(latents, entries), (entries,), scale=1.0)
    vae = VAE(StandardNormal(latents), decoder, Off(weight, shift, stretch)).double()
    with torch.no_grad():
        decoder.network.weight.copy_(weight.T)
        decoder.network.bias.zero_()
    z = torch.randn(size, latents, generator=generator, dtype=torch.float64)
    noise = torch.randn(size, entries, generator=generator, dtype=torch.float64)
    return vae, z @ weight + noise


ENCODERS = [(0.0, 1.0), (0.0, 1.03), (0.25, 1.0), (0.0, 1.25), (0.0, 0.75), (1.0, 1.5), (0.0, 2.0)]


@pytest.mark.parametrize("latents", [1, 5, 20])
def test_rows_that_are_off_are_not_believed_and_exact_ones_are(latents):
    """20 rows of each encoder: all exact ones, none of those off by 0.25 sd or 25 %.

    At the rates that benchmarks/verdicts.py measures, below 1 in 1,000 rows, by chance one of
    these fails in about one of ten other seeds. Verdicts of two seeds agree in 95 % of rows.
    """
    agree = []
    for shift, stretch in ENCODERS:
        vae, x = linear(latents, shift, stretch, 20)
        first, second = (
            verdicts(vae, x, refined_rows=0, annealed_rows=0, seed=seed, progress=False)
            for seed in (0, 1)
        )
        close = shift < 0.1 and abs(stretch - 1) < 0.1
        assert ((first.verdict == "as it is") == close).all(), (shift, stretch)
        agree.append((first.verdict == second.verdict).mean().item())
        assert (first.num_draws <= 32_000).all()
    assert np.mean(agree) > 0.95


def test_weighted_means_are_off_by_what_is_claimed():
    """400 rows, 3 latents, means of 2000 draws: RMS over claim, which is that of the worst latent.

    The sum of squares over 1200 latents has an error of 4 %; claims are too large by up to 20 %.
    """
    torch.manual_seed(0)
    noise = torch.randn(2000, 400, 3, dtype=torch.float64)
    z = 0.5 + 1.2 * noise
    log_weight = (noise.square() - z.square()).sum(-1) / 2
    found = judge(log_weight, z, tolerance=0.1, most=8000)
    assert (found["weights_usable"] == 1).all()
    weight = (log_weight - log_weight.logsumexp(0)).exp()
    mean = (weight[..., None] * z).sum(0)  # of a posterior of mean 0 and sd 1
    ratio = (mean / found["weighted_mean_error"][:, None]).square().mean().sqrt()
    assert 0.8 < ratio < 1.1
    off = (found["raw_mean_off"] - 0.5) / found["raw_mean_error"]
    assert off.abs().max() < 6


def test_seeds_agree_where_weights_are_heavy():
    """Of 30 rows of 5 latents, with sds 30 % too small.

    All agreed with several seeds, and 73 % when the variance of all draws decided, which is that of
    the largest few: a false alarm would take 3 rows of 30.
    """
    vae, x = linear(5, 0.0, 0.7, 30)
    first, second = (
        verdicts(vae, x, refined_rows=0, annealed_rows=0, seed=seed, progress=False)
        for seed in (0, 1)
    )
    assert (first.verdict == second.verdict).mean() > 0.9


def test_tolerance_decides_how_many_draws_are_needed():
    vae, x = linear(5, 0.5, 1.0, 10)
    options = {"refined_rows": 0, "annealed_rows": 0, "progress": False}
    few = verdicts(vae, x, tolerance=0.3, **options)
    many = verdicts(vae, x, tolerance=0.05, **options)
    assert (few.verdict == "reweighted").all()
    assert few.num_draws.mean() < many.num_draws.mean()
    assert (few.weighted_mean_typical <= 0.3).all()
    none = verdicts(vae, x, tolerance=0.001, **options)
    assert (none.verdict == "not tried").all()
    assert "weighted means have an error of" in none.reason.values[0]


class Square(Decoder):
    """x = z^2 and noise: the posterior has two modes of the same mass."""

    support = constraints.real
    accepts = "real"

    def __init__(self) -> None:
        super().__init__(nn.Linear(1, 4), (4,))

    def forward(self, z, covariates=None):
        return dist.Normal((z**2).expand(*z.shape[:-1], 4), 0.3).to_event(1)

    def likelihood(self, raw):
        raise NotImplementedError


class Positive(nn.Module):
    """The mode above zero, and nothing of the other."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(()))

    def forward(self, x, covariates=None):
        mean = x.mean(-1, keepdim=True).clamp(min=0.3).sqrt()
        precision = 4 * (2 * mean / 0.3).square() + 1
        return dist.Normal(mean, 1.15 * precision.rsqrt()).to_event(1)


def test_a_second_mode_is_not_believed():
    """Weights alone see nothing of it, in any row."""
    vae, x = bimodal(40)
    options = {"tolerance": 0.2, "refined_rows": 5, "progress": False}
    blind = verdicts(vae, x, annealed_rows=0, **options)
    assert blind.verdict.isin(["as it is", "reweighted"]).mean() > 0.7
    found = verdicts(vae, x, annealed_rows=10, **options)
    assert not found.verdict.isin(["as it is", "reweighted", "refined"]).any()
    assert found.contradicted.sum() > 10  # more rows were asked after the first
    # Their intervals would leave the other mode out, and so would those of rows not asked.
    assert (found.weights_usable == -1).all()
    assert np.isinf(found.log_evidence_high).all()
    assert any("annealing from the prior finds" in reason for reason in found.reason.values)


def test_rows_not_believed_have_bounds_from_both_sides_or_none():
    """Of 20 rows with half the sd: 95 % intervals cover 14 or more, but in 3 of 10,000 runs.

    Five are refined, whose own draws then bound log p(x), and six annealed. The encoder's weights
    say nothing from above.
    """
    vae, x = linear(10, 0.0, 0.5, 20)
    entries = vae.event_shape[0]
    weight = vae.decoder.network.weight.detach()
    covariance = weight @ weight.T + torch.eye(entries, dtype=torch.float64)
    exact = dist.MultivariateNormal(torch.zeros(entries, dtype=torch.float64), covariance)
    exact = exact.log_prob(x).numpy()
    found = verdicts(vae, x, refined_rows=5, annealed_rows=6, progress=False)
    low, high = found.log_evidence_low.values, found.log_evidence_high.values
    bounded = np.isfinite(high)
    assert (found.verdict.values[~bounded] == "not tried").all()
    assert bounded[found.verdict.values == "refined"].all()
    assert bounded.sum() == 11
    assert ((low <= exact) & (exact <= high)).sum() >= 14
    assert (high - low)[bounded].max() < 5


def bimodal(size: int) -> tuple[VAE, torch.Tensor]:
    vae = VAE(StandardNormal(1), Square(), Positive()).double()
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(8 * size, 1, generator=generator, dtype=torch.float64)
    x = z**2 + 0.3 * torch.randn(8 * size, 4, generator=generator, dtype=torch.float64)
    return vae, x[x.mean(1) > 0.8][:size]


def test_simulated_rows_cast_doubt_on_rows_that_nobody_annealed(monkeypatch):
    """Half of the truths are in the mode that q misses: of some 60 rows about 30, never below 10.

    Annealing is made to see nothing, so that they alone speak. An exact encoder has none.
    """

    def nothing(vae, data, *given, **options):
        zero = np.zeros(len(data))
        names = ("missed_mass", "annealed_log_evidence", "annealed_standard_error")
        return dict.fromkeys(names, zero)

    monkeypatch.setattr("ppl_vae.workflow.verdict.doubt.missed_mass", nothing)
    vae, x = bimodal(24)
    options = {"tolerance": 0.2, "refined_rows": 0, "progress": False}
    found = verdicts(vae, x, annealed_rows=1, **options)
    assert found.hidden_rows > 10
    believed = found.verdict.isin(["as it is", "reweighted"])
    asked = found.annealed_log_evidence.notnull()
    assert believed[asked].all()
    assert asked.sum() == 11
    assert not believed[~asked].any()
    doubted = np.array(["have their truth where" in why for why in found.reason.values])
    assert doubted.sum() > 5
    assert np.isinf(found.log_evidence_high[doubted]).all()
    exact, x = linear(5, 0.0, 1.0, 3)
    found = verdicts(exact, x, annealed_rows=1, **options)
    assert (found.hidden_rows, found.simulated_rows) == (0, 200)
    assert (found.verdict == "as it is").all()


def test_the_sandwich_names_rows_with_a_second_mode():
    """The truth of a row is in the missed mode with probability 0.5: 40 rows."""
    vae, _ = bimodal(1)
    bounds = sandwich(vae, num_rows=40, num_temperatures=30, progress=False)
    assert 8 < bounds.elsewhere.sum() < 32
    assert (bounds.gap[bounds.elsewhere.values] > 3).all()
    exact, _ = linear(5, 0.0, 0.7, 1)
    assert not sandwich(exact, num_rows=40, num_temperatures=30, progress=False).elsewhere.any()


def test_weights_that_single_precision_does_not_resolve_are_not_equal():
    log_weight = torch.full((500, 1), -2.0e7)
    z = torch.randn(500, 1, 2)
    found = {
        name: value.numpy() for name, value in judge(log_weight, z, tolerance=0.1, most=500).items()
    }
    assert np.isinf(found["pareto_k"]).all()
    assert verdict_of(found).tolist() == ["not"]


def test_nothing_of_a_row_that_is_no_number_reaches_others():
    z, log_weight = torch.randn(500, 3, 2), 0.1 * torch.randn(500, 3)
    log_weight[7, 1] = torch.nan
    found = judge(log_weight, z, tolerance=0.2, most=500)
    alone = judge(log_weight[:, ::2], z[:, ::2], tolerance=0.2, most=500)
    for name, values in alone.items():
        torch.testing.assert_close(found[name][::2], values)
    assert found["weights_usable"].tolist()[1] == -1


@pytest.mark.parametrize(
    ("shift", "stretch", "expected"), [(0.0, 1.0, 2), (0.25, 1.0, 1), (0.0, 0.4, 0)]
)
def test_rows_judged_one_by_one_get_the_verdict_of_all_together(shift, stretch, expected):
    """By the same draws, where none are added, and nothing is refined or annealed."""
    vae, x = linear(2, shift, stretch, 20)
    draws = {"num_samples": 2000, "progress": False}
    whole = verdicts(vae, x, max_samples=2000, refined_rows=0, annealed_rows=0, seed=5, **draws)
    found = judge_rows(vae, x, seed=stage_seed(5, 0), **draws)
    words = np.array(["not tried", "reweighted", "as it is"])[found.verdict.values]
    assert words.tolist() == whole.verdict.values.tolist()
    assert (found.verdict == expected).mean() > 0.9
    np.testing.assert_array_equal(found.kl, whole.kl)
    for option in ({"num_samples": 20}, {"tolerance": 0.0}):
        with pytest.raises(ValueError, match=f"{next(iter(option))} is"):
            judge_rows(vae, x, **option)
