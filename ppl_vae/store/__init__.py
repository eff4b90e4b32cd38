"""Results by row on disk: zarr stores that several processes write, and that survive a kill."""

from .contents import Contents, Variable
from .sink import StoreSink
from .store import Store

__all__ = ["Contents", "Store", "StoreSink", "Variable"]
