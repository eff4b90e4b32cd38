"""Named data sets and file readers: digits, image sets, arrays, tables and folders as tensors."""

from __future__ import annotations

__all__ = ["Coding", "ColumnKind", "Dataset", "load_data", "load_splits"]

from .coding import Coding
from .dataset import Dataset
from .kinds import ColumnKind
from .load import load_data, load_splits
