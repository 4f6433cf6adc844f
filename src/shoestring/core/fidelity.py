"""What a technique does to the gradients: a class, not a number."""

from __future__ import annotations

import enum


class Fidelity(enum.Enum):
    """How a changed step relates to the plain one.

    The planner uses EXACT unless the user allows more by name, and never ranks an EXACT
    technique against another class by seconds per step.
    """

    EXACT = "exact"
    """The same gradients to rounding."""
    SAME_DISTRIBUTION = "same distribution"
    """Exact, but for other random numbers drawn (micro-batches with dropout)."""
    UNBIASED = "unbiased"
    """The same gradients in expectation."""
    APPROXIMATE = "approximate"
    """Other gradients, close to the plain ones."""
    RETRAIN = "retrain"
    """Another model: it must be trained again, or it trains fewer weights."""
