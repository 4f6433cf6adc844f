"""How a step asks for losses: at the parameters, and on both sides of them along directions."""

from __future__ import annotations

import abc
import math
from collections.abc import Callable
from typing import TypeAlias

import torch

from shoestring.zeroth.places import Place
from shoestring.zeroth.same_numbers import SameNumbers

Loss: TypeAlias = torch.Tensor | float
Closure: TypeAlias = Callable[[], Loss]


class Asking(abc.ABC):
    """Asks for the losses of one step.

    Attributes:
        losses: all that were found.
        samples: of how many samples a loss tells; 1 where it is one number.
        errors: standard error of half the difference of the losses along each direction, where a
            loss is a tensor of samples; else empty.
    """

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.samples = 1
        self.errors: list[float] = []

    @abc.abstractmethod
    def here(self) -> float:
        """Return the loss at the parameters themselves."""

    @abc.abstractmethod
    def ahead(self, index: int) -> float:
        """Return the loss on the side that a direction of the step points to.

        Args:
            index: of the direction.
        """

    @abc.abstractmethod
    def sides(self, count: int) -> list[tuple[float, float]]:
        """Return the losses ahead and behind along each direction of the step.

        Args:
            count: of directions.
        """

    @abc.abstractmethod
    def leave(self) -> None:
        """Put the parameters back, where asking has moved them."""

    def _take(self, loss: Loss) -> float:
        """Keep a loss, and return it as a number."""
        if isinstance(loss, torch.Tensor):
            self.samples = loss.numel()
        self.losses.append(number(loss))
        return self.losses[-1]

    def _pair(self, ahead: Loss, behind: Loss) -> tuple[float, float]:
        """Keep the losses on both sides of a direction, and how far their samples differ."""
        error = _error_of(ahead, behind)
        if error is not None:
            self.errors.append(error)
        return self._take(ahead), self._take(behind)


class InPlace(Asking):
    """Moves the parameters, and calls the closure at each place under the same random numbers.

    Args:
        closure: returns the loss.
        go: brings the parameters to a place.
        draw: of the step.
    """

    def __init__(self, closure: Closure, go: Callable[[Place | None], None], draw: int) -> None:
        super().__init__()
        self._closure, self._go, self._draw = closure, go, draw
        self._same = SameNumbers()

    def here(self) -> float:
        """Return the loss at the parameters themselves; see `Asking.here`."""
        return self._take(self._at(None))

    def ahead(self, index: int) -> float:
        """Return the loss on one side; see `Asking.ahead`."""
        return self._take(self._at(Place(self._draw, index, 1)))

    def sides(self, count: int) -> list[tuple[float, float]]:
        """Return the losses on both sides; see `Asking.sides`."""
        found = []
        for index in range(count):
            ahead = self._at(Place(self._draw, index, 1))
            found.append(self._pair(ahead, self._at(Place(self._draw, index, -1))))
        return found

    def leave(self) -> None:
        """Put the parameters back; see `Asking.leave`."""
        self._go(None)

    def _at(self, place: Place | None) -> Loss:
        self._go(place)
        return self._same.call(self._closure)


def number(loss: Loss) -> float:
    """Return a loss as a number: the mean of a tensor.

    Args:
        loss: what a closure returned.
    """
    if isinstance(loss, torch.Tensor):
        return float(loss.detach().double().mean())
    return float(loss)


def _error_of(ahead: Loss, behind: Loss) -> float | None:
    """Return the standard error of half a difference, where it is over samples."""
    if not (isinstance(ahead, torch.Tensor) and isinstance(behind, torch.Tensor)):
        return None
    if ahead.numel() < 2 or ahead.shape != behind.shape:
        return None
    half = (ahead.detach().double() - behind.detach().double()) / 2
    return float(half.std()) / math.sqrt(half.numel())
