"""Few-bit codes, one number after the other with Python's own numbers."""

from __future__ import annotations

from collections.abc import Sequence


def interval(x: float, borders: Sequence[float]) -> int:
    """Return the number of borders strictly below a number; none are below one that is none."""
    return sum(border < x for border in borders)


def packed(codes: Sequence[int], bits: int) -> bytes:
    """Return the words of all blocks: bit e of word p is bit p of the code of element e."""
    found = b""
    for begin in range(0, len(codes), 64):
        block = codes[begin : begin + 64]
        for plane in range(bits):
            word = sum(((code >> plane) & 1) << e for e, code in enumerate(block))
            found += word.to_bytes(8, "little")
    return found


def unpacked(given: bytes, bits: int, count: int) -> list[int]:
    """Return the codes that some words hold."""
    codes = []
    for element in range(count):
        begin = 8 * bits * (element // 64)
        words = [
            int.from_bytes(given[begin + 8 * plane : begin + 8 * plane + 8], "little")
            for plane in range(bits)
        ]
        codes.append(sum(((w >> (element % 64)) & 1) << p for p, w in enumerate(words)))
    return codes
