"""What deferred logits remember: how to compute them, and what was made from them."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import torch

from shoestring.activations.chunked_cross_entropy import plain_linear
from shoestring.core.errors import RefusedError

HERE: Final = object()
"""Stands for the logits among the arguments of a recorded call."""


@dataclasses.dataclass(frozen=True, slots=True)
class Call:
    """A recorded call of a torch function on the logits.

    Attributes:
        function: the torch function.
        args: its arguments, with `HERE` for the logits.
        kwargs: its keyword arguments.
        versions: tensors among the arguments, with their versions when they were recorded.
    """

    function: Callable[..., object]
    args: tuple[object, ...]
    kwargs: Mapping[str, object]
    versions: tuple[tuple[torch.Tensor, int], ...] = ()

    def __call__(self, logits: torch.Tensor) -> torch.Tensor:
        """Run the call on real logits."""
        check_versions(self.versions)
        args = [logits if arg is HERE else arg for arg in self.args]
        result = self.function(*args, **self.kwargs)
        assert isinstance(result, torch.Tensor)
        return result


def apply_steps(steps: Sequence[Call], logits: torch.Tensor) -> torch.Tensor:
    """Return what recorded pointwise calls make of a head's product.

    Args:
        steps: the calls in order.
        logits: ``[..., V]``.
    """
    for step in steps:
        logits = step(logits)
    return logits


@dataclasses.dataclass(frozen=True, slots=True)
class Recipe:
    """How to compute the logits from the hidden states.

    Attributes:
        rows: hidden states ``[..., d]``, on which slices and reshapes were done already.
        weight: of the head.
        bias: of the head, or None.
        dtype: of the matrix product.
        steps: pointwise calls that follow it.
        logarithm: whether a log-softmax over the classes follows.
        moved: whether the classes are then moved from dimension 2 to dimension 1.
        versions: of hidden states, weight and bias when the head was called.
    """

    rows: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor | None
    dtype: torch.dtype
    steps: tuple[Call, ...] = ()
    logarithm: bool = False
    moved: bool = False
    versions: tuple[tuple[torch.Tensor, int], ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the logits."""
        shape = (*self.rows.shape[:-1], self.weight.shape[0])
        return (shape[0], shape[2], shape[1]) if self.moved else shape

    def product(self) -> torch.Tensor:
        """Return the head's product ``[..., V]`` for all rows."""
        check_versions(self.versions)
        bias = None if self.bias is None else self.bias.to(self.dtype)
        return plain_linear(self.rows, self.weight.to(self.dtype), bias)

    def whole(self) -> torch.Tensor:
        """Return the logits for all rows."""
        logits = apply_steps(self.steps, self.product())
        if self.logarithm:
            logits = logits.log_softmax(-1)
        return logits.transpose(1, 2) if self.moved else logits


@dataclasses.dataclass(slots=True, weakref_slot=True)
class Deferral:
    """What stands behind one tensor of deferred logits.

    Values are always computed by the calls that the user made, from the head's output on, so
    that views of one tensor share memory as they do in torch.

    Attributes:
        recipe: how the values come about from the hidden states.
        parent: what it was made from by `call`; None for the head's own output.
        call: the call that made it.
        values: the real logits, once something asked for them.
        children: those made from it.
        lost: whether a loss was taken of it without its values.
    """

    recipe: Recipe
    parent: Deferral | None = None
    call: Call | None = None
    values: torch.Tensor | None = None
    children: list[weakref.ref[Deferral]] = dataclasses.field(default_factory=list)
    lost: bool = False

    def real(self) -> torch.Tensor:
        """Return the logits as a tensor with its graph; the same one each time."""
        if self.values is None:
            with torch.inference_mode(False), torch.enable_grad():
                if self.parent is None or self.call is None:
                    self.values = self.recipe.product()
                else:
                    self.values = self.call(self.parent.real())
        return self.values

    @property
    def first(self) -> Deferral:
        """The head's own output, which it was made from."""
        one = self
        while one.parent is not None:
            one = one.parent
        return one

    def settle(self) -> None:
        """Compute all that is deferred from the same head, before something is changed."""
        pending = [self.first]
        while pending:
            one = pending.pop()
            one.real()
            pending += [child for ref in one.children if (child := ref()) is not None]

    def lose(self) -> None:
        """Note that a loss was taken of it, and so of all that it was made from."""
        one: Deferral | None = self
        while one is not None:
            one.lost, one = True, one.parent


def check_versions(versions: Sequence[tuple[torch.Tensor, int]]) -> None:
    """Raise RefusedError where a tensor was changed or freed since it was recorded.

    Args:
        versions: tensors with their versions then.

    Raises:
        RefusedError: one was changed, or a sharded weight was gathered only for the head's
            forward, so the logits can no longer be computed.
    """
    changed = any(tensor._version != version for tensor, version in versions)
    freed = any(t.numel() and not t.untyped_storage().nbytes() for t, _ in versions)
    if changed or freed:
        raise RefusedError(
            "these logits were not kept, and what they are computed from has changed since.",
            hint="read them before the optimizer's step, or remove the chunked loss.",
        )
