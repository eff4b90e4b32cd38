"""log p(x) by annealed importance sampling: slower, but right where the encoder is not."""

from __future__ import annotations

__all__ = ["Path", "anneal", "annealed", "sandwich"]

import math
import os
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...amortized import AmortizedModel
from ...progress import Progress
from ...renamed import renamed
from ...rows import Batch, Rows, rows_within_budget
from ...sink import MemorySink, Sink
from ..draws.chunked import sink_for, through
from ..draws.posterior import evaluating
from .averages import average_chains, evidence_contents, evidence_dataset
from .chains import STARTS, Path, annealed, there_and_back

if TYPE_CHECKING:
    import xarray as xr

    from ...store import Store


# How many times as many temperatures rows whose chains spread too far get next, and at most where
# chains start from the prior, which is far from the posterior of many latents.
_MORE, _MOST = 4, 16
# An upper bound so many nats above all that chains from the start can be is of another mode.
_ELSEWHERE = 3.0


@renamed(context="covariates", num_chains="num_samples")
def anneal(
    vae: AmortizedModel,
    x: Tensor | Rows,
    *,
    covariates: Tensor | None = None,
    start: str = "encoder",
    num_samples: int = 16,
    num_temperatures: int = 100,
    max_temperatures: int | None = None,
    num_leapfrog: int = 3,
    seed: int = 0,
    chunk_rows: int | None = None,
    store: str | os.PathLike[str] | Store | None = None,
    progress: bool = True,
) -> xr.Dataset:
    r"""Estimate log p(x) of each row by annealed importance sampling (AIS).

    Chains go from a distribution that can be drawn from to the posterior, by Hamiltonian Monte
    Carlo on the densities between, and gather a weight on the way:

    .. math:: f_t(z) = p_0(z)^{1 - \beta_t} p(x, z)^{\beta_t}, \quad
        \log w = \sum_{t=1}^{T} (\beta_t - \beta_{t-1}) \log \frac{p(x, z_{t-1})}{p_0(z_{t-1})},
        \quad \operatorname{E}[w] = p(x)

    The :math:`\beta_t` run from 0 to 1 along a sigmoid. On average the estimate is a lower bound,
    which rises to log p(x) with temperatures and chains, also where q(z|x) is far off.

    Parameters
    ----------
    vae
        A VAE. Gradients are with respect to z; its parameters are not touched.
    x
        Rows, shape ``(row, *event)``. Missing entries are integrated out.
    covariates
        Shape ``(row, covariate)``, for a conditional VAE.
    start
        The distribution :math:`p_0` to start from: ``"encoder"``, q(z|x), or ``"prior"``, p(z).
        On test rows of VAEs fitted to digits and MNIST the encoder's log-weights spread 4 to 18
        times less at the same cost. The prior is better where the encoder is off by tens of nats,
        and reaches modes that the encoder misses.
    num_samples
        Chains for each row, all of them run at once.
    num_temperatures
        The number T of steps from :math:`p_0` to p(x, z). One is importance sampling.
    max_temperatures
        Rows whose log-weights spread over more than 3 nats are annealed afresh with four times as
        many, up to so many; by default 16 times as many from the prior, which 16 latents and more
        need, and no more from the encoder.
    num_leapfrog
        Leapfrog steps of a Hamiltonian transition; each costs one gradient of the decoder for
        each chain.
    seed, chunk_rows, store
        As in :func:`~ppl_vae.sample_posterior`.
    progress
        Show how it goes on standard error.

    Returns
    -------
    xarray.Dataset
        As from :func:`~ppl_vae.log_evidence`, over ``row``, in nats: ``log_evidence``,
        ``standard_error``, ``log_evidence_low`` and ``log_evidence_high``, a 95 % interval, and
        ``elbo``. And ``pareto_k`` of the chains' weights, which is NaN where there are fewer than
        30 chains. ``weights_usable`` is false in rows whose log-weights still spread over more than
        3 nats: they are not to be believed. So few chains then show no upper end of the interval,
        which is infinite, as is the standard error, and ``log_evidence_low`` is a bound that holds
        for 95 %; the attribute ``caution`` says in how many rows. More temperatures help.

    Raises
    ------
    TypeError, ValueError
        If ``x`` or ``covariates`` is not what the VAE describes, or an option is not accepted.

    Notes
    -----
    Source: Neal (2001), *Annealed importance sampling*; Wu et al. (2017), *On the quantitative
    analysis of decoder-based generative models*, for VAEs, the sigmoid and the acceptance of 0.65.
    There the steps adapt while the chains run, which spoils the bound a little. Here four pilot
    chains a row find a step for each temperature, and the chains proper then keep to it, so that
    the bound is exact.

    Examples
    --------
    >>> from ppl_vae import VAE, VAEConfig
    >>> vae = VAE.from_config(VAEConfig(event_shape=(8, 8), latent_dim=2, hidden=(16,)))
    >>> evidence = anneal(vae, torch.ones(5, 8, 8), num_temperatures=20, progress=False)
    >>> evidence.log_evidence.dims
    ('row',)
    """
    data = Rows.of(x, covariates, vae)
    data.check(vae)
    _check_options(start, num_samples, num_temperatures, num_leapfrog)
    most = max_temperatures
    if most is None:
        most = num_temperatures * (_MOST if start == "prior" else 1)
    if most < num_temperatures:
        raise ValueError(
            f"max_temperatures is {most}; pass num_temperatures, {num_temperatures}, or more"
        )
    size = rows_within_budget(vae.event_shape, num_samples, gradients=True, chunk_rows=chunk_rows)
    attrs: dict[str, Any] = {
        "method": "ais",
        "num_samples": num_samples,
        "num_temperatures": num_temperatures,
        "max_temperatures": most,
        "start": start,
        "seed": seed,
    }
    sink = None
    if store is not None:
        given = {"what": "evidence", "num_leapfrog": num_leapfrog, **attrs}
        contents = evidence_contents(**attrs)
        sink = sink_for(store, vae, data, contents, size=size, numbers=7, **given)
    to: Sink = MemorySink(len(data)) if sink is None else sink
    with evaluating(vae, seed), Progress(len(data), "anneal", show=progress) as bar:
        for rows, batch in through(data, size, vae.like, to, seed=seed, bar=bar):
            options = {"start": start, "num_leapfrog": num_leapfrog}
            found = _anneal(vae, batch, num_samples, num_temperatures, most, options, bar)
            for name, value in found.items():
                to.write(name, rows, value)
    return _with_caution(
        evidence_dataset(to.arrays(), **attrs) if sink is None else sink.close().open()
    )


def _with_caution(evidence: xr.Dataset) -> xr.Dataset:
    """The same, with a sentence on rows that are not to be believed, if there are some."""
    lost = int((evidence.weights_usable[:] == 0).sum())  # a view, so that no cache fills
    if not lost:
        return evidence
    most = evidence.attrs["max_temperatures"]
    return evidence.assign_attrs(
        caution=f"In {lost} of {evidence.sizes['row']} rows the log-weights of chains spread over "
        f"more than 3 nats with {most} temperatures too: log_evidence is not to be believed there, "
        "and log_evidence_low is a bound. Raise num_temperatures or max_temperatures."
    )


@renamed(context="covariates", num_chains="num_samples")
def sandwich(
    vae: AmortizedModel,
    *,
    covariates: Tensor | None = None,
    num_rows: int = 100,
    start: str = "encoder",
    num_samples: int = 16,
    num_temperatures: int = 100,
    num_leapfrog: int = 3,
    seed: int = 0,
    chunk_rows: int | None = None,
    progress: bool = True,
) -> xr.Dataset:
    r"""Bound log p(x) of simulated rows from both sides: bidirectional Monte Carlo.

    A row drawn together with its z from p(x, z) has in that z an exact draw from p(z|x). Chains
    from there back to the start of :func:`anneal` estimate 1 / p(x) without bias, so that

    .. math:: \operatorname{E}[\text{lower}] \le \log p(x) \le \operatorname{E}[\text{upper}]

    and the gap bounds the error of both, for data in so far as these are like simulated rows: of
    other rows no exact draw is known, and no upper bound. From the encoder it finds modes that
    q(z|x) misses, as chains from there never see them and the truth may be in one.

    Parameters
    ----------
    vae
        A VAE.
    covariates
        Shape ``(row, covariate)``, for a conditional VAE; rows are simulated for each in turn.
    num_rows
        Rows to simulate; without covariates those of ``sample_prior(vae, num_samples=num_rows,
        seed=seed)``.
    start, num_samples, num_temperatures, num_leapfrog, seed, chunk_rows, progress
        As in :func:`anneal`.

    Returns
    -------
    xarray.Dataset
        Over ``row``, in nats: ``lower``, from the forward chains; ``upper``, from the reverse
        ones; ``gap``, upper minus lower. ``elsewhere`` says in which rows the chains agree on log
        p(x), and the truth is not among what they reach: the upper bound is 3 nats or more above
        the upper end of their 95 % interval. The bounds hold on average over rows; in a single row
        ``lower`` is more than b nats above log p(x), or ``upper`` as far below, with probability
        of at most exp(-b).

    Raises
    ------
    TypeError, ValueError
        If ``covariates`` is not what the VAE describes, or an option is not accepted.

    Notes
    -----
    Source: Grosse et al. (2015), *Sandwiching the marginal likelihood using bidirectional Monte
    Carlo*; Wu et al. (2017) for VAEs.

    Examples
    --------
    >>> from ppl_vae import VAE, VAEConfig
    >>> vae = VAE.from_config(VAEConfig(event_shape=(8, 8), latent_dim=2, hidden=(16,)))
    >>> bounds = sandwich(vae, num_rows=5, num_temperatures=20, progress=False)
    >>> bool((abs(bounds.gap) < 1).all())
    True
    """
    import xarray as xr

    _check_options(start, num_samples, num_temperatures, num_leapfrog)
    if num_rows < 1:
        raise ValueError(f"num_rows is {num_rows}; pass at least 1")
    size = rows_within_budget(vae.event_shape, num_samples, gradients=True, chunk_rows=chunk_rows)
    lower, upper, elsewhere = [], [], []
    # Each row twice: there and back.
    with evaluating(vae, seed), Progress(2 * num_rows, "sandwich", show=progress) as bar:
        z, x, given = vae.simulate(num_rows, covariates)
        for rows, batch in Rows(x, given).chunks(size, vae.like):
            path = Path(vae, *batch, start=start, num_leapfrog=num_leapfrog)
            exact = z[rows].expand(num_samples, -1, -1)
            there, back = there_and_back(path, exact, num_temperatures, bar)
            lower.append(there.logsumexp(0) - math.log(num_samples))
            upper.append(math.log(num_samples) - back.logsumexp(0))
            agreed = average_chains(there, num_temperatures)["log_evidence_high"]
            elsewhere.append(upper[-1] > agreed + _ELSEWHERE)
    bounds = {"lower": torch.cat(lower), "upper": torch.cat(upper)}
    bounds["gap"] = bounds["upper"] - bounds["lower"]
    dataset = xr.Dataset(
        {name: ("row", value.cpu().numpy(), {"unit": "nats"}) for name, value in bounds.items()},
        coords={"row": range(num_rows)},
        attrs={
            "num_samples": num_samples,
            "num_temperatures": num_temperatures,
            "start": start,
            "seed": seed,
        },
    )
    return dataset.assign(elsewhere=("row", torch.cat(elsewhere).cpu().numpy()))


def _anneal(
    vae: AmortizedModel,
    batch: Batch,
    num_samples: int,
    number: int,
    most: int,
    options: dict[str, Any],
    bar: Progress,
) -> dict[str, Tensor]:
    """What chains say of some rows, with more temperatures, afresh, where these are too few."""
    _, log_weight = annealed(Path(vae, *batch, **options), num_samples, number, bar)
    found = average_chains(log_weight, number)
    while number < most:
        again = (~found["weights_usable"] & found["log_evidence"].isfinite()).nonzero().flatten()
        if not len(again):
            break
        number = min(_MORE * number, most)
        at, given = again.to(batch.x.device), batch.covariates
        some = Batch(batch.x[at], None if given is None else given[at])
        _, log_weight = annealed(Path(vae, *some, **options), num_samples, number)
        for name, value in average_chains(log_weight, number).items():
            found[name][again] = value.to(found[name])
    return found


def _check_options(start: str, num_samples: int, num_temperatures: int, num_leapfrog: int) -> None:
    if start not in STARTS:
        raise ValueError(f"start is {start!r}; accepted are {', '.join(map(repr, STARTS))}")
    if num_samples < 2:
        raise ValueError(
            f"num_samples is {num_samples}, too few chains for an error; pass at least 2, better 16"
        )
    numbers = {"num_temperatures": num_temperatures, "num_leapfrog": num_leapfrog}
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"{name} is {number}; pass at least 1")
