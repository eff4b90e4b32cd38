"""How the learning rate moves over a fit."""

from __future__ import annotations

__all__ = ["SCHEDULES", "Schedule", "schedule_of"]

import math
from collections.abc import Callable

Schedule = Callable[[float], float]


def one_cycle(t: float) -> float:
    """Rise over the first tenth of a fit, then fall to zero along a cosine.

    Source: Smith & Topin (2019), *Super-convergence*, with the cosine of Loshchilov & Hutter
    (2017).
    """
    return t / 0.1 if t < 0.1 else 0.5 * (1 + math.cos(math.pi * (t - 0.1) / 0.9))


def constant(t: float) -> float:
    """Keep the learning rate as it is."""
    return 1.0


SCHEDULES: dict[str, Schedule] = {"one_cycle": one_cycle, "constant": constant}


def schedule_of(choice: str | Schedule) -> Schedule:
    """The factor of the learning rate at ``t`` in [0, 1], by name or by a function.

    Raises
    ------
    ValueError
        If there is none of that name.

    Examples
    --------
    >>> schedule_of("one_cycle")(0.1), schedule_of(lambda t: 1 - t)(0.25)
    (1.0, 0.75)
    """
    if callable(choice):
        return choice
    if choice not in SCHEDULES:
        accepted = ", ".join(map(repr, SCHEDULES))
        raise ValueError(
            f"schedule is {choice!r}; accepted are {accepted}, or a function of t in [0, 1]"
        )
    return SCHEDULES[choice]
