"""Missing entries of some rows: draws by importance weights, and what these come to."""

from __future__ import annotations

__all__ = ["check_gaps", "completed"]


import torch
from torch import Tensor

from ...amortized import AmortizedModel
from ...rows import Batch, Rows
from ..draws.latents import density, draw
from ..draws.resampling import resampled
from ..weights.khat import khat, reliable_khat

# Rows that are looked at together where all have to be looked at.
_CHECKED = 4096


def completed(
    vae: AmortizedModel, batch: Batch, *, num_samples: int, num_draws: int, level: float
) -> dict[str, Tensor]:
    """What :func:`~ppl_vae.impute` says of each row of a batch, and ``draws`` (row, draw, *event).

    Nothing is drawn for complete rows. Draws come from the global random state.
    """
    x, size = batch.x, len(batch.x)
    missing = x.isnan()
    none = torch.full((size,), torch.nan, dtype=torch.float64, device=x.device)
    found = {
        "x": x.clone(),
        "missing": missing,
        **{name: torch.full_like(x, torch.nan) for name in ("sd", "low", "high", "share")},
        "pareto_k": none,
        "weights_usable": torch.ones(size, dtype=torch.bool, device=x.device),
        "effective_samples": none.clone(),
        "draws": x[:, None].repeat(1, num_draws, *[1] * (x.dim() - 1)),
    }
    index = missing.flatten(1).any(1).nonzero().flatten()
    if not len(index):
        return found
    given = batch.covariates
    some = Batch(x[index], None if given is None else given[index])
    z, log_weight = _weighted(vae, some, num_samples)
    drawn, means = vae.complete(resampled(z, log_weight), *some)
    k = khat(log_weight)
    share = log_weight.double().softmax(0)
    summary = _summary(some.x, drawn, means, level)
    summary["draws"] = drawn[_spaced(num_samples, num_draws)].transpose(0, 1)
    summary["pareto_k"] = k
    summary["weights_usable"] = k <= reliable_khat(num_samples)
    summary["effective_samples"] = 1 / share.square().sum(0)
    for name, values in summary.items():
        found[name][index] = values.to(found[name])
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


def check_gaps(vae: AmortizedModel, data: Rows, name: str) -> None:
    """Refuse rows that the model does not describe, but for those without any entry.

    Raises
    ------
    TypeError, ValueError
        As :meth:`Rows.check`.
    """
    size = len(data)
    if data.in_memory or size <= _CHECKED:
        _check(vae, data, data.take(slice(None), vae.like).x, name)
        return
    for start in range(0, size, _CHECKED):
        some = data.select(slice(start, min(start + _CHECKED, size)))
        of = f"{name}[{start}:{start + len(some)}]"
        _check(vae, some, some.take(slice(None), vae.like).x, of)


def _check(vae: AmortizedModel, data: Rows, x: Tensor, name: str) -> None:
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
