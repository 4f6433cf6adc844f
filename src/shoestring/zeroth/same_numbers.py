"""Every evaluation of a step starts from the same state of the random number generators."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

T = TypeVar("T")


class SameNumbers:
    """Calls functions so that each meets the random numbers that the first one met.

    Only then is the difference of two losses due to the parameters, where a model has dropout.
    After each call the generators stand as after that one: the next step draws other numbers.
    """

    def __init__(self) -> None:
        self._cpu = torch.get_rng_state()
        self._cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
        self._used = False

    def call(self, function: Callable[[], T]) -> T:
        """Call a function from the state that was there when this object was made.

        Args:
            function: may draw random numbers.
        """
        if self._used:
            torch.set_rng_state(self._cpu)
            if self._cuda:
                torch.cuda.set_rng_state_all(self._cuda)
        self._used = True
        return function()
