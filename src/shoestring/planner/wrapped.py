"""The model inside what torch wraps around it."""

from __future__ import annotations

from typing import Final

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from shoestring.core.errors import RefusedError
from shoestring.measure._torch import compiled_inside, has_compiled_calls
from shoestring.planner.buckets import Buckets

COMPILED: Final = (
    "the model is compiled: this is the step as it runs without the compiler, which may hold "
    "more or less"
)


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the module inside DistributedDataParallel and what torch.compile returned.

    Args:
        model: any module; one that is not wrapped is returned as it is.
    """
    while True:
        inside = compiled_inside(model)
        if inside is None and isinstance(model, DistributedDataParallel):
            inside = model.module
        if inside is None:
            return model
        model = inside


def refuse_spread(model: nn.Module) -> None:
    """Refuse a model that is not whole on one device.

    Args:
        model: any module, not wrapped.

    Raises:
        RefusedError: it is sharded already, or copied to several devices.
    """
    if isinstance(model, DataParallel):
        raise RefusedError(
            "DataParallel copies the model to every device in each step, which is not covered.",
            hint="profile the model inside, and train it with DistributedDataParallel.",
        )
    if any(hasattr(p, "to_local") or hasattr(p, "_is_flat_param") for p in model.parameters()):
        raise RefusedError(
            "the model is sharded, so that its step cannot be traced.",
            hint="profile it before it is sharded; the plan is applied before or after.",
        )


def buckets_of(model: nn.Module) -> Buckets | None:
    """Return what gradients are to the buckets of a wrapped model; None where it has none.

    Args:
        model: any module.
    """
    inside = compiled_inside(model)
    while inside is not None:
        model, inside = inside, compiled_inside(inside)
    if not isinstance(model, DistributedDataParallel):
        return None
    return "views" if model.gradient_as_bucket_view else "copies"


def is_compiled(model: nn.Module) -> bool:
    """Whether torch.compile was called on a model, its wrapper or a module in it.

    Args:
        model: any module.
    """
    return any(
        compiled_inside(module) is not None or has_compiled_calls(module)
        for module in model.modules()
    )
