r"""Rules for products with trained matrices, and for rows of them, at all places in one product.

.. math::

    x (W + s \epsilon U V^T)^T + b_s = x W^T + s \epsilon\, (x V) U^T + b_s

W is read once for all places, and nothing of its size is made. The small terms are made first, and
the product added to them: so it is rounded once, which matters in half precision.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import torch
import torch.nn.functional as F

from shoestring.zeroth.twin._torch import level_of
from shoestring.zeroth.twin.halves import HALF
from shoestring.zeroth.twin.places import Places
from shoestring.zeroth.twin.watch import RefusedError

Given: TypeAlias = Mapping[str, Any]
Rule: TypeAlias = Callable[[Places, Given], torch.Tensor | None]
"""Takes what a function was given, by name; returns its result, or None where it knows none."""
Rules: TypeAlias = dict[Callable[..., Any], tuple[tuple[str, ...], Rule]]
"""Functions, the names of their arguments in their order, and rules."""


def linear(places: Places, given: Given) -> torch.Tensor | None:
    """Return ``x W^T + b``.

    Args:
        places: of the call.
        given: as to `torch.nn.functional.linear`.
    """
    return _product(places, given["input"], given["weight"], given.get("bias"), turned=True)


def matmul(places: Places, given: Given) -> torch.Tensor | None:
    """Return ``x W``.

    Args:
        places: of the call.
        given: as to `torch.matmul`.
    """
    return _product(places, given["input"], given["other"], None, turned=False)


def addmm(places: Places, given: Given) -> torch.Tensor | None:
    """Return ``b + x W``.

    Args:
        places: of the call.
        given: as to `torch.addmm`.
    """
    if given.get("beta", 1) != 1 or given.get("alpha", 1) != 1:
        return None
    return _product(places, given["mat1"], given["mat2"], given["input"], turned=False)


def _product(
    places: Places,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    *,
    turned: bool,
) -> torch.Tensor | None:
    """Return ``x W^T + b`` (`turned`) or ``x W + b``, W or b being trained."""
    whole = places.unturned(weight)
    if whole is not None:
        weight, turned = whole, not turned
    shift = places.shift(weight)
    if not _is_known(places, x, weight, bias):
        return None
    values, differ = places.lowered(places.input(x, "a product"))
    dtype = working_dtype(values)
    values = values.to(dtype)
    if not differ and dtype in HALF:  # to be added to what is not rounded yet
        values, differ = values.expand(len(places), *values.shape), True
    flat = values.reshape(places.directions if differ else 1, -1, values.size(-1))
    small = _bias(places, dtype, bias)
    if shift:
        factors = shift.factors(dtype)
        found = _low(places, flat, differ, factors if turned else factors[::-1], shift.scale, small)
    else:
        assert small is not None
        size = flat.size(1) // (len(places.signs) if differ else 1)
        found = small.expand(places.directions, len(places.signs), size, -1).contiguous()
    found = found.view(-1, found.size(-1))
    matrix = (weight.t() if turned else weight).detach().to(dtype)
    if differ:
        found.addmm_(flat.view(-1, flat.size(-1)), matrix)
    else:
        base = torch.mm(flat[0], matrix)
        found.view(-1, *base.shape).add_(base)
    if bias is not None and dtype in HALF and level_of(bias) < 0:
        found += bias.detach()
    return places.raised(found.view(len(places), *values.shape[int(differ) : -1], -1))


def _is_known(
    places: Places, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
) -> bool:
    """Return whether a product is one that `_product` can make."""
    shift = places.shift(weight)
    known = shift.low if shift else places.is_plain(weight) and places.shift(bias) is not None
    known = known and weight.dim() == 2 and places.can_lower(x)
    return known and (bias is None or (bias.dim() == 1 and places.can_lower(bias)))


def _bias(places: Places, dtype: torch.dtype, bias: torch.Tensor | None) -> torch.Tensor | None:
    """Return what a bias adds at each place, ``[q, signs, 1, n]``, before it is rounded.

    In half precision that is what it is moved by: rounded with the bias itself it would be lost.
    """
    if bias is None:
        return None
    shape = places.directions, len(places.signs), 1, -1
    shift = places.shift(bias)
    if shift is None:
        values, differ = places.lowered(bias.detach())
        if differ:
            return values.to(dtype).view(shape)
        return None if dtype in HALF else values.to(dtype).view(1, 1, 1, -1)
    if dtype not in HALF:
        return shift.moved().to(dtype).view(shape)
    steps = shift.steps(dtype)[:, None, None]
    return steps * places.sides(steps, 2)


def _low(
    places: Places,
    x: torch.Tensor,
    differ: bool,
    factors: tuple[torch.Tensor, ...],
    scale: float,
    small: torch.Tensor | None,
) -> torch.Tensor:
    """Return ``s (x V) U^T`` and a bias, ``[q, signs, N, n]``.

    Args:
        places: of the call.
        x: ``[q, signs * N, m]``, or ``[1, N, m]`` where it is the same at all places.
        differ: whether it is not.
        factors: U and V.
        scale: what they are multiplied with.
        small: what a bias adds.
    """
    u, v = factors
    signs = len(places.signs)
    seen = torch.matmul(x, v).mul_(scale).unflatten(1, (signs if differ else 1, -1))
    seen = seen * places.sides(seen, 2)
    return spread(seen, u.unsqueeze(1), small)


def spread(seen: torch.Tensor, u: torch.Tensor, added: torch.Tensor | None = None) -> torch.Tensor:
    """Return ``t U^T + b``; for one column by multiplying elements, which is faster.

    Args:
        seen: t, ``[..., N, r]``.
        u: U, ``[..., n, r]``.
        added: b.
    """
    if u.size(-1) > 1:
        found = torch.matmul(seen, u.mT)
        return found if added is None else found.add_(added)
    return seen * u.mT if added is None else torch.addcmul(added, seen, u.mT)


def working_dtype(values: torch.Tensor) -> torch.dtype:
    """Return the dtype that a product with values is made in: autocast may say another.

    Args:
        values: floating.
    """
    kind = values.device.type
    if values.dtype is not torch.float64 and torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return values.dtype


def embedding(places: Places, given: Given) -> torch.Tensor | None:
    r"""Return rows: ``W[i] + s \epsilon U[i] V^T``.

    Args:
        places: of the call.
        given: as to `torch.nn.functional.embedding`.
    """
    ids, weight = given["input"], given["weight"]
    shift = places.shift(weight)
    if given.get("max_norm") is not None:
        raise RefusedError("an embedding with max_norm writes to its weights")
    if shift is None or not shift.low or places.is_moved(ids) or not places.can_lower(ids):
        return None
    values, differ = places.lowered(ids)
    wide = torch.float32 if weight.dtype in HALF else weight.dtype
    u, v = shift.factors(wide)
    flat = values.reshape(places.directions if differ else 1, -1)
    first = torch.arange(places.directions, device=flat.device).unsqueeze(1) * len(weight)
    step = spread(u.reshape(-1, u.size(-1))[flat + first].mul_(shift.scale), v)
    base = F.embedding(values.reshape(-1), weight.detach()).to(wide)
    signs = len(places.signs) if differ else 1
    step, base = (
        one.unflatten(-2, (signs, -1)) for one in (step, base.unflatten(0, (len(flat), -1)))
    )
    found = torch.addcmul(base, step, places.sides(step, 2))
    found = found.view(len(places), *values.shape[int(differ) :], -1)
    return places.raised(places.narrowed(found, weight.dtype))


PRODUCTS: Final[Rules] = {
    F.linear: (("input", "weight", "bias"), linear),
    F.embedding: (("input", "weight", "padding_idx", "max_norm"), embedding),
    torch.addmm: (("input", "mat1", "mat2"), addmm),
    torch.Tensor.addmm: (("input", "mat1", "mat2"), addmm),
    torch.matmul: (("input", "other"), matmul),
    torch.Tensor.matmul: (("input", "other"), matmul),
    torch.Tensor.__matmul__: (("input", "other"), matmul),
    torch.mm: (("input", "other"), matmul),
    torch.Tensor.mm: (("input", "other"), matmul),
}
"""Functions, the names of their arguments in their order, and rules."""
