"""Normal posteriors: independent, with a full covariance, or with one of low rank."""

from __future__ import annotations

__all__ = ["FullRankEncoder", "LowRankEncoder", "NormalEncoder"]

from collections.abc import Sequence

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

from ..scales import Scale
from .encoder import ENCODERS, Encoder


@ENCODERS.register("normal")
class NormalEncoder(Encoder):
    r"""Independent normals whose locations and scales a network computes for each row.

    .. math:: q(z \mid x) = \mathcal{N}\bigl(z \mid \mu(x), \operatorname{diag} \sigma^2(x)\bigr),
        \quad \sigma(x) = \exp(\tfrac{1}{2} \log \sigma^2(x)) \text{ by default}

    What is learned are the weights of the network and of the heads; :math:`\mu` and
    :math:`\sigma` are its outputs, different for each row. The scale starts at one, the prior's,
    for every row and whatever the parameterization.

    Source: Kingma & Welling (2014), equation 9 and appendix C.2.

    Parameters
    ----------
    network, latent_dim, center, spread, missing
        As in :class:`~ppl_vae.Encoder`.
    scale
        ``"log_variance"``, ``"log_scale"`` or ``"softplus"``: see
        :class:`~ppl_vae.components.scales.Scale`.
    heads
        ``"separate"``: a linear layer for the location and one for the raw scale, as in Keras's
        example. ``"joint"``: one layer of twice the width, split, as in TensorFlow's. With the
        same weights they are the same function.

    Raises
    ------
    ValueError
        If ``scale`` or ``heads`` is unknown, or the network does not say what it should.

    Examples
    --------
    >>> network = nn.Sequential(nn.Linear(64, 32), nn.ReLU())
    >>> q = NormalEncoder(network, latent_dim=2)(torch.zeros(7, 64))
    >>> q.batch_shape, q.event_shape
    (torch.Size([7]), torch.Size([2]))
    """

    def __init__(
        self,
        network: nn.Module,
        latent_dim: int,
        scale: str = "log_variance",
        heads: str = "separate",
        *,
        center: float | Sequence[float] | Tensor = 0.0,
        spread: float | Sequence[float] | Tensor = 1.0,
        missing: bool = False,
    ) -> None:
        super().__init__(network, latent_dim, center=center, spread=spread, missing=missing)
        self.heads = heads
        self.scale = Scale(scale)
        if heads == "separate":
            self.loc_head = nn.Linear(self.width, latent_dim)
            self.scale_head = nn.Linear(self.width, latent_dim)
            raw_weight, raw_bias = self.scale_head.weight.data, self.scale_head.bias.data
        elif heads == "joint":
            self.head = nn.Linear(self.width, 2 * latent_dim)
            raw_weight = self.head.weight.data[latent_dim:]
            raw_bias = self.head.bias.data[latent_dim:]
        else:
            raise ValueError(f"heads is {heads!r}; accepted are 'separate', 'joint'")
        raw_weight.zero_()
        raw_bias.fill_(self.scale.inverse(1.0))

    def posterior(self, features: Tensor) -> TorchDistributionMixin:
        if self.heads == "joint":
            loc, raw = self.head(features).chunk(2, dim=-1)
        else:
            loc, raw = self.loc_head(features), self.scale_head(features)
        return dist.Normal(loc, self.scale(raw)).to_event(1)

    def draw(
        self, x: Tensor, covariates: Tensor | None = None, *, epsilon_std: float = 1.0
    ) -> Tensor:
        r"""Draw :math:`z = \mu(x) + \sigma(x)\, \epsilon`, the reparameterization written out.

        With the same random state these are the draws of ``encoder(x).rsample()``.

        Source: Kingma & Welling (2014), section 2.4; Keras's tutorial, ``sampling``.

        Parameters
        ----------
        x, covariates
            As for ``encoder(x, covariates)``.
        epsilon_std
            The standard deviation of :math:`\epsilon`. Only 1 gives draws of q(z|x); Keras's
            tutorial has the option, and less than 1 stays nearer to :math:`\mu`.

        Returns
        -------
        Latents, shape ``(*batch, latent)``.

        Raises
        ------
        ValueError
            If ``epsilon_std`` is negative or not a number.

        Examples
        --------
        >>> encoder = NormalEncoder(nn.Linear(64, 32), latent_dim=2)
        >>> encoder.draw(torch.zeros(7, 64), epsilon_std=0.1).shape
        torch.Size([7, 2])
        """
        if not 0 <= epsilon_std < float("inf"):
            raise ValueError(
                f"epsilon_std is {epsilon_std}; pass a number of at least 0, where 1 draws q(z|x)"
            )
        q = self(x, covariates).base_dist
        return q.loc + q.scale * epsilon_std * torch.randn_like(q.loc)


@ENCODERS.register("full_rank")
class FullRankEncoder(Encoder):
    r"""A normal with a full covariance, which says how latents depend on each other.

    .. math:: q(z \mid x) = \mathcal{N}\bigl(z \mid \mu(x), L(x) L(x)^\top\bigr)

    The lower triangular :math:`L` starts at the identity for every row. Its diagonal is positive
    by ``scale``; below it are any real numbers.

    Source: Kingma & Welling (2019), *An introduction to variational autoencoders*, section 2.5.1.

    Parameters
    ----------
    network, latent_dim, center, spread, missing
        As in :class:`~ppl_vae.Encoder`.
    scale
        ``"log_variance"``, ``"log_scale"`` or ``"softplus"``, of the diagonal.

    Examples
    --------
    >>> q = FullRankEncoder(nn.Linear(64, 32), latent_dim=2)(torch.zeros(7, 64))
    >>> q.covariance_matrix[0].tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """

    def __init__(
        self,
        network: nn.Module,
        latent_dim: int,
        scale: str = "log_scale",
        *,
        center: float | Sequence[float] | Tensor = 0.0,
        spread: float | Sequence[float] | Tensor = 1.0,
        missing: bool = False,
    ) -> None:
        super().__init__(network, latent_dim, center=center, spread=spread, missing=missing)
        self.scale = Scale(scale)
        self.loc_head = nn.Linear(self.width, latent_dim)
        self.tril_head = nn.Linear(self.width, latent_dim * latent_dim)
        self.tril_head.weight.data.zero_()
        diagonal = torch.eye(latent_dim).flatten() * self.scale.inverse(1.0)
        self.tril_head.bias.data.copy_(diagonal)

    def posterior(self, features: Tensor) -> TorchDistributionMixin:
        raw = self.tril_head(features)
        raw = raw.reshape(*raw.shape[:-1], self.latent_dim, self.latent_dim)
        diagonal = self.scale(raw.diagonal(dim1=-2, dim2=-1))  # (*batch, latent)
        return dist.MultivariateNormal(
            self.loc_head(features), scale_tril=raw.tril(-1) + diagonal.diag_embed()
        )


@ENCODERS.register("low_rank")
class LowRankEncoder(Encoder):
    r"""A normal whose latents depend on each other along a few directions.

    .. math:: q(z \mid x) = \mathcal{N}\bigl(z \mid \mu(x), V(x) V(x)^\top
        + \operatorname{diag} \sigma^2(x)\bigr)

    It starts near the encoder ``"normal"``: the entries of :math:`V` are small.

    Source: Ong et al. (2018), *Gaussian variational approximation with a factor covariance
    structure*, equation 3.

    Parameters
    ----------
    network, latent_dim, center, spread, missing
        As in :class:`~ppl_vae.Encoder`.
    rank
        The number of directions, columns of :math:`V`.
    scale
        ``"log_variance"``, ``"log_scale"`` or ``"softplus"``, of :math:`\sigma`.

    Raises
    ------
    ValueError
        If ``rank`` is below 1.

    Examples
    --------
    >>> q = LowRankEncoder(nn.Linear(64, 32), latent_dim=8, rank=2)(torch.zeros(7, 64))
    >>> q.cov_factor.shape
    torch.Size([7, 8, 2])
    """

    def __init__(
        self,
        network: nn.Module,
        latent_dim: int,
        rank: int = 2,
        scale: str = "log_variance",
        *,
        center: float | Sequence[float] | Tensor = 0.0,
        spread: float | Sequence[float] | Tensor = 1.0,
        missing: bool = False,
    ) -> None:
        super().__init__(network, latent_dim, center=center, spread=spread, missing=missing)
        if not (isinstance(rank, int) and rank >= 1):
            raise ValueError(f"rank is {rank!r}; pass a whole number of at least 1")
        self.rank = rank
        self.scale = Scale(scale)
        self.loc_head = nn.Linear(self.width, latent_dim)
        self.scale_head = nn.Linear(self.width, latent_dim)
        nn.init.zeros_(self.scale_head.weight)
        nn.init.constant_(self.scale_head.bias, self.scale.inverse(1.0))
        self.factor_head = nn.Linear(self.width, latent_dim * rank)
        # It is not zero, since there the gradient would be zero too.
        nn.init.zeros_(self.factor_head.weight)
        nn.init.normal_(self.factor_head.bias, std=0.01)

    def posterior(self, features: Tensor) -> TorchDistributionMixin:
        factor = self.factor_head(features)
        return dist.LowRankMultivariateNormal(
            self.loc_head(features),
            factor.reshape(*factor.shape[:-1], self.latent_dim, self.rank),
            self.scale(self.scale_head(features)).square(),
        )
