"""What the losses of batches come to, and how workers exchange it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias


class Found(NamedTuple):
    """What the losses of one batch came to.

    Attributes:
        weight: what the batch counts among others.
        deltas: half the difference of the losses along each direction; after them what else the
            optimizer's rule takes.
    """

    weight: float
    deltas: tuple[float, ...]


Exchange: TypeAlias = Callable[[Found], Sequence[Found]]
"""Takes what this worker found, and returns what each worker found, in the order of all."""


def mean_of(found: Sequence[Found]) -> Found:
    """Return what several batches came to together; sums in float64, in their order.

    Args:
        found: of each; those of no weight are left out.
    """
    # A batch without samples has no losses: its numbers may be anything.
    found = [part for part in found if part.weight] or found[:1]
    if len(found) == 1:
        return found[0]
    weight = sum(part.weight for part in found)
    parts = zip(*(part.deltas for part in found), strict=True)
    weights = [part.weight for part in found]
    sums = [sum(w * n for w, n in zip(weights, part, strict=True)) for part in parts]
    return Found(weight, tuple(total / weight for total in sums))
