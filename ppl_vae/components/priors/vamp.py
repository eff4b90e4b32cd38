"""A learned prior of what the encoder makes of learned rows."""

from __future__ import annotations

__all__ = ["VampPrior"]

from collections.abc import Sequence

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

from ..encoders import Encoder
from ..inputs import TableInputs
from .prior import PRIORS, Prior


@PRIORS.register("vamp")
class VampPrior(Prior):
    r"""The mixture of the posteriors of learned pseudo-inputs :math:`u_k`.

    .. math:: p(z) = \sum_k \pi_k \, q(z \mid u_k)

    Pseudo-inputs are rows in the units in which the encoder's network sees them. They start as
    noise: standard normal where rows are standardized, else around one half.

    Source: Tomczak & Welling (2018), *VAE with a VampPrior*, equation 9.

    Parameters
    ----------
    latent_dim
        The number of latents.
    encoder
        The encoder whose posteriors these are. It is shared, and not a copy.
    event_shape
        The shape of a row of data.
    covariate_dim
        Has to be 0.
    components
        The number of pseudo-inputs.

    Raises
    ------
    ValueError
        If ``components`` is below 1, or there are covariates.

    Examples
    --------
    >>> from ppl_vae import VAE, VAEConfig
    >>> config = VAEConfig(event_shape=(8, 8), latent_dim=2, prior="vamp:components=5")
    >>> vae = VAE.from_config(config)
    >>> vae.prior().log_prob(torch.zeros(7, 2)).shape
    torch.Size([7])
    """

    def __init__(
        self,
        latent_dim: int,
        encoder: Encoder,
        event_shape: Sequence[int],
        covariate_dim: int = 0,
        components: int = 100,
    ) -> None:
        super().__init__(latent_dim)
        if covariate_dim:
            raise ValueError(
                f"covariate_dim is {covariate_dim}, but the posteriors of a VampPrior's rows are "
                "given no covariates; choose another prior"
            )
        if components < 1:
            raise ValueError(f"components is {components}; pass at least 1")
        self.encoder = encoder
        self.logits = nn.Parameter(torch.zeros(components))
        table = isinstance(encoder.inputs, TableInputs)
        noise = torch.randn(components, *((encoder.inputs.width,) if table else event_shape))
        noise = noise if encoder.inputs.standardizes else 0.5 + 0.1 * noise
        self.pseudo_inputs = nn.Parameter(noise)  # (component, *event)

    def forward(self, covariates: Tensor | None = None) -> TorchDistributionMixin:
        inputs = self.encoder.inputs
        x: Tensor = self.pseudo_inputs
        if isinstance(inputs, TableInputs):
            # Codes are whole numbers, along which there is no gradient, but not their features.
            posteriors = self.encoder.posterior(self.encoder.read(x))
        else:
            posteriors = self.encoder(inputs.back(x))
        return dist.MixtureSameFamily(dist.Categorical(logits=self.logits), posteriors)
