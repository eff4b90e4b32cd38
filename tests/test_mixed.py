"""Likelihoods of tables: scipy's numbers, columns of several kinds, and what the encoder sees."""

import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
import torch
from torch import nn

from ppl_vae import (
    VAE,
    BetaDecoder,
    ColumnKind,
    Dataset,
    DiscretizedLogisticMixtureDecoder,
    LogNormalDecoder,
    MixedDecoder,
    OrdinalDecoder,
    StudentTDecoder,
    VAEConfig,
    fit,
    impute,
    load_data,
    log_evidence,
)
from ppl_vae.components.decoders import DECODERS
from ppl_vae.components.decoders.mixed import choices_of
from ppl_vae.components.inputs import TableInputs
from ppl_vae.workflow.weights.baseline import independent_log_prob

COLUMNS = (
    "normal",
    "categorical:levels=3",
    "normal",
    "log_normal",
    "ordinal:levels=4",
    "bernoulli",
)


def doubled(decoder):
    """In double precision, with parameters that are not those of the start."""
    generator = torch.Generator().manual_seed(1)
    decoder = decoder.double()
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return decoder


def test_ordinal_is_a_difference_of_scipys_cdfs():
    decoder = doubled(OrdinalDecoder(nn.Identity(), (1,), levels=5, center=1.7, spread=1.1))
    found = decoder.likelihood(torch.tensor([0.7]).double()).log_prob(torch.arange(5.0)[:, None])
    cuts = decoder.cuts[0].detach().numpy()
    assert (np.diff(cuts) > 0).all()
    below = scipy.stats.logistic.cdf(np.concatenate([[-np.inf], cuts, [np.inf]]) - 0.7)
    np.testing.assert_allclose(found[:, 0].detach(), np.log(np.diff(below)), rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-26, 1.0, 1e22])
def test_real_and_positive_numbers_are_scipys_in_any_unit(scale):
    x, raw = torch.tensor([0.2, 1.0, 7.0]).double() * scale, torch.tensor([0.4]).double()
    where = {"center": 2.0 * scale, "spread": 1.5 * scale}
    student = doubled(StudentTDecoder(nn.Identity(), (1,), **where)).likelihood(raw)
    df, loc, width = (t.item() for t in (student.df, student.loc, student.scale))
    expected = scipy.stats.t.logpdf(x.numpy(), df, loc, width)
    np.testing.assert_allclose(student.log_prob(x).detach(), expected, rtol=1e-5)
    positive = doubled(LogNormalDecoder(nn.Identity(), (1,), **where)).likelihood(raw)
    expected = scipy.stats.lognorm.logpdf(
        x.numpy(), positive.scale.item(), scale=math.exp(positive.loc.item())
    )
    np.testing.assert_allclose(positive.log_prob(x).detach(), expected, rtol=1e-5)


def test_proportions_are_scipys():
    beta = doubled(BetaDecoder(nn.Identity(), (1,), center=0.3, spread=0.2))
    p = beta.likelihood(torch.tensor([0.4]).double())
    x = torch.tensor([0.01, 0.3, 0.99]).double()
    a, b = p.concentration1.item(), p.concentration0.item()
    expected = scipy.stats.beta.logpdf(x.numpy(), a, b)
    np.testing.assert_allclose(p.log_prob(x).detach(), expected, rtol=1e-6)
    assert p.log_prob(torch.tensor([0.0, 1.0]).double()).isfinite().all()


def test_mixtures_of_logistics_are_scipys():
    given = {"levels": 17, "components": 3, "center": 0.3, "spread": 0.2}
    decoder = DiscretizedLogisticMixtureDecoder(nn.Identity(), (1,), **given).double()
    raw = torch.randn(1, 9, generator=torch.Generator().manual_seed(0)).double()
    p = decoder.likelihood(raw)
    edges = np.concatenate([[-np.inf], np.arange(0.5, 16), [np.inf]])
    cdf = scipy.stats.logistic.cdf(edges[:, None], p.loc.numpy(), p.scale.numpy())
    expected = np.log(np.diff(cdf, axis=0) @ p.logits.softmax(-1).numpy().T)[:, 0]
    levels = torch.arange(17.0).double()[:, None] / 16
    np.testing.assert_allclose(p.log_prob(levels)[:, 0], expected, rtol=1e-6)
    mean = (np.exp(expected) * levels[:, 0].numpy()).sum()
    assert p.mean.item() == pytest.approx(mean, rel=1e-6)
    assert p.support.check(p.sample((50,))).all()


@pytest.mark.parametrize("scale", [1e-26, 1.0, 1e22])
def test_a_network_of_zeros_is_about_right(scale):
    """Of 20,000 draws the mean and the sd are within 10 % of those asked for."""
    torch.manual_seed(0)
    where = {"center": 3.0 * scale, "spread": 1.0 * scale}
    drawn = LogNormalDecoder(nn.Identity(), (1,), **where).likelihood(torch.zeros(1))
    drawn = drawn.sample((20_000,)).double() / scale
    assert drawn.mean().item() == pytest.approx(3.0, rel=0.1)
    assert drawn.std().item() == pytest.approx(1.0, rel=0.1)
    student = StudentTDecoder(nn.Identity(), (1,), **where).likelihood(torch.zeros(1))
    assert student.mean.item() == pytest.approx(3.0 * scale)
    beta = BetaDecoder(nn.Identity(), (1,), center=0.3, spread=0.1).likelihood(torch.zeros(1))
    assert beta.mean.item() == pytest.approx(0.3, rel=1e-4)
    assert beta.stddev.item() == pytest.approx(0.1, rel=1e-3)


def test_columns_are_those_of_each_likelihood_by_itself():
    decoder = MixedDecoder(nn.Identity(), (6,), COLUMNS, center=1.0, spread=2.0)
    assert decoder.raw_shape == (1 + 3 + 1 + 1 + 1 + 1,)
    raw = torch.randn(7, 8, generator=torch.Generator().manual_seed(0))
    x = torch.tensor([0.5, 2.0, -1.0, 3.0, 1.0, 1.0]).expand(7, 6)
    found = decoder.likelihood(raw).log_prob(x)
    # The numbers of groups, in order of their first columns: two normals, three categories, ...
    own = {0: [0], 1: [2, 3, 4], 2: [1], 3: [5], 4: [6], 5: [7]}
    for i, choice in enumerate(COLUMNS):
        alone = DECODERS.build(
            choice, network=nn.Identity(), event_shape=(1,), center=1.0, spread=2.0
        )
        numbers = raw[:, own[i]].reshape(7, *alone.raw_shape)
        torch.testing.assert_close(found[:, i], alone.likelihood(numbers).log_prob(x[:, [i]])[:, 0])


def test_a_missing_cell_changes_its_own_term_and_no_gradient_is_lost():
    decoder = MixedDecoder(nn.Linear(2, 8), (6,), COLUMNS)
    z, x = torch.randn(5, 2), torch.tensor([0.5, 2.0, -1.0, 3.0, 1.0, 1.0]).expand(5, 6)
    whole = decoder(z).base_dist.log_prob(x)
    for column in range(6):
        observed = torch.ones(6, dtype=torch.bool)
        observed[column] = False
        found = decoder(z, None, observed).log_prob(x.masked_fill(~observed, 0.0))
        torch.testing.assert_close(found, whole[:, observed].sum(-1))
        decoder.zero_grad()
        found.sum().backward()
        assert all(p.grad.isfinite().all() for p in decoder.parameters())


def test_choices_are_read_as_people_and_files_write_them():
    text = "(normal,binomial:levels=5,high=4.0,beta)"
    expected = ["normal", "binomial:levels=5,high=4.0", "beta"]
    assert [str(choice) for choice in choices_of(text)] == expected
    assert [str(choice) for choice in choices_of(expected)] == expected
    config = VAEConfig(event_shape=(3,), latent_dim=2, likelihood=f"mixed:columns={text}")
    again = VAEConfig(event_shape=(3,), latent_dim=2, likelihood=str(config.choice("likelihood")))
    assert VAE.from_config(config).decoder.choices == VAE.from_config(again).decoder.choices


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ("(normal,normal)", "columns has 2 likelihoods but a row has shape"),
        ("()", "pass one likelihood for each column"),
        ("(normal,normal,gamma)", "likelihood is 'gamma'; accepted are"),
        ("(normal,normal,self_masking)", "column 2 .* not of single cells"),
        ("(normal,normal,ordinal)", "needs levels"),
    ],
)
def test_columns_that_do_not_fit_are_refused(columns, message):
    with pytest.raises(ValueError, match=message):
        MixedDecoder(nn.Identity(), (3,), columns)


def test_an_encoder_sees_features_of_each_kind():
    columns = [("normal", {}), ("categorical", {"levels": 3}), ("ordinal", {"levels": 3})]
    columns += [("log_normal", {}), ("poisson", {})]
    center, spread = torch.tensor([1.0, 1.0, 1.0, 2.0, 3.0]), torch.full((5,), 2.0)
    inputs = TableInputs(columns, center=center, spread=spread, missing=True)
    x = torch.tensor([[3.0, 1.0, 1.0, 2.0, 3.0], [torch.nan] * 5])
    seen, unseen = inputs(x)
    variance = math.log1p(1.0)
    log = (math.log(2.0) - (math.log(2.0) - variance / 2)) / math.sqrt(variance)
    expected = torch.tensor([1.0, 0, 1, 0, 1, 0, log, 0.0, *[1.0] * 5])
    torch.testing.assert_close(seen, expected)
    assert inputs.width == len(expected)
    assert not unseen.any()


def table(size=200):
    """A real number, a category and a positive number that follow each other, and a bit."""
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=size)
    category = (hidden > -0.4).astype(float) + (hidden > 0.4)
    columns = [3 + hidden, category, np.exp(hidden + 0.1 * rng.normal(size=size))]
    x = np.stack([*columns, rng.integers(0, 2, size)], 1).astype(np.float32)
    x[rng.random(x.shape) < 0.1] = np.nan
    x[np.isnan(x).all(1)] = 1.0
    kinds = (
        ColumnKind("size", "real"),
        ColumnKind("kind", "categorical", ("a", "b", "c")),
        ColumnKind("mass", "positive"),
        ColumnKind("sex", "binary", ("f", "m")),
    )
    names = tuple(kind.name for kind in kinds)
    return Dataset("t", torch.from_numpy(x), None, names, "a test", columns=kinds)


def test_a_table_has_the_likelihoods_of_its_columns(tmp_path):
    data = table()
    config = VAEConfig.for_data(data, latent_dim=2)
    assert config.likelihood == "mixed"
    columns = ("normal", "categorical:levels=3", "log_normal", "bernoulli")
    assert config.likelihood_options["columns"] == columns
    assert "log_normal for 'mass'" in config.reason
    assert VAEConfig.for_data(data, likelihood="mixed").likelihood_options["columns"] == columns
    assert VAEConfig.for_data(data, likelihood="normal").likelihood == "normal"
    vae = VAE.from_config(config)
    vae.save(tmp_path / "vae.safetensors")
    loaded = VAE.load(tmp_path / "vae.safetensors")
    z = torch.zeros(1, len(data.x), 2)
    assert torch.equal(loaded.log_joint(z, data.x), vae.log_joint(z, data.x))
    wrong = data.x.clone()
    wrong[0, 1] = 7.0
    with pytest.raises(ValueError, match="categories from 0 to 2 in column 1"):
        vae.check(wrong)


@pytest.mark.parametrize(("kind", "expected"), [("real", "normal"), ("count", "negative_binomial")])
def test_columns_of_one_kind_are_described_as_before(kind, expected):
    x = torch.poisson(torch.full((50, 2), 3.0), generator=torch.Generator().manual_seed(0))
    x = x if kind == "count" else x + 0.5 * torch.rand(x.shape) - 9
    columns = tuple(ColumnKind(name, kind) for name in "ab")
    told = Dataset("t", x, None, ("a", "b"), "a test", columns=columns)
    plain = VAEConfig.for_data(replace(told, columns=None))
    assert VAEConfig.for_data(told).model_copy(update={"table": plain.table}) == plain
    assert VAEConfig.for_data(told).likelihood == expected


def test_a_fit_beats_independent_columns_and_imputes_each_kind():
    data = table(400)
    vae = VAE.from_config(VAEConfig.for_data(data, latent_dim=2, hidden=(32,)))
    fit(vae, data.x[:300], epochs=60, batch_size=50, progress=False, engine="graph")
    test = data.x[300:]
    found = log_evidence(vae, test, num_samples=100, progress=False).log_evidence.values
    alone = independent_log_prob(vae.decoder, data.x[:300], test).numpy()
    assert found.mean() > alone.mean() + 0.3
    imputed = impute(vae, test, num_samples=100, progress=False)
    assert np.isin(imputed.x.values[:, 1], [0.0, 1.0, 2.0]).all()
    assert (imputed.x.values[:, 2] > 0).all()
    shown = vae.typical(torch.zeros(1, 2))[0]
    assert shown.isfinite().all()
    assert shown[1] in (0.0, 1.0, 2.0)


@torch.no_grad()
def log_prob_of_cells(vae, x, column, num_samples=5000):
    """log p(cell | the other cells), nats by row: one set of weights, so that p is at most one."""
    hidden = x.clone()
    hidden[:, column] = torch.nan
    q = vae.posterior(hidden)
    z = q.sample((num_samples,))
    rest = vae.log_likelihood(z, hidden)
    weight = (rest + vae.prior_at().log_prob(z) - q.log_prob(z)).log_softmax(0)
    return (weight + vae.log_likelihood(z, x) - rest).logsumexp(0)


@pytest.mark.slow
def test_cells_of_penguins_are_told_by_the_others(shared_data, capsys):
    """On held-out rows, against the same likelihoods of independent columns."""
    data = load_data(shared_data / "tabular" / "penguins.csv", None)
    kinds = {kind.name: kind for kind in data.columns}
    told = {"bill_length_mm": "positive", "body_mass_g": "positive", "year": "ordinal"}
    columns = tuple(replace(kind, kind=told.get(name, kind.kind)) for name, kind in kinds.items())
    x = data.x.clone()
    x[:, -1] -= 2007  # codes from 0 on
    x = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))]
    x = x[(~x.isnan()).sum(1) > 1]
    train, test = x[69:], x[:69]
    data = replace(data, x=train, columns=columns)
    vae = VAE.from_config(VAEConfig.for_data(data, latent_dim=2))
    fit(vae, train, epochs=300, batch_size=64, progress=False, engine="graph")
    vae.eval()
    gains, reported = {}, []
    for j, kind in enumerate(columns):
        rows = test[~test[:, j].isnan()]
        hidden = rows.clone()
        hidden[:, j] = torch.nan
        found = log_prob_of_cells(vae, rows, j)
        alone = independent_log_prob(vae.decoder, train, rows)
        alone = alone - independent_log_prob(vae.decoder, train, hidden)
        gain = found - alone
        if kind.kind in ("categorical", "ordinal", "binary"):
            assert (found <= 1e-5).all()
        gains[kind.name] = gain.mean().item()
        error = gain.std() / len(gain) ** 0.5
        reported.append(
            f"{kind.name:18}{kind.kind:12}{found.mean():8.3f}{alone.mean():8.3f}"
            f"{gain.mean():8.3f} +- {error:.3f}"
        )
    with capsys.disabled():
        print("", "column, kind, given the others, alone, gain", *reported, sep="\n")
    # Years tell nothing of penguins, so that a model can only lose there.
    assert gains.pop("year") > -0.1
    assert min(gains.values()) > 0.1
