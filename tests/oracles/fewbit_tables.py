"""Few-bit tables by definition: every partition tried, integrals by scipy; figures of others."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
from scipy import integrate

Curve = Callable[[float], float]

# E on [-100, 100] with w = 1, for 1 to 4 bits, of the tables in fewbit/data/builtin.npz of
# github.com/SkoltechAI/fewbit at 940706b: their borders and levels integrated with scipy's quad.
SHIPPED = {
    "gelu": (0.141047397, 0.0447531786, 0.0119893486, 0.00411388092),
    "silu": (0.214978022, 0.0594140775, 0.0279082626, 0.00538045817),
    "mish": (0.170015486, 0.0489511114, 0.0141141518, 0.0038620316),
    "elu": (0.190254374, 0.0269212319, 0.00718231725, 0.00160034893),
    "celu": (0.190254374, 0.0269212319, 0.00718231725, 0.00160034893),
    "selu": (0.28565046, 0.380826245, 0.0995751228, 0.0363856849),
    "hardswish": (0.5, 0.275525457, 0.0555555556, 0.26179958),
    "sigmoid": (0.15729392, 0.0148779766, 0.00330804127, 0.00109734798),
    "tanh": (1.29469935, 0.119609678, 0.0265200198, 0.00877706357),
    "softsign": (0.633897902, 0.121580958, 0.0333374526, 0.0119150114),
    "softplus": (0.376685306, 0.0610046251, 0.012955226, 0.00301391863),
    "logsigmoid": (0.376685306, 0.0610046251, 0.0129552261, 0.00301392823),
    "tanhshrink": (1.29532482, 0.119609678, 0.0265200206, 0.00877706881),
}
# Where those tables stopped in a local minimum, so that an optimum is at least 5 % below.
STOPPED_EARLY = (
    *(("gelu", 4), ("silu", 3), ("silu", 4), ("elu", 3), ("elu", 4), ("celu", 3), ("celu", 4)),
    *(("selu", 2), ("selu", 3), ("selu", 4), ("hardswish", 2), ("hardswish", 4)),
    *(("sigmoid", 4), ("tanh", 4), ("softsign", 4), ("tanhshrink", 4)),
)
# Borders and levels of stationary tables, by a dynamic program on 1219 points and Lloyd's
# iteration, written by another hand; w = 1 on [-100, 100], then the normal density.
UNIFORM = {
    ("gelu", 2): ((-0.453601, 0, 0.453601), (-0.001481, 0.325058, 0.674942, 1.001481)),
    ("gelu", 3): (
        (-2.415516, -0.710125, -0.325949, 0, 0.325949, 0.710125, 2.415516),
        (-0.000194, -0.088314, 0.125616, 0.372231, 0.627769, 0.874384, 1.088314, 1.000194),
    ),
    ("silu", 3): (
        (-4.701533, -1.130561, -0.509549, 0, 0.509549, 1.130561, 4.701533),
        (-0.000444, -0.065419, 0.136372, 0.375299, 0.624701, 0.863628, 1.065419, 1.000444),
    ),
}
NORMAL = {
    ("gelu", 2): ((-0.49896, 0, 0.49896), (-0.04639, 0.31268, 0.68732, 1.04639)),
    ("gelu", 3): (
        (-0.77935, -0.46925, -0.22402, 0, 0.22402, 0.46925, 0.77935),
        (-0.09002, 0.06683, 0.23669, 0.41174, 0.58826, 0.76331, 0.93317, 1.09002),
    ),
    ("silu", 3): (
        (-1.12681, -0.66398, -0.31422, 0, 0.31422, 0.66398, 1.12681),
        (-0.04068, 0.11361, 0.26816, 0.42272, 0.57728, 0.73184, 0.88639, 1.04068),
    ),
}
SHARED_LEVELS = {
    "gelu": (-0.09814, -0.000169, 0.188762, 0.394581, 0.605419, 0.811238, 1.000169, 1.09814),
    "silu": (-0.074139, -0.000391, 0.185073, 0.392838, 0.607162, 0.814927, 1.000391, 1.074139),
}
# Steps a at c of the derivatives of ReGELU2 and ReSiLU2, from csrc/*2_cuda.cu of
# github.com/yyyyychen/LowMemoryBP.
PRIMITIVE = {
    "gelu": (
        (-0.04922261145617846, 1.0979632065417297, -0.048740595085551286),
        (-3.1858810036855245, -0.001178821281161997, 3.190832613414926),
    ),
    "silu": (
        (-0.04060357190528599, 1.080925428529668, -0.040321856624382146),
        (-6.3050461001646445, -0.0008684942046214787, 6.325815242089708),
    ),
}


def run_cost(cells: Sequence[Sequence[float]]) -> float:
    """Return the weighted variance of a run of cells, each with its w, v w and v^2 w."""
    mass, first, second = (sum(cell[i] for cell in cells) for i in range(3))
    return second - first**2 / mass if mass > 0 else 0.0


def least_cost(cells: Sequence[Sequence[float]], count: int) -> float:
    """Return the cost of the best partition into runs: all of them are tried."""
    inner = range(1, len(cells))
    return min(
        sum(run_cost(cells[a:b]) for a, b in itertools.pairwise((0, *cuts, len(cells))))
        for cuts in itertools.combinations(inner, count - 1)
    )


def cells_of(curve: Curve, weight: Curve, points: Sequence[float]) -> list[list[float]]:
    """Return integrals of w, v w and v^2 w between points."""
    return [
        [_integral(lambda x, p=p: curve(x) ** p * weight(x), a, b) for p in range(3)]
        for a, b in itertools.pairwise(points)
    ]


def error(
    curve: Curve,
    borders: Sequence[float],
    values: Sequence[float],
    domain: tuple[float, float],
    weight: Curve = lambda _: 1.0,
) -> float:
    """Return the integral of ``(curve - value)^2 w``, interval by interval."""
    bounds = (domain[0], *borders, domain[1])
    return sum(
        _integral(lambda x, y=y: (curve(x) - y) ** 2 * weight(x), a, b)
        for (a, b), y in zip(itertools.pairwise(bounds), values, strict=True)
    )


def _integral(curve: Curve, low: float, high: float) -> float:
    """Integrate a curve that is smooth but for zero, and varies most near it."""
    stops = [x for x in (-30, -10, -4, -1, 0, 1, 4, 10, 30) if low < x < high]
    parts = itertools.pairwise((low, *stops, high))
    return float(sum(integrate.quad(curve, a, b, limit=200, epsabs=1e-12)[0] for a, b in parts))


def nearest(values: np.ndarray, levels: Sequence[float]) -> np.ndarray:
    """Return the nearest level of each value."""
    table = np.asarray(levels)
    return table[np.abs(values[:, None] - table).argmin(axis=1)]
