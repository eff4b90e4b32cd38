"""Counts with a library size: means, evidence by quadrature, and what is read from the data."""

import numpy as np
import pytest
import torch
from scipy.stats import norm
from scipy.stats import poisson as poisson_of
from torch import nn

from ppl_vae import VAE, VAEConfig, fit, load_data, log_evidence
from ppl_vae.components.decoders import DECODERS
from ppl_vae.data import load_splits

COUNTS = ("negative_binomial", "poisson", "zero_inflated_negative_binomial")
SIZED = {"library_center": 3.0, "library_spread": 0.5}


def cells(size=300, seed=0):
    """Counts of six genes, of two kinds of cells, whose totals vary by factors."""
    generator = np.random.default_rng(seed)
    kind = generator.integers(0, 2, size)
    share = np.array([[0.5, 0.2, 0.1, 0.1, 0.05, 0.05], [0.05, 0.05, 0.1, 0.1, 0.2, 0.5]])[kind]
    library = np.exp(4 + 0.5 * generator.normal(size=size))
    return generator.poisson(library[:, None] * share).astype(np.float32), kind


def built(name, library, event=(2, 3)):
    decoder = DECODERS.build(
        f"{name}:library={library}", network=nn.Identity(), event_shape=event, center=2.0
    )
    decoder.library_center, decoder.library_spread = SIZED.values()
    width = 3 if library == "latent" else 2
    outputs = torch.Size(decoder.raw_shape).numel()

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(width + 2 * (library == "observed"), outputs)

        def forward(self, z, covariates=None):
            return self.linear(z if covariates is None else torch.cat([z, covariates], -1))

    decoder.network = Network()
    return decoder.double()


@pytest.mark.parametrize("library", ["latent", "observed"])
@pytest.mark.parametrize("name", COUNTS)
def test_means_add_up_to_the_library(name, library):
    """And their shares are the same whatever it is."""
    decoder = built(name, library)
    units = torch.tensor([-1.0, 0.0, 2.0], dtype=torch.float64)
    z = torch.randn(4, 1, 2, dtype=torch.float64).expand(4, 3, 2)
    given = None
    if library == "latent":
        z = torch.cat([z, units.expand(4, 3)[..., None]], -1)
    else:
        given = torch.stack([torch.full((3,), 0.3, dtype=torch.float64), units], -1)  # (row, 2)
    raw = decoder.raw_at(z, given)
    means = decoder.log_mean(raw[..., 0] if decoder.outputs > 1 else raw).exp()
    assert means.shape == (4, 3, 2, 3)
    totals = means.sum((-1, -2))
    torch.testing.assert_close(totals, (3.0 + 0.5 * units).exp().expand(4, 3))
    shares = means / totals[..., None, None]
    torch.testing.assert_close(shares, shares[:, :1].expand_as(shares))
    assert shares[0, 0].std() > 0.01
    assert decoder(z, given).batch_shape == (4, 3)


def test_a_latent_library_is_integrated_out():
    """log p(x) is that of quadrature, within 5 standard errors: a false alarm in 100,000 runs."""
    x = torch.tensor([[3.0, 9.0, 5.0], [8.0, 30.0, 20.0]])
    config = VAEConfig(
        event_shape=(3,),
        latent_dim=2,
        likelihood="poisson:library=latent",
        likelihood_options=SIZED,
        center=(1.0, 3.0, 2.0),
        hidden=(4,),
    )
    vae = VAE.from_config(config).double()
    for layer in vae.decoder.network.modules():
        if isinstance(layer, nn.Linear):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
    found = log_evidence(vae, x.double(), num_samples=20_000, progress=False)
    u = np.linspace(-8, 8, 40_001)
    mean = np.exp(3.0 + 0.5 * u)[:, None] * np.array([1.0, 3.0, 2.0]) / 6
    for row, value, error in zip(x.numpy(), found.log_evidence, found.standard_error, strict=True):
        density = poisson_of(mean).pmf(row).prod(1) * norm.pdf(u)
        assert abs(float(value) - np.log(np.trapezoid(density, u))) < 5 * float(error)
    assert float(found.standard_error.max()) < 0.1


def test_the_library_is_found_in_the_data(tmp_path):
    x, kind = cells()
    totals = np.log(x.sum(1))
    config = VAEConfig.for_data(x, likelihood="negative_binomial:library=latent", latent_dim=3)
    assert config.likelihood_options == {
        "library": "latent",
        "library_center": pytest.approx(totals.mean(), abs=1e-4),
        "library_spread": pytest.approx(totals.std(), abs=1e-4),
    }
    np.savez(tmp_path / "cells.npz", x=x, kind=kind.astype(str))
    data = load_data(tmp_path / "cells.npz", None, context=["library", "kind"])
    assert [coding.name for coding in data.codings] == ["kind", "library"]  # it comes last
    coding = data.codings[-1]
    np.testing.assert_allclose(
        coding.center + coding.spread * data.covariates[:, -1].numpy(), totals, rtol=1e-5
    )
    config = VAEConfig.for_data(data, latent_dim=2)
    assert config.likelihood == "negative_binomial"
    assert config.likelihood_options["library"] == "observed"
    decoder = VAE.from_config(config).decoder
    means = decoder(torch.zeros(len(x), 2), data.covariates).mean.sum(-1)
    torch.testing.assert_close(means.log(), torch.tensor(totals), atol=1e-3, rtol=0)
    plain = VAEConfig.for_data(data, likelihood="poisson:library=none")
    assert plain.likelihood_options == {"library": None}


def test_a_column_called_library_is_what_is_taken(tmp_path):
    x, _ = cells(30)
    depth = np.linspace(100.0, 900.0, 30)
    np.savez(tmp_path / "cells.npz", x=x, library=depth)
    data = load_data(tmp_path / "cells.npz", None, context="library")
    assert data.codings[0].center == pytest.approx(np.log(depth).mean())
    again = load_data(tmp_path / "cells.npz", None, context=data.codings)
    torch.testing.assert_close(again.covariates, data.covariates)
    np.savez(tmp_path / "none.npz", x=x, library=depth - 100)
    with pytest.raises(ValueError, match=r"'library' of .* is 0 in row 0, .* positive numbers"):
        load_data(tmp_path / "none.npz", None, context="library")
    np.savez(tmp_path / "halves.npz", x=x / 2)
    with pytest.raises(ValueError, match=r"total of a row's counts, and .* has \d*\.5 in row"):
        load_data(tmp_path / "halves.npz", None, context="library")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("poisson:library=known", "library is 'known'; accepted are None, 'observed', 'latent'"),
        ("poisson:library=latent,library_spread=0", "library_spread is 0; pass a positive"),
        ("poisson:library=observed", "takes the library size from the last covariate, and"),
        ("mixed:columns=(poisson:library=latent,poisson,poisson)", "is not of single cells"),
    ],
)
def test_what_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        VAE.from_config(VAEConfig(event_shape=(3,), latent_dim=2, likelihood=options))


def test_an_observed_library_has_to_be_among_the_covariates(tmp_path):
    x, kind = cells(30)
    np.savez(tmp_path / "cells.npz", x=x, kind=kind.astype(str))
    data = load_data(tmp_path / "cells.npz", None, context="kind")
    with pytest.raises(ValueError, match=r"among the covariates, which are kind; add context"):
        VAEConfig.for_data(data, likelihood="poisson:library=observed")


def test_a_fit_with_a_library_describes_cells_better(tmp_path):
    """Two kinds and totals that vary: by a library and one other latent, better than by one."""
    x, _ = cells()
    np.savez(tmp_path / "cells.npz", x=x)
    train, test = load_splits(tmp_path / "cells.npz")
    found = {}
    for choice, latents in (("poisson", 1), ("poisson:library=latent", 2)):
        config = VAEConfig.for_data(train, likelihood=choice, latent_dim=latents, hidden=(16,))
        vae = VAE.from_config(config)
        fit(vae, train, epochs=80, learning_rate=5e-3, progress=False)
        found[choice] = log_evidence(vae, test, num_samples=200, progress=False).log_evidence
    assert float((found["poisson:library=latent"] - found["poisson"]).mean()) > 1
    # The library is the last latent, on the scale of its logarithm.
    mean = vae.posterior(test.x).mean[:, -1].detach()
    correlation = np.corrcoef(mean, test.x.sum(1).log())[0, 1]
    assert correlation > 0.95


def test_tables_know_the_library_too(run_command, tmp_path):
    x, kind = cells(60)
    lines = ["a,b,c,d,e,f,batch"]
    lines += [
        ",".join([*map(str, row.astype(int)), f"b{k}"]) for row, k in zip(x, kind, strict=True)
    ]
    (tmp_path / "cells.csv").write_text("\n".join(lines) + "\n")
    run = tmp_path / "run"
    code, printed, error = run_command(
        *("fit", tmp_path / "cells.csv", "--context", "batch", "--context", "library"),
        *("--out", run, "--epochs", 2, "--hidden", 8, "--latent-dim", 2, "--draws", 50),
    )
    assert code == 0, error
    assert "conditional on batch, library\n" in printed
    assert "negative_binomial:library=observed" in printed
    given = ("--context", "batch=b0", "--context", "library=5000", "--num-samples", 200)
    code, _, error = run_command("sample", run, "--out", tmp_path / "draws.npz", *given)
    assert code == 0, error
    drawn = np.load(tmp_path / "draws.npz")["x"].sum(1)
    assert 4000 < drawn.mean() < 6000
    given = ("--likelihood", "poisson:library=observed", "--context", "batch")
    code, _, error = run_command("fit", tmp_path / "cells.csv", *given, "--out", tmp_path / "no")
    assert code == 2
    assert "which are batch; add --context library" in error
