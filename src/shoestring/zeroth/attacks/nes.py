"""NES: the gradient of a smoothed margin, from normal directions and their opposites."""

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


@final
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NES(Method):
    r"""Projected descent along estimates from antithetic normal directions, with momentum.

    .. math::

        \hat g = \frac{1}{n} \sum_{i=1}^n \rho_i u_i, \quad
        g \leftarrow \mu g + (1 - \mu) \hat g, \quad
        x \leftarrow \Pi(x - \gamma \, \mathrm{sign}\, g)

    With :math:`u_i` normal numbers over cells, :math:`\rho_i` their slopes (`pairs.PairSearch`),
    :math:`\Pi` the projection onto the allowed images. In l2 the step goes along
    :math:`g / \|g\|`. The step shrinks where the margin has not fallen for some iterations.

    Args:
        pairs: :math:`n`, of an iteration, which takes two queries for each.
        sigma: how far the pairs are apart, as a share of eps.
        lr: :math:`\gamma`, as a share of eps.
        momentum: :math:`\mu`.
        plateau: iterations after which a margin that is no lower halves the step; it goes down to
            1/200.
        cells: along a side of an image, whose pixels share their direction.

    Raises:
        InputError: an option is outside its range.

    Source: Ilyas, Engstrom, Athalye and Lin, Black-box adversarial attacks with limited queries
    and information (ICML 2018), algorithm 1, with the authors' momentum and plateaus. They use the
    cross-entropy, and directions over pixels.

    Example:
        >>> NES(pairs=5).name
        'nes'
    """

    name: ClassVar[str] = "nes"

    pairs: int = 4
    sigma: float = 0.1
    lr: float = 0.2
    momentum: float = 0.99
    plateau: int = 50
    cells: int = 14

    def __post_init__(self) -> None:
        for name in ("pairs", "plateau", "cells"):
            check_count(name, getattr(self, name))
        check_share("sigma", self.sigma)
        check_share("lr", self.lr)
        check_decay("momentum", self.momentum)

    def start(self, problem: Problem) -> Search:
        """Return a search; see `Method.start`."""
        return _NESSearch(problem, self)


class _NESSearch(PairSearch):
    def __init__(self, problem: Problem, options: NES) -> None:
        super().__init__(problem, cells=options.cells, radius=options.sigma, pairs=options.pairs)
        self._options = options
        self._gradient = torch.zeros_like(self._direction)
        self._rates = torch.full_like(problem.margins, options.lr)
        self._reference = torch.full_like(problem.margins, torch.inf)
        self._age = 0

    def _draw(self) -> torch.Tensor:
        return self.draws.normal(self.cells.count, self._images.dtype)

    def _moved(self, gradient: torch.Tensor, margin: torch.Tensor) -> torch.Tensor:
        mu = self._options.momentum
        self._gradient = mu * self._gradient + (1 - mu) * gradient
        self._anneal(margin)
        step = self.cells.spread(self._gradient)
        step = step.sign() if self.ball.norm == "linf" else step
        rates = self._rates.to(step.dtype).view(-1, 1, 1, 1)
        return self.ball.project(self._images - rates * self.ball.scaled(step, 1.0))

    def _anneal(self, margin: torch.Tensor) -> None:
        self._age += 1
        if self._age == self._options.plateau:
            stuck = margin >= self._reference
            least = self._options.lr / 200
            self._rates = torch.where(stuck, self._rates / 2, self._rates).clamp(min=least)
            self._reference, self._age = margin, 0
