"""Results at all places in few bits: rounded at random, by the same numbers at every place.

An activation that is on its grid of floats may be moved by less than the grid's spacing. Rounded to
nearest the move would be lost, or be too large; rounded at random it is right on average.
"""

from __future__ import annotations

from typing import Final

import torch

from shoestring.kernels.streams_eager import noise, round_at_random

HALF: Final = (torch.bfloat16, torch.float16)
"""Dtypes that a move of a usual size is lost in."""


def narrowed(values: torch.Tensor, dtype: torch.dtype, key: int) -> torch.Tensor:
    """Return values in another dtype.

    Args:
        values: in float32 or float64, ``[places, ...]``.
        dtype: of the result. In half precision the mean over keys is the value itself.
        key: of the random numbers, which are the same at all places.
    """
    if dtype not in HALF or not values.numel():
        return values.to(dtype)
    rows = values.float().reshape(len(values), -1)
    drawn = noise(key, rows.size(1), 0, values.device)
    return round_at_random(rows, dtype, drawn).to(dtype).view(values.shape)
