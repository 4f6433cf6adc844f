"""Random signs, bit by bit with Python's own numbers."""

from __future__ import annotations

_ALL = 2**64 - 1


def splitmix(state: int) -> int:
    """Return what splitmix64 returns in a state, as its authors publish it."""
    z = state & _ALL
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _ALL
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _ALL
    return z ^ (z >> 31)


def sign(key: int, index: int) -> int:
    """Return one sign of a stream."""
    word = splitmix(key + (index // 64 + 1) * 0x9E3779B97F4A7C15)
    return -1 if (word >> (index % 64)) & 1 else 1
