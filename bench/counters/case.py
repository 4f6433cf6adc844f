"""What a case is: a model, what is run of it, and its count by hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Final, Literal, TypeAlias

import torch
from torch import nn

Unit: TypeAlias = Literal["MACs", "FLOPs"]
Build: TypeAlias = Callable[[int], tuple[nn.Module, torch.Tensor]]
Hand: TypeAlias = Callable[[int], dict[str, int]]

ROWS: Final = 2
"""Of the batch that is counted."""
FORWARD: Final = "forward"
RECOMPUTE: Final = "recompute"
BACKWARD: Final = "backward"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One model whose count is known.

    Attributes:
        name: short, for files.
        title: for people.
        formula: of the hand count, in words.
        build: makes model and input for a number of rows; the model is in the mode it runs in.
        hand: the right count by phase, for a number of rows.
        unit: of the hand count.
        backward: whether backward is run too.
        gradients: whether forward runs with gradients enabled.
        beside: scalar operations beside the contractions, by kind, for a number of rows: how
            many elements are normalised, biased and so on, which some counters add.
    """

    name: str
    title: str
    formula: str
    build: Build
    hand: Hand
    unit: Unit = "MACs"
    backward: bool = False
    gradients: bool = True
    beside: Callable[[int], Mapping[str, int]] = lambda rows: {}

    def total(self, rows: int = ROWS) -> int:
        """Return the hand count of all phases.

        Args:
            rows: of the batch.
        """
        return sum(self.hand(rows).values())

    def run(self, model: nn.Module, x: torch.Tensor) -> None:
        """Run what is counted.

        Args:
            model: from ``build``.
            x: its input.
        """
        with torch.set_grad_enabled(self.gradients):
            result = model(x)
            if self.backward:
                result.sum().backward()


def forward(macs: Callable[[int], int]) -> Hand:
    """Return the hand count of a case that runs forward only.

    Args:
        macs: by rows.
    """
    return lambda rows: {FORWARD: macs(rows)}
