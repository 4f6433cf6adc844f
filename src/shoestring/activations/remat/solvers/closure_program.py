"""The choice of what to keep as a linear program.

For each node k of a part r_k says whether it runs after the border, for each value v a_v whether
it is there after the border, and g_k whether k does not run before the border:

    r_k <= a_v   if k reads v,       a_v = 1   if backward reads v,
    r_u <= a_v   if u makes v,       g_k <= r_k,  g_k <= g_j   if j reads what k makes,

    bytes = sum_v m_v (a_v - r_u(v)),      seconds = sum_k c_k (r_k - g_k)

with m_v the bytes of a value and c_k the seconds of a node. Every row says "x implies y", so for
one price of a byte this is a closure problem of a graph, and the corners of the linear program
are integral. A bound on the bytes is the one row that breaks this.
"""

from __future__ import annotations

import dataclasses
import heapq
import math
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy  # its parts are imported where they are used first
from numpy.typing import NDArray

from shoestring.activations.remat.solvers.closure_counts import spread_choices
from shoestring.activations.remat.solvers.closure_parts import (
    Choice,
    Floats,
    Form,
    Ints,
    Kind,
    PartValue,
    cost_of,
    lower_hull,
    price,
)


@dataclasses.dataclass(frozen=True, slots=True)
class _Rows:
    """The program of a form: columns r, then a, then g.

    Attributes:
        lower: of each column; the upper bound is 1.
        implies: (rows, 2) columns x and y with x <= y.
        saved: bytes by column.
        seconds: seconds by column.
    """

    lower: Floats
    implies: Ints
    saved: Floats
    seconds: Floats


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """What the mixed program gave.

    Attributes:
        chosen: by kind and member, its choice; None if the time was up before there was one.
        bound: seconds that no choice can stay under, as far as was proven.
        infeasible: whether no choice stays within the bytes.
        complete: whether it came to its own end.
    """

    chosen: tuple[tuple[Choice, ...], ...] | None
    bound: float
    infeasible: bool
    complete: bool


class _Pair(NamedTuple):
    """Two neighbours on the hull as far as it is known.

    `gap` is how far the best choice at the price between them may lie below both, in seconds.
    At the prices `low` and `high` the first and the last are the best; what the best costs is a
    concave function of the price, so it lies above the chord between those two prices.
    """

    gap: float
    first: Choice
    last: Choice
    low: float
    high: float


def corner_choices(
    form: Form, *, until: float, slack: float = 0.0
) -> tuple[tuple[Choice, ...], float]:
    """Return the corners of the lower convex hull of a part's choices, by rising seconds.

    Between two neighbours the price of a byte is set to the slope between them; the best choice
    at this price is no better than both, or a corner between them.

    Args:
        form: the part.
        until: when to stop, by `time.monotonic`.
        slack: corners that lie less than this below the others, in seconds, may be left out.

    Returns:
        The corners, and the most seconds that a corner left out can lie below them.
    """
    rows = _rows(form)
    first = _choice(form, np.zeros(len(form.seconds), dtype=bool))
    last = _best(form, rows, None)
    corners, queue = [first, last], _pairs(first, last, 0.0, math.inf)
    while queue and -queue[0][0] > slack and time.monotonic() < until:
        _, pair = heapq.heappop(queue)
        slope = price(pair.first, pair.last)
        found = _best(form, rows, slope)
        level = pair.first.seconds + slope * pair.first.saved
        if found.seconds + slope * found.saved < level * (1 - 1e-9):
            corners.append(found)
            for new in (
                *_pairs(pair.first, found, pair.low, slope),
                *_pairs(found, pair.last, slope, pair.high),
            ):
                heapq.heappush(queue, new)
    return lower_hull(corners), max((pair.gap for _, pair in queue if pair.gap > 0), default=0.0)


def _pairs(first: Choice, last: Choice, low: float, high: float) -> list[tuple[float, _Pair]]:
    """Return the pair, for a queue with the largest gap in front; none if a corner beats the other.

    At an infinite price only bytes count: there the chord is the line of the fewest bytes.
    """
    if first.saved <= last.saved or first.seconds >= last.seconds:
        return []
    slope = price(first, last)
    level = first.seconds + slope * first.saved
    start = first.seconds + low * first.saved
    if math.isinf(high):
        rise = float(last.saved)
    else:
        rise = (last.seconds + high * last.saved - start) / (high - low)
    gap = level - (start + rise * (slope - low))
    return [(-gap, _Pair(gap, first, last, low, high))]


def solve_mixed(
    kinds: Sequence[Kind], saved_bytes: int, *, time_limit: float, tolerance: float
) -> Found:
    """Minimise the seconds of all parts while their bytes stay within a bound.

    Parts of one kind are counted, not told apart: y_p of them do p, with sum_p y_p parts in all.
    Only a kind whose choices are too many to list has columns for each of its parts.

    Args:
        kinds: the parts.
        saved_bytes: most bytes, what is fixed left out.
        time_limit: in seconds.
        tolerance: how much above the least seconds the answer may be, as a share of it.
    """
    if not kinds:
        return Found((), 0.0, saved_bytes < 0, complete=True)
    blocks = [_listed_block([kind for kind in kinds if kind.choices is not None])]
    for kind in kinds:
        if kind.choices is None:
            blocks += [_single_block(kind.form)] * len(kind.members)
    seconds = np.concatenate([block.seconds for block in blocks])
    saved = np.concatenate([block.saved for block in blocks])
    byte, second = max(1.0, float(np.abs(saved).max())), max(float(np.abs(seconds).max()), 1e-300)
    # HiGHS stops at an absolute gap of 1e-6 too, so the objective must not be small numbers.
    scale = 1e3 / second
    result = scipy.optimize.milp(
        seconds * scale,
        integrality=np.concatenate([block.integral for block in blocks]),
        bounds=scipy.optimize.Bounds(
            np.concatenate([block.lower for block in blocks]),
            np.concatenate([block.upper for block in blocks]),
        ),
        constraints=[
            scipy.optimize.LinearConstraint(
                scipy.sparse.block_diag([block.matrix for block in blocks], format="csr"),
                np.concatenate([block.least for block in blocks]),
                np.concatenate([block.most for block in blocks]),
            ),
            scipy.optimize.LinearConstraint(saved[None, :] / byte, -np.inf, saved_bytes / byte),
        ],
        options={"time_limit": max(time_limit, 1e-3), "mip_rel_gap": tolerance},
    )
    bound = 0.0 if result.mip_dual_bound is None else float(result.mip_dual_bound) / scale
    chosen = None if result.x is None else _read(kinds, np.asarray(result.x))
    return Found(chosen, max(bound, 0.0), result.status == 2, result.status in (0, 2))


@dataclasses.dataclass(frozen=True, slots=True)
class _Block:
    """Columns and rows of a kind, or of one part of it; rows are least <= matrix x <= most."""

    seconds: Floats
    saved: Floats
    lower: Floats
    upper: Floats
    integral: Ints
    matrix: scipy.sparse.csr_matrix
    least: Floats
    most: Floats


def _listed_block(kinds: Sequence[Kind]) -> _Block:
    """Return the columns y of all kinds whose choices are listed, and a row for each kind."""
    counts = np.array([len(kind.members) for kind in kinds], dtype=np.float64)
    widths = np.array([len(kind.choices or ()) for kind in kinds], dtype=np.int64)
    choices = [choice for kind in kinds for choice in kind.choices or ()]
    row = np.repeat(np.arange(len(kinds)), widths)
    place = (row, np.arange(len(choices)))
    return _Block(
        seconds=np.array([choice.seconds for choice in choices], dtype=np.float64),
        saved=np.array([choice.saved for choice in choices], dtype=np.float64),
        lower=np.zeros(len(choices)),
        upper=counts[row],
        integral=np.ones(len(choices), dtype=np.int64),
        matrix=scipy.sparse.csr_matrix(
            (np.ones(len(choices)), place), shape=(len(kinds), len(choices))
        ),
        least=counts,
        most=counts,
    )


def _single_block(form: Form) -> _Block:
    """Return the columns and rows of one part."""
    rows = _rows(form)
    width = len(rows.lower)
    return _Block(
        seconds=rows.seconds,
        saved=rows.saved,
        lower=rows.lower,
        upper=np.ones(width),
        # With r integral the least a and the most g are so by themselves.
        integral=(np.arange(width) < len(form.seconds)).astype(np.int64),
        matrix=_matrix(rows),
        least=np.full(len(rows.implies), -np.inf),
        most=np.zeros(len(rows.implies)),
    )


def _read(kinds: Sequence[Kind], solution: Floats) -> tuple[tuple[Choice, ...], ...]:
    """Turn columns into a choice for each part."""
    chosen: list[tuple[Choice, ...]] = []
    listed, single = 0, sum(len(kind.choices or ()) for kind in kinds)
    for kind in kinds:
        if kind.choices is not None:
            times = np.rint(solution[listed : listed + len(kind.choices)]).astype(int)
            listed += len(kind.choices)
            chosen += spread_choices([kind], [times.tolist()])
            continue
        width = len(_rows(kind.form).lower)
        columns = solution[single : single + width * len(kind.members)].reshape(-1, width)
        single += columns.size
        again = columns[:, : len(kind.form.seconds)] > 0.5
        chosen.append(tuple(_choice(kind.form, part) for part in again))
    return tuple(chosen)


def _rows(form: Form) -> _Rows:
    nodes, values = len(form.seconds), len(form.values)
    late = [k for k, followers in enumerate(form.followers) if followers is not None]
    column = {k: nodes + values + at for at, k in enumerate(late)}
    width = nodes + values + len(late)
    lower, saved, seconds = np.zeros(width), np.zeros(width), np.zeros(width)
    seconds[:nodes] = form.seconds
    implies = []
    for at, value in enumerate(form.values, start=nodes):
        lower[at] = float(value.needed)
        saved[at] = value.size
        implies += [(reader, at) for reader in value.readers]
        if value.maker >= 0:
            saved[value.maker] -= value.size
            implies.append((value.maker, at))
    for k, own in column.items():
        seconds[own] = -form.seconds[k]
        implies.append((own, k))
        implies += [(own, column[follower]) for follower in form.followers[k] or ()]
    return _Rows(lower, np.array(implies, dtype=np.int64).reshape(-1, 2), saved, seconds)


def _matrix(rows: _Rows) -> scipy.sparse.csr_matrix:
    count = len(rows.implies)
    data = np.tile([1.0, -1.0], count)
    place = (np.repeat(np.arange(count), 2), rows.implies.reshape(-1))
    return scipy.sparse.csr_matrix((data, place), shape=(count, len(rows.lower)))


def _best(form: Form, rows: _Rows, slope: float | None) -> Choice:
    """Return the best choice at a price in seconds a byte; None counts bytes alone."""
    cost = rows.saved if slope is None else rows.seconds + slope * rows.saved
    most = np.zeros(len(rows.implies))
    result = scipy.optimize.milp(
        cost / max(np.abs(cost).max(), 1e-300),
        bounds=scipy.optimize.Bounds(rows.lower, np.ones(len(rows.lower))),
        constraints=scipy.optimize.LinearConstraint(
            _matrix(rows), np.full(len(most), -np.inf), most
        ),
    )
    assert result.x is not None, "to keep everything is always a solution"
    return _choice(form, np.asarray(result.x)[: len(form.seconds)] > 0.5)


def _choice(form: Form, again: NDArray[np.bool_]) -> Choice:
    """Return what is computed again as a choice, without what nobody reads."""
    useful = np.zeros_like(again)
    own: list[list[PartValue]] = [[] for _ in form.seconds]
    for value in form.values:
        if value.maker >= 0:
            own[value.maker].append(value)
    for node in np.flatnonzero(again)[::-1].tolist():
        useful[node] = any(v.needed or useful[list(v.readers)].any() for v in own[node])
    saved, seconds = cost_of(form, useful[None, :])
    return Choice(int(saved[0]), float(seconds[0]), tuple(np.flatnonzero(useful).tolist()))
