"""Operations counted one by one, in the loops that define each operation."""

from __future__ import annotations

import itertools
from collections.abc import Sequence


def count(*loops: int) -> int:
    """Run nested loops of the given lengths and count the innermost body."""
    return sum(1 for _ in itertools.product(*(range(n) for n in loops)))


def matmul(rows: int, inner: int, columns: int) -> int:
    """FLOPs of [rows, inner] x [inner, columns]: an entry is a sum of ``inner`` products."""
    return 2 * count(rows, columns, inner)


def sparse_matmul(stored: Sequence[Sequence[bool]], columns: int) -> int:
    """FLOPs of a sparse matrix, given as which entries it stores, times a dense one."""
    total = 0
    for row in stored:
        for present in row:
            for _ in range(columns):
                total += 2 if present else 0
    return total


def sparse_by_sparse(left: Sequence[Sequence[bool]], right: Sequence[Sequence[bool]]) -> int:
    """FLOPs of two sparse matrices: only stored numbers that meet."""
    total = 0
    for row in left:
        for k, present in enumerate(row):
            total += 2 * sum(present and other for other in right[k])
    return total


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


def attention(
    batch: int,
    heads: int,
    tq: int,
    tk: int,
    dk: int,
    dv: int,
    *,
    backward: bool,
    causal: str | None = None,
) -> int:
    """FLOPs of attention: forward QK', PV; backward QK', dO V', P'dO, dS K, dS'Q.

    With ``causal`` only pairs that are seen count: "first" lets the first query see the first
    key, "last" the last query the last key.
    """
    total = 0
    for _ in range(batch * heads):
        for query, key in itertools.product(range(tq), range(tk)):
            if causal == "first" and key > query:
                continue
            if causal == "last" and key - tk > query - tq:
                continue
            products = (dk, dv, dv, dk, dk) if backward else (dk, dv)
            total += sum(2 * count(n) for n in products)
    return total


def recurrent(
    time: int,
    batch: int,
    inputs: int,
    hidden: int,
    gates: int,
    *,
    layers: int = 1,
    directions: int = 1,
    projected: int = 0,
) -> int:
    """FLOPs of a recurrent layer, walked step by step."""
    fed, total = projected or hidden, 0
    for layer in range(layers):
        width = inputs if layer == 0 else directions * fed
        for _ in range(directions * time):
            total += matmul(batch, width, gates * hidden) + matmul(batch, fed, gates * hidden)
            if projected:
                total += matmul(batch, hidden, projected)
    return total


def trilinear(rows: int, outputs: int, first: int, second: int) -> int:
    """FLOPs of y[r, o] = sum_j (sum_i x[r, i] W[o, i, j]) z[r, j]: inner sum, then outer."""
    return 2 * count(rows, outputs, second, first) + 2 * count(rows, outputs, second)


# --- algorithms ------------------------------------------------------------------------------

_COMPLEX_SUM, _COMPLEX_PRODUCT = 2, 6


def fft(n: int) -> int:
    """FLOPs of the radix-2 transform of n complex numbers, n a power of two."""
    if n == 1:
        return 0
    total = fft(n // 2) + fft(n // 2)
    for _ in range(n // 2):  # twiddle one half, then sum and difference
        total += _COMPLEX_PRODUCT + 2 * _COMPLEX_SUM
    return total


def cholesky(n: int) -> int:
    """FLOPs of the factorisation column by column."""
    total = 0
    for column in range(n):
        total += 2 * column + 1  # a root of the diagonal less its row's squares
        for _ in range(column + 1, n):
            total += 2 * column + 1  # a dot product, a difference in it, a quotient
    return total


def lu(m: int, n: int) -> int:
    """FLOPs of Gaussian elimination of an m x n matrix."""
    total = 0
    for pivot in range(min(m, n)):
        for _ in range(pivot + 1, m):
            total += 1  # the quotient
            for _ in range(pivot + 1, n):
                total += 2
    return total


def triangular_solve(n: int, columns: int) -> int:
    """FLOPs of forward substitution."""
    total = 0
    for _ in range(columns):
        for row in range(n):
            total += 2 * row + 1
    return total


def reflect(rows: int, columns: int) -> int:
    """FLOPs of a Householder reflection of length ``rows`` on so many columns."""
    total = 0
    for _ in range(columns):
        total += 2 * rows  # v'x
        total += 2 * rows  # x - (beta v'x) v
    return total


def qr(m: int, n: int) -> int:
    """FLOPs of R by Householder reflections, the vectors themselves left out."""
    return sum(reflect(m - k, n - k) for k in range(min(m, n)))


def build_q(m: int, columns: int, reflectors: int) -> int:
    """FLOPs of the first columns of Q, from the last reflector to the first."""
    return sum(reflect(m - k, columns - k) for k in reversed(range(reflectors)))


def apply_q(m: int, columns: int, reflectors: int) -> int:
    """FLOPs of Q times a full matrix."""
    return sum(reflect(m - k, columns) for k in range(reflectors))


def distances(left: int, right: int, width: int, p: float) -> int:
    """Operations of all distances by their definition."""
    total = 0
    for _ in range(left * right):
        for _ in range(width):
            total += 2 if p in (0.0, 1.0, 2.0, float("inf")) else 3  # a - b; |.|, ^2, |.|^p
            total += 1  # the sum, or the larger
        total += 0 if p in (0.0, 1.0, float("inf")) else 1  # the root
    return total
