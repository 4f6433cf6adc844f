"""Mend an order: drop what does not fit, take back what need not be computed again, repeat."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from shoestring.activations.remat.graph import Graph
from shoestring.activations.remat.solvers.checkmate import without_waste
from shoestring.activations.remat.solvers.lives import Lives

HOT = 256  # positions over the budget that a gain is counted at
TRIES = 24  # of the best drops, when none of them seems to help
STALLS = 8  # drops that help nothing by themselves, in all
LONGEST = 8  # times as many positions as nodes
SMALL = 8  # what is so many times smaller than the value is held for it rather than made again
WILD = 0.5  # spread of the noise in a new try


class _Drop(NamedTuple):
    """To make a value again instead of holding it.

    Attributes:
        price: seconds for each byte and position of excess that it takes away.
        position: before which it is made again.
        nodes: that run there.
        key: what the drop is known by in longer orders.
    """

    price: float
    position: int
    nodes: tuple[int, ...]
    key: tuple[int, int, int]


def relieve(
    lives: Lives,
    budget: int,
    *,
    until: float,
    noise: np.random.Generator | None = None,
    batch: int = 1,
) -> Lives:
    """Drop values, the cheapest byte first, until an order fits.

    Let e_p be the bytes over the budget at position p, m_v those of value v. To drop v between
    its uses at a and b takes

        sum over a < p < b of min(e_p, m_v)

    away, and costs the seconds of making it again before b, with all of its inputs that are not
    there. What is there, is small or cannot be made again is held until then.

    Args:
        lives: the order.
        budget: most bytes at one time.
        until: by `time.monotonic`; then the order is returned as it is.
        noise: for other choices than those of the best price.
        batch: drops at a time; one is the most careful.

    Returns:
        An order within the budget, or the one that came nearest.
    """
    tabu: set[tuple[int, int, int]] = set()
    most = LONGEST * len(lives.tables.graph.nodes)
    nearest, stalls = lives, 0
    while lives.peak > budget and time.monotonic() < until and len(lives.order) < most:
        drops = _drops(lives, budget, tabu, noise, batch)
        if not drops:
            break
        excess = _excess(lives, budget)
        tried: list[tuple[int, _Drop, Lives]] = []
        for chosen in [drops[:batch], *([drop] for drop in drops[: TRIES if batch == 1 else 4])]:
            after = Lives(lives.tables, _inserted(lives.order, chosen))
            tried.append((_excess(after, budget), chosen[0], after))
            if tried[-1][0] < excess:
                break
            tabu.update(drop.key for drop in chosen[:1])
        least, _, lives = min(tried, key=lambda one: one[0])
        if least >= excess:
            batch, stalls = 1, stalls + 1
            if stalls > STALLS:
                break
        if lives.peak < nearest.peak:
            nearest = lives
    return lives if lives.peak <= budget else nearest


def _excess(lives: Lives, budget: int) -> int:
    return int(np.maximum(lives.during - budget, 0).sum())


def _drops(
    lives: Lives,
    budget: int,
    tabu: set[tuple[int, int, int]],
    noise: np.random.Generator | None,
    most: int,
) -> list[_Drop]:
    """Return drops that promise to help, the best first."""
    tables = lives.tables
    over = np.maximum(lives.during - budget, 0)
    hot = np.flatnonzero(over)
    hot = hot[:: -(-len(hot) // HOT)]
    can = tables.again[lives.values] & (tables.sizes[lives.values] > 0)
    can &= np.searchsorted(hot, lives.first, "right") < np.searchsorted(hot, lives.last)
    values, first, last = lives.values[can], lives.first[can], lives.last[can]
    inside = (hot > first[:, None]) & (hot < last[:, None])
    gains = (np.minimum(over[hot], tables.sizes[values][:, None]) * inside).sum(axis=1)
    weights = gains.astype(float)
    if noise is not None:
        weights *= np.exp(WILD * noise.standard_normal(len(weights)))
    makers = [tables.graph.maker[value] for value in values]
    least = np.array([tables.seconds[maker] for maker in makers]) / weights
    found: list[_Drop] = []
    wanted = most + TRIES
    limit = np.inf
    for at in np.argsort(least, kind="stable").tolist():
        if len(found) >= wanted and least[at] > limit:
            break
        value, start, end = int(values[at]), int(first[at]), int(last[at])
        key = (value, lives.order[start], lives.order[end] if end < len(lives.order) else -1)
        if key in tabu:
            continue
        nodes = _needed(lives, value, end, budget)
        if nodes is not None:
            price = sum(tables.seconds[node] for node in nodes) / weights[at]
            found.append(_Drop(price, end, nodes, key))
            if len(found) % wanted == 0:
                limit = sorted(drop.price for drop in found)[wanted - 1]
    return sorted(found)


def _needed(lives: Lives, value: int, position: int, budget: int) -> tuple[int, ...] | None:
    """Return the nodes that make a value again before a position, with what is not there."""
    tables, graph = lives.tables, lives.tables.graph
    needed: set[int] = set()
    waiting = [graph.maker[value]]
    while waiting:
        maker = waiting.pop()
        if maker in needed:
            continue
        needed.add(maker)
        for read in graph.nodes[maker].reads:
            if graph.maker[read] < 0 or (read != value and lives.there(read, position)):
                continue
            small = tables.sizes[read] * SMALL <= tables.sizes[value]
            if not tables.again[read] or small or _room(lives, read, position, budget):
                continue
            waiting.append(graph.maker[read])
    return tuple(sorted(needed))


def _room(lives: Lives, value: int, position: int, budget: int) -> bool:
    """Return whether a value can be held from its last use up to a position."""
    start = lives.before(value, position)
    if start < 0:
        return False
    most = lives.during[start + 1 : position + 1].max(initial=0)
    return bool(most + lives.tables.sizes[value] <= budget)


def _inserted(order: Sequence[int], drops: Sequence[_Drop]) -> list[int]:
    places: dict[int, set[int]] = {}
    for drop in drops:
        places.setdefault(drop.position, set()).update(drop.nodes)
    made: list[int] = []
    start = 0
    for place in sorted(places):
        made += order[start:place]
        made += sorted(places[place])
        start = place
    made += order[start:]
    return made


def take_back(lives: Lives, budget: int, *, until: float) -> Lives:
    """Hold values instead of making them again, the most seconds first, where there is room.

    Args:
        lives: an order within the budget.
        budget: most bytes at one time.
        until: by `time.monotonic`; then the order is returned as it is.

    Returns:
        An order within the budget that takes no longer.
    """
    lives = Lives(lives.tables, without_waste(lives.tables.graph, lives.order))
    failed: set[tuple[int, int]] = set()
    while time.monotonic() < until:
        for position in _repeats(lives):
            key = _occurrence(lives, position)
            if key in failed:
                continue
            if _fits_without(lives, position, budget):
                order = [*lives.order[:position], *lives.order[position + 1 :]]
                lives = Lives(lives.tables, without_waste(lives.tables.graph, order))
                break
            failed.add(key)
        else:
            return lives
    return lives


def _occurrence(lives: Lives, position: int) -> tuple[int, int]:
    """Name a computation by its node and what comes after it in backward."""
    node = lives.order[position]
    border = lives.tables.graph.border
    after = next((k for k in lives.order[position:] if k >= border), -1)
    return node, after


def _repeats(lives: Lives) -> list[int]:
    """Return the positions that compute something again, those that save most first."""
    seen: set[int] = set()
    found: list[tuple[float, int]] = []
    saved: list[float] = [0.0] * len(lives.order)
    graph = lives.tables.graph
    makers: dict[int, int] = {}
    for position, node in enumerate(lives.order):
        if node in seen:
            own = lives.tables.seconds[node]
            # what was made again only for this would go with it
            for read in graph.nodes[node].reads:
                source = makers.get(read, -1)
                alone = source >= 0 and lives.next(read, position + 1)[1]
                if alone and lives.next(read, source + 1)[0] == position:
                    own += saved[source]
            saved[position] = own
            found.append((-own, position))
            for value in graph.nodes[node].makes:
                makers[value] = position
        seen.add(node)
    return [position for _, position in sorted(found)]


def _fits_without(lives: Lives, position: int, budget: int) -> bool:
    """Return whether what is made again at a position could be held from its last use."""
    tables = lives.tables
    starts: list[tuple[int, int]] = []
    for value in tables.graph.nodes[lives.order[position]].makes:
        if not lives.next(value, position + 1)[1]:
            start = lives.before(value, position)
            if start < 0:
                return False
            starts.append((start, value))
    if not starts:
        return True
    room = budget - lives.during[min(start for start, _ in starts) + 1 : position]
    if len(starts) == 1:
        return bool(room.min(initial=np.iinfo(np.int64).max) >= tables.sizes[starts[0][1]])
    need = np.zeros(len(room), np.int64)
    for start, value in starts:
        need[len(need) - (position - start - 1) :] += tables.sizes[value]
    return bool((need <= room).all())


def lean_order(graph: Graph, *, most: int) -> tuple[int, ...] | None:
    """Return the order in which each node of backward has all it needs computed anew.

    It keeps nothing across the border that can be made again, so it often fits where nothing
    else does; most of what it computes can be taken back then.

    Args:
        graph: the operations.
        most: positions that it may have.

    Returns:
        The order; None where it would be longer.
    """
    order = list(range(graph.border + 1))
    for index in range(graph.border + 1, len(graph.nodes)):
        waiting, needed = [*graph.nodes[index].reads], set[int]()
        while waiting:
            maker = graph.maker[waiting.pop()]
            if maker in graph.repeatable and maker not in needed:
                needed.add(maker)
                waiting += graph.nodes[maker].reads
        order += [*sorted(needed), index]
        if len(order) > most:
            return None
    return tuple(order)


def mend(lives: Lives, budget: int, *, until: float, batch: int = 1) -> Lives:
    """Make an order fit, and take back what then need not be computed again.

    Args:
        lives: the order.
        budget: most bytes at one time.
        until: by `time.monotonic`.
        batch: as in `relieve`.

    Returns:
        An order within the budget, or the one that came nearest.
    """
    found = relieve(lives, budget, until=until, batch=batch)
    return take_back(found, budget, until=until) if found.peak <= budget else found


def search(lives: Lives, budget: int, *, until: float, seed: int = 0, patience: int = 100) -> Lives:
    """Improve an order: undo some of what it computes again, and mend it in another way.

    Args:
        lives: an order within the budget.
        budget: most bytes at one time.
        until: by `time.monotonic`.
        seed: of the draws.
        patience: tries without success after which it gives up.

    Returns:
        An order within the budget that takes no longer.
    """
    draws = np.random.default_rng(seed)
    least = lives.tables.graph.seconds * (1 + 1e-9)
    best, failures = lives, 0
    batch = max(1, len(lives.tables.graph.nodes) // 400)
    while failures < patience and time.monotonic() < until and best.seconds > least:
        failures += 1
        tried = _undone(best, draws)
        tried = relieve(tried, budget, until=until, noise=draws, batch=batch)
        if tried.peak > budget:
            continue
        tried = take_back(tried, budget, until=until)
        if tried.seconds < best.seconds * (1 - 1e-6):
            failures = 0
        if tried.seconds <= best.seconds:
            best = tried
    return best


def _undone(lives: Lives, draws: np.random.Generator) -> Lives:
    """Return the order without some of its repeats: a part of the order, or anywhere."""
    length = len(lives.order)
    width = int(length * draws.uniform(0.05, 0.5))
    start = int(draws.integers(-width // 2, length))
    share = draws.uniform(0.1, 0.5) if draws.random() < 0.4 else 1.0
    if share < 1:
        start, width = 0, length
    chances = draws.random(length)
    seen: set[int] = set()
    kept: list[int] = []
    for position, node in enumerate(lives.order):
        if node in seen and start <= position < start + width and chances[position] < share:
            continue
        seen.add(node)
        kept.append(node)
    return Lives(lives.tables, without_waste(lives.tables.graph, kept))
