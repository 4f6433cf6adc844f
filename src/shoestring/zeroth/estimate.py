"""The gradient of anything that returns a number, from its values alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import torch

from shoestring.core.errors import InputError
from shoestring.kernels.streams import stream_key
from shoestring.zeroth.asking import Closure, number
from shoestring.zeroth.directions import family
from shoestring.zeroth.kept import wide_zeros
from shoestring.zeroth.moves import Move, move
from shoestring.zeroth.same_numbers import SameNumbers


@dataclasses.dataclass(frozen=True)
class Estimate:
    """An estimate of a gradient.

    Attributes:
        gradients: one for each tensor, in float32 at least.
        loss: mean of the values that it is made from.
        slopes: along each direction.
        evaluations: how often the function was called.
    """

    gradients: tuple[torch.Tensor, ...]
    loss: float
    slopes: tuple[float, ...]
    evaluations: int


@torch.no_grad()
def estimate_gradient(
    function: Closure,
    params: Iterable[torch.Tensor],
    *,
    directions: str = "rademacher",
    q: int = 1,
    eps: float = 1e-3,
    two_sided: bool = True,
    seed: int = 0,
) -> Estimate:
    r"""Estimate the gradient of a function by the tensors that it reads.

    .. math::

        g = \frac{1}{q} \sum_i \rho_i z_i, \qquad
        \rho_i = \frac{f(x + \epsilon z_i) - f(x - \epsilon z_i)}{2 \epsilon}

    Its mean is the gradient, but for terms of :math:`\epsilon^2`; its variance is that of the
    family over q.

    Args:
        function: returns a number or a tensor, whose mean is taken; it need not be differentiable.
        params: tensors of floating dtype; they are as before when this returns.
        directions: family of directions, as `directions.family` takes it.
        q: how many directions.
        eps: :math:`\epsilon`.
        two_sided: whether the function is called on both sides, ``2 q`` times, or at the tensors
            and on one side, ``q + 1`` times.
        seed: of the directions.

    Raises:
        InputError: there is no tensor, or no direction.

    Example:
        >>> x = torch.tensor([1.0, -2.0], dtype=torch.float64)
        >>> found = estimate_gradient(lambda: x.square().sum(), [x], q=1000)
        >>> bool((found.gradients[0] - 2 * x).norm() < 0.5)
        True
    """
    tensors = [tensor for tensor in params if tensor.numel()]
    if not tensors or q < 1:
        raise InputError("there is nothing to estimate.", hint="give tensors, and q=1 or more.")
    draw, same = family(directions), SameNumbers()
    kept = [tensor.detach().clone() for tensor in tensors]
    gradients = tuple(wide_zeros(tensor) for tensor in tensors)
    values: list[float] = []

    def ask(z: Move | None) -> float:
        if z is not None:
            move(tensors, [z])
        try:
            values.append(number(same.call(function)))
        finally:
            for tensor, first in zip(tensors, kept, strict=True):
                tensor.copy_(first)
        return values[-1]

    slopes = []
    here = 0.0 if two_sided else ask(None)
    for index in range(q):
        z = draw(tensors, stream_key(seed, index))
        there = ask(Move(z, [eps] * len(tensors)))
        other = ask(Move(z, [-eps] * len(tensors))) if two_sided else here
        slopes.append((there - other) / ((2 if two_sided else 1) * eps))
        for direction, gradient in zip(z, gradients, strict=True):
            direction.add_to(gradient, slopes[-1] / q)
    return Estimate(gradients, sum(values) / len(values), tuple(slopes), len(values))
