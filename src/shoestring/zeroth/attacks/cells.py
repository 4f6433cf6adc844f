"""Blocks of neighbouring pixels that are changed together."""

from __future__ import annotations

import torch


class Cells:
    """Cuts images into a grid of cells in each channel, so that there is less to search.

    What a network's margin depends on is smooth over neighbouring pixels, so that a direction of
    fewer, larger cells loses little, and a search among them needs fewer queries.

    Args:
        shape: of an image, ``(channels, height, width)``.
        side: cells along a side, at most; a side of fewer pixels has a cell for each.
        device: of the images.

    Attributes:
        count: cells of an image, over all channels.

    Source: Chen et al., ZOO (2017), and Ilyas, Engstrom and Madry, Prior convictions (2019), call
    this attack-space dimension reduction and tiling.
    """

    def __init__(self, shape: torch.Size, side: int, device: torch.device) -> None:
        channels, height, width = shape
        rows, columns = min(side, height), min(side, width)
        down = torch.arange(height, device=device) * rows // height
        right = torch.arange(width, device=device) * columns // width
        plane = down.unsqueeze(1) * columns + right
        offsets = torch.arange(channels, device=device).view(-1, 1, 1) * rows * columns
        self.count = channels * rows * columns
        self._shape = shape
        self._cell = (offsets + plane).flatten()

    def spread(self, values: torch.Tensor) -> torch.Tensor:
        """Return images whose pixels have the values of their cells.

        Args:
            values: ``[images, count]``.

        Returns:
            ``[images, channels, height, width]``.
        """
        return values[:, self._cell].view(len(values), *self._shape)

    def means(self, images: torch.Tensor) -> torch.Tensor:
        """Return the mean of the pixels of each cell, ``[images, count]``.

        Args:
            images: ``[images, channels, height, width]``.
        """
        zeros = images.new_zeros(len(images), self.count)
        sums = zeros.index_add(1, self._cell, images.flatten(1))
        return sums / torch.bincount(self._cell, minlength=self.count)
