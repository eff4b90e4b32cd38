"""Leave the world as it was found: random state, Pyro's param store, its validation flag."""

from __future__ import annotations

__all__ = ["isolated", "seeded"]

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pyro
import torch

# Random state, param store and validation flag belong to the process, so threads take turns.
_TURN = threading.RLock()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from ``seed`` inside, and give torch's random state back as it was.

    Another thread that draws from a seed waits meanwhile, so that each gets what it would alone.

    Raises
    ------
    ValueError
        If ``seed`` is not a whole number of at least 0.

    Examples
    --------
    >>> before = torch.get_rng_state()
    >>> with seeded(0):
    ...     a = torch.randn(3)
    >>> with seeded(0):
    ...     b = torch.randn(3)
    >>> torch.equal(a, b), torch.equal(before, torch.get_rng_state())
    (True, True)
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ValueError(f"seed is {seed!r}; pass a whole number of at least 0, such as seed=0")
    with _TURN, torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield


@contextmanager
def isolated(seed: int) -> Iterator[None]:
    """Run Pyro from ``seed`` in an empty param store without validation, and give all three back.

    Examples
    --------
    >>> with isolated(0):
    ...     _ = pyro.param("inside", torch.zeros(()))
    >>> "inside" in pyro.get_param_store()
    False
    """
    with seeded(seed), pyro.get_param_store().scope(), pyro.validation_enabled(False):
        yield
