"""Everything of torch's private interface that this room uses, in one place.

A test calls each name, so that a new release that moves one fails here and nowhere else.
"""

from __future__ import annotations

import contextlib

import torch
from torch import nn


def as_plain_tensors() -> contextlib.AbstractContextManager[None]:
    """Return a context in which ``__torch_function__`` of subclasses is not called."""
    context: contextlib.AbstractContextManager[None] = torch._C.DisableTorchFunctionSubclass()
    return context


def has_hooks(module: nn.Module) -> bool:
    """Return whether anything is hooked to a module's forward or backward.

    Args:
        module: any module.
    """
    tables = (
        module._forward_hooks,
        module._forward_pre_hooks,
        module._backward_hooks,
        module._backward_pre_hooks,
    )
    return any(tables)


def is_transformed(tensor: torch.Tensor) -> bool:
    """Return whether a tensor belongs to a transform of ``torch.func``, such as vmap or grad.

    Args:
        tensor: any tensor.
    """
    return bool(torch._C._functorch.is_functorch_wrapped_tensor(tensor))


def drop_forward_hook(module: nn.Module, hook: object) -> None:
    """Remove a forward hook wherever it was registered, also from a copy of the module.

    A handle would only know the module it was made for.

    Args:
        module: any module.
        hook: the very function that was registered.
    """
    for key, registered in list(module._forward_hooks.items()):
        if registered is hook:
            del module._forward_hooks[key]


def base_of(tensor: torch.Tensor) -> torch.Tensor:
    """Return the tensor that a tensor is a view of, or the tensor itself.

    Args:
        tensor: any tensor.
    """
    return tensor if tensor._base is None else tensor._base
