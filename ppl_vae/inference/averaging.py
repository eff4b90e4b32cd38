"""An average of the weights of a fit, over its last part."""

from __future__ import annotations

__all__ = ["Average"]

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn


class Average:
    r"""The average of a module's weights over the last part of the steps so far.

    .. math:: \bar\theta_t = \beta_t \bar\theta_{t-1} + (1 - \beta_t) \theta_t, \quad
        \beta_t = (1 - 1/t)^{\gamma + 1}

    The weight of step s in it is proportional to :math:`s^\gamma`: unlike that of an exponential
    average with a constant decay, the part that counts grows with the fit. Running statistics of
    normalization layers are averaged too.

    Source: Karras et al. (2024), *Analyzing and improving the training dynamics of diffusion
    models*, section 3.1 and equation 126.

    Parameters
    ----------
    module
        Whose weights are averaged.
    part
        The standard deviation of what counts, as a part of the steps so far, above 0 and below
        0.28: 0.1 averages over about the last fifth.

    Raises
    ------
    ValueError
        If ``part`` is out of that range.

    Examples
    --------
    >>> linear = nn.Linear(1, 1, bias=False)
    >>> average = Average(linear, 0.1)
    >>> for step in range(1000):
    ...     _ = nn.init.constant_(linear.weight, step)
    ...     average.update()
    >>> with average.applied():
    ...     print(f"{linear.weight.item():.0f} of {step}")
    888 of 999
    """

    def __init__(self, module: nn.Module, part: float) -> None:
        if not 0 < part < 12**-0.5 - 0.005:
            raise ValueError(
                f"average is {part}; pass the part of a fit to average over, below 0.28, such as "
                "0.1, or 0 for none"
            )
        self.module = module
        # The largest root of (gamma + 1) / ((gamma + 2)^2 (gamma + 3)) = part^2.
        roots = np.roots([1.0, 7.0, 16.0 - part**-2, 12.0 - part**-2])
        self.gamma = float(roots.real.max())
        self.steps = torch.zeros((), dtype=torch.int64)
        self.mean = {name: value.clone() for name, value in self._floating().items()}

    def _floating(self) -> dict[str, Tensor]:
        state = self.module.state_dict()
        return {name: value for name, value in state.items() if value.is_floating_point()}

    @torch.no_grad()
    def update(self) -> None:
        """Count the weights of a step."""
        self.steps += 1
        kept = (1 - 1 / self.steps.item()) ** (self.gamma + 1)
        now = self._floating()
        mean, values = list(self.mean.values()), [now[name] for name in self.mean]
        torch._foreach_lerp_(mean, values, 1 - kept)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the average in place of the module's own weights; these come back afterwards."""
        own = {name: value.clone() for name, value in self.module.state_dict().items()}
        if self.steps:
            self.module.load_state_dict({**own, **self.mean})
        try:
            yield
        finally:
            self.module.load_state_dict(own)

    def state(self) -> dict[str, Tensor]:
        """What a fit is gone on from."""
        return {"steps": self.steps, **{f"mean.{name}": v for name, v in self.mean.items()}}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what :meth:`state` gave."""
        self.steps = state["steps"].cpu().clone()
        for name, value in self.mean.items():
            value.copy_(state[f"mean.{name}"])
