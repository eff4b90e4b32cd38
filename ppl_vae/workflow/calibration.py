"""Simulation-based calibration: is q(z|x) the posterior of this decoder?"""

from __future__ import annotations

__all__ = ["calibrate", "p_text"]

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..amortized import AmortizedModel
from ..progress import Progress
from ..renamed import renamed
from ..rows import Rows, rows_within_budget
from .latents import draw
from .posterior import evaluating

if TYPE_CHECKING:
    import xarray as xr

_MOMENTS = 4  # of the ranks, that are tested together
_LEVEL = 0.01  # of all quantities together, below which a shape is put into words


@renamed(context="covariates")
def calibrate(
    vae: AmortizedModel,
    *,
    covariates: Tensor | None = None,
    num_simulations: int = 1000,
    num_draws: int = 199,
    seed: int = 0,
    chunk_rows: int | None = None,
    progress: bool = True,
) -> xr.Dataset:
    r"""Rank simulated truths among draws from the encoder.

    .. math:: z \sim p(z), \quad x \sim p(x \mid z), \quad z_1, \ldots, z_L \sim q(z \mid x),
        \quad \text{rank} = \#\{l : g(z_l, x) < g(z, x)\}

    If q(z|x) is the posterior, ranks of any quantity g are uniform on 0, ..., L. Ranks of the
    latents alone cannot see an encoder that ignores the data (the prior passes), so log p(x|z)
    and log p(x, z) are ranked too. Equal values are ranked at random.

    This tests the encoder against the decoder, not the decoder against the world: for that see
    :func:`~ppl_vae.workflow.predictive.predictive_check`. It speaks of rows that the decoder
    simulates, from the whole prior, with no entry missing.

    Parameters
    ----------
    vae
        A VAE.
    covariates
        Shape ``(row, covariate)``, for a conditional VAE; rows are simulated for each in turn.
    num_simulations
        How many rows to simulate.
    num_draws
        L, draws from q(z|x) for each.
    seed
        Decides the simulations and, together with ``chunk_rows``, the draws.
    chunk_rows
        Rows at a time; by default as many as keep a chunk within about 64 MB.
    progress
        Show how it goes on standard error.

    Returns
    -------
    xarray.Dataset
        Over ``quantity``: ``z[0]``, ``z[1]``, ..., ``log_likelihood``, log p(x|z), and
        ``log_joint``, log p(x, z).

        - ``rank`` (simulation, quantity), from 0 to L.
        - ``p_value`` (quantity) of uniform ranks. The smallest of D + 2 quantities is below 0.01
          by chance in about D + 2 of a hundred calibrations.
        - ``offset`` (quantity), of the mean rank from the middle, as a fraction of the ranks, and
          ``spread`` (quantity), the ranks' variance in units of a uniform's.
        - ``shape`` (quantity): ``"uniform"``, unless p is below 0.01 divided by the number of
          quantities; else ``"shifted"``, ``"too narrow"`` (spread above 1) or ``"too wide"``,
          whichever of offset and spread is further out, or ``"other"`` where neither is three
          standard errors out. Of a latent it is q(z|x) that has this fault. A shifted
          log-likelihood says that draws fit their row better (negative offset) or worse than the
          posterior's would.

    Raises
    ------
    ValueError
        If ``covariates`` is not what the VAE describes or a number is below what is needed.

    Notes
    -----
    Source: Talts et al. (2018), algorithm 1; Yao et al. (2018) for variational inference; Modrák
    et al. (2023) for data-dependent quantities.

    The p-value is Neyman's (1937) smooth test: the mean over simulations of each of the first
    four orthonormal polynomials of the rank is standard normal, so that their squares sum to a
    :math:`\chi^2_4`. The first two are shift and width, the faults that encoders have; against
    these it needs fewer simulations than :math:`\chi^2` over a histogram of 20 bins.

    Examples
    --------
    >>> from ppl_vae import VAE, VAEConfig
    >>> vae = VAE.from_config(VAEConfig(event_shape=(8, 8), latent_dim=2, hidden=(16,)))
    >>> ranks = calibrate(vae, num_simulations=100, num_draws=49, progress=False)
    >>> ranks.p_value.quantity.values.tolist()
    ['z[0]', 'z[1]', 'log_likelihood', 'log_joint']
    """
    import xarray as xr

    if num_simulations < 20:
        raise ValueError(
            f"num_simulations is {num_simulations}, too few to test; pass at least 20, better 1000"
        )
    if num_draws < 9:
        raise ValueError(f"num_draws is {num_draws}, too few to rank; pass at least 9, better 199")
    size = rows_within_budget(vae.event_shape, num_draws, chunk_rows=chunk_rows)
    ranks = []
    with evaluating(vae, seed), Progress(num_simulations, "calibrate", show=progress) as bar:
        z, x, given = vae.simulate(num_simulations, covariates)
        for rows, batch in Rows(x, given).chunks(size, vae.like):
            draws = draw(vae.posterior(*batch), (num_draws,))
            # (draw, row, latent), the truth first: evaluated together, they are rounded alike.
            together = torch.cat([z[rows][None], draws])
            log_likelihood = vae.log_likelihood(together, *batch)  # (draw, row)
            log_joint = log_likelihood + vae.prior_at(batch.covariates).log_prob(together)
            values = torch.cat([together, torch.stack([log_likelihood, log_joint], -1)], -1)
            ranks.append(_rank(values[0], values[1:]))
            bar.advance(len(z[rows]))
    rank = torch.cat(ranks).cpu().numpy()
    p_value = _p_value(rank, num_draws + 1)
    fraction = (rank + 0.5) / (num_draws + 1)
    offset = fraction.mean(0) - 0.5
    spread = 12 * fraction.var(0) / (1 - (num_draws + 1.0) ** -2)
    return xr.Dataset(
        {
            "rank": (("simulation", "quantity"), rank),
            "p_value": ("quantity", p_value),
            "offset": ("quantity", offset),
            "spread": ("quantity", spread),
            "shape": ("quantity", _shape(p_value, offset, spread, num_simulations)),
        },
        coords={
            "simulation": range(num_simulations),
            "quantity": [*vae.latent_names, "log_likelihood", "log_joint"],
        },
        attrs={
            "num_draws": num_draws,
            "seed": seed,
            "tests": "the encoder against the decoder, not the decoder against the world",
        },
    )


def p_text(p: float, equals: str = "") -> str:
    """A p-value for a reader: below 1e-16 its digits mean nothing."""
    return f"{equals}{p:.2g}" if p > 1e-16 else "below 1e-16"


def _rank(truth: Tensor, draws: Tensor) -> Tensor:
    """How many draws, (draw, ...), lie below the truth, (...); equal ones do so at random."""
    below, equal = (draws < truth).sum(0), (draws == truth).sum(0)
    return below + (torch.rand(equal.shape, device=equal.device) * (equal + 1)).long()


def _p_value(rank: np.ndarray, size: int) -> np.ndarray:
    """Neyman's smooth test of ranks in 0 to size - 1, shape (simulation, quantity)."""
    from scipy.stats import chi2

    # Orthonormal over the ranks themselves, so that few draws need no correction.
    powers = np.vander(np.linspace(-1, 1, size), _MOMENTS + 1, increasing=True)
    polynomials = np.linalg.qr(powers)[0][:, 1:] * np.sqrt(size)  # (rank, moment)
    scores = polynomials[rank].sum(0) / np.sqrt(len(rank))  # (quantity, moment)
    return chi2.sf(np.square(scores).sum(-1), _MOMENTS)


def _shape(p_value: np.ndarray, offset: np.ndarray, spread: np.ndarray, size: int) -> np.ndarray:
    """In words. Under uniform ranks, Var[offset] = 1 / 12n and Var[spread] = 4 / 5n."""
    shift, width = offset * np.sqrt(12 * size), (spread - 1) * np.sqrt(5 / 4 * size)
    narrow = np.where(width > 0, "too narrow", "too wide")
    fault = np.where(np.abs(shift) > np.abs(width), "shifted", narrow)
    fault = np.where(np.maximum(np.abs(shift), np.abs(width)) > 3, fault, "other")
    return np.where(p_value < _LEVEL / len(p_value), fault, "uniform")
