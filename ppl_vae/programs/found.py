"""What a check of a Pyro program found, in numbers and in words."""

from __future__ import annotations

__all__ = ["WORDS", "ProgramCheck"]

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..workflow.checks.calibration import p_text
from ..workflow.verdict.judgement import CLOSE

if TYPE_CHECKING:
    import xarray as xr

WORDS = {
    "as it is": "draws of the guide can be used as they are",
    "reweighted": "draws can be used with their importance weights",
    "not": "only MCMC, or a better guide, will do",
}
_FAULTS = {
    "shifted": "shifted",
    "too wide": "too wide",
    "too narrow or misplaced": "too narrow or misplaced",
    "other": "not as the posterior",
}
# The p-value of all quantities together below which ranks are called asymmetric.
_LEVEL = 0.01
_SHOWN = 5


@dataclass(frozen=True)
class ProgramCheck:
    """What :func:`~ppl_vae.check_svi` found; it prints as its verdict in words.

    Attributes
    ----------
    joint
        Of all latents together: ``verdict``, ``reason``, and the numbers that they rest on, as of
        :func:`~ppl_vae.diagnose`; ``effective_draws``; ``log_evidence`` with its error and
        interval, nats. None where every latent is a row's own, and where nothing can be weighed.
    latents
        Over ``latent``: what raw draws of each are off by, with errors. None without ``joint``.
    rows
        Over the rows of a plate: the same as ``joint`` for the latents of each row, given those
        that rows share. None without a plate of latents.
    calibration
        Over ``quantity``: ranks of simulated truths. None where none were simulated.
    notes
        What could not be done, or was done otherwise, a sentence each.
    """

    joint: xr.Dataset | None
    latents: xr.Dataset | None
    rows: xr.Dataset | None
    calibration: xr.Dataset | None
    notes: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """``"as it is"``, ``"reweighted"`` or ``"not"``: of all latents, else of the worst row."""
        if self.joint is not None:
            return str(self.joint.verdict.item())
        if self.rows is None:
            return "not"
        found = set(self.rows.verdict.values.tolist())
        return next(word for word in reversed(WORDS) if word in found)

    @property
    def faults(self) -> list[str]:
        """What simulated truths say is wrong with the guide; empty if they say nothing."""
        if self.calibration is None:
            return []
        latents = self.calibration.isel(
            quantity=slice(0, -self.calibration.attrs["num_densities"] or None)
        )
        names, shape = latents.quantity.values, latents["shape"].values
        found = [
            f"the guide is {words} in {_listed(names[shape == word])}"
            for word, words in _FAULTS.items()
            if (shape == word).any()
        ]
        if "asymmetry" in latents:
            off = latents.asymmetry_p_value.values < _LEVEL / len(names)
            for sign, word in ((1, "low"), (-1, "high")):
                some = off & (np.sign(latents.asymmetry.values) == sign)
                if some.any():
                    found.append(f"the guide is too {word} in {_listed(names[some])}")
        if not found and (self.calibration["shape"] != "uniform").any():
            found.append("latents are right one by one but not together, or not with their data")
        return found

    def __str__(self) -> str:
        return self.summary()

    def _repr_html_(self) -> str:
        from html import escape

        return f"<pre>{escape(self.summary())}</pre>"

    def summary(self) -> str:
        """The verdict in words and numbers, a paragraph for each question."""
        parts = [self._joint(), self._rows(), self._calibration(), self._cures()]
        parts.append("\n".join(f"Note: {note}." for note in self.notes))
        return "\n\n".join(part for part in parts if part)

    def to_datatree(self) -> xr.DataTree:
        """Everything found, a group for each attribute, and the summary as an attribute."""
        import xarray as xr

        names = ("joint", "latents", "rows", "calibration")
        found = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        tree = xr.DataTree.from_dict(found)
        tree.attrs["summary"] = self.summary()
        return tree

    def _joint(self) -> str:
        if self.joint is None:
            return ""
        verdict, reason = self.joint.verdict.item(), self.joint.reason.item()
        lines = [f"All latents together: {verdict}; {WORDS[verdict]}.", f"Why: {reason}."]
        if "kl" not in self.joint:
            return "\n".join(lines)
        numbers = {str(name): self.joint[name].item() for name in self.joint.data_vars}
        lines.append(
            f"KL(q || p) is {numbers['kl']:.2f} nats, k-hat {numbers['pareto_k']:.2f} (at most "
            f"{numbers['pareto_k_threshold']:.2f}); {numbers['effective_draws']:.0f} of "
            f"{numbers['num_draws']:.0f} draws are effective."
        )
        worst = self._worst()
        if worst:
            lines.append(f"Furthest off: {worst}.")
        lines.append(f"Evidence: {_evidence(numbers)}")
        return "\n".join(lines)

    def _worst(self) -> str:
        """The latents whose raw draws were shown to be off, the worst first."""
        assert self.latents is not None
        words = []
        for part, unit in (("mean", "sd"), ("sd", "in logarithm"), ("interval", "of mass")):
            off = self.latents[f"raw_{part}_off"].values
            shown = np.abs(off) - 2 * self.latents[f"raw_{part}_error"].values > CLOSE[part]
            if shown.any():
                worst = np.argmax(np.where(shown, np.abs(off), 0.0))
                name = self.latents.latent.values[worst]
                words.append(f"{part} of {name} by {off[worst]:+.2g} {unit}")
        return ", ".join(words)

    def _rows(self) -> str:
        if self.rows is None:
            return ""
        plate, given = self.rows.attrs["plate"], self.rows.attrs.get("given")
        size, verdict = self.rows.sizes[plate], self.rows.verdict.values
        of = f", given {given}" if given else ""
        lines = [f"Latents of the {size} rows of plate {plate!r}{of}:"]
        for word, meaning in WORDS.items():
            number = int((verdict == word).sum())
            if number:
                lines.append(f"{word:>12}  {number:>6}  {number / size:>4.0%}  {meaning}")
        kl = self.rows.kl.values[np.isfinite(self.rows.kl.values)]
        if len(kl):
            middle, most = np.quantile(kl, [0.5, 0.9])
            lines.append(
                f"KL(q || p) is {middle:.2f} nats in half of the rows, {most:.2f} in nine of ten."
            )
        if "log_evidence" in self.rows:
            lines.append(f"Evidence: {_evidence_by_row(self.rows)}")
        return "\n".join(lines)

    def _calibration(self) -> str:
        if self.calibration is None:
            return ""
        found, size = self.calibration, self.calibration.sizes["simulation"]
        method = found.attrs["method"]
        what = {"VSBC": "fits to simulated data", "simulated data": "simulated data sets"}
        words = [
            f"Calibration: {'; '.join(self.faults) or 'nothing wrong was found'} (smallest p of "
            f"{found.sizes['quantity']} quantities {p_text(found.p_value.min().item())}, {size} "
            f"{what.get(method, method)}). This tests the guide against the model, not the model "
            "against the world."
        ]
        good, hidden = (found.attrs.get(f"{name}_rows", 0) for name in ("simulated", "hidden"))
        if hidden > 2:
            words.append(
                f"Of {good} simulated rows whose weights look good, {hidden} have their truth "
                "where the guide puts no draws, as in a second mode."
            )
        return " ".join(words)

    def _cures(self) -> str:
        if self.joint is None or self.verdict == "as it is" or "kl" not in self.joint:
            return ""
        return (
            "What may help: a guide that knows how latents depend on each other, such as "
            "AutoMultivariateNormal or AutoIAFNormal; latents that another one scales drawn from a "
            "standard normal, as poutine.reparam does with LocScaleReparam(0.0); a longer fit."
        )


def _evidence(numbers: dict[str, float]) -> str:
    words = f"log p(x) is {numbers['log_evidence']:.2f}"
    if np.isfinite(numbers["log_evidence_high"]):
        low, high = numbers["log_evidence_low"], numbers["log_evidence_high"]
        return f"{words} +- {numbers['standard_error']:.2g} nats, 95 % in {low:.2f} to {high:.2f}."
    return f"{words} nats by weights that cannot be used: a lower bound, on average."


def _evidence_by_row(rows: xr.Dataset) -> str:
    found = rows.log_evidence.values
    some = found[np.isfinite(found)]
    if not len(some):
        return "log p(x) is not finite in any row."
    error = np.std(some, ddof=1) / np.sqrt(len(some)) if len(some) > 1 else np.nan
    words = f"log p(x) is {some.mean():.2f}"
    words += f" +- {error:.2f} nats per row" if np.isfinite(error) else " nats"
    bound = int((np.isinf(rows.log_evidence_high.values) & np.isfinite(found)).sum())
    if len(some) < len(found):
        words += f", less {len(found) - len(some)} rows in which it is not finite"
    if bound:
        words += f"; of {bound} rows whose weights cannot be used it is a lower bound, on average"
    return words + "."


def _listed(names: np.ndarray) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
