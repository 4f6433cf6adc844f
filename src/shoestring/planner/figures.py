"""What a step takes, and a row of the table that compares ways to run it."""

from __future__ import annotations

import dataclasses

from shoestring.core.profile import Profile


@dataclasses.dataclass(frozen=True, slots=True)
class Figures:
    """What a step takes.

    Attributes:
        peak: most bytes alive at once, as the allocator counts them.
        footprint: the same with a card's context and reserve; equal to the peak on a CPU.
        seconds: estimated time of the step.
    """

    peak: int
    footprint: int
    seconds: float

    @classmethod
    def of(cls, prof: Profile) -> Figures:
        """Return the figures of a profile.

        Args:
            prof: the profile.
        """
        return cls(prof.peak, prof.footprint, prof.seconds)


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: a way to run the step.

    Attributes:
        label: the changes in words.
        figures: what is predicted.
        fits: whether that is within the budget.
        fidelity: what it does to the gradients, in words.
        largest_batch: most rows that fit; 0 where not even one does, None where not known.
        planned: whether it is the plan's own row.
    """

    label: str
    figures: Figures
    fits: bool
    fidelity: str
    largest_batch: int | None = None
    planned: bool = False
