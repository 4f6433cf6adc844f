"""A function whose every evaluation is counted."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, ParamSpec, TypeVar

from shoestring.core.errors import ShoestringError

P = ParamSpec("P")
R = TypeVar("R")


class BudgetExceeded(ShoestringError):  # noqa: N818  # as the field calls it
    """No more evaluations are left."""


class Oracle(Generic[P, R]):
    """Counts the calls of a function, and allows so many.

    Args:
        function: what is called.
        budget: most calls; None for any number.

    Attributes:
        function: as given.
        budget: as given.
        queries: calls so far, those that raised included.

    Raises:
        BudgetExceeded: on the first call beyond the budget; the function is not called then.

    Example:
        >>> square = Oracle(lambda x: x * x, budget=2)
        >>> square(3), square(4), square.queries
        (9, 16, 2)
        >>> square(5)
        Traceback (most recent call last):
        ...
        shoestring.zeroth.oracle.BudgetExceeded: the budget of 2 evaluations is spent.
        hint: raise budget=, or take the best that was found.
    """

    def __init__(self, function: Callable[P, R], budget: int | None = None) -> None:
        self.function, self.budget, self.queries = function, budget, 0
        self._lock = threading.Lock()

    @property
    def left(self) -> int | None:
        """Calls that are left; None for any number."""
        return None if self.budget is None else self.budget - self.queries

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function, and count it."""
        with self._lock:
            if self.budget is not None and self.queries >= self.budget:
                raise BudgetExceeded(
                    f"the budget of {self.budget} evaluations is spent.",
                    hint="raise budget=, or take the best that was found.",
                )
            self.queries += 1
        return self.function(*args, **kwargs)
