"""A run: from the name of data to a folder with weights, posterior, metrics and pictures."""

from __future__ import annotations

__all__ = ["Run", "evaluate", "fit_run", "free_folder", "write_report"]

from .folder import Run, evaluate, fit_run
from .report import write_report
from .unfinished import free_folder
