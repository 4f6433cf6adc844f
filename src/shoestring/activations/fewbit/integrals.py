"""A derivative under a weight, sampled finely: its moments between any borders."""

from __future__ import annotations

import dataclasses
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from shoestring.activations.fewbit.functions import Floats as Floats
from shoestring.activations.fewbit.functions import Function
from shoestring.activations.fewbit.weights import Weight
from shoestring.core.errors import InputError

Ints: TypeAlias = npt.NDArray[np.int64]

_NUM_POINTS: Final = 1024
_NODES, _FACTORS = np.polynomial.legendre.leggauss(8)
_HALVINGS: Final = 60
_JUMP: Final = 1e-3  # of the derivative's range: less in no distance at all is no jump


@dataclasses.dataclass(frozen=True, eq=False)
class Samples:
    """A derivative v = f' and a weight w on a domain, in cells with 8 Gauss points each.

    Args:
        function: whose derivative it is.
        weight: how much places count.
        points: bounds of the cells, ascending; every known jump is one.
        nodes: ``[n, 8]``, the derivative at the Gauss points.
        masses: ``[n, 8]``, the integral of w that each Gauss point stands for.
        moments: ``[n, 3]``, integrals over each cell of w, v w and v^2 w.
        places: the points, those where v jumps twice.
        values: the derivative at the places; at a jump from below, then from above.
    """

    function: Function
    weight: Weight
    points: Floats
    nodes: Floats
    masses: Floats
    moments: Floats
    places: Floats
    values: Floats

    @property
    def jumps(self) -> Floats:
        """Where the derivative jumps, ascending."""
        jumps: Floats = self.places[1:][np.diff(self.places) == 0]
        return jumps

    def between(self, borders: Floats) -> Floats:
        """Return the moments between borders inside the domain, each to rounding.

        Args:
            borders: m, ascending.

        Returns:
            ``[m + 1, 3]``, the integrals of w, v w and v^2 w from each border to the next.
        """
        num_cells = len(self.moments)
        cells = np.searchsorted(self.points, borders, side="left")
        where = cells + np.arange(len(borders))  # of a border, among points and borders
        bounds = np.insert(self.points, cells, borders)
        fresh = np.zeros(num_cells + len(borders), dtype=bool)
        fresh[where - 1] = True
        fresh[where] = True
        whole = np.ones(num_cells, dtype=bool)
        whole[cells - 1] = False
        moments = np.empty((len(fresh), 3))
        moments[~fresh] = self.moments[whole]
        low, high = bounds[:-1][fresh], bounds[1:][fresh]
        moments[fresh] = _moments(*_sampled(self.function, self.weight, low, high))
        sums: Floats = np.add.reduceat(moments, np.append(0, where), axis=0)
        return sums


def samples(function: Function, weight: Weight, domain: tuple[float, float]) -> Samples:
    """Sample a derivative under a weight.

    Args:
        function: whose derivative it is. Where its kinks are not known, jumps are looked for.
        weight: how much places count.
        domain: from where to where.

    Raises:
        InputError: the derivative or the weight is not finite somewhere, the weight is negative
            or zero everywhere.
    """
    points = _points(domain, (*(function.kinks or ()), *weight.jumps))
    if function.kinks is None:
        kinks = _jumps(function, points)
        points = np.unique(np.concatenate([points, kinks]))
    else:
        kinks = np.asarray(function.kinks)
    inner = kinks[(kinks > domain[0]) & (kinks < domain[1])]
    nodes, masses = _sampled(function, weight, points[:-1], points[1:])
    places, values = _one_sided(function, points, inner)
    _check(function, np.append(nodes, values), masses)
    return Samples(
        function=function,
        weight=weight,
        points=points,
        nodes=nodes,
        masses=masses,
        moments=_moments(nodes, masses),
        places=places,
        values=values,
    )


def _points(domain: tuple[float, float], needed: tuple[float, ...]) -> Floats:
    """Return points evenly over the domain, others that gather at zero, and those needed."""
    low, high = domain
    even = np.linspace(low, high, _NUM_POINTS + 1)
    gathered = np.sinh(np.linspace(np.arcsinh(low), np.arcsinh(high), _NUM_POINTS + 1))
    points = np.concatenate([even, gathered, needed])
    return np.unique(np.append(points[(points > low) & (points < high)], domain))


def _sampled(
    function: Function, weight: Weight, low: Floats, high: Floats
) -> tuple[Floats, Floats]:
    half = (high - low) / 2
    places = (low + half)[:, None] + half[:, None] * _NODES
    masses = np.asarray(weight.density(places), dtype=np.float64) * (half[:, None] * _FACTORS)
    return function.derivative_at(places), masses


def _moments(nodes: Floats, masses: Floats) -> Floats:
    first = nodes * masses
    stacked = (masses.sum(1), first.sum(1), (nodes * first).sum(1))
    return np.stack(stacked, axis=1)


def _check(function: Function, slopes: Floats, masses: Floats) -> None:
    if not np.isfinite(slopes).all():
        raise InputError(
            f"the derivative of {function.name} is not finite on the whole domain.",
            hint="give a domain on which it is.",
        )
    if not np.isfinite(masses).all() or masses.min() < 0:
        raise InputError(
            "the weight is negative or not finite somewhere.",
            hint="give a weight from 0 up on the whole domain.",
        )
    if not masses.sum() > 0:
        raise InputError(
            "the weight is zero on the whole domain.", hint="give a domain that has some weight."
        )


def _one_sided(function: Function, points: Floats, kinks: Floats) -> tuple[Floats, Floats]:
    """Return places and values, with both one-sided values where they differ."""
    low = function.derivative_at(np.nextafter(kinks, -np.inf))
    high = function.derivative_at(np.nextafter(kinks, np.inf))
    jumps = kinks[np.abs(high - low) > 1e-12 * (np.abs(high) + np.abs(low))]
    places = np.sort(np.concatenate([points, jumps]))
    seen = places.copy()
    first = np.searchsorted(places, jumps)
    seen[first] = np.nextafter(jumps, -np.inf)
    seen[first + 1] = np.nextafter(jumps, np.inf)
    return places, function.derivative_at(seen)


def _jumps(function: Function, points: Floats) -> Floats:
    """Look for jumps of a derivative: where halving a cell leaves a difference."""
    values = function.derivative_at(points)
    smallest = _JUMP * np.ptp(values)
    steep = np.abs(np.diff(values)) > smallest
    low, high = points[:-1][steep], points[1:][steep]
    at_low, at_high = values[:-1][steep], values[1:][steep]
    for _ in range(_HALVINGS):
        middle = low + (high - low) / 2
        at_middle = function.derivative_at(middle)
        left = np.abs(at_middle - at_low) >= np.abs(at_high - at_middle)
        low, high = np.where(left, low, middle), np.where(left, middle, high)
        at_low, at_high = np.where(left, at_low, at_middle), np.where(left, at_middle, at_high)
    # A halved cell that shrank to two neighbours: the lower one is where torch's rule changes.
    return np.unique(low[np.abs(at_high - at_low) > smallest])
