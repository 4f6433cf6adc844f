"""The count of a step that was profiled: the same trace, seen as FLOPs and bytes."""

from __future__ import annotations

from shoestring.core.profile import Profile
from shoestring.measure.counting.counts import Count, counted


def count_of(prof: Profile) -> Count:
    """Return what a profiled step computes and moves.

    Args:
        prof: of the plain step, or as a technique predicts it of the changed one.
    """
    step = prof.step
    optimizer = step.optimizer.rpartition(".")[2] or "forward and backward"
    title = f"{step.model}, {step.batch}: {optimizer}"
    found = counted(prof.trace, title=title, params=step.num_parameters)
    return Count(lambda: found)
