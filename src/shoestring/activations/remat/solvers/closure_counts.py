"""The choice of what to keep as a count: how many parts of each kind do what, solved exactly.

Parts of one kind are alike, so it is enough to say how many of them do each of their choices.
The kinds are gone through one after the other. After each, those ways are left of which no other
keeps no more bytes in no more seconds, and which could still beat the best that is known: the
other kinds, taken as divisible, take no less than the height of their convex hull.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from shoestring.activations.remat.solvers.closure_parts import (
    Choice,
    Floats,
    Ints,
    Kind,
    lower_hull,
    price,
)

MOST = 500_000  # ways at a time; beyond, a mixed program is no slower


class Counted(NamedTuple):
    """What was found.

    Attributes:
        times: by kind, how many of its parts do each of its choices; None if nothing beats what
            was known.
        bound: seconds that no choice within the bytes stays under.
    """

    times: tuple[tuple[int, ...], ...] | None
    bound: float


class _Bundle(NamedTuple):
    """Parts of one kind that are decided about together.

    Attributes:
        kind: its number.
        options: by row, how many of the parts do each choice of the kind.
        saved: bytes of each row.
        seconds: of each row.
    """

    kind: int
    options: Ints
    saved: Ints
    seconds: Floats


class _Layer(NamedTuple):
    """Ways through the bundles so far: where each comes from, and its row of the last bundle."""

    parents: Ints
    rows: Ints


def count_choices(
    kinds: Sequence[Kind], saved_bytes: int, *, below: float, until: float, most: int = MOST
) -> Counted | None:
    """Minimise the seconds of all parts while their bytes stay within a bound.

        minimise sum_kp c_kp y_kp   subject to   sum_kp m_kp y_kp <= saved_bytes,
                                                 sum_p y_kp = n_k

    with y_kp how many parts of kind k do choice p, c_kp its seconds, m_kp its bytes, n_k the
    parts of the kind.

    Args:
        kinds: the parts; the choices of all of them are listed.
        saved_bytes: most bytes, what is fixed left out.
        below: seconds that the answer must stay under to be of interest.
        until: when to stop, by `time.monotonic`.
        most: ways at a time.

    Returns:
        The best, or that nothing is below; None if there are too many ways, or the time is up.

    Source: Nemhauser, Ullmann, "Discrete dynamic programming and capital allocation", 1969.
    """
    bundles = _bundles(kinds, saved_bytes)
    curves = _curves(kinds, bundles)
    saved, seconds = np.zeros(1, np.int64), np.zeros(1)
    layers: list[_Layer] = []
    for bundle, (sizes, heights) in zip(bundles, curves, strict=True):
        if len(saved) * len(bundle.saved) > most or time.monotonic() > until:
            return None
        own = (saved[:, None] + bundle.saved).reshape(-1)
        cost = (seconds[:, None] + bundle.seconds).reshape(-1)
        left = saved_bytes - own
        height = cost + np.interp(left, sizes, heights)
        kept = np.flatnonzero((left >= sizes[0]) & (height < below))
        kept = kept[np.lexsort((cost[kept], own[kept]))]
        before = np.minimum.accumulate(cost[kept])
        kept = kept[
            np.concatenate((np.ones(min(1, len(kept)), bool), cost[kept][1:] < before[:-1]))
        ]
        if not len(kept):
            return Counted(None, below)
        saved, seconds = own[kept], cost[kept]
        layers.append(_Layer(*np.divmod(kept, len(bundle.saved))))
    best = int(seconds.argmin())
    return Counted(_times(kinds, bundles, layers, best), float(seconds[best]))


def _bundles(kinds: Sequence[Kind], saved_bytes: int) -> list[_Bundle]:
    """Return what is decided about together; in front what is plain to see at the margin's price.

    There the divisible parts have spent all bytes. A kind that has a step at about that price can
    be done in many ways that are nearly as good, so it comes last.
    """
    hulls = [lower_hull(kind.choices or ()) for kind in kinds]
    steps = sorted(
        (price(a, b), (a.saved - b.saved) * len(kind.members))
        for kind, hull in zip(kinds, hulls, strict=True)
        for a, b in itertools.pairwise(hull)
    )
    left = sum(h[0].saved * len(k.members) for k, h in zip(kinds, hulls, strict=True)) - saved_bytes
    margin = 0.0
    for own, size in steps:
        margin, left = own, left - size
        if left <= 0:
            break

    def distance(number: int) -> float:
        prices = [price(a, b) for a, b in itertools.pairwise(hulls[number])]
        return min((abs(own - margin) for own in prices), default=np.inf)

    bundles: list[_Bundle] = []
    for number in sorted(range(len(kinds)), key=distance, reverse=True):
        bundles += _bundles_of(number, kinds[number])
    return bundles


def _bundles_of(number: int, kind: Kind) -> list[_Bundle]:
    choices, count = kind.choices or (), len(kind.members)
    saved = np.array([choice.saved for choice in choices], np.int64)
    seconds = np.array([choice.seconds for choice in choices])
    if len(choices) == 2:  # all parts at once
        second = np.arange(count + 1)
        options = np.stack([count - second, second], axis=1)
        return [_Bundle(number, options, options @ saved, options @ seconds)]
    return [_Bundle(number, np.eye(len(choices), dtype=np.int64), saved, seconds)] * count


def _curves(kinds: Sequence[Kind], bundles: Sequence[_Bundle]) -> list[tuple[Floats, Floats]]:
    """Return, for each bundle, the hull of all that come after it: bytes, rising, and seconds."""
    hulls: dict[int, tuple[Choice, ...]] = {}
    size, moves = 0.0, np.zeros((0, 3))  # least bytes; price, bytes and seconds of each step
    found: list[tuple[Floats, Floats]] = []
    top = 0.0  # seconds where the fewest bytes are kept
    for bundle in reversed(bundles):
        sizes = size + np.concatenate(([0.0], np.cumsum(moves[:, 1])))
        heights = top - np.concatenate(([0.0], np.cumsum(moves[:, 2])))
        found.append((sizes, heights))
        hull = hulls.setdefault(bundle.kind, lower_hull(kinds[bundle.kind].choices or ()))
        parts = int(bundle.options[0].sum())
        size += hull[-1].saved * parts
        top += hull[-1].seconds * parts
        own = [
            (price(a, b), (a.saved - b.saved) * parts, (b.seconds - a.seconds) * parts)
            for a, b in itertools.pairwise(hull)
        ]
        moves = np.concatenate([moves, np.array(own).reshape(-1, 3)])
        # from the fewest bytes on: the dearest step is taken back first
        moves = moves[np.argsort(-moves[:, 0], kind="stable")]
    found.reverse()
    return found


def _times(
    kinds: Sequence[Kind], bundles: Sequence[_Bundle], layers: Sequence[_Layer], at: int
) -> tuple[tuple[int, ...], ...]:
    times = [np.zeros(len(kind.choices or ()), np.int64) for kind in kinds]
    for bundle, layer in zip(reversed(bundles), reversed(layers), strict=True):
        times[bundle.kind] += bundle.options[layer.rows[at]]
        at = int(layer.parents[at])
    return tuple(tuple(own.tolist()) for own in times)


def spread_choices(
    kinds: Sequence[Kind], times: Sequence[Sequence[int]]
) -> tuple[tuple[Choice, ...], ...]:
    """Return a choice for each part; of a kind, the first parts keep least.

    Parts that run first in forward come last in backward, when little is left of what the
    others keep: there is room then for what is computed again.

    Args:
        kinds: the parts; the choices of all of them are listed.
        times: by kind, how many of its parts do each of its choices.
    """
    return tuple(
        tuple(
            choice
            for choice, many in zip(reversed(kind.choices or ()), reversed(own), strict=True)
            for _ in range(many)
        )
        for kind, own in zip(kinds, times, strict=True)
    )
