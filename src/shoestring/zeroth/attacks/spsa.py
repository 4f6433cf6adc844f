"""SPSA: slopes along random signs, and Adam."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, final

import torch

from shoestring.zeroth.attacks.method import (
    Method,
    Problem,
    Search,
    check_count,
    check_decay,
    check_share,
)
from shoestring.zeroth.attacks.pairs import PairSearch

TINY = 1e-8
"""What keeps Adam from dividing by zero."""


@final
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SPSA(Method):
    r"""Projected descent by Adam, fed with slopes along random signs.

    .. math::

        \hat g = \frac{1}{n} \sum_{i=1}^n \rho_i v_i, \qquad
        x \leftarrow \Pi\left(x - \gamma \frac{\hat m}{\sqrt{\hat v} + 10^{-8}}\right)

    With :math:`v_i` signs over cells, :math:`\rho_i` their slopes (`pairs.PairSearch`),
    :math:`\hat m` and :math:`\hat v` Adam's corrected means of :math:`\hat g` and its square. In l2
    a step is as long as that of all signs.

    Args:
        pairs: :math:`n`, of an iteration, which takes two queries for each.
        delta: how far the pairs are apart, as a share of eps.
        lr: :math:`\gamma`, as a share of eps.
        betas: Adam's decays.
        cells: along a side of an image, whose pixels share their sign.

    Raises:
        InputError: an option is outside its range.

    Source: Uesato, O'Donoghue, Oord and Kohli, Adversarial risk and the dangers of evaluating
    against weak attacks (ICML 2018); they take the signs over pixels.

    Example:
        >>> SPSA(lr=0.1).name
        'spsa'
    """

    name: ClassVar[str] = "spsa"

    pairs: int = 4
    delta: float = 0.1
    lr: float = 1.0
    betas: tuple[float, float] = (0.99, 0.999)
    cells: int = 14

    def __post_init__(self) -> None:
        check_count("pairs", self.pairs)
        check_count("cells", self.cells)
        check_share("delta", self.delta)
        check_share("lr", self.lr)
        for beta in self.betas:
            check_decay("betas", beta)

    def start(self, problem: Problem) -> Search:
        """Return a search; see `Method.start`."""
        return _SPSASearch(problem, self)


class _SPSASearch(PairSearch):
    def __init__(self, problem: Problem, options: SPSA) -> None:
        super().__init__(problem, cells=options.cells, radius=options.delta, pairs=options.pairs)
        self._options, self._steps = options, 0
        self._mean = torch.zeros_like(self._direction)
        self._square = torch.zeros_like(self._direction)

    def _draw(self) -> torch.Tensor:
        return self.draws.signs(self.cells.count, self._images.dtype)

    def _moved(self, gradient: torch.Tensor, margin: torch.Tensor) -> torch.Tensor:
        first, second = self._options.betas
        self._steps += 1
        self._mean = first * self._mean + (1 - first) * gradient
        self._square = second * self._square + (1 - second) * gradient.square()
        mean = self._mean / (1 - first**self._steps)
        root = (self._square / (1 - second**self._steps)).sqrt()
        step = self.cells.spread(mean / (root + TINY)) * self._options.lr * self.ball.eps
        if self.ball.norm == "l2":
            step = step / self.ball.pixels**0.5
        return self.ball.project(self._images - step)
