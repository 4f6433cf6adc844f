"""Multiply-adds by hand: one product of sizes for each definition, and nothing of our counter.

A product of matrices [M, K] x [K, N] sums K products for each of M N entries: M K N multiply-adds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def linear(rows: int, inputs: int, outputs: int) -> int:
    """Return the multiply-adds of [rows, inputs] x [inputs, outputs].

    Args:
        rows: of all leading sizes together.
        inputs: features.
        outputs: features.
    """
    return rows * inputs * outputs


def convolution(
    rows: int, inputs: int, outputs: int, places: Sequence[int], kernel: Sequence[int], groups: int
) -> int:
    """Return the multiply-adds of a convolution: each output sums the taps of its group.

    Args:
        rows: of the batch.
        inputs: channels.
        outputs: channels.
        places: sizes of the output image.
        kernel: its sizes.
        groups: of channels.
    """
    return rows * outputs * math.prod(places) * (inputs // groups) * math.prod(kernel)


def transposed(
    rows: int, inputs: int, outputs: int, image: Sequence[int], kernel: Sequence[int]
) -> int:
    """Return the multiply-adds of a transposed convolution: each input is spread by all taps.

    Args:
        rows: of the batch.
        inputs: channels.
        outputs: channels.
        image: sizes of the input image.
        kernel: its sizes.
    """
    return rows * inputs * math.prod(image) * outputs * math.prod(kernel)


def attention(rows: int, heads: int, queries: int, keys: int, width: int) -> int:
    """Return the multiply-adds of scores and of their product with the values.

    Args:
        rows: of the batch.
        heads: of a row.
        queries: positions.
        keys: positions.
        width: of a head, of keys and values alike.
    """
    return 2 * rows * heads * queries * keys * width


def attention_backward(rows: int, heads: int, queries: int, keys: int, width: int) -> int:
    """Return the multiply-adds of a fused kernel's backward.

    Five products: the scores again, and the gradients of values, scores, queries and keys.

    Args:
        rows: of the batch.
        heads: of a row.
        queries: positions.
        keys: positions.
        width: of a head, of keys and values alike.
    """
    return 5 * rows * heads * queries * keys * width


def recurrent(steps: int, rows: int, inputs: int, hidden: int, gates: int) -> int:
    """Return the multiply-adds of one layer: its gates from the input and from the state.

    Args:
        steps: of time.
        rows: of the batch.
        inputs: features.
        hidden: features of the state.
        gates: 4 of an LSTM, 3 of a GRU.
    """
    return steps * rows * gates * hidden * (inputs + hidden)


def bilinear(rows: int, first: int, second: int, outputs: int) -> int:
    """Return the multiply-adds of (x W) z for each output: x W first, then the sum over z.

    Args:
        rows: of the batch.
        first: features of x.
        second: features of z.
        outputs: features.
    """
    return rows * outputs * (first * second + second)


def reflections(rows: int, columns: int) -> int:
    """Return the FLOPs of a thin Householder QR: 2mn^2 - 2n^3/3 for R, as much again for Q.

    Args:
        rows: m, no fewer than columns.
        columns: n, a multiple of 3, so that the count is whole.

    Source:
        Golub and Van Loan, Matrix Computations, 4th ed., 5.2.2.
    """
    return 2 * (2 * rows * columns**2 - 2 * columns**3 // 3)


def fourier(rows: int, size: int) -> int:
    """Return the FLOPs of radix-2 transforms of complex numbers: 5 n log2 n each.

    Args:
        rows: transforms.
        size: of each, a power of two.
    """
    return 5 * rows * size * (size.bit_length() - 1)


def distances(left: int, right: int, width: int) -> int:
    """Return the FLOPs of distances one by one: difference, square and sum, then a root.

    Args:
        left: points.
        right: points.
        width: coordinates of a point.
    """
    return left * right * (3 * width + 1)
