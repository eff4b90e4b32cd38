"""Simulation-based calibration: is q(z|x) the posterior of this decoder?"""

from __future__ import annotations

__all__ = ["calibrate", "p_text"]

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ...amortized import AmortizedModel
from ...progress import Progress
from ...renamed import renamed
from ...rows import Rows, rows_within_budget
from ..draws.latents import draw
from ..draws.posterior import evaluating
from ..refinement.local_normal import chunks, local_posterior
from .ranks import OPEN, judge_ranks, rank_among

if TYPE_CHECKING:
    import xarray as xr

_NOTHING = 0.01  # a latent's KL from the best normal, nats, that is too small to mention
_SEARCH_DRAWS = 500  # draws that give the moments of a row's posterior


@renamed(context="covariates", num_draws="num_samples")
def calibrate(
    vae: AmortizedModel,
    *,
    covariates: Tensor | None = None,
    num_simulations: int = 1000,
    num_samples: int = 199,
    search_rows: int = 40,
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
    :func:`~ppl_vae.predictive_check`. It speaks of rows that the decoder
    simulates, from the whole prior, with no entry missing.

    Parameters
    ----------
    vae
        A VAE.
    covariates
        Shape ``(row, covariate)``, for a conditional VAE; rows are simulated for each in turn.
    num_simulations
        How many rows to simulate.
    num_samples
        L, draws from q(z|x) for each.
    search_rows
        Of how many simulated rows to search the best posterior of the encoder's family, where ranks
        are not uniform, to say why.
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
          quantities. Ranks do not tell a location that is off from row to row from a scale that
          is too small, so that the word comes from the best posteriors of ``search_rows`` rows:
          ``"shifted"``, alike in all rows; ``"misplaced"``, from row to row; ``"too narrow"``,
          ``"too wide"``; ``"uneven"``, too narrow in some rows and too wide in others. Where the
          encoder is the best of its family, or without a search, it comes from offset and spread,
          and ``"too narrow or misplaced"`` says that these leave it open. Of log-densities,
          ``"shifted"`` says that draws fit their row better (negative offset) or worse than the
          posterior's would.
        - ``fault`` (quantity): of a latent, the word of the search, whatever the ranks say; ``""``
          where it was not done or found nothing. And what it follows from: ``location_off``, the
          root mean square of q's location less the best one, in standard deviations of the best;
          ``scale_ratio``, the geometric mean of q's standard deviation over that.

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
    >>> ranks = calibrate(vae, num_simulations=100, num_samples=49, progress=False)
    >>> ranks.p_value.quantity.values.tolist()
    ['z[0]', 'z[1]', 'log_likelihood', 'log_joint']
    """
    import xarray as xr

    if num_simulations < 20:
        raise ValueError(
            f"num_simulations is {num_simulations}, too few to test; pass at least 20, better 1000"
        )
    if num_samples < 9:
        raise ValueError(
            f"num_samples is {num_samples}, too few to rank; pass at least 9, better 199"
        )
    size = rows_within_budget(vae.event_shape, num_samples, chunk_rows=chunk_rows)
    ranks = []
    with evaluating(vae, seed), Progress(num_simulations, "calibrate", show=progress) as bar:
        z, x, given = vae.simulate(num_simulations, covariates)
        for rows, batch in Rows(x, given).chunks(size, vae.like):
            draws = draw(vae.posterior(*batch), (num_samples,))
            # (draw, row, latent), the truth first: evaluated together, they are rounded alike.
            together = torch.cat([z[rows][None], draws])
            log_likelihood = vae.log_likelihood(together, *batch)  # (draw, row)
            log_joint = log_likelihood + vae.prior_at(batch.covariates).log_prob(together)
            values = torch.cat([together, torch.stack([log_likelihood, log_joint], -1)], -1)
            ranks.append(rank_among(values[0], values[1:]))
            bar.advance(len(z[rows]))
    rank = torch.cat(ranks).cpu().numpy()
    found = judge_ranks(rank, num_samples + 1, num_densities=2)
    shape = found["shape"]
    fault = np.full(len(shape), "", dtype=object)
    moved, stretched = np.full((2, len(shape)), np.nan)
    if search_rows > 0 and (shape != "uniform").any():
        size = min(search_rows, num_simulations)
        off, ratio = _searched(vae, Rows(x, given).select(np.arange(size)), seed, progress)
        size = off.shape[1]
        fault[:size] = _faults(off, ratio)
        moved[:size] = np.sqrt((off**2).mean(0))
        with np.errstate(divide="ignore"):  # of a point, whose width is zero
            stretched[:size] = np.exp(np.log(ratio).mean(0))
        known = (shape != "uniform") & (fault != "")
        shape = np.where(known, fault, shape)
        best = (shape == OPEN) & (fault == "") & np.isfinite(moved)
        shape = np.where(best, "too narrow", shape)
    return xr.Dataset(
        {
            "rank": (("simulation", "quantity"), rank),
            **{name: ("quantity", found[name]) for name in ("p_value", "offset", "spread")},
            "shape": ("quantity", shape.astype(str)),
            "fault": ("quantity", fault.astype(str)),
            "location_off": ("quantity", moved, {"unit": "standard deviations"}),
            "scale_ratio": ("quantity", stretched),
        },
        coords={
            "simulation": range(num_simulations),
            "quantity": [*vae.latent_names, "log_likelihood", "log_joint"],
        },
        attrs={
            "num_samples": num_samples,
            "seed": seed,
            "tests": "the encoder against the decoder, not the decoder against the world",
        },
    )


def _searched(
    vae: AmortizedModel, data: Rows, seed: int, progress: bool
) -> tuple[np.ndarray, np.ndarray]:
    """How far q(z|x) is from the best of its family, ``(row, latent)``: location and scale.

    Both from the same noise: the location less the best, in standard deviations of the best, and
    the standard deviation over the best.
    """
    off, ratio = [], []
    with evaluating(vae, seed), Progress(len(data), "search", show=progress) as bar:
        for batch in chunks(vae, data):
            try:
                encoder, best = local_posterior(vae, *batch)
            except ValueError:  # discrete latents have no normal to search
                none = np.full((len(data), vae.latent_dim), np.nan)
                return none, none
            noise = best.noise(_SEARCH_DRAWS)
            (here, _), (there, _) = encoder.draws(noise), best.draws(noise)
            sd = there.std(0)
            off.append((here.mean(0) - there.mean(0)) / sd)
            ratio.append(here.std(0) / sd)
            bar.advance(len(batch.x))
    return tuple(torch.cat(part).double().cpu().numpy() for part in (off, ratio))  # type: ignore[return-value]


def _faults(off: np.ndarray, ratio: np.ndarray) -> np.ndarray:
    """Say of each latent whether location or scale is the larger part of its KL from the best."""
    finite = np.isfinite(off) & np.isfinite(ratio) & (ratio > 0)
    off, log_ratio = np.where(finite, off, 0.0), np.log(np.where(finite, ratio, 1.0))
    location = (off**2 / 2).mean(0)
    scale = (np.expm1(2 * log_ratio) / 2 - log_ratio).mean(0)
    alike = off.mean(0) ** 2 > (off**2).mean(0) / 2
    width = log_ratio.mean(0)
    even = np.abs(width) > log_ratio.std(0)
    return np.select(
        [
            np.maximum(location, scale) < _NOTHING,
            (location >= scale) & alike,
            location >= scale,
            even & (width < 0),
            even,
        ],
        ["", "shifted", "misplaced", "too narrow", "too wide"],
        "uneven",
    ).astype(object)


def p_text(p: float, equals: str = "") -> str:
    """A p-value for a reader: below 1e-16 its digits mean nothing."""
    return f"{equals}{p:.2g}" if p > 1e-16 else "below 1e-16"
