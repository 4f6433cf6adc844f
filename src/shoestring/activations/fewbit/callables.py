"""The derivative of any elementwise callable, on tensors or on arrays."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Final, cast

import numpy as np
import torch

from shoestring.activations.fewbit.functions import Elementwise, Floats, Function, function
from shoestring.core.errors import InputError

OnArrays = Callable[[Floats], Floats]
_HINT: Final = "give a smooth function that works on each number of a float64 tensor by itself."
_NUM_PROBES: Final = 23
# Points and weights of a difference quotient of order 4; its error is about 1e-13 at this step.
_STEPS: Final = ((-2.0, 1 / 12), (-1.0, -8 / 12), (1.0, 8 / 12), (2.0, -1 / 12))
_STEP: Final = 1e-3


def as_function(
    given: str | Function | Elementwise | OnArrays, domain: tuple[float, float] = (-2.0, 2.0)
) -> Function:
    """Return a function with its derivative, from a name or a callable.

    The derivative of a callable on tensors is taken by autograd; that of a callable on arrays by
    difference quotients, which are right to about 1e-12.

    Args:
        given: a name as `functions.function` takes it, what that returned, or a callable.
        domain: where a callable is tried.

    Returns:
        The record; its kinks are not known for a callable.

    Raises:
        InputError: there is no such name, or the callable fails, changes shapes, looks at other
            elements, is random, not finite, or has no derivative.

    Example:
        >>> as_function(torch.sin).derivative(torch.tensor([0.0])).tolist()
        [1.0]
    """
    if isinstance(given, Function):
        return given
    if isinstance(given, str):
        return function(given)
    if not callable(given):
        raise InputError(
            f"a function cannot be a {type(given).__name__}.", hint="give a name or a callable."
        )
    name = getattr(given, "__name__", type(given).__name__)
    probe = np.linspace(*domain, _NUM_PROBES)
    forward, slope = _rules(given, name, probe)
    made = Function(name=name, parameters=(), forward=forward, slope=slope, kinks=None)
    _check(made, torch.from_numpy(probe))
    return made


def _rules(
    given: Callable[..., object], name: str, probe: Floats
) -> tuple[Elementwise, Elementwise]:
    try:
        result = given(torch.from_numpy(probe).clone().requires_grad_())
    except Exception as first:  # noqa: BLE001  # whatever a callable of the user's may raise
        arrays = cast("OnArrays", given)
        try:
            result = arrays(probe.copy())
        except Exception:  # noqa: BLE001
            raise InputError(f"{name} fails on a tensor: {first}", hint=_HINT) from first
        if not isinstance(result, np.ndarray):
            raise InputError(f"{name} returns no array for an array.", hint=_HINT) from None
        forward = functools.partial(_on_arrays, arrays)
        return forward, functools.partial(_quotient, forward)
    if not isinstance(result, torch.Tensor):
        raise InputError(f"{name} returns no tensor for a tensor.", hint=_HINT)
    if not result.requires_grad:
        raise InputError(f"{name} has no derivative: autograd does not reach x.", hint=_HINT)
    tensors = cast("Elementwise", given)
    return tensors, functools.partial(_autograd, tensors)


def _on_arrays(rule: OnArrays, x: torch.Tensor) -> torch.Tensor:
    values = rule(x.detach().cpu().numpy().astype(np.float64))
    return torch.from_numpy(np.asarray(values)).to(x.device, x.dtype)


def _quotient(forward: Elementwise, x: torch.Tensor) -> torch.Tensor:
    wide = x.to(torch.float64)
    step = _STEP * wide.abs().clamp(min=1.0)
    total = sum(factor * forward(wide + shift * step) for shift, factor in _STEPS)
    return (torch.as_tensor(total) / step).to(x.dtype)


def _autograd(forward: Elementwise, x: torch.Tensor) -> torch.Tensor:
    # A backward pass, where derivatives may be asked for, runs without gradients.
    with torch.enable_grad():
        leaf = x.detach().clone().requires_grad_()
        (slope,) = torch.autograd.grad(forward(leaf).sum(), leaf)
    return slope.detach()


def _check(made: Function, probe: torch.Tensor) -> None:
    """Refuse what is not elementwise, or not finite."""
    whole = made(probe.clone()).detach()
    if whole.shape != probe.shape:
        raise InputError(
            f"{made.name} is not elementwise: it returns shape {tuple(whole.shape)} for "
            f"{tuple(probe.shape)}.",
            hint=_HINT,
        )
    parts = torch.cat([made(part.clone()).detach() for part in probe.flip(0).split(5)]).flip(0)
    if not torch.allclose(whole, parts, rtol=1e-9, atol=1e-9, equal_nan=True):
        raise InputError(
            f"{made.name} is not elementwise: a number's value depends on the others, or on "
            "chance.",
            hint=_HINT,
        )
    if not bool(torch.isfinite(whole).all()):
        raise InputError(
            f"{made.name} is not finite on the whole domain.", hint="give a domain on which it is."
        )
