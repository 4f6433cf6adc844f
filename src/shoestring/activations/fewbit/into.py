"""Activations that write where they are told to, so that a chunk's values stay in the cache."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Final

import torch

from shoestring.activations.fewbit.functions import Function

_OPERATORS: Final[Mapping[str, str]] = {
    "gelu": "gelu",
    "gelu_tanh": "gelu",
    "silu": "silu",
    "mish": "mish",
    "elu": "elu",
    "hardswish": "hardswish",
    "sigmoid": "sigmoid",
    "tanh": "tanh",
    "softplus": "softplus",
    "logsigmoid": "log_sigmoid",
    "relu": "relu",
    "leaky_relu": "leaky_relu",
    "threshold": "threshold",
    "hardtanh": "hardtanh",
    "hardsigmoid": "hardsigmoid",
    "hardshrink": "hardshrink",
    "softshrink": "softshrink",
}
"""Operators with an ``out=``; the others are made of several."""


def into(function: Function) -> Callable[..., torch.Tensor]:
    """Return a function ``f(x, out=y)`` that returns y, or another tensor with the values.

    Args:
        function: an activation.

    Example:
        >>> from shoestring.activations.fewbit.functions import function
        >>> y = torch.empty(2)
        >>> into(function("relu"))(torch.tensor([-1.0, 2.0]), out=y) is y
        True
    """
    operator = _OPERATORS.get(function.name)
    if operator is None:
        return functools.partial(_elsewhere, function)
    options: dict[str, object] = dict(function.parameters)
    if function.name == "gelu_tanh":
        options["approximate"] = "tanh"
    made: Callable[..., torch.Tensor] = functools.partial(
        getattr(torch.ops.aten, operator).out, **options
    )
    return made


def _elsewhere(function: Function, x: torch.Tensor, *, out: torch.Tensor) -> torch.Tensor:
    return function(x)
