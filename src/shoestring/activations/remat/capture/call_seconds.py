"""Seconds of operator calls on this computer, each distinct one measured once and kept on disk."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Final

import torch
from torch._ops import OpOverload

from shoestring.measure.cache import cache_folder, read_cache, write_cache
from shoestring.measure.host import cpu_name
from shoestring.measure.rng import rng_untouched
from shoestring.measure.timing.paces import now
from shoestring.measure.tracing.calls import Call, Maker, describe_call

SCHEMA: Final = "shoestring/call-seconds/1"
_SAMPLES: Final = 5
_SHORT: Final = 1e-4
"""Seconds that a sample takes at least: shorter calls are repeated in it."""
_MOST_REPEATS: Final = 64
_MOST_ROWS: Final = 20_000


class CallTimer:
    """Collects operator calls, and times each distinct one.

    A sample runs a call often enough to be seen by the clock; the median of five counts, after
    one run that is not counted. Where one thread does the work, its processor time is taken, so
    that others who use the computer do not count.

    Args:
        path: file of earlier measurements; by default in the user's cache folder.
        limit_seconds: calls that are left when so much time has gone are not timed.
        limit_bytes: larger calls (inputs and outputs) are not timed.

    Example:
        >>> timer = CallTimer()
        >>> x = torch.ones(8, 8)
        >>> key = timer.note(torch.ops.aten.mm.default, (x, x), {})
        >>> timer.resolve()[key] > 0
        True
    """

    def __init__(
        self,
        path: Path | None = None,
        *,
        limit_seconds: float = 30.0,
        limit_bytes: int = 512 * 2**20,
    ) -> None:
        self._path = path or cache_folder() / "call-seconds.json"
        self._limit_seconds = limit_seconds
        self._limit_bytes = limit_bytes
        self._calls: dict[Call, OpOverload] = {}

    def note(
        self, operator: OpOverload, args: Sequence[object], kwargs: Mapping[str, object]
    ) -> Call:
        """Remember one call; only sizes, strides and types are kept.

        Args:
            operator: what is called.
            args: its positional arguments, real or fake.
            kwargs: its keyword arguments.

        Returns:
            Its key in what `resolve` returns.
        """
        with torch.no_grad():  # as the code of a graph runs
            call = describe_call(operator.name(), args, kwargs)
        self._calls.setdefault(call, operator)
        return call

    def resolve(self) -> dict[Call, float]:
        """Time the calls that no earlier measurement covers.

        Returns:
            Key -> seconds, without calls that could not be run or were too large.
        """
        environment = f"torch {torch.__version__}, {cpu_name()}, {torch.get_num_threads()} threads"
        stored = read_cache(self._path, SCHEMA).get(environment)
        rows = stored if isinstance(stored, dict) else {}
        names = {call: _digest(call) for call in self._calls}
        found = {
            call: float(seconds)
            for call, name in names.items()
            if isinstance(seconds := rows.get(name), (int, float)) and 0 <= seconds < 1e6
        }
        fresh = self._measure([call for call in self._calls if call not in found])
        if fresh:
            document = read_cache(self._path, SCHEMA)  # another process may have added to it
            old = document.get(environment)
            merged = {**(old if isinstance(old, dict) else {})}
            merged |= {names[call]: seconds for call, seconds in fresh.items()}
            document[environment] = dict(list(merged.items())[-_MOST_ROWS:])
            write_cache(self._path, SCHEMA, document)
        return found | fresh

    def _measure(self, calls: Sequence[Call]) -> dict[Call, float]:
        fresh: dict[Call, float] = {}
        if not calls:
            return fresh
        begin = time.perf_counter()
        with rng_untouched(), torch.no_grad(), torch.autocast("cpu", enabled=False):
            for call in calls:
                if time.perf_counter() - begin > self._limit_seconds:
                    break
                seconds = self._time(call)
                if seconds is not None:
                    fresh[call] = seconds
        return fresh

    def _time(self, call: Call) -> float | None:
        operator = self._calls[call]
        try:
            shapes = Maker("meta")
            call.given(shapes)
            if shapes.nbytes > self._limit_bytes:
                return None
            args, kwargs = call.given(Maker("cpu"))
            once = _sample(operator, args, kwargs, 1)
            if once > 0.2:
                return _sample(operator, args, kwargs, 1)
            repeats = min(_MOST_REPEATS, max(1, round(_SHORT / max(once, 1e-7))))
            return median(_sample(operator, args, kwargs, repeats) for _ in range(_SAMPLES))
        except Exception:  # noqa: BLE001 - an operator may raise anything; it is estimated then
            return None


def _sample(
    operator: OpOverload, args: Sequence[object], kwargs: Mapping[str, object], repeats: int
) -> float:
    begin = now()
    for _ in range(repeats):
        operator(*args, **kwargs)
    return (now() - begin) / repeats


def _digest(call: Call) -> str:
    text = repr((call.args, call.kwargs)).encode()
    return f"{call.name} {hashlib.blake2b(text, digest_size=12).hexdigest()}"
