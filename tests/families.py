"""Every registered part with rows of its kind, and parts as users write them."""

from collections.abc import Callable, Iterator
from itertools import combinations, product

import pyro.distributions as dist
import torch
import zuko
from pyro.contrib.zuko import ZukoToPyro
from pyro.distributions.transforms import affine_coupling, conditional_affine_autoregressive
from torch import Tensor, nn
from torch.distributions import constraints

from ppl_vae import (
    MLP,
    VAE,
    BernoulliDecoder,
    Chain,
    Decoder,
    NormalEncoder,
    StandardNormal,
    VAEConfig,
)
from ppl_vae.components.decoders import DECODERS
from ppl_vae.components.encoders import ENCODERS
from ppl_vae.components.networks import NETWORKS
from ppl_vae.components.priors import PRIORS

# A small choice of each part. A part that is missing here fails test_families.py.
NETWORK = {
    "mlp": "mlp:hidden=(6,)",
    "conv": "conv:hidden=(3,6)",
    "resnet": "resnet:channels=(3,4),width=6",
}
PRIOR = {
    "standard_normal": "standard_normal",
    "mixture": "mixture:components=3",
    "vamp": "vamp:components=3",
    "flow": "flow:transforms=2,hidden=(6,)",
    "ladder": "ladder:width=6",
    "conditional": "conditional:hidden=(6,)",
}
GUIDE = {
    "normal": "normal",
    "full_rank": "full_rank",
    "low_rank": "low_rank:rank=1",
    "flow": "flow:transforms=2,hidden=(6,),context=3",
    "mixture": "mixture:components=3",
    "ladder": "ladder:width=6",
}
LIKELIHOOD = {
    "bernoulli": "bernoulli",
    "continuous_bernoulli": "continuous_bernoulli",
    "negative_binomial": "negative_binomial",
    "poisson": "poisson:library=latent",
    "zero_inflated_negative_binomial": "zero_inflated_negative_binomial",
    "normal": "normal:scale=shared",
    "categorical": "categorical:levels=4",
    "discretized_logistic": "discretized_logistic",
    "binomial": "binomial",
    "self_masking": "self_masking:hides=high",
    "ordinal": "ordinal:levels=4",
    "student_t": "student_t",
    "log_normal": "log_normal",
    "beta": "beta",
    "discretized_logistic_mixture": "discretized_logistic_mixture:components=2",
    "mixed": "mixed:columns=(normal,categorical:levels=4,ordinal:levels=4,log_normal,bernoulli)",
}
KINDS = {
    "network": (NETWORKS, NETWORK),
    "prior": (PRIORS, PRIOR),
    "guide": (ENCODERS, GUIDE),
    "likelihood": (DECODERS, LIKELIHOOD),
}
DEFAULTS = {kind: next(iter(choices.values())) for kind, (_, choices) in KINDS.items()}
# What else differs between VAEs of the same parts.
OTHERS = {
    "missing": [False, True],
    "covariate_dim": [0, 2],
    "dtype": [torch.float32, torch.float64],
}


def rows(likelihood: str, shape: tuple[int, ...], size: int = 40) -> Tensor:
    """Rows that a likelihood describes."""
    uniform = torch.rand(size, *shape, generator=torch.Generator().manual_seed(1))
    return {
        "bernoulli": (uniform > 0.5).float(),
        "continuous_bernoulli": uniform,
        "negative_binomial": (uniform * 9).floor(),
        "poisson": (uniform * 9).floor(),
        "zero_inflated_negative_binomial": (uniform * 9).floor(),
        "normal": uniform * 6 - 3,
        "categorical": (uniform * 4).floor(),
        "discretized_logistic": (uniform * 5).floor() / 4,
        "binomial": (uniform * 5).floor() / 4,
        "self_masking": uniform * 6 - 3,
        "ordinal": (uniform * 4).floor(),
        "student_t": uniform * 6 - 3,
        "log_normal": uniform * 6 + 0.1,
        "beta": uniform,
        "discretized_logistic_mixture": (uniform * 5).floor() / 4,
        "mixed": table_of(uniform),
    }[likelihood.partition(":")[0]]


def table_of(uniform: Tensor) -> Tensor:
    """A real number, two columns of levels, a positive number and a bit, in the first columns."""
    columns = uniform.flatten(1)
    levels = (columns[:, 1:3] * 4).floor()
    bit = (columns[:, 4:5] > 0.5).float()
    return torch.cat([columns[:, :1] * 6 - 3, levels, columns[:, 3:4] + 0.1, bit], 1)


def case(
    *,
    missing: bool = False,
    covariate_dim: int = 0,
    dtype: torch.dtype = torch.float32,
    **choices: str,
) -> tuple[VAE, Tensor, Tensor | None]:
    """A VAE of these choices, rows of its kind, and covariates if it takes any."""
    choices = DEFAULTS | choices
    shape = (5,) if choices["network"].startswith("mlp") else (6, 5)
    if choices["prior"].startswith("conditional"):
        covariate_dim = covariate_dim or 2
    missing = missing or choices["likelihood"].startswith("self_masking")
    x = rows(choices["likelihood"], shape)
    if missing:
        gaps = torch.rand(x.shape, generator=torch.Generator().manual_seed(2)) < 0.2
        gaps.flatten(1)[:, 0] = False
        x = x.masked_fill(gaps, torch.nan)
    config = VAEConfig.for_data(
        x, latent_dim=2, missing=missing, covariate_dim=covariate_dim, **choices
    )
    vae = VAE.from_config(config).to(dtype)
    generator = torch.Generator().manual_seed(3)
    covariates = torch.rand(len(x), covariate_dim, generator=generator).to(dtype)
    covariates = covariates if covariate_dim else None
    return vae, x.to(dtype), covariates


def single_parts() -> Iterator[tuple[str, dict[str, str]]]:
    """Every registered part beside the default others."""
    for kind, (_, choices) in KINDS.items():
        for choice in choices.values():
            yield f"{kind} {choice}", {kind: choice}


def pairs() -> list[dict[str, object]]:
    """Cases in which every two choices, of different kinds, stand together at least once."""
    levels = {kind: list(choices.values()) for kind, (_, choices) in KINDS.items()} | OTHERS
    open_pairs = {
        frozenset([(a, str(x)), (b, str(y))])
        for a, b in combinations(levels, 2)
        for x in levels[a]
        for y in levels[b]
        if not impossible({a: x, b: y})
    }
    every = [dict(zip(levels, values, strict=True)) for values in product(*levels.values())]
    every = [each for each in every if not impossible(each)]
    found = []
    while open_pairs:
        best = max(every, key=lambda each: len(open_pairs & of(each)))
        open_pairs -= of(best)
        found.append(best)
    return found


def of(each: dict[str, object]) -> set[frozenset[tuple[str, str]]]:
    """The pairs in a case."""
    return {frozenset(pair) for pair in combinations([(k, str(v)) for k, v in each.items()], 2)}


def impossible(each: dict[str, object]) -> bool:
    """What is refused in a sentence: a VampPrior given covariates, and what needs some without.

    And a model of what is missing where nothing may be, and convolutions over a table.
    """
    if str(each.get("likelihood", "")).startswith("self_masking") and each.get("missing") is False:
        return True
    if str(each.get("likelihood", "")).startswith("mixed") and not str(
        each.get("network", "mlp")
    ).startswith("mlp"):
        return True
    prior, covariates = str(each.get("prior", "")), each.get("covariate_dim")
    if prior.startswith("vamp"):
        return bool(covariates)
    return prior.startswith("conditional") and covariates == 0


def bits(size: int = 40) -> Tensor:
    return rows("bernoulli", (4, 4), size)


def decoder(latent_dim: int = 2) -> BernoulliDecoder:
    return BernoulliDecoder(MLP((latent_dim,), (8,), (4, 4)), (4, 4))


def encoder(shape: tuple[int, ...] = (4, 4), latent_dim: int = 2) -> NormalEncoder:
    return NormalEncoder(MLP(shape, (8,)), latent_dim)


class ZukoPrior(nn.Module):
    latent_dim = 2

    def __init__(self, wrap=lambda flow: flow):
        super().__init__()
        self.flow = zuko.flows.MAF(2, transforms=2, hidden_features=(8,))
        self.wrap = wrap

    def forward(self, covariates=None):
        return self.wrap(self.flow())


class CouplingPrior(nn.Module):
    latent_dim = 2

    def __init__(self):
        super().__init__()
        self.coupling = affine_coupling(2, [8])
        self.register_buffer("zero", torch.zeros(2))

    def forward(self, covariates=None):
        base = dist.Normal(self.zero, self.zero + 1).to_event(1)
        return dist.TransformedDistribution(base, [self.coupling])


class LaplacePrior(nn.Module):
    """Just what the docstring of VAE asks for."""

    def __init__(self):
        super().__init__()
        self.register_buffer("zero", torch.zeros(2))

    def forward(self, covariates=None):
        return dist.Laplace(self.zero, self.zero + 1).to_event(1)


class PlainDecoder(nn.Module):
    """Just what the docstring of VAE asks for."""

    event_shape = (4, 4)

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 16)

    def forward(self, z, covariates=None):
        logits = self.linear(z).reshape(*z.shape[:-1], 4, 4)
        return dist.Bernoulli(logits=logits).to_event(2)


class IAFEncoder(nn.Module):
    latent_dim = 2

    def __init__(self):
        super().__init__()
        self.network = MLP((4, 4), (8,))
        self.base = NormalEncoder(self.network, 2)
        self.given = nn.Linear(8, 4)
        self.transform = conditional_affine_autoregressive(2, 4, hidden_dims=[8])

    def forward(self, x, covariates=None):
        transform = self.transform.condition(self.given(self.network(x)))
        return dist.TransformedDistribution(self.base(x), [transform])


class ZukoEncoder(nn.Module):
    latent_dim = 2

    def __init__(self):
        super().__init__()
        self.network = MLP((4, 4), (8,))
        self.flow = zuko.flows.MAF(2, 8, transforms=1, hidden_features=(8,))

    def forward(self, x, covariates=None):
        return self.flow(self.network(x))


class MixtureEncoder(nn.Module):
    latent_dim = 2

    def __init__(self):
        super().__init__()
        self.network = MLP((4, 4), (8,))
        self.heads = nn.Linear(8, 3 * 5)

    def forward(self, x, covariates=None):
        raw = self.heads(self.network(x)).unflatten(-1, (3, 5))  # (row, component, 1 + 2 + 2)
        components = dist.Normal(raw[..., 1:3], raw[..., 3:].clamp(-5, 5).exp()).to_event(1)
        return dist.MixtureSameFamily(dist.Categorical(logits=raw[..., 0]), components)


def normal(raw: Tensor) -> dist.Distribution:
    loc, scale = raw.chunk(2, -1)
    return dist.Normal(loc, scale.clamp(-5, 5).exp()).to_event(1)


class LadderPrior(nn.Module):
    """z2 and then z1, as one vector of 2 + 3 latents."""

    latent_dim = 5

    def __init__(self):
        super().__init__()
        self.down = nn.Linear(2, 6)
        self.register_buffer("zero", torch.zeros(2))

    def forward(self, covariates=None):
        top = dist.Normal(self.zero, self.zero + 1).to_event(1)
        return Chain([lambda: top, lambda z2: normal(self.down(z2))], [2, 3])


class LadderEncoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.network = MLP((4, 4), (8,))
        self.top = nn.Linear(8, 4)
        self.low = nn.Linear(10, 6)

    def forward(self, x, covariates=None):
        h = self.network(x)

        def low(z2):
            return normal(self.low(torch.cat([h.expand(*z2.shape[:-1], -1), z2], -1)))

        return Chain([lambda: normal(self.top(h)), low], [2, 3], h.shape[:-1])


class StudentDecoder(Decoder):
    support = constraints.real
    accepts = "real numbers"

    def likelihood(self, raw):
        return dist.StudentT(3.0, raw, 1.0)


class OwnCategories(Decoder):
    """Categories by a forward of its own, as was needed before there was ``outputs``."""

    support = constraints.integer_interval(0, 3)
    accepts = "0 to 3"

    def likelihood(self, raw):
        return dist.Categorical(logits=raw)

    def forward(self, z, covariates=None):
        raw = self.network(z).reshape(*z.shape[:-1], *self.event_shape, 4)
        return self.likelihood(raw).to_event(len(self.event_shape))


class Columns(dist.TorchDistribution):
    """Independent columns of different kinds."""

    arg_constraints = {}  # noqa: RUF012
    support = constraints.real

    def __init__(self, columns):
        self.columns = columns
        super().__init__((*columns[0].batch_shape, len(columns)), validate_args=False)

    def log_prob(self, x):
        each = [column.log_prob(x[..., i]) for i, column in enumerate(self.columns)]
        return torch.stack(torch.broadcast_tensors(*each), -1)

    def sample(self, sample_shape=()):
        return torch.stack([column.sample(torch.Size(sample_shape)) for column in self.columns], -1)

    def expand(self, batch_shape, _instance=None):
        return Columns([column.expand(batch_shape[:-1]) for column in self.columns])

    @property
    def mean(self):
        return torch.stack([column.mean for column in self.columns], -1)


class MixedDecoder(Decoder):
    support = constraints.real
    accepts = "a real number, a bit and a count"

    def likelihood(self, raw):
        return Columns(
            [
                dist.Normal(raw[..., 0], 1.0),
                dist.Bernoulli(logits=raw[..., 1]),
                dist.Poisson(raw[..., 2].clamp(-5, 5).exp()),
            ]
        )


def mixed(missing: bool) -> tuple[VAE, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.stack(
        [
            torch.randn(40, generator=generator),
            (torch.rand(40, generator=generator) < 0.3).float(),
            torch.poisson(torch.full((40,), 3.0), generator=generator),
        ],
        -1,
    )
    if missing:
        x[0, 0] = x[1, 2] = torch.nan
    network = MLP((2, 3) if missing else (3,), (8,))
    reader = NormalEncoder(network, 2, missing=missing)
    return VAE(StandardNormal(2), MixedDecoder(MLP((2,), (8,), (3,)), (3,)), reader), x


# Parts as users write them: VAE and rows.
WRITTEN: dict[str, Callable[[], tuple[VAE, Tensor]]] = {
    "zuko's flow as prior": lambda: (VAE(ZukoPrior(), decoder(), encoder()), bits()),
    "zuko's flow through Pyro": lambda: (VAE(ZukoPrior(ZukoToPyro), decoder(), encoder()), bits()),
    "coupling flow as prior": lambda: (VAE(CouplingPrior(), decoder(), encoder()), bits()),
    "prior of the docstring": lambda: (VAE(LaplacePrior(), decoder(), encoder()), bits()),
    "decoder of the docstring": lambda: (VAE(StandardNormal(2), PlainDecoder(), encoder()), bits()),
    "inverse autoregressive flow": lambda: (
        VAE(StandardNormal(2), decoder(), IAFEncoder()),
        bits(),
    ),
    "zuko's flow as encoder": lambda: (VAE(StandardNormal(2), decoder(), ZukoEncoder()), bits()),
    "mixture as encoder": lambda: (VAE(StandardNormal(2), decoder(), MixtureEncoder()), bits()),
    "ladder": lambda: (VAE(LadderPrior(), decoder(5), LadderEncoder()), bits()),
    "heavy tails": lambda: (
        VAE(StandardNormal(2), StudentDecoder(MLP((2,), (8,), (5,)), (5,)), encoder((5,))),
        rows("normal", (5,)),
    ),
    "categories by a forward of its own": lambda: (
        VAE(StandardNormal(2), OwnCategories(MLP((2,), (8,), (5, 4)), (5,)), encoder((5,))),
        rows("categorical", (5,)),
    ),
    "mixed columns": lambda: mixed(missing=False),
    "mixed columns with gaps": lambda: mixed(missing=True),
}
