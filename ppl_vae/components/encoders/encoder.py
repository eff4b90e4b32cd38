"""What an encoder must say: the distribution of a row's latents, given features of the row."""

from __future__ import annotations

__all__ = ["ENCODERS", "Encoder"]

import abc
from collections.abc import Sequence
from typing import Any

from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

from ..inputs import Inputs, TableInputs
from ..networks.network import called
from ..registry import Registry


class Encoder(nn.Module, abc.ABC):
    r"""An amortized posterior, :math:`q(z \mid x) = q(z \mid h(x))` with features :math:`h`.

    A family is a subclass that turns features into a distribution, :meth:`posterior`, by layers
    of its own, which read ``self.width`` features. What is learned are the weights of the network
    and of these layers; the parameters of the distribution are their outputs, for each row.

    Parameters
    ----------
    network
        Maps rows ``(row, *event)`` to features ``(row, features)``. The number of features is its
        ``out_features``, or that of its last submodule that has one. It is called with the
        covariates as a second argument where there are some.
    latent_dim
        The number of latents.
    center, spread, missing
        What happens to rows before: :class:`~ppl_vae.components.inputs.Inputs`. With ``missing``
        the network reads events of shape ``(2, *event)``, and says so as ``in_shape``.

    Raises
    ------
    ValueError
        If the network does not say how many features it returns, or, with ``missing``, what it
        reads.

    Examples
    --------
    >>> import pyro.distributions as dist
    >>> import torch
    >>> from ppl_vae import MLP
    >>> class UnitEncoder(Encoder):
    ...     def __init__(self, network, latent_dim, **inputs):
    ...         super().__init__(network, latent_dim, **inputs)
    ...         self.loc = nn.Linear(self.width, latent_dim)
    ...
    ...     def posterior(self, features):
    ...         return dist.Normal(self.loc(features), 1.0).to_event(1)
    >>> encoder = UnitEncoder(MLP((4,), hidden=(8,)), latent_dim=2)
    >>> encoder(torch.zeros(10, 4)).batch_shape
    torch.Size([10])
    """

    def __init__(
        self,
        network: nn.Module,
        latent_dim: int,
        *,
        center: float | Sequence[float] | Tensor = 0.0,
        spread: float | Sequence[float] | Tensor = 1.0,
        missing: bool = False,
    ) -> None:
        super().__init__()
        features: list[Any] = [
            m.out_features for m in network.modules() if hasattr(m, "out_features")
        ]
        if not features:
            raise ValueError(
                "network does not say how many features it returns; set network.out_features"
            )
        if missing and not hasattr(network, "in_shape"):
            raise ValueError(
                "missing=True needs a network that says in_shape, (2, *event): MLP or ConvEncoder"
            )
        self.width: int = getattr(network, "out_features", features[-1])
        self.network = network
        self.latent_dim = latent_dim
        # The number of dimensions that the network reads; 0 where it does not say.
        self._read_dim = len(getattr(network, "in_shape", ()))
        self.inputs: Inputs | TableInputs = Inputs(
            center=center, spread=spread, missing=missing, event_dim=self._read_dim - 1
        )

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Read weights of 0.1 too, in which the encoder itself held its inputs' numbers."""
        for name, changes_nothing in (("center", 0.0), ("spread", 1.0)):
            value = state_dict.pop(f"{prefix}{name}", None)
            if value is None:
                continue
            if self.inputs.standardizes or not (value == changes_nothing).all():
                state_dict[f"{prefix}inputs.{name}"] = value
        super()._load_from_state_dict(state_dict, prefix, *rest)

    @property
    def missing(self) -> bool:
        """Whether rows may hold missing entries (NaN)."""
        return self.inputs.missing

    @abc.abstractmethod
    def posterior(self, features: Tensor) -> TorchDistributionMixin:
        """q(z|x) of features ``(*batch, width)``: batch ``(*batch,)``, event ``(latent,)``."""

    def features(self, x: Tensor, covariates: Tensor | None = None) -> Tensor:
        """What the network makes of rows ``(*batch, *event)``: shape ``(*batch, width)``."""
        return self.read(self.inputs(x), covariates)

    def read(self, x: Tensor, covariates: Tensor | None = None) -> Tensor:
        """What the network makes of rows as :class:`Inputs` left them: ``(*batch, width)``."""
        if self._read_dim:
            return called(self.network, x, covariates, event_dim=self._read_dim)
        return self.network(x) if covariates is None else self.network(x, covariates)

    def forward(self, x: Tensor, covariates: Tensor | None = None) -> TorchDistributionMixin:
        """q(z|x), with batch shape ``(*batch,)`` and event shape ``(latent,)``."""
        return self.posterior(self.features(x, covariates))


ENCODERS: Registry[Encoder] = Registry(
    "guide", given=("network", "latent_dim", "center", "spread", "missing")
)
