"""Where a posterior has mass that no draw of q reaches, as annealing sees it."""

from __future__ import annotations

__all__ = ["missed_mass"]

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch.distributions import MultivariateNormal

from ...amortized import AmortizedModel
from ...progress import Progress
from ...rows import Rows, rows_within_budget
from ...sink import MemorySink
from ..draws.posterior import evaluating
from ..weights.averages import average_chains
from ..weights.chains import Path, annealed

if TYPE_CHECKING:
    import numpy as np

_CHAINS = 16
_TEMPERATURES = 100
# A weight so many nats above what the largest of all draws should have says that q was not there.
_UNSEEN = 2.0


def missed_mass(
    vae: AmortizedModel,
    data: Rows,
    log_evidence: np.ndarray,
    num_draws: np.ndarray,
    *,
    normals: Mapping[int, tuple[np.ndarray, np.ndarray]] | None = None,
    seed: int = 0,
    progress: bool = True,
) -> dict[str, np.ndarray]:
    r"""How much of p(z|x) lies where q(z|x) puts next to no draws.

    Chains are annealed from the prior to the posterior of each row. What ends at a z whose weight
    under q is more than :math:`e^2 S` times the mean of S draws' weights has found a place that
    these draws had no chance to see. Its annealed weights, summed, estimate without bias how much
    of p(x) is there:

    .. math:: \frac{1}{n p(x)} \sum_i w_i
        \left[\log \frac{p(x, z_i)}{q(z_i \mid x)} > \log p(x) + \log S + 2\right]

    Parameters
    ----------
    vae, data
        A model and rows.
    log_evidence, num_draws
        Of each row, by importance sampling from q: nats, and S.
    normals
        Mean and covariance of a posterior to put in place of the encoder's, by row.
    seed, progress
        As in :func:`~ppl_vae.diagnose`.

    Returns
    -------
    Arrays over rows: ``missed_mass``, and of annealing ``annealed_log_evidence`` and
    ``annealed_standard_error``, nats.
    """
    normals = normals or {}
    size = rows_within_budget(vae.event_shape, _CHAINS, gradients=True)
    sink = MemorySink(len(data))
    with evaluating(vae, seed), Progress(len(data), "other modes", show=progress) as bar:
        for rows, batch in data.chunks(size, vae.like):
            path = Path(vae, *batch, start="prior")
            z, log_weight = annealed(path, _CHAINS, _TEMPERATURES, bar)
            log_q = vae.posterior(*batch).log_prob(z)  # (chain, row)
            for row in set(range(len(data))[rows]) & normals.keys():
                mean, covariance = (torch.as_tensor(part).to(log_weight) for part in normals[row])
                normal = MultivariateNormal(mean, covariance)
                at = row - rows.start
                log_q[:, at] = normal.log_prob(z[:, at].to(log_weight)).to(log_q)
            log_ratio = (vae.log_joint(z, *batch) - log_q).double()
            here = torch.as_tensor(log_evidence[rows]).to(log_weight)
            unseen = torch.as_tensor(num_draws[rows]).to(here).log() + _UNSEEN
            annealing = average_chains(log_weight, _TEMPERATURES)
            total = torch.fmax(here, annealing["log_evidence"])
            share = (log_weight - total - math.log(_CHAINS)).exp().nan_to_num(nan=0.0)
            sink.write("missed_mass", rows, (share * (log_ratio > here + unseen)).sum(0))
            for name in ("log_evidence", "standard_error"):
                sink.write(f"annealed_{name}", rows, annealing[name])
    return sink.arrays()
