"""The Square Attack: random squares, kept where they help."""

from __future__ import annotations

import abc
import bisect
import dataclasses
import math
from typing import ClassVar, Final, final

import torch

from shoestring.zeroth.attacks.ball import lengths
from shoestring.zeroth.attacks.bumps import bump
from shoestring.zeroth.attacks.method import Method, Problem, Search, check_share

HALVINGS: Final = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Steps of 10,000 after which the share of pixels is halved. The paper's text leaves out 500,
which its authors' code has."""

_TILES: Final = 5
"""Bumps along a side that the search in l2 starts from."""


def share_of_pixels(step: int, queries: int, p_init: float) -> float:
    """Return the share of an image that a square covers.

    Args:
        step: squares so far.
        queries: of the whole attack, to which the schedule is scaled.
        p_init: the first share.
    """
    scaled = int(step / queries * 10_000)
    return p_init * 0.5 ** bisect.bisect_left(HALVINGS, scaled)


@final
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Square(Method):
    r"""Random search by squares, which needs one query a step and no estimate of a gradient.

    In linf it starts from vertical stripes of :math:`\pm \epsilon`; a step sets a random square to
    :math:`\pm \epsilon`, with one sign a channel. In l2 it starts from a grid of bumps; a step
    takes what one window holds, and makes of it a bump in another one:

    .. math::

        \nu_{W_2} \leftarrow 0, \qquad
        \nu_{W_1} \leftarrow \frac{\rho \eta + \nu_{W_1} / \|\nu_{W_1}\|}{\|\cdot\|}
        \sqrt{\|\nu_{W_1 \cup W_2}\|^2 + (\epsilon^2 - \|\nu\|^2) / c}

    With :math:`\nu` the difference to the image, :math:`\eta` a bump of length 1, :math:`\rho` a
    random sign, :math:`c` the number of channels, each of which is changed in this way. A step is
    kept where the margin falls. A square that would change nothing has a sign turned, and so costs
    no query in vain.

    Args:
        p_init: share of the pixels in the first squares; it is halved after 0.1, 0.5, 2, 5, 10, 20,
            40, 60 and 80 percent of the queries.

    Raises:
        InputError: an option is outside its range.

    Source: Andriushchenko, Croce, Flammarion and Hein, Square Attack: a query-efficient black-box
    adversarial attack via random search (ECCV 2020), algorithms 1 to 3.

    Example:
        >>> Square(p_init=0.3).name
        'square'
    """

    name: ClassVar[str] = "square"

    p_init: float = 0.8

    def __post_init__(self) -> None:
        check_share("p_init", self.p_init, most=1)

    def start(self, problem: Problem) -> Search:
        """Return a search; see `Method.start`."""
        kind = _Flat if problem.ball.norm == "linf" else _Bumpy
        return kind(problem, self.p_init)


class _RandomSearch(Search):
    """Keeps what is better."""

    def __init__(self, problem: Problem, p_init: float) -> None:
        super().__init__(problem)
        self._queries, self._p_init = problem.queries, p_init
        self._step = -1  # the first proposal is where the search starts
        self._images = problem.ball.images
        self._proposed = self._images
        self._margins = torch.full_like(problem.margins, torch.inf)

    def propose(self) -> torch.Tensor:
        self._proposed = self._first() if self._step < 0 else self._next()
        self._step += 1
        return self._proposed

    def told(self, margins: torch.Tensor) -> None:
        better = margins < self._margins
        self._margins = torch.where(better, margins, self._margins)
        self._images = torch.where(better.view(-1, 1, 1, 1), self._proposed, self._images)

    def _side(self) -> int:
        height, width = self._images.shape[2:]
        share = share_of_pixels(self._step, self._queries, self._p_init)
        return min(max(round(math.sqrt(share * height * width)), 1), height, width)

    def _windows(self, side: int) -> tuple[torch.Tensor, ...]:
        """Return what picks a random window of each image and channel."""
        images, channels, height, width = self._images.shape
        along = torch.arange(side, device=self._images.device)
        down = self.draws.below(1, height - side + 1) + along
        right = self.draws.below(1, width - side + 1) + along
        return (
            torch.arange(images, device=along.device).view(-1, 1, 1, 1),
            torch.arange(channels, device=along.device).view(1, -1, 1, 1),
            down.view(images, 1, side, 1),
            right.view(images, 1, 1, side),
        )

    def _signs(self) -> torch.Tensor:
        """Return a random sign of each image and channel."""
        images, channels = self._images.shape[:2]
        return self.draws.signs(channels, self._images.dtype).view(images, channels, 1, 1)

    @abc.abstractmethod
    def _first(self) -> torch.Tensor:
        """Return the images that the search starts from."""

    @abc.abstractmethod
    def _next(self) -> torch.Tensor:
        """Return images with a square changed."""


class _Flat(_RandomSearch):
    """In linf."""

    def _first(self) -> torch.Tensor:
        images, channels, _, width = self._images.shape
        stripes = self.draws.signs(channels * width, self._images.dtype)
        return self.ball.edge(stripes.view(images, channels, 1, width).expand_as(self._images))

    def _next(self) -> torch.Tensor:
        window = self._windows(self._side())
        before, centre = self._images[window], self.ball.images[window]
        signs = self._signs()
        after = self._set(centre, signs)
        idle = (after == before).all(dim=3).all(dim=2).all(dim=1)
        turned = self.draws.below(1, signs.shape[1])
        mask = torch.arange(signs.shape[1], device=turned.device) == turned
        flip = (idle.unsqueeze(1) & mask).view_as(signs)
        after = self._set(centre, torch.where(flip, -signs, signs))
        proposed = self._images.clone()
        proposed[window] = after
        return proposed

    def _set(self, centre: torch.Tensor, signs: torch.Tensor) -> torch.Tensor:
        return (centre + signs * self.ball.eps).clamp(*self.ball.bounds)


class _Bumpy(_RandomSearch):
    """In l2."""

    def _first(self) -> torch.Tensor:
        deltas = torch.zeros_like(self._images)
        height, width = deltas.shape[2:]
        side = max(min(height, width) // _TILES, 1)
        for top in range((height % side) // 2, height - side + 1, side):
            for left in range((width % side) // 2, width - side + 1, side):
                deltas[:, :, top : top + side, left : left + side] = self._bumps(side)
        return self.ball.edge(deltas)

    def _next(self) -> torch.Tensor:
        side = max(self._side(), 3)
        side = min(side + 1 - side % 2, *self._images.shape[2:])
        one, two = self._windows(side), self._windows(side)
        deltas = self._images - self.ball.images
        left = (self.ball.eps**2 - lengths(deltas, "l2").square()).clamp(min=0) / deltas.shape[1]
        rest = deltas.clone()
        inside = deltas[one]
        rest[one], rest[two] = 0, 0
        held = deltas.square().sum(dim=(2, 3), keepdim=True)
        held = (held - rest.square().sum(dim=(2, 3), keepdim=True)).clamp(min=0)
        mixed = self._bumps(side) + _unit(inside)
        rest[one] = _unit(mixed) * (held + left).sqrt()
        return self.ball.edge(rest)

    def _bumps(self, side: int) -> torch.Tensor:
        """Return a bump of each image and channel, lying or standing."""
        flat = bump(side).to(self._images)
        lying = self.draws.signs(1, self._images.dtype).view(-1, 1, 1, 1) > 0
        return torch.where(lying, flat, flat.T) * self._signs()


def _unit(windows: torch.Tensor) -> torch.Tensor:
    """Return windows of length 1 in each channel; what is zero stays so."""
    size = windows.square().sum(dim=(2, 3), keepdim=True).sqrt()
    return windows / size.clamp(min=1e-12)
