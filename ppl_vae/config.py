"""The choice of parts for a VAE: named, checked, and readable as JSON."""

from __future__ import annotations

__all__ = ["VAEConfig"]

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from torch import nn

from .column_likelihoods import likelihood_for
from .components.decoders import DECODERS, Decoder, MixedDecoder
from .components.encoders import ENCODERS, Encoder
from .components.inputs import Inputs, TableInputs
from .components.networks import INITIALIZATIONS, NETWORKS
from .components.priors import PRIORS, Prior
from .components.registry import Choice, Registry
from .data.dataset import Dataset
from .data.precision import in_single_precision
from .data.table import Table, by_table, table_of
from .rows import check_rows, to_float
from .sizes import hidden_for, latents_for
from .sources import covariates_beside, in_memory

_REGISTRIES: dict[str, Registry[Any]] = {
    "network": NETWORKS,
    "likelihood": DECODERS,
    "prior": PRIORS,
    "guide": ENCODERS,
}
# Options that can be given as if they were fields, and the part that each belongs to.
_SHORT = {"hidden": "network", "activation": "network", "scale": "guide", "heads": "guide"}


class VAEConfig(BaseModel):
    """A choice of parts, from which :meth:`VAE.from_config` builds a VAE.

    Attributes
    ----------
    event_shape
        The shape of a row: ``(feature,)``, ``(height, width)`` or ``(channel, height, width)``.
    latent_dim
        The number of latents.
    network
        ``"mlp"``, ``"conv"`` or ``"resnet"``.
    likelihood
        ``"bernoulli"``, ``"continuous_bernoulli"``, ``"negative_binomial"``, ``"normal"``,
        ``"poisson"``, ``"zero_inflated_negative_binomial"``, ``"discretized_logistic"``,
        ``"binomial"``, ``"categorical"``, ``"self_masking"``, ``"ordinal"``, ``"student_t"``,
        ``"log_normal"``, ``"beta"``, ``"discretized_logistic_mixture"`` or, of tables with columns
        of several kinds, ``"mixed"``.
    prior
        ``"standard_normal"``, ``"mixture"``, ``"vamp"``, ``"flow"``, ``"ladder"`` or
        ``"conditional"``.
    guide
        ``"normal"``, ``"full_rank"``, ``"low_rank"``, ``"flow"``, ``"mixture"`` or ``"ladder"``,
        the family of the encoder.
    network_options, likelihood_options, prior_options, guide_options
        Arguments of the part's class, such as ``{"hidden": (64,)}``. Each of the four parts can
        also be written with its options, ``network="mlp:hidden=(64,),activation=tanh"``, and so
        on the command line. ``hidden`` and ``activation``, of the network, and ``scale`` and
        ``heads``, of the guide, can be given as if they were fields.
    initialization
        ``"torch"`` or ``"glorot"``: how the weights of both networks start, as in PyTorch or as in
        Keras and TensorFlow.
    covariate_dim
        The number of covariates of a conditional VAE.
    center, spread
        The location and the scale of the data: numbers, or one for each entry of a row,
        flattened.
    missing
        Whether rows may have missing entries (NaN).
    reason
        Why :meth:`for_data` chose this likelihood.
    table
        The columns of the rows: names, levels, and codings of covariates, by which other tables
        are read. None of rows without names.

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
    network_options: dict[str, Any] = {}
    initialization: str = "torch"
    likelihood: str = "bernoulli"
    likelihood_options: dict[str, Any] = {}
    prior: str = "standard_normal"
    prior_options: dict[str, Any] = {}
    guide: str = "normal"
    guide_options: dict[str, Any] = {}
    covariate_dim: int = Field(default=0, ge=0)
    center: float | tuple[float, ...] = 0.0
    spread: float | tuple[float, ...] = 1.0
    missing: bool = False
    reason: str = ""
    table: Table | None = None

    @model_validator(mode="before")
    @classmethod
    def _gathered(cls, fields: Any) -> Any:
        """Choices taken apart into names and options, and options that were given as fields."""
        if not isinstance(fields, Mapping):
            return fields
        fields = dict(fields)
        if "context_dim" in fields:
            raise ValueError("context_dim is now called covariate_dim; pass covariate_dim=...")
        if fields.get("network") == "cvae":  # version 0.1 called it so
            fields["network"] = Choice("conv", {"dense": False})
        for part in _REGISTRIES:
            given = fields.get(part, cls.model_fields[part].default)
            if not isinstance(given, str | Choice | Mapping):
                continue
            choice = Choice.of(given)
            options = {**fields.get(f"{part}_options", {}), **choice.options}
            for short, whose in _SHORT.items():
                if whose == part and short in fields:
                    options[short] = fields.pop(short)
            fields[part] = choice.name
            fields[f"{part}_options"] = _with_tuples(options)
        return fields

    @field_validator("network", "likelihood", "prior", "guide", "initialization")
    @classmethod
    def _known(cls, value: str, info: ValidationInfo) -> str:
        accepted: Collection[str] = _REGISTRIES.get(info.field_name or "", INITIALIZATIONS)
        if value not in accepted:
            raise ValueError(f"accepted are {', '.join(map(repr, accepted))}")
        return value

    @field_validator("event_shape")
    @classmethod
    def _positive(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if any(size < 1 for size in value):
            raise ValueError("every size must be at least 1")
        return value

    @model_validator(mode="after")
    def _accepted(self) -> VAEConfig:
        for part, registry in _REGISTRIES.items():
            registry.check(self.choice(part))
        NETWORKS.build(self.choice("network"))
        return self

    def model_copy(
        self, *, update: Mapping[str, Any] | None = None, deep: bool = False
    ) -> VAEConfig:
        """The same choices but for ``update``, which is checked as in a config made anew."""
        return type(self)(**{**self.model_dump(), **(update or {})})

    def choice(self, part: str) -> Choice:
        """The choice of ``"network"``, ``"likelihood"``, ``"prior"`` or ``"guide"``."""
        return Choice(getattr(self, part), getattr(self, f"{part}_options"))

    @property
    def hidden(self) -> tuple[int, ...] | None:
        """The network's hidden sizes; None lets it choose."""
        return self._option("network", "hidden")

    @property
    def activation(self) -> str | None:
        """The network's activation."""
        return self._option("network", "activation")

    @property
    def scale(self) -> str | None:
        """What the guide's scales are computed from; None if it has no such option."""
        return self._option("guide", "scale")

    @property
    def heads(self) -> str | None:
        """The guide's heads; None if it has no such option."""
        return self._option("guide", "heads")

    def _option(self, part: str, name: str) -> Any:
        choice = self.choice(part)
        return {**_REGISTRIES[part].options(choice.name), **choice.options}.get(name)

    @classmethod
    def for_data(
        cls, x: Any, *, feature_names: Sequence[str] | None = None, **choices: Any
    ) -> VAEConfig:
        """Choose a likelihood, and sizes to match, from data; say why in ``reason``.

        The likelihood is the first that accepts every value, from the narrowest: zeros and ones,
        intensities on a few levels (bytes are such), values in [0, 1], counts, real numbers. Whole
        numbers that are large or far from zero, as years, codes and amounts are, count as real
        numbers. Numbers are centered by their means and standard deviations, by feature for
        one-dimensional rows and over all for images. Tables that say what their columns are, as
        :func:`load_data` reads text and what is told by ``column``, have the likelihood
        ``"mixed"``, of each column by its kind, unless all are bits, counts or real numbers.

        A table has as many latents as its columns could have factors (4 of 8 columns, 22 of 30; at
        most 50), an image an eighth of its entries: what is not needed goes back to the prior. One
        of fewer than 1,000 rows has one hidden layer of 128, as two of 256 learn it by heart.

        Parameters
        ----------
        x
            Rows of data, shape ``(row, *event)``: ``uint8`` pixel intensities, or floating point
            with NaN for missing entries; a tensor, an array, a DataFrame or a Dataset, whose
            covariates are counted.
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
        x = by_table(x, None)
        beside, table = covariates_beside(x), table_of(x)
        if beside is not None:
            choices.setdefault("covariate_dim", beside.shape[1])
        x, warned = in_memory(x), isinstance(x, Dataset)
        check_rows(x)
        if table is None and feature_names is not None and x.shape[1:] == (len(feature_names),):
            table = Table(tuple(map(str, feature_names)))
        kinds, codings = (table.columns or (), table.codings) if table else ((), ())
        if feature_names is None and table:
            feature_names = table.names
        if x.dtype.itemsize > torch.get_default_dtype().itemsize and not warned:
            in_single_precision(x.numpy(force=True), "x", names=feature_names)
        if len(x) < 2:
            raise ValueError("x has 1 row; a VAE describes how rows differ: pass at least 2")
        event_shape = tuple(x.shape[1:])
        likelihood, described, reason = likelihood_for(x, kinds, feature_names, choices)
        known = DECODERS.get(likelihood, Decoder)
        given = Choice.of(choices.get("likelihood", likelihood)).options
        given = {**choices.get("likelihood_options", {}), **given}
        described = {**described, **known.completed(given, x, codings)}
        network = Choice.of(choices.get("network", "mlp"))
        defaults: dict[str, Any] = {
            "event_shape": event_shape,
            "latent_dim": latents_for(event_shape),
            "likelihood": likelihood,
            "missing": x.is_floating_point() and bool(x.isnan().any()),
            "reason": reason,
            "table": table,
            **{name: described.pop(name) for name in ("center", "spread") if name in described},
        }
        if described:
            choices["likelihood_options"] = {**described, **choices.get("likelihood_options", {})}
        if network.name == "mlp":
            defaults["hidden"] = known.hidden or hidden_for(event_shape, len(x))
            # Measured: bounded features overfit MNIST's bits less, and are slower to reach the
            # large logits of digits in [0, 1].
            defaults["activation"] = "tanh" if likelihood == "bernoulli" else "silu"
        for option in network.options:
            defaults.pop(option, None)
        for option in choices.get("network_options", {}):
            defaults.pop(option, None)
        if choices.get("center") == "feature":
            choices["center"] = to_float(x).flatten(1).double().nanmean(0).tolist()
        return cls(**{**defaults, **choices})

    def parts(self) -> tuple[Prior, Decoder, Encoder]:
        """Build the prior, the decoder and the encoder.

        Raises
        ------
        ValueError
            If the parts do not fit together, such as convolutions over a table.
        """
        network = NETWORKS.build(self.choice("network"))
        given: dict[str, Any] = {
            "latent_dim": self.latent_dim,
            "event_shape": self.event_shape,
            "covariate_dim": self.covariate_dim,
            "missing": self.missing,
            **self._location(),
        }
        # How many numbers an entry takes is known when the decoder is there.
        decoder = DECODERS.build(self.choice("likelihood"), **given, network=nn.Identity())
        if decoder.needs_covariates and not self.covariate_dim:
            raise ValueError(
                f"{self.choice('likelihood')} takes the library size from the last covariate, and "
                "covariate_dim is 0; pass context='library' to load_data (--context library)"
            )
        decoder.network = network.writer(
            self.latent_dim, decoder.raw_shape, covariate_dim=self.covariate_dim
        )
        # A VAE of these parts describes itself by this when it is saved.
        decoder.network.described = self.choice("network"), self.covariate_dim  # type: ignore[assignment]
        # An encoder that reads missing entries sees the filled row stacked on its mask.
        read = (2, *self.event_shape) if self.missing else self.event_shape
        table = None
        if isinstance(decoder, MixedDecoder):
            table = TableInputs(
                [(each.name, each.options) for each in decoder.choices],
                **self._location(),
                missing=self.missing,
            )
            read = (table.width,)
        encoder = ENCODERS.build(
            self.choice("guide"),
            **given,
            network=network.reader(read, covariate_dim=self.covariate_dim),
        )
        if table is not None:
            encoder.inputs = table
        elif decoder.reads_logs:
            where = {**self._location(), "event_dim": len(self.event_shape)}
            encoder.inputs = Inputs(**where, missing=self.missing, logs=True)
        prior = PRIORS.build(self.choice("prior"), **given, encoder=encoder)
        return prior, decoder, encoder

    @classmethod
    def of_parts(cls, prior: Any, decoder: Any, encoder: Any) -> VAEConfig | None:
        """The config that describes parts that were built from registries; None for others."""
        described = getattr(getattr(decoder, "network", None), "described", None)
        choices: list[Any] = [getattr(part, "choice", None) for part in (prior, decoder, encoder)]
        if described is None or None in choices:
            return None
        network, covariate_dim = described
        center, spread = (
            tensor.flatten().tolist() if tensor.dim() else tensor.item()
            for tensor in (decoder.center, decoder.spread)
        )
        return cls(
            event_shape=decoder.event_shape,
            latent_dim=prior.latent_dim,
            network=network,
            prior=choices[0],
            likelihood=choices[1],
            guide=choices[2],
            covariate_dim=covariate_dim,
            center=center,
            spread=spread,
            missing=encoder.missing,
        )

    def _location(self) -> dict[str, Any]:
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


def _with_tuples(value: Any) -> Any:
    """Lists, as JSON has them, as tuples, so that a config read back equals the one written."""
    if isinstance(value, Mapping):
        return {key: _with_tuples(part) for key, part in value.items()}
    return tuple(map(_with_tuples, value)) if isinstance(value, list | tuple) else value
