"""What all zeroth-order optimizers share: perturb, evaluate, restore, update.

A step draws a direction z, moves the parameters by ``+eps z`` and ``-eps z``, and asks for the loss
at both places. Half the difference, ``delta = (f(x + eps z) - f(x - eps z)) / 2``, tells the slope
``delta / eps``; the slope times z estimates the gradient. Nothing is kept of z but its key.

Before they are moved the parameters are settled: rounded, by at most the spacing of floats at their
magnitude plus eps, so that with directions of signs the way there and back rounds nothing. So all
ways through a step give the same bits: in one call or in two phases, with the next perturbation in
the same pass over the memory or without, and again from the log.
"""

from __future__ import annotations

import abc
import contextlib
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, Final, NamedTuple, TypeAlias, overload

import numpy as np
import torch
from torch.optim.optimizer import ParamsT

from shoestring.core.errors import InputError
from shoestring.kernels.rounding import add_rounded_
from shoestring.kernels.streams import stream_key
from shoestring.zeroth.asking import Asking, Closure, InPlace
from shoestring.zeroth.directions import Direction, family
from shoestring.zeroth.kept import Group, wide_zeros
from shoestring.zeroth.log import Log
from shoestring.zeroth.monitor import Monitor
from shoestring.zeroth.moves import Move
from shoestring.zeroth.places import ROUNDING, Place, Placed

Exchange: TypeAlias = Callable[["Found"], Sequence["Found"]]
"""Takes what this worker found, and returns what each worker found, in the order of all."""

MOST_SKIPPED: Final = 10
"""Steps in a row without a finite loss after which it is an error."""

_SHARED: Final = ("directions", "q", "two_sided", "seed")
_SETTINGS: Final = ("lr", "eps", "weight_decay", "momentum")


class NoFiniteLossError(InputError):
    """Too many steps in a row had a loss that is infinite or undefined."""


class Found(NamedTuple):
    """What the losses of one batch came to.

    Attributes:
        weight: what the batch counts among others.
        deltas: half the difference of the losses along each direction; after them what else the
            optimizer's rule takes.
    """

    weight: float
    deltas: tuple[float, ...]


class ZerothOrder(Placed, abc.ABC):
    """An optimizer that asks for losses only.

    Args:
        params: parameters, groups or named parameters; those that need no gradient stay as they
            are.
        defaults: options of a group, ``lr``, ``eps`` and ``weight_decay`` among them.
        directions: family of directions, as `directions.family` takes it.
        q: directions of a step, whose estimates are averaged.
        two_sided: whether the loss is asked for on both sides of the parameters, ``2 q`` times;
            else at them and on one side, ``q + 1`` times.
        seed: of the directions.
        pending: whether the parameters stay perturbed after a step, for the next one, which saves a
            pass over them. `unperturbed` puts them back.

    Attributes:
        exchange: called before each step with what this worker found; returns what all found. None
            where there is one worker.
    """

    def __init__(
        self,
        params: ParamsT,
        defaults: Group,
        *,
        directions: str,
        q: int,
        two_sided: bool,
        seed: int,
        pending: bool,
    ) -> None:
        family(directions)
        if q < 1:
            raise InputError(f"a step needs a direction, and q={q}.", hint="set q=1 or more.")
        if pending and not two_sided:
            raise InputError(
                "a one-sided step begins at the parameters themselves.", hint="drop pending=True."
            )
        shared = {"directions": directions, "q": q, "two_sided": two_sided, "pending": pending}
        shared |= {"seed": seed, "draws": 0, "perturbed": False}
        self._begin()
        super().__init__(params, {**defaults, **shared})
        self._moved()  # there is state from now on: a checkpoint is loaded into it

    def _begin(self) -> None:
        super()._begin()
        self._estimates: list[Found] = []
        self._skipped = self._rounding = 0
        self.exchange: Exchange | None = None
        self._log: Log | None = None
        self._monitor = Monitor()

    _options: ClassVar[tuple[str, ...]] = ()
    """Names of the options of its own that stay the same in all steps."""

    # --- what makes an optimizer of it -----------------------------------------------------------

    def _probe(self, asking: Asking) -> Sequence[float]:
        """Ask for what a step needs.

        Args:
            asking: for losses.

        Returns:
            Half the difference of the losses along each direction, ``q`` numbers. What else the
            optimizer's rule takes may follow: it is in the log, and goes to `_update_along`.
        """
        count = self._shared["q"]
        if self._shared["two_sided"]:
            return [(ahead - behind) / 2 for ahead, behind in asking.sides(count)]
        here = asking.here()
        return [asking.ahead(index) - here for index in range(count)]

    def _weight(self, delta: float, parameter: torch.Tensor) -> float:
        """Return what a direction counts in the estimate of the gradient.

        Args:
            delta: half the difference of the losses along it.
            parameter: whose gradient.
        """
        return delta / float(self.state[parameter]["radius"])

    @abc.abstractmethod
    def _needs_gradient(self, group: Group) -> bool:
        """Return whether an update takes the estimate of the gradient as a whole, for `_rule`.

        Else it is ``x <- (1 - lr weight_decay) x - lr g``, made along the directions in one pass.

        Args:
            group: the options of a parameter.
        """

    def _rule(self, parameter: torch.Tensor, group: Group, gradient: torch.Tensor) -> None:
        """Update a parameter by its gradient's estimate.

        Args:
            parameter: changed in place.
            group: its options.
            gradient: in float32, or in float64 for a parameter in float64; may be changed.
        """
        raise NotImplementedError

    # --- a step ----------------------------------------------------------------------------------

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Closure) -> float: ...

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> float | None:
        """Make a step from the loss at the places around the parameters, or from estimates.

        Args:
            closure: returns the loss of one batch, without backward: a number, or a tensor whose
                mean is taken. It need not be differentiable. Called ``2 q`` times, or ``q + 1``.
                None makes a step from what `estimate` found; without that nothing happens.

        Returns:
            The mean of the losses; None without a closure.

        Raises:
            InputError: a closure is given though there are estimates.
            NoFiniteLossError: no loss of ten steps in a row was finite.
        """
        self._look_again()
        if closure is None:
            if self._estimates:
                self._finish()
            return None
        if self._estimates:
            raise InputError(
                "there are estimates that no step was made from.", hint="call step() first."
            )
        loss = self._evaluate(closure, None)
        self._finish()
        return loss

    def _finish(self) -> None:
        """Make a step from the estimates there are, of all workers."""
        found, self._estimates = self._estimates, []
        try:
            if self.exchange:
                found = list(self.exchange(mean_of(found)))
            if not any(part.weight for part in found):
                raise InputError(
                    "no batch has a sample.", hint="give a loss of one sample or more."
                )
        except BaseException:
            self._go(None)
            raise
        deltas = tuple(map(_rounded, mean_of(found).deltas))
        self._update(deltas)
        self._count_skipped(deltas)

    @torch.no_grad()
    def estimate(self, closure: Closure, *, weight: float | None = None) -> float:
        """Ask for losses along the next step's directions; `step` without a closure follows.

        Several estimates before a step are along the same directions, and their slopes are
        averaged: so a large batch is taken in parts.

        Args:
            closure: as for `step`.
            weight: what this part counts; by default as many as the samples that the closure
                returns losses of, and 1 where it returns one number.

        Returns:
            The mean of the losses.
        """
        self._look_again()
        loss = self._evaluate(closure, weight)
        self._go(None)
        return loss

    @contextlib.contextmanager
    def unperturbed(self) -> Iterator[None]:
        """In this context the parameters have their own values, also with ``pending=True``."""
        place = self._place
        with torch.no_grad():
            self._look_again()
            self._go(None)
        try:
            yield
        finally:
            with torch.no_grad():
                self._go(place)

    @property
    def log(self) -> Log:
        """What each step came to since the optimizer was made or loaded; see `replay`."""
        if self._log is None:
            kept = {name: self._shared[name] for name in (*_SHARED, *self._options)}
            groups = self.param_groups
            moved = [(parameter, id(group)) for parameter, group in self._moved()]
            self._log = Log(
                optimizer=type(self).__name__,
                options=kept,
                shapes=[list(parameter.shape) for parameter, _ in moved],
                sizes=[sum(place == id(group) for _, place in moved) for group in groups],
                start=self._shared["draws"],
                names=[name for name in _SETTINGS if name in self._shared],
            )
        return self._log

    @torch.no_grad()
    def repeat(self, deltas: tuple[float, ...], settings: Sequence[float]) -> None:
        """Make a step again from its log; see `replay`.

        Args:
            deltas: half the difference of the losses along each direction.
            settings: the options that the log names, of each group.
        """
        self._look_again()
        names = self.log.names
        for k, group in enumerate(self.param_groups):
            group.update(zip(names, settings[k * len(names) :], strict=False))
        if self._is_due(self._shared["draws"]):
            self._fit()
            self._settle()  # the way there and back changes nothing else
        self._update(deltas)

    def _evaluate(self, closure: Closure, weight: float | None) -> float:
        """Ask for the losses, and return their mean; the parameters may stay perturbed."""
        asking = self.asking(closure)
        try:
            deltas = self._probe(asking)
        except BaseException:
            asking.leave()
            raise
        counted = asking.samples if weight is None else weight
        self._estimates.append(Found(counted, tuple(deltas)))
        loss = sum(asking.losses) / len(asking.losses)
        self._monitor.see(deltas[: self._shared["q"]], asking.errors, loss)
        return loss

    def asking(self, closure: Closure) -> Asking:
        """Return what asks for the losses of the next step.

        Args:
            closure: as for `step`.
        """
        return InPlace(closure, self._go, self._shared["draws"])

    def _update(self, deltas: tuple[float, ...]) -> None:
        """Make the step from half the differences of the losses, and begin the next one."""
        settings = [group[name] for group in self.param_groups for name in self.log.names]
        self.log.add(deltas, settings)
        finite = all(map(math.isfinite, deltas))
        following = self._shared["draws"] + 1
        ahead = Place(following, 0, 1) if self._shared["pending"] else None
        if not finite:
            self._go(None)
        elif any(map(self._needs_gradient, self.param_groups)):
            self._go(None)
            self._update_along(deltas)
            self._settle()
            self._measure()
        elif self._is_due(following):
            self._go(None, self._updates(deltas))
        else:
            self._go(ahead, self._updates(deltas))
        for group in self.param_groups:
            group["draws"] = following
        self._go(ahead)
        for group in self.param_groups:
            group["perturbed"] = ahead is not None

    def _updates(self, deltas: Sequence[float]) -> list[Move]:
        """Return an update along directions as moves."""
        found = []
        count = self._shared["q"]
        for index, delta in enumerate(deltas[:count]):
            directions, scales = self._directions(self._shared["draws"], index), []
            for (parameter, group), direction in zip(self._moved(), directions, strict=True):
                scales.append(-group["lr"] * self._weight(delta, parameter) / count)
                self.state[parameter]["largest"] += abs(scales[-1]) * direction.reach
            found.append(Move(directions, scales))
        return found

    def _update_along(self, deltas: Sequence[float]) -> None:
        """Update each parameter by its gradient's estimate, one after the other.

        Args:
            deltas: all that `_probe` found, of all estimates and workers.
        """
        count = self._shared["q"]
        for k, (parameter, group) in enumerate(self._moved()):
            self._rounding = stream_key(self._shared["seed"], ROUNDING, self._shared["draws"], k)
            terms = [
                (
                    self._directions(self._shared["draws"], index)[k],
                    self._weight(delta, parameter) / count,
                )
                for index, delta in enumerate(deltas[:count])
            ]
            self._update_one(parameter, group, terms)

    def _update_one(
        self, parameter: torch.Tensor, group: Group, terms: Sequence[tuple[Direction, float]]
    ) -> None:
        """Update one parameter by what its gradient's estimate is the sum of.

        Args:
            parameter: changed in place.
            group: its options.
            terms: directions, and what each counts.
        """
        gradient = wide_zeros(parameter)
        for direction, weight in terms:
            direction.add_to(gradient, weight)
        self._rule(parameter, group, gradient)

    def _buffer(self, parameter: torch.Tensor, name: str) -> torch.Tensor:
        """Return what is kept of a parameter, on the device that the parameter is on by now."""
        state = self.state[parameter]
        if name not in state:  # a scheduler has turned on what needs it
            state[name] = wide_zeros(parameter)
        kept: torch.Tensor = state[name]
        if kept.device != parameter.device:
            kept = self.state[parameter][name] = kept.to(parameter.device)
        return kept

    def _add(
        self, parameter: torch.Tensor, group: Group, update: torch.Tensor, scale: float
    ) -> None:
        """Let a parameter's weights decay and add an update to them."""
        decay = 1.0 - group["lr"] * group["weight_decay"]
        add_rounded_(parameter, update, scale=scale, decay=decay, key=self._rounding)

    def _count_skipped(self, deltas: Sequence[float]) -> None:
        """Warn where a step was left out, and raise where too many were in a row."""
        if all(map(math.isfinite, deltas)):
            self._skipped = 0
            return
        self._skipped += 1
        if self._skipped >= MOST_SKIPPED:
            raise NoFiniteLossError(
                f"no loss of the last {self._skipped} steps was finite.",
                hint="the parameters are as they were; lower lr or eps, or look at the batch.",
            )
        if self._skipped == 1:
            words = "a step was left out: its loss is not finite."
            warnings.warn(words, RuntimeWarning, stacklevel=5)


def mean_of(found: Sequence[Found]) -> Found:
    """Return what several batches came to together; sums in float64, in their order.

    Args:
        found: of each; those of no weight are left out.
    """
    found = [part for part in found if part.weight] or found[:1]
    if len(found) == 1:
        return found[0]
    weight = sum(part.weight for part in found)
    parts = zip(*(part.deltas for part in found), strict=True)
    weights = [part.weight for part in found]
    sums = [sum(w * n for w, n in zip(weights, part, strict=True)) for part in parts]
    return Found(weight, tuple(total / weight for total in sums))


def _rounded(number: float) -> float:
    """Return a number in the digits that the log keeps."""
    return float(np.float32(number))
