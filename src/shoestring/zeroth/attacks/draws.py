"""Random numbers for a batch of images, of which each has a stream of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from shoestring.kernels.streams import stream_key
from shoestring.kernels.streams_eager import bits_as_signs, shifted, signed, words_at


class Draws:
    """Streams of random numbers, one for each image, found by seed and image alone.

    Words are those of `shoestring.kernels.streams`. All streams are read together, so that a number
    depends on the image and on how much was drawn before, and not on the other images.

    Args:
        seed: of the attack.
        images: a number that names each image.
        device: of what is drawn.
    """

    def __init__(self, seed: int, images: Sequence[int], device: torch.device) -> None:
        keys = [signed(stream_key(seed, image)) for image in images]
        self._keys = torch.tensor(keys, dtype=torch.int64, device=device)
        self._drawn = 0

    def keep(self, rows: torch.Tensor) -> None:
        """Forget the other images.

        Args:
            rows: true for those to keep.
        """
        self._keys = self._keys[rows]

    def words(self, count: int) -> torch.Tensor:
        """Return 64 random bits as int64, ``[images, count]``.

        Args:
            count: of each image.
        """
        first = self._drawn + 1
        self._drawn += count
        places = torch.arange(first, first + count, dtype=torch.int64, device=self._keys.device)
        return words_at(self._keys.unsqueeze(1), places)

    def signs(self, count: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Return 1 and -1, ``[images, count]``.

        Args:
            count: of each image.
            dtype: of the result.
        """
        words = self.words(-(-count // 64))
        return bits_as_signs(words, dtype).view(len(words), -1)[:, :count]

    def below(self, count: int, bound: int) -> torch.Tensor:
        """Return whole numbers from 0 up to a bound, ``[images, count]``.

        Args:
            count: of each image.
            bound: more than each.
        """
        return shifted(self.words(count), 1) % bound

    def uniform(self, count: int) -> torch.Tensor:
        """Return numbers between 0 and 1, neither of them included, in float64.

        Args:
            count: of each image.
        """
        return (shifted(self.words(count), 12).double() + 0.5) * 2.0**-52

    def normal(self, count: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Return normal numbers, ``[images, count]``: two of each word, by Box and Muller.

        Args:
            count: of each image.
            dtype: of the result.
        """
        words = self.words(-(-count // 2))
        radius = (shifted(words, 40) + 1).float().mul_(2.0**-24).log_().mul_(-2).sqrt_()
        angle = (shifted(words, 16) & (1 << 24) - 1).float().mul_(math.tau * 2.0**-24)
        both = torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)
        return both[:, :count].to(dtype)
