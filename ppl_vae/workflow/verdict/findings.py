"""What a diagnosis found, and what it comes to in words."""

from __future__ import annotations

__all__ = ["Diagnosis"]

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..checks.calibration import p_text
from ..checks.gaps import gaps_in_words
from .cures import Cure, cures_of, in_words
from .doubt import doubts_in_words
from .verdicts import VERDICTS

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

# Calibration's findings, in words about q(z|x).
FAULTS = {
    "too narrow": "too narrow",
    "too wide": "too wide",
    "shifted": "shifted",
    "misplaced": "misplaced from row to row",
    "uneven": "too narrow in some rows and too wide in others",
    "too narrow or misplaced": "too narrow or misplaced",
    "other": "not as the posterior",
}


@dataclass(frozen=True)
class Diagnosis:
    """What :func:`~ppl_vae.diagnose` found.

    Attributes
    ----------
    rows
        Dataset over ``row``, of :func:`~ppl_vae.workflow.verdict.verdicts.verdicts`: ``verdict``, a
        key of ``VERDICTS``, with its ``reason``; ``kl``, ``log_evidence`` and what else it rests
        on.
    latents
        Dataset over ``latent``, of :func:`~ppl_vae.active_units`, with
        ``used``: nats by which the decoder's log p(x|z) falls when the latent is drawn anew.
    calibration
        Of :func:`~ppl_vae.calibrate`.
    gaps
        Of :func:`~ppl_vae.amortization_gap`, for some rows.
    prior_gap
        Of :func:`~ppl_vae.prior_gap`: what a learned prior would win.
    """

    rows: xr.Dataset
    latents: xr.Dataset
    calibration: xr.Dataset
    gaps: xr.Dataset
    prior_gap: xr.Dataset

    @property
    def cures(self) -> list[Cure]:
        """What would mend the VAE, the change that wins most first."""
        return cures_of(self.prior_gap, self.gaps, self.rows.attrs.get("parts", {}))

    @property
    def faults(self) -> list[str]:
        """What is wrong with the encoder, in words; empty if calibration finds nothing."""
        latents = self.calibration.isel(quantity=slice(0, self.latents.sizes["latent"]))
        shape, names = latents["shape"].values, latents.quantity.values
        found = []
        for fault in dict.fromkeys(word for word in FAULTS if (shape == word).any()):
            found.append(f"q(z|x) is {FAULTS[fault]} in {_listed(list(names[shape == fault]))}")
        ignored = ~self.latents.active.values & (self.latents.used.values > 0.1)
        if ignored.any():
            found.append(
                "the encoder leaves at the prior what the decoder uses: "
                f"{_listed(list(names[ignored]))}"
            )
        densities = self.calibration["shape"].values[len(shape) :]
        if found or (densities == "uniform").all():
            return found
        hidden = latents.fault.values
        # A scale that ranks do not show is right: it is that of a latent by itself.
        for fault in ("shifted", "misplaced"):
            if (hidden == fault).any():
                found.append(
                    f"q(z|x) is {FAULTS[fault]} in {_listed(list(names[hidden == fault]))}, which "
                    "the ranks of single latents do not show"
                )
        if found:
            return found
        if len(shape) == 1:
            return ["q(z|x) is not the posterior, though it is neither shifted nor too wide"]
        return [
            "each latent is right by itself but not all together: q(z|x) ignores how they depend "
            "on each other"
        ]

    def summary(self) -> str:
        """The verdict in words and numbers, a paragraph for each question."""
        size = self.rows.sizes["row"]
        used = int(self.latents.active.sum())
        smallest = p_text(self.calibration.p_value.min().item())
        tests = self.calibration.sizes["quantity"]
        faults = "; ".join(self.faults) or "nothing wrong was found"
        return "\n".join(
            [
                f"Which of {size} rows can be believed:",
                *self._counts(),
                *doubts_in_words(self.rows),
                "",
                f"KL(q || p), what draws used as they are differ by: {self._divergence()}",
                "",
                f"Latents: {used} of {self.latents.sizes['latent']} are used.",
                "",
                f"Encoder against decoder: {faults} (smallest p of {tests} quantities "
                f"{smallest}, {self.calibration.sizes['simulation']} simulated rows). "
                "This says nothing of the decoder against the world.",
                "",
                f"Gaps: {gaps_in_words(self.gaps)}",
                "",
                f"Evidence: {self._evidence()}",
                "",
                *in_words(self.cures, self.prior_gap, self.gaps),
            ]
        )

    def _counts(self) -> list[str]:
        """A line for each verdict; what was tried on a sample is scaled to the rows it is of."""
        verdict, tried = self.rows.verdict.values, self.rows.tried.values
        counts = {name: float((verdict == name).sum()) for name in VERDICTS}
        number, untried = int(tried.sum()), counts["not tried"]
        mended = {name: float((verdict[tried] == name).sum()) for name in ("refined", "not")}
        scaled = tuple(mended) if number and untried else ()
        for name in scaled:
            counts[name] += mended[name] * untried / number
            counts["not tried"] = 0.0
        lines = []
        for name, count in counts.items():
            if count:
                shown = f"{'~' if name in scaled else ''}{count:.0f}"
                share = count / len(verdict)
                lines.append(f"{name:>12}  {shown:>6}  {share:>4.0%}  {VERDICTS[name]}")
        if number:
            some = (
                f"{number}, spread over the {number + untried:.0f}" if scaled else f"the {number}"
            )
            rows = "row" if number == 1 and not scaled else "rows"
            before, after = (
                np.nanmedian(self.rows[name].values[tried]) for name in ("kl", "kl_refined")
            )
            lines.append(
                f"Refined: {some} {rows} that neither raw nor weighted draws are enough for; "
                f"{mended['refined'] / number:.0%} can be used then, and the median of KL(q || p) "
                f"went from {before:.2f} to {after:.2f} nats."
                + (" The numbers with ~ say so of all." if scaled else "")
            )
        return lines

    def _divergence(self) -> str:
        kl = self.rows.kl.values
        finite = np.isfinite(kl)
        if not finite.any():
            return "not finite in any row."
        middle, most = np.quantile(kl[finite], [0.5, 0.9])
        low = int((self.rows.weights_usable.values != 1)[finite].sum())
        return (
            f"{middle:.2f} nats in half of the rows, {most:.2f} in nine of ten"
            + ("" if finite.all() else f", less {(~finite).sum()} rows in which it is not finite")
            + (f"; of {low} rows whose weights cannot be used, rather more." if low else ".")
        )

    def _evidence(self) -> str:
        evidence = self.rows.log_evidence.values
        finite = np.isfinite(evidence)
        lost = int((~finite).sum())
        if not finite.any():
            return (
                f"log p(x) is not finite in any of {lost} rows: this model describes none of them, "
                "as after a fit that diverged."
            )
        some = evidence[finite]
        error = np.std(some, ddof=1) / np.sqrt(len(some)) if len(some) > 1 else np.nan
        bound = int((np.isinf(self.rows.log_evidence_high.values) & finite).sum())
        over = f" +- {error:.2f}" if np.isfinite(error) else ""
        words = f"log p(x) is {some.mean():.2f}{over} nats per row"
        if lost:
            words += f", less {lost} rows in which it is not finite"
        if bound:
            words += (
                f"; of {bound} rows whose weights cannot be used it is a lower bound, on average, "
                "and nothing bounds it from above: a sandwich is of simulated rows alone"
            )
        words += "."
        baseline = self.rows.attrs.get("baseline")
        if baseline is not None and some.mean() < baseline:
            words += (
                f" That is below {baseline:.2f}, what independent entries reach: this model "
                "describes these rows worse than one without latents, as after a fit that failed."
            )
        if not (self.latents.active.any() or (self.latents.used > 0.1).any()):
            words += (
                " No latent is used, by encoder or decoder: rows are all described alike, and the "
                "fit went nowhere."
            )
        return words

    def to_datatree(self) -> xr.DataTree:
        """Everything found, a group for each attribute."""
        import xarray as xr

        names = ("rows", "latents", "calibration", "gaps", "prior_gap")
        found = {name: getattr(self, name).copy() for name in names}
        found["rows"].attrs.pop("parts", None)
        tree = xr.DataTree.from_dict(found)
        tree.attrs["summary"] = self.summary()
        return tree

    def plot(self) -> Figure:
        """Four pictures: see :func:`~ppl_vae.pictures.checks.plot_diagnosis`."""
        from ... import plot_diagnosis

        return plot_diagnosis(self.rows, self.latents, self.calibration, self.gaps)


def _listed(names: list[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
