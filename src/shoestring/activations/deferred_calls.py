"""The calls on deferred logits that keep them deferred: arithmetic, casts, slices, reshapes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

import torch
from torch.nn import functional as F

from shoestring.activations.deferral import HERE, Call, Recipe


@dataclasses.dataclass(frozen=True, slots=True)
class Recorded:
    """A call that was understood.

    Attributes:
        recipe: of what it returns.
        call: the call itself.
        dtype: of what it returns.
    """

    recipe: Recipe
    call: Call
    dtype: torch.dtype


Function: TypeAlias = Callable[..., object]
Args: TypeAlias = tuple[object, ...]
Kwargs: TypeAlias = Mapping[str, object]


def record(
    recipe: Recipe, logits: torch.Tensor, func: Function, args: Args, kwargs: Kwargs
) -> Recorded | None:
    """Understand a call on deferred logits, if it leaves the dimension of the classes whole.

    Args:
        recipe: of the logits.
        logits: the deferred logits, of which shape, dtype and device are read.
        func: the torch function.
        args: its arguments, the deferred logits among them.
        kwargs: its keyword arguments.

    Returns:
        What it makes of the recipe; None where only the real logits will do.
    """
    handler = _HANDLERS.get(func)
    return None if handler is None else handler(recipe, logits, func, args, kwargs)


def _pointwise(
    recipe: Recipe, logits: torch.Tensor, func: Function, args: Args, kwargs: Kwargs
) -> Recorded | None:
    """Record arithmetic with numbers or class vectors, and casts."""
    if recipe.logarithm or recipe.moved:
        return None
    if any(isinstance(value, torch.Tensor) for value in kwargs.values()):
        return None
    num_classes = recipe.weight.shape[0]
    replaced: list[object] = []
    versions = []
    for arg in args:
        if arg is logits:
            replaced.append(HERE)
        elif isinstance(arg, torch.Tensor):
            if not _per_class(arg, num_classes, logits.dim()):
                return None
            replaced.append(arg.reshape(num_classes) if arg.dim() and arg.numel() > 1 else arg)
            versions.append((arg, arg._version))
        else:
            replaced.append(arg)
    if sum(part is HERE for part in replaced) != 1:
        return None
    call = Call(func, tuple(replaced), kwargs, tuple(versions))
    tried = call(torch.empty(0, num_classes, dtype=logits.dtype, device=logits.device))
    same = tried.shape == (0, num_classes) and tried.device == logits.device
    if not same or not tried.is_floating_point():
        return None
    changed = dataclasses.replace(recipe, steps=(*recipe.steps, call))
    return Recorded(changed, call, tried.dtype)


def _per_class(tensor: torch.Tensor, num_classes: int, most_dims: int) -> bool:
    """Whether a tensor is the same for all rows, and needs no gradient."""
    if tensor.requires_grad or tensor.dim() > most_dims:
        return False
    return tensor.numel() == 1 or (
        tensor.numel() == num_classes and tensor.shape[-1] == num_classes
    )


def _reshape(
    recipe: Recipe, logits: torch.Tensor, func: Function, args: Args, kwargs: Kwargs
) -> Recorded | None:
    """Record a view, reshape or flatten of the rows."""
    if recipe.moved or (kwargs and func not in _FLATTEN):
        return None
    if any(isinstance(part, torch.dtype) for part in args[1:]):
        return None  # a view as another dtype
    same_way = torch.flatten if func in _FLATTEN else torch.Tensor.reshape
    shapes_only = torch.empty((), dtype=torch.bool, device="meta").expand(logits.shape)
    tried = Call(same_way, (HERE, *args[1:]), kwargs)(shapes_only)
    if not tried.dim() or tried.shape[-1] != logits.shape[-1]:
        return None
    rows = recipe.rows.reshape(*tried.shape[:-1], recipe.rows.shape[-1])
    call = Call(func, (HERE, *args[1:]), kwargs)
    return Recorded(dataclasses.replace(recipe, rows=rows), call, logits.dtype)


def _index(
    recipe: Recipe, logits: torch.Tensor, func: Function, args: Args, kwargs: Kwargs
) -> Recorded | None:
    """Record slices and numbers that leave the classes whole."""
    parts = list(args[1]) if isinstance(args[1], tuple) else [args[1]]
    if recipe.moved or not all(_is_simple(part) for part in parts):
        return None
    dots = [place for place, part in enumerate(parts) if part is ...]
    if len(dots) > 1 or len(parts) - len(dots) > logits.dim():
        return None
    for place in dots:
        parts[place : place + 1] = [slice(None)] * (logits.dim() - len(parts) + 1)
    if len(parts) == logits.dim() and parts.pop() != slice(None):
        return None
    rows = Call(torch.Tensor.__getitem__, (HERE, tuple(parts)), {})(recipe.rows)
    call = Call(func, (HERE, args[1]), {})
    return Recorded(dataclasses.replace(recipe, rows=rows), call, logits.dtype)


def _is_simple(part: object) -> bool:
    number = isinstance(part, int) and not isinstance(part, bool)
    return isinstance(part, slice) or part is ... or number


def _contiguous(
    recipe: Recipe, logits: torch.Tensor, func: Function, args: Args, kwargs: Kwargs
) -> Recorded | None:
    """Record that the logits should be contiguous, which chunks are."""
    if len(args) > 1 or kwargs or recipe.moved:
        return None
    return Recorded(recipe, Call(func, (HERE,), {}), logits.dtype)


def _transpose(
    recipe: Recipe, logits: torch.Tensor, func: Function, args: Args, kwargs: Kwargs
) -> Recorded | None:
    """Record that the classes of ``[rows, length, V]`` are moved to dimension 1."""
    if recipe.moved or logits.dim() != 3 or kwargs:
        return None
    numbers = args[1] if len(args) == 2 and isinstance(args[1], (tuple, list)) else args[1:]
    assert isinstance(numbers, (tuple, list))
    dims = tuple(d % 3 if isinstance(d, int) else -1 for d in numbers)
    if dims not in (((0, 2, 1),) if func in _PERMUTE else ((1, 2), (2, 1))):
        return None
    call = Call(func, (HERE, *args[1:]), {})
    return Recorded(dataclasses.replace(recipe, moved=True), call, logits.dtype)


def _log_softmax(
    recipe: Recipe, logits: torch.Tensor, func: Function, args: Args, kwargs: Kwargs
) -> Recorded | None:
    """Record a log-softmax over the classes, for the nll_loss that may follow."""
    dim = args[1] if len(args) > 1 else kwargs.get("dim")
    extra = [v for k, v in kwargs.items() if k not in ("dim", "_stacklevel") and v is not None]
    if recipe.moved or recipe.logarithm or len(args) > 2 or extra:
        return None
    if dim not in (-1, logits.dim() - 1):
        return None
    call = Call(torch.log_softmax, (HERE, -1), {})
    dtype = F.log_softmax(torch.empty(0, 1, dtype=logits.dtype, device=logits.device), 1).dtype
    return Recorded(dataclasses.replace(recipe, logarithm=True), call, dtype)


_T = torch.Tensor
_POINTWISE: Final[frozenset[Function]] = frozenset(
    {
        *(_T.float, _T.double, _T.half, _T.bfloat16, _T.to, _T.type_as, _T.clone, torch.clone),
        *(_T.tanh, torch.tanh, _T.neg, torch.neg, _T.__neg__),
        *(_T.mul, torch.mul, torch.multiply, _T.multiply, _T.__mul__, _T.__rmul__),
        *(_T.div, torch.div, torch.divide, _T.divide, torch.true_divide, _T.true_divide),
        *(_T.__truediv__, _T.__rtruediv__, _T.__rdiv__),
        *(_T.add, torch.add, _T.__add__, _T.__radd__),
        *(_T.sub, torch.sub, torch.subtract, _T.subtract, _T.__sub__, _T.__rsub__),
    }
)
_FLATTEN: Final[frozenset[Function]] = frozenset({_T.flatten, torch.flatten})
_PERMUTE: Final[frozenset[Function]] = frozenset({_T.permute, torch.permute})
_Handler: TypeAlias = Callable[[Recipe, torch.Tensor, Function, Args, Kwargs], Recorded | None]
_HANDLERS: Final[Mapping[Function, _Handler]] = {
    **dict.fromkeys(_POINTWISE, _pointwise),
    **dict.fromkeys((_T.view, _T.reshape, torch.reshape, *_FLATTEN), _reshape),
    **dict.fromkeys((_T.transpose, torch.transpose, _T.swapaxes, *_PERMUTE), _transpose),
    **dict.fromkeys((_T.log_softmax, torch.log_softmax, F.log_softmax), _log_softmax),
    _T.__getitem__: _index,
    _T.contiguous: _contiguous,
}
