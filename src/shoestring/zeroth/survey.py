"""What the loss looks like around the parameters: how far to ask, and how far to step."""

from __future__ import annotations

import dataclasses
import itertools
import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import torch
from torch import nn

from shoestring.core.errors import InputError
from shoestring.zeroth.asking import Closure
from shoestring.zeroth.rates import Start, kept_up
from shoestring.zeroth.sgd import ZOSGD

RADII: Final = tuple(4.0**-k for k in range(8, 0, -1))
"""What is tried for eps: from 1.5e-5 to 0.25."""

GROWTH: Final = 6.0
"""By how much the curvature of networks that are trained grows, and the noise with it."""

STEPS: Final = 1000
"""Of a run whose length is not said."""

_FEW: Final = 4
"""Directions that the radii are compared along, and the curvature farther away."""


@dataclasses.dataclass(frozen=True)
class Survey:
    """What was found around the parameters.

    Attributes:
        lr: learning rate of `ZOSGD` that makes the most of a run.
        eps: the largest radius at which slopes are found as they are nearby, to 1 %.
        slope: root of the mean square of the slopes along directions, less the noise's part: the
            gradient's length; 0 where that is too short to be told from the noise.
        noise: standard error of one batch's slope along a direction; 0 where it is unknown.
        curvature: root of the mean square of the curvatures along directions; about the trace of
            the Hessian, where that is large.
        loss: at the parameters.
        evaluations: how often a closure was called.
    """

    lr: float
    eps: float
    slope: float
    noise: float
    curvature: float
    loss: float
    evaluations: int

    @property
    def signal(self) -> float:
        """Square of the slope over the square of the noise; infinite where noise is unknown."""
        return (self.slope / self.noise) ** 2 if self.noise else math.inf

    def __str__(self) -> str:
        lines = [
            f"lr {self.lr:.2e}, eps {self.eps:.1e} (from {self.evaluations} evaluations)",
            f"slope {self.slope:.2e}, curvature {self.curvature:.2e} along a direction",
        ]
        if self.noise:
            lines.append(f"noise of a batch {self.noise:.2e}: signal to noise {self.signal:.2g}")
        return "\n".join(lines)


class _Around(NamedTuple):
    """What the losses at one radius come to, by direction.

    Attributes:
        slopes: along each.
        bends: second derivatives along each.
        errors: standard errors of the slopes, where they are known.
    """

    slopes: tuple[float, ...]
    bends: tuple[float, ...]
    errors: tuple[float, ...]


@torch.no_grad()
def survey(
    params: nn.Module | Iterable[torch.Tensor],
    closure: Closure | Sequence[Closure],
    *,
    directions: str = "rademacher",
    count: int | None = None,
    steps: int = STEPS,
    growth: float = GROWTH,
    seed: int = 0,
) -> Survey:
    r"""Measure slopes, curvature and noise of a loss along random directions.

    Slopes :math:`\rho(\epsilon) = (f(x + \epsilon z) - f(x - \epsilon z)) / 2 \epsilon` at radii
    from 1.5e-5 to 0.25 agree with those at the next radius where neither rounding nor the loss's
    higher derivatives blur them: the largest such radius is `eps`. Bends
    :math:`(f_+ + f_- - 2 f) / \epsilon^2` have the mean :math:`b = \mathrm{tr}(H)`.

    A step of `ZOSGD` with learning rate :math:`\gamma` lowers a quadratic by
    :math:`\gamma \|g\|^2 - \gamma^2 b (\|g\|^2 + \sigma^2) / 2` on the mean, with :math:`\|g\|` the
    slope and :math:`\sigma` the noise of a batch. Without noise that is most
    at :math:`1 / b`, and that over `growth` is taken, since curvature grows in training. With
    noise the whole run decides: along :math:`v = \gamma T \|g\|^2 / f`, for :math:`T` steps, what
    is left of the loss :math:`f`, all of which may be gained, shrinks as :math:`1 / (1 + v)`; the
    square of the noise falls with the loss, and what it adds comes to
    :math:`\kappa v \ln(1 + v)`. The sum of both is least where

    .. math::

        \frac{1}{(1 + v)^2} = \kappa \left(\ln(1 + v) + \frac{v}{1 + v}\right), \qquad
        \kappa = \frac{b \sigma^2 f}{2 T \|g\|^4}

    There :math:`\|g\|^2` is the least that the measurement leaves likely. Where the slope cannot be
    told from the noise, as after a fitted probe, noise may add 0.5 % of the loss in all.

    Each weight moves by :math:`\pm \gamma \rho` in a step, so it walks

    .. math::

        r = \gamma \sqrt{T \Bigl(\frac{\|g\|^2}{1 + v} + \sigma^2 \frac{\ln(1 + v)}{v}\Bigr)}

    in a run, and up to twice as far where slopes grow on the way. Bends of radius :math:`r` are
    about the mean of the curvature on such a way, hence :math:`b(r) = 2\,\mathrm{bend}(r) - b` is
    about that at its end. It is many times :math:`b` where weights begin near zero and multiply
    others, as LoRA's do under a new head, and those of deep networks. The rate is at most what
    follows from :math:`b(2r)` in place of :math:`b`, and :math:`1 / 2 b(2r)`; `growth` is for what
    learning does to the curvature besides.

    Args:
        params: a model, or the tensors that are trained. They are rounded once, as by a step with
            the largest radius: by no more than the spacing of floats at their magnitude plus 0.25.
        closure: returns the loss of one batch, as for a step. Where it returns the losses of the
            samples, or where there are closures of several batches, their noise is measured, too.
        directions: family of directions that the optimizer will take.
        count: how many slopes, of all batches together. By default so many that the survey takes a
            tenth of the run's evaluations, but from 128 to 1024; and 16 where no noise is known.
        steps: of the run that the rate is for.
        growth: by how much the curvature may grow in that run; 1 or more, and 1 for a quadratic,
            whose curvature is not asked for farther away.
        seed: of the directions.

    Returns:
        What was found.

    Raises:
        InputError: there is no parameter, the loss is not finite, or does not change; `growth` is
            below 1.

    Source: of the best step along a quadratic and of the best run, derived here; the trace by
    random directions is Hutchinson's (1990).

    Example:
        >>> x = torch.nn.Parameter(torch.ones(100))
        >>> found = survey([x], lambda: x.square().sum() / 2)
        >>> round(found.curvature), round(1 / found.lr)
        (100, 600)
    """
    closures = [closure] if callable(closure) else list(closure)
    given = params.parameters() if isinstance(params, nn.Module) else params
    tensors = [tensor for tensor in given if tensor.requires_grad]
    if not closures or not tensors:
        raise InputError(
            "there is nothing to measure.", hint="give parameters that are trained, and a closure."
        )
    if growth < 1:
        raise InputError(
            f"growth={growth} is below 1.", hint="a rate above the best one at the start is lost."
        )
    askers = [
        _Asker(ZOSGD(tensors, lr=0.0, directions=directions, seed=seed + number))
        for number in range(len(closures))
    ]
    return _survey(askers, closures, count, steps, growth)


def _survey(
    askers: Sequence[_Asker],
    closures: Sequence[Closure],
    count: int | None,
    steps: int,
    growth: float,
) -> Survey:
    asker = askers[0]
    loss = asker.here(closures[0])
    tried = [asker.around(closures[0], radius, _FEW, loss) for radius in RADII]
    eps = RADII[_settled([around.slopes for around in tried], 0.01)]
    wide = RADII[_settled([around.bends for around in tried], 0.05)]
    noisy = bool(tried[0].errors) or len(closures) > 1
    slopes = count or (max(128, min(1024, steps // 10)) if noisy else 16)
    q = max(_FEW, slopes // len(closures))
    if not tried[0].errors:  # the noise shows where batches are asked along the same directions
        askers = [asker] * len(closures)
    found = [
        one.around(closure, eps, q, one.here(closure))
        for one, closure in zip(askers, closures, strict=True)
    ]
    bends = [bend for around in found for bend in around.bends]
    if wide != eps:
        bends = list(asker.around(closures[0], wide, q, loss).bends)
    square, noise = _square_and_noise(found)
    curvature = _size(bends)
    if not square:
        raise InputError(
            "the loss does not change around the parameters.",
            hint="does the closure use them? a metric of few samples is flat: take a larger batch.",
        )
    if not curvature:
        raise InputError(
            "the loss does not bend around the parameters, so no learning rate follows from it.",
            hint="choose one yourself, or measure at other parameters.",
        )
    # The mean of so many squares, each of a normal number, is as uncertain as that.
    unsure = math.sqrt(2 / (q * len(closures))) if noise else 0.0
    likely = max(square * (1 - unsure) - noise**2, 0.0)
    start = Start(likely, noise, curvature, abs(loss) or 1.0, steps)
    rate = start.rate(curvature, growth)
    near = _size(tried[RADII.index(wide)].bends)
    if growth > 1 and near:

        def at_the_end(walk: float) -> float:
            if walk <= RADII[0]:
                return curvature
            bends = asker.around(closures[0], min(walk, RADII[-1]), _FEW, loss).bends
            far = _size(bends)
            grown = 2 * far / near - 1 if math.isfinite(far) else math.inf
            return curvature * max(1.0, grown)

        rate = kept_up(start, rate, growth, at_the_end)
    slope = math.sqrt(max(square - noise**2, 0.0))
    evaluations = sum(one.evaluations for one in dict.fromkeys(askers))
    return Survey(rate, eps, slope, noise, curvature, loss, evaluations)


class _Asker:
    """Asks for losses around the parameters, along directions that stay the same.

    Args:
        optimizer: that moves them.
    """

    def __init__(self, optimizer: ZOSGD) -> None:
        self._optimizer = optimizer
        self.evaluations = 0

    def here(self, closure: Closure) -> float:
        """Return the loss at the parameters.

        Args:
            closure: of a batch.

        Raises:
            InputError: it is not finite.
        """
        self.evaluations += 1
        loss = self._optimizer.asking(closure).here()
        if not math.isfinite(loss):
            raise InputError(
                f"the loss is {loss} at the parameters.", hint="look at the batch and the weights."
            )
        return loss

    def around(self, closure: Closure, radius: float, count: int, here: float) -> _Around:
        """Return slopes and bends along some of the directions.

        Args:
            closure: of a batch.
            radius: how far from the parameters.
            count: of directions.
            here: the loss at the parameters.
        """
        for group in self._optimizer.param_groups:
            group.update(eps=radius, q=count)
        asking = self._optimizer.asking(closure)
        try:
            pairs = asking.sides(count)
        finally:
            asking.leave()
        self.evaluations += len(asking.losses)
        slopes = tuple((ahead - behind) / (2 * radius) for ahead, behind in pairs)
        bends = tuple((ahead + behind - 2 * here) / radius**2 for ahead, behind in pairs)
        return _Around(slopes, bends, tuple(error / radius for error in asking.errors))


def _settled(tried: Sequence[Sequence[float]], enough: float) -> int:
    """Return the largest of the radii at which a figure agrees with that at the next.

    Args:
        tried: by radius, along each direction.
        enough: what share of its size it may differ by.
    """
    errors = []
    for small, large in itertools.pairwise(tried):
        error = _size([a - b for a, b in zip(small, large, strict=True)])
        # Where both are zero, the loss is flat at this distance: that is no agreement.
        errors.append(error if math.isfinite(error) and any(small) else math.inf)
    sizes = map(_size, tried)
    bars = [max(2 * min(errors), enough * size) for size in sizes]
    good = [k for k, (error, bar) in enumerate(zip(errors, bars, strict=False)) if error <= bar]
    return good[-1]


def _square_and_noise(found: Sequence[_Around]) -> tuple[float, float]:
    """Return the mean square of the slopes, noise and all, and the noise of a batch."""
    square = statistics.fmean(slope**2 for around in found for slope in around.slopes)
    if found[0].errors:
        return square, _size([error for around in found for error in around.errors])
    if len(found) > 1:
        by_direction = zip(*(around.slopes for around in found), strict=True)
        return square, math.sqrt(statistics.fmean(map(statistics.variance, by_direction)))
    return square, 0.0


def _size(numbers: Sequence[float]) -> float:
    """Return the root of the mean square."""
    return math.sqrt(statistics.fmean(n * n for n in numbers)) if numbers else 0.0


def suggest(
    params: nn.Module | Iterable[torch.Tensor],
    closure: Closure | Sequence[Closure],
    *,
    directions: str = "rademacher",
    steps: int = STEPS,
    growth: float = GROWTH,
    seed: int = 0,
) -> tuple[float, float]:
    """Return a learning rate for `ZOSGD` and eps, measured on the model and a batch.

    Both are numbers, to be had before an optimizer or a scheduler is made. `survey` tells what they
    follow from.

    Args:
        params: as for `survey`.
        closure: as for `survey`.
        directions: as for `survey`.
        steps: as for `survey`.
        growth: as for `survey`.
        seed: as for `survey`.

    Raises:
        InputError: as for `survey`.

    Example:
        >>> from shoestring.zeroth import ZOSGD
        >>> x = torch.nn.Parameter(torch.ones(10))
        >>> lr, eps = suggest([x], lambda: x.square().sum())
        >>> opt = ZOSGD([x], lr=lr, eps=eps)
    """
    found = survey(params, closure, directions=directions, steps=steps, growth=growth, seed=seed)
    return found.lr, found.eps
