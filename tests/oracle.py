"""The exact oracle: a linear VAE whose evidence and posterior are known in closed form."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pyro.distributions import MultivariateNormal
from torch import Tensor, nn

from ppl_vae import MLP, VAE, NormalDecoder, NormalEncoder, StandardNormal


@dataclass(frozen=True)
class LinearGaussian:
    """z ~ N(0, I), x | z ~ N(W z + b, s^2 I): probabilistic PCA (Tipping & Bishop, 1999).

    The columns of W are orthogonal unless they are correlated, so that the posterior's covariance
    is diagonal and a :class:`NormalEncoder` can be exact.
    """

    weight: Tensor  # (feature, latent)
    bias: Tensor  # (feature,)
    noise: float

    @classmethod
    def random(
        cls,
        latent_dim: int,
        num_features: int,
        noise: float = 0.5,
        seed: int = 0,
        correlation: float = 0.0,
    ) -> LinearGaussian:
        generator = torch.Generator().manual_seed(seed)
        columns = torch.randn(num_features, latent_dim, generator=generator, dtype=torch.float64)
        orthonormal = torch.linalg.qr(columns).Q
        sizes = torch.linspace(2.0, 1.0, latent_dim, dtype=torch.float64)
        bias = torch.randn(num_features, generator=generator, dtype=torch.float64)
        between = torch.full((latent_dim, latent_dim), correlation, dtype=torch.float64)
        root = torch.linalg.cholesky(between.fill_diagonal_(1.0))
        return cls(orthonormal * sizes @ root.T, bias, noise)

    @property
    def latent_dim(self) -> int:
        return self.weight.shape[1]

    @property
    def covariance(self) -> Tensor:
        """Of p(x)."""
        size = len(self.bias)
        return self.weight @ self.weight.T + self.noise**2 * torch.eye(size, dtype=torch.float64)

    def rows(self, size: int, seed: int = 1) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        z = torch.randn(size, self.latent_dim, generator=generator, dtype=torch.float64)
        noise = torch.randn(size, len(self.bias), generator=generator, dtype=torch.float64)
        return z @ self.weight.T + self.bias + self.noise * noise

    def log_evidence(self, x: Tensor) -> Tensor:
        """Exact log p(x), shape (row,); missing entries (NaN) are integrated out."""
        values = []
        for row in x.double():
            seen = ~row.isnan()
            p_x = torch.distributions.MultivariateNormal(
                self.bias[seen], self.covariance[seen][:, seen]
            )
            values.append(p_x.log_prob(row[seen]))
        return torch.stack(values)

    @property
    def posterior_precision(self) -> Tensor:
        """Of p(z|x), (latent, latent), the same for every row."""
        unit = torch.eye(self.latent_dim, dtype=torch.float64)
        return self.weight.T @ self.weight / self.noise**2 + unit

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Exact mean (row, latent) and standard deviation (latent,) of p(z|x)."""
        covariance = torch.linalg.inv(self.posterior_precision)
        gain = covariance @ self.weight.T / self.noise**2
        return (x.double() - self.bias) @ gain.T, covariance.diagonal().sqrt()

    def missing(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Exact mean and standard deviation of p(x_missing | x_observed), (row, feature).

        Of entries that are observed, their value and 0.
        """
        means, sds = [], []
        for row in x.double():
            seen = ~row.isnan()
            across = self.covariance[:, seen]
            gain = across @ torch.linalg.inv(self.covariance[seen][:, seen])
            mean = self.bias + gain @ (row - self.bias)[seen]
            variance = self.covariance.diagonal() - (gain * across).sum(1)
            means.append(torch.where(seen, row, mean))
            sds.append(torch.where(seen, 0.0, variance).sqrt())
        return torch.stack(means), torch.stack(sds)

    def vae_with_gaps(self, widened: float = 1.0) -> VAE:
        """The VAE with this decoder, and the exact encoder of rows with missing entries.

        Its normals have the exact covariance, times a factor squared.
        """
        vae = self.vae()
        return VAE(vae.prior, vae.decoder, _GapsEncoder(self, widened), name="gaps").double()

    def vae(self, scale: str = "log_variance", heads: str = "separate") -> VAE:
        """The VAE with this decoder and the exact encoder, in double precision."""
        size = len(self.bias)
        decoder = NormalDecoder(nn.Linear(self.latent_dim, size), (size,), scale=self.noise)
        encoder = NormalEncoder(MLP((size,)), self.latent_dim, scale, heads)
        vae = VAE(StandardNormal(self.latent_dim), decoder, encoder, name="oracle").double()
        mean, sd = self.posterior(torch.cat([torch.zeros(1, size), torch.eye(size)]).double())
        with torch.no_grad():
            decoder.network.weight.copy_(self.weight)
            decoder.network.bias.copy_(self.bias)
            # A buffer made in single precision, set again in double.
            decoder.raw_scale.copy_(torch.tensor(self.noise, dtype=torch.float64).log())
            gain = (mean[1:] - mean[0]).T  # (latent, feature)
            raw = torch.tensor([encoder.scale.inverse(s) for s in sd.tolist()])
            if heads == "separate":
                encoder.loc_head.weight.copy_(gain)
                encoder.loc_head.bias.copy_(mean[0])
                encoder.scale_head.bias.copy_(raw)
            else:
                encoder.head.weight[: self.latent_dim].copy_(gain)
                encoder.head.bias.copy_(torch.cat([mean[0], raw]))
        return vae


class _GapsEncoder(nn.Module):
    """p(z | x_observed) of a linear-Gaussian oracle."""

    missing = True

    def __init__(self, oracle: LinearGaussian, widened: float) -> None:
        super().__init__()
        self.oracle, self.widened = oracle, widened

    def forward(self, x: Tensor, covariates: Tensor | None = None) -> MultivariateNormal:
        oracle, seen = self.oracle, (~x.isnan()).double()
        outer = torch.einsum("rf,fi,fj->rij", seen, oracle.weight, oracle.weight)
        precision = outer / oracle.noise**2 + torch.eye(oracle.latent_dim, dtype=torch.float64)
        covariance = torch.linalg.inv(precision)
        data = (x - oracle.bias).nan_to_num(nan=0.0) @ oracle.weight / oracle.noise**2
        mean = (covariance @ data[..., None])[..., 0]
        return MultivariateNormal(mean, covariance * self.widened**2)
