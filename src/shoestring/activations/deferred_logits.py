"""Logits that are not computed until something other than their cross-entropy is asked for."""

from __future__ import annotations

import dataclasses
import functools
import types
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal, Protocol, cast

import torch
from torch import nn
from torch.nn import functional as F

from shoestring.activations._torch import (
    as_plain_tensors,
    is_transformed,
)
from shoestring.activations.chunked_cross_entropy import chunked_cross_entropy, product_dtype
from shoestring.activations.deferral import Call, Deferral, Recipe, apply_steps, check_versions
from shoestring.activations.deferred_calls import record
from shoestring.core.errors import NoEffectWarning, RefusedError
from shoestring.measure._torch import FakeTensor, tensor_without_storage


class DeferredLogits(torch.Tensor):
    """Stands for the logits of a linear head until their cross-entropy is taken.

    Pointwise arithmetic with numbers or with vectors over the classes, casts, slices and
    reshapes of the rows are recorded. `torch.nn.functional.cross_entropy` of it, or
    ``nll_loss`` of its ``log_softmax``, runs in chunks and never has the whole logits. Any
    other use computes the real logits, once, with their graph, and goes on with those.

    Make one with `defer_logits`.
    """

    deferral: Deferral

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., object],
        types: Sequence[type],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Record a call, run it in chunks, or run it on the real logits."""
        options = kwargs or {}
        if func in _METADATA:
            with as_plain_tensors():
                return func(*args, **options)
        deferred = next((arg for arg in args if isinstance(arg, DeferredLogits)), None)
        if deferred is not None and deferred.deferral.values is None:
            if func in (F.cross_entropy, F.nll_loss):
                loss = _loss(deferred, func, args, options)
                if loss is not None:
                    return loss
            recipe = deferred.deferral.recipe
            recorded = record(recipe, deferred, func, tuple(args), options)
            if recorded is not None:
                return _stand_in(recorded.recipe, recorded.dtype, deferred.deferral, recorded.call)
        return _run(func, args, options)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch's own annotation lacks cls and func
        cls,
        func: Callable[..., object],
        types: Sequence[type],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Run an operation that came past `__torch_function__` on the real values."""

        def values(deferred: DeferredLogits) -> torch.Tensor:
            return deferred.deferral.real().detach()

        with as_plain_tensors():
            plain = [_swapped(arg, values) for arg in args]
            return func(*plain, **{k: _swapped(v, values) for k, v in (kwargs or {}).items()})


def defer_logits(
    hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> DeferredLogits:
    """Return what stands for ``linear(hidden, weight, bias)`` until more is asked of it.

    Args:
        hidden: ``[..., d]``.
        weight: ``[V, d]``.
        bias: ``[V]`` or None.

    Returns:
        A tensor of shape ``[..., V]`` without values of its own.

    Example:
        >>> logits = defer_logits(torch.ones(2, 4), torch.ones(3, 4))
        >>> F.cross_entropy(logits / 2, torch.tensor([0, 1])).exp()
        tensor(3.)
    """
    dtype = product_dtype(hidden)
    rows = hidden.to(dtype)
    inputs = [t for t in (rows, weight, bias) if t is not None]
    versions = tuple((t, t._version) for t in inputs)
    return _stand_in(Recipe(rows, weight, bias, dtype, versions=versions), dtype)


def defer_head(head: nn.Module) -> None:
    """Make a linear layer return deferred logits while its model trains with gradients.

    Args:
        head: ``weight`` is ``[V, d]``, ``bias`` is ``[V]`` or None. Only this instance is
            changed; copies of it are changed likewise.
    """
    head.forward = types.MethodType(_deferred_forward, head)


def undefer_head(head: nn.Module) -> None:
    """Undo `defer_head`.

    Args:
        head: a layer for which `is_deferred` is true.
    """
    del head.forward


def is_deferred(head: nn.Module) -> bool:
    """Return whether `defer_head` changed a layer.

    Args:
        head: any module.
    """
    forward = vars(head).get("forward")
    return getattr(forward, "__func__", None) is _deferred_forward


def _deferred_forward(self: nn.Module, input: torch.Tensor) -> torch.Tensor:  # noqa: A002
    weight, bias = self.weight, getattr(self, "bias", None)
    needed = any(isinstance(t, torch.Tensor) and t.requires_grad for t in (input, weight, bias))
    defers = self.training and torch.is_grad_enabled() and needed
    if defers and torch.compiler.is_compiling():
        defers = _deferring_compiled()
    if not defers or any(_foreign(t) for t in (input, weight, bias)):
        return cast(torch.Tensor, type(self).forward(self, input))
    return defer_logits(input, cast(torch.Tensor, weight), cast("torch.Tensor | None", bias))


def _warn_of_compiling() -> bool:
    """Say that a compiled head returns whole logits, and that it does."""
    warnings.warn(
        "the head is compiled together with its model, so the loss is not taken in chunks; "
        "compile the blocks and not the whole model.",
        NoEffectWarning,
        stacklevel=2,
    )
    return False


_deferring_compiled = cast(
    "Callable[[Callable[[], bool]], Callable[[], bool]]", torch.compiler.assume_constant_result
)(_warn_of_compiling)
"""Is called once, while the compiler traces, which takes its result for a constant."""


def _foreign(tensor: object) -> bool:
    """Whether a tensor is not simply there later: sharded, or inside a functional transform."""
    if tensor is None:
        return False
    if not isinstance(tensor, torch.Tensor) or is_transformed(tensor):
        return True
    return type(tensor) not in (torch.Tensor, nn.Parameter, FakeTensor) or tensor.is_inference()


class _Context(Protocol):
    """What autograd hands to forward and backward, as far as it is used here."""

    recipe: Recipe


class _Defer(torch.autograd.Function):
    """Gives deferred logits a true place in the graph.

    Its backward runs only where the logits reach code that torch does not show us, such as
    another autograd function: then it computes them whole and stays right.
    """

    @staticmethod
    def forward(
        ctx: _Context,
        rows: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        recipe: Recipe,
        dtype: torch.dtype,
    ) -> torch.Tensor:
        """Return the stand-in for the logits."""
        ctx.recipe = recipe
        return tensor_without_storage(DeferredLogits, recipe.shape, dtype, rows.device)

    @staticmethod
    def backward(ctx: _Context, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients of hidden, weight and bias."""
        recipe = ctx.recipe
        check_versions(recipe.versions)
        rows, weight = _leaf(recipe.rows), _leaf(recipe.weight)
        bias = None if recipe.bias is None else _leaf(recipe.bias)
        again = dataclasses.replace(recipe, rows=rows, weight=weight, bias=bias, versions=())
        with torch.enable_grad():
            logits = again.whole()
        leaves = [rows, weight, bias]
        wanted = [leaf for leaf in leaves if leaf is not None and leaf.requires_grad]
        found = iter(torch.autograd.grad(logits, wanted, grads[0]))
        needed = [leaf is not None and leaf.requires_grad for leaf in leaves]
        return (*(next(found) if need else None for need in needed), None, None)


def _leaf(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().requires_grad_(tensor.requires_grad)


def _stand_in(
    recipe: Recipe,
    dtype: torch.dtype,
    parent: Deferral | None = None,
    call: Call | None = None,
) -> DeferredLogits:
    run: Callable[..., object] = _Defer.apply
    made = run(recipe.rows, recipe.weight, recipe.bias, recipe, dtype)
    assert isinstance(made, DeferredLogits)
    made.deferral = Deferral(recipe, parent, call)
    if parent is not None:
        parent.children.append(weakref.ref(made.deferral))
    return made


def _loss(
    deferred: DeferredLogits,
    func: Callable[..., object],
    args: Sequence[object],
    kwargs: Mapping[str, object],
) -> torch.Tensor | None:
    """Take the cross-entropy in chunks, where its options allow; None where they do not."""
    given = dict(zip(_LOSS_ARGUMENTS, args, strict=False)) | dict(kwargs)
    recipe = deferred.deferral.recipe
    labels, class_weight = given.get("target"), given.get("weight")
    reduction = given.get("reduction", "mean")
    unsupported = (
        given.get("input") is not deferred
        or recipe.logarithm != (func is F.nll_loss)
        or reduction not in ("mean", "sum")
        or given.get("size_average") is not None
        or given.get("reduce") is not None
        or not (deferred.dim() == 2 or recipe.moved)
        or (isinstance(class_weight, torch.Tensor) and class_weight.requires_grad)
    )
    if unsupported or not isinstance(labels, torch.Tensor) or labels.is_floating_point():
        return None
    if labels.shape != recipe.rows.shape[:-1]:
        return None
    deferred.deferral.lose()
    check_versions(recipe.versions)
    return chunked_cross_entropy(
        recipe.rows,
        recipe.weight,
        labels,
        bias=recipe.bias,
        class_weight=class_weight if isinstance(class_weight, torch.Tensor) else None,
        ignore_index=cast(int, given.get("ignore_index", -100)),
        label_smoothing=cast(float, given.get("label_smoothing", 0.0)),
        reduction=cast(Literal["mean", "sum"], reduction),
        transform=functools.partial(apply_steps, recipe.steps) if recipe.steps else None,
        compute_dtype=recipe.dtype,
    )


def _run(
    func: Callable[..., object], args: Sequence[object], kwargs: Mapping[str, object]
) -> object:
    """Run a call on the real logits."""
    name = getattr(func, "__name__", "")
    in_place = name in _IN_PLACE or (name.endswith("_") and not name.endswith("__"))

    def values(deferred: DeferredLogits) -> torch.Tensor:
        if name in _GRADIENT_WATCHERS and deferred.deferral.lost:
            raise RefusedError(
                f"{name} would see no gradient: the loss was taken without these logits.",
                hint="remove the chunked loss to watch the gradient of the logits.",
            )
        first = deferred.deferral.first
        if first.values is None and not first.lost:
            warnings.warn(
                f"the logits of a chunked loss were computed whole, because of {name!r}.",
                NoEffectWarning,
                stacklevel=4,
            )
        if in_place or "out" in kwargs:
            deferred.deferral.settle()
        return deferred.deferral.real()

    plain = [_swapped(arg, values) for arg in args]
    return func(*plain, **{key: _swapped(value, values) for key, value in kwargs.items()})


def _swapped(value: object, change: Callable[[DeferredLogits], torch.Tensor]) -> object:
    if isinstance(value, DeferredLogits):
        return change(value)
    if isinstance(value, (list, tuple)) and type(value) in (list, tuple):
        return type(value)(_swapped(part, change) for part in value)
    if isinstance(value, dict):
        return {key: _swapped(part, change) for key, part in value.items()}
    return value


_LOSS_ARGUMENTS: Final = (
    "input",
    "target",
    "weight",
    "size_average",
    "ignore_index",
    "reduce",
    "reduction",
    "label_smoothing",
)
_GRADIENT_WATCHERS: Final = frozenset(
    {"retain_grad", "register_hook", "register_post_accumulate_grad_hook"}
)
_IN_PLACE: Final = frozenset(
    f"__{name}__"
    for name in ("iadd", "isub", "imul", "itruediv", "idiv", "ifloordiv", "imod", "ipow", "setitem")
)
_PROPERTIES: Final = (
    *("shape", "dtype", "device", "layout", "ndim", "requires_grad", "grad_fn", "is_leaf"),
    *("is_cuda", "is_sparse", "is_quantized", "is_meta", "output_nr", "_version"),
)
_METHODS: Final = (
    *("size", "dim", "ndimension", "numel", "nelement", "element_size", "stride", "get_device"),
    *("is_contiguous", "is_floating_point", "is_complex", "is_inference", "__len__", "__hash__"),
)
_METADATA: Final = frozenset(
    [getattr(torch.Tensor, name).__get__ for name in _PROPERTIES]
    + [getattr(torch.Tensor, name) for name in _METHODS]
    + [torch.is_floating_point, torch.is_complex, torch.numel]
)
