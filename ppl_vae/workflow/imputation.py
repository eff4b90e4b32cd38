"""Missing entries of rows, drawn from p(x_missing | x_observed) by importance weights."""

from __future__ import annotations

__all__ = ["impute"]

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..amortized import AmortizedModel
from ..dims import event_dims
from ..progress import Progress
from ..rows import Batch, Rows, rows_within_budget
from ..sink import MemorySink
from .conformal import hidden_entries, margins
from .khat import khat, reliable_khat
from .latents import density, draw
from .posterior import evaluating
from .resampling import resampled
from .sampling import stage_seed

if TYPE_CHECKING:
    import xarray as xr

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
        it promises nothing, and a model of why they are missing is refused.
    seed
        Decides the draws, together with ``chunk_rows``.
    chunk_rows
        Rows at a time; by default as many as keep a chunk within about 64 MB.
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
        If ``x`` or ``covariates`` is not what the VAE describes, a number is not accepted, or
        ``conformal`` is given with a model of why entries are missing.

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
    names = _names(x)
    data = Rows.of(x, covariates)
    held_out = None if conformal is None else Rows.of(conformal)
    options: dict[str, Any] = {
        "num_samples": num_samples,
        "level": level,
        "chunk_rows": chunk_rows,
        "progress": progress,
    }
    found = _impute(vae, data, num_draws=num_draws, seed=seed, name="x", **options)
    attrs: dict[str, Any] = {
        "num_samples": num_samples,
        "level": level,
        "threshold": reliable_khat(num_samples),
        "seed": seed,
        "assumes": _ASSUMES[vae.missing_at_random],
    }
    dims = event_dims(vae.event_shape)
    variables = {
        name: (("row", *dims)[: array.ndim], array)
        for name, array in found.items()
        if name != "draws"
    }
    variables["draws"] = (("draw", "row", *dims), found["draws"])
    if held_out is not None:
        margin = _margin(vae, held_out, seed=stage_seed(seed, 1), **options)
        for name, sign in (("low", -1.0), ("high", 1.0)):
            variables[name] = (("row", *dims), (found[name] + sign * margin).astype(margin.dtype))
        variables["margin"] = (dims, margin)
        attrs["conformal_rows"] = len(held_out)
    import xarray as xr

    coords: dict[str, Any] = {"row": range(len(data)), "draw": range(num_draws)}
    if names is not None and dims == ("feature",):
        coords["feature"] = names
    return xr.Dataset(variables, coords=coords, attrs=attrs)


def _impute(
    vae: AmortizedModel,
    data: Rows,
    *,
    num_samples: int,
    num_draws: int,
    level: float,
    seed: int,
    chunk_rows: int | None,
    progress: bool,
    name: str,
) -> dict[str, np.ndarray]:
    """What :func:`impute` says of each row, by name, and ``draws`` with the draw first."""
    x, given = data.take(slice(None), vae.like)
    _check(vae, data, x, name)
    missing = x.isnan()
    rows = missing.flatten(1).any(1).nonzero().flatten()
    sink = MemorySink(len(rows))
    size = rows_within_budget(vae.event_shape, _COPIES * num_samples, chunk_rows=chunk_rows)
    some = Rows(x[rows], None if given is None else given[rows])
    threshold = reliable_khat(num_samples)
    with evaluating(vae, seed), Progress(len(rows), "impute", show=progress) as bar:
        for chunk, batch in some.chunks(size, vae.like):
            z, log_weight = _weighted(vae, batch, num_samples)
            drawn, means = vae.complete(resampled(z, log_weight), *batch)
            k = khat(log_weight)
            share = log_weight.double().softmax(0)
            summary = _summary(batch.x, drawn, means, level)
            summary["draws"] = drawn[_spaced(num_samples, num_draws)].transpose(0, 1)
            summary["pareto_k"] = k
            summary["weights_usable"] = k <= threshold
            summary["effective_samples"] = 1 / share.square().sum(0)
            for key, value in summary.items():
                sink.write(key, chunk, value)
            bar.advance(len(batch.x))
    at, whole = rows.cpu().numpy(), x.cpu().numpy()
    nothing: dict[str, Any] = {
        "pareto_k": np.nan,
        "weights_usable": True,
        "effective_samples": np.nan,
    }
    found = {"x": whole.copy(), "missing": missing.cpu().numpy()}
    arrays = sink.arrays()
    for key in ("sd", "low", "high", "share"):
        found[key] = np.full_like(whole, np.nan)
    for key, value in nothing.items():
        found[key] = np.full(len(whole), value)
    found["draws"] = np.repeat(whole[:, None], num_draws, 1)  # (row, draw, *event)
    for key, values in arrays.items():
        found[key][at] = values
    found["draws"] = np.moveaxis(found["draws"], 1, 0)
    return found


def _weighted(vae: AmortizedModel, batch: Batch, num_samples: int) -> tuple[Tensor, Tensor]:
    """Latents ``(draw, row, latent)`` and their log-weights; of rows without entries the prior's.

    An encoder need not know the prior, which can be drawn from.
    """
    q = vae.posterior(*batch)
    z = draw(q, (num_samples,))
    log_likelihood = vae.log_likelihood(z, *batch)
    prior = vae.prior_at(batch.covariates)
    log_weight = log_likelihood + prior.log_prob(z) - density(q, z)
    empty = batch.x.isnan().flatten(1).all(1)
    if empty.any():
        own = draw(prior, (num_samples,), rows=len(batch.x))
        z = torch.where(empty[:, None], own, z)
        # A model of what is missing has something to say of these rows too.
        log_weight = torch.where(empty, vae.log_likelihood(z, *batch), log_weight)
    return z, log_weight


def _spaced(size: int, number: int) -> Tensor:
    """Of draws in the order of latents, so many that are resampled systematically too."""
    return torch.arange(number) * size // number


def _summary(x: Tensor, drawn: Tensor, means: Tensor, level: float) -> dict[str, Tensor]:
    """Point, spread and interval of each missing entry, from ``(draw, row, *event)``."""
    missing = x.isnan()
    point = torch.where(missing, means.mean(0), x)
    share, low, high, sd = (torch.full_like(point, torch.nan) for _ in range(4))
    vague = missing & point.isnan()  # has no mean
    if vague.any():
        values = drawn[:, vague]  # (draw, entry)
        category = (values == values.round()).all(0)
        common = values.mode(0).values
        often = (values == common).to(share.dtype).mean(0)
        point[vague] = torch.where(category, common, values.median(0).values)
        share[vague] = often.masked_fill(~category, torch.nan)
    numbers = missing & share.isnan()
    if numbers.any():
        ordered = drawn[:, numbers].sort(0).values  # (draw, entry)
        beyond = int((1 - level) / 2 * len(ordered))
        low[numbers], high[numbers] = ordered[beyond], ordered[len(ordered) - 1 - beyond]
        sd[numbers] = ordered.std(0)
    return {"x": point, "sd": sd, "low": low, "high": high, "share": share}


def _margin(vae: AmortizedModel, data: Rows, *, seed: int, **options: Any) -> np.ndarray:
    """By how much intervals of each feature are too short in other rows."""
    x, given = data.take(slice(None), vae.like)
    hidden = hidden_entries(x, seed)
    holes = Rows(x.masked_fill(hidden, torch.nan), given)
    found = _impute(vae, holes, num_draws=1, seed=seed, name="conformal", **options)
    truth = x.where(hidden, torch.nan).cpu().numpy()
    return margins(found["low"], found["high"], truth, options["level"])


def _check(vae: AmortizedModel, data: Rows, x: Tensor, name: str) -> None:
    """Refuse rows that the model does not describe, but for those without any entry.

    Raises
    ------
    TypeError, ValueError
        As :meth:`Rows.check`.
    """
    empty = x.isnan().flatten(1).all(1) if x.dim() > 1 and x.numel() else torch.zeros(0).bool()
    if not empty.any():
        data.check(vae, name=name)
        return
    if not vae.missing:
        raise ValueError(
            f"{name} has missing entries (NaN) but this VAE was built for none; build it with "
            "VAEConfig(..., missing=True)"
        )
    given = data.covariates
    if empty.all():
        z, _, one = vae.simulate(1, given)
        whole = torch.ones(1, *vae.event_shape, dtype=torch.bool, device=z.device)
        stand_in = draw(vae.likelihood(z, one, whole)).to(x)
        if x.shape[1:] != stand_in.shape[1:]:
            stand_in = torch.zeros_like(x[:1])  # whose shape is refused
    else:
        stand_in = x[~empty][:1]
    filled = torch.where(empty.reshape(-1, *[1] * (x.dim() - 1)), stand_in, x)
    Rows(filled, given).check(vae, name=name)


def _names(x: Any) -> list[str] | None:
    """What the features of a DataFrame or a Dataset are called, if they have names."""
    names = getattr(x, "feature_names", None)
    if names is None and hasattr(x, "columns") and hasattr(x, "to_numpy"):
        names = x.columns
    return None if names is None else [str(name) for name in names]
