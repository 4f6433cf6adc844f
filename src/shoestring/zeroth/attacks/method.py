"""What every method of attack shares: it proposes images, and is told their margins."""

from __future__ import annotations

import abc
import dataclasses
from typing import ClassVar

import torch

from shoestring.core.errors import InputError
from shoestring.zeroth.attacks.ball import Ball
from shoestring.zeroth.attacks.draws import Draws


@dataclasses.dataclass(frozen=True, slots=True)
class Problem:
    """What a search starts from, a row for each image that is not yet misclassified.

    Attributes:
        ball: the images that are allowed.
        draws: streams of random numbers.
        margins: of the images as they are, in float64.
        queries: that an image may take, the first one included.
    """

    ball: Ball
    draws: Draws
    margins: torch.Tensor
    queries: int


class Search(abc.ABC):
    """A search for many images at once, all of them at the same step.

    Every tensor among its attributes has a row for each image, and `keep` picks among these.

    Args:
        problem: what it starts from.
    """

    def __init__(self, problem: Problem) -> None:
        self.ball, self.draws = problem.ball, problem.draws

    @abc.abstractmethod
    def propose(self) -> torch.Tensor:
        """Return an allowed image for each row, whose margin is to be asked for."""

    @abc.abstractmethod
    def told(self, margins: torch.Tensor) -> None:
        """Take the margins of what was proposed.

        Args:
            margins: one a row, in float64.
        """

    def keep(self, rows: torch.Tensor) -> None:
        """Forget the images that are done.

        Args:
            rows: true for those to keep.
        """
        for name, value in vars(self).items():
            if isinstance(value, torch.Tensor):
                setattr(self, name, value[rows])
        self.ball.keep(rows)
        self.draws.keep(rows)


class Method(abc.ABC):
    """The settings of a method.

    Attributes:
        name: that `attack` takes for the default settings.
    """

    name: ClassVar[str]

    @abc.abstractmethod
    def start(self, problem: Problem) -> Search:
        """Return a search.

        Args:
            problem: what it starts from.
        """


def check_share(name: str, value: float, *, most: float = float("inf")) -> None:
    """Refuse a setting that is not above zero, or too large.

    Args:
        name: of the setting.
        value: of it.
        most: that it may be.

    Raises:
        InputError: it is outside.
    """
    if not 0 < value <= most:
        limit = "above 0" if most == float("inf") else f"above 0, up to {most:g}"
        raise InputError(f"{name}={value} is outside its range.", hint=f"take one {limit}.")


def check_decay(name: str, value: float) -> None:
    """Refuse a decay that is no share.

    Args:
        name: of the setting.
        value: of it.

    Raises:
        InputError: it is outside.
    """
    if not 0 <= value < 1:
        raise InputError(f"{name}={value} is no share.", hint="take one from 0 up to 1.")


def check_count(name: str, value: int) -> None:
    """Refuse a number of things below one.

    Args:
        name: of the setting.
        value: of it.

    Raises:
        InputError: it is none.
    """
    if value < 1 or value != int(value):
        raise InputError(f"{name}={value} is no count.", hint="take a whole number from 1.")
