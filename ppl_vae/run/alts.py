"""What the pictures of a run show, in words, for whoever does not see them."""

from __future__ import annotations

__all__ = ["alternatives", "stored"]

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xarray as xr

# Of a diagnosis, how many findings are spelled out.
_MOST = 6


def stored(path: Path, group: str | None = None) -> xr.Dataset | None:
    """A Dataset of a run, in memory; None where it is not there or cannot be read."""
    import xarray as xr

    # A link could show any file of whoever opens a foreign run.
    if path.is_symlink() or not path.is_file():
        return None
    try:
        with xr.open_dataset(path, group=group, engine="h5netcdf") as found:
            return found.load()
    except Exception:  # whatever is wrong with it, a report does without
        return None


def alternatives(folder: Path, event_shape: list[int]) -> dict[str, str]:
    """A text for each picture that a run may have, by the name of its file.

    Numbers are in it where the run has them, and otherwise what the picture is of.
    """
    images, entries = len(event_shape) > 1, math.prod(event_shape)
    said = {
        "losses.png": "The ELBO by epoch, as a curve.",
        "reconstructions.png": (
            "Ten test rows side by side: above, the originals; in the middle, their "
            "reconstructions; below, their spread, brightest where the encoder is least sure."
            if images
            else f"Three panels of ten test rows by {entries} features: the originals, "
            "their reconstructions, and their spread, brightest where the encoder is least sure."
        ),
        "prior_draws.png": (
            "A grid of 64 images that the model makes of latents drawn from the prior."
            if images
            else f"A panel of 64 rows by {entries} features that the model makes of latents "
            "drawn from the prior."
        ),
        "latents.png": "Test rows as points, at the means of their approximate posteriors.",
        "latent_map.png": "An ellipse for each of up to 500 test rows, which holds half of its "
        "q(z|x): the larger, the less is known of the row. The dashed ellipse is the prior's.",
        "manifold.png": "A grid of 15 by 15 decoded images, which moves through the prior's "
        "quantiles of one latent from left to right, and of another upwards.",
        "traversals.png": "A "
        + ("line of images" if images else "panel of features")
        + " for each latent in use, the one that changes rows most first: that latent moves from "
        "the prior's quantile of 2 % to that of 98 %, and the others stay at the median.",
        "interpolation.png": "Two lines of images from test row 0 to test row 1: above, decoded on "
        "the way between their latents; below, one image faded into the other.",
        "diagnosis.png": "Four charts: KL(q || p) by row, gaps, latents in use, and ranks.",
        "calibration.png": "For each quantity a curve of ranks, with a gray band for chance.",
    }
    for name, describe in {
        "losses.png": lambda: _losses(stored(folder / "history.nc")),
        "diagnosis.png": lambda: _diagnosis(folder / "diagnosis.nc"),
        "calibration.png": lambda: _calibration(stored(folder / "diagnosis.nc", "calibration")),
    }.items():
        try:
            said[name] = describe() or said[name]
        except (KeyError, AttributeError, ValueError, TypeError, IndexError):
            continue
    return said


def _losses(history: xr.Dataset | None) -> str | None:
    if history is None:
        return None
    first, last = (int(history.epoch.values[i]) for i in (0, -1))
    curves = []
    for name, words in (("train_loss", "training"), ("validation_loss", "validation")):
        if name in history:
            values = history[name].dropna("epoch").values
            curves.append(f"{words}, {-values[0]:.1f} nats to {-values[-1]:.1f}")
    return (
        f"The ELBO from epoch {first} to epoch {last}: {'; '.join(curves)}. A dotted line marks "
        f"epoch {int(history.attrs['best_epoch'])}, whose weights are kept."
    )


def _diagnosis(path: Path) -> str | None:
    rows, gaps, latents = (stored(path, group) for group in ("rows", "gaps", "latents"))
    if rows is None or gaps is None or latents is None:
        return None
    half, most = np.quantile(_finite(rows["kl"]), [0.5, 0.9])
    lost = {name: float(_finite(gaps[name]).mean()) for name in ("amortization", "approximation")}
    return (
        f"Four charts. KL(q || p) by row: {half:.2g} nats in half of the rows, {most:.2g} in nine "
        f"of ten. What the encoder loses on average: {lost['amortization']:.2g} nats by "
        f"amortization, {lost['approximation']:.2g} by its family. "
        f"{int(latents['active'].values.sum())} of {latents.sizes['latent']} latents are used. The "
        "ranks that fit worst."
    )


def _finite(values: xr.DataArray) -> np.ndarray:
    found = values.values[np.isfinite(values.values)]
    if not len(found):
        raise ValueError("there is no finite value")
    return found


def _calibration(found: xr.Dataset | None) -> str | None:
    if found is None:
        return None
    shapes: dict[str, Any] = dict(zip(found["quantity"].values, found["shape"].values, strict=True))
    wrong = [f"{name} is {shape}" for name, shape in shapes.items() if shape != "uniform"]
    more = f", and {len(wrong) - _MOST} more" if len(wrong) > _MOST else ""
    return f"Curves of the ranks of {len(shapes)} quantities against a gray band for chance. " + (
        f"Outside it: {', '.join(wrong[:_MOST])}{more}." if wrong else "None leaves it."
    )
