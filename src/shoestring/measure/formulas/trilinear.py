"""Products of three tensors: bilinear layers."""

from __future__ import annotations

import math
from typing import Any, Final

from shoestring.measure.formulas.cost import (
    Arguments,
    Cost,
    Formula,
    Options,
    contraction,
    elements,
    given,
)


def _trilinear(args: Arguments, kwargs: Options, out: Any) -> Cost:
    """``_trilinear(i1, i2, i3, expand1, expand2, expand3, sumdim)``: i1 with i2, then i3.

    The dimensions that i3 lacks are summed in the first product, the others in the second.
    """
    expands, summed = [set(args[3 + i]) for i in range(3)], set(args[6])
    rank = args[0].dim() + len(expands[0])
    sizes = []
    for expand, tensor in zip(expands, args[:3], strict=True):
        left = iter(tensor.shape)
        sizes.append([1 if d in expand else next(left) for d in range(rank)])
    pair = [max(a, b) for a, b in zip(sizes[0], sizes[1], strict=True)]
    rest = [1 if d in summed and d in expands[2] else n for d, n in enumerate(pair)]
    whole = [max(a, b) for a, b in zip(rest, sizes[2], strict=True)]
    return contraction(math.prod(pair) + math.prod(whole), args[0])


def _bilinear(args: Arguments, kwargs: Options, out: Any) -> Cost:
    """``(input1 [.., I1], input2 [.., I2], weight [O, I1, I2], bias)``, as ``_trilinear``."""
    rows = math.prod(args[0].shape[:-1])
    outputs, first, second = args[2].shape
    macs = rows * outputs * second * (first + 1)
    return contraction(macs, args[0], elements(out) if given(args, 3) else 0)


TRILINEAR: Final[dict[str, Formula]] = {
    "aten::_trilinear": _trilinear,
    "aten::bilinear": _bilinear,
}
"""Formulas of bilinear layers, by the operator's name."""
