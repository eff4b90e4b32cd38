"""Posterior predictive checks: does the decoder draw rows like the data?"""

from __future__ import annotations

__all__ = ["STATISTICS", "predictive_check"]

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...amortized import AmortizedModel
from ...dims import event_dims
from ...progress import Progress
from ...renamed import renamed
from ...rows import Rows, rows_within_budget
from ..draws.latents import draw
from ..draws.posterior import evaluating

if TYPE_CHECKING:
    import xarray as xr


def _sd(values: Tensor) -> Tensor:
    return (values - values.nanmean(-1, keepdim=True)).square().nanmean(-1).sqrt()


def _zeros(values: Tensor) -> Tensor:
    return (values == 0).to(values.dtype).where(~values.isnan(), values).nanmean(-1)


def _largest(values: Tensor) -> Tensor:
    missing = values.isnan()
    return values.masked_fill(missing, -torch.inf).amax(-1).where(~missing.all(-1), torch.nan)


STATISTICS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda values: values.nanmean(-1),
    "sd": _sd,
    "zeros": _zeros,
    "max": _largest,
}


@renamed(context="covariates")
def predictive_check(
    vae: AmortizedModel,
    x: Tensor | Rows,
    *,
    covariates: Tensor | None = None,
    statistics: Sequence[str] | Mapping[str, Callable[[Tensor], Tensor]] = tuple(STATISTICS),
    num_samples: int = 200,
    seed: int = 0,
    chunk_rows: int | None = None,
    progress: bool = True,
) -> xr.Dataset:
    r"""Compare statistics of the data with those of data that the fitted VAE draws.

    .. math:: z_s \sim q(z \mid x), \quad \tilde x_s \sim p(x \mid z_s), \quad
        \text{PIT} = \Pr(T(\tilde x_s) < T(x)) + \tfrac{1}{2} \Pr(T(\tilde x_s) = T(x))

    A PIT near 0 says that the data have less of T than the VAE draws, near 1 that they have more.
    This tests the decoder against the world, where :func:`~ppl_vae.calibrate`
    tests the encoder against the decoder. It looks at the data twice, so that it is forgiving:
    what the latents follow lies near one half, and even under a true model PITs are not uniform.

    Parameters
    ----------
    vae
        A VAE.
    x
        Rows, shape ``(row, *event)``. Entries that are missing are left out of the replicates too.
    covariates
        Shape ``(row, covariate)``, for a conditional VAE.
    statistics
        Some of ``"mean"``, ``"sd"``, ``"zeros"`` (the share of entries that are zero) and
        ``"max"``; or a mapping of names to functions that reduce the last dimension of a tensor,
        in which missing entries are NaN.
    num_samples
        Replicates of the data.
    seed
        Decides the replicates, together with ``chunk_rows``.
    chunk_rows
        Rows that are drawn at a time; by default as many as keep them within about 64 MB.
    progress
        Show how it goes on standard error.

    Returns
    -------
    xarray.Dataset
        ``row_observed``, ``row_expected`` (the mean of the replicates) and ``row_pit``
        (statistic, row): of all entries of a row. ``feature_observed``, ``feature_expected`` and
        ``feature_pit`` (statistic, feature), or the dims of images: of one entry in all rows.
        NaN where no entry is observed.

    Raises
    ------
    TypeError, ValueError
        If ``x`` or ``covariates`` is not what the VAE describes, a statistic is unknown or returns
        the wrong shape, or ``num_samples`` is below 1.

    Notes
    -----
    Source: Rubin (1984); Gelman, Meng & Stern (1996). One replicate of all rows is in memory at a
    time, or as many as fit in 64 MB.

    Examples
    --------
    >>> from ppl_vae import VAE, VAEConfig
    >>> vae = VAE.from_config(VAEConfig(event_shape=(8, 8), latent_dim=2, hidden=(16,)))
    >>> check = predictive_check(vae, torch.ones(5, 8, 8), num_samples=50, progress=False)
    >>> check.row_pit.sel(statistic="zeros").values.tolist()
    [0.0, 0.0, 0.0, 0.0, 0.0]
    """
    import xarray as xr

    rows = Rows.of(x, covariates, vae)
    rows.check(vae)
    if num_samples < 1:
        raise ValueError(f"num_samples is {num_samples}; pass at least 1")
    chosen = _choose(statistics)
    data, given = rows.take(slice(None), vae.like)
    size = rows_within_budget(vae.event_shape, chunk_rows=chunk_rows)
    at_once = min(num_samples, rows_within_budget(data.shape))
    with evaluating(vae, seed), Progress(num_samples, "replicate", show=progress) as bar:
        tallies = [_Tally(f, t) for f in chosen.values() for t in _tables(data[None])]
        encoded = [
            (chunk, batch.covariates, vae.posterior(*batch))
            for chunk, batch in Rows(data, given).chunks(size, vae.like)
        ]
        for start in range(0, num_samples, at_once):
            number = min(at_once, num_samples - start)
            replicates = data.new_empty(number, *data.shape)
            for chunk, covariates, q in encoded:
                replicates[:, chunk] = vae.replicate(draw(q, (number,)), covariates)
            replicates.masked_fill_(data.isnan(), torch.nan)
            tables = _tables(replicates)
            for i, tally in enumerate(tallies):
                tally.add(tables[i % 2])
            bar.advance(number)
    variables = {}
    for kind, dims, shape, of_kind in (
        ("row", ("row",), (len(data),), tallies[::2]),
        ("feature", event_dims(vae.event_shape), vae.event_shape, tallies[1::2]),
    ):
        for name in ("observed", "expected", "pit"):
            values = torch.stack([getattr(tally, name).reshape(shape) for tally in of_kind])
            variables[f"{kind}_{name}"] = (("statistic", *dims), values.cpu().numpy())
    return xr.Dataset(
        variables,
        coords={"statistic": list(chosen), "row": range(len(data))},
        attrs={
            "num_samples": num_samples,
            "seed": seed,
            "tests": "the decoder against the data, for draws from the encoder",
        },
    )


class _Tally:
    """Where a statistic of the data lies among those of replicates."""

    def __init__(self, statistic: Callable[[Tensor], Tensor], data: Tensor) -> None:
        self.statistic = statistic
        self.observed = statistic(data)[0]
        self.total = torch.zeros_like(self.observed, dtype=torch.float64)
        self.rank = torch.zeros_like(self.total)
        self.count = 0

    def add(self, replicates: Tensor) -> None:
        values = self.statistic(replicates)  # (draw, row) or (draw, feature)
        below, equal = values < self.observed, values == self.observed
        self.rank += below.sum(0) + 0.5 * equal.sum(0)
        self.total += values.sum(0)
        self.count += len(values)

    @property
    def expected(self) -> Tensor:
        return self.total / self.count

    @property
    def pit(self) -> Tensor:
        known = ~(self.observed.isnan() | self.total.isnan())
        return (self.rank / self.count).where(known, torch.nan)


def _tables(data: Tensor) -> tuple[Tensor, Tensor]:
    """Turn (draw, row, *event) into (draw, row, feature) and (draw, feature, row)."""
    by_row = data.flatten(2)
    return by_row, by_row.transpose(1, 2)


def _choose(
    statistics: Sequence[str] | Mapping[str, Callable[[Tensor], Tensor]],
) -> dict[str, Callable[[Tensor], Tensor]]:
    if not isinstance(statistics, Mapping):
        unknown = sorted(set(statistics) - set(STATISTICS))
        if unknown or isinstance(statistics, str):
            raise ValueError(
                f"statistics is {statistics!r}; accepted are a list of some of "
                f"{', '.join(map(repr, STATISTICS))}, or a mapping of names to functions"
            )
        return {name: STATISTICS[name] for name in statistics}
    probe = torch.zeros(2, 3, 4)
    for name, function in statistics.items():
        shape = tuple(function(probe).shape)
        if shape != (2, 3):
            raise ValueError(
                f"statistics[{name!r}] made shape {shape} of (2, 3, 4); pass a function that "
                "reduces the last dimension alone, such as lambda x: x.nanmean(-1)"
            )
    return dict(statistics)
