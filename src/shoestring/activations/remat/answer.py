"""What a solver answers: an order, what it costs, and how much better another could be."""

from __future__ import annotations

import dataclasses
import math


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """An order within a budget, and a proof of how good it is.

    Attributes:
        order: indices of nodes; what occurs a second time is computed again.
        peak: most bytes at one time.
        seconds: of all computations.
        bound: seconds that no order within the budget can stay under.
        solver: who found it.
        complete: whether the search came to its own end, before its time was up.
    """

    order: tuple[int, ...]
    peak: int
    seconds: float
    bound: float
    solver: str
    complete: bool

    @property
    def gap(self) -> float:
        """How much longer it takes than the bound, as a share of the bound."""
        return relative_gap(self.seconds, self.bound)


class OverBudgetError(ValueError):
    """No order that was found stays within the budget.

    Attributes:
        least: least bytes that were reached.
        order: the order that reaches them; None where bytes kept at the border are the matter.
        node: the node that runs when they are reached; the border for bytes kept.
        proven: whether it is proven that no order at all stays within the budget.
    """

    def __init__(
        self,
        message: str,
        *,
        least: int,
        node: int,
        order: tuple[int, ...] | None = None,
        proven: bool = False,
    ) -> None:
        super().__init__(message)
        self.least = least
        self.node = node
        self.order = order
        self.proven = proven


def relative_gap(seconds: float, bound: float) -> float:
    """Return seconds / bound - 1; 0 where both are 0.

    Args:
        seconds: of what was found.
        bound: seconds that nothing can stay under.
    """
    if bound > 0:
        return seconds / bound - 1
    return math.inf if seconds > 0 else 0.0
