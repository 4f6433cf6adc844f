"""What the formulas need of torch's private interface."""

from __future__ import annotations

from typing import TypeAlias, TypeGuard

import torch

Operator: TypeAlias = torch._ops.OpOverload | torch._ops.HigherOrderOperator
"""What a dispatch mode receives."""

_COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd


def stored(tensor: torch.Tensor) -> int:
    """Return how many numbers a sparse tensor stores, blocks counted whole.

    Args:
        tensor: sparse, of any layout; a dense one stores all its numbers.
    """
    if tensor.layout is torch.sparse_coo:
        return tensor._values().numel()
    if tensor.layout is torch.strided:
        return tensor.numel()
    return tensor.values().numel()


def is_overload(func: Operator) -> TypeGuard[torch._ops.OpOverload]:
    """Return whether an operator has a schema; one of higher order has none.

    Args:
        func: the operator.
    """
    return isinstance(func, torch._ops.OpOverload)


def full_name(func: Operator) -> str:
    """Return an operator's name, as in ``aten::add.Tensor``.

    Args:
        func: the operator.
    """
    return func.name() if is_overload(func) else str(func)


def is_composite(func: torch._ops.OpOverload) -> bool:
    """Return whether an operator is made of others, which are counted in its place.

    Args:
        func: the operator.
    """
    return bool(func.has_kernel_for_dispatch_key(_COMPOSITE))


def has_pointwise(name: str) -> bool:
    """Return whether torch tags an operator of its own as pointwise.

    Args:
        name: without namespace and overload.
    """
    packet = getattr(torch.ops.aten, name, None)
    overloads = () if packet is None else packet.overloads()
    return any(torch.Tag.pointwise in getattr(packet, o).tags for o in overloads)


def positions(func: torch._ops.OpOverload) -> dict[str, int]:
    """Return the place of each argument that may be given by position, by name.

    Args:
        func: the operator.
    """
    arguments = func._schema.arguments
    return {a.name: i for i, a in enumerate(a for a in arguments if not a.kwarg_only)}


def defaults(func: Operator) -> list[object]:
    """Return the default of each argument that may be given by position; None where it has none.

    Args:
        func: the operator.
    """
    arguments = func._schema.arguments if is_overload(func) else []
    return [a.default_value for a in arguments if not a.kwarg_only]


def returns_views(func: torch._ops.OpOverload) -> bool:
    """Return whether an operator makes views of its input, and no more.

    Args:
        func: the operator.
    """
    return bool(func.is_view)
