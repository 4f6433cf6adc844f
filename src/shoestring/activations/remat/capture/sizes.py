"""Sizes of a captured step that change from batch to batch, taken at the largest batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TypeAlias, cast

import torch
from torch import fx

from shoestring.activations.remat.capture._torch import (
    Expression,
    evaluate,
    expression_of,
    hint_of,
    source_of,
    symbol_of,
)
from shoestring.core.errors import RefusedError

Shapes: TypeAlias = Mapping[str, tuple[int, ...]]
"""Source of an input, as dynamo writes it -> its sizes."""


class Sizes:
    """Tells what sizes are that are no fixed numbers.

    Args:
        largest: symbol -> its value at the largest batch. A size with another symbol is fixed at
            what it is now: a batch with another one is captured anew. None takes every size as it
            is in the batch that was captured, and fixes none.
    """

    def __init__(self, largest: Mapping[Expression, int] | None = None) -> None:
        self._largest = largest
        self._known: dict[Expression, int] = {}

    def number(self, value: int | torch.SymInt) -> int:
        """Return a size at the largest batch.

        Args:
            value: a size.

        Raises:
            RefusedError: it depends on the batch's data.
        """
        if not isinstance(value, torch.SymInt):
            return int(value)
        hint = hint_of(value)
        if hint is None:
            raise RefusedError(
                "a size of the step depends on data.",
                hint="remat.fit computes again without capture where it must.",
            )
        if self._largest is None:
            return hint
        expression = expression_of(value)
        if expression not in self._known:
            found = evaluate(expression, self._largest)
            self._known[expression] = int(value) if found is None else found
        return self._known[expression]

    def tensor(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a tensor without data, of the size that another has at the largest batch.

        Args:
            tensor: of any size; one whose sizes are fixed is returned as it is.
        """
        parts = (*tensor.shape, *tensor.stride())
        if all(type(part) is int for part in parts):
            return tensor
        sizes = [self.number(size) for size in tensor.shape]
        strides = [self.number(step) for step in tensor.stride()]
        return torch.empty_strided(sizes, strides, dtype=tensor.dtype, device="meta")

    def bytes_of(self, tensor: torch.Tensor) -> int:
        """Return the bytes of a tensor's storage at the largest batch.

        Args:
            tensor: fake or real.
        """
        return self.number(tensor.untyped_storage().nbytes())


AS_CAPTURED = Sizes()


@dataclasses.dataclass(frozen=True)
class Inputs:
    """The inputs of a captured forward.

    Attributes:
        now: their sizes in the batch that was captured.
        symbols: sizes that may change: symbol, the input that has it, and the dimension.
    """

    now: Shapes
    symbols: tuple[tuple[torch.SymInt, str, int], ...]

    def within(self, other: Shapes) -> bool:
        """Return whether no input is larger than in another batch.

        Args:
            other: the other batch; an input that it lacks is larger.
        """
        return all(
            name in other
            and len(other[name]) == len(sizes)
            and all(map(int.__le__, sizes, other[name]))
            for name, sizes in self.now.items()
        )

    def bound(self, largest: Shapes) -> Sizes:
        """Let a batch that is larger than a given one be captured anew.

        Args:
            largest: a batch in which no input is smaller than now.

        Returns:
            What sizes are at that batch.
        """
        bounds: dict[Expression, int] = {}
        for size, name, dimension in self.symbols:
            symbol = symbol_of(size)
            if symbol is not None:
                bound = largest[name][dimension]
                bounds[symbol] = min(bound, bounds.get(symbol, bound))
                if size > bound:  # what is asked here, dynamo guards
                    raise AssertionError("the batch is larger than the largest")
        return Sizes(bounds)


def read_inputs(module: fx.GraphModule) -> Inputs:
    """Return the inputs of a captured forward.

    Args:
        module: as a backend of torch.compile is given it.
    """
    now: dict[str, tuple[int, ...]] = {}
    symbols: list[tuple[torch.SymInt, str, int]] = []
    for node in module.graph.find_nodes(op="placeholder"):
        value = node.meta.get("example_value")
        if not isinstance(value, torch.Tensor) or not value.ndim:
            continue  # a number; where it is a size, it is that of a tensor, or fixed
        name = source_of(node)
        sizes = cast("Sequence[int | torch.SymInt]", value.shape)
        now[name] = tuple(AS_CAPTURED.number(size) for size in sizes)
        for dimension, size in enumerate(sizes):
            if isinstance(size, torch.SymInt):
                symbols.append((size, name, dimension))
    return Inputs(now, tuple(symbols))
