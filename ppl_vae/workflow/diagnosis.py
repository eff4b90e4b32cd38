"""The verdict: which rows can be believed, and what is wrong where they cannot."""

from __future__ import annotations

__all__ = ["VERDICTS", "Diagnosis", "diagnose"]

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..amortized import AmortizedModel
from ..renamed import renamed
from .calibration import calibrate, p_text
from .evidence import log_evidence
from .gaps import amortization_gap
from .refinement import refine
from .units import active_units, loss_without

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

VERDICTS = {
    "as it is": "draws from the encoder can be used as they are",
    "reweighted": "draws can be used with their importance weights",
    "refined": "draws can be used after refine(method='svi'), with their weights",
    "not": "only NUTS, refine(method='nuts'), or a better VAE will do",
    "not tried": "refinement was not tried on this row",
}


@dataclass(frozen=True)
class Diagnosis:
    """What :func:`diagnose` found.

    Attributes
    ----------
    rows
        Dataset over ``row``: ``log_evidence``, ``standard_error``, ``elbo`` (nats), ``pareto_k``,
        ``pareto_k_refined`` and ``pareto_k_redrawn``, of the encoder's own draws beside it (both
        NaN where refinement was not tried), and ``verdict``, a key of ``VERDICTS``.
    latents
        Dataset over ``latent``, of :func:`~ppl_vae.workflow.reliability.active_units`, with
        ``used``: nats by which the decoder's log p(x|z) falls when the latent is drawn anew.
    calibration
        Of :func:`~ppl_vae.workflow.calibration.calibrate`.
    gaps
        Of :func:`~ppl_vae.workflow.reliability.amortization_gap`, for some rows.
    """

    rows: xr.Dataset
    latents: xr.Dataset
    calibration: xr.Dataset
    gaps: xr.Dataset

    @property
    def faults(self) -> list[str]:
        """What is wrong with the encoder, in words; empty if calibration finds nothing."""
        shape = self.calibration["shape"]
        latents = [q for q in shape.quantity.values if q.startswith("z[")]
        found = []
        for fault in ("too narrow", "too wide", "shifted", "other"):
            names = [name for name in latents if shape.sel(quantity=name).item() == fault]
            if names:
                text = "not as the posterior" if fault == "other" else fault
                found.append(f"q(z|x) is {text} in {_listed(names)}")
        ignored = [
            f"z[{i}]"
            for i in self.latents.latent.values
            if not self.latents.active.sel(latent=i) and self.latents.used.sel(latent=i) > 0.1
        ]
        if ignored:
            found.append(
                f"the encoder leaves at the prior what the decoder uses: {_listed(ignored)}"
            )
        jointly = [
            name
            for name in ("log_likelihood", "log_joint")
            if shape.sel(quantity=name).item() != "uniform"
        ]
        if jointly and not found:
            found.append(
                "each latent is right by itself but not all together: q(z|x) ignores how they "
                "depend on each other"
            )
        return found

    def summary(self) -> str:
        """The verdict in words and numbers, a paragraph for each question."""
        size = self.rows.sizes["row"]
        used = int(self.latents.active.sum())
        smallest = p_text(self.calibration.p_value.min().item())
        tests = self.calibration.sizes["quantity"]
        evidence = self.rows.log_evidence.values
        finite = np.isfinite(evidence)
        evidence, lost = evidence[finite], int((~finite).sum())
        error = np.std(evidence, ddof=1) / np.sqrt(len(evidence)) if len(evidence) > 1 else np.nan
        mean = np.mean(evidence) if len(evidence) else np.nan
        bound = int((self.rows.pareto_k > 0.7).sum())
        faults = "; ".join(self.faults) or "nothing wrong was found"
        approximation, amortization = (
            f"{self.gaps[name].mean().item():.2f}" for name in ("approximation", "amortization")
        )
        return "\n".join(
            [
                f"Which of {size} rows can be believed, by Pareto k-hat:",
                *self._counts(),
                "",
                f"Latents: {used} of {self.latents.sizes['latent']} are used.",
                "",
                f"Encoder against decoder: {faults} (smallest p of {tests} quantities "
                f"{smallest}, {self.calibration.sizes['simulation']} simulated rows). "
                "This says nothing of the decoder against the world.",
                "",
                f"Gaps, mean of {self.gaps.sizes['row']} rows: {amortization} nats are lost "
                f"because one encoder serves all rows, {approximation} because of its family.",
                "",
                f"Evidence: log p(x) is {mean:.2f} +- {error:.2f} nats per row"
                + (f", less {lost} rows in which it is not finite" if lost else "")
                + (f"; of the {bound} rows with k-hat above 0.7, a lower bound." if bound else "."),
            ]
        )

    def _counts(self) -> list[str]:
        """A line for each verdict; what was tried on a sample is scaled to the rows it is of."""
        verdict = self.rows.verdict.values
        counts = {name: float((verdict == name).sum()) for name in VERDICTS}
        lost = float(np.isnan(self.rows.pareto_k).sum())
        counts["not"] -= lost
        tried, untried = counts["refined"] + counts["not"], counts["not tried"]
        scaled = ("refined", "not") if tried and untried else ()
        for name in scaled:
            counts[name] *= 1 + untried / tried
            counts["not tried"] = 0.0
        counts["not"] += lost
        lines = []
        for name, count in counts.items():
            if count:
                number = f"{'~' if name in scaled else ''}{count:.0f}"
                share = count / len(verdict)
                lines.append(f"{name:>12}  {number:>6}  {share:>4.0%}  {VERDICTS[name]}")
        if tried:
            mended = counts["refined"] / (counts["refined"] + counts["not"] - lost)
            alone = float((self.rows.pareto_k_redrawn <= 0.7).sum()) / tried
            some = (
                f"{tried:.0f}, spread over the {tried + untried:.0f}"
                if scaled
                else f"the {tried:.0f}"
            )
            rows = "row" if tried == 1 and not scaled else "rows"
            lines.append(
                f"Refined: {some} {rows} with k-hat above 0.7; {mended:.0%} fell below it, where "
                f"fresh draws alone would have brought {alone:.0%}."
                + (" The numbers with ~ say so of all." if scaled else "")
            )
        return lines

    def to_datatree(self) -> xr.DataTree:
        """Everything found, a group each: ``rows``, ``latents``, ``calibration``, ``gaps``."""
        import xarray as xr

        names = ("rows", "latents", "calibration", "gaps")
        tree = xr.DataTree.from_dict({name: getattr(self, name) for name in names})
        tree.attrs["summary"] = self.summary()
        return tree

    def plot(self) -> Figure:
        """Four pictures: see :func:`~ppl_vae.pictures.checks.plot_diagnosis`."""
        from .. import plot_diagnosis

        return plot_diagnosis(self.rows, self.latents, self.calibration, self.gaps)


@renamed(context="covariates")
def diagnose(
    vae: AmortizedModel,
    x: Tensor,
    *,
    covariates: Tensor | None = None,
    num_samples: int = 500,
    num_simulations: int = 1000,
    gap_rows: int = 50,
    refined_rows: int = 200,
    seed: int = 0,
    progress: bool = True,
) -> Diagnosis:
    """Say which rows' posteriors can be believed, and what is wrong where they cannot.

    A row whose Pareto k-hat is below 0.5 can be believed as it is, below 0.7 with importance
    weights (Yao et al., 2018); of the others a sample is refined by local SVI and judged again.
    Beside these stand the evidence, latents in use, calibration, and what amortization and the
    encoder's family cost.

    Parameters
    ----------
    vae
        A VAE.
    x
        Rows, shape ``(row, *event)``, best ones that it was not fitted to.
    covariates
        Shape ``(row, covariate)``, for a conditional VAE.
    num_samples
        Draws for each row.
    num_simulations
        Simulated rows for calibration.
    gap_rows
        How many rows to measure gaps on, spread over ``x``.
    refined_rows
        How many of the rows with k-hat above 0.7 to refine, spread over them.
    seed
        Decides all draws.
    progress
        Show how it goes on standard error.

    Raises
    ------
    TypeError, ValueError
        If ``x`` or ``covariates`` is not what the VAE describes, or a number is too small.

    Notes
    -----
    Source: Yao et al. (2018), *Yes, but did it work?*, for the thresholds of k-hat.

    Examples
    --------
    >>> from ppl_vae import VAE, VAEConfig
    >>> vae = VAE.from_config(VAEConfig(event_shape=(8, 8), latent_dim=2, hidden=(16,)))
    >>> x = (torch.rand(30, 8, 8) < 0.5).float()
    >>> found = diagnose(vae, x, num_simulations=50, gap_rows=5, refined_rows=5, progress=False)
    >>> print(found.summary().splitlines()[0])
    Which of 30 rows can be believed, by Pareto k-hat:
    """
    options: dict[str, Any] = {"seed": seed, "progress": progress}
    rows = log_evidence(vae, x, covariates=covariates, num_samples=num_samples, **options)
    k = rows.pareto_k.values
    # NaN is neither above nor below: there is nothing to refine, and nothing to believe.
    lost = ~np.isfinite(rows.log_evidence.values) | np.isnan(k)
    unreliable = _spread(np.flatnonzero((k > 0.7) & ~lost), refined_rows)
    refined_k, redrawn_k = np.full((2, len(x)), np.nan)
    if len(unreliable):
        refined = refine(
            vae, x, covariates=covariates, rows=unreliable, num_samples=num_samples, **options
        )
        refined_k[unreliable] = refined["constant_data"]["pareto_k_after"].values
        redrawn_k[unreliable] = refined["constant_data"]["pareto_k_before"].values
    verdict = np.select(
        [lost, k < 0.5, k <= 0.7, refined_k <= 0.7, ~np.isnan(refined_k)],
        ["not", "as it is", "reweighted", "refined", "not"],
        "not tried",
    )
    rows = rows.assign(
        pareto_k_refined=("row", refined_k),
        pareto_k_redrawn=("row", redrawn_k),
        verdict=("row", verdict),
    )
    some = torch.as_tensor(_spread(np.arange(len(x)), gap_rows))
    gaps = amortization_gap(
        vae,
        x[some],
        covariates=None if covariates is None else covariates[some],
        num_samples=num_samples,
        **options,
    )
    latents = active_units(vae, x, covariates=covariates)
    latents = latents.assign(used=("latent", loss_without(vae, covariates, seed=seed)))
    calibration = calibrate(vae, covariates=covariates, num_simulations=num_simulations, **options)
    return Diagnosis(rows=rows, latents=latents, calibration=calibration, gaps=gaps)


def _spread(indices: np.ndarray, most: int) -> np.ndarray:
    """At most so many of the indices, evenly spread."""
    if len(indices) <= most:
        return indices
    return indices[np.linspace(0, len(indices) - 1, most).round().astype(int)]


def _listed(names: list[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
