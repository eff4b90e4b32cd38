"""Missing entries of rows, drawn from p(x_missing | x_observed) by importance weights."""

from __future__ import annotations

__all__ = ["impute"]

import json
import os
from dataclasses import asdict
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ...amortized import AmortizedModel
from ...dims import event_dims
from ...progress import Progress
from ...rows import Rows, rows_within_budget
from ...sink import MemorySink, Sink
from ..draws.chunked import sink_for, through
from ..draws.posterior import evaluating
from ..draws.sampling import stage_seed
from ..weights.khat import reliable_khat
from .conformal import hidden_entries, margins
from .filling import check_gaps, completed

if TYPE_CHECKING:
    import xarray as xr

    from ...store import Store

# Draws, means and their order are in memory together.
_COPIES = 3
_FEWEST_DRAWS = 30
# Why entries are missing, by whether a model takes this to be at random.
_ASSUMES = {
    True: "entries are missing at random, given the others of their row",
    False: "entries are missing because of what they are, as the model has it",
}


def impute(
    vae: AmortizedModel,
    x: Any,
    *,
    covariates: Tensor | None = None,
    num_samples: int = 1000,
    num_draws: int = 20,
    level: float = 0.9,
    conformal: Any = None,
    seed: int = 0,
    chunk_rows: int | None = None,
    store: str | os.PathLike[str] | Store | None = None,
    progress: bool = True,
) -> xr.Dataset:
    r"""Draw the missing entries of rows given those observed, and say what they may be.

    .. math:: p(x_m \mid x_o) = \int p(x_m \mid z)\, p(z \mid x_o)\, dz, \quad
        z_s \sim q(z \mid x_o), \quad w_s \propto \frac{p(x_o, z_s)}{q(z_s \mid x_o)}

    Latents are drawn from the encoder, resampled by their weights, and decoded: what comes out is
    drawn from p(x_m | x_o) as far as weights can make it so, whatever the encoder is off by. A row
    without any entry is drawn from the prior. Nothing is drawn for complete rows.

    Parameters
    ----------
    vae
        A VAE whose rows may have missing entries.
    x
        Rows, shape ``(row, *event)``, with NaN for what is missing: a tensor, an array, a
        DataFrame or a Dataset.
    covariates
        Shape ``(row, covariate)``, for a conditional VAE.
    num_samples
        Draws for each row, by which moments and intervals are found.
    num_draws
        How many of these to keep, as completed tables, for what is done with them afterwards to be
        done with each of them (multiple imputation).
    level
        The probability of intervals, between 0 and 1: that the model gives them, which is what they
        cover where it is right, of why entries are missing too. Nothing in the rows can tell that.
        Where large entries tend to be missing, and the model takes them to be missing at random,
        intervals are too low and too short: of 90 %, 10 % of the cells lie within in the benchmark
        that removes all cells above the mean, and 78 % or fewer under ``self_masking``.
    conformal
        Other rows, best none that the VAE was fitted to. A fifth of their entries are hidden and
        imputed, and the intervals of each feature are widened or narrowed until ``level`` of its
        hidden entries lie within: split conformal prediction, which then holds for new rows,
        whatever the VAE is, where entries are missing as these are, at random. Entries that are
        missing because of what they are cannot be had for this, as they were never seen: for them
        it promises nothing, and a model of why they are missing is refused. These rows
        are held in memory.
    seed
        Decides the draws, together with ``chunk_rows``.
    chunk_rows
        Rows at a time; by default as many as keep a chunk within about 64 MB.
    store
        As in :func:`~ppl_vae.sample_posterior`: rows on disk are then filled whatever their number.
    progress
        Show how it goes on standard error.

    Returns
    -------
    xarray.Dataset
        Over ``row`` and the dimensions of a row:

        - ``x``, the rows, each missing entry being its posterior mean; where there is none, the
          most frequent category, or the median of numbers.
        - ``missing``, which entries those are.
        - ``sd``, ``low`` and ``high``: the posterior standard deviation, and the ends of an
          equal-tailed interval that holds ``level`` of the posterior. NaN where nothing is missing,
          and of categories.
        - ``share``, of categories: the share of draws that are the one in ``x``. Else NaN.

        ``draws`` (draw, row, *event): completed rows. Over ``row``: ``pareto_k`` of the weights,
        NaN for complete rows; ``weights_usable``, whether that is at most the attribute
        ``threshold``, :math:`\min(1 - 1 / \log_{10} S, 0.7)`; ``effective_samples``, how many equal
        weights are worth as much. With ``conformal``, ``margin`` (*event), by which intervals were
        widened: infinite where so few entries were hidden that ``level`` cannot be promised. The
        attribute ``assumes`` says in words why entries are taken to be missing.

    Raises
    ------
    TypeError, ValueError
        If ``x`` or ``covariates`` is not what the VAE describes, a number is not accepted,
        ``conformal`` is given with a model of why entries are missing, or the store is of other
        results.
    FileExistsError
        If something else is where the store would be.

    Notes
    -----
    Source: Mattei & Frellsen (2019), *MIWAE*, section 3, for the weights; Rubin (1987) for multiple
    imputation; Romano et al. (2019), *Conformalized quantile regression*, for ``conformal``.
    Resampling is systematic (Kitagawa, 1996). Where weights are not usable, draws are rather those
    of the encoder, and intervals may be too short: fit longer, fit by
    ``objective="iwae:num_particles=20"``, which has the encoder cover the posterior, or take more
    draws.

    To fit a VAE to rows with missing entries by the MIWAE bound is
    ``fit(vae, x, objective="iwae:num_particles=20")``: the likelihood leaves missing entries out,
    so that it bounds log p(x_o) from below.

    Examples
    --------
    >>> from ppl_vae import VAE, VAEConfig
    >>> x = torch.tensor([[0.0, 1.0], [torch.nan, 1.5], [torch.nan, torch.nan], [1.0, 2.0]])
    >>> config = VAEConfig.for_data(x[[0, 1, 3]], likelihood="normal", latent_dim=2)
    >>> vae = VAE.from_config(config)
    >>> imputed = impute(vae, x, num_samples=100, progress=False)
    >>> imputed.x.shape, imputed.draws.dims, int(imputed.missing.sum())
    ((4, 2), ('draw', 'row', 'feature'), 3)
    """
    if num_samples < _FEWEST_DRAWS:
        raise ValueError(
            f"num_samples is {num_samples}, too few to see the tail of the weights; pass at least "
            f"{_FEWEST_DRAWS}, better 1000"
        )
    if not 1 <= num_draws <= num_samples:
        raise ValueError(
            f"num_draws is {num_draws}; pass a number from 1 to num_samples, {num_samples}"
        )
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; pass a probability between 0 and 1, such as 0.9")
    if conformal is not None and not vae.missing_at_random:
        raise ValueError(
            "conformal hides entries at random, but this model says why entries are missing, as "
            "self_masking does, and would take them for such; leave conformal out: what its "
            "intervals cover rests on that model"
        )
    data = Rows.of(x, covariates, vae)
    check_gaps(vae, data, "x")
    held_out = None if conformal is None else Rows.of(conformal, None, vae)
    size = rows_within_budget(vae.event_shape, _COPIES * num_samples, chunk_rows=chunk_rows)
    options: dict[str, Any] = {"num_samples": num_samples, "level": level, "progress": progress}
    attrs: dict[str, Any] = {
        "num_samples": num_samples,
        "level": level,
        "threshold": reliable_khat(num_samples),
        "seed": seed,
        "assumes": _ASSUMES[vae.missing_at_random],
    }
    dims = event_dims(vae.event_shape)
    beside: dict[str, tuple[tuple[str, ...], np.ndarray]] = {}
    margin = None
    if held_out is not None:
        margin = _margin(vae, held_out, seed=stage_seed(seed, 1), size=size, **options)
        beside = {"margin": (dims, margin)}
        attrs["conformal_rows"] = len(held_out)
    coords = {dim: np.arange(n) for dim, n in zip(dims, vae.event_shape, strict=True)}
    if data.table is not None and data.table.names is not None:
        coords["feature"] = np.array(data.table.names)
        if data.table.columns is not None:
            attrs["columns"] = json.dumps([asdict(kind) for kind in data.table.columns])
    by_entry = ("x", "missing", "sd", "low", "high", "share")
    layout = {
        **dict.fromkeys(by_entry, ("row", *dims)),
        **dict.fromkeys(("pareto_k", "weights_usable", "effective_samples"), ("row",)),
        "draws": ("draw", "row", *dims),
    }
    to: Sink
    if store is None:
        to, kept = MemorySink(len(data)), None
    else:
        from ...store import Contents, Variable

        to = kept = sink_for(
            store,
            vae,
            data,
            Contents(
                {name: Variable(name, own) for name, own in layout.items()},
                coords=coords,
                beside=beside,
                attrs={"": attrs},
            ),
            size=size,
            numbers=(len(by_entry) + num_draws) * prod(vae.event_shape),
            what="impute",
            num_samples=num_samples,
            num_draws=num_draws,
            level=level,
            seed=seed,
            conformal=held_out and held_out.fingerprint(),
        )
    given = {"num_draws": num_draws, "seed": seed, "size": size, **options}
    _impute(vae, data, to, margin=margin, **given)
    if kept is not None:
        return kept.close().open()
    import xarray as xr

    arrays = to.arrays()
    arrays["draws"] = np.moveaxis(arrays["draws"], 1, 0)
    variables = {name: (own, arrays[name]) for name, own in layout.items()}
    coords |= {"row": np.arange(len(data)), "draw": np.arange(num_draws)}
    return xr.Dataset({**variables, **beside}, coords=coords, attrs=attrs)


def _impute(
    vae: AmortizedModel,
    data: Rows,
    sink: Sink,
    *,
    num_samples: int,
    num_draws: int,
    level: float,
    seed: int,
    size: int,
    progress: bool,
    margin: np.ndarray | None = None,
) -> None:
    """Write what :func:`impute` says of each row, and ``draws`` with the row first."""
    given: dict[str, Any] = {
        "num_samples": num_samples,
        "num_draws": num_draws,
        "level": level,
    }
    with evaluating(vae, seed), Progress(len(data), "impute", show=progress) as bar:
        for rows, batch in through(data, size, vae.like, sink, seed=seed, bar=bar):
            for name, value in completed(vae, batch, **given).items():
                array = value.cpu().numpy()
                if margin is not None and name in ("low", "high"):
                    wider = margin if name == "high" else -margin
                    array = (array + wider).astype(margin.dtype)
                sink.write(name, rows, array)
            bar.advance(len(batch.x))


def _margin(vae: AmortizedModel, data: Rows, *, seed: int, **options: Any) -> np.ndarray:
    """By how much intervals of each feature are too short in other rows."""
    x, given = data.take(slice(None), vae.like)
    hidden = hidden_entries(x, seed)
    holes = Rows(x.masked_fill(hidden, torch.nan), given)
    check_gaps(vae, holes, "conformal")
    sink = MemorySink(len(holes))
    _impute(vae, holes, sink, num_draws=1, seed=seed, **options)
    truth = x.where(hidden, torch.nan).cpu().numpy()
    found = sink.arrays()
    return margins(found["low"], found["high"], truth, options["level"])
