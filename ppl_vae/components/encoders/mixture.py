"""Posteriors with several modes."""

from __future__ import annotations

__all__ = ["MixtureEncoder", "MixtureOfNormals"]

from collections.abc import Sequence

import pyro.distributions as dist
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

from ..networks.network import activation_of
from ..scales import Scale
from .encoder import ENCODERS, Encoder


class MixtureOfNormals(dist.MixtureOfDiagNormals):
    """Pyro's mixture, whose draws have gradients, with its moments by formula.

    Source of the gradients: Jankowiak & Karaletsos (2019), *Pathwise derivatives for multivariate
    distributions*.
    """

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws of shape ``(*sample, *batch, latent)``, with gradients."""
        if not sample_shape:
            return super().rsample()
        # Pyro's method draws several times from one mixture, but not from a batch of mixtures.
        return self.expand((*sample_shape, *self.batch_shape)).rsample()

    @property
    def mean(self) -> Tensor:
        """Shape ``(*batch, latent)``."""
        return (self.probs[..., None] * self.locs).sum(-2)

    @property
    def variance(self) -> Tensor:
        """Shape ``(*batch, latent)``."""
        second = self.coord_scale.square() + self.locs.square()
        return (self.probs[..., None] * second).sum(-2) - self.mean.square()


@ENCODERS.register("mixture")
class MixtureEncoder(Encoder):
    r"""A mixture of independent normals, whose weights, locations and scales depend on the row.

    .. math:: q(z \mid x) = \sum_k \pi_k(x) \,
        \mathcal{N}\bigl(z \mid \mu_k(x), \operatorname{diag} \sigma_k^2(x)\bigr)

    Source: Morningstar et al. (2021), *Automatic differentiation variational inference with
    mixtures*; for ``one_hot`` Hotti et al. (2024), *Efficient mixture learning in black-box
    variational inference*.

    Parameters
    ----------
    network, latent_dim, center, spread, missing
        As in :class:`~ppl_vae.Encoder`. There are at least two latents.
    components
        The number of normals.
    one_hot
        Whether the components share their heads, which then read beside the features which of
        them is asked for. Components cost a row of weights each, and not heads of their own.
    scale
        ``"log_variance"``, ``"log_scale"`` or ``"softplus"``.

    Raises
    ------
    ValueError
        If ``components`` is below 2 or there is one latent.

    Examples
    --------
    >>> import torch
    >>> q = MixtureEncoder(nn.Linear(64, 32), latent_dim=2, components=3)(torch.zeros(7, 64))
    >>> q.rsample((5,)).shape, q.locs.shape
    (torch.Size([5, 7, 2]), torch.Size([7, 3, 2]))
    """

    def __init__(
        self,
        network: nn.Module,
        latent_dim: int,
        components: int = 4,
        one_hot: bool = False,
        scale: str = "log_variance",
        *,
        center: float | Sequence[float] | Tensor = 0.0,
        spread: float | Sequence[float] | Tensor = 1.0,
        missing: bool = False,
    ) -> None:
        super().__init__(network, latent_dim, center=center, spread=spread, missing=missing)
        if not (isinstance(components, int) and components >= 2):
            raise ValueError(f"components is {components!r}; pass a whole number of at least 2")
        if latent_dim < 2:
            raise ValueError(
                f"latent_dim is {latent_dim}; draws from a mixture have gradients for two latents "
                "or more: pass latent_dim=2, or choose the guide 'flow'"
            )
        self.components = components
        self.scale = Scale(scale)
        self.logits_head = nn.Linear(self.width, components)
        self.one_hot: nn.Module | None = None
        if one_hot:
            self.features_layer = nn.Linear(self.width, self.width)
            self.one_hot = nn.Embedding(components, self.width)
            self.activation = activation_of("silu")
            self.head = nn.Linear(self.width, 2 * latent_dim)
        else:
            self.head = nn.Linear(self.width, 2 * latent_dim * components)
        # Scales start at one; locations differ from component to component.
        raw_weight = self.head.weight.data.unflatten(0, (-1, 2, latent_dim))
        raw_bias = self.head.bias.data.unflatten(0, (-1, 2, latent_dim))
        raw_weight[:, 1].zero_()
        raw_bias[:, 1].fill_(self.scale.inverse(1.0))

    def posterior(self, features: Tensor) -> TorchDistributionMixin:
        if self.one_hot is None:
            raw = self.head(features)
        else:
            each = self.features_layer(features)[..., None, :] + self.one_hot.weight
            raw = self.head(self.activation(each))
        raw = raw.reshape(*features.shape[:-1], self.components, 2, self.latent_dim)
        loc, raw_scale = raw.unbind(-2)  # (*batch, component, latent)
        return MixtureOfNormals(loc, self.scale(raw_scale), self.logits_head(features))
