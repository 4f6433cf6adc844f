"""Multiply-adds counted one by one, in the loops that define each operation."""

from __future__ import annotations

import itertools
from collections.abc import Sequence


def count(*loops: int) -> int:
    """Run nested loops of the given lengths and count the innermost body."""
    return sum(1 for _ in itertools.product(*(range(n) for n in loops)))


def matmul(rows: int, inner: int, columns: int) -> int:
    """FLOPs of [rows, inner] x [inner, columns]: an entry is a sum of ``inner`` products."""
    return 2 * count(rows, columns, inner)


def windows(size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """Places at which a dilated kernel fits into a padded line."""
    places, start = 0, -padding
    while start + dilation * (kernel - 1) <= size - 1 + padding:
        places, start = places + 1, start + stride
    return places


def convolution(
    batch: int,
    channels: tuple[int, int],
    groups: int,
    image: Sequence[int],
    kernel: Sequence[int],
    options: Sequence[tuple[int, int, int]],
    *,
    transposed: bool,
) -> int:
    """FLOPs of a convolution; ``options`` are stride, padding, dilation of each dimension."""
    inputs, outputs = channels
    total = 0
    for _ in itertools.product(range(batch), range(groups)):
        if transposed:  # every input of a group is spread to every output of it, tap by tap
            total += count(inputs // groups, *image, outputs // groups, *kernel)
        else:  # every output of a group gathers from every input of it, tap by tap
            lines = zip(image, kernel, options, strict=True)
            places = [windows(n, k, *o) for n, k, o in lines]
            total += count(outputs // groups, *places, inputs // groups, *kernel)
    return 2 * total


def attention(batch: int, heads: int, tq: int, tk: int, dk: int, dv: int, *, backward: bool) -> int:
    """FLOPs of attention: forward QK', PV; backward QK', dO V', P'dO, dS K, dS'Q."""
    total = 0
    for _ in range(batch * heads):
        if backward:
            total += matmul(tq, dk, tk) + matmul(tq, dv, tk) + matmul(tk, tq, dv)
            total += matmul(tq, tk, dk) + matmul(tk, tq, dk)
        else:
            total += matmul(tq, dk, tk) + matmul(tq, tk, dv)
    return total


def recurrent(time: int, batch: int, inputs: int, hidden: int, gates: int) -> int:
    """FLOPs of one recurrent layer in one direction."""
    step = matmul(batch, inputs, gates * hidden) + matmul(batch, hidden, gates * hidden)
    return sum(step for _ in range(time))


def trilinear(rows: int, outputs: int, first: int, second: int) -> int:
    """FLOPs of y[r, o] = sum_j (sum_i x[r, i] W[o, i, j]) z[r, j]: inner sum, then outer."""
    return 2 * count(rows, outputs, second, first) + 2 * count(rows, outputs, second)
