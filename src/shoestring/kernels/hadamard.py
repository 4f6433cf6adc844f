"""Hadamard matrices: signs whose rows are orthogonal, of most orders divisible by four.

An order is ``2^a m``: a power of two (Sylvester) times a core, which is 1, ``q + 1`` for a prime
``q = 3 mod 4`` (Paley I) or ``2 (q + 1)`` for a prime ``q = 1 mod 4`` (Paley II).
"""

from __future__ import annotations

import functools
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

Signs = npt.NDArray[np.int8]

MOST_CORE: Final = 256
"""Largest core: it is held as a table, of 64 KiB at most."""


class Order(NamedTuple):
    """How an order is made.

    Attributes:
        core: order of the matrix that is held as a table.
        power: how often it is doubled.
    """

    core: int
    power: int


@functools.cache
def order(n: int) -> Order | None:
    """Return how a matrix of some order is made, from the smallest core; None where it cannot be.

    Args:
        n: the order.
    """
    found, power = None, 0
    while n > 0:
        if _has_core(n) and n <= MOST_CORE:
            found = Order(n, power)
        if n % 2:
            break
        n, power = n // 2, power + 1
    return found


@functools.cache
def largest_order(most: int) -> int:
    """Return the largest order up to a number.

    Args:
        most: the number, at least 1.
    """
    return next(n for n in range(most, 0, -1) if order(n) is not None)


@functools.cache
def core(m: int) -> Signs:
    """Return a core as a table; it is shared and must not be changed.

    Args:
        m: its order, as `order` names it.
    """
    if m == 1:
        table = np.ones((1, 1), np.int8)
    elif _is_prime(m - 1) and (m - 1) % 4 == 3:
        table = _first_paley(m - 1)
    else:
        table = _second_paley(m // 2 - 1)
    table.flags.writeable = False
    return table


def _has_core(n: int) -> bool:
    if n == 1:
        return True
    if _is_prime(n - 1) and (n - 1) % 4 == 3:
        return True
    half = n // 2 - 1
    return n % 4 == 0 and _is_prime(half) and half % 4 == 1


def _is_prime(n: int) -> bool:
    return n > 1 and all(n % k for k in range(2, int(n**0.5) + 1))


def _residues(q: int) -> Signs:
    """Return ``chi(i - j)``: 1 for squares modulo a prime, -1 for others, 0 for 0."""
    chi = -np.ones(q, np.int8)
    chi[np.arange(1, q, dtype=np.int64) ** 2 % q] = 1
    chi[0] = 0
    index = np.arange(q)
    found: Signs = chi[(index[:, None] - index[None, :]) % q]
    return found


def _bordered(q: int, sign: int) -> Signs:
    """Return the residues with a row of ones above them and a column of ``sign`` on the left."""
    table = np.zeros((q + 1, q + 1), np.int8)
    table[0, 1:], table[1:, 0] = 1, sign
    table[1:, 1:] = _residues(q)
    return table


def _first_paley(q: int) -> Signs:
    return _bordered(q, -1) + np.eye(q + 1, dtype=np.int8)


def _second_paley(q: int) -> Signs:
    symmetric = _bordered(q, 1)
    one = np.array([[1, 1], [1, -1]], np.int8)
    other = np.array([[1, -1], [-1, -1]], np.int8)
    found: Signs = np.kron(symmetric, one) + np.kron(np.eye(q + 1, dtype=np.int8), other)
    return found
