"""The variational autoencoder: a prior, a decoder and an encoder as a Pyro model and guide."""

from __future__ import annotations

__all__ = ["VAE"]

import inspect
import os
from typing import Any, cast

import pyro
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

from .amortized import AmortizedModel
from .components.decoders import Decoder
from .components.encoders import Encoder
from .components.networks import INITIALIZATIONS
from .components.priors import Prior
from .config import VAEConfig
from .data.table import by_table
from .distributions import for_pyro
from .isolation import seeded
from .renamed import renamed
from .rows import check_rows, to_float
from .saving import read_vae, write_vae
from .sources import in_memory
from .tensors import as_tensor


class VAE(AmortizedModel):
    r"""Three conditional distributions, written as a Pyro model and an amortized guide.

    .. math:: z \sim p(z), \quad x \mid z \sim p(x \mid z); \qquad q(z \mid x) \approx p(z \mid x)

    ``model`` and ``guide`` are ordinary Pyro programs of the same arguments, with sites ``z`` and
    ``x`` in the plate ``row``; ``prior``, ``decoder`` and ``encoder`` are modules that return
    distributions, to build larger programs from.

    Source: Kingma & Welling (2014), https://arxiv.org/abs/1312.6114.

    Parameters
    ----------
    prior
        ``prior(covariates)`` returns p(z), with event shape ``(latent,)``.
    decoder
        ``decoder(z, covariates)`` returns p(x|z), with event shape ``decoder.event_shape``. Where
        rows may have missing entries it takes a third argument: see :class:`Decoder`.
    encoder
        ``encoder(x, covariates)`` returns q(z|x). Its attribute ``missing``, if true, says that it
        accepts rows with missing entries (NaN).
    name
        The prefix of parameters in Pyro's param store.

    Raises
    ------
    ValueError
        If the decoder could not leave out missing entries that the encoder accepts, or a part
        draws its weights by ``PyroSample``.

    Examples
    --------
    >>> import torch
    >>> from pyro.infer import SVI, Trace_ELBO
    >>> pyro.clear_param_store()
    >>> x = (torch.rand(100, 8, 8) < 0.5).float()
    >>> vae = VAE.from_config(VAEConfig.for_data(x, latent_dim=2))
    >>> svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-3}), Trace_ELBO())
    >>> nats = svi.step(x) / len(x)
    """

    def __init__(
        self,
        prior: Prior | nn.Module,
        decoder: Decoder | nn.Module,
        encoder: Encoder | nn.Module,
        *,
        name: str = "vae",
    ) -> None:
        super().__init__()
        _check_weights(prior=prior, decoder=decoder, encoder=encoder)
        self.missing_at_random = not getattr(decoder, "needs_missing", False)
        if getattr(encoder, "missing", False):
            _check_leaves_out(decoder)
        elif not self.missing_at_random:
            raise ValueError(
                f"{type(decoder).__name__} says which entries are missing, so that the encoder has "
                "to accept rows with missing entries; build both with missing=True"
            )
        self.prior, self.decoder, self.encoder = prior, decoder, encoder
        self.name = name
        self.config: VAEConfig | None = None

    @classmethod
    def from_config(cls, config: VAEConfig, *, name: str = "vae", seed: int = 0) -> VAE:
        """Build the parts that ``config`` names, with weights drawn from ``seed``.

        Examples
        --------
        >>> VAE.from_config(VAEConfig(event_shape=(28, 28), latent_dim=2)).event_shape
        (28, 28)
        """
        with seeded(seed):
            vae = cls(*config.parts(), name=name)
        with seeded(seed):
            for part in (vae.encoder, vae.decoder):
                INITIALIZATIONS[config.initialization](part.network)  # type: ignore[arg-type]
        vae.config, vae.table = config, config.table
        return vae

    @property
    def event_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        """The shape of a row of data."""
        return cast(tuple[int, ...], self.decoder.event_shape)

    @property
    def center(self) -> Tensor:
        """Where the data lie; the decoder's ``center``, or zero if it has none."""
        return getattr(self.decoder, "center", super().center)

    @property
    def spread(self) -> Tensor:
        """How far the data spread; the decoder's ``spread``, or one if it has none."""
        return getattr(self.decoder, "spread", super().spread)

    @property
    def latent_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """``("z[0]", "z[1]", ...)``."""
        size = getattr(self.prior, "latent_dim", None)
        if size is None:
            (size,) = self.prior().event_shape
        return tuple(f"z[{i}]" for i in range(size))

    @property
    def missing(self) -> bool:  # type: ignore[override]
        """Whether rows may have missing entries."""
        return getattr(self.encoder, "missing", False)

    def posterior(self, x: Tensor, covariates: Tensor | None = None) -> TorchDistributionMixin:
        """q(z|x), what :meth:`guide` samples: batch shape ``(row,)``, event shape ``(latent,)``."""
        return self.encoder(x, covariates)

    def prior_at(self, covariates: Tensor | None = None) -> TorchDistributionMixin:
        """p(z), as :meth:`model` samples it: batch shape ``()`` or ``(row,)``."""
        return self.prior(covariates)

    def likelihood(
        self, z: Tensor, covariates: Tensor | None = None, observed: Tensor | None = None
    ) -> TorchDistributionMixin:
        """p(x|z), as :meth:`model` samples it, of latents ``(*draw, row, latent)``."""
        if observed is None:
            return self.decoder(z, covariates)
        return self.decoder(z, covariates, observed)

    @renamed(context="covariates")
    def model(
        self, x: Tensor | None = None, covariates: Tensor | None = None, *, size: int | None = None
    ) -> Tensor:
        """The generative program: z from the prior, x from the decoder.

        Parameters
        ----------
        x
            Rows to condition on, shape ``(row, *event)``; None draws them. Missing entries are
            left out of the likelihood one by one.
        covariates
            What the distributions are conditional on, shape ``(row, covariate)``.
        size
            How many rows to draw where neither ``x`` nor ``covariates`` says it; 1 if not given.

        Returns
        -------
        The rows, drawn or observed, shape ``(row, *event)``.
        """
        self._register("prior", "decoder")
        x = self._numbers(x)
        with pyro.plate("row", self._size(x, covariates, size)):
            z = pyro.sample("z", for_pyro(self.prior(covariates)))
            if x is None or not self.missing:
                return pyro.sample("x", for_pyro(self.decoder(z, covariates)), obs=x)
            observed, x = ~x.isnan(), x.nan_to_num(nan=0.0)
            return pyro.sample("x", self.decoder(z, covariates, observed), obs=x)

    @renamed(context="covariates")
    def guide(
        self, x: Tensor | None = None, covariates: Tensor | None = None, *, size: int | None = None
    ) -> Tensor:
        """The amortized guide: z from the encoder, given the same arguments as :meth:`model`.

        Returns
        -------
        The latents, shape ``(row, latent)``.

        Raises
        ------
        ValueError
            If ``x`` is None: there is nothing to encode.
        """
        if x is None:
            raise ValueError(
                "the guide got x=None and has nothing to encode; pass rows, or draw from the "
                "prior with the model alone: Predictive(vae.model, num_samples=1)(size=10)"
            )
        self._register("encoder")
        x = self._numbers(x)
        with pyro.plate("row", self._size(x, covariates, size)):
            return pyro.sample("z", for_pyro(self.encoder(x, covariates)))

    def simulate(
        self, size: int, covariates: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Draw z and x together, as :meth:`AmortizedModel.simulate` does.

        Raises
        ------
        ValueError
            If ``covariates`` is not what this VAE is conditional on.
        """
        self._size(None, covariates, None)
        return super().simulate(size, covariates)

    @renamed(context="covariates")
    def check(self, x: Tensor, covariates: Tensor | None = None, *, name: str = "x") -> None:
        """Refuse rows that this VAE does not describe, with what to do about it.

        Raises
        ------
        TypeError, ValueError
            If ``x`` has the wrong type, dtype, shape or range, missing entries where this VAE
            accepts none, or ``covariates`` does not fit.
        """
        check_rows(x, name, intensities=False, dtype=self.like.dtype)
        self._size(x, covariates, None, name=name)
        if covariates is not None:
            wrong = ~as_tensor(covariates, "covariates").to(self.like.dtype).isfinite()
            if wrong.any():
                row = wrong.flatten(1).any(1).nonzero()[0].item()
                raise ValueError(
                    f"covariates has NaN or infinite values, the first in row {row} (as "
                    f"{self.like.dtype}); correct these, or leave the rows out"
                )
        support = getattr(self.decoder, "support", None)
        for start in range(0, len(x), 4096):  # a slice at a time, so that uint8 stays small
            values = to_float(x[start : start + 4096])
            observed = ~values.isnan()
            if not self.missing and not observed.all():
                raise ValueError(
                    f"{name} has missing entries (NaN) but this VAE was built for none; build it "
                    "with VAEConfig(..., missing=True) or VAEConfig.for_data(x), or fill them in"
                )
            if support is None:  # a user's decoder need not say what it accepts
                continue
            wrong = values[observed & ~support.check(values)]
            if len(wrong):
                check_rows(x, name)  # all bytes are 0 or 1, which are no intensities
                raise ValueError(
                    f"{name} holds values such as {wrong[0].item():g}, but "
                    f"{type(self.decoder).__name__} accepts {self.decoder.accepts}; rescale or "
                    f"binarize {name}, or choose another likelihood with VAEConfig.for_data({name})"
                )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write weights and config to one ``.safetensors`` file, whole or not at all.

        Raises
        ------
        ValueError
            If its parts were not built from registries, or a weight is not finite.
        OSError
            If the file cannot be written.
        """
        config = self.config or VAEConfig.of_parts(self.prior, self.decoder, self.encoder)
        if config is None:
            raise ValueError(
                "this VAE has parts that no registry built, so that the file could not say how to "
                "build it again; choose them by name, as VAEConfig(...).parts() does, or "
                "save vae.state_dict() with safetensors instead"
            )
        config = config.model_copy(update={"table": self.table})
        write_vae(path, config, self.name, self.state_dict())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> VAE:
        """Build the VAE that :meth:`save` wrote; nothing in the file is ever executed.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the file is damaged, has no config, or its weights do not fit its config.
        """
        config, name, weights = read_vae(path)
        vae = cls.from_config(config, name=name)
        try:
            vae.to(next(iter(weights.values())).dtype).load_state_dict(weights)
        except RuntimeError as error:
            raise ValueError(
                f"the weights in {str(path)!r} do not fit the config beside them, which was "
                f"changed after saving: {' '.join(str(error).split())}"
            ) from error
        return vae

    def _size(
        self, x: Tensor | None, covariates: Tensor | None, size: int | None, *, name: str = "x"
    ) -> int:
        if x is not None and tuple(x.shape[1:]) != self.event_shape:
            raise ValueError(
                f"{name} has shape {tuple(x.shape)} but this VAE was built for "
                f"(row, {', '.join(map(str, self.event_shape))}); reshape {name} or build a VAE "
                f"with VAEConfig.for_data({name})"
            )
        expected = self.config.covariate_dim if self.config else None
        given = covariates.shape[-1] if covariates is not None else 0
        if expected is not None and given != expected:
            raise ValueError(
                f"covariates has {given} features but this VAE was built for {expected}; "
                f"pass covariates of shape (row, {expected}) or build it with covariate_dim={given}"
            )
        sizes = {len(rows) for rows in (x, covariates) if rows is not None}
        sizes |= {size} if size is not None else set()
        if len(sizes) > 1:
            raise ValueError(
                f"x, covariates and size disagree on the number of rows: {sorted(sizes)}"
            )
        return sizes.pop() if sizes else 1

    def _numbers(self, x: Any) -> Tensor | None:
        """Rows in the precision of the parameters, bytes as intensities, as in :func:`fit`."""
        if x is None:
            return None
        if not isinstance(x, Tensor):
            x = in_memory(by_table(x, self.table)).to(self.like.device)
        return x if x.dtype == self.like.dtype else to_float(as_tensor(x), self.like.dtype)

    def _register(self, *parts: str) -> None:
        """Put the parts' parameters into Pyro's param store, as ``pyro.module`` does."""
        for part in parts:
            for key, parameter in getattr(self, part).named_parameters():
                if not parameter.requires_grad:
                    continue
                name = f"{self.name}.{part}$$${key}"
                if not parameter.is_contiguous():
                    raise ValueError(
                        f"the parameter {part}.{key} is not contiguous in memory, and Pyro's param "
                        "store would train a copy of it; call "
                        "vae.to(memory_format=torch.contiguous_format) before"
                    )
                stored = pyro.param(name, parameter)
                # A handler may stand in for the parameter; another owner in the store may not.
                if stored is not parameter and pyro.get_param_store()[name] is not parameter:
                    raise ValueError(
                        f"Pyro's param store already holds {name!r} of another VAE, whose values "
                        "would be trained in place of this one's. Call pyro.clear_param_store() "
                        "before, as where a notebook's cell is run again; load weights with "
                        "VAE.load rather than into the store; or give this VAE a name of its own, "
                        "VAE(..., name='other'), or a store: "
                        "with pyro.get_param_store().scope(): ..."
                    )


def _check_leaves_out(decoder: nn.Module) -> None:
    """Refuse a decoder that could not leave missing entries out.

    Raises
    ------
    ValueError
        If it takes no third argument, which says what was observed.
    """
    takes = [
        p
        for p in inspect.signature(decoder.forward).parameters.values()
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.VAR_POSITIONAL)
    ]
    if len(takes) < 3 and not any(p.kind == p.VAR_POSITIONAL for p in takes):
        raise ValueError(
            f"the encoder accepts missing entries, but {type(decoder).__name__}.forward takes no "
            "argument that says which entries are observed; write forward(z, covariates=None, "
            "observed=None) and mask the others, or override likelihood alone"
        )


def _check_weights(**parts: nn.Module) -> None:
    """Refuse parts with random weights.

    Raises
    ------
    ValueError
        If a weight is drawn by a PyroSample. It would be drawn within the plate of rows, and
        checks would evaluate densities with another weight each time.
    """
    for part, module in parts.items():
        for where, inner in module.named_modules():
            for name in getattr(inner, "_pyro_samples", ()):
                raise ValueError(
                    f"{'.'.join(filter(None, (part, where, name)))} is drawn by a PyroSample, but "
                    "a VAE's parts have weights that are the same for all rows and are fitted: "
                    "make it an nn.Parameter, or write a model of your own that draws it outside "
                    "of the plate of rows"
                )
