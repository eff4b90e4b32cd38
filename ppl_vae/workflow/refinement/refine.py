"""A better posterior for the rows that need one, with the decoder fixed: three methods."""

from __future__ import annotations

__all__ = ["refine"]

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from ...amortized import AmortizedModel
from ...dims import event_dims
from ...progress import Progress
from ...renamed import renamed
from ...rows import Batch, Rows
from ...sink import MemorySink
from ..draws.posterior import evaluating
from ..weights.khat import smoothed_tail_index
from ..weights.pareto import pareto_khat
from .local_normal import LocalPosterior, chunks, local_posterior, log_weight
from .natural_gradient import STEPS, natural_gradient
from .nuts import Elsewhere, nuts

if TYPE_CHECKING:
    import xarray as xr

# Rows that NUTS samples as one target: steps a draw grow with the fourth root of their number.
_NUTS_ROWS = 64
# Latents that NUTS draws before they are put away: about 128 MB in double precision.
_NUTS_ENTRIES = 2**24
_FITTED = {
    "posterior": ("z",),
    "sample_stats": ("log_p", "log_q", "log_weight"),
    "constant_data": (
        "refined",
        "elbo_before",
        "elbo_after",
        "pareto_k_before",
        "pareto_k_after",
    ),
}
_VARIABLES = {
    "svi": _FITTED,
    "natural_gradient": _FITTED,
    "nuts": {
        "posterior": ("z",),
        "sample_stats": ("log_p", "diverging"),
        "constant_data": ("r_hat", "ess_bulk", "ess_tail"),
    },
}


@renamed(context="covariates")
def refine(
    vae: AmortizedModel,
    x: Tensor | Rows,
    *,
    covariates: Tensor | None = None,
    method: str = "svi",
    rows: str | Sequence[int] | np.ndarray | Tensor = "unreliable",
    threshold: float = 0.7,
    num_samples: int = 1000,
    num_chains: int = 8,
    num_warmup: int = 300,
    max_steps: int | None = None,
    learning_rate: float = 0.1,
    seed: int = 0,
    chunk_rows: int | None = None,
    progress: bool = True,
) -> xr.DataTree:
    r"""Replace q(z|x) by something better, row by row, with the VAE left as it is.

    ``"svi"`` keeps the encoder's family and fits each row's own parameters to that row's ELBO, from
    the encoder's output on. It undoes what amortization costs, and cannot do what the family
    cannot, such as correlations of independent normals. The family is a normal over coordinates in
    which the encoder's distribution is one, such as the noise of a normalizing flow; where there
    are none, as for mixtures, a normal that starts with the moments of the encoder's draws, and
    ``attrs["family"]`` says so. A row in which that is no better keeps the encoder's draws.

    ``"natural_gradient"`` does nearly the same in 12 steps along the natural gradient, where SVI
    takes hundreds: of MNIST 14 times as many rows a second for 97 % of what SVI gains, and with 12
    steps 21 times for 96 %, by ``benchmarks/refinement.py`` on one thread of a busy Xeon.
    :func:`~ppl_vae.diagnose` refines by it.

    ``"nuts"`` draws from :math:`p(z \mid x)` itself, with Pyro's NUTS, in coordinates that a local
    normal with full covariance has made round. The chains of some rows, ``chunk_rows``, are one
    target, and share the step size and when a trajectory ends. A row that is hard to sample slows
    its chunk down; R-hat and ESS are each latent's own. A quarter of the chains starts from the
    local normal, and the others where annealing from the prior and from the posteriors of other
    rows ends. Where a posterior has modes that chains do not cross between, they stay where they
    started, and R-hat is large: such draws say where the modes are, and not what each weighs.

    Parameters
    ----------
    vae
        A VAE, with any encoder.
    x
        Rows, shape ``(row, *event)``.
    covariates
        Shape ``(row, covariate)``, for a conditional VAE.
    method
        ``"svi"``, ``"natural_gradient"`` or ``"nuts"``.
    rows
        Which rows to refine. ``"unreliable"``: those whose Pareto k-hat, of ``num_samples``
        draws but at least 500, is above ``threshold``. ``"all"``; or their indices.
    threshold
        The k-hat above which a row is ``"unreliable"``.
    num_samples
        Draws for each row, and with ``"nuts"`` for each row and chain.
    num_chains, num_warmup
        Chains, and draws of each that only adapt the step size and are not kept; for ``"nuts"``.
        Chains make R-hat of hundreds of latents precise: over 320 of a correlated normal, its
        largest value was 1.004 with 8 chains and up to 1.010 with 4, of 1000 draws each.
    max_steps
        Steps. Of ``"natural_gradient"`` 16 by default, all of which are taken; of SVI's Adam 1000,
        before it cools down, which it does as soon as no row's ELBO rises any more.
    learning_rate
        That of Adam, in units of the encoder's standard deviations and their logarithms.
    seed
        Decides all draws, together with ``chunk_rows``.
    chunk_rows
        Rows at a time; by default as many as keep memory to some tens of MB.
    progress
        Show how it goes on standard error.

    Returns
    -------
    xarray.DataTree
        Of the chosen rows only, named by the coordinate ``row``; where no row was chosen, of zero
        rows. ``posterior``: ``z`` (chain, draw, row, latent). ``observed_data``: ``x``.
        ``sample_stats``, in nats: ``log_p`` (chain, draw, row), log p(x, z); with ``"nuts"``
        also ``diverging``, true for all rows of a chunk whose trajectory diverged, else also
        ``log_q`` and ``log_weight``. ``constant_data``: with ``"nuts"``, ``r_hat``, ``ess_bulk``
        and ``ess_tail`` (row, latent); else ``refined`` (row), false where the encoder was not
        improved on and its output is kept, and ``elbo_before``, ``elbo_after``,
        ``pareto_k_before``, ``pareto_k_after`` (row), each pair from the same noise, other than
        what chose the rows. ``attrs``: ``family``, what the local normal is of, and with
        ``"nuts"`` ``starts``, where chains started, both in words.

    Raises
    ------
    TypeError, ValueError
        If ``x`` or ``covariates`` is not what the VAE describes, the latents are discrete, or an
        option is not accepted.

    Notes
    -----
    Source: Kim et al. (2018), *Semi-amortized variational autoencoders*, for ``"svi"``; Khan &
    Nielsen (2018) for ``"natural_gradient"``; Hoffman &
    Gelman (2014) for NUTS, and Hoffman et al. (2019), *NeuTra-lizing bad geometry*, for sampling
    in fitted coordinates; Vehtari et al. (2021), *Rank-normalization, folding, and localization*,
    for R-hat and ESS.

    Examples
    --------
    >>> import torch
    >>> from ppl_vae import VAE, VAEConfig
    >>> vae = VAE.from_config(VAEConfig(event_shape=(8, 8), latent_dim=2, hidden=(16,)))
    >>> tree = refine(vae, torch.ones(5, 8, 8), rows=[1, 3], num_samples=50, max_steps=50)
    >>> dict(tree.posterior.sizes)
    {'chain': 1, 'draw': 50, 'row': 2, 'latent': 2}
    >>> bool((tree.constant_data.elbo_after >= tree.constant_data.elbo_before).all())
    True
    """
    _check_options(method, num_samples, num_chains, num_warmup, max_steps, learning_rate)
    data = Rows.of(x, covariates, vae)
    data.check(vae)
    chosen = _choose(vae, data, rows, threshold, max(num_samples, 500), seed, progress)
    picked = data.select(chosen)
    by_nuts = method == "nuts"
    work = len(chosen) * (num_warmup + num_samples if by_nuts else 1)
    per_row = num_chains * num_samples * vae.latent_dim
    max_rows = max(1, min(_NUTS_ROWS, _NUTS_ENTRIES // per_row)) if by_nuts else None
    sink, start = MemorySink(len(chosen)), 0
    said: dict[str, str] = {}
    with evaluating(vae, seed), Progress(work, f"refine by {method}", show=progress) as bar:
        others = Elsewhere.of(vae, data) if by_nuts else None
        for batch in chunks(vae, picked, chunk_rows=chunk_rows, max_rows=max_rows):
            if method == "natural_gradient":
                encoder, best = natural_gradient(
                    vae, *batch, steps=STEPS if max_steps is None else max_steps
                )
            else:
                encoder, best = local_posterior(
                    vae,
                    *batch,
                    dense=by_nuts,
                    max_steps=1000 if max_steps is None else max_steps,
                    learning_rate=learning_rate,
                )
            if others is not None:
                advance = partial(bar.advance, len(batch.x))
                size = (num_chains, num_warmup, num_samples)
                made, said["starts"] = nuts(vae, batch, best, others, *size, advance)
            else:
                made = _fitted(vae, batch, encoder, best, num_samples)
                bar.advance(len(batch.x))
            for name, value in made.items():
                sink.write(name, slice(start, start + len(batch.x)), value)
            said["family"], start = best.family, start + len(batch.x)
    num_chains = num_chains if by_nuts else 1
    tree = _tree(vae, picked, chosen, sink.arrays(), method, num_chains, num_samples)
    tree.attrs = {"method": method, "seed": seed, **said}
    if isinstance(rows, str) and rows == "unreliable":
        tree.attrs["threshold"] = threshold
    return tree


def _choose(
    vae: AmortizedModel,
    data: Rows,
    rows: str | Sequence[int] | np.ndarray | Tensor,
    threshold: float,
    num_samples: int,
    seed: int,
    progress: bool,
) -> np.ndarray:
    """The indices of the rows to refine."""
    if isinstance(rows, str):
        if rows == "all":
            return np.arange(len(data))
        if rows == "unreliable":
            k = pareto_khat(vae, data, num_samples=num_samples, seed=seed, progress=progress)
            # Rows whose k-hat is NaN are not reliable either.
            return np.flatnonzero(~(k <= threshold))
    else:
        chosen = np.array(rows)
        if chosen.size == 0:
            return np.arange(0)
        whole = chosen.ndim == 1 and np.issubdtype(chosen.dtype, np.integer)
        if whole and chosen.min() >= 0 and chosen.max() < len(data):
            return chosen
    raise ValueError(
        f"rows is {rows!r}; accepted are 'unreliable', 'all', or indices from 0 to {len(data) - 1}"
    )


def _fitted(
    vae: AmortizedModel,
    batch: Batch,
    encoder: LocalPosterior,
    best: LocalPosterior,
    num_samples: int,
) -> dict[str, np.ndarray]:
    """Draws of the fitted posterior and what they say of it, the row first in all arrays."""
    noise = best.noise(num_samples)
    z, log_q = best.draws(noise)  # (draw, row, latent)
    log_p = vae.log_joint(z, *batch)
    before = log_weight(vae, *batch, encoder, noise).double()
    after = (log_p - log_q).double()
    made = {
        "z": z.transpose(0, 1)[:, None],
        "log_p": log_p.T[:, None],
        "log_q": log_q.T[:, None],
        "log_weight": after.T[:, None],
        "refined": ~best.keeps,
        "elbo_before": before.mean(0),
        "elbo_after": after.mean(0),
    }
    arrays = {name: value.cpu().numpy() for name, value in made.items()}
    arrays["pareto_k_before"] = smoothed_tail_index(before.T.cpu().numpy())
    arrays["pareto_k_after"] = smoothed_tail_index(after.T.cpu().numpy())
    return arrays


def _tree(
    vae: AmortizedModel,
    picked: Rows,
    chosen: np.ndarray,
    arrays: dict[str, np.ndarray],
    method: str,
    num_chains: int,
    num_samples: int,
) -> xr.DataTree:
    import arviz_base
    import xarray as xr

    event = event_dims(vae.event_shape)
    dims = {"z": ["row", "latent"], "x": ["row", *event]}
    sizes = {"row": len(chosen), "latent": vae.latent_dim}
    sizes |= dict(zip(event, vae.event_shape, strict=True))
    coords = {dim: np.arange(size) for dim, size in sizes.items()} | {"row": chosen}
    made: dict[str, dict[str, np.ndarray]] = {}
    for group, names in _VARIABLES[method].items():
        by_draw = group != "constant_data"
        for name in names:
            by_latent = name == "z" or name in _VARIABLES["nuts"]["constant_data"]
            dims[name] = ["row", "latent"] if by_latent else ["row"]
            shape = [sizes[dim] for dim in dims[name]]
            shape = [num_chains, num_samples, *shape] if by_draw else shape
            empty = np.empty(shape, bool if name in ("refined", "diverging") else float)
            # (row, chain, draw, ...) -> (chain, draw, row, ...)
            value = np.moveaxis(arrays[name], 0, 2 if by_draw else 0) if arrays else empty
            made.setdefault(group, {})[name] = value
    made["observed_data"] = {"x": picked.numbers()}
    tree = xr.DataTree()
    for group, variables in made.items():
        tree[group] = arviz_base.from_dict(
            {group: variables},
            dims=dims,
            coords=coords,
            attrs={group: {"inference_library": "pyro" if method == "nuts" else "ppl_vae"}},
        )[group]
    return tree


def _check_options(
    method: str,
    num_samples: int,
    num_chains: int,
    num_warmup: int,
    max_steps: int | None,
    learning_rate: float,
) -> None:
    if method not in _VARIABLES:
        raise ValueError(f"method is {method!r}; accepted are 'svi', 'natural_gradient', 'nuts'")
    least = 4 if method == "nuts" else 30
    if num_samples < least:
        raise ValueError(
            f"num_samples is {num_samples}, too few to judge the draws by; pass at least {least} "
            f"for method={method!r}, better 500"
        )
    for name, value in {"num_chains": num_chains, "num_warmup": num_warmup}.items():
        if value < 1:
            raise ValueError(f"{name} is {value}; pass at least 1")
    if max_steps is not None and max_steps < 0:
        raise ValueError(f"max_steps is {max_steps}; pass 0 or more")
    if not 0 < learning_rate < np.inf:
        raise ValueError(f"learning_rate is {learning_rate}; pass a positive number")
