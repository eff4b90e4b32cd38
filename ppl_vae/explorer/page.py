"""The page of the explorer: plain HTML in a Panel component, and Bokeh's map in it."""

from __future__ import annotations

__all__ = ["Page", "page_of"]

import json
from pathlib import Path
from typing import Any

import numpy as np
import panel as pn
import param

from ..pictures.coloring import map_in_words
from ..run.metrics import finite_json
from .explored import Explored
from .figure import LatentMap
from .shown import cells, png_link, shown_range

_HERE = Path(__file__).parent
# Sliders, and rows in the table of the worst.
_MOST_LATENTS, _MOST_WORST = 12, 20
# Features of a table that are listed: of more, those that differ most.
_MOST_FEATURES = 60
# An entry has changed if it moved by this share of the range of the data.
_CHANGED = 0.1


class Page(pn.custom.JSComponent):
    """What ``page.js`` shows; ``row``, ``color``, ``asked`` and ``dark`` are set by it.

    What has parts comes and goes as JSON.
    """

    map = pn.custom.Child()
    facts = param.String(default="{}")
    row = param.Integer(default=0)
    color = param.String(default="")
    dark = param.Boolean(default=False)
    shown = param.String(default="")
    asked = param.String(default="")
    decoded = param.String(default="")

    _esm = _HERE / "page.js"
    _stylesheets = [_HERE / "page.css"]  # noqa: RUF012


class _Session:
    """One open page: what its reader chooses, and what the page shows for it."""

    def __init__(self, seen: Explored, title: str) -> None:
        self.seen = seen
        self.images = len(seen.vae.event_shape) > 1
        self.limits = shown_range(seen.x) if self.images else (0.0, 1.0)
        self.base = seen.means[0].copy()
        self.map = LatentMap(seen, self._clicked)
        start = int(seen.worst[0])
        self.page = Page(
            map=pn.pane.Bokeh(self.map.figure, sizing_mode="stretch_width"),
            facts=finite_json(self._facts(title)),
            color=next(iter(self.map.colorings)),
            row=start,
            sizing_mode="stretch_width",
        )
        self.page.param.watch(lambda event: self._show(event.new), "row")
        self.page.param.watch(lambda event: self.map.paint(by=event.new), "color")
        self.page.param.watch(lambda event: self.map.paint(dark=event.new), "dark")
        self.page.param.watch(lambda event: self._decode(json.loads(event.new)), "asked")
        self.page.on_msg(lambda event: self._told(event.data))
        self.map.zoom(0)
        self._show(start)

    def _told(self, said: dict[str, Any]) -> None:
        if "zoom" in said:
            self.map.zoom(float(said["zoom"]))
        if said.get("touch"):
            self.map.leave_gestures()

    def _clicked(self, row: int) -> None:
        self.page.row = row

    def _facts(self, title: str) -> dict[str, Any]:
        seen = self.seen
        low, high = seen.reach
        moved = seen.latents[:_MOST_LATENTS]
        return {
            "title": title,
            "source": seen.data.source,
            "rows": len(seen),
            "diagnosed": seen.diagnosed,
            "images": self.images,
            "labeled": seen.labels is not None,
            "features": int(np.prod(seen.vae.event_shape)),
            "map": map_in_words(seen.points, self.map.colorings),
            "legends": self.map.legends(),
            "latents": [
                {"latent": int(i), "low": float(low[i]), "high": float(high[i])} for i in moved
            ],
            "resting": int(seen.vae.latent_dim - len(moved)),
            "worst": [self._line(int(row)) for row in seen.worst[:_MOST_WORST]],
        }

    def _line(self, row: int) -> dict[str, Any]:
        seen = self.seen
        return {
            "row": row,
            "label": seen.labels[row] if seen.labels else "",
            "verdict": seen.verdict[row],
            "khat": f"{seen.khat[row]:.2f}",
            "kl": f"{seen.kl[row]:.2g}",
            "evidence": f"{seen.evidence[row]:.1f}",
        }

    def _show(self, row: int) -> None:
        """Everything about a row; the sliders go to its posterior mean."""
        seen = self.seen
        row = int(np.clip(row, 0, len(seen) - 1))
        found = seen.posterior(row)
        self.map.choose(row, found.z)
        moved = [int(i) for i in seen.latents[:_MOST_LATENTS]]
        kept = {
            name: getattr(found, name) for name in ("mean", "sd", "weighted_mean", "weighted_sd")
        }
        near = [self._line(other) | {"image": self._image(other)} for other in seen.neighbors(row)]
        shown = self._line(row) | {
            "words": seen.verdict_in_words(row),
            "posterior": [
                {"latent": i, "start": float(seen.means[row, i])}
                | {name: float(values[i]) for name, values in kept.items()}
                for i in moved
            ],
            "effective": round(found.effective),
            "draws": len(found.z),
            "neighbors": near,
            **self._beside(row, found.reconstruction, found.spread),
        }
        self.base = seen.means[row].copy()
        self.page.shown = finite_json(shown)
        self._decode({"z": {}, "number": 0})

    def _image(self, row: int) -> str:
        return png_link(self.seen.x[row], self.limits) if self.images else ""

    def _beside(self, row: int, mean: np.ndarray, spread: np.ndarray) -> dict[str, Any]:
        x = self.seen.x[row]
        if self.images:
            top = max(float(np.nanmax(spread)), 1e-12)
            return {
                "original": png_link(x, self.limits),
                "reconstruction": png_link(mean, self.limits),
                "spread": png_link(spread, (0.0, top)),
                "widest": f"{top:.2g}",
            }
        return {"table": self._table(("row", x), ("reconstruction", mean), ("spread", spread))}

    def _table(self, *columns: tuple[str, np.ndarray]) -> list[dict[str, str]]:
        """Features by name; of many, those in which the first two columns differ most."""
        names, kinds = self.seen.data.feature_names, self.seen.data.columns
        texts = {name: cells(values, kinds) for name, values in columns if name != "spread"}
        for name, values in columns:
            if name == "spread":  # the codes of levels have none
                said = cells(values, None)
                texts[name] = [
                    "" if kinds and kinds[i].levels else text for i, text in enumerate(said)
                ]
        (_, one), (_, other), *_ = columns
        away = np.abs(one - other) / self.seen.vae.spread.cpu().numpy()
        order = np.argsort(-np.nan_to_num(away), kind="stable")[:_MOST_FEATURES]
        return [
            {"name": names[i] if names else f"feature {i}"}
            | {name: text[i] for name, text in texts.items()}
            for i in sorted(order)
        ]

    def _decode(self, asked: dict[str, Any]) -> None:
        """What the sliders' place decodes to."""
        z, row = self.base.copy(), self.page.row
        for latent, value in asked["z"].items():
            z[int(latent)] = float(value)
        self.map.move(z)
        made = self.seen.decode(z, row=row)
        here = self.seen.decode(self.base, row=row)
        result: dict[str, Any] = {"number": asked["number"]}
        if self.images:
            low, high = self.limits
            moved = np.abs(made - here) > _CHANGED * (high - low)
            result["image"] = png_link(made, self.limits)
            result["said"] = (
                f"Decoded: {moved.mean():.0%} of the pixels differ from the row's own, mean "
                f"intensity {made.mean():.2f}."
            )
        else:
            result["table"] = self._table(("decoded", made), ("at the row", here))
            changed = [line for line in result["table"] if line["decoded"] != line["at the row"]]
            first = ", ".join(f"{line['name']} {line['decoded']}" for line in changed[:4])
            kinds = self.seen.data.columns
            pairs = zip(cells(made, kinds), cells(here, kinds), strict=True)
            count = sum(one != other for one, other in pairs)
            result["said"] = (
                f"Decoded: {count} of {made.size} features differ from the row's own"
                + (f": {first}." if changed else ".")
            )
        self.page.decoded = finite_json(result)


def page_of(seen: Explored, title: str) -> pn.Template:
    """A page for one reader; each that is opened has its own."""
    template = pn.Template((_HERE / "page.html").read_text())
    template.add_variable("page_title", title)
    template.add_panel("page", _Session(seen, title).page)
    return template
