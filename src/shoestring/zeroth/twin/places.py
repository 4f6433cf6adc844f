"""The places that the loss is asked for at in one call, and which tensors differ among them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch

from shoestring.kernels.streams import stream_key
from shoestring.zeroth.twin._torch import level_of, lowered, raised
from shoestring.zeroth.twin.halves import narrowed
from shoestring.zeroth.twin.shifts import Shift


class Places:
    """All places of one call, numbered direction by direction, and in each sign by sign.

    Args:
        shifts: of the trained parameters.
        known: index of its shift, by the id of every tensor that is a trained parameter.
        signs: of each direction: ``(1, -1)`` for both sides.
        count: of directions.
        key: of the random numbers that results in half precision are rounded by.

    Attributes:
        moved: ids of the trained parameters, and of those that were transposed.
        level: of the `torch.vmap` over the places; known when it has begun.
        seen: indices of the parameters that a function was given.
        copied: indices of the matrices that a function was given a copy of for every place, and
            that function's name.
    """

    def __init__(
        self,
        shifts: Sequence[Shift],
        known: dict[int, int],
        signs: Sequence[int],
        count: int,
        key: int,
    ) -> None:
        self._shifts, self._known = shifts, known
        self._turned: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._key, self._narrowed = key, 0
        self._sides: dict[tuple[torch.dtype, torch.device], torch.Tensor] = {}
        self.signs: Final = tuple(signs)
        self.directions: Final = count
        self.moved: Final = set(known)
        self.level = -1
        self.seen: set[int] = set()
        self.copied: dict[int, str] = {}

    def __len__(self) -> int:
        return self.directions * len(self.signs)

    def is_moved(self, tensor: object) -> bool:
        """Return whether something is a trained parameter, or one transposed.

        Args:
            tensor: anything that a function was given.
        """
        return id(tensor) in self.moved

    def shift(self, tensor: object) -> Shift | None:
        """Return the shift of a trained parameter; None for anything else.

        Args:
            tensor: anything that a function was given.
        """
        index = self._known.get(id(tensor))
        if index is None:
            return None
        self.seen.add(index)
        return self._shifts[index]

    def turn(self, parameter: torch.Tensor) -> torch.Tensor:
        """Return a trained matrix transposed, and remember whose it is.

        Args:
            parameter: the matrix.
        """
        found = parameter.detach().t()
        self._turned[id(found)] = (found, parameter)
        self.moved.add(id(found))
        return found

    def unturned(self, tensor: object) -> torch.Tensor | None:
        """Return the trained matrix that a tensor is the transposed of; None where it is none.

        Args:
            tensor: anything that a function was given.
        """
        return self._turned[id(tensor)][1] if id(tensor) in self._turned else None

    def copies(self, tensor: torch.Tensor, function: str) -> torch.Tensor:
        """Return a trained parameter, or one transposed, at all places; in float32 at least.

        Args:
            tensor: one that `is_moved`.
            function: name of what it is for.
        """
        whole = self.unturned(tensor)
        found = self._copies(tensor if whole is None else whole, function)
        return self.raised(found if whole is None else found.mT)

    def _copies(self, parameter: torch.Tensor, function: str) -> torch.Tensor:
        index = self._known[id(parameter)]
        self.seen.add(index)
        if parameter.dim() > 1:
            self.copied[index] = function
        return self._shifts[index].moved()

    def input(self, tensor: torch.Tensor, function: str) -> torch.Tensor:
        """Return an input of a function, at all places where it is a trained parameter.

        Args:
            tensor: any.
            function: its name.
        """
        if not self.is_moved(tensor):
            return tensor
        values, _ = self.lowered(self.copies(tensor, function))
        return self.raised(self.narrowed(values, tensor.dtype))

    def every(self, tensor: torch.Tensor, dims: int, function: str) -> torch.Tensor:
        """Return weights at all places, ``[places or 1, 1, ..., *shape]``.

        Args:
            tensor: a trained parameter, or the same at all places.
            dims: how many dimensions the result has.
            function: name of what it is for.
        """
        trained = id(tensor) in self._known
        found = self._copies(tensor, function) if trained else tensor.detach().unsqueeze(0)
        return found.view(len(found), *[1] * (dims - found.dim()), *tensor.shape)

    def is_plain(self, tensor: object) -> bool:
        """Return whether something is the same at all places, and no trained parameter.

        Args:
            tensor: anything that a function was given.
        """
        if not isinstance(tensor, torch.Tensor):
            return True
        return not self.is_moved(tensor) and level_of(tensor) < 0

    def can_lower(self, tensor: torch.Tensor) -> bool:
        """Return whether the values at all places can be had: no other transform is in between.

        Args:
            tensor: any.
        """
        return level_of(tensor) in (-1, self.level)

    def lowered(self, tensor: torch.Tensor) -> tuple[torch.Tensor, bool]:
        """Return the values at all places as ``[places, ...]``, and True; or what is the same.

        Args:
            tensor: one that `can_lower`.
        """
        if level_of(tensor) < 0:
            return tensor, False
        return lowered(tensor), True

    def at(self, tensor: torch.Tensor, place: int) -> torch.Tensor:
        """Return the values at one place.

        Args:
            tensor: one that `can_lower`.
            place: its number.
        """
        values, differ = self.lowered(tensor)
        return values[place] if differ else values

    def raised(self, values: torch.Tensor) -> torch.Tensor:
        """Return what a function that knows nothing of places takes.

        Args:
            values: ``[places, ...]``.
        """
        return raised(values, self.level)

    def narrowed(self, values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Return values in another dtype, rounded at random in half precision.

        Args:
            values: ``[places, ...]``, in float32 or float64.
            dtype: of the result.
        """
        self._narrowed += 1
        return narrowed(values, dtype, stream_key(self._key, self._narrowed))

    def sides(self, like: torch.Tensor, dims: int) -> torch.Tensor:
        """Return the signs as ``[1, signs, 1, ...]``.

        Args:
            like: tells dtype and device.
            dims: how many ones follow.
        """
        kind = like.dtype, like.device
        if kind not in self._sides:
            self._sides[kind] = torch.tensor(self.signs, dtype=like.dtype, device=like.device)
        return self._sides[kind].view(1, -1, *[1] * dims)
