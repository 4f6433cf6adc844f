"""Numbers that count what is done with them, and textbook formulas written with them.

A formula is written as in a book and run on single numbers. What it does once for a row or a
channel stands inside of ``once()``, and does not count.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence


class Tally:
    """How many operations there were."""

    operations = 0
    silent = False


def _operation() -> None:
    if not Tally.silent:
        Tally.operations += 1


class Scalar:
    """A number that counts sums, products, comparisons and signs."""

    def __init__(self, value: float) -> None:
        self.value = float(value)

    def __add__(self, other: Scalar | float) -> Scalar:
        _operation()
        return Scalar(self.value + number(other))

    def __sub__(self, other: Scalar | float) -> Scalar:
        _operation()
        return Scalar(self.value - number(other))

    def __mul__(self, other: Scalar | float) -> Scalar:
        _operation()
        return Scalar(self.value * number(other))

    def __truediv__(self, other: Scalar | float) -> Scalar:
        _operation()
        return Scalar(self.value / number(other))

    def __neg__(self) -> Scalar:
        _operation()
        return Scalar(-self.value)

    def __abs__(self) -> Scalar:
        _operation()
        return Scalar(abs(self.value))

    def __gt__(self, other: Scalar | float) -> bool:
        _operation()
        return self.value > number(other)

    __radd__, __rmul__ = __add__, __mul__

    def __rsub__(self, other: float) -> Scalar:
        return Scalar(other) - self


def number(value: Scalar | float) -> float:
    """Return what stands behind a number."""
    return value.value if isinstance(value, Scalar) else value


def function(compute: Callable[[float], float]) -> Callable[[Scalar], Scalar]:
    """Return a function of one number, which is one operation."""

    def call(x: Scalar) -> Scalar:
        _operation()
        return Scalar(compute(x.value))

    return call


exp, log, erf, tanh, sqrt = map(function, (math.exp, math.log, math.erf, math.tanh, math.sqrt))
log1p, expm1 = map(function, (math.log1p, math.expm1))
sigmoid = function(lambda v: 1 / (1 + math.exp(-v)))


def larger(a: Scalar, b: Scalar | float) -> Scalar:
    """Return the larger of two."""
    return a if a > b else Scalar(number(b))


def smaller(a: Scalar, b: Scalar | float) -> Scalar:
    """Return the smaller of two."""
    return Scalar(number(b)) if a > b else a


@contextlib.contextmanager
def once() -> Iterator[None]:
    """Leave out what is done once for a row."""
    Tally.silent = True
    try:
        yield
    finally:
        Tally.silent = False


def operations(formula: Callable[..., object], *arguments: object) -> int:
    """Return how many operations a formula takes."""
    Tally.operations = 0
    formula(*arguments)
    return Tally.operations


def row(n: int) -> list[Scalar]:
    """Return n numbers."""
    return [Scalar(0.3 + 0.1 * i) for i in range(n)]


def total(xs: Sequence[Scalar]) -> Scalar:
    """Add numbers to zero, one after the other."""
    found = Scalar(0.0)
    for x in xs:
        found = found + x
    return found


def largest(xs: Sequence[Scalar]) -> Scalar:
    """Compare numbers with the largest so far."""
    found = Scalar(-math.inf)
    for x in xs:
        found = larger(found, x)
    return found


# --- rows ------------------------------------------------------------------------------------


def softmax(xs: Sequence[Scalar]) -> list[Scalar]:
    top = largest(xs)
    powers = [exp(x - top) for x in xs]
    whole = total(powers)
    return [p / whole for p in powers]


def log_softmax(xs: Sequence[Scalar]) -> list[Scalar]:
    top = largest(xs)
    shifted = [x - top for x in xs]
    whole = total([exp(s) for s in shifted])
    with once():
        whole = log(whole)
    return [s - whole for s in shifted]


def softmax_backward(ys: Sequence[Scalar], gs: Sequence[Scalar]) -> list[Scalar]:
    inner = total([y * g for y, g in zip(ys, gs, strict=True)])
    return [y * (g - inner) for y, g in zip(ys, gs, strict=True)]


def log_softmax_backward(ys: Sequence[Scalar], gs: Sequence[Scalar]) -> list[Scalar]:
    inner = total(gs)
    return [g - exp(y) * inner for y, g in zip(ys, gs, strict=True)]


def logsumexp(xs: Sequence[Scalar]) -> Scalar:
    top = largest(xs)
    whole = total([exp(x - top) for x in xs])
    with once():
        return log(whole) + top


def moments(xs: Sequence[Scalar]) -> tuple[Scalar, Scalar]:
    mean = total(xs)
    with once():
        mean = mean / len(xs)
    parts = [x - mean for x in xs]
    spread = total([p * p for p in parts])
    with once():
        return mean, Scalar(1.0) / sqrt(spread / len(xs) + 1e-5)


def normalise(
    xs: Sequence[Scalar], weights: Sequence[Scalar] | None, biases: Sequence[Scalar] | None
) -> list[Scalar]:
    """A layer, group or batch norm of one row; a weight and a bias for each number."""
    mean, scale = moments(xs)
    ys = [(x - mean) * scale for x in xs]
    if weights is not None:
        ys = [y * w for y, w in zip(ys, weights, strict=True)]
    if biases is not None:
        ys = [y + b for y, b in zip(ys, biases, strict=True)]
    return ys


def normalise_backward(
    xs: Sequence[Scalar],
    gs: Sequence[Scalar],
    weights: Sequence[Scalar] | None,
    wanted: tuple[bool, bool, bool],
) -> None:
    """Its gradients, of input, weight and bias."""
    mean, scale = Scalar(0.1), Scalar(2.0)
    if wanted[0] or wanted[1]:
        hats = [(x - mean) * scale for x in xs]
    if wanted[0]:
        scaled = gs if weights is None else [g * w for g, w in zip(gs, weights, strict=True)]
        a = total(scaled)
        b = total([s * h for s, h in zip(scaled, hats, strict=True)])
        _ = [(s - a - h * b) * scale for s, h in zip(scaled, hats, strict=True)]
    if wanted[1]:
        total([g * h for g, h in zip(gs, hats, strict=True)])
    if wanted[2]:
        total(gs)


def batch_norm_backward(
    xs: Sequence[Scalar], gs: Sequence[Scalar], wanted: tuple[bool, bool, bool]
) -> None:
    """Gradients of a channel, whose weight is one number and whose sums serve all three."""
    mean, scale = Scalar(0.1), Scalar(2.0)
    if wanted[0] or wanted[1]:
        hats = [(x - mean) * scale for x in xs]
        b = total([g * h for g, h in zip(gs, hats, strict=True)])
    if wanted[0] or wanted[2]:
        a = total(gs)
    if wanted[0]:
        _ = [(g - a - h * b) * scale for g, h in zip(gs, hats, strict=True)]


def rms_norm(xs: Sequence[Scalar], weights: Sequence[Scalar] | None) -> list[Scalar]:
    total([x * x for x in xs])
    ys = [x * Scalar(0.5) for x in xs]
    return ys if weights is None else [y * w for y, w in zip(ys, weights, strict=True)]


# --- steps of optimizers, for one parameter ---------------------------------------------------


def adam(p: Scalar, g: Scalar, m: Scalar, v: Scalar, *, decay: float, decoupled: bool) -> Scalar:
    """Adam (with L2 in the gradient) and AdamW; corrections of bias are made once."""
    if decay and decoupled:
        p = p * (1 - decay)
    elif decay:
        g = g + p * decay
    m = m + (g - m) * 0.1
    v = v * 0.999 + g * g * 0.001
    return p - m / (sqrt(v) / 0.9 + 1e-8) * 0.001


def adagrad(p: Scalar, g: Scalar, s: Scalar, *, decay: float) -> Scalar:
    if decay:
        g = g + p * decay
    s = s + g * g
    return p - g / (sqrt(s) + 1e-10) * 0.01


def sgd(
    p: Scalar, g: Scalar, m: Scalar | None, *, decay: float, damping: float, nesterov: bool
) -> Scalar:
    """``m`` is None without momentum."""
    if decay:
        g = g + p * decay
    if m is not None:
        m = m * 0.9 + (g * (1 - damping) if damping else g)
        g = g + m * 0.9 if nesterov else m
    return p - g * 0.01
