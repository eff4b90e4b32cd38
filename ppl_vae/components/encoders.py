"""q(z|x): the amortized guide's distribution over latents, computed by a network row by row."""

from __future__ import annotations

__all__ = ["ENCODERS", "NormalEncoder"]

from collections.abc import Sequence
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

from .scales import Scale


class NormalEncoder(nn.Module):
    r"""Independent normals whose locations and scales a network computes for each row.

    .. math:: q(z \mid x) = \mathcal{N}\bigl(z \mid \mu(x), \operatorname{diag} \sigma^2(x)\bigr),
        \quad \sigma(x) = \exp(\tfrac{1}{2} \log \sigma^2(x)) \text{ by default}

    What is learnt are the weights of the network and of the heads; :math:`\mu` and
    :math:`\sigma` are its outputs, different for each row. The scale starts at one, the prior's,
    for every row and whatever the parameterization.

    Source: Kingma & Welling (2014), equation 9 and appendix C.2.

    Parameters
    ----------
    network
        Maps ``(*batch, *event)`` to features ``(*batch, features)``. The number of features is
        its ``out_features``, or that of its last submodule that has one. It is called with the
        covariates as a second argument where there is one.
    latent_dim
        The number of latents.
    scale
        ``"log_variance"``, ``"log_scale"`` or ``"softplus"``: see
        :class:`~ppl_vae.components.scales.Scale`.
    heads
        ``"separate"``: a linear layer for the location and one for the raw scale, as in Keras's
        example. ``"joint"``: one layer of twice the width, split, as in TensorFlow's. With the
        same weights they are the same function.
    center, spread
        The network sees ``(x - center) / spread``. Numbers, or one for each entry of an event.
    missing
        Whether ``x`` may hold missing entries (NaN). They are filled with ``center``, and the
        network is given, stacked before the event's dimensions, the filled entries and the mask
        of what was observed: it reads events of shape ``(2, *event)``.

    Raises
    ------
    ValueError
        If ``scale`` or ``heads`` is unknown, the network does not say how many features it
        returns, or ``missing`` is true and it does not say what shape it reads.

    Examples
    --------
    >>> network = nn.Sequential(nn.Linear(64, 32), nn.ReLU())
    >>> q = NormalEncoder(network, latent_dim=2)(torch.zeros(7, 64))
    >>> q.batch_shape, q.event_shape
    (torch.Size([7]), torch.Size([2]))
    """

    center: Tensor
    spread: Tensor

    def __init__(
        self,
        network: nn.Module,
        latent_dim: int,
        scale: str = "log_variance",
        heads: str = "separate",
        *,
        center: float | Sequence[float] = 0.0,
        spread: float | Sequence[float] = 1.0,
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
        width: int = getattr(network, "out_features", features[-1])
        if missing and not hasattr(network, "in_shape"):
            raise ValueError(
                "missing=True needs a network that says in_shape, (2, *event): MLP or ConvEncoder"
            )
        self.network = network
        self.latent_dim = latent_dim
        self.heads = heads
        self.missing = missing
        self._mask_dim = -len(getattr(network, "in_shape", ()))
        self.scale = Scale(scale)
        if heads == "separate":
            self.loc_head = nn.Linear(width, latent_dim)
            self.scale_head = nn.Linear(width, latent_dim)
            raw_weight, raw_bias = self.scale_head.weight.data, self.scale_head.bias.data
        elif heads == "joint":
            self.head = nn.Linear(width, 2 * latent_dim)
            raw_weight = self.head.weight.data[latent_dim:]
            raw_bias = self.head.bias.data[latent_dim:]
        else:
            raise ValueError(f"heads is {heads!r}; accepted are 'separate', 'joint'")
        raw_weight.zero_()
        raw_bias.fill_(self.scale.inverse(1.0))
        self.register_buffer("center", torch.as_tensor(center, dtype=torch.get_default_dtype()))
        self.register_buffer("spread", torch.as_tensor(spread, dtype=torch.get_default_dtype()))
        self._notice_numbers()
        self.register_load_state_dict_post_hook(NormalEncoder._notice_numbers)

    def _notice_numbers(self, *_: object) -> None:
        """Leave a standardization out that changes nothing; other numbers may be loaded."""
        self.standardizes = bool(self.center.any() or (self.spread != 1).any())

    def forward(self, x: Tensor, covariates: Tensor | None = None) -> TorchDistributionMixin:
        """q(z|x), with batch shape ``(*batch,)`` and event shape ``(latent,)``."""
        if self.standardizes:
            x = (x - self.center) / self.spread
        if self.missing:
            observed = ~x.isnan()
            x = torch.stack([x.nan_to_num(nan=0.0), observed.to(x.dtype)], dim=self._mask_dim)
        features = self.network(x) if covariates is None else self.network(x, covariates)
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


ENCODERS = {"normal": NormalEncoder}
