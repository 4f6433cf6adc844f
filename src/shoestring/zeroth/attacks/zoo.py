"""ZOO: one coordinate after the other, each with an Adam of its own."""

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
from shoestring.zeroth.attacks.spsa import TINY


@final
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ZOO(Method):
    r"""Projected coordinate descent by Adam, of which each coordinate counts its own steps.

    .. math::

        \hat g_i = \frac{f(\Pi(x + h e_i)) - f(\Pi(x - h e_i))}{2 h}, \qquad
        x \leftarrow \Pi\left(x - \gamma \frac{\hat m_i}{\sqrt{\hat v_i} + 10^{-8}} e_i\right)

    With :math:`e_i` the pixels of a cell, :math:`f` the margin, :math:`\Pi` the projection onto the
    allowed images, which stands for the distance in the paper's loss. The cells come in rounds, in
    a random order; from the second round on those that were changed more come earlier.

    Args:
        h: how far a pair is apart, as a share of eps.
        lr: :math:`\gamma`, as a share of eps; in l2, of what eps is for a pixel of many alike.
        betas: Adam's decays.
        round: share of the cells that come in a round. Below 1, cells that were changed little
            may be left out.
        cells: along a side of an image.

    Raises:
        InputError: an option is outside its range.

    Source: Chen, Zhang, Sharma, Yi and Hsieh, ZOO: zeroth order optimization based black-box
    attacks to deep neural networks without training substitute models (AISec 2017), algorithm 2
    with importance sampling and a smaller attack space.

    Example:
        >>> ZOO(cells=7).name
        'zoo'
    """

    name: ClassVar[str] = "zoo"

    h: float = 0.3
    lr: float = 2.0
    betas: tuple[float, float] = (0.9, 0.999)
    round: float = 1.0
    cells: int = 14

    def __post_init__(self) -> None:
        check_count("cells", self.cells)
        check_share("round", self.round, most=1)
        check_share("h", self.h)
        check_share("lr", self.lr)
        for beta in self.betas:
            check_decay("betas", beta)

    def start(self, problem: Problem) -> Search:
        """Return a search; see `Method.start`."""
        return _ZOOSearch(problem, self)


class _ZOOSearch(PairSearch):
    def __init__(self, problem: Problem, options: ZOO) -> None:
        super().__init__(problem, cells=options.cells, radius=options.h)
        self._options, self._place = options, 0
        self._length = max(int(options.round * self.cells.count), 1)
        self._mean = torch.zeros_like(self._direction)
        self._square = torch.zeros_like(self._direction)
        self._steps = torch.zeros_like(self._direction)
        self._order = torch.zeros_like(self._direction, dtype=torch.int64)

    def _draw(self) -> torch.Tensor:
        if self._place % self._length == 0:
            self._order = self._shuffled()
        place = self._order[:, self._place % self._length].unsqueeze(1)
        self._place += 1
        return torch.zeros_like(self._mean).scatter(1, place, 1.0)

    def _shuffled(self) -> torch.Tensor:
        """Return a random order; where cells have changed, by chances as their changes are."""
        changed = self.cells.means((self._images - self.ball.images).abs()).double()
        chances = changed + changed.amax(dim=1, keepdim=True) / 10
        chances = torch.where(chances > 0, chances, 1.0)
        # The least of exponential times over their rates come first: no replacement.
        times = -self.draws.uniform(self.cells.count).log() / chances
        return times.argsort(dim=1)

    def _moved(self, gradient: torch.Tensor, margin: torch.Tensor) -> torch.Tensor:
        first, second = self._options.betas
        here = self._direction
        self._steps = self._steps + here
        self._mean = torch.where(here > 0, first * self._mean + (1 - first) * gradient, self._mean)
        square = second * self._square + (1 - second) * gradient.square()
        self._square = torch.where(here > 0, square, self._square)
        steps = self._steps.clamp(min=1)
        root = (self._square / (1 - second**steps)).sqrt() + TINY
        size = here * self._mean / (1 - first**steps) / root
        pixel = self._options.lr * self.ball.eps
        if self.ball.norm == "l2":
            pixel /= self.ball.pixels**0.5
        return self.ball.project(self._images - pixel * self.cells.spread(size))
