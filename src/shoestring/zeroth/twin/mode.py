"""Sees every function that is given a trained parameter, and answers for all places."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from shoestring.zeroth.same_numbers import SameNumbers
from shoestring.zeroth.twin._torch import opened
from shoestring.zeroth.twin.attention import NAMES, attention
from shoestring.zeroth.twin.convolutions import CONVOLUTIONS
from shoestring.zeroth.twin.functions import (
    check_writes,
    describes,
    each,
    holds,
    name_of,
    tensors_of,
)
from shoestring.zeroth.twin.halves import HALF
from shoestring.zeroth.twin.norms import NORMS
from shoestring.zeroth.twin.places import Places
from shoestring.zeroth.twin.products import PRODUCTS, Rules

_RULES: Final[Rules] = {**PRODUCTS, **CONVOLUTIONS, **NORMS}
_TURNING: Final = {"t", "T", "mT", "transpose", "swapaxes", "numpy_T", "permute"}
_RECURRENT: Final = {"lstm", "gru", "rnn_tanh", "rnn_relu"}
_CONVERTING: Final = {"to", "float", "double", "half", "bfloat16", "type", "type_as"}


class AtAllPlaces(TorchFunctionMode):
    """In this context functions see each trained parameter as it is at all places.

    It is entered inside a `torch.vmap` over the places. A function with a rule is answered by that;
    to any other goes a copy of the parameter for every place.

    Args:
        places: of the call.
    """

    def __init__(self, places: Places) -> None:
        super().__init__()
        self._places = places

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Answer a function."""
        given = kwargs or {}
        if func is F.scaled_dot_product_attention:
            found = attention(self._places, _named(NAMES, args, given))
            if found is not None:
                return found
        if not (holds(self._places.moved, args) or holds(self._places.moved, given.values())):
            return func(*args, **given)
        return self._answer(func, args, given)

    def _answer(
        self, func: Callable[..., Any], args: tuple[Any, ...], given: dict[str, Any]
    ) -> Any:
        if func in _RULES:
            names, rule = _RULES[func]
            found = rule(self._places, _named(names, args, given))
            if found is not None:
                return found
        if func is F.multi_head_attention_forward:
            with self:
                return opened(func)(*args, **given)
        if describes(func):
            return func(*args, **given)
        name = name_of(func)
        check_writes(self._places.moved, name, args, given)
        if name in _TURNING and self._turns(name, args):
            return self._places.turn(args[0])
        return self._by_copies(func, name, args, given)

    def _turns(self, name: str, args: tuple[Any, ...]) -> bool:
        """Return whether a function transposes a trained matrix."""
        shift = self._places.shift(args[0])
        if shift is None or not shift.low or args[0].dim() != 2:
            return False
        places = [place % 2 for place in args[1:] if isinstance(place, int)]
        if name in {"transpose", "swapaxes"}:
            return len(places) == 2 and places[0] != places[1]
        return name != "permute" or places == [1, 0]

    def _by_copies(
        self, func: Callable[..., Any], name: str, args: tuple[Any, ...], given: dict[str, Any]
    ) -> Any:
        """Give a function copies of the trained parameters for all places."""
        if name in _RECURRENT:
            return self._place_by_place(func, self._copied(name, args, False))
        tensors = tensors_of((*args, *given.values()))
        if not any(t.dtype in HALF for t in tensors if self._places.is_moved(t)):
            return func(*self._copied(name, args, False), **self._copied(name, given, False))
        if name in _CONVERTING:
            dtype = func(*args, **given).dtype
            return self._narrow(self._copied(name, args[0], True), dtype)
        floating = [tensor.dtype for tensor in tensors if tensor.is_floating_point()]
        dtype = functools.reduce(torch.promote_types, floating)
        found = func(*self._copied(name, args, True), **self._copied(name, given, True))
        return each(found, lambda value: self._narrow(value, dtype))

    def _place_by_place(self, func: Callable[..., Any], args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Call a function that `torch.vmap` does not know at each place by itself."""
        same = SameNumbers()

        def at(place: int) -> Any:
            return func(*each(args, lambda tensor: self._places.at(tensor, place)))

        found = [same.call(functools.partial(at, place)) for place in range(len(self._places))]
        return tuple(self._places.raised(torch.stack(parts)) for parts in zip(*found, strict=True))

    def _copied(self, name: str, value: Any, widen: bool) -> Any:
        """Return copies of what is trained; all that is in half precision in float32 (`widen`)."""

        def one(tensor: torch.Tensor) -> torch.Tensor:
            if self._places.is_moved(tensor):
                return self._places.copies(tensor, name)
            return tensor.float() if widen and tensor.dtype in HALF else tensor

        return each(value, one)

    def _narrow(self, value: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Return a result in the dtype that it should have."""
        if not value.is_floating_point() or value.dtype is dtype:
            return value
        values, differ = self._places.lowered(value)
        if not differ:
            return values.to(dtype)
        return self._places.raised(self._places.narrowed(values, dtype))


def _named(names: tuple[str, ...], args: tuple[Any, ...], given: dict[str, Any]) -> dict[str, Any]:
    return {**dict(zip(names, args, strict=False)), **given}
