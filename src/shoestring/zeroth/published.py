"""The random numbers of the published program of MeZO, for runs that are compared with it."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from shoestring.zeroth.directions import Direction, put_back

_SEEDS = 1_000_000_000


class _Stream:
    """Normal numbers for one tensor after the other, from one generator that is seeded once.

    Args:
        seed: of the generator.
        tensors: in the order that numbers are drawn for.
    """

    def __init__(self, seed: int, tensors: Sequence[torch.Tensor]) -> None:
        self._seed = seed
        self._like = [(tensor.shape, tensor.dtype, tensor.device) for tensor in tensors]
        self._generators: dict[torch.device, torch.Generator] = {}
        self._next = 0

    def normal(self, index: int) -> torch.Tensor:
        """Return the numbers of a tensor; those of others are passed over where it must be.

        Args:
            index: of the tensor.
        """
        if index < self._next or not self._generators:
            devices = {device for _, _, device in self._like}
            self._generators = {d: torch.Generator(d).manual_seed(self._seed) for d in devices}
            self._next = 0
        while True:
            shape, dtype, device = self._like[self._next]
            generator = self._generators[device]
            z = torch.normal(0.0, 1.0, shape, dtype=dtype, device=device, generator=generator)
            self._next += 1
            if self._next > index:
                return z


class _Published(Direction):
    """What the published program perturbs a tensor along.

    Args:
        stream: of the numbers of all tensors.
        index: of the tensor.
    """

    reach = 8.0

    def __init__(self, stream: _Stream, index: int) -> None:
        self._stream, self._index = stream, index

    def add_to(self, tensor: torch.Tensor, scale: float) -> None:
        """Add a multiple of it; see `Direction.add_to`."""
        z = self._stream.normal(self._index)
        put_back(tensor, tensor.detach().add_(z.to(tensor.dtype), alpha=scale))


def published(tensors: Sequence[torch.Tensor], seed: int, place: int) -> list[Direction]:
    """Return the normal numbers that the published program draws.

    Before each step it takes ``numpy.random.randint(1000000000)``, seeds torch with that, and draws
    ``torch.normal`` for one parameter after the other, in the parameter's dtype. On another kind of
    device torch draws other numbers.

    Args:
        tensors: in the order of the model's parameters.
        seed: of numpy's generator.
        place: of this direction among all that are drawn.

    Source: the published program of Malladi et al., Fine-tuning language models with just forward
    passes (2023), its trainer's functions for a zeroth-order step.
    """
    rows = max(64, 1 << place.bit_length())
    stream = _Stream(int(_seeds(seed, rows)[place]), tensors)
    return [_Published(stream, index) for index in range(len(tensors))]


@functools.lru_cache(maxsize=4)
def _seeds(seed: int, count: int) -> npt.NDArray[np.int64]:
    """Return what numpy's generator of old gives, one after the other."""
    return np.random.RandomState(seed).randint(_SEEDS, size=count)
