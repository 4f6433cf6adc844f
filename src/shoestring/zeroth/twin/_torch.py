"""The private parts of torch that the twin forward stands on: tensors inside `torch.vmap`."""

from __future__ import annotations

import contextlib
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar, cast

import torch
from torch._C import _functorch

P = ParamSpec("P")
T = TypeVar("T")


def level_of(tensor: torch.Tensor) -> int:
    """Return the level of `torch.vmap` that a tensor is batched at; -1 where it is not.

    Args:
        tensor: any.
    """
    return int(_functorch.maybe_get_level(tensor)) if is_batched(tensor) else -1


def is_batched(tensor: torch.Tensor) -> bool:
    """Return whether a tensor has another value at each place of a `torch.vmap`.

    Args:
        tensor: any.
    """
    return bool(_functorch.is_batchedtensor(tensor))


def lowered(tensor: torch.Tensor) -> torch.Tensor:
    """Return the tensor that holds a batched tensor's values at all places, the first dimension.

    Args:
        tensor: one that `is_batched`.
    """
    within: torch.Tensor = _functorch.get_unwrapped(tensor)
    return within.movedim(int(_functorch.maybe_get_bdim(tensor)), 0)


def raised(tensor: torch.Tensor, level: int) -> torch.Tensor:
    """Return the batched tensor that has these values at the places of a `torch.vmap`.

    Args:
        tensor: whose first dimension is that of the places.
        level: of the `torch.vmap`.
    """
    found: torch.Tensor = _functorch._add_batch_dim(tensor, 0, level)
    return found


@contextmanager
def eagerly() -> Iterator[None]:
    """In this context what was compiled runs as it is, and `torch.vmap` does not warn.

    It would where it calls an operator place by place.
    """
    loaded = "torch._dynamo" in sys.modules  # else nothing can have been compiled
    stance = torch.compiler.set_stance("force_eager") if loaded else contextlib.nullcontext()
    tell: Callable[[bool], None] = vars(_functorch)["_set_vmap_fallback_warning_enabled"]
    tell(False)
    try:
        with stance:
            yield
    finally:
        tell(True)


def opened(function: Callable[P, T]) -> Callable[P, T]:
    """Return a function of `torch.nn.functional` whose parts a `TorchFunctionMode` sees.

    torch's own hands itself to the mode as a whole, and its body is then run without the mode.

    Args:
        function: written in Python; it asks `has_torch_function` first.
    """
    assert isinstance(function, types.FunctionType)
    names = {**function.__globals__, "has_torch_function": lambda _: False}
    code, defaults = function.__code__, function.__defaults__
    found = types.FunctionType(code, names, function.__name__, defaults, function.__closure__)
    found.__kwdefaults__ = function.__kwdefaults__
    return cast(Callable[P, T], found)
