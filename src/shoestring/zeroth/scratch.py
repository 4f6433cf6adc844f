"""Asks for losses off the parameters with a copy of few of them at a time, without writing."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from shoestring.zeroth.asking import Asking, Closure, InPlace, Loss
from shoestring.zeroth.moves import Move, move
from shoestring.zeroth.twin._torch import eagerly, opened
from shoestring.zeroth.twin.functions import check_writes, describes, each, holds, name_of
from shoestring.zeroth.twin.watch import Beside, Watch

Moves: TypeAlias = Callable[[int, int], Move]
"""Returns the move to a place by the index of its direction and its sign."""


class ScratchForward:
    r"""Makes what asks for a step's losses with copies of a few parameters at a time.

    The plain closure is called once for each place. A function that is given a trained parameter
    :math:`W` gets a copy of it that is moved, :math:`W + s \epsilon Z`, and the copy is let go
    when the function returns. So the parameters are not written to, and no more is held than the
    parameters of one function, where moving them in place holds a copy of all that are of fewer
    bits than float32. Directions of all families do. The bits are those of moving a copy.

    What a function returns may hold a copy for longer, as a view of it does.

    A closure whose functions are not seen, because its model is compiled, or that writes to the
    parameters, is called with the parameters moved in place: from then on, and a `TwinWarning` says
    why.

    Args:
        model: whose parameters are trained.
        parameters: those that are, in the order of the directions.

    Attributes:
        watch: what is known of the closure; ``watch.reason`` tells why the parameters are moved in
            place.
    """

    def __init__(self, model: nn.Module, parameters: Sequence[torch.Tensor]) -> None:
        self.watch: Final = Watch(model, parameters)

    def asking(self, closure: Closure, moves: Moves, in_place: InPlace) -> Asking:
        """Return what asks for the losses of one step.

        Args:
            closure: returns the loss.
            moves: of the step.
            in_place: what is asked where the closure cannot be called so.
        """
        if not self.watch.is_fit(statistics=True):
            return in_place
        return Scratch(self.watch, closure, moves, in_place)


class Scratch(Beside):
    """Asks for the losses of one step with copies; see `ScratchForward`.

    Args:
        watch: what is known of the closure.
        closure: returns the loss.
        moves: of the step.
        in_place: what is asked where the closure cannot be called so.
    """

    def __init__(self, watch: Watch, closure: Closure, moves: Moves, in_place: InPlace) -> None:
        super().__init__(watch, closure, in_place)
        self._moves = moves

    def _losses(
        self, indices: Sequence[int], signs: Sequence[int]
    ) -> tuple[Sequence[Loss], set[int]]:
        losses, seen = [], set[int]()
        for index in indices:
            for sign in signs:
                mode = AtOnePlace(
                    self._watch.parameters, self._watch.known, self._moves(index, sign)
                )
                losses.append(self._same.call(functools.partial(self._run, mode)))
                seen |= mode.seen
        return losses, seen

    def _run(self, mode: AtOnePlace) -> Loss:
        with eagerly(), mode:
            return self._closure()


class AtOnePlace(TorchFunctionMode):
    """In this context functions see each trained parameter as it is at one place.

    Args:
        parameters: those that are trained.
        known: index of its parameter, by the id of every tensor that is one.
        moved: from the parameters' own values to the place.

    Attributes:
        seen: indices of the parameters that a function was given.
    """

    def __init__(
        self, parameters: Sequence[torch.Tensor], known: Mapping[int, int], moved: Move
    ) -> None:
        super().__init__()
        self._parameters, self._known, self._move = parameters, known, moved
        self.seen: set[int] = set()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Call a function with copies."""
        given = kwargs or {}
        trained = holds(self._known, args) or holds(self._known, given.values())
        if not trained or describes(func):
            return func(*args, **given)
        if func is torch.nn.functional.multi_head_attention_forward:
            with self:  # its parts are given fewer parameters each
                return opened(func)(*args, **given)
        check_writes(self._known, name_of(func), args, given)
        return func(*each(args, self._moved), **each(given, self._moved))

    def _moved(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a parameter moved; anything else as it is."""
        index = self._known.get(id(tensor))
        if index is None:
            return tensor
        self.seen.add(index)
        found = tensor.detach().clone()
        move([found], [self._move.only([index])])
        return found.requires_grad_(tensor.requires_grad)  # matmul goes another way without
