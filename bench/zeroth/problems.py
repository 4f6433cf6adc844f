"""Small problems whose answers are known, and how each optimizer is set for them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, TypeAlias

import torch
from torch import nn
from torch.nn import functional as F

Make: TypeAlias = Callable[[Sequence[nn.Parameter], float], torch.optim.Optimizer]


class Problem(NamedTuple):
    """Something to minimise.

    Attributes:
        params: where it begins.
        loss: of the parameters.
        least: the loss that is aimed at.
    """

    params: list[nn.Parameter]
    loss: Callable[[], torch.Tensor]
    least: float


def quadratic(seed: int) -> Problem:
    """Return half the square of the distance from ones, of a matrix 20 x 30 and a vector of 20.

    Args:
        seed: without say; it begins at zero.
    """
    del seed
    params = [nn.Parameter(torch.zeros(20, 30)), nn.Parameter(torch.zeros(20))]
    return _aimed(
        params, lambda: sum(((p - 1).square().sum() for p in params), torch.zeros(())) / 2
    )


def ill_conditioned(seed: int) -> Problem:
    """Return a quadratic in 10 x 10 weights whose curvatures go from 0.01 to 1, turned at random.

    Args:
        seed: of the turn and of where it begins.
    """
    generator = torch.Generator().manual_seed(seed)
    turn, _ = torch.linalg.qr(torch.randn(100, 100, generator=generator))
    curvatures = torch.logspace(-2, 0, 100)
    x = nn.Parameter(torch.randn(10, 10, generator=generator))
    return _aimed([x], lambda: ((turn @ x.flatten()).square() * curvatures).sum() / 2)


def logistic(seed: int) -> Problem:
    """Return a logistic regression of 3 classes on 20 features, 600 rows; aimed at halfway down.

    Args:
        seed: of the rows.
    """
    generator = torch.Generator().manual_seed(seed)
    x, truth = torch.randn(600, 20, generator=generator), torch.randn(20, 3, generator=generator)
    y = (x @ truth + torch.randn(600, 3, generator=generator)).argmax(1)
    weight, bias = nn.Parameter(torch.zeros(20, 3)), nn.Parameter(torch.zeros(3))

    def loss() -> torch.Tensor:
        return F.cross_entropy(x @ weight + bias, y)

    best = _best([weight, bias], loss)
    return Problem([weight, bias], loss, best + (math.log(3) - best) / 10)


PROBLEMS: Final[dict[str, Callable[[int], Problem]]] = {
    "quadratic": quadratic,
    "ill-conditioned": ill_conditioned,
    "logistic": logistic,
}


def _aimed(params: list[nn.Parameter], loss: Callable[[], torch.Tensor]) -> Problem:
    return Problem(params, loss, float(loss().detach()) / 100)


def _best(params: Sequence[nn.Parameter], loss: Callable[[], torch.Tensor]) -> float:
    kept = [parameter.detach().clone() for parameter in params]
    optimizer = torch.optim.LBFGS(params, max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(closure)
    found = float(loss().detach())
    with torch.no_grad():
        for parameter, first in zip(params, kept, strict=True):
            parameter.copy_(first)
            parameter.grad = None
    return found
