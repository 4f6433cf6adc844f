"""Continuous functions of straight pieces, and how far they are from a function."""

from __future__ import annotations

import dataclasses
from typing import Final

import numpy as np
import torch

from shoestring.activations.fewbit.functions import Floats, Function
from shoestring.activations.fewbit.integrals import Ints
from shoestring.activations.fewbit.weights import Weight
from shoestring.core.errors import InputError

_NODES, _FACTORS = np.polynomial.legendre.leggauss(8)
_NUM_POINTS: Final = 192
_STRAIGHT: Final = 1e-6


@dataclasses.dataclass(frozen=True, eq=False)
class Bends:
    """A continuous function of straight pieces.

    Args:
        borders: where it bends, ascending.
        slopes: of its pieces; one more than borders.
        error: the integral of its squared distance from the function, weighted.
    """

    borders: Floats
    slopes: Floats
    error: float


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """A function, a weight, cells, and the two lines that the ends must lie on.

    Args:
        function: the function.
        weight: how much places count.
        points: bounds of the cells, ascending.
        left: slope and offset of the line that the first piece is on.
        right: of the last piece's.
    """

    function: Function
    weight: Weight
    points: Floats
    left: tuple[float, float]
    right: tuple[float, float]

    def values(self, x: Floats) -> Floats:
        """Return the function's values.

        Args:
            x: where.
        """
        return _values(self.function, x)


def error_of(
    function: Function,
    weight: Weight,
    domain: tuple[float, float],
    steps: tuple[Floats, Floats],
) -> float:
    """Return how far the primitive of a step function is from the function.

    Args:
        function: the function.
        weight: how much places count.
        domain: from where to where; at its start the two are equal.
        steps: the borders, and the value of each interval, one more.
    """
    task = Task(function, weight, _points(function, weight, domain), (0.0, 0.0), (0.0, 0.0))
    borders, slopes = steps
    inside = (borders > domain[0]) & (borders < domain[1])
    knots = np.concatenate([[domain[0]], borders[inside], [domain[1]]])
    rates = slopes[np.searchsorted(borders, knots[:-1], side="right")]
    start = task.values(knots[:1])
    heights = np.concatenate([start, start + np.cumsum(rates * np.diff(knots))])
    nodes, masses = gauss_nodes(task, knots)
    distance = task.values(nodes) - np.interp(nodes, knots, heights)
    return float((masses * distance**2).sum())


def _values(function: Function, x: Floats) -> Floats:
    values: Floats = function(torch.from_numpy(x)).detach().numpy()
    return values


def _points(function: Function, weight: Weight, domain: tuple[float, float]) -> Floats:
    low, high = domain
    gathered = np.sinh(np.linspace(np.arcsinh(low), np.arcsinh(high), _NUM_POINTS + 1))
    points = np.concatenate([gathered, weight.jumps, function.kinks or ()])
    return np.unique(np.append(points[(points > low) & (points < high)], domain))


def task_of(function: Function, weight: Weight, domain: tuple[float, float]) -> Task:
    """Return a function with its asymptotes, which its tangents at the domain's ends must be.

    Args:
        function: the function.
        weight: how much places count.
        domain: from where to where.

    Raises:
        InputError: the function is not straight at the ends.
    """
    ends = np.asarray(domain)
    inner = ends + np.asarray([0.05, -0.05]) * (ends[1] - ends[0])
    slopes = function.derivative_at(ends)
    offsets = _values(function, ends) - slopes * ends
    apart = np.abs(_values(function, inner) - (slopes * inner + offsets))
    bent = np.abs(function.derivative_at(inner) - slopes)
    if not (max(*apart, *bent) <= _STRAIGHT):
        raise InputError(
            f"{function.name} is not straight at both ends of the domain.",
            hint="take objective='derivative', or a wider domain if it has linear asymptotes.",
        )
    left, right = zip(slopes.tolist(), offsets.tolist(), strict=True)
    return Task(function, weight, _points(function, weight, domain), left, right)


def gauss_nodes(task: Task, knots: Floats) -> tuple[Floats, Floats]:
    """Return Gauss points of cells that no knot divides, and what each stands for.

    Args:
        task: the cells and the weight.
        knots: ascending.

    Returns:
        Places and masses, 8 for each cell.
    """
    bounds = np.sort(np.concatenate([task.points, knots]))
    half = np.diff(bounds) / 2
    nodes = ((bounds[:-1] + half)[:, None] + half[:, None] * _NODES).ravel()
    masses = (half[:, None] * _FACTORS).ravel() * np.asarray(task.weight.density(nodes))
    return nodes, masses


def by_cell(products: Floats) -> Floats:
    """Return sums over the Gauss points of each cell.

    Args:
        products: one for each point, as `gauss_nodes` orders them.
    """
    sums: Floats = products.reshape(-1, len(_NODES)).sum(axis=1)
    return sums


def distances(task: Task, knots: Floats, heights: Floats, nodes: Floats) -> tuple[Floats, Ints]:
    """Return f less the straight pieces, and the piece of each node.

    Args:
        task: the function and its asymptotes.
        knots: where pieces meet.
        heights: at the knots.
        nodes: where.

    Returns:
        The distance and the piece at each node.
    """
    piece = np.searchsorted(knots, nodes)
    straight = np.interp(nodes, knots, heights)
    for end, (slope, offset) in ((0, task.left), (len(knots), task.right)):
        at = piece == end
        straight[at] = slope * nodes[at] + offset
    return task.values(nodes) - straight, piece
