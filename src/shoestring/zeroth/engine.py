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
from collections.abc import Iterator, Sequence
from typing import ClassVar, Final, overload

import numpy as np
import torch
from torch import nn
from torch.optim.optimizer import ParamsT

from shoestring.core.errors import InputError
from shoestring.kernels.rounding import add_rounded_
from shoestring.kernels.streams import stream_key
from shoestring.zeroth.asking import Asking, Closure, InPlace
from shoestring.zeroth.directions import Direction, family
from shoestring.zeroth.found import Exchange, Found, mean_of
from shoestring.zeroth.kept import Group, wide_zeros
from shoestring.zeroth.log import Log, option_of, set_options
from shoestring.zeroth.monitor import Monitor
from shoestring.zeroth.moves import Move
from shoestring.zeroth.places import HALF, ROUNDING, TWIN, Place, Placed
from shoestring.zeroth.scratch import ScratchForward
from shoestring.zeroth.twin import TwinForward

MOST_SKIPPED: Final = 10
"""Steps in a row without a finite loss after which it is an error."""

_SETTINGS: Final = ("lr", "eps", "weight_decay", "momentum", "betas.0", "betas.1")
"""Options that schedulers may change, as the log names them."""


class NoFiniteLossError(InputError):
    """Too many steps in a row had a loss that is infinite or undefined."""


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
        model: whose parameters these are; needed for ``forward="twin"``, and of use for parameters
            of fewer bits than float32: then no more than those of one function are copied.
        forward: ``inplace`` moves the parameters and calls the closure at each place; ``twin``
            calls it once for all places and writes to none, see `twin.TwinForward`.

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
        model: nn.Module | None = None,
        forward: str = "inplace",
    ) -> None:
        family(directions)
        _check_forward(forward, model, pending=pending, two_sided=two_sided)
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
        for name in self._options:
            if any(group[name] != self._shared[name] for group in self.param_groups):
                raise InputError(f"{name} differs between groups.", hint="give it once, for all.")
        self._moved()  # there is state from now on: a checkpoint is loaded into it
        self._model: nn.Module | None = model
        self._forward: str = forward

    def _begin(self) -> None:
        super()._begin()
        self._estimates: list[Found] = []
        self._skipped = self._rounding = 0
        self.exchange: Exchange | None = None
        self._log: Log | None = None
        self._monitor = Monitor()
        self._model, self._forward = None, "inplace"

    _common: ClassVar[tuple[str, ...]] = ("directions", "q", "two_sided", "seed")
    """Names of the options above that it takes and that stay the same in all steps."""

    _options: ClassVar[tuple[str, ...]] = ()
    """Names of such options of its own."""

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
            kept = {name: self._shared[name] for name in (*self._common, *self._options)}
            groups = self.param_groups
            moved = [(parameter, id(group)) for parameter, group in self._moved()]
            self._log = Log(
                optimizer=type(self).__name__,
                options=kept,
                shapes=[list(parameter.shape) for parameter, _ in moved],
                sizes=[sum(place == id(group) for _, place in moved) for group in groups],
                start=self._shared["draws"],
                names=[name for name in _SETTINGS if name.partition(".")[0] in self._shared],
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
            set_options(group, names, settings[k * len(names) :])
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
        draw = int(self._shared["draws"])
        in_place = InPlace(closure, self._go, draw)
        if self._place is None and self._is_due(draw):
            self._fit()
            self._settle()  # before any loss is asked for, and as a replay does
        if self._model is None:
            return in_place
        if self._forward == "twin":
            return self._asking_twin(self._model, closure, in_place)
        if all(parameter.dtype not in HALF for parameter, _ in self._moved()):
            return in_place
        if self._beside is None:
            self._beside = ScratchForward(self._model, [p for p, _ in self._moved()])
        assert isinstance(self._beside, ScratchForward)
        return self._beside.asking(
            closure, lambda index, sign: self._move_to(Place(draw, index, sign)), in_place
        )

    def _asking_twin(self, model: nn.Module, closure: Closure, in_place: InPlace) -> Asking:
        draw = int(self._shared["draws"])
        if self._beside is None:
            self._beside = TwinForward(model, [parameter for parameter, _ in self._moved()])
        assert isinstance(self._beside, TwinForward)
        return self._beside.asking(
            closure,
            lambda index: self._directions(draw, index),
            [float(self.state[parameter]["radius"]) for parameter, _ in self._moved()],
            in_place,
            key=stream_key(self._shared["seed"], TWIN, draw),
        )

    def _update(self, deltas: tuple[float, ...]) -> None:
        """Make the step from half the differences of the losses, and begin the next one."""
        names = self.log.names
        self.log.add(
            deltas, [option_of(group, name) for group in self.param_groups for name in names]
        )
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


def _check_forward(
    forward: str, model: nn.Module | None, *, pending: bool, two_sided: bool
) -> None:
    if forward not in ("inplace", "twin"):
        raise InputError(f"there is no forward={forward!r}.", hint="take inplace or twin.")
    if forward == "inplace":
        return
    if model is None:
        raise InputError(
            "a twin forward must know the model, as parameters do not.", hint="give model=, too."
        )
    if pending or not two_sided:
        raise InputError(
            "a twin forward asks on both sides at once, and leaves nothing perturbed.",
            hint="drop pending=True and two_sided=False.",
        )


def _rounded(number: float) -> float:
    """Return a number in the digits that the log keeps."""
    return float(np.float32(number))
