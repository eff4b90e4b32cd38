"""What a fit maximizes, row by row: bounds on log p(x), and what is near to one."""

from __future__ import annotations

__all__ = [
    "IWAE",
    "OBJECTIVES",
    "TCVAE",
    "Beta",
    "DReG",
    "Elbo",
    "FreeBits",
    "MeanField",
    "RowObjective",
    "StickingTheLanding",
    "Terms",
    "objective_of",
]

from pyro.infer import ELBO

from ...components.registry import Choice
from .bounds import IWAE, Elbo, MeanField
from .gradients import DReG, StickingTheLanding
from .row import OBJECTIVES, RowObjective, Terms
from .weighted import TCVAE, Beta, FreeBits


def objective_of(choice: str | Choice | ELBO) -> ELBO:
    """The objective for a name with options, or for an instance.

    Raises
    ------
    TypeError, ValueError
        If it is a class, has no differentiable loss, or there is none of that name.
    """
    if isinstance(choice, str | Choice):
        return OBJECTIVES.build(choice)
    if isinstance(choice, type):
        raise TypeError(
            f"objective is the class {choice.__name__}; pass an instance: {choice.__name__}()"
        )
    loss = getattr(type(choice), "differentiable_loss", None)
    if loss is None or type(choice).__name__ == "RenyiELBO":
        raise TypeError(
            f"objective is a {type(choice).__name__}, which has no differentiable loss by row; "
            "pass the name of one, such as 'elbo', 'beta:beta=4' or 'iwae:num_particles=8', or a "
            "Pyro ELBO with a differentiable loss, such as Trace_ELBO()"
        )
    return choice
