r"""Rules for convolutions with trained filters, seen as matrices ``[out, in * size]``.

.. math::

    x * (W + s \epsilon U V^T) = x * W + s \epsilon\, U (x * V)

V is r filters, whose results are mixed by U. A transposed convolution has ``[in, out * size]``: its
input is mixed first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
import torch.nn.functional as F

from shoestring.zeroth.twin.halves import HALF
from shoestring.zeroth.twin.places import Places
from shoestring.zeroth.twin.products import Given, Rule, Rules
from shoestring.zeroth.twin.shifts import Shift

_NAMES: Final = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_TRANSPOSED: Final = (
    "input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation",
)  # fmt: skip


def _convolution(function: Callable[..., torch.Tensor], spatial: int, transposed: bool) -> Rule:
    def rule(places: Places, given: Given) -> torch.Tensor | None:
        x, weight, bias = given["input"], given["weight"], given.get("bias")
        shift, of_bias = places.shift(weight), places.shift(bias)
        known = shift.low if shift else places.is_plain(weight)
        known = known and (of_bias is not None or places.is_plain(bias))
        known = known and x.dim() == spatial + 2
        known = known and not (transposed and given.get("groups", 1) != 1)
        if not known or not places.can_lower(x):
            return None
        options = {name: value for name, value in given.items() if name in _OPTIONS}
        values, differ = places.lowered(places.input(x, "a convolution"))
        flat = values.flatten(0, 1) if differ else values
        base = function(flat, weight.detach(), None if bias is None else bias.detach(), **options)
        found = base.to(torch.float32) if base.dtype in HALF else base
        found = found.unflatten(0, (-1, x.size(0))).expand(len(places), x.size(0), *base.shape[1:])
        found = found.clone(memory_format=torch.contiguous_format)
        if shift:
            run = _run(function, weight, given.get("groups", 1), options, transposed)
            _add_weight(places, found, values, differ, shift, run)
        if of_bias:
            found += _each_place(places, of_bias.steps(found.dtype), spatial)
        return places.raised(places.narrowed(found, base.dtype))

    return rule


_OPTIONS: Final = {"stride", "padding", "dilation", "groups", "output_padding"}
_Run = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def _add_weight(
    places: Places, found: torch.Tensor, x: torch.Tensor, differ: bool, shift: Shift, run: _Run
) -> None:
    """Add ``s (x * Z_k)`` to the results of all places, direction by direction."""
    signs = len(places.signs)
    us, vs = shift.factors(x.dtype)
    for k, (u, v) in enumerate(zip(us, vs, strict=True)):
        mine = found[k * signs : (k + 1) * signs]
        step = run(x[k * signs : (k + 1) * signs].flatten(0, 1) if differ else x, u, v)
        step = step.unflatten(0, (signs if differ else 1, -1)).to(mine.dtype).mul_(shift.scale)
        for sign, place, one in zip(places.signs, mine, step.expand_as(mine), strict=True):
            place.add_(one, alpha=sign)


def _run(
    function: Callable[..., torch.Tensor],
    weight: torch.Tensor,
    groups: int,
    options: dict[str, Any],
    transposed: bool,
) -> _Run:
    """Return the convolution with ``U V^T``."""
    shape = weight.shape

    def mix_after(x: torch.Tensor, u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        filters = v.mT.reshape(-1, *shape[1:]).repeat(groups, *[1] * (len(shape) - 1))
        seen = function(x, filters, None, **options)
        mixed = torch.matmul(u.view(groups, -1, u.size(1)), _groups_of(seen, groups))
        return mixed.reshape(len(x), -1, *seen.shape[2:])

    def mix_before(x: torch.Tensor, u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        mixed = torch.matmul(u.mT, x.flatten(2)).view(len(x), -1, *x.shape[2:])
        found: torch.Tensor = function(mixed, v.mT.reshape(-1, *shape[1:]), None, **options)
        return found

    return mix_before if transposed else mix_after


def _groups_of(seen: torch.Tensor, groups: int) -> torch.Tensor:
    """Return ``[N, groups, r, positions]``."""
    return seen.reshape(len(seen), groups, -1, math.prod(seen.shape[2:]))


def _each_place(places: Places, steps: torch.Tensor, spatial: int) -> torch.Tensor:
    """Return the steps of a bias at all places, ``[places, 1, out, 1, ...]``."""
    every = steps.unsqueeze(1) * places.sides(steps, 1)[0]
    return every.reshape(len(places), 1, -1, *[1] * spatial)


def _all() -> Rules:
    found: Rules = {}
    plain: Sequence[Callable[..., Any]] = (F.conv1d, F.conv2d, F.conv3d)
    turned = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)
    for spatial, function in enumerate(plain, 1):
        found[function] = _NAMES, _convolution(function, spatial, False)
    for spatial, function in enumerate(turned, 1):
        found[function] = _TRANSPOSED, _convolution(function, spatial, True)
    return found


CONVOLUTIONS: Final = _all()
"""Functions, the names of their arguments in their order, and rules."""
