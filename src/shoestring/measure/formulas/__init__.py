"""What every torch operator computes, from the shapes of its arguments.

`op_cost` prices one operator call as a dispatch mode sees it; fake, meta and real tensors of any
device do. The rules:

- A formula belongs to an operator, never to a module.
- ``flops`` counts contractions (matrix products, convolutions, attention, recurrent layers), two
  a multiply-add, and algorithms (FFT, factorisations, distances) by textbook formulas. A complex
  multiply-add is four real ones; integers count like floating numbers. ``macs`` is half of
  it for contractions and 0 for algorithms.
- ``elementwise`` counts scalar operations on floating or complex numbers: 1 each, and so is a
  function of one number. A table says how many an operator does for each element of its output
  (pointwise operators), or of its input (reductions, norms, losses); comparisons and choices
  count where they are about such numbers. What is done once for a row or channel is left out.
  A bias added inside of a fused operator counts as it does in an operator of its own.
- Movement costs nothing: views, copies, casts, factories, gathers, padding, random draws.
- Anything else is unknown: None, never 0.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Final

import torch

from shoestring.measure.formulas._torch import (
    Operator,
    defaults,
    full_name,
    has_pointwise,
    is_composite,
    is_overload,
    positions,
    returns_views,
)
from shoestring.measure.formulas.algorithms import ALGORITHMS
from shoestring.measure.formulas.attention import LAYERS, Causal, attention_formula, is_attention
from shoestring.measure.formulas.convolutions import CONVOLUTIONS
from shoestring.measure.formulas.cost import FREE, Arguments, Formula, Options, optional
from shoestring.measure.formulas.cost import Cost as Cost
from shoestring.measure.formulas.losses import CONTRACTING_LOSSES, LOSSES
from shoestring.measure.formulas.movement import ADDED, MESSAGES, MOVEMENT
from shoestring.measure.formulas.optimizers import OPTIMIZERS
from shoestring.measure.formulas.pointwise import (
    FOREACH,
    POINTWISE,
    bitsandbytes,
    per_input,
    per_list,
    per_output,
)
from shoestring.measure.formulas.pooling import POOLING
from shoestring.measure.formulas.primitives import MOVED, PRIMITIVES
from shoestring.measure.formulas.products import PRODUCTS
from shoestring.measure.formulas.recurrent import RECURRENT
from shoestring.measure.formulas.reductions import REDUCTIONS, SUMS
from shoestring.measure.formulas.trilinear import TRILINEAR


def op_cost(
    func: Operator,
    args: Sequence[object],
    kwargs: Mapping[str, object],
    out: object,
    *,
    causal: Causal = "full",
) -> Cost | None:
    r"""Count what one operator call computes.

    Args:
        func: the operator, as a dispatch mode receives it.
        args: its positional arguments; only shapes, types and flags are read.
        kwargs: its keyword arguments.
        out: what it returned.
        causal: "full" counts every pair of a query and a key in attention; "half" only those
            that an attention kernel told to be causal lets through.

    Returns:
        The cost, or None where nothing is known about the operator: it may be one that is made
        of others (``func.decompose``), or one of a library.

    Example:
        >>> a, b = torch.ones(2, 3), torch.ones(3, 4)
        >>> op_cost(torch.ops.aten.mm.default, (a, b), {}, a @ b)
        Cost(flops=48, macs=24, elementwise=0)
    """
    formula, named = _find(func) if causal == "full" else _find_half(func)
    if kwargs and not kwargs.keys().isdisjoint(named):
        args, kwargs = _by_position(func, args, kwargs, named)
    return formula(args, kwargs, out)


def contracts(func: Operator) -> bool:
    """Return whether an operator contracts or is an algorithm: what ``flops`` counts.

    Args:
        func: the operator.

    Example:
        >>> contracts(torch.ops.aten.mm.default), contracts(torch.ops.aten.add.Tensor)
        (True, False)
    """
    return not _CONTRACTIONS.isdisjoint(_keys(full_name(func))) or is_attention(func)


def _by_position(
    func: Operator, args: Arguments, kwargs: Options, named: Mapping[str, int]
) -> tuple[Arguments, Options]:
    """Move arguments given by name to the positions at which the formulas look for them."""
    last = max(named[name] for name in kwargs if name in named)
    moved = [*args, *defaults(func)[len(args) : last + 1]]
    rest = {}
    for name, value in kwargs.items():
        if name in named:
            moved[named[name]] = value
        else:
            rest[name] = value
    return moved, rest


# --- the look-up -----------------------------------------------------------------------------


@functools.cache
def _find(func: Operator) -> tuple[Formula, Mapping[str, int]]:
    """Return the formula of an operator, and the places of its positional arguments."""
    return _resolve(func, "full")


@functools.cache
def _find_half(func: Operator) -> tuple[Formula, Mapping[str, int]]:
    return _resolve(func, "half")


def _resolve(func: Operator, causal: Causal) -> tuple[Formula, Mapping[str, int]]:
    formula = attention_formula(func, causal) or _named(full_name(func))
    if not is_overload(func):  # of higher order: it has neither schema nor tags
        return formula or _unknown, {}
    return formula or _tagged(func) or _unknown, positions(func)


def _keys(full: str) -> tuple[str, str, str]:
    """Return a name as it is, without its overload, and without the ``_`` for in place."""
    name = full.partition(".")[0]
    return full, name, name if name.endswith("__") else name.removesuffix("_")


def _named(full: str) -> Formula | None:
    """Return the formula that stands under an operator's name."""
    _, name, bare = keys = _keys(full)
    for key in keys:
        if key in _FORMULAS:
            return _FORMULAS[key]
    if not _MOVING.isdisjoint((name, bare)) or name.partition("::")[0] in MESSAGES:
        return _free
    return _listed(bare.removeprefix("aten::")) if name.startswith("aten::") else None


def _listed(name: str) -> Formula | None:
    """Return the formula of an operator on lists: that of the operator it repeats."""
    if name in FOREACH:
        return per_list(FOREACH[name])
    one = name.removeprefix("_foreach_")
    if one == name:
        return None
    if one in POINTWISE:
        return per_list(POINTWISE[one])
    return per_list(1) if has_pointwise(one) else None


def _tagged(func: torch._ops.OpOverload) -> Formula | None:
    """Return a formula from what torch says about an operator, for those without a name here."""
    if returns_views(func) or not _VIEWS.isdisjoint(func.tags):
        return _free
    if is_composite(func):
        return None
    if torch.Tag.pointwise in func.tags:
        return per_output(1)
    if torch.Tag.reduction in func.tags:
        return per_input(1)
    return None


def _free(args: Arguments, kwargs: Options, out: object) -> Cost:
    return FREE


def _unknown(args: Arguments, kwargs: Options, out: object) -> None:
    return None


def _extreme(args: Arguments, kwargs: Options, out: object) -> Cost | None:
    """``max`` and ``min`` of two tensors are pointwise; of one, reductions."""
    return (_LARGER if isinstance(optional(args, 1), torch.Tensor) else _LARGEST)(args, kwargs, out)


_MOVING: Final = MOVEMENT | MOVED
_VIEWS: Final = frozenset((torch.Tag.view_copy, torch.Tag.inplace_view))
_LARGER: Final = per_output(1)
_LARGEST: Final = per_input(1)

_CONTRACTING: Final[Mapping[str, Formula]] = {
    **PRODUCTS,
    **CONVOLUTIONS,
    **LAYERS,
    **RECURRENT,
    **TRILINEAR,
    **ALGORITHMS,
    **CONTRACTING_LOSSES,
}
_CONTRACTIONS: Final = frozenset(_CONTRACTING) - {"aten::_transform_bias_rescale_qkv"}

_FORMULAS: Final[Mapping[str, Formula]] = {
    **{f"aten::{name}": per_output(weight) for name, weight in POINTWISE.items()},
    **{f"aten::{name}": per_input(weight) for name, weight in REDUCTIONS.items()},
    "aten::max": _extreme,
    "aten::min": _extreme,
    **dict.fromkeys(ADDED, per_input(1)),
    **bitsandbytes(),
    **_CONTRACTING,
    **SUMS,
    **LOSSES,
    **POOLING,
    **OPTIMIZERS,
    **PRIMITIVES,
}
