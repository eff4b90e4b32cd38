"""What the explorer shows, as numbers: of all rows, of one, and of any place among the latents."""

from __future__ import annotations

__all__ = ["Explored", "Posterior"]

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..amortized import AmortizedModel
from ..data import Dataset
from ..rows import Rows
from ..workflow.draws.encoding import encode
from ..workflow.draws.plane import Plane, plane_of
from ..workflow.draws.posterior import evaluating, sample_posterior
from ..workflow.verdict.diagnosis import VERDICTS
from ..workflow.verdict.judgement import reasons
from ..workflow.verdict.judging import CODED, judge_rows
from ..workflow.weights.evidence import log_evidence

if TYPE_CHECKING:
    import xarray as xr

# Draws of a row that is looked at, and by which rows are judged where no diagnosis has done so.
_DRAWS = 500
# A latent whose posterior means vary less than this between rows is not used (Burda et al. 2016).
_USED = 0.01
# The worst verdict first.
_WORST = ("not", "not tried", "refined", "reweighted", "as it is")


@dataclass(frozen=True)
class Posterior:
    """What is known of one row's latents, and what they decode to.

    Attributes
    ----------
    z
        Draws of q(z|x), shape ``(draw, latent)``.
    mean, sd
        Of these, shape ``(latent,)``.
    weighted_mean, weighted_sd
        The same under importance weights.
    effective
        How many draws the weighted ones are worth.
    reconstruction, spread
        Mean and standard deviation over draws of what is typical of p(x|z), shape ``(*event)``.
    """

    z: np.ndarray
    mean: np.ndarray
    sd: np.ndarray
    weighted_mean: np.ndarray
    weighted_sd: np.ndarray
    effective: float
    reconstruction: np.ndarray
    spread: np.ndarray


class Explored:
    """Rows, where they lie among the latents, and whether their posteriors can be believed.

    Parameters
    ----------
    vae
        A model.
    data
        Rows with what is known of them.
    x
        The same rows as the model was fitted to them, shape ``(row, *event)``.
    judged
        ``rows`` of a :class:`~ppl_vae.Diagnosis` of these rows. Without it each row is judged by
        its own draws, and nothing is refined.
    max_rows
        How many of the first rows are taken.
    seed
        Decides all draws.
    progress
        Show how it goes on standard error.

    Raises
    ------
    TypeError, ValueError
        If ``x`` is not what the model describes.

    Examples
    --------
    >>> from ppl_vae import VAE, VAEConfig, load_data
    >>> data = load_data("digits", "test")
    >>> vae = VAE.from_config(VAEConfig.for_data(data.x, latent_dim=2, hidden=(16,)))
    >>> seen = Explored(vae, data, data.x, max_rows=20, progress=False)
    >>> seen.points.shape, seen.decode(seen.means[0], row=0).shape
    ((20, 2), (8, 8))
    >>> len(seen.neighbors(3)), 3 in seen.neighbors(3)
    (6, False)
    """

    def __init__(
        self,
        vae: AmortizedModel,
        data: Dataset,
        x: Tensor,
        *,
        judged: xr.Dataset | None = None,
        max_rows: int = 2000,
        seed: int = 0,
        progress: bool = True,
    ) -> None:
        given = data.covariates
        self.vae, self.data, self.seed = vae, data, seed
        self.rows = Rows(x[:max_rows], None if given is None else given[:max_rows])
        self.x = self.rows.numbers()
        size = len(self.rows)
        encoded = encode(vae, self.rows, progress=False)
        self.means = encoded["mean"].values  # (row, latent)
        self.sds = encoded["sd"].values
        self.plane: Plane = plane_of(self.means)
        self.points = self.plane.at(self.means)  # (row, 2)
        self.labels = None if data.labels is None else [str(label) for label in data.labels[:size]]
        self.diagnosed = judged is not None and judged.sizes["row"] >= size
        options: dict[str, Any] = {"seed": seed, "progress": progress}
        if judged is not None and self.diagnosed:
            found = judged.isel(row=slice(size))
            self.verdict = [str(verdict) for verdict in found["verdict"].values]
            self.reason = [str(reason) for reason in found["reason"].values]
            evidence = found["log_evidence"]
        else:
            found = judge_rows(vae, self.rows, num_samples=_DRAWS, **options)
            self.verdict = [CODED[int(code)] for code in found["verdict"].values]
            arrays = {str(name): found[name].values for name in found.data_vars}
            self.reason = [str(reason) for reason in reasons(arrays, found.attrs["tolerance"])]
            evidence = log_evidence(vae, self.rows, num_samples=_DRAWS, **options)["log_evidence"]
        self.khat = found["pareto_k"].values.astype(float)
        self.threshold = found["pareto_k_threshold"].values.astype(float)
        self.kl = found["kl"].values.astype(float)
        self.evidence = evidence.values.astype(float)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def worst(self) -> np.ndarray:
        """All rows, those that can be believed least first: shape ``(row,)``."""
        rank = [_WORST.index(verdict) for verdict in self.verdict]
        return np.lexsort((-np.nan_to_num(self.kl, nan=np.inf), rank))

    @property
    def latents(self) -> np.ndarray:
        """The latents in use, those whose posterior means vary most first; at least one."""
        variance = self.means.var(0)
        order = np.argsort(-variance, kind="stable")
        return order[: max(1, int((variance > _USED).sum()))]

    @property
    def reach(self) -> tuple[np.ndarray, np.ndarray]:
        """Between which values latents are worth moving: shape ``(latent,)`` each."""
        middle = self.means.mean(0)
        sd = np.sqrt(self.means.var(0) + (self.sds**2).mean(0))
        return (
            np.minimum(middle - 3 * sd, self.means.min(0)),
            np.maximum(middle + 3 * sd, self.means.max(0)),
        )

    def verdict_in_words(self, row: int) -> list[str]:
        """What is said of a row, a sentence each."""
        verdict, reason = self.verdict[row], self.reason[row]
        meaning = VERDICTS[verdict]
        below = np.mean(self.evidence < self.evidence[row])
        said = [f"{meaning[:1].upper()}{meaning[1:]}.", f"Why: {reason}."]
        if np.isfinite(self.khat[row]) and "k-hat" not in reason:
            sound = "so that" if self.khat[row] < self.threshold[row] else "so that no"
            said.append(
                f"k-hat is {self.khat[row]:.2f} against a threshold of {self.threshold[row]:.2f}, "
                f"{sound} averages under the weights can be relied on."
            )
        said.append(f"KL(q || p) is about {self.kl[row]:.2g} nats.")
        said.append(
            f"log p(x) is {self.evidence[row]:.2f} nats, higher than that of {below:.0%} of the "
            "rows here."
        )
        return said

    def neighbors(self, row: int, count: int = 6) -> list[int]:
        """The rows whose posterior means are nearest, in standard deviations of all rows."""
        scale = np.sqrt(self.means.var(0) + (self.sds**2).mean(0))
        away = ((self.means - self.means[row]) / np.maximum(scale, 1e-12)) ** 2
        order = np.argsort(away.sum(1), kind="stable")
        return [int(other) for other in order if other != row][:count]

    def nearest(self, x: float, y: float) -> int:
        """The row that lies nearest to a place of the plane."""
        return int(np.nanargmin(((self.points - [x, y]) ** 2).sum(1)))

    def posterior(self, row: int) -> Posterior:
        """Draws of a row's latents, raw and weighted, and what they decode to."""
        one = self.rows.select([row])
        draws = sample_posterior(
            self.vae, one, num_samples=_DRAWS, seed=self.seed, progress=False
        ).isel(row=0)
        z, log_weight = draws["z"].values, draws["log_weight"].values.astype(float)
        weight = np.exp(log_weight - log_weight.max()) if np.isfinite(log_weight).all() else None
        weight = np.ones(len(z)) if weight is None else weight
        weight /= weight.sum()
        middle = weight @ z
        decoded = self._decoded(z[:100], row)
        return Posterior(
            z=z,
            mean=z.mean(0),
            sd=z.std(0),
            weighted_mean=middle,
            weighted_sd=np.sqrt(weight @ (z - middle) ** 2),
            effective=float(1 / (weight**2).sum()),
            reconstruction=decoded.mean(0),
            spread=decoded.std(0),
        )

    def decode(self, z: np.ndarray, *, row: int) -> np.ndarray:
        """What is typical of p(x|z), shape ``(*event)``, given the covariates of ``row``."""
        return self._decoded(np.asarray(z)[None], row)[0]

    def _decoded(self, z: np.ndarray, row: int) -> np.ndarray:
        latents = torch.as_tensor(z).to(self.vae.like)  # (draw, latent)
        given = self.rows.take([row], self.vae.like).covariates
        with evaluating(self.vae, self.seed):
            typical = self.vae.typical(latents[:, None], given)  # (draw, 1, *event)
        return typical[:, 0].cpu().numpy()
