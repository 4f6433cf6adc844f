"""Where to begin to look for the best function of straight pieces."""

from __future__ import annotations

import itertools
from typing import Final

import numpy as np

from shoestring.activations.fewbit.bends import Task, by_cell, gauss_nodes
from shoestring.activations.fewbit.functions import Floats

_POWERS: Final = (0.2, 0.4, 0.7)  # of |f''|; 2/5 is where good knots lie if there are many
_OFFSETS: Final = (0.3, 0.5, 0.7)
_NUM_PLACES: Final = 10
_ROUNDING: Final = 1e-13


def starts(task: Task, num: int) -> list[Floats]:
    """Return where to begin: knots dense where the function bends, and heights that fit best.

    Args:
        task: what is fitted.
        num: of knots, from 2 up.

    Returns:
        For each start the first knot, the logarithms of the gaps between knots, and how far the
        heights at the inner ones are from the function.
    """
    nodes, masses = gauss_nodes(task, np.empty(0))
    middle = (task.points[1:] + task.points[:-1]) / 2
    cells = np.diff(task.points)
    bend = np.abs(np.diff(task.function.derivative_at(task.points))) / cells
    weight = by_cell(masses) / cells
    found = [_cuts(task, nodes, masses, num)]
    for power in _POWERS:
        reached = np.cumsum(cells * bend**power * weight**0.2)
        reached /= reached[-1]
        for offset in _OFFSETS:
            shares = (np.arange(num) + offset) / (num - 1 + 2 * offset)
            found.append(np.interp(shares, reached, middle))
        if num <= 3:
            places = np.interp((np.arange(_NUM_PLACES) + 0.5) / _NUM_PLACES, reached, middle)
            found += [np.asarray(some) for some in itertools.combinations(places, num)]
    return [_start(task, nodes, masses, np.sort(knots)) for knots in found]


def _start(task: Task, nodes: Floats, masses: Floats, knots: Floats) -> Floats:
    """Return packed knots with the heights that are best for them: a linear problem."""
    gaps = np.maximum(np.diff(knots), 1e-3)
    knots = knots[0] + np.append(0.0, np.cumsum(gaps))
    values = task.values(knots)
    heights = np.zeros(len(knots))
    heights[0] = task.left[0] * knots[0] + task.left[1]
    heights[-1] = task.right[0] * knots[-1] + task.right[1]
    inner = (nodes > knots[0]) & (nodes < knots[-1])
    x, root = nodes[inner], np.sqrt(masses[inner])
    hats = np.stack([np.interp(x, knots, row) for row in np.eye(len(knots))[1:-1]])
    wanted = task.values(x) - np.interp(x, knots, heights)
    best = np.linalg.lstsq((hats * root).T, wanted * root, rcond=1e-9)[0]
    return np.concatenate([knots[:1], np.log(gaps), best - values[1:-1]])


def _cuts(task: Task, nodes: Floats, masses: Floats, num: int) -> Floats:
    """Return the best knots if pieces need not meet, which a dynamic program finds."""
    costs = _line_costs(nodes, masses, task.values(nodes))
    left, right = (
        np.append(0.0, np.cumsum(by_cell(masses * apart**2)))
        for apart in (
            task.values(nodes) - slope * nodes - offset for slope, offset in (task.left, task.right)
        )
    )
    best, choices = left, []
    for _ in range(1, num):
        total = costs + best
        choices.append(total.argmin(axis=1))
        best = total.min(axis=1)
    cuts = [int((best - right).argmin())]
    for choice in reversed(choices):
        cuts.append(int(choice[cuts[-1]]))
    return task.points[cuts[::-1]]


def _line_costs(nodes: Floats, masses: Floats, values: Floats) -> Floats:
    """Return the error of the best line through every run of cells: at ``[j, i]`` of i to j - 1."""
    products = (np.ones_like(nodes), nodes, values, nodes * nodes, nodes * values, values * values)
    sums = [np.append(0.0, np.cumsum(by_cell(masses * product))) for product in products]
    mass, x, y, xx, xy, yy = (np.subtract.outer(each, each) for each in sums)
    # Without mass there is nothing to divide; on one place, no slope to fit.
    mass = np.where(mass > 0, mass, np.inf)
    spread = xx - x * x / mass
    spread = np.where(spread > _ROUNDING * xx, spread, np.inf)
    costs: Floats = np.maximum(yy - y * y / mass - (xy - x * y / mass) ** 2 / spread, 0.0)
    costs[np.triu_indices(len(costs))] = np.inf
    return costs
