"""JAGUAR: sign descent with a memory of each coordinate's slope."""

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
class Jaguar(Method):
    r"""Projected sign descent with coordinate momentum.

    .. math::

        m_S \leftarrow \beta m_S + (1 - \beta) \rho z_S, \qquad
        x \leftarrow \Pi(x - \gamma \, \mathrm{sign}\, m)

    With :math:`S` random cells of the image, :math:`z_S` random signs on them, :math:`\rho` the
    slope along these (`pairs.PairSearch`). Cells outside :math:`S` keep their memory, and those
    that were never in it do not move.

    Args:
        coords: cells in :math:`S`: with one, as the paper has it, a slope has no noise of others.
        tau: how far a pair is apart, as a share of eps.
        lr: :math:`\gamma`, as a share of eps.
        beta: :math:`\beta`.
        cells: along a side of an image, whose pixels share their sign.

    Raises:
        InputError: an option is outside its range.

    Source: Petrov et al., Leveraging coordinate momentum in SignSGD and Muon: memory-optimized
    zero-order (2025), algorithm 1, which takes one coordinate a step and trains networks with it;
    with several of them, and signs, it is ours.

    Example:
        >>> Jaguar(beta=0.5).name
        'jaguar'
    """

    name: ClassVar[str] = "jaguar"

    coords: int = 1
    tau: float = 0.3
    lr: float = 1.0
    beta: float = 0.5
    cells: int = 14

    def __post_init__(self) -> None:
        check_count("coords", self.coords)
        check_count("cells", self.cells)
        check_share("tau", self.tau)
        check_share("lr", self.lr)
        check_decay("beta", self.beta)

    def start(self, problem: Problem) -> Search:
        """Return a search; see `Method.start`."""
        return _JaguarSearch(problem, self)


class _JaguarSearch(PairSearch):
    def __init__(self, problem: Problem, options: Jaguar) -> None:
        super().__init__(problem, cells=options.cells, radius=options.tau)
        self._options = options
        self._chosen = min(options.coords, self.cells.count)
        self._memory = torch.zeros_like(self._direction)

    def _draw(self) -> torch.Tensor:
        places = self.draws.words(self.cells.count).topk(self._chosen, dim=1).indices
        signs = self.draws.signs(self._chosen, self._images.dtype)
        return torch.zeros_like(self._memory).scatter(1, places, signs)

    def _moved(self, gradient: torch.Tensor, margin: torch.Tensor) -> torch.Tensor:
        beta = self._options.beta
        mixed = beta * self._memory + (1 - beta) * gradient
        self._memory = torch.where(self._direction != 0, mixed, self._memory)
        step = self.cells.spread(self._memory.sign())
        return self.ball.project(self._images - self.ball.scaled(step, self._options.lr))
