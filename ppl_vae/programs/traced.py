"""A Pyro program that runs for many draws, all at once where it can."""

from __future__ import annotations

__all__ = ["Drawn", "Program", "agree", "undisturbed"]

import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from typing import Any, NamedTuple

import pyro
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from pyro.poutine.runtime import InferDict, Message
from pyro.poutine.util import site_is_subsample
from torch import Tensor, nn

from ..isolation import seeded
from ..progress import Progress
from .enumeration import summed_out
from .repetition import merged, plate_of_all, repeated, split
from .sites import batch_axes, counts, is_computed, is_data, is_random, kept_entries, plates_of


class Drawn(NamedTuple):
    """A site's values for many draws, their log-probabilities, and which of them these count."""

    value: Tensor  # (draw, *value)
    log_prob: Tensor  # (draw, *batch)
    kept: Tensor  # (draw, *batch), False where a mask leaves an entry out


class _Given(Messenger):
    """Sites at given values; with ``resample``, observed ones drawn as if they were not observed.

    Unlike ``poutine.uncondition`` it leaves computed sites alone, which Pyro counts as observed
    and would draw in another shape inside a plate. Plates in ``rows`` take these, and what they
    scale log-probabilities by, to make up for the rows left out, is taken back.
    """

    def __init__(
        self,
        values: Mapping[str, Tensor],
        resample: bool = False,
        rows: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.values = values
        self.resample = resample
        self.rows = rows or {}

    def _pyro_sample(self, msg: Message[Any, Any]) -> None:
        name = str(msg["name"])
        if site_is_subsample(msg):
            if name in self.rows:
                msg["value"], msg["done"] = self.rows[name], True
            return
        for frame in msg["cond_indep_stack"]:
            if frame.name in self.rows and frame.full_size:
                msg["scale"] = msg["scale"] * frame.size / frame.full_size
        if is_computed(msg):
            return
        value = self.values.get(name)
        if value is not None or (self.resample and msg["is_observed"]):
            msg["is_observed"] = False
            msg["value"] = value
            msg["done"] = value is not None


class Program:
    """A Pyro program that runs for many draws, all at once where it can.

    There are two ways to do so: a plate of draws to the left of all others, and, where every site
    is in one plate and the program cannot take another dimension, its rows repeated, those of the
    arguments too. Both are compared with the program run by itself.

    Parameters
    ----------
    label
        What messages call it.
    run
        The program.
    parallel
        Whether it must, may (None) or may not run for all draws at once.
    given
        Values of some of its latent sites, of one draw.
    args, kwargs
        What it is called with.
    rows
        Of plates that take a subsample, the rows to take.
    tell
        Called with a sentence where it has to run draw by draw; by default a warning.

    Attributes
    ----------
    sites
        Those of a run with the given values.
    first
        The values of all its latents in that run.
    nesting
        The number of dimensions on the right that plates and batches of the program take.
    summed
        Discrete latents that are summed out.
    """

    def __init__(
        self,
        label: str,
        run: Callable[..., Any],
        parallel: bool | None,
        given: Mapping[str, Tensor] | None = None,
        *,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        rows: Mapping[str, Tensor] | None = None,
        tell: Callable[[str], Any] | None = None,
    ) -> None:
        self.label = label
        self.tell = tell or _warn
        self.run = run
        self.parallel = parallel
        self.args, self.kwargs = tuple(args), dict(kwargs or {})
        self.rows = dict(rows or {})
        self.summed: frozenset[str] = frozenset()
        self.nesting = 0
        self.repeats = False
        self.sites = self.trace(given or {})
        self.first = {n: s["value"] for n, s in self.sites.items() if not s["is_observed"]}
        batches = [s["fn"].batch_shape for s in self.sites.values() if counts(s)]
        self.nesting = max(map(len, batches), default=0)

    @property
    def observed(self) -> list[str]:
        """Sites of data."""
        sites = self.sampled if self.summed else self.sites
        return [name for name, site in sites.items() if is_data(site)]

    def with_arguments(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Program:
        """The same program called with others, of the same shapes."""
        other = copy(self)
        other.args, other.kwargs = tuple(args), dict(kwargs)
        return other

    @property
    def computed(self) -> list[str]:
        """Sites of ``pyro.deterministic``, and those that ``poutine.reparam`` computes."""
        return [name for name, site in self.sites.items() if is_computed(site)]

    def sum_out(self, names: Collection[str]) -> None:
        """Sum discrete latents out from now on, which are then no latents any more."""
        given = {name: value for name, value in self.first.items() if name not in names}
        self.summed = frozenset(names)
        self.first, self.sampled = given, self.sites
        sites = self.trace(given)
        del self.sites  # of which there were others
        self.sites = sites

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
        ways = (self._repeated,) if self.repeats else (self._at_once, self._repeated)
        reason, cause = "", None
        for way in ways if self.parallel is not False else ():
            try:
                drawn = way(size, given, resample)
            except NotImplementedError:  # a distribution that cannot be drawn from, at once or not
                raise
            except Exception as error:  # whatever a program raises at shapes it was not made for
                if cause is None:
                    reason, cause = str(error).split("\n")[0], error
            else:
                self.repeats = way == self._repeated
                bar.advance(size)
                return drawn
        if cause is not None:
            reason = f"the {self.label} cannot run for all draws at once: {reason}"
            if self.parallel:
                raise ValueError(f"{reason}; pass parallel=None or False") from cause
            self.tell(
                f"{reason}. It runs draw by draw, which is slower; pass parallel=False if that "
                "is fine, or let its sites broadcast over a dimension on the left, as "
                "Predictive(parallel=True) asks for"
            )
            self.parallel = False
        return self._one_by_one(size, given, resample, bar)

    def log_prob(self, drawn: Mapping[str, Drawn], plates: Sequence[str]) -> Tensor:
        """The sum of the sites in all these plates, in double precision, ``(draw, *plates)``."""
        total = torch.zeros((), dtype=torch.float64)
        for name, site in self.sites.items():
            frames = plates_of(site)
            if not counts(site) or not frames.keys() >= set(plates):
                continue
            log_prob = drawn[name].log_prob.double()  # (draw, *batch)
            log_prob = log_prob.movedim(
                [frames[plate] for plate in plates], list(range(-len(plates), 0))
            )
            kept = log_prob.shape[log_prob.dim() - len(plates) :]
            total = total + log_prob.reshape(len(log_prob), -1, *kept).sum(1)
        return total

    def trace(
        self,
        given: Mapping[str, Tensor],
        resample: bool = False,
        size: int | None = None,
        repeats: int | None = None,
    ) -> dict[str, Any]:
        """The sites of one run with latents at ``given`` values, or of ``size`` draws at once.

        With ``repeats`` its rows, and those of its arguments, are repeated so many times.
        """
        run, args, kwargs = self.run, self.args, self.kwargs
        if size is not None:
            run = pyro.plate("_draws", size, dim=-1 - self.nesting)(run)
        if repeats is not None:
            args, kwargs = repeated((args, kwargs), plate_of_all(self.sites)[1], repeats)
        run = _Given(given, resample, self.rows)(run)
        summed = self.summed if not resample else frozenset()
        if summed:
            run = poutine.infer_config(run, lambda site: _enumerated(site, summed))
            run = poutine.enum(run, first_available_dim=-1 - self.nesting - (size is not None))
        trace = poutine.trace(run).get_trace(*args, **kwargs)
        trace.compute_log_prob(lambda name, site: counts(site))
        if summed:
            return summed_out(trace, self.sampled)
        sites = {
            name: site
            for name, site in trace.nodes.items()
            if site["type"] == "sample" and not site_is_subsample(site)
        }
        known = self.sampled if self.summed else getattr(self, "sites", sites)
        if sites.keys() != known.keys():
            raise ValueError(
                f"the {self.label}'s sites change from run to run, by "
                f"{sorted(sites.keys() ^ known.keys())}; a DataTree needs the same in each"
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
                    for many, one in zip(_parts(site), _parts(self.one(name)), strict=True)
                )
            )
        self._compare(drawn, sites, size, resample)
        return drawn

    def _repeated(self, size: int, given: Mapping[str, Tensor], resample: bool) -> dict[str, Drawn]:
        plate, _ = plate_of_all(self.sites)
        axes = {name: batch_axes(self.one(name)) for name in given}
        spread = {name: merged(value, axes[name][plate]) for name, value in given.items()}
        sites = self.trace(spread, resample, repeats=size)
        drawn = {}
        for name, site in sites.items():
            one = self.one(name)
            axis, along = batch_axes(one)[plate], plates_of(one)[plate]
            value, *of_batch = _parts(site)
            drawn[name] = Drawn(
                split(value, axis, size), *(split(part, along, size) for part in of_batch)
            )
        self._compare(drawn, sites, size, resample)
        return drawn

    def one(self, name: str) -> Mapping[str, Any]:
        """A site of one run; of data that are drawn, which a sum leaves out, of a run without."""
        return self.sites[name] if name in self.sites else self.sampled[name]

    def _compare(
        self, drawn: Mapping[str, Drawn], sites: Mapping[str, Any], size: int, resample: bool
    ) -> None:
        """Compare the first and the last draw with the program run by itself.

        Raises
        ------
        ValueError
            If a site is another.
        """
        random = [name for name, site in sites.items() if is_random(site)]
        for index in {0, size - 1}:
            alone = self.trace({name: drawn[name].value[index] for name in random}, resample)
            for name, site in alone.items():
                pairs = zip(drawn[name], _parts(site), strict=True)
                if not all(agree(many[index], one) for many, one in pairs):
                    raise ValueError(f"its site {name!r} is then another than by itself")

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
            for name in runs[0]
        }


def _warn(what: str) -> None:
    warnings.warn(what, stacklevel=5)


def _enumerated(site: Mapping[str, Any], names: Collection[str]) -> InferDict:
    return InferDict(enumerate="parallel") if site["name"] in names else InferDict()


@contextmanager
def undisturbed(seed: int, *programs: Callable[..., Any]) -> Iterator[None]:
    """Run fitted programs from ``seed``, without gradients, and leave the world as it was found.

    Pyro's param store is read, and what is written to it is forgotten. Modules, and methods of
    modules, run in evaluation mode.
    """
    store = pyro.get_param_store()
    owners = [getattr(program, "__self__", program) for program in programs]
    modules = [m for owner in owners if isinstance(owner, nn.Module) for m in owner.modules()]
    were = [module.training for module in modules]
    with seeded(seed), store.scope(store.get_state()), torch.no_grad():
        for module in modules:
            module.training = False
        try:
            yield
        finally:
            for module, training in zip(modules, were, strict=True):
                module.training = training


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


def agree(many: Tensor, one: Tensor) -> bool:
    """Whether two runs gave the same but for rounding."""
    many, one = many.double(), one.double()
    largest = one.abs().nan_to_num(posinf=0.0).max().item() if one.numel() else 0.0
    return torch.allclose(many, one, rtol=1e-3, atol=1e-4 * (1 + largest), equal_nan=True)
