"""The best partition of ordered cells into runs with one level each: an exact dynamic program.

The program is exact on the cells it is given. Taken in the order of inputs they give the best
contiguous table; in the order of the derivative's values, the best table with shared levels, since
the best quantiser of a number has intervals of values as its cells. Costs are looked up in a full
matrix: with about 500 cells that is quicker, in array operations, than the methods that use the
monotone structure of the second problem, and the first has no such structure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from shoestring.activations.fewbit.functions import Floats
from shoestring.activations.fewbit.integrals import Ints, Samples

_NUM_CELLS: Final = 512
_EVENLY: Final = 0.2  # share of the cells that lie evenly, wherever the derivative varies


def partitions(moments: Floats, counts: Sequence[int]) -> dict[int, Ints]:
    r"""Return the best partitions of cells into numbers of runs.

    The cost of a run of cells i to j - 1 is its weighted variance,

    .. math::

        c(i, j) = Q - P^2 / W, \qquad (W, P, Q) = \sum_{i \le k < j} \int_k (1, v, v^2) \, w,

    zero where W is, and the program is :math:`D_k(j) = \min_{i < j} D_{k-1}(i) + c(i, j)`.

    Args:
        moments: ``[n, 3]``, of each cell: the integrals of w, v w and v^2 w.
        counts: numbers of runs, each from 1 to n.

    Returns:
        For each count the index of the first cell of each run but the first.

    Source: Novikov et al., Few-bit backward: quantized gradients of activation functions for
    memory footprint reduction (2022), its dynamic program.

    Example:
        >>> cells = np.array([[1.0, 0.0, 0.0], [1.0, 0.1, 0.01], [1.0, 2.0, 4.0]])
        >>> partitions(cells, [2])[2].tolist()
        [2]
    """
    costs = run_costs(moments)
    best = costs[:, 0].copy()
    choices = []
    total = np.empty_like(costs)
    rows = np.arange(len(costs))
    for _ in range(1, max(counts)):
        np.add(costs, best, out=total)
        choice = total.argmin(axis=1)
        best = total[rows, choice]
        choices.append(choice)
    return {count: _backtracked(choices[: count - 1]) for count in counts}


def run_costs(moments: Floats) -> Floats:
    """Return the cost of every run of cells.

    Args:
        moments: ``[n, 3]``, of each cell.

    Returns:
        ``[n + 1, n + 1]``: at ``[j, i]`` the cost of cells i to j - 1; infinite where i >= j.
    """
    mass, first, second = np.concatenate([np.zeros((1, 3)), np.cumsum(moments, axis=0)]).T
    costs: Floats = np.subtract.outer(first, first)
    costs *= costs
    masses = np.subtract.outer(mass, mass)
    # Where there is no mass, there is nothing to divide, and nothing to pay.
    np.divide(costs, masses, out=costs, where=masses > 0)
    costs[masses <= 0] = 0.0
    np.subtract(np.subtract.outer(second, second), costs, out=costs)
    np.maximum(costs, 0.0, out=costs)
    costs[np.triu_indices(len(costs))] = np.inf
    return costs


def _backtracked(choices: Sequence[Ints]) -> Ints:
    cuts = [len(choices[0]) - 1] if choices else []
    for choice in reversed(choices):
        cuts.append(int(choice[cuts[-1]]))
    return np.asarray(cuts[:0:-1], dtype=np.int64)


def contiguous(samples: Samples, counts: Sequence[int]) -> dict[int, Floats]:
    """Return the borders of the best tables in which each level has one interval.

    They are best among borders on a grid of about 500 of the samples' points, dense where the
    derivative varies, all its jumps included.

    Args:
        samples: the derivative and the weight.
        counts: numbers of levels.
    """
    spread = np.ptp(samples.nodes, axis=1)
    evenly = np.diff(np.arcsinh(samples.points))
    cuts = _thinned(_density(samples.moments[:, 0], spread), evenly, _num_cells(counts))
    # A border on a jump is common, and nothing near it is as good.
    cuts = np.union1d(cuts, np.searchsorted(samples.points, samples.jumps))
    found = partitions(np.add.reduceat(samples.moments, cuts, axis=0), counts)
    return {count: samples.points[cuts[runs]] for count, runs in found.items()}


def shared(samples: Samples, counts: Sequence[int]) -> dict[int, Floats]:
    """Return the levels of the best tables in which intervals may share a level.

    They are best for the derivative's values at the Gauss points, put together to about 500 cells
    of neighbouring values.

    Args:
        samples: the derivative and the weight.
        counts: numbers of levels.

    Returns:
        For each count its levels, ascending. Where the derivative has fewer values, the last of
        them is repeated.
    """
    order = np.argsort(samples.nodes, axis=None)
    values, masses = samples.nodes.ravel()[order], samples.masses.ravel()[order]
    gaps = np.diff(values, prepend=values[0])
    span = max(float(gaps.sum()), np.finfo(np.float64).tiny)
    cuts = _thinned(_density(masses, gaps), gaps / span, _num_cells(counts))
    # Equal values stay together.
    cuts = np.unique(np.searchsorted(values, values[cuts]))
    atoms = np.stack([masses, masses * values, masses * values * values], axis=1)
    cells = np.add.reduceat(atoms, cuts, axis=0)
    cells = cells[cells[:, 0] > 0]
    available = [min(count, len(cells)) for count in counts]
    found = partitions(cells, available)
    return {
        count: _means(cells, found[few], count)
        for count, few in zip(counts, available, strict=True)
    }


def _means(cells: Floats, runs: Ints, count: int) -> Floats:
    sums = np.add.reduceat(cells, np.append(0, runs), axis=0)
    levels = np.sort(sums[:, 1] / sums[:, 0])
    return np.append(levels, np.full(count - len(levels), levels[-1]))


def _num_cells(counts: Sequence[int]) -> int:
    return max(_NUM_CELLS, 4 * max(counts))


def _density(masses: Floats, spread: Floats) -> Floats:
    """Return how many borders a good quantiser has in each cell, up to a factor."""
    density: Floats = np.cbrt(masses * spread * spread)
    return density


def _thinned(density: Floats, evenly: Floats, num: int) -> Ints:
    """Return the first cells of about num groups of equal density, a few of them even."""
    share = (1 - _EVENLY) * density / max(float(density.sum()), np.finfo(np.float64).tiny)
    share += _EVENLY * evenly / max(float(evenly.sum()), np.finfo(np.float64).tiny)
    reached = np.cumsum(share)
    wanted = np.linspace(0, reached[-1], num + 1)[1:-1]
    return np.unique(np.append(0, np.searchsorted(reached, wanted) + 1)).clip(max=len(density) - 1)
