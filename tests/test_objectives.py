"""Objectives by row: the numbers of Pyro's where there are some, and bounds on log p(x)."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from oracle import LinearGaussian
from pyro.infer import SVI, RenyiELBO, Trace_ELBO, TraceMeanField_ELBO

from ppl_vae import (
    IWAE,
    TCVAE,
    VAE,
    Beta,
    DReG,
    Elbo,
    FreeBits,
    FullRankEncoder,
    MeanField,
    RowObjective,
    StickingTheLanding,
    VAEConfig,
    fit,
)
from ppl_vae.inference.objectives import OBJECTIVES


@pytest.fixture
def bits():
    generator = torch.Generator().manual_seed(0)
    chance = torch.rand(200, 1, 1, generator=generator)
    return (torch.rand(200, 4, 4, generator=generator) < chance).float()


def small(**choices):
    return VAE.from_config(
        VAEConfig(**{"event_shape": (4, 4), "latent_dim": 2, "hidden": (8,), **choices})
    )


def gradients(objective, vae, x):
    pyro.clear_param_store()
    torch.manual_seed(1)
    vae.zero_grad()
    loss = objective.differentiable_loss(vae.model, vae.guide, x)
    loss.backward()
    return loss.detach(), [p.grad.clone() for p in vae.parameters()]


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize(
    ("ours", "theirs"), [(Elbo(), Trace_ELBO()), (MeanField(), TraceMeanField_ELBO())]
)
def test_the_numbers_of_pyro(bits, ours, theirs, missing):
    vae = small(missing=missing)
    if missing:
        bits[0, 0, 0] = bits[3, 1, 2] = torch.nan
    (loss, found), (other, expected) = (gradients(o, vae, bits) for o in (ours, theirs))
    torch.testing.assert_close(loss, other)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)
    assert ours.loss(vae.model, vae.guide, bits) == pytest.approx(loss.item(), rel=0.05)


def test_in_plain_svi(bits):
    pyro.clear_param_store()
    vae = small()
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-2}), Beta(0.5))
    losses = [svi.step(bits) for _ in range(40)]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_recorded_as_it_is_eagerly(name, bits):
    """To the last digits, a warm-up included."""
    choice = "beta:beta=2.0,warmup=0.5,cycles=2" if name == "beta" else name
    ends = []
    for engine in ("eager", "graph"):
        vae = small()
        result = fit(
            vae, bits, objective=choice, epochs=4, batch_size=20, engine=engine, progress=False
        )
        ends.append(result.history.train_loss.values)
    np.testing.assert_allclose(ends[1], ends[0], rtol=1e-6)


@pytest.mark.parametrize("num_particles", [1, 10, 1000])
def test_bounds_rise_to_log_p(oracle, num_particles):
    """Of the linear-Gaussian VAE with an encoder that is too wide; the error is below 5 sd."""
    x = oracle.rows(20)
    vae = oracle.vae()
    exact = oracle.log_evidence(x)
    with torch.no_grad():
        vae.encoder.scale_head.bias += 2 * math.log(1.5)
        objective = IWAE(num_particles)
        torch.manual_seed(0)
        bounds = torch.stack(
            [objective.bound(objective.terms(vae.model, vae.guide, x)[0]) for _ in range(50)]
        )
    mean, error = bounds.mean(0), bounds.std(0) / 50**0.5
    assert (mean < exact + 5 * error + 1e-4).all()
    if num_particles == 1000:
        assert (exact - mean).abs().max() < 0.05


def test_subsampling_leaves_each_rows_logarithm_alone(oracle):
    """The mean over batches is the objective of all rows; Pyro's RenyiELBO is hundreds off."""
    x = oracle.rows(40)
    vae = oracle.vae()
    objective = IWAE(5)

    def programs(batch):
        def model():
            with pyro.plate("row", 40, subsample=batch) as rows:
                z = pyro.sample("z", vae.prior())
                pyro.sample("x", vae.decoder(z), obs=x[rows])

        def guide():
            with pyro.plate("row", 40, subsample=batch) as rows:
                pyro.sample("z", vae.encoder(x[rows]))

        return model, guide

    torch.manual_seed(0)
    everyone = torch.arange(40)
    whole = np.mean([objective.loss(*programs(everyone)) for _ in range(100)])
    parts = [objective.loss(*programs(batch)) for _ in range(100) for batch in everyone.split(10)]
    # Each has a standard error below 0.5 nats here.
    assert np.mean(parts) == pytest.approx(whole, abs=3)


def test_warm_up():
    linear = Beta(2.0, warmup=0.5)
    found = []
    for t in (0.0, 0.25, 0.5, 1.0):
        linear.advance(t)
        found.append(linear.weight.item())
    assert found == [0.0, 1.0, 2.0, 2.0]
    cycles = Beta(1.0, warmup=0.5, cycles=2)
    found = []
    for t in (0.0, 0.125, 0.25, 0.5, 0.75, 1.0):
        cycles.advance(t)
        found.append(cycles.weight.item())
    assert found == [0.0, 0.5, 1.0, 0.0, 1.0, 1.0]


@pytest.mark.parametrize("seed", [0, 1])
def test_validation_goes_by_a_bound_on_log_p(bits, seed):
    """So that the best epoch is no early one of a warm-up, when the KL divergence hardly counts."""
    result = fit(
        small(),
        bits,
        objective="beta:warmup=0.8",
        validation=0.3,
        epochs=20,
        batch_size=20,
        learning_rate=1e-2,
        seed=seed,
        progress=False,
    )
    assert result.history.attrs["best_epoch"] > 10
    assert result.history.validation_loss[0] > result.history.validation_loss[-1]


def test_validation_of_a_users_own_objective_goes_by_the_elbo(bits):
    class Light(Trace_ELBO):
        def differentiable_loss(self, *args, **kwargs):
            return 1e-3 * super().differentiable_loss(*args, **kwargs)

    result = fit(small(), bits, objective=Light(), validation=0.3, epochs=1, progress=False)
    assert result.history.validation_loss[0] > 5


def test_a_new_objective_is_one_class(bits):
    @OBJECTIVES.register("tempered")
    class Tempered(RowObjective):
        def by_row(self, terms, num_rows):
            return (0.5 * terms.log_likelihood - terms.log_ratio).mean(0)

    try:
        result = fit(small(), bits, objective="tempered", epochs=2, progress=False)
    finally:
        del OBJECTIVES._classes["tempered"]
    assert result.finite


@pytest.mark.parametrize("objective", [Trace_ELBO, Elbo, RenyiELBO(num_particles=2), 3])
def test_what_is_no_objective(bits, objective):
    with pytest.raises(TypeError, match="objective is"):
        fit(small(), bits, objective=objective, epochs=1, progress=False)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ("foo", "objective is 'foo'; accepted are 'elbo'"),
        ("beta:bet=1", "has no option 'bet'; accepted are beta=1.0"),
        ("beta:beta=-1", "beta is -1"),
        ("beta:warmup=2", "warmup is 2"),
        ("iwae:num_particles=0", "num_particles is 0"),
    ],
)
def test_bad_choices(bits, choice, message):
    with pytest.raises(ValueError, match=message):
        fit(small(), bits, objective=choice, epochs=1, progress=False)


def test_sites_outside_of_the_plate():
    def model(x):
        slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
        with pyro.plate("row", len(x)):
            pyro.sample("x", dist.Normal(slope, 1.0), obs=x)

    def guide(x):
        pyro.sample("slope", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 1.0))

    with pytest.raises(ValueError, match="site 'slope' is in these plates: none"):
        Elbo().loss(model, guide, torch.ones(3))


def test_a_checkpoint_of_another_objective_is_refused(bits, tmp_path):
    options = {"epochs": 1, "checkpoint_dir": tmp_path, "progress": False}
    fit(small(), bits, objective="beta:beta=1.0", **options)
    for other in ("beta:beta=20.0", "beta:warmup=0.5", "elbo", Trace_ELBO(num_particles=2)):
        with pytest.raises(ValueError, match="is of another fit: objective"):
            fit(small(), bits, objective=other, resume=True, **options)


def test_full_rank_posteriors(bits):
    vae = small(guide="full_rank")
    assert isinstance(vae.encoder, FullRankEncoder)
    loss, _ = gradients(Elbo(), vae, bits)
    other, _ = gradients(Trace_ELBO(), vae, bits)
    torch.testing.assert_close(loss, other)
    assert math.isfinite(loss.item())


@pytest.mark.parametrize(
    ("ours", "same"),
    [
        (StickingTheLanding(), Elbo()),
        (DReG(5), IWAE(5)),
        (TCVAE(1.0), Elbo()),
        (FreeBits(0), MeanField()),
    ],
    ids=["stl", "dreg", "tcvae", "free_bits"],
)
def test_the_value_of_its_bound(bits, ours, same):
    vae = small()
    torch.testing.assert_close(gradients(ours, vae, bits)[0], gradients(same, vae, bits)[0])


def gradients_of_encoder(objective, vae, x, draws):
    """Of the encoder's location head, shape (draw, entry)."""
    found = []
    for _ in range(draws):
        vae.zero_grad()
        objective.differentiable_loss(vae.model, vae.guide, x).backward()
        found.append(vae.encoder.loc_head.weight.grad.flatten().clone())
    return torch.stack(found)


@pytest.mark.parametrize("ours", [StickingTheLanding(), DReG(4)], ids=["stl", "dreg"])
def test_without_the_score_an_exact_guide_has_nothing_to_learn(oracle, ours):
    vae, x = oracle.vae(), oracle.rows(10)
    assert gradients_of_encoder(ours, vae, x, 3).abs().max() < 1e-5
    assert gradients_of_encoder(Elbo(), vae, x, 3).abs().max() > 0.1


@pytest.mark.parametrize(
    ("ours", "same"), [(StickingTheLanding(), Elbo()), (DReG(4), IWAE(4))], ids=["stl", "dreg"]
)
def test_without_the_score_the_mean_gradient_is_the_same(oracle, ours, same):
    """Each of 24 entries within 4.5 standard errors: by chance in one of 6,000 seeds not."""
    vae, x = oracle.vae(), oracle.rows(4)
    with torch.no_grad():
        vae.encoder.scale_head.bias += 0.8
        vae.encoder.loc_head.bias += 0.3
    torch.manual_seed(0)
    a, b = (gradients_of_encoder(objective, vae, x, 700) for objective in (ours, same))
    error = ((a.var(0) + b.var(0)) / len(a)).sqrt()
    assert ((a.mean(0) - b.mean(0)).abs() < 4.5 * error).all()
    # Not so wide that any gradient would pass.
    assert ((a.mean(0) - 0.5 * b.mean(0)).abs() > 4.5 * error).any()


def test_signal_to_noise_grows_with_particles_where_that_of_iwae_falls(oracle):
    """Rainforth et al. (2018) and Tucker et al. (2019), figure 1."""
    vae, x = oracle.vae(), oracle.rows(4)
    with torch.no_grad():
        vae.encoder.scale_head.bias += 0.8
        vae.encoder.loc_head.bias += 0.3

    def signal_to_noise(objective):
        torch.manual_seed(0)
        found = gradients_of_encoder(objective, vae, x, 400)
        return (found.mean(0).abs() / found.std(0)).mean().item()

    few, many = ([signal_to_noise(kind(k)) for kind in (DReG, IWAE)] for k in (2, 64))
    assert many[0] > 1.5 * few[0]
    assert many[1] < 0.8 * few[1]


def test_free_bits_by_latent_and_batch(bits):
    """Each latent costs the mean of its KL divergence over the batch, or the free nats."""
    vae = small()
    with torch.no_grad():
        vae.encoder.loc_head.bias.copy_(torch.tensor([0.0, 3.0]))
    objective = FreeBits(0.5)
    pyro.clear_param_store()
    torch.manual_seed(0)
    terms, *_ = objective.terms(vae.model, vae.guide, bits)
    q = vae.posterior(bits).base_dist
    kl = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).mean(0)
    assert kl[0] < 0.5 < kl[1]
    expected = terms.log_likelihood[0] - 0.5 - kl[1]
    torch.testing.assert_close(objective.by_row(terms, 200), expected)


def test_total_correlation_by_its_definition(bits):
    vae, x, beta = small(), bits[:7], 4.0
    objective = TCVAE(beta)
    pyro.clear_param_store()
    terms, num_rows, _ = objective.terms(vae.model, vae.guide, x)
    z, q = terms.z["z"], vae.posterior(x).base_dist
    expected = []
    for i in range(7):
        densities = torch.stack(
            [
                torch.distributions.Normal(q.loc[j], q.scale[j]).log_prob(z[i]).exp()
                for j in range(7)
            ]
        )  # (row, latent)
        joint = densities.prod(1).sum() / (7 * num_rows)
        apart = (densities.sum(0) / (7 * num_rows)).prod()
        expected.append(terms.log_weight[0, i] - (beta - 1) * (joint / apart).log())
    torch.testing.assert_close(objective.by_row(terms, num_rows), torch.stack(expected))


def test_total_correlation_needs_independent_latents(bits):
    with pytest.raises(ValueError, match="latents of the guide's site 'z' are not independent"):
        fit(small(guide="full_rank"), bits, objective="tcvae", epochs=1, progress=False)


@pytest.mark.parametrize("name", ["free_bits", "stl", "dreg"])
def test_of_guides_without_independent_latents(name, bits):
    result = fit(small(guide="full_rank"), bits, objective=name, epochs=2, progress=False)
    assert result.finite


def test_antithetic_draws_mirror_each_other():
    x = torch.ones(5, 4, 4)
    for guide in ("normal", "full_rank", "low_rank"):
        vae = small(latent_dim=3, guide=guide)
        pyro.clear_param_store()
        terms, _, _ = Elbo(4, antithetic=True).terms(vae.model, vae.guide, x)
        (z,) = terms.z.values()
        (q,) = terms.q.values()
        torch.testing.assert_close(z[:2] + z[2:], 2 * q.mean[:2])
        assert not z[0].equal(z[1])
        assert z.requires_grad


def test_antithetic_draws_have_less_noise_and_no_bias():
    """Half of the variance in the oracle's gradient; 200 repeats, the mean within 4 errors.

    Of some 200 entries of a gradient one is off by more than 4 standard errors in 1 of 80 seeds.
    """
    oracle = LinearGaussian.random(5, 20)
    vae, x = oracle.vae(), oracle.rows(64)
    with torch.no_grad():
        vae.decoder.network.weight += 0.1
    found = {}
    for antithetic in (False, True):
        pyro.clear_param_store()
        torch.manual_seed(0)
        objective, all_ = Elbo(2, antithetic=antithetic), []
        for _ in range(200):
            vae.zero_grad()
            objective.differentiable_loss(vae.model, vae.guide, x).backward()
            all_.append(torch.cat([p.grad.flatten() for p in vae.decoder.parameters()]))
        found[antithetic] = torch.stack(all_)
    assert found[True].var(0).sum() < 0.6 * found[False].var(0).sum()
    error = (found[True].var(0) / 200 + found[False].var(0) / 200).sqrt()
    assert (abs(found[True].mean(0) - found[False].mean(0)) <= 4 * error).all()


@pytest.mark.parametrize(
    ("particles", "guide", "message"),
    [(3, "normal", "num_particles is 3; antithetic"), (2, "flow", "not known to be symmetric")],
)
def test_what_has_no_mirror_image_is_refused(particles, guide, message):
    vae = small(guide=guide)
    with pytest.raises(ValueError, match=message):
        Elbo(particles, antithetic=True).loss(vae.model, vae.guide, torch.ones(5, 4, 4))
