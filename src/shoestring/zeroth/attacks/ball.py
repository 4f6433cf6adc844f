"""The images that an attack may ask for: a ball around each image, cut by the bounds of pixels."""

from __future__ import annotations

from typing import Final

import torch

NORMS: Final = ("linf", "l2")

_ROUNDS = 3
"""How often length that the bounds cut off is given to other pixels."""
_LEAST = 1e-12
"""What a length is divided by at least."""


def lengths(deltas: torch.Tensor, norm: str) -> torch.Tensor:
    """Return the length of each row's difference, as ``[rows, 1, 1, 1]``.

    Args:
        deltas: ``[rows, channels, height, width]``.
        norm: ``linf`` or ``l2``.
    """
    if norm == "linf":
        return deltas.abs().amax(dim=(1, 2, 3), keepdim=True)
    return deltas.square().sum(dim=(1, 2, 3), keepdim=True).sqrt()


class Ball:
    r"""Balls around images, one a row: all images that are allowed.

    .. math::

        \{ x' : \|x' - x\|_p \le \epsilon, \; a \le x' \le b \}

    Args:
        images: the centres, ``[rows, channels, height, width]``, within the bounds.
        norm: ``linf`` or ``l2``.
        eps: the radius.
        bounds: least and largest value of a pixel.
    """

    def __init__(
        self, images: torch.Tensor, norm: str, eps: float, bounds: tuple[float, float]
    ) -> None:
        self.images, self.norm, self.eps, self.bounds = images, norm, eps, bounds

    @property
    def pixels(self) -> int:
        """Numbers of an image."""
        return self.images[0].numel()

    def keep(self, rows: torch.Tensor) -> None:
        """Forget the other rows.

        Args:
            rows: true for those to keep.
        """
        self.images = self.images[rows]

    def project(self, images: torch.Tensor) -> torch.Tensor:
        """Return the allowed images for some, one a row.

        In linf they are the nearest ones. In l2 a difference that is too long is shortened, and
        pixels are clamped then, which only shortens it more.

        Args:
            images: of the balls' shape.
        """
        if self.norm == "linf":
            near = torch.maximum(
                torch.minimum(images, self.images + self.eps), self.images - self.eps
            )
            return near.clamp(*self.bounds)
        deltas = images - self.images
        share = (self.eps / lengths(deltas, "l2").clamp(min=_LEAST)).clamp(max=1)
        return (self.images + deltas * share).clamp(*self.bounds)

    def edge(self, directions: torch.Tensor) -> torch.Tensor:
        """Return the images in a direction at the ball's edge, within the bounds.

        In l2 the pixels that are not at a bound take over what length the others leave, so that
        the images are about at the edge however many pixels are.

        Args:
            directions: of the balls' shape; in linf only their signs count.
        """
        if self.norm == "linf":
            return (self.images + self.eps * directions.sign()).clamp(*self.bounds)
        low, high = self.bounds[0] - self.images, self.bounds[1] - self.images
        deltas = self.scaled(directions, 1.0)
        for _ in range(_ROUNDS):
            inside = torch.maximum(torch.minimum(deltas, high), low)
            free = torch.where(inside == deltas, inside, 0)
            spare = (self.eps**2 - lengths(inside, "l2").square()).clamp(min=0)
            more = (1 + spare / lengths(free, "l2").square().clamp(min=_LEAST)).sqrt()
            deltas = torch.where(inside == deltas, inside * more, inside)
        return (self.images + deltas).clamp(*self.bounds)

    def scaled(self, directions: torch.Tensor, share: float) -> torch.Tensor:
        """Return directions as long as a share of the radius.

        Args:
            directions: of the balls' shape. In linf they are multiplied by the length, so that
                entries of 1 become it; in l2 they get it, or stay zero.
            share: of the radius.
        """
        size = share * self.eps
        if self.norm == "linf":
            return directions * size
        return directions * (size / lengths(directions, "l2").clamp(min=_LEAST))
