"""From the best table on a grid to a stationary one: every border where its levels are as far."""

from __future__ import annotations

import dataclasses
from typing import Final

import numpy as np

from shoestring.activations.fewbit.functions import Floats
from shoestring.activations.fewbit.integrals import Ints, Samples

_ROUNDS: Final = 40  # of finding all borders anew; a few suffice unless a topology changes
_STEPS: Final = 60  # of Newton's method in a round
_HALVINGS: Final = 6
_ROOT_STEPS: Final = 200
_SMALL: Final = 1e-12
_DIFFERENCE: Final = 1e-6
_ROUNDING: Final = 1e-14


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
    """A step function: which level is in which interval.

    Args:
        borders: m, ascending.
        codes: m + 1, the level of each interval.
        levels: K, in whatever order.
        error: the integral of ``(f' - level)^2 w``.
    """

    borders: Floats
    codes: Ints
    levels: Floats
    error: float


def table(samples: Samples, borders: Floats, codes: Ints, levels: Floats) -> Table:
    """Return the table of these borders with the best levels.

    Args:
        samples: the derivative and the weight.
        borders: m, ascending, inside the domain.
        codes: m + 1, the level of each interval.
        levels: K; those whose intervals have no weight stay.
    """
    best, _, error = _means(samples, borders, codes, levels)
    return Table(borders, codes, best, error)


def error_of(samples: Samples, found: Table) -> float:
    """Return the integral of ``(f' - level)^2 w`` of a table as it is.

    Args:
        samples: the derivative and the weight.
        found: the table.
    """
    mass, first, second = samples.between(found.borders).T
    level = found.levels[found.codes]
    terms = second - 2 * level * first + level * level * mass
    return max(float(terms.sum()), 0.0)


def polished_contiguous(samples: Samples, borders: Floats) -> Table:
    """Return a stationary table near given borders, each level with one interval.

    Args:
        samples: the derivative and the weight.
        borders: K - 1, ascending.
    """
    codes = np.arange(len(borders) + 1)
    middles = np.append(np.insert(borders, 0, samples.points[0]), samples.points[-1])
    levels = samples.function.derivative_at((middles[1:] + middles[:-1]) / 2)
    found = table(samples, borders, codes, levels)
    for _ in range(_ROUNDS):
        found = _newton(samples, found)
        moved = _nearest_borders(samples, found)
        better = table(samples, moved, codes, found.levels)
        if not _is_better(samples, better, found):
            return found
        found = better
    return found


def polished_shared(samples: Samples, levels: Floats) -> Table:
    """Return a stationary table near given levels, each input with the level nearest to f'.

    Args:
        samples: the derivative and the weight.
        levels: K.
    """
    found = _quantised(samples, levels)
    for _ in range(_ROUNDS):
        found = _newton(samples, found)
        better = _quantised(samples, found.levels)
        if not _is_better(samples, better, found):
            break
        found = better
    return found


def _is_better(samples: Samples, new: Table, old: Table) -> bool:
    return new.error < old.error - _ROUNDING * float(samples.moments[:, 2].sum())


def _quantised(samples: Samples, levels: Floats) -> Table:
    """Give each input the level nearest to f', then each level its mean."""
    ordered = np.sort(levels)
    borders, codes = nearest_levels(samples, ordered)
    return table(samples, borders, codes, ordered)


def nearest_levels(samples: Samples, levels: Floats) -> tuple[Floats, Ints]:
    """Return the borders between the inputs whose f' is nearest to different levels.

    Args:
        samples: the derivative.
        levels: K, ascending.

    Returns:
        Borders, ascending, and the level of each interval.
    """
    middles = (levels[1:] + levels[:-1]) / 2
    code = np.searchsorted(middles, samples.values)
    change = np.diff(code)
    cells = np.flatnonzero(change)
    across_jump = np.diff(samples.places)[cells] == 0
    # A jump is one border, however many levels it passes; a slope has one for each of them.
    repeats = np.where(across_jump, 1, np.abs(change[cells]))
    cell = np.repeat(cells, repeats)
    step = np.arange(len(cell)) - np.repeat(np.cumsum(repeats) - repeats, repeats)
    rising = change[cell] > 0
    middle = np.where(rising, code[cell] + step, code[cell] - 1 - step)
    borders = _roots(samples, cell, middles[middle])
    after = np.where(rising, middle + 1, middle)
    after = np.where(np.repeat(across_jump, repeats), code[cell + 1], after)
    codes = np.append(code[0], after)
    # Two thresholds less than rounding apart: what is between them is empty.
    kept = np.append(np.diff(borders) > 0, np.ones(min(len(borders), 1), dtype=bool))
    return borders[kept], codes[np.append(True, kept)]


def _roots(samples: Samples, cell: Ints, wanted: Floats) -> Floats:
    """Return where f' takes values, in cells at whose ends it is on different sides of them."""
    low, high = samples.places[cell].copy(), samples.places[cell + 1].copy()
    at_low, at_high = samples.values[cell] - wanted, samples.values[cell + 1] - wanted
    for step in range(_ROOT_STEPS):
        wide = high - low > 4 * np.spacing(np.maximum(np.abs(low), np.abs(high)))
        open_ = wide & (at_low != 0) & (at_high != 0)
        if not open_.any():
            break
        difference = np.where(at_high != at_low, at_high - at_low, 1.0)
        middle = (low * at_high - high * at_low) / difference
        outside = ~((middle > low) & (middle < high))
        # Every third step halves, so that a bend cannot hold up the secants.
        middle = np.where(outside | (step % 3 == 2), low + (high - low) / 2, middle)
        middle = np.where(open_, middle, low)
        at = np.where(open_, samples.function.derivative_at(middle) - wanted, at_low)
        left = np.sign(at) == np.sign(at_low)
        # The end that stays counts half: the Illinois rule.
        at_high = np.where(open_, np.where(left, at_high / 2, at), at_high)
        at_low = np.where(open_, np.where(left, at, at_low / 2), at_low)
        low = np.where(open_ & left, middle, low)
        high = np.where(open_ & ~left, middle, high)
    return np.where(np.abs(at_low) <= np.abs(at_high), low, high)


def _nearest_borders(samples: Samples, found: Table) -> Floats:
    """Move each border to the nearest place where f' passes between its levels."""
    level = found.levels[found.codes]
    wanted = (level[1:] + level[:-1]) / 2
    rising = np.sign(np.diff(level))
    side = np.sign(samples.values[:, None] - wanted) * rising
    passes = (side[:-1] <= 0) & (side[1:] >= 0) & (side[:-1] != side[1:])
    centre = (samples.places[1:] + samples.places[:-1]) / 2
    away = np.where(passes, np.abs(centre[:, None] - found.borders), np.inf)
    cell = away.argmin(axis=0)
    exists = np.isfinite(away.min(axis=0))
    moved = np.where(exists, _roots(samples, np.where(exists, cell, 0), wanted), found.borders)
    return moved if _in_order(samples, moved) else found.borders


def _in_order(samples: Samples, borders: Floats) -> bool:
    low, high = samples.points[0], samples.points[-1]
    bounded = np.append(np.insert(borders, 0, low), high)
    return bool((np.diff(bounded) > 0).all())


def _means(
    samples: Samples, borders: Floats, codes: Ints, levels: Floats
) -> tuple[Floats, Floats, float]:
    """Return the best levels, their masses, and the error."""
    moments = samples.between(borders)
    sums = np.stack([np.bincount(codes, column, len(levels)) for column in moments.T])
    mass, first, second = sums
    has = mass > 0
    best = np.where(has, first / np.where(has, mass, 1.0), levels)
    error = float((second - best * first).sum())
    return best, mass, max(error, 0.0)


def _newton(samples: Samples, found: Table) -> Table:
    """Solve for borders at the middle between their levels, which of them is where being given.

    The error never rises: a step that would raise it is halved, then given up.
    """
    for _ in range(_STEPS):
        if not len(found.borders):
            return found
        step = _step(samples, found)
        better = _shortened(samples, found, step)
        if better is None:
            return found
        moved = np.abs(better.borders - found.borders)
        found = better
        if (moved <= _SMALL * (1 + np.abs(found.borders))).all():
            return found
    return found


def _shortened(samples: Samples, found: Table, step: Floats) -> Table | None:
    slack = _ROUNDING * float(samples.moments[:, 2].sum())
    for _ in range(_HALVINGS):
        moved = found.borders + step
        if _in_order(samples, moved):
            better = table(samples, moved, found.codes, found.levels)
            if better.error <= found.error + slack:
                return better
        step = step / 2
    return None


def _step(samples: Samples, found: Table) -> Floats:
    r"""Return Newton's step for r_b = f'(s_b) - (y_left + y_right) / 2 = 0 in the borders s."""
    s, codes, levels = found.borders, found.codes, found.levels
    _, mass, _ = _means(samples, s, codes, levels)
    left, right = codes[:-1], codes[1:]
    nearby = np.stack([s - _DIFFERENCE, s, s + _DIFFERENCE])
    below, at, above = samples.function.derivative_at(nearby)
    residual = at - (levels[left] + levels[right]) / 2
    density = np.asarray(samples.weight.density(s), dtype=np.float64)
    # How the level of each code moves with each border: dy_c / ds_a.
    safe = np.where(mass > 0, mass, np.inf)
    slopes = np.zeros((len(levels), len(s)))
    each = np.arange(len(s))
    slopes[left, each] += density * (at - levels[left]) / safe[left]
    slopes[right, each] -= density * (at - levels[right]) / safe[right]
    matrix = -(slopes[left] + slopes[right]) / 2
    matrix[each, each] += (above - below) / (2 * _DIFFERENCE)
    # A border on a jump that passes the middle stays there.
    held = np.isin(s, samples.jumps)
    matrix[held] = 0.0
    matrix[each[held], each[held]] = 1.0
    residual[held] = 0.0
    try:
        step: Floats = -np.linalg.solve(matrix, residual)
    except np.linalg.LinAlgError:
        return np.zeros_like(s)
    return np.where(np.isfinite(step), step, 0.0)
