"""The choice of parts for a VAE: named, checked, and readable as JSON."""

from __future__ import annotations

__all__ = ["VAEConfig"]

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from torch import Tensor, nn

from .components.decoders import DECODERS, Decoder
from .components.encoders import ENCODERS
from .components.networks import ACTIVATIONS, INITIALIZATIONS, NETWORKS
from .components.priors import PRIORS
from .components.scales import SCALES
from .rows import check_rows, to_float

_CHOICES: dict[str, Mapping[str, Any]] = {
    "network": NETWORKS,
    "activation": ACTIVATIONS,
    "initialization": INITIALIZATIONS,
    "likelihood": DECODERS,
    "prior": PRIORS,
    "guide": ENCODERS,
    "scale": SCALES,
    "heads": {"separate": None, "joint": None},
}


class VAEConfig(BaseModel):
    """A choice of parts, from which :meth:`VAE.from_config` builds a VAE.

    Attributes
    ----------
    event_shape
        The shape of a row: ``(feature,)``, ``(height, width)`` or ``(channel, height, width)``.
    latent_dim
        The number of latents.
    network
        ``"mlp"``, ``"conv"`` or ``"cvae"``.
    hidden
        For ``"mlp"`` the encoder's hidden widths; for ``"conv"`` its channels and then the width
        of its dense layer; for ``"cvae"``, which has none, its channels. The decoder's are the
        same, backwards.
    activation
        ``"relu"``, ``"tanh"``, ``"silu"``, ``"gelu"``, ``"softplus"`` or ``"elu"``.
    initialization
        ``"torch"`` or ``"glorot"``: how the weights of both networks start, as in PyTorch or as in
        Keras and TensorFlow.
    likelihood
        ``"bernoulli"``, ``"continuous_bernoulli"``, ``"negative_binomial"`` or ``"normal"``.
    likelihood_options
        Further arguments of the decoder, such as ``{"scale": "shared"}`` for ``"normal"``.
    prior
        ``"standard_normal"``.
    guide
        ``"normal"``: the family of the encoder.
    scale
        ``"log_variance"``, ``"log_scale"`` or ``"softplus"``: what the encoder's network returns.
    heads
        ``"separate"`` or ``"joint"``.
    covariate_dim
        The number of covariates of a conditional VAE.
    center, spread
        Where the data lie: numbers, or one for each entry of a row, flattened.
    missing
        Whether rows may have missing entries (NaN).
    reason
        Why :meth:`for_data` chose this likelihood.

    Raises
    ------
    pydantic.ValidationError
        A ``ValueError``, if a field is unknown or its value not accepted.

    Examples
    --------
    >>> VAEConfig(event_shape=(28, 28), latent_dim=2).scale
    'log_variance'
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    event_shape: tuple[int, ...] = Field(min_length=1)
    latent_dim: int = Field(gt=0)
    network: str = "mlp"
    hidden: tuple[int, ...] = (500, 500)
    activation: str = "silu"
    initialization: str = "torch"
    likelihood: str = "bernoulli"
    likelihood_options: dict[str, float | str] = {}
    prior: str = "standard_normal"
    guide: str = "normal"
    scale: str = "log_variance"
    heads: str = "separate"
    covariate_dim: int = Field(default=0, ge=0)
    center: float | tuple[float, ...] = 0.0
    spread: float | tuple[float, ...] = 1.0
    missing: bool = False
    reason: str = ""

    @model_validator(mode="before")
    @classmethod
    def _renamed(cls, fields: Any) -> Any:
        if isinstance(fields, dict) and "context_dim" in fields:
            raise ValueError("context_dim is now called covariate_dim; pass covariate_dim=...")
        return fields

    @field_validator(*_CHOICES)
    @classmethod
    def _known(cls, value: str, info: Any) -> str:
        accepted = _CHOICES[info.field_name]
        if value not in accepted:
            raise ValueError(f"accepted are {', '.join(map(repr, accepted))}")
        return value

    @field_validator("event_shape", "hidden")
    @classmethod
    def _positive(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if any(size < 1 for size in value):
            raise ValueError("every size must be at least 1")
        return value

    @classmethod
    def for_data(
        cls, x: Tensor, *, feature_names: Sequence[str] | None = None, **choices: Any
    ) -> VAEConfig:
        """Choose a likelihood, and sizes to match, from data; say why in ``reason``.

        The likelihood is the first that accepts every value, from the narrowest: zeros and ones,
        values in [0, 1], counts, real numbers. Real numbers and counts are centred by their means
        and standard deviations, by feature for one-dimensional rows and over all for images.

        Parameters
        ----------
        x
            Rows of data, shape ``(row, *event)``: ``uint8`` pixel intensities, or floating point
            with NaN for missing entries.
        feature_names
            What errors call features by, rather than numbers.
        **choices
            Any fields to set rather than choose; ``center="feature"`` is the mean of each entry.

        Raises
        ------
        ValueError
            If ``x`` has no or only one row, infinite values, a row with no entry, or, under a
            normal likelihood, features that never vary.

        Examples
        --------
        >>> config = VAEConfig.for_data(torch.rand(100, 8, 8))
        >>> config.likelihood, config.reason
        ('continuous_bernoulli', 'the narrowest that fits: the data hold values in [0, 1]')
        """
        check_rows(x)
        if len(x) < 2:
            raise ValueError("x has 1 row; a VAE describes how rows differ: pass at least 2")
        event_shape = tuple(x.shape[1:])
        values = to_float(x.unique() if x.dtype == torch.uint8 else x)
        missing = bool(values.isnan().any())
        values = values[~values.isnan()]
        if "likelihood" in choices:
            likelihood, reason = choices["likelihood"], "the caller chose it"
        else:
            likelihood = next(k for k, d in DECODERS.items() if d.support.check(values).all())
            reason = f"the narrowest that fits: the data hold {DECODERS[likelihood].accepts}"
        size = math.prod(event_shape)
        defaults: dict[str, Any] = {
            "event_shape": event_shape,
            "latent_dim": min(50, max(2, size // 8)),
            "hidden": (500, 500) if size > 100 else (256, 256),
            # Measured: bounded features overfit MNIST's bits less, and are slower to reach the
            # large logits of digits in [0, 1].
            "activation": "tanh" if likelihood == "bernoulli" else "silu",
            "likelihood": likelihood,
            "missing": missing,
            "reason": reason,
        }
        if likelihood in ("negative_binomial", "normal"):
            defaults |= _location(to_float(x), likelihood, feature_names)
        if choices.get("center") == "feature":
            choices["center"] = to_float(x).flatten(1).nanmean(0).tolist()
        return cls(**{**defaults, **choices})

    def parts(self) -> tuple[nn.Module, Decoder, nn.Module]:
        """Build the prior, the decoder and the encoder.

        Raises
        ------
        ValueError
            If the parts do not fit together, such as convolutions over a table.
        """
        encoder_network, decoder_network = NETWORKS[self.network]
        common = {"activation": self.activation, "covariate_dim": self.covariate_dim}
        # An encoder that reads missing entries sees the filled row stacked on its mask.
        in_shape = (2, *self.event_shape) if self.missing else self.event_shape
        prior = PRIORS[self.prior](self.latent_dim)
        hidden = self.hidden[::-1] if self.network == "mlp" else self.hidden
        decoder = DECODERS[self.likelihood](
            decoder_network((self.latent_dim,), hidden, self.event_shape, **common),
            self.event_shape,
            **{**self._lie(), **self.likelihood_options},
        )
        encoder = ENCODERS[self.guide](
            encoder_network(in_shape, self.hidden, **common),
            self.latent_dim,
            self.scale,
            self.heads,
            missing=self.missing,
            **self._lie(),
        )
        return prior, decoder, encoder

    def _lie(self) -> dict[str, Any]:
        """Center and spread: numbers, or tensors of an event's shape."""
        size, where = math.prod(self.event_shape), {}
        for name in ("center", "spread"):
            given = torch.tensor(getattr(self, name), dtype=torch.get_default_dtype())
            if given.dim() and len(given) != size:
                raise ValueError(
                    f"{name} has {len(given)} numbers but a row has {size} entries; pass one "
                    "number, or one for each entry"
                )
            where[name] = given.reshape(self.event_shape) if given.dim() else given
        return where


def _location(x: Tensor, likelihood: str, feature_names: Sequence[str] | None) -> dict[str, Any]:
    """Means and standard deviations, by feature for tables and over all entries for images."""
    dims = (0,) if x.dim() == 2 else tuple(range(x.dim()))
    count = x.isfinite().sum(dims).clamp(min=1)
    center = x.nansum(dims) / count
    spread = ((x - center).square().nansum(dims) / count).sqrt()
    # Ends are compared, as rounding leaves a constant column a tiny standard deviation.
    rows = x if x.dim() == 2 else x.reshape(-1, 1)
    low, high = rows.nan_to_num(nan=torch.inf).amin(0), rows.nan_to_num(nan=-torch.inf).amax(0)
    varies = (low < high).reshape(spread.shape)
    constant = (~varies).nonzero().flatten().tolist()
    if constant and likelihood == "normal":
        if feature_names is not None:
            constant = [feature_names[i] for i in constant]
        raise ValueError(
            f"x never varies in features {constant[:10]}, so that a normal likelihood has no "
            "scale there; drop these features"
        )
    return {"center": center.tolist(), "spread": spread.masked_fill(~varies, 1.0).tolist()}
