"""A model whose posterior has two modes: x = z^2 and noise, so that z and -z are alike."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ppl_vae.amortized import AmortizedModel

NOISE = 0.3


class Folded(AmortizedModel):
    """z ~ N(0, 1), x ~ N(z^2, 0.3) four times. The encoder knows the mode above zero, or both."""

    event_shape = (4,)
    latent_names = ("z[0]",)

    def __init__(self, modes: int = 1) -> None:
        super().__init__()
        self.modes = modes
        self.zero = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def model(self, x: Tensor | None = None, covariates: Tensor | None = None) -> Tensor:
        with pyro.plate("row", 1 if x is None else len(x)):
            z = pyro.sample("z", self.prior_at())
            return pyro.sample("x", self.likelihood(z), obs=x)

    def guide(self, x: Tensor, covariates: Tensor | None = None) -> Tensor:
        with pyro.plate("row", len(x)):
            return pyro.sample("z", self.posterior(x))

    def posterior(self, x: Tensor, covariates: Tensor | None = None):
        loc = x.mean(-1, keepdim=True).clamp(min=0.3).sqrt()
        scale = 1.15 * (4 * (2 * loc) ** 2 / NOISE**2 + 1).rsqrt()
        if self.modes == 1:
            return dist.Normal(loc + self.zero, scale).to_event(1)
        both = dist.Normal(torch.stack([loc, -loc], 1), scale[:, None]).to_event(1)
        return dist.MixtureSameFamily(dist.Categorical(logits=x.new_zeros(len(x), 2)), both)

    def prior_at(self, covariates: Tensor | None = None):
        return dist.Normal(self.zero.expand(1), 1.0).to_event(1)

    def likelihood(self, z: Tensor, covariates=None, observed=None):
        return dist.Normal((z**2).expand(*z.shape[:-1], 4), NOISE).to_event(1)

    def check(self, x: Tensor, covariates=None, *, name: str = "x") -> None:
        assert x.shape[1:] == (4,)


def folded_rows(size: int) -> Tensor:
    """Rows whose two modes are apart."""
    generator = torch.Generator().manual_seed(1)
    z = torch.rand(size, 1, generator=generator, dtype=torch.float64) + 1.0
    return z**2 + NOISE * torch.randn(size, 4, generator=generator, dtype=torch.float64)


def folded_evidence(x: Tensor) -> Tensor:
    """log p(x) by quadrature, (row,)."""
    grid = torch.linspace(-6, 6, 24001, dtype=torch.float64)
    joint = dist.Normal(0.0, 1.0).log_prob(grid) + torch.stack(
        [dist.Normal(grid[:, None] ** 2, NOISE).log_prob(row).sum(-1) for row in x]
    )
    return joint.logsumexp(1) + torch.tensor(12 / 24000).log()
