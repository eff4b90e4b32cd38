"""A Pyro program that runs for many draws, all at once where it can."""

from __future__ import annotations

__all__ = ["Drawn", "Program"]

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import pyro
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from pyro.poutine.runtime import Message
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from ..progress import Progress
from .sites import counts, is_computed, is_data, is_random, kept_entries, plates_of


class Drawn(NamedTuple):
    """A site's values for many draws, their log-probabilities, and which of them these count."""

    value: Tensor  # (draw, *value)
    log_prob: Tensor  # (draw, *batch)
    kept: Tensor  # (draw, *batch), False where a mask leaves an entry out


class _Given(Messenger):
    """Sites at given values; with ``resample``, observed ones drawn as if they were not observed.

    Unlike ``poutine.uncondition`` it leaves computed sites alone, which Pyro counts as observed
    and would draw in another shape inside a plate.
    """

    def __init__(self, values: Mapping[str, Tensor], resample: bool = False) -> None:
        super().__init__()
        self.values = values
        self.resample = resample

    def _pyro_sample(self, msg: Message[Any, Any]) -> None:
        if site_is_subsample(msg) or is_computed(msg):
            return
        value = self.values.get(str(msg["name"]))
        if value is not None or (self.resample and msg["is_observed"]):
            msg["is_observed"] = False
            msg["value"] = value
            msg["done"] = value is not None


class Program:
    """A Pyro program that runs for many draws, all at once where it can.

    ``given`` are values of some of its latent sites, of one draw. ``sites`` are those of a run
    with these, and ``first`` the values of all its latents. ``nesting`` is the number of
    dimensions on the right that plates and batches of the program take.
    """

    def __init__(
        self,
        label: str,
        run: Callable[[], Any],
        parallel: bool | None,
        given: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.label = label
        self.run = run
        self.parallel = parallel
        self.sites = self.trace(given or {})
        self.first = {n: s["value"] for n, s in self.sites.items() if not s["is_observed"]}
        batches = [s["fn"].batch_shape for s in self.sites.values() if counts(s)]
        self.nesting = max(map(len, batches), default=0)

    @property
    def observed(self) -> list[str]:
        """Sites of data."""
        return [name for name, site in self.sites.items() if is_data(site)]

    @property
    def computed(self) -> list[str]:
        """Sites of ``pyro.deterministic``, and those that ``poutine.reparam`` computes."""
        return [name for name, site in self.sites.items() if is_computed(site)]

    def draw(
        self,
        size: int,
        bar: Progress,
        given: Mapping[str, Tensor] | None = None,
        *,
        resample: bool = False,
    ) -> dict[str, Drawn]:
        """Run with ``given`` latents, ``(draw, *value)``, and draw the rest."""
        given = given or {}
        if self.parallel is not False:
            try:
                drawn = self._at_once(size, given, resample)
            except NotImplementedError:  # a distribution that cannot be drawn from, at once or not
                raise
            except Exception as error:  # whatever a program raises at shapes it was not made for
                what = str(error).split("\n")[0]
                reason = f"the {self.label} cannot run for all draws at once: {what}"
                if self.parallel:
                    raise ValueError(f"{reason}; pass parallel=None or False") from error
                warnings.warn(
                    f"{reason}. It runs draw by draw, which is slower; pass parallel=False if that "
                    "is fine, or let its sites broadcast over a dimension on the left, as "
                    "Predictive(parallel=True) asks for",
                    stacklevel=4,
                )
                self.parallel = False
            else:
                bar.advance(size)
                return drawn
        return self._one_by_one(size, given, resample, bar)

    def log_prob(self, drawn: Mapping[str, Drawn], plates: Sequence[str]) -> Tensor:
        """The sites' sum in double precision, shape ``(draw, *plates)``."""
        total = torch.zeros((), dtype=torch.float64)
        for name, site in self.sites.items():
            if not counts(site):
                continue
            log_prob = drawn[name].log_prob.double()  # (draw, *batch)
            frames = plates_of(site)
            log_prob = log_prob.movedim(
                [frames[plate] for plate in plates], list(range(-len(plates), 0))
            )
            kept = log_prob.shape[log_prob.dim() - len(plates) :]
            total = total + log_prob.reshape(len(log_prob), -1, *kept).sum(1)
        return total

    def trace(
        self, given: Mapping[str, Tensor], resample: bool = False, size: int | None = None
    ) -> dict[str, Any]:
        """The sites of one run with latents at ``given`` values, or of ``size`` draws at once."""
        run = self.run
        if size is not None:
            run = pyro.plate("_draws", size, dim=-1 - self.nesting)(run)
        trace = poutine.trace(_Given(given, resample)(run)).get_trace()
        trace.compute_log_prob(lambda name, site: counts(site))
        sites = {
            name: site
            for name, site in trace.nodes.items()
            if site["type"] == "sample" and not site_is_subsample(site)
        }
        if hasattr(self, "sites") and sites.keys() != self.sites.keys():
            raise ValueError(
                f"the {self.label}'s sites change from run to run, by "
                f"{sorted(sites.keys() ^ self.sites.keys())}; a DataTree needs the same in each"
            )
        return sites

    def _at_once(self, size: int, given: Mapping[str, Tensor], resample: bool) -> dict[str, Drawn]:
        spread = {}
        for name, value in given.items():
            ones = (1,) * (self.nesting - len(self.sites[name]["fn"].batch_shape))
            spread[name] = value.reshape(size, *ones, *value.shape[1:])
        sites = self.trace(spread, resample, size)
        drawn = {}
        for name, site in sites.items():
            if is_random(site) and site["value"].shape[:1] != (size,):
                raise ValueError(f"its site {name!r} is then drawn only once")
            drawn[name] = Drawn(
                *(
                    _by_draw(name, many, size, one.shape)
                    for many, one in zip(_parts(site), _parts(self.sites[name]), strict=True)
                )
            )
        random = [name for name, site in sites.items() if is_random(site)]
        for index in {0, size - 1}:
            alone = self.trace({name: drawn[name].value[index] for name in random}, resample)
            for name, site in alone.items():
                pairs = zip(drawn[name], _parts(site), strict=True)
                if not all(_agree(many[index], one) for many, one in pairs):
                    raise ValueError(f"its site {name!r} is then another than by itself")
        return drawn

    def _one_by_one(
        self, size: int, given: Mapping[str, Tensor], resample: bool, bar: Progress
    ) -> dict[str, Drawn]:
        runs = []
        for index in range(size):
            sites = self.trace({name: value[index] for name, value in given.items()}, resample)
            runs.append({name: _parts(site) for name, site in sites.items()})
            bar.advance(1)
        return {
            name: Drawn(
                *(torch.stack(parts) for parts in zip(*(run[name] for run in runs), strict=True))
            )
            for name in self.sites
        }


def _parts(site: Mapping[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    if not counts(site):
        return site["value"], torch.zeros(()), torch.ones((), dtype=torch.bool)
    return site["value"], site["log_prob"], kept_entries(site)


def _by_draw(name: str, value: Tensor, size: int, shape: torch.Size) -> Tensor:
    """``(draw, 1, ..., *shape)``, or a value that is the same for all draws, as (draw, *shape)."""
    if value.numel() == size * shape.numel():
        return value.reshape(size, *shape)
    if value.numel() == shape.numel():
        return value.reshape(shape).expand(size, *shape)
    raise ValueError(f"its site {name!r} is then of shape {tuple(value.shape)}")


def _agree(many: Tensor, one: Tensor) -> bool:
    many, one = many.double(), one.double()
    largest = one.abs().nan_to_num(posinf=0.0).max().item() if one.numel() else 0.0
    return torch.allclose(many, one, rtol=1e-3, atol=1e-4 * (1 + largest), equal_nan=True)
