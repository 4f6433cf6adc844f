"""Where a loss that is not a finite number began."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

from shoestring.core.errors import ShoestringError
from shoestring.measure.rng import rng_untouched
from shoestring.measure.tracing.fake import tensors_in


class NotFiniteError(ShoestringError):
    """Training met a value that is infinite or not a number.

    Args:
        message: one sentence that says where it began.
        hint: what to do about it.
    """

    exit_code = 1


def first_parameter(model: nn.Module) -> str:
    """Return the path of the first parameter with a value that is not finite, or nothing.

    Args:
        model: any module.
    """
    with torch.no_grad():
        for path, parameter in model.named_parameters():
            if parameter.is_floating_point() and not bool(torch.isfinite(parameter).all()):
                return path
    return ""


def first_module(model: nn.Module, batch: Mapping[str, object]) -> str:
    """Return the path of the module whose output is the first that is not finite, or nothing.

    The forward runs once more, without gradients and with random numbers of its own, as the
    generators are put back afterwards.

    Args:
        model: any module; its buffers may be changed as by any forward.
        batch: its keywords.
    """
    found: list[str] = []

    def watch(path: str) -> Callable[[nn.Module, object, object], None]:
        def look(module: nn.Module, args: object, output: object) -> None:
            known = isinstance(output, (torch.Tensor, Mapping, tuple, list))
            inside = output if known else getattr(output, "__dict__", ())
            values = [t for t in tensors_in(inside) if t.is_floating_point()]
            if not found and any(not bool(torch.isfinite(t).all()) for t in values):
                found.append(path or type(module).__name__)

        return look

    handles = [module.register_forward_hook(watch(path)) for path, module in model.named_modules()]
    try:
        with torch.no_grad(), rng_untouched():
            model(**batch)
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else ""
