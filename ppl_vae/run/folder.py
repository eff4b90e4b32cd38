"""A finished run folder, and what is read from it later."""

from __future__ import annotations

__all__ = ["Run"]

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ..config import VAEConfig
from ..data import Coding, ColumnKind, Dataset, load_splits
from ..parts import ParquetRows
from ..rows import Rows
from ..vae import VAE
from .matching import fingerprints, matched, rows_once


@dataclass(frozen=True)
class Run:
    """A finished run folder.

    Parameters
    ----------
    folder
        Where ``ppl-vae fit`` wrote.

    Raises
    ------
    FileNotFoundError
        If it is no such folder.
    """

    folder: Path

    def __post_init__(self) -> None:
        try:
            settings = json.loads((self.folder / "config.json").read_text())
        except (OSError, ValueError, RecursionError):
            settings = None
        if not (isinstance(settings, dict) and "ppl_vae" in settings):
            raise FileNotFoundError(
                f"RUN is {str(self.folder)!r}, which is no run folder (it has no config.json of "
                "ppl_vae); make one with ppl-vae fit"
            )

    @property
    def settings(self) -> dict[str, Any]:
        """What the run was asked for: ``data``, ``vae``, ``fit`` and ``binarize``.

        Raises
        ------
        ValueError
            If config.json was changed so that a part is missing.
        """
        settings = json.loads((self.folder / "config.json").read_text())
        for name, kind in {"data": dict, "vae": dict, "fit": dict, "binarize": str}.items():
            if not isinstance(settings.get(name), kind):
                raise self._changed(f"its part {name!r} is no longer there")
        for name, part, wanted in (("seed", "fit", int), ("name_or_path", "data", str)):
            if not isinstance(settings[part].get(name), wanted):
                raise self._changed(f"it has no {name}")
        return settings

    def _changed(self, what: str) -> ValueError:
        return ValueError(
            f"config.json in {str(self.folder)!r} was changed after the fit: {what}; undo the "
            "change or fit again"
        )

    def vae(self) -> VAE:
        """The fitted VAE."""
        vae = VAE.load(self.folder / "vae.safetensors")
        recorded = VAEConfig(**self.settings["vae"])
        if vae.config != recorded:
            raise self._changed("it no longer describes vae.safetensors")
        return vae

    def splits(self) -> tuple[Dataset, Dataset]:
        """Training and test rows, as they were split for the fit.

        Raises
        ------
        ValueError
            If the data are others than those of the fit.
        """
        settings = self.settings
        if settings.get("continues"):  # columns and levels are those of an earlier fit
            coded = {"context": self.codings, "column": self.columns}
            train, test = load_splits(**{**settings["data"], **coded})
            parts = self.matched(train), self.matched(test)
        else:
            parts = load_splits(**settings["data"])
        recorded = settings.get("fingerprints")
        if recorded is not None and recorded != fingerprints(*parts):
            raise ValueError(
                f"{settings['data']['name_or_path']} was changed after the fit in "
                f"{str(self.folder)!r}: its rows are others now, so that test rows may be such as "
                "the VAE was fitted to; undo the change or fit again"
            )
        return parts

    @property
    def codings(self) -> tuple[Coding, ...]:
        """How covariates were coded, for ``load_data(..., context=...)``; empty without any.

        Raises
        ------
        ValueError
            If config.json was changed so that it says so no longer.
        """
        try:
            return tuple(
                Coding(**{**coding, "levels": tuple(coding["levels"])})
                for coding in self.settings.get("context", [])
            )
        except (TypeError, KeyError) as error:
            raise self._changed("its part 'context' is not as ppl-vae fit wrote it") from error

    @property
    def columns(self) -> tuple[ColumnKind, ...]:
        """What columns were taken for, for ``load_data(..., column=...)``; empty of plain numbers.

        Raises
        ------
        ValueError
            If config.json was changed so that it says so no longer.
        """
        try:
            return tuple(
                ColumnKind(**{**kind, "levels": kind["levels"] and tuple(kind["levels"])})
                for kind in self.settings.get("columns", [])
            )
        except (TypeError, KeyError, ValueError) as error:
            raise self._changed("its part 'columns' is not as ppl-vae fit wrote it") from error

    def rows_at(self, path: str | Path) -> Rows:
        """Rows at a path, .npy, .zarr or .parquet, as the VAE was fitted to them, read as needed.

        Raises
        ------
        ValueError
            If the run is conditional, so that such files lack what it is given, or a column is not
            there.
        """
        settings, path = self.settings, Path(path)
        if self.codings:
            names = ", ".join(coding.name for coding in self.codings)
            raise ValueError(
                f"DATA is {str(path)!r}, and the run is conditional on {names}, which is read from "
                "tables and .npz files alone; pass one of these"
            )
        source: Any = path
        if path.suffix == ".parquet":
            source = ParquetRows(path, settings.get("features"))
        method = settings["binarize"]
        once = "static" if method == "dynamic" else method
        return Rows(source, binarize=once, seed=settings["fit"]["seed"])

    def matched(self, data: Dataset) -> Dataset:
        """Rows with the columns of the fit, by name and in their order.

        Raises
        ------
        ValueError
            If the columns are not those of the fit, or entries are missing where none were.
        """
        settings = self.settings
        data = matched(data, settings.get("features"), settings.get("dtype"), self.columns)
        if data.x.is_floating_point() and data.x.isnan().any() and not settings["vae"]["missing"]:
            raise ValueError(
                f"{data.source} has missing entries, and the run was fitted to rows that have "
                "none; fill them in, or fit again to rows some of which have some"
            )
        return data

    def rows(self, data: Dataset, *, seed: int | None = None) -> Tensor:
        """Rows as the VAE was fitted to them: its columns by name, bits drawn once.

        Bits are drawn from ``seed``; by default that of the fit.

        Raises
        ------
        ValueError
            As :meth:`matched`.
        """
        settings = self.settings
        seed = settings["fit"]["seed"] if seed is None else seed
        return rows_once(self.matched(data), settings["binarize"], seed)
