"""What every prior x decoder x encoder x scale x heads promises."""

import pytest
import torch
from pyro.infer import Trace_ELBO

from ppl_vae import VAE, VAEConfig
from ppl_vae.components.decoders import DECODERS
from ppl_vae.components.encoders import ENCODERS
from ppl_vae.components.priors import PRIORS
from ppl_vae.components.scales import SCALES

SHAPES = {"mlp": (5,), "conv": (7, 6)}
OPTIONS = [
    *((likelihood, {}) for likelihood in DECODERS),
    ("normal", {"scale": "shared"}),
    ("normal", {"scale": 0.7}),
]


def rows(likelihood: str, shape: tuple[int, ...], size: int, dtype: torch.dtype) -> torch.Tensor:
    uniform = torch.rand(size, *shape, dtype=dtype, generator=torch.Generator().manual_seed(1))
    return {
        "bernoulli": (uniform > 0.5).to(dtype),
        "continuous_bernoulli": uniform,
        "negative_binomial": (uniform * 9).floor(),
        "normal": uniform * 6 - 3,
    }[likelihood]


def negative_elbo(vae: VAE, x: torch.Tensor) -> torch.Tensor:
    torch.manual_seed(2)
    return Trace_ELBO().differentiable_loss(vae.model, vae.guide, x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("missing", [False, True], ids=["complete", "missing"])
@pytest.mark.parametrize("heads", ["separate", "joint"])
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("network", SHAPES)
@pytest.mark.parametrize("guide", ENCODERS)
@pytest.mark.parametrize(("likelihood", "options"), OPTIONS)
@pytest.mark.parametrize("prior", PRIORS)
def test_contract(
    tmp_path, prior, likelihood, options, guide, network, scale, heads, missing, dtype
):
    config = VAEConfig(
        event_shape=SHAPES[network],
        latent_dim=2,
        network=network,
        hidden=(4, 6),
        likelihood=likelihood,
        likelihood_options=options,
        prior=prior,
        guide=guide,
        scale=scale,
        heads=heads,
        missing=missing,
        center=0.5,
        spread=2.0,
    )
    vae = VAE.from_config(config).to(dtype)
    x = rows(likelihood, vae.event_shape, 7, dtype)
    if missing:
        x[2].flatten()[3] = torch.nan
        x[4].flatten()[0] = torch.nan
    vae.check(x)

    for size in (1, 2, 7):
        q = vae.encoder(x[:size])
        assert q.batch_shape == (size,)
        assert q.event_shape == (2,)
        p = vae.decoder(q.rsample())
        assert p.batch_shape == (size,)
        assert p.event_shape == vae.event_shape
        assert p.sample((3,)).shape == (3, size, *vae.event_shape)
        assert vae.model(size=size).shape == (size, *vae.event_shape)
        assert vae.guide(x[:size]).dtype == dtype
        assert negative_elbo(vae, x[:size]).isfinite()
    assert vae.prior().event_shape == (2,)

    vae.zero_grad()
    negative_elbo(vae, x).backward()
    for name, parameter in vae.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name

    vae.save(tmp_path / "vae.safetensors")
    again = VAE.load(tmp_path / "vae.safetensors")
    assert again.config == config
    again.name = "again"
    assert torch.equal(negative_elbo(vae, x), negative_elbo(again, x))

    if missing:
        # Given z, another missing entry takes its own term away and leaves the others.
        z = torch.zeros(7, 2, dtype=dtype)
        fewer = x.clone()
        fewer[1].flatten()[1] = torch.nan
        terms = {}
        for name, data in {"before": x, "after": fewer}.items():
            masked, filled = vae.observe(vae.decoder(z), data)
            terms[name] = masked.base_dist.log_prob(filled).flatten(1)
        changed = (terms["before"] != terms["after"]).nonzero().tolist()
        assert changed == [[1, 1]]
        assert terms["after"][1, 1] == 0
        assert terms["before"][2, 3] == 0
