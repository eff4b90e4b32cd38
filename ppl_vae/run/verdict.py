"""The verdict of a diagnosis as HTML, from the text that the command line prints."""

from __future__ import annotations

__all__ = ["Verdict", "read_verdict"]

import re
from dataclasses import dataclass
from html import escape

from ..pictures.colors import VERDICT_COLORS

_COUNT = re.compile(
    rf"^\s*({'|'.join(sorted(VERDICT_COLORS, key=len, reverse=True))})\s+(~?\d+)\s+(\d+)%\s+(.+)$"
)
_CURE = re.compile(r"^\s*(>=)?\s*(\d+\.\d+) \+- (\d+\.\d+)\s+(.+)$")
_LEAD = re.compile(r"^([^:.]{3,60}): (.+)$", flags=re.DOTALL)
# Verdicts whose draws can be used without another fit or sampler.
_BELIEVED = ("as it is", "reweighted", "refined")


@dataclass(frozen=True)
class Verdict:
    """What a diagnosis said, taken apart.

    Attributes
    ----------
    counts
        A verdict, how many rows have it, percent of all, and what it means.
    paragraphs
        All else, in order.
    cures
        What would help: nats per row that it wins, and what it is.
    """

    counts: list[tuple[str, str, int, str]]
    paragraphs: list[str]
    cures: list[tuple[str, str]]

    @property
    def believed(self) -> int | None:
        """Percent of the rows whose draws can be used in some way; None if nothing was counted."""
        if not self.counts:
            return None
        return min(100, sum(share for name, _, share, _ in self.counts if name in _BELIEVED))

    def html(self) -> str:
        """A bar and a list of verdicts, and a paragraph for each question."""
        bar = "".join(
            f"<span class='v{list(VERDICT_COLORS).index(name)}' style='flex-grow:{share}'></span>"
            for name, _, share, _ in self.counts
        )
        items = "".join(
            f"<li><span class='swatch v{list(VERDICT_COLORS).index(name)}'></span>"
            f"<strong>{escape(name)}: {escape(number)} rows, {share}&nbsp;%</strong><br>"
            f"{escape(meaning)}</li>"
            for name, number, share, meaning in self.counts
        )
        lists = f"<div class='bar' aria-hidden='true'>{bar}</div><ul class='verdicts'>{items}</ul>"
        parts = [f"<p>{_led(text)}</p>" for text in self.paragraphs]
        # What announces a list stands before it.
        opens = [i for i, text in enumerate(self.paragraphs) if text.endswith(":")]
        if items:
            parts.insert(1 if opens[:1] == [0] else 0, lists)
        if self.cures:
            cures = "".join(
                f"<li>{escape(what)}: <strong>{escape(nats)}</strong></li>"
                for nats, what in self.cures
            )
            parts.insert(opens[-1] + 1 + bool(items) if opens else len(parts), f"<ul>{cures}</ul>")
        return "".join(parts)


def read_verdict(text: str) -> Verdict:
    r"""Take the summary of a :class:`~ppl_vae.Diagnosis` apart; what is unknown is a paragraph.

    Examples
    --------
    >>> found = read_verdict("Of 4 rows:\n  as it is  3  75%  can be used\n\nGaps: none.")
    >>> found.counts, found.paragraphs
    ([('as it is', '3', 75, 'can be used')], ['Of 4 rows:', 'Gaps: none.'])
    >>> found.believed
    75
    """
    counts, paragraphs, cures = [], [], []
    for line in text.splitlines():
        if count := _COUNT.match(line):
            name, number, share, meaning = count.groups()
            counts.append((name, number, int(share), meaning))
        elif cure := _CURE.match(line):
            least, nats, error, what = cure.groups()
            said = f"{'at least ' if least else ''}{nats} ± {error}"
            cures.append((said, what))
        elif line.strip():
            paragraphs.append(line.strip())
    return Verdict(counts, paragraphs, cures)


def _led(text: str) -> str:
    """A paragraph with what it is about in bold."""
    found = _LEAD.match(text)
    if not found:
        return escape(text)
    lead, rest = found.groups()
    return f"<strong>{escape(lead)}:</strong> {escape(rest)}"
