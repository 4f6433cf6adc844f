"""Sizes, rates and batch specifications: text in, numbers out, and back."""

from __future__ import annotations

import math
import re

from shoestring.core.errors import InputError

_BYTES = {
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
_SECONDS = {"ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}
_QUANTITY = re.compile(r"\s*([0-9]{1,15}(?:\.[0-9]{1,9})?)\s*([a-zA-Z]*)\s*", re.ASCII)
_MOST_BYTES = 2**60


def parse_bytes(text: str | int) -> int:
    """Read a size such as ``"600MiB"`` or ``"4GB"`` as a whole number of bytes.

    Args:
        text: a number with a unit (B, KB, MB, GB, TB, KiB, MiB, GiB, TiB; case does not
            matter), or an ``int`` that already counts bytes.

    Returns:
        The size in bytes, at least 1.

    Raises:
        InputError: the text is no size, has no unit, or is not between 1 B and 1 EiB.

    Example:
        >>> parse_bytes("1.5GiB")
        1610612736
    """
    if isinstance(text, int) and not isinstance(text, bool):
        size = text
    else:
        match = _QUANTITY.fullmatch(text) if isinstance(text, str) else None
        unit = match.group(2).lower() if match else ""
        if match is None or unit not in _BYTES:
            raise InputError(f"{text!r} is not a size.", hint='write it like "600MiB" or "24GiB".')
        size = round(float(match.group(1)) * _BYTES[unit])
    if not 1 <= size <= _MOST_BYTES:
        raise InputError(f"{text!r} is not a usable size.", hint="it must be 1 B to 1 EiB.")
    return size


def parse_seconds(text: str | float) -> float:
    """Read a duration such as ``"90s"`` or ``"250ms"`` as seconds.

    Args:
        text: a number with a unit (ms, s, min, h), or a number of seconds.

    Returns:
        The duration in seconds, above 0.

    Raises:
        InputError: the text is no duration, or is not positive and finite.

    Example:
        >>> parse_seconds("250ms")
        0.25
    """
    if isinstance(text, (int, float)) and not isinstance(text, bool):
        seconds = float(text)
    else:
        match = _QUANTITY.fullmatch(text) if isinstance(text, str) else None
        unit = match.group(2).lower() if match else ""
        if match is None or unit not in _SECONDS:
            raise InputError(f"{text!r} is not a duration.", hint='write it like "90s" or "250ms".')
        seconds = float(match.group(1)) * _SECONDS[unit]
    if not (math.isfinite(seconds) and seconds > 0):
        raise InputError(f"{text!r} is not a usable duration.", hint="it must be above 0.")
    return seconds


def parse_percent(text: str) -> float | None:
    """Read ``"60%"`` as 0.6; ``None`` when the text is not a percentage.

    Args:
        text: the text to read.

    Returns:
        A fraction in (0, 1], or None where the text does not end in a percent sign.

    Raises:
        InputError: it is a percentage, but not one from above 0 to 100.

    Example:
        >>> parse_percent("60%")
        0.6
    """
    if not isinstance(text, str) or not text.strip().endswith("%"):
        return None
    number = text.strip()[:-1].strip()
    if not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,6})?", number, re.ASCII):
        raise InputError(f"{text!r} is not a percentage.", hint='write it like "60%".')
    if not 0 < float(number) <= 100:
        raise InputError(f"{text!r} is not a usable percentage.", hint="above 0, at most 100.")
    return float(number) / 100


def parse_batch(text: str) -> tuple[int, ...]:
    """Read a batch specification such as ``"32x64"`` as its sizes.

    Args:
        text: sizes joined by ``x``: rows first, then the length or the image's sizes.

    Returns:
        The sizes, each at least 1.

    Raises:
        InputError: the text is no such list of at most six sizes.

    Example:
        >>> parse_batch("8x3x224x224")
        (8, 3, 224, 224)
    """
    if not isinstance(text, str) or not re.fullmatch(
        r"[0-9]{1,9}(x[0-9]{1,9}){0,5}", text.strip().lower(), re.ASCII
    ):
        raise InputError(
            f"{text!r} is not a batch specification.",
            hint='write rows x length, like "32x64", or rows x channels x height x width.',
        )
    sizes = tuple(int(part) for part in text.strip().lower().split("x"))
    if min(sizes) < 1:
        raise InputError(f"the batch {text!r} has a size of zero.", hint="use sizes from 1 up.")
    return sizes


def format_bytes(size: float) -> str:
    """Write a size for people, in binary units with three digits.

    Args:
        size: bytes, negative for a saving.

    Returns:
        Text such as ``"713 MiB"`` or ``"54.4 GiB"``.

    Example:
        >>> format_bytes(747_634_688)
        '713 MiB'
    """
    sign, size = ("-" if size < 0 else ""), abs(size)
    units = ["B", "KiB", "MiB", "GiB", "TiB"]
    while size >= 1000 and len(units) > 1:
        size /= 1024
        units.pop(0)
    unit = units[0]
    digits = 0 if unit == "B" or size >= 100 else 1 if size >= 10 else 2
    return f"{sign}{size:.{digits}f} {unit}"


_PREFIXES = ("k", "M", "G", "T", "P", "E", "Z")


def format_count(count: float) -> str:
    """Write a number of things for people, in decimal units with three digits.

    Args:
        count: how many, negative for a saving.

    Returns:
        Text such as ``"12"`` or ``"1.25 G"``.

    Example:
        >>> format_count(1_249_000_000)
        '1.25 G'
    """
    sign, count = ("-" if count < 0 else ""), abs(count)
    prefixes = iter(_PREFIXES)
    prefix = ""
    while count >= 999.5 and (more := next(prefixes, "")):  # 999.5 of one is 1.00 of the next
        count, prefix = count / 1000, more
    if not prefix:
        return f"{sign}{count:.3g}"
    digits = 0 if count >= 99.95 else 1 if count >= 9.995 else 2
    return f"{sign}{count:.{digits}f} {prefix}"


def format_seconds(seconds: float) -> str:
    """Write a duration for people, with two or three digits.

    Args:
        seconds: the duration.

    Returns:
        Text such as ``"12.3 ms"``, ``"1.25 s"`` or ``"3 min 20 s"``.

    Example:
        >>> format_seconds(0.0123)
        '12.3 ms'
    """
    if seconds < 1:
        return f"{seconds * 1e3:.3g} ms"
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{int(seconds // 60)} min {int(seconds % 60)} s"
