"""Checks of what `quantizer.Quantizer` is asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, cast

import numpy as np

from shoestring.core.errors import InputError

DOMAIN: Final = (-100.0, 100.0)
_MOST_BITS: Final = 8
_OBJECTIVES: Final = ("derivative", "primitive")


def check_bits(bits: int) -> None:
    """Refuse what is no width of a code.

    Args:
        bits: from 1 to 8.

    Raises:
        InputError: it is something else.
    """
    if type(bits) is not int or not 1 <= bits <= _MOST_BITS:
        raise InputError(f"bits={bits!r} is no width of a code.", hint="take 1 to 8 bits.")


def check_objective(objective: str) -> None:
    """Refuse what is no objective.

    Args:
        objective: ``derivative`` or ``primitive``.

    Raises:
        InputError: it is something else.
    """
    if objective not in _OBJECTIVES:
        raise InputError(
            f"there is no objective {objective!r}.", hint="take derivative or primitive."
        )


def checked_domain(domain: tuple[float, float] | None) -> tuple[float, float]:
    """Return a domain.

    Args:
        domain: from where to where; the usual one if None.

    Raises:
        InputError: it is reversed, empty or not finite.
    """
    if domain is None:
        return DOMAIN
    low, high = (float(end) for end in domain)
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InputError(
            f"the domain ({low}, {high}) has no inside.", hint="give the lower end first."
        )
    return low, high


def check_table(
    bits: int,
    levels: Sequence[float],
    borders: Sequence[float],
    codes: Sequence[int],
    error: float,
) -> None:
    """Refuse parts that make no table.

    Args:
        bits: of a code.
        levels: the values, ``2 ** bits`` of them.
        borders: between the intervals, ascending.
        codes: the level of each interval.
        error: from 0 up.

    Raises:
        InputError: they do not fit together.
    """
    check_bits(bits)
    if len(levels) != 2**bits or len(codes) != len(borders) + 1:
        raise InputError(
            f"{len(levels)} levels, {len(borders)} borders and {len(codes)} codes make no table "
            f"of {bits} bits.",
            hint="give 2 ** bits levels, and one code more than borders.",
        )
    if not np.isfinite([*levels, *borders, error]).all() or error < 0:
        raise InputError("a number of the table is not finite.", hint="fit the table anew.")
    if not (np.diff(borders) > 0).all():
        raise InputError("the borders do not ascend.", hint="fit the table anew.")
    if not all(type(code) is int and 0 <= code < len(levels) for code in codes):
        raise InputError("a code stands for no level.", hint="fit the table anew.")


def floats(values: object) -> tuple[float, ...]:
    """Return the numbers of a document's list.

    Args:
        values: what stands in the document.

    Raises:
        TypeError: it is no list of numbers.
    """
    return tuple(float(value) for value in cast("list[float]", values))
