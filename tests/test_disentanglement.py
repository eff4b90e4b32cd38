"""Disentanglement: the scores of codes whose right values are known."""

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from families import GUIDE, case

from ppl_vae import VAE, VAEConfig, disentanglement, load_data
from ppl_vae.amortized import AmortizedModel
from ppl_vae.rows import Rows
from ppl_vae.workflow.checks.disentanglement import (
    concentration,
    forest_importance,
    mutual_information,
    predictability,
    votes,
)
from ppl_vae.workflow.checks.factors import Factor, factors_of

SCORES = (
    *("mig", "dci_disentanglement", "dci_completeness", "dci_informativeness"),
    *("sap", "factor_vae"),
)


class Given(AmortizedModel):
    """A model whose rows are the means of their posteriors."""

    def __init__(self, size, sd=0.1):
        super().__init__()
        self.event_shape, self.sd = (size,), sd
        self.latent_names = tuple(f"z[{i}]" for i in range(size))

    def posterior(self, x, covariates=None):
        return dist.Normal(x, self.sd).to_event(1)

    def prior_at(self, covariates=None):
        return dist.Normal(torch.zeros(self.latent_dim), 1.0).to_event(1)

    def likelihood(self, z, covariates=None, observed=None):
        return dist.Normal(z, 0.1).to_event(1)

    def check(self, x, covariates=None, *, name="x"):
        pass

    def model(self, x):
        """Not asked for."""

    guide = model


@pytest.fixture(scope="module")
def factors():
    """Three kinds and three numbers of six values, all 648 combinations."""
    grid = np.meshgrid(range(3), *[range(6)] * 3, indexing="ij")
    kind, *numbers = (values.reshape(-1) for values in grid)
    named = dict(zip("abc", numbers, strict=True))
    return {"kind": np.array(["round", "square", "star"])[kind], **named}


def coded(factors):
    """The factors' levels, centered and of unit variance: ``(row, factor)``."""
    levels = [np.unique(values, return_inverse=True)[1] for values in factors.values()]
    z = np.stack(levels, 1).astype(float)
    return (z - z.mean(0)) / z.std(0)


def scores_of(z, factors, **options):
    return disentanglement(
        Given(z.shape[1], options.pop("sd", 0.1)), torch.tensor(z).float(), factors, **options
    )


def test_a_latent_for_each_factor_is_perfect(factors):
    """SAP's gap of three kinds is their accuracy, one, minus that of chance on the held out."""
    found = scores_of(coded(factors)[:, ::-1] * [3, -1, 2, 1], factors)
    for name in set(SCORES) - {"sap"}:
        assert found[name].item() == pytest.approx(1.0, abs=1e-9), name
    np.testing.assert_allclose(found.sap_by_factor[1:], 1.0, atol=1e-9)
    assert found.sap_by_factor[0] == pytest.approx(2 / 3, abs=0.08)
    assert (found.importance.argmax("latent") == [3, 2, 1, 0]).all()
    np.testing.assert_allclose(found.entropy, np.log([3, 6, 6, 6]))


def test_noise_scores_nothing(factors):
    """FactorVAE is then chance: of 1000 votes a factor, 0.04 is 5.8 standard errors.

    The plug-in estimate of information is too large by about bins * levels / (2 * rows).
    """
    noise = np.random.default_rng(1).standard_normal((648, 5))
    found = scores_of(noise, factors)
    assert max(found[name].item() for name in SCORES[:5]) < 0.1
    assert found.factor_vae.item() == pytest.approx(1 / 4, abs=0.04)
    assert found.mutual_information.mean().item() < 2 * 20 * 6 / (2 * 648)


def test_rotation_costs(factors):
    """Each latent is the same mix of all factors, but for signs: what is known stays known."""
    mixed = np.array([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]) / 2
    found = scores_of(coded(factors) @ mixed, factors)
    for name in set(SCORES) - {"dci_informativeness"}:
        assert found[name].item() < 0.5, name
    assert found.dci_informativeness.item() > 0.8


def test_two_latents_for_a_factor_leave_no_gap_but_are_disentangled(factors):
    z = coded(factors)
    found = scores_of(np.c_[z, z + 1e-9], factors)
    assert found.mig.item() == pytest.approx(0.0, abs=1e-6)
    assert found.sap.item() == pytest.approx(0.0, abs=1e-6)
    assert found.dci_disentanglement.item() == pytest.approx(1.0, abs=1e-9)
    assert found.dci_completeness.item() < 0.8
    assert found.factor_vae.item() == 1.0


def test_information_of_a_coarser_latent_is_the_entropy_it_keeps():
    levels = np.repeat(np.arange(8), 10)
    found = mutual_information(np.stack([levels // 2, levels // 4, 0 * levels], 1), levels)
    np.testing.assert_allclose(found, np.log([4, 2, 1]), atol=1e-12)


def test_concentration_is_the_paper_s_of_hand_made_importance():
    """Eastwood & Williams: one minus the entropy in units of the logarithm of all there are."""
    importance = np.array([[0.5, 0.5, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.7, 0.1, 0.1, 0.1]])
    entropy = -(0.7 * np.log(0.7) + 0.3 * np.log(0.1)) / np.log(4)
    np.testing.assert_allclose(concentration(importance), [0.5, 1.0, 1 - entropy])


def test_predictability_is_r_squared_and_the_accuracy_of_thresholds():
    random = np.random.default_rng(3)
    number = random.standard_normal(3000)
    z = np.stack([number + random.standard_normal(3000), 2 - 5 * number, 0 * number], 1)
    half = np.arange(1500), np.arange(1500, 3000)
    found = predictability(z, Factor(np.zeros(3000, int), number), *half)
    np.testing.assert_allclose(found, [np.corrcoef(z[:, 0], number)[0, 1] ** 2, 1.0, 0.0])
    # A kind in the middle needs two thresholds; a tenth of the rows is of a rare one.
    kind = random.choice(3, 3000, p=[0.45, 0.45, 0.1])
    middle = np.array([0.0, -1.0, 1.0])[kind] + 0.01 * random.standard_normal(3000)
    merged = np.where(kind == 2, 1, kind).astype(float)
    found = predictability(np.stack([middle, merged, 0 * merged], 1), Factor(kind, None), *half)
    np.testing.assert_allclose(found, [1.0, 2 / 3, 1 / 3])
    # A threshold half way between two normals is right of 84 % of each kind, the rare one too.
    rare = (random.random(3000) < 0.1).astype(int)
    between = rare[:, None] + 0.5 * random.standard_normal((3000, 1))
    found = predictability(between, Factor(rare, None), *half)
    assert found[0] == pytest.approx(0.841, abs=0.06)


def test_forests_share_out_what_explains(factors):
    """Of a sum of independent parts each latent explains its own share of the variance."""
    z = coded(factors)
    total = 2 * z[:, 1] + z[:, 2]
    rows = np.random.default_rng(4).permutation(648)
    factor = Factor(np.zeros(648, int), total)
    importance, informative = forest_importance(z, factor, rows[:432], rows[432:])
    np.testing.assert_allclose(importance, [0, 0.8, 0.2, 0], atol=0.04)
    assert informative > 0.97


def test_votes_leave_out_collapsed_latents(factors):
    z = coded(factors)
    z = np.c_[z, 1e-3 * z]
    levels = factors_of(factors, 648)["a"].levels
    found = votes(z, levels, z.var(0) > 0.01, np.random.default_rng(5))
    assert found.tolist() == [0, 1, 0, 0, 0, 0, 0, 0]
    assert scores_of(1e-3 * z, factors).factor_vae.item() == 1 / 4


def test_draws_do_not_count_means_that_noise_hides(factors):
    """A latent whose means say everything, but far within its own posterior's width."""
    z = 1e-3 * coded(factors)
    assert scores_of(z, factors, sd=1.0).mig.item() == pytest.approx(1.0)
    assert scores_of(z, factors, sd=1.0, latents="draw").mig.item() < 0.1


def test_numbers_of_many_values_are_cut_into_levels(factors):
    number = np.random.default_rng(6).standard_normal(648)
    found = scores_of(np.c_[number, coded(factors)[:, 1]], {"n": number, "a": factors["a"]})
    assert found.entropy[0].item() == pytest.approx(np.log(20), abs=0.01)
    assert found.factor_vae.item() == 1.0
    assert found.mig_by_factor[0].item() > 0.5


def test_factors_may_be_an_array_and_numbers_names(factors):
    z = coded(factors)
    found = scores_of(z[:, :2], np.round(z[:, :2], 3), categories=["factor 0"])
    assert found.factor.values.tolist() == ["factor 0", "factor 1"]
    by_name = scores_of(z[:, :2], {name: factors[name] for name in ("kind", "a")})
    for name in SCORES:
        assert found[name].item() == pytest.approx(by_name[name].item())


@pytest.mark.parametrize("latents", ["mean", "draw"])
@pytest.mark.parametrize("guide", GUIDE)
def test_any_guide_is_scored(guide, latents):
    vae, x, _ = case(guide=GUIDE[guide])
    levels = {"a": np.arange(len(x)) % 2, "b": np.arange(len(x)) // 2 % 2}
    found = disentanglement(vae, x, levels, latents=latents)
    assert all(0 <= found[name].item() <= 1 for name in SCORES)


def test_a_vae_is_asked_the_same_way_by_chunks_and_from_rows():
    sprites = load_data("sprites", "test", test_fraction=0.05)
    vae = VAE.from_config(VAEConfig.for_data(sprites.x, latent_dim=3, hidden=(8,)))
    state = torch.get_rng_state()
    whole = disentanglement(vae, sprites.x, sprites.factors)
    parts = disentanglement(vae, Rows(sprites.x), sprites.factors, chunk_rows=100)
    assert torch.equal(torch.get_rng_state(), state)
    for name in whole.data_vars:
        np.testing.assert_allclose(whole[name], parts[name], atol=0.05, err_msg=name)
    assert whole.attrs["seed"] == 0
    assert whole.mutual_information.attrs["unit"] == "nats"


@pytest.mark.parametrize(
    ("changed", "options", "message"),
    [
        ({"a": None}, {}, "has 1 factors?, and the scores ask which of several"),
        ({"a": np.ones(40)}, {}, r"factors\['a'\] is 1.0 in every row.*leave it out"),
        ({"a": np.ones(39)}, {}, r"factors\['a'\] has shape \(39,\).*40 rows"),
        ({"a": np.r_[np.nan, np.ones(39)]}, {}, r"factors\['a'\] has values that are missing"),
        ({"a": np.arange(40).astype(str)}, {}, r"factors\['a'\] has 40 categories in 40 rows"),
        ({}, {"categories": ["shape"]}, r"categories is \['shape'\]; accepted .*'a', 'b'"),
        ({}, {"latents": "sample"}, "latents is 'sample'; accepted are 'mean' and 'draw'"),
        ({}, {"bins": 1}, "bins is 1; pass at least 2"),
    ],
)
def test_bad_factors_and_options(changed, options, message):
    factors = {"a": np.arange(40) % 2, "b": np.arange(40) % 4, **changed}
    factors = {name: values for name, values in factors.items() if values is not None}
    with pytest.raises(ValueError, match=message):
        scores_of(np.random.default_rng(0).standard_normal((40, 2)), factors, **options)


def test_too_small_models_and_data():
    factors = {"a": np.arange(40) % 2, "b": np.arange(40) % 4}
    with pytest.raises(ValueError, match="vae has 1 latent, and the scores compare latents"):
        scores_of(np.ones((40, 1)), factors)
    with pytest.raises(ValueError, match="x has 9 rows, too few to score"):
        scores_of(np.ones((9, 2)), {k: v[:9] for k, v in factors.items()})
    with pytest.raises(ValueError, match=r"factors has shape \(40,\); pass \(row, factor\)"):
        scores_of(np.ones((40, 2)), np.ones(40))
