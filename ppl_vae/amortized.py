"""All that a check may ask of a model: its posterior, prior, likelihood, and draws of its own."""

from __future__ import annotations

__all__ = ["AmortizedModel"]

import abc
from collections.abc import Callable
from itertools import chain
from math import nan, prod
from typing import Any, ClassVar

import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

from .distributions import draw
from .processor import map_constants
from .sources import as_tensor

# On a CPU p(x|z) is evaluated in blocks of so many entries (2 MB), and of so many pairs of draw
# and row: a block that fits into the cache takes two thirds of the time of a whole chunk.
_BLOCK_ENTRIES = 2**19
_BLOCK_PAIRS = 2**12
# On a GPU blocks only bound the memory: about 64 MB in single precision.
_DEVICE_ENTRIES = 2**24


class AmortizedModel(nn.Module, abc.ABC):
    r"""A latent variable model with an amortized posterior, as checks see it.

    .. math:: p(x, z) = p(z)\, p(x \mid z), \qquad q(z \mid x) \approx p(z \mid x)

    The latents of a row are one vector, whatever they are inside: the levels of a hierarchy are
    blocks of it. Evidence, calibration, refinement, pictures and DataTrees ask for the methods
    below and for nothing else, so that a model which answers them can be checked.

    A subclass says ``event_shape``, ``latent_names``, :meth:`posterior`, :meth:`prior_at`,
    :meth:`likelihood` and :meth:`check`; the other methods follow from these. To be fitted it has
    ``model`` and ``guide`` too, Pyro programs of the same distributions.

    Attributes
    ----------
    event_shape
        The shape of a row of data.
    latent_names
        One name for each latent, such as ``("z[0]", "z[1]")``; of a ladder
        ``("z2[0]", ..., "z1[0]", ...)``.
    missing
        Whether rows may have missing entries (NaN), which the likelihood leaves out.
    missing_at_random
        Whether it leaves them out as if nothing followed from their being missing; false of a model
        of why entries are missing, such as the likelihood ``self_masking``.
    table
        What the columns of the rows of the fit are, by which other tables are read: a ``Table`` of
        their names, levels and codings; None of rows without names.

    Examples
    --------
    Factor analysis with one factor, whose posterior has a formula:

    >>> import pyro.distributions as dist
    >>> from ppl_vae import log_evidence
    >>> class OneFactor(AmortizedModel):
    ...     event_shape, latent_names = (3,), ("z[0]",)
    ...
    ...     def posterior(self, x, covariates=None):
    ...         return dist.Normal(x.sum(-1, keepdim=True) / 4, 0.5).to_event(1)
    ...
    ...     def prior_at(self, covariates=None):
    ...         return dist.Normal(torch.zeros(1), 1.0).to_event(1)
    ...
    ...     def likelihood(self, z, covariates=None, observed=None):
    ...         return dist.Normal(z.expand(*z.shape[:-1], 3), 1.0).to_event(1)
    ...
    ...     def check(self, x, covariates=None, *, name="x"):
    ...         if x.shape[1:] != self.event_shape:
    ...             raise ValueError(f"{name} has rows of shape {tuple(x.shape[1:])}; expected 3")
    >>> found = log_evidence(OneFactor(), torch.randn(10, 3), progress=False)
    >>> found.pareto_k.max().item()
    0.0
    """

    event_shape: tuple[int, ...]
    latent_names: tuple[str, ...]
    missing: bool = False
    missing_at_random: bool = True
    table: Any = None
    model: Callable[..., Any]
    guide: Callable[..., Any]

    def __init__(self) -> None:
        super().__init__()
        map_constants()

    # What has to be overridden together with a program, as it says the same of it.
    _SAME: ClassVar[dict[str, tuple[str, ...]]] = {
        "model": ("prior_at", "likelihood", "log_joint"),
        "guide": ("posterior",),
    }

    @abc.abstractmethod
    def posterior(self, x: Tensor, covariates: Tensor | None = None) -> TorchDistributionMixin:
        """q(z|x) of rows ``(row, *event)``: batch shape ``(row,)``, event shape ``(latent,)``."""

    @abc.abstractmethod
    def prior_at(self, covariates: Tensor | None = None) -> TorchDistributionMixin:
        """p(z): batch shape ``()``, or ``(row,)`` given covariates; event shape ``(latent,)``."""

    @abc.abstractmethod
    def likelihood(
        self, z: Tensor, covariates: Tensor | None = None, observed: Tensor | None = None
    ) -> TorchDistributionMixin:
        """p(x|z) of latents ``(*draw, row, latent)``: batch ``(*draw, row)``, and the event's.

        Entries where ``observed``, ``(row, *event)``, is false do not count.
        """

    @property
    def latent_dim(self) -> int:
        """The number of latents."""
        return len(self.latent_names)

    @property
    def center(self) -> Tensor:
        """Where the data lie, for pictures; a number, or one for each entry of a row."""
        return torch.zeros(()).to(self.like)

    @property
    def spread(self) -> Tensor:
        """How far the data spread, for pictures; a number, or one for each entry of a row."""
        return torch.ones(()).to(self.like)

    @property
    def like(self) -> Tensor:
        """A tensor of the dtype and on the device that rows have to have."""
        for tensor in chain(self.parameters(), self.buffers()):
            if tensor.is_floating_point():
                return tensor
        return torch.zeros(())

    def log_likelihood(self, z: Tensor, x: Tensor, covariates: Tensor | None = None) -> Tensor:
        """log p(x|z), nats, of latents ``(draw, row, latent)``: shape ``(draw, row)``.

        Missing entries are left out. The decoder is called with some draws at a time.
        """
        observed = None
        if self.missing:
            observed = ~x.isnan()
            x = x.nan_to_num(nan=0.0)
        return torch.cat(
            [
                self.likelihood(block, covariates, observed).log_prob(x)
                for block in z.split(self._block(len(x)))
            ]
        )

    def log_joint(self, z: Tensor, x: Tensor, covariates: Tensor | None = None) -> Tensor:
        """log p(x, z), nats, of latents ``(draw, row, latent)``: shape ``(draw, row)``."""
        return self.log_likelihood(z, x, covariates) + self.prior_at(covariates).log_prob(z)

    def simulate(
        self, size: int, covariates: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Draw z and x together from the model, from torch's global random state.

        Returns
        -------
        ``z`` (row, latent), ``x`` (row, *event) and the covariates of each row: those given, in
        turn.
        """
        given = None
        if covariates is not None:
            given = as_tensor(covariates, "covariates").to(self.like)
            given = given[torch.arange(size, device=given.device) % len(given)]
        z = draw(self.prior_at(given), rows=size)  # (row, latent)
        return z, self.replicate(z, given), given

    def replicate(self, z: Tensor, covariates: Tensor | None = None) -> Tensor:
        """Draw rows from p(x|z), as numbers of the latents' dtype, from torch's random state.

        Latents ``(*draw, row, latent)`` give ``(*draw, row, *event)``, of NaN where they are NaN.
        """
        usable = z.isfinite().all(-1)
        if usable.all():
            return draw(self.likelihood(z, covariates)).to(z.dtype)
        # Some distributions refuse to draw where their parameters are NaN.
        x = self.replicate(torch.where(usable[..., None], z, 0.0), covariates)
        return x.masked_fill(
            ~usable.reshape(*usable.shape, *[1] * len(self.event_shape)), torch.nan
        )

    def complete(
        self, z: Tensor, x: Tensor, covariates: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Rows with their missing entries drawn given latents, and with their means given these.

        Latents ``(draw, row, latent)`` and rows ``(row, *event)`` give ``(draw, row, *event)``
        each. What is observed stays, and a mean is NaN where there is none, as of categories. It
        draws from torch's random state.
        """
        observed = ~x.isnan()
        drawn, means = [], []
        for block in z.split(self._block(len(x))):
            usable = block.isfinite().all(-1)
            # Some distributions refuse to draw where their parameters are NaN.
            likelihood = self.likelihood(
                torch.where(usable[..., None], block, 0.0), covariates, observed
            )
            lost = ~usable.reshape(*usable.shape, *[1] * len(self.event_shape))
            drawn.append(torch.where(observed, x, draw(likelihood).to(x).masked_fill(lost, nan)))
            try:
                mean = likelihood.mean.to(x)
            except NotImplementedError:
                mean = torch.full_like(drawn[-1], nan)
            mean = mean.masked_fill(lost | ~mean.isfinite(), nan)
            means.append(torch.where(observed, x, mean))
        return torch.cat(drawn), torch.cat(means)

    def typical(self, z: Tensor, covariates: Tensor | None = None) -> Tensor:
        """What a picture shows of p(x|z): its mean, or its mode where it has none.

        Latents ``(*draw, row, latent)`` give ``(*draw, row, *event)``.
        """
        likelihood = self.likelihood(z, covariates)
        try:
            shown = likelihood.mean
        except NotImplementedError:
            shown = likelihood.mode
        # The mean of categories is NaN, and that of heavy tails may be infinite.
        if not shown.isfinite().all():
            mode = likelihood.mode.to(z.dtype)
            shown = torch.where(shown.isfinite(), shown, mode)  # a table has entries of both kinds
        return shown.to(z.dtype)

    @abc.abstractmethod
    def check(self, x: Tensor, covariates: Tensor | None = None, *, name: str = "x") -> None:
        """Refuse rows that this model does not describe, with what to do about it.

        Raises
        ------
        TypeError, ValueError
            If ``x`` or ``covariates`` is not what the model describes.
        """

    def check_programs(self) -> None:
        """Refuse a subclass that overrides ``model`` or ``guide`` and not what checks ask.

        Raises
        ------
        TypeError
            If checks would be told of other distributions than those of its programs.
        """
        for program, described in self._SAME.items():
            if self._depth(program) < min(map(self._depth, described)):
                raise TypeError(
                    f"{type(self).__name__} overrides {program} and none of "
                    f"{', '.join(described)}, so that checks would speak of another model; "
                    f"override {described[0]} as well, to say what {program} samples, or put the "
                    "distributions into parts: VAE(prior, decoder, encoder)"
                )

    def _depth(self, name: str) -> int:
        """How far up in its ancestry a method is defined; -1 on the object itself."""
        if name in self.__dict__:
            return -1
        ancestry = type(self).__mro__
        return next((i for i, kind in enumerate(ancestry) if name in kind.__dict__), len(ancestry))

    def _block(self, rows: int) -> int:
        """How many draws the decoder is given at once."""
        entries = prod(self.event_shape)
        if self.like.device.type == "cpu":
            pairs = min(_BLOCK_PAIRS, _BLOCK_ENTRIES // entries)
        else:
            pairs = _DEVICE_ENTRIES // entries
        return max(1, pairs // max(1, rows))
