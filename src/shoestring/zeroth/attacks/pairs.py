"""Searches that step along slopes, each from a pair of margins on both sides."""

from __future__ import annotations

import abc

import torch

from shoestring.zeroth.attacks.cells import Cells
from shoestring.zeroth.attacks.method import Problem, Search


class PairSearch(Search):
    r"""Asks for pairs of images around one that moves.

    .. math::

        \rho = \frac{f(\Pi(x + \delta z)) - f(\Pi(x - \delta z))}{2 \delta}

    With :math:`f` the margin, :math:`z` a direction over cells, :math:`\Pi` the projection onto the
    allowed images: what is asked for could be the attack's result, and ends it where its margin is
    below zero.

    Args:
        problem: what it starts from.
        cells: along a side of an image.
        radius: :math:`\delta`, as a share of eps: of each pixel in linf, of the whole in l2.
        pairs: of an iteration.
    """

    def __init__(self, problem: Problem, *, cells: int, radius: float, pairs: int = 1) -> None:
        super().__init__(problem)
        images = problem.ball.images
        self.cells = Cells(images.shape[1:], cells, images.device)
        self._radius, self._pairs, self._asked = radius, pairs, 0
        self._images = images
        self._direction = images.new_zeros(len(images), self.cells.count)
        self._sum = self._direction
        self._plus = problem.margins
        self._seen = torch.zeros_like(problem.margins)

    def propose(self) -> torch.Tensor:
        """Return one side of a pair; see `Search.propose`."""
        plus = self._asked % 2 == 0
        if plus:
            self._direction = self._draw()
        reach = self._reach(self._direction)
        return self.ball.project(self._images + (reach if plus else -reach))

    def told(self, margins: torch.Tensor) -> None:
        """Take a side's margins; see `Search.told`."""
        self._asked += 1
        self._seen = self._seen + margins
        if self._asked % 2:
            self._plus = margins
            return
        slopes = (self._plus - margins) / (2 * self._radius * self.ball.eps)
        self._sum = self._sum + slopes.to(self._sum.dtype).unsqueeze(1) * self._direction
        if self._asked < 2 * self._pairs:
            return
        self._images = self._moved(self._sum / self._pairs, self._seen / (2 * self._pairs))
        self._sum, self._seen = torch.zeros_like(self._sum), torch.zeros_like(self._seen)
        self._asked = 0

    def _reach(self, direction: torch.Tensor) -> torch.Tensor:
        return self.ball.scaled(self.cells.spread(direction), self._radius)

    @abc.abstractmethod
    def _draw(self) -> torch.Tensor:
        """Return a direction for each image, ``[images, cells]``."""

    @abc.abstractmethod
    def _moved(self, gradient: torch.Tensor, margin: torch.Tensor) -> torch.Tensor:
        """Return the images of the next iteration.

        Args:
            gradient: mean of the slopes times their directions, ``[images, cells]``.
            margin: mean of the margins that were asked for.
        """
