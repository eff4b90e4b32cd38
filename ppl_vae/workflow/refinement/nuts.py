"""NUTS on p(z|x) of some rows at once, from chains that start apart."""

from __future__ import annotations

__all__ = ["STARTS", "Elsewhere", "nuts", "starts"]

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.distributions as td
from pyro.infer import MCMC, NUTS
from torch import Tensor

from ...amortized import AmortizedModel
from ...distributions import draw, moments
from ...rows import Batch, Rows
from ..draws.latents import NO_INVERSE
from ..weights.chains import Path, annealed
from .local_normal import LocalPosterior

# Rows whose posteriors say where else latents may lie.
_OTHER_ROWS = 16
# Annealed chains for each chain that starts from one of them, and the fewest.
_CANDIDATES = 4
_FEWEST_CANDIDATES = 32
# Nats by which a weight may be below a row's largest: a thousandth of the posterior is seen.
_NEGLIGIBLE = 7.0
_TEMPERATURES = (50, 100)


STARTS = {
    True: "the local normal, and where annealing from the prior and other rows' posteriors ends",
    False: "the local normal alone, as the encoder's distribution cannot be inverted",
}


class Elsewhere:
    """Where the latents of a row may be, if not where its encoder says.

    Half the draws are of the prior and half of the posteriors of other rows, normals with the
    moments of q(z|x) there, of which a mixture has the density.

    Parameters
    ----------
    prior
        p(z) of the rows.
    others
        Means and standard deviations, ``(component, latent)``.
    num_rows
        For how many rows to draw.
    """

    batch_shape = ()

    def __init__(self, prior: Any, others: tuple[Tensor, Tensor], num_rows: int) -> None:
        mean, sd = others
        self.at_prior = prior
        self.num_rows = num_rows
        self.others = td.MixtureSameFamily(
            td.Categorical(logits=mean.new_zeros(len(mean))),
            td.Independent(td.Normal(mean, sd), 1),
        )

    @classmethod
    def of(cls, vae: AmortizedModel, data: Rows) -> tuple[Tensor, Tensor]:
        """Moments of the encoder's posteriors of some rows, spread over all of them."""
        chosen = np.unique(np.linspace(0, len(data) - 1, _OTHER_ROWS).round().astype(int))
        mean, sd = moments(vae.posterior(*data.take(chosen, vae.like)))
        usable = mean.isfinite().all(-1) & sd.isfinite().all(-1) & (sd > 0).all(-1)
        if usable.any():
            return mean[usable], sd[usable]
        return torch.zeros_like(mean[:1]), torch.ones_like(sd[:1])

    def sample(self, shape: torch.Size) -> Tensor:
        """Latents ``(draw, row, latent)``."""
        size = shape[0]
        near = self.others.sample((size - size // 2, self.num_rows))
        if size == 1:  # not every distribution can draw nothing
            return near
        return torch.cat([near, draw(self.at_prior, (size // 2,), rows=self.num_rows)])

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density of the mixture, ``(draw, row)``."""
        return torch.logaddexp(self.at_prior.log_prob(z), self.others.log_prob(z)) - math.log(2)


def starts(
    vae: AmortizedModel,
    batch: Batch,
    best: LocalPosterior,
    others: tuple[Tensor, Tensor],
    num_chains: int,
    num_temperatures: int,
) -> tuple[Tensor, bool]:
    """Where chains start, as noise ``(chain, row, latent)`` of the local normal.

    A quarter starts from the local normal, one chain at least. The others start where annealing
    from the prior and from other rows' posteriors ends, unless its weight there is more than seven
    nats below the largest: annealing got stuck, or so little of the posterior lies there. Half of
    them as far from each other and from the local normal as there are, so that R-hat sees a second
    mode; and half with probability proportional to the square root of their weights.

    Some flows say where noise goes and not where latents came from. All chains then start from the
    local normal, and the second value returned is false.
    """
    noise = best.noise(num_chains)
    near = max(1, num_chains // 4)
    far = num_chains - near
    if not far:
        return noise, True
    prior = vae.prior_at(batch.covariates)
    path = Path(vae, *batch, start=Elsewhere(prior, others, len(batch.x)))
    size = max(_FEWEST_CANDIDATES, _CANDIDATES * num_chains)
    z, log_weight = annealed(path, size, num_temperatures)
    try:
        ends = best.normal.noise_of(best.coordinates.map.back(z))
    except NO_INVERSE:
        return noise, False
    usable = ends.isfinite().all(-1) & log_weight.isfinite()
    log_weight = log_weight.masked_fill(~usable, -torch.inf)
    usable &= log_weight > log_weight.amax(0) - _NEGLIGIBLE  # (candidate, row)
    apart = _farthest(ends, usable, (far + 1) // 2)
    likely = _resampled(0.5 * log_weight.masked_fill(~usable, -torch.inf), far // 2)
    chosen = torch.cat([apart, likely])  # (chain, row)
    picked = ends.gather(0, chosen[..., None].expand(-1, -1, ends.shape[-1]))
    found = usable.gather(0, chosen)[..., None]
    noise[near:] = torch.where(found, picked.to(noise.dtype), noise[near:])
    return noise, True


def _farthest(points: Tensor, usable: Tensor, number: int) -> Tensor:
    """Indices ``(number, row)`` of points that are far from zero and from each other."""
    distance = points.square().sum(-1).masked_fill(~usable, -1.0)  # (candidate, row)
    chosen = []
    for _ in range(number):
        chosen.append(distance.argmax(0))
        last = points.gather(0, chosen[-1][None, :, None].expand(1, -1, points.shape[-1]))
        distance = torch.minimum(distance, (points - last).square().sum(-1))
    return torch.stack(chosen)


def _resampled(log_weight: Tensor, number: int) -> Tensor:
    """Indices ``(number, row)`` by systematic resampling: of each as many as its share, to one."""
    share = (log_weight - log_weight.logsumexp(0)).exp().nan_to_num(1 / len(log_weight))
    edges = share.cumsum(0).T.contiguous()  # (row, candidate)
    offset = torch.rand(len(edges), 1, dtype=edges.dtype, device=edges.device)
    levels = (torch.arange(number, device=edges.device) + offset) / max(1, number)
    return torch.searchsorted(edges, levels).clamp(max=len(log_weight) - 1).T


def nuts(
    vae: AmortizedModel,
    batch: Batch,
    best: LocalPosterior,
    others: tuple[Tensor, Tensor],
    num_chains: int,
    num_warmup: int,
    num_samples: int,
    advance: Callable[[], None],
) -> tuple[dict[str, np.ndarray], str]:
    """Draws of p(z|x) with what says whether chains agree, the row first in all arrays.

    And where chains started, in words.
    """
    import arviz_stats
    import xarray as xr

    like = best.normal.loc.dtype
    least, most = _TEMPERATURES
    temperatures = min(max((num_warmup + num_samples) // 4, least), most)
    initial, apart = starts(vae, batch, best, others, num_chains, temperatures)

    def log_density(noise: Tensor) -> Tensor:
        z, log_det = best.coordinates.map(best.normal.at(noise))
        return vae.log_joint(z, *batch) + log_det

    lowest = log_density(torch.zeros_like(initial[:1]))
    # A row without a density moves by itself, and is NaN in the end: the others are not held up.
    lost = ~lowest.isfinite()
    unusable = lost | ~log_density(initial).isfinite()  # (chain, row)

    def potential(site: dict[str, Tensor]) -> Tensor:
        with torch.enable_grad():
            free = 0.5 * site["noise"].square().sum(-1)
            # What a lost row's density is NaN of is cut off, so that no gradient comes back.
            inside = torch.where(lost[..., None], 0.0, site["noise"])
            # The sum over rows is large, and what is accepted depends on differences of it below
            # one: each row counts from its own zero, and in double precision.
            each = (lowest - log_density(inside.to(like))).double()
            return torch.where(lost, free, each).sum()

    # No mass matrix is adapted: the local normal is one, and a row's own.
    kernel = NUTS(potential_fn=potential, adapt_mass_matrix=False)
    mcmc = MCMC(
        kernel,
        num_samples,
        num_warmup,
        initial_params={"noise": torch.where(unusable[..., None], 0.0, initial).double()},
        disable_progbar=True,
        hook_fn=lambda *_: advance(),
    )
    mcmc.run()
    noise = mcmc.get_samples()["noise"].to(like).transpose(0, 1)  # (chain, draw, row, latent)
    flat = noise.flatten(0, 1)
    z, _ = best.coordinates.map(best.normal.at(flat))
    z = torch.where(lost[..., None], torch.nan, z)
    log_p = vae.log_joint(z, *batch).unflatten(0, noise.shape[:2])
    z = z.unflatten(0, noise.shape[:2])
    diverging = np.zeros(log_p.shape, dtype=bool)
    diverging[:, mcmc.diagnostics()["divergences"]["chain 0"]] = True
    made = {"z": z.cpu().numpy(), "log_p": log_p.cpu().numpy(), "diverging": diverging}
    chains = xr.Dataset({"z": (("chain", "draw", "row", "latent"), made["z"])})
    arrays = {name: np.moveaxis(array, 2, 0) for name, array in made.items()}
    arrays["r_hat"] = arviz_stats.rhat(chains).z.values  # type: ignore[attr-defined]
    for kind in ("bulk", "tail"):
        ess = arviz_stats.ess(chains, method=kind)  # type: ignore[attr-defined]
        arrays[f"ess_{kind}"] = ess.z.values
    return arrays, STARTS[apart]
