"""SignHunter: the signs of the gradient, found by turning ever smaller parts of them."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, final

import torch

from shoestring.core.errors import InputError
from shoestring.zeroth.attacks.method import Method, Problem, Search

ORDERS = ("rows", "blocks")


@final
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SignHunter(Method):
    r"""Divide and conquer over the signs of the gradient: one query a turn.

    It asks for :math:`\Pi(x + \epsilon s)`, at first with :math:`s = 1`. At level :math:`h` the
    pixels are cut into :math:`2^h` parts; the signs of one part after the other are turned, and
    stay so unless the margin rises. In l2 it asks for :math:`\Pi(x + \epsilon s / \sqrt d)`. For
    a linear margin the signs are right after at most :math:`2^{\lceil \log_2 d \rceil + 1}` turns.
    Then it starts over with what it has, and with the parts cut elsewhere.

    Args:
        order: which pixels are neighbours in a part: ``rows`` as the paper has it, or ``blocks``,
            which are about square.

    Raises:
        InputError: there is no such order.

    Source: Al-Dujaili and O'Reilly, Sign bits are all you need for black-box attacks (ICLR 2020),
    algorithm 2 and theorem 1.

    Example:
        >>> SignHunter().name
        'signhunter'
    """

    name: ClassVar[str] = "signhunter"

    order: str = "blocks"

    def __post_init__(self) -> None:
        if self.order not in ORDERS:
            raise InputError(
                f"there is no order {self.order!r} of pixels.",
                hint=f"take one of {', '.join(ORDERS)}.",
            )

    def start(self, problem: Problem) -> Search:
        """Return a search; see `Method.start`."""
        return _SignSearch(problem, self.order)


class _SignSearch(Search):
    def __init__(self, problem: Problem, order: str) -> None:
        super().__init__(problem)
        images = problem.ball.images
        # In a tuple, since it is the same for all images.
        self._ranks = (ranks(images.shape[1:], order, images.device),)
        self._signs = images.new_ones(len(images), problem.ball.pixels)
        self._proposed = self._signs
        self._margins = torch.full_like(problem.margins, torch.inf)
        self._offsets = torch.zeros(len(images), 1, dtype=torch.int64, device=images.device)
        self._level = self._part = 0
        self._begun = False

    def propose(self) -> torch.Tensor:
        """Return images with a part turned; see `Search.propose`."""
        self._proposed = self._turned() if self._begun else self._signs
        return self.ball.edge(self._proposed.view_as(self.ball.images))

    def told(self, margins: torch.Tensor) -> None:
        """Keep what is no worse; see `Search.told`."""
        kept = margins <= self._margins
        self._signs = torch.where(kept.unsqueeze(1), self._proposed, self._signs)
        self._margins = torch.where(kept, margins, self._margins)
        if self._begun:
            self._advance()
        self._begun = True

    def _length(self) -> int:
        return -(-self.ball.pixels // (1 << self._level))

    def _turned(self) -> torch.Tensor:
        pixels, length = self.ball.pixels, self._length()
        begin = self._part * length
        places = (self._ranks[0] + self._offsets) % pixels
        inside = (places >= begin) & (places < begin + length)
        return torch.where(inside, -self._signs, self._signs)

    def _advance(self) -> None:
        length = self._length()
        self._part += 1
        if self._part * length < self.ball.pixels:
            return
        self._level, self._part = self._level + 1, 0
        if length == 1:
            self._level = 0
            self._offsets = self.draws.below(1, self.ball.pixels)


def ranks(shape: torch.Size, order: str, device: torch.device) -> torch.Tensor:
    """Return the place of each pixel in an order, of channels one after the other.

    Args:
        shape: ``(channels, height, width)``.
        order: ``rows``, or ``blocks``: along a curve whose parts are about square.
        device: of the result.
    """
    channels, height, width = shape
    if order == "rows":
        return torch.arange(channels * height * width, device=device)
    rows, columns = torch.arange(height).unsqueeze(1), torch.arange(width).unsqueeze(0)
    codes = torch.zeros(height, width, dtype=torch.int64)
    for bit in range(max(height, width).bit_length()):  # a Z-order curve: their bits in turns
        codes |= (columns >> bit & 1) << 2 * bit | (rows >> bit & 1) << 2 * bit + 1
    plane = codes.flatten().argsort().argsort()
    offsets = torch.arange(channels).unsqueeze(1) * height * width
    return (offsets + plane).flatten().to(device)
