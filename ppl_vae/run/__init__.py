"""A run: from the name of data to a folder with weights, posterior, metrics and pictures."""

from __future__ import annotations

__all__ = [
    "Finished",
    "Recipe",
    "Run",
    "caveats",
    "evaluate",
    "finite_json",
    "free_folder",
    "make_run",
    "recipe_of",
    "to_start",
    "words",
    "write_report",
]

from .continuing import recipe_of
from .device import to_start
from .folder import Run
from .making import Finished, make_run
from .metrics import caveats, evaluate, finite_json, words
from .recipe import Recipe
from .report import write_report
from .unfinished import free_folder
