"""What a mode tells of functions and their arguments before it changes any."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from typing import Final, TypeVar, cast

import torch

from shoestring.zeroth.twin.watch import RefusedError

T = TypeVar("T")

_DESCRIBING: Final = {
    "size", "dim", "ndimension", "numel", "nelement", "element_size", "stride", "storage_offset",
    "is_floating_point", "is_complex", "is_signed", "is_contiguous", "is_same_size", "is_pinned",
    "get_device", "data_ptr", "has_names", "requires_grad_", "retain_grad", "register_hook",
    "__len__", "__hash__", "__repr__", "__format__",
}  # fmt: skip
"""Functions that tell about a tensor, and nothing of its values."""
_VALUES: Final = {"data", "real", "imag", "H", "mH", "T", "mT"}
"""Attributes that hold values."""


def name_of(function: Callable[..., object]) -> str:
    """Return the name of a function, or of the attribute that it reads.

    Args:
        function: as a mode is given it.
    """
    name = str(getattr(function, "__name__", ""))
    if name == "__get__":
        return str(getattr(getattr(function, "__self__", None), "__name__", ""))
    return name


def describes(function: Callable[..., object]) -> bool:
    """Return whether a function's result tells nothing of a tensor's values.

    Args:
        function: as a mode is given it.
    """
    if getattr(function, "__name__", "") == "__get__":
        return name_of(function) not in _VALUES
    return name_of(function) in _DESCRIBING


def check_writes(
    ids: Container[int],
    name: str,
    args: tuple[object, ...],
    given: Mapping[str, object],
) -> None:
    """Refuse a function that writes to a trained parameter.

    Args:
        ids: of the trained parameters.
        name: of the function.
        args: what it was given.
        given: what it was given by name.

    Raises:
        RefusedError: it does, or may.
    """
    ends = name.endswith("_") and not name.endswith("__")
    inplace = ends or name in {"__setitem__", "__set__"} or name.startswith("__i")
    inplace = inplace and name not in {"__invert__", "__index__", "__int__"}
    first = args[:1] if inplace else ()
    if holds(ids, (*first, given.get("out"))):
        raise RefusedError(f"{name} writes to a trained parameter")
    if name == "data":
        raise RefusedError("data of a trained parameter are asked for")


def holds(ids: Container[int], values: Iterable[object]) -> bool:
    """Return whether nested lists hold one of some objects.

    Args:
        ids: of the objects.
        values: the lists.
    """
    for value in values:
        if id(value) in ids:
            return True
        if isinstance(value, list | tuple) and holds(ids, value):
            return True
    return False


def tensors_of(values: Iterable[object]) -> list[torch.Tensor]:
    """Return all tensors in nested lists.

    Args:
        values: the lists.
    """
    found: list[torch.Tensor] = []
    for value in values:
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += tensors_of(value)
    return found


def each(value: T, change: Callable[[torch.Tensor], torch.Tensor]) -> T:
    """Return the same nested lists and mappings with every tensor changed.

    Args:
        value: a list, tuple, mapping or tensor; anything else stays as it is.
        change: of one tensor.
    """
    return cast(T, _each(value, change))


def _each(value: object, change: Callable[[torch.Tensor], torch.Tensor]) -> object:
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, dict):
        return {name: _each(one, change) for name, one in value.items()}
    if isinstance(value, list) and type(value) is list:
        return [_each(one, change) for one in value]
    if isinstance(value, tuple) and type(value) is tuple:
        return tuple(_each(one, change) for one in value)
    return value
