"""The step function whose primitive is nearest to the function itself, on the right asymptotes."""

from __future__ import annotations

from typing import Final

import numpy as np
from scipy import optimize

from shoestring.activations.fewbit.bends import Bends, Task, distances, gauss_nodes, task_of
from shoestring.activations.fewbit.functions import Floats, Function
from shoestring.activations.fewbit.starts import starts
from shoestring.activations.fewbit.weights import Weight
from shoestring.core.errors import InputError

_NUM_STARTS: Final = 12
_TOLERANCE: Final = 1e-11


def fitted(function: Function, weight: Weight, domain: tuple[float, float], count: int) -> Bends:
    r"""Return the best function of straight pieces that ends on the function's asymptotes.

    It minimises

    .. math::

        \int \Bigl( f(x) - \sum_i a_i \max(x - c_i, 0) \Bigr)^2 w(x) \, dx, \qquad
        \sum_i a_i = 1, \quad \sum_i a_i c_i = 0,

    here for asymptotes 0 and x; others are met alike. The program is not convex: quasi-Newton
    descents start from many places, the same in every run, and the best end is kept.

    Args:
        function: with linear asymptotes that it reaches inside the domain.
        weight: :math:`w`.
        domain: from where to where.
        count: of pieces.

    Raises:
        InputError: the function has no such asymptotes, or two pieces are too few.

    Source: Yang et al., Reducing fine-tuning memory overhead by approximate and memory-sharing
    backpropagation (2024), ReGELU2 and ReSiLU2; there by simulated annealing.
    """
    task = task_of(function, weight, domain)
    if count == 2:
        return _single(task)
    begun = sorted(starts(task, count - 1), key=lambda start: _loss(start, task)[0])
    ends = [_descended(start, task) for start in begun[:_NUM_STARTS]]
    best = min(ends, key=lambda end: _loss(end, task)[0])
    knots = _knots(best)
    return _bends(task, knots, _heights(best, knots, task))


def _descended(start: Floats, task: Task) -> Floats:
    options = {"gtol": _TOLERANCE}
    # A long step may lead out of all numbers; the search then takes a shorter one.
    with np.errstate(over="ignore", invalid="ignore"):
        found = optimize.minimize(_loss, start, (task,), "BFGS", jac=True, options=options)
    end: Floats = found.x
    return end


def _single(task: Task) -> Bends:
    """One bend is where the asymptotes meet."""
    if task.left[0] == task.right[0]:
        raise InputError(
            f"the asymptotes of {task.function.name} do not meet, so one bend is too few.",
            hint="take two bits or more.",
        )
    knot = np.asarray([(task.left[1] - task.right[1]) / (task.right[0] - task.left[0])])
    return _bends(task, knot, task.left[0] * knot + task.left[1])


def _bends(task: Task, knots: Floats, heights: Floats) -> Bends:
    inner = np.diff(heights) / np.diff(knots)
    slopes = np.concatenate([[task.left[0]], inner, [task.right[0]]])
    nodes, masses = gauss_nodes(task, knots)
    distance, _ = distances(task, knots, heights, nodes)
    return Bends(knots, slopes, float((masses * distance**2).sum()))


def _knots(packed: Floats) -> Floats:
    """Return knots from the first knot, and the logarithms of the gaps after it."""
    num = (len(packed) + 2) // 2
    gaps = np.exp(packed[1:num])
    knots: Floats = packed[0] + np.append(0.0, np.cumsum(gaps))
    return knots


def _heights(packed: Floats, knots: Floats, task: Task) -> Floats:
    """Return heights: on the asymptotes at the ends, else from their distances to f."""
    heights = task.values(knots)
    heights[1:-1] += packed[len(knots) :]
    heights[0] = task.left[0] * knots[0] + task.left[1]
    heights[-1] = task.right[0] * knots[-1] + task.right[1]
    return heights


def _loss(packed: Floats, task: Task) -> tuple[float, Floats]:
    """Return the error and its gradient."""
    knots, num = _knots(packed), (len(packed) + 2) // 2
    if not (task.points[0] < knots[0] and knots[-1] < task.points[-1] and np.diff(knots).all()):
        return np.inf, np.zeros_like(packed)
    heights = _heights(packed, knots, task)
    gaps = np.diff(knots)
    nodes, masses = gauss_nodes(task, knots)
    distance, piece = distances(task, knots, heights, nodes)
    inner = (piece > 0) & (piece < num)
    piece, pull = piece[inner] - 1, (masses * distance)[inner]
    share = (nodes[inner] - knots[piece]) / gaps[piece]
    # What each knot's hat function meets to the right of it and to the left.
    right = np.append(np.bincount(piece, pull * (1 - share), num - 1), 0.0)
    left = np.append(0.0, np.bincount(piece, pull * share, num - 1))
    rates = np.diff(heights) / gaps
    by_knot = 2 * (right * np.append(rates, 0.0) + left * np.append(0.0, rates))
    by_height = -2 * (right + left)
    # The first and last heights follow their lines, the others the function.
    along = task.function.derivative_at(knots)
    along[0], along[-1] = task.left[0], task.right[0]
    by_knot += by_height * along
    later = np.cumsum(by_knot[::-1])[::-1]
    gradient = np.concatenate([later[:1], later[1:] * gaps, by_height[1:-1]])
    return float((masses * distance**2).sum()), gradient
