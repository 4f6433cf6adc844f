"""One operator call as data: what it was given, without the tensors, and how to give it again."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple, TypeAlias, cast

import torch

Described: TypeAlias = Hashable


class TensorLike(NamedTuple):
    """What a kernel's memory depends on: a tensor's type, sizes and strides."""

    dtype: torch.dtype
    size: tuple[int, ...]
    stride: tuple[int, ...]


class Typed(NamedTuple):
    """A number with its type: 1, 1.0 and True are equal and do not mean the same."""

    kind: str
    value: float | complex | bool | None


class Call(NamedTuple):
    """An operator call without its tensors.

    Attributes:
        name: full name of the operator.
        args: described positional arguments.
        kwargs: names and described values of keyword arguments.
        grad: whether gradients were recorded; some kernels then keep more.
    """

    name: str
    args: tuple[Described, ...]
    kwargs: tuple[tuple[str, Described], ...]
    grad: bool

    def given(self, maker: Maker) -> tuple[list[object], dict[str, object]]:
        """Make the arguments again.

        Args:
            maker: makes the tensors.

        Returns:
            Positional and keyword arguments.
        """
        kwargs = {name: maker.make(value) for name, value in self.kwargs}
        return [maker.make(value) for value in self.args], kwargs


def describe_call(name: str, args: Sequence[object], kwargs: Mapping[str, object]) -> Call:
    """Return a call as something hashable that holds no tensor.

    Args:
        name: full name of the operator.
        args: positional arguments.
        kwargs: keyword arguments.

    Returns:
        A key: equal for calls that differ in the tensors' data only.

    Raises:
        RuntimeError: a tensor has no strides (sparse).
    """
    options = tuple((k, describe(v)) for k, v in kwargs.items()) if kwargs else ()
    return Call(name, tuple(map(describe, args)), options, torch.is_grad_enabled())


def describe(value: object) -> Described:
    """Return one argument as something hashable that holds no tensor.

    Args:
        value: a tensor, a number, a list of them, or an option such as a dtype.

    Returns:
        The description.
    """
    if isinstance(value, torch.Tensor):
        return TensorLike(value.dtype, value.shape, value.stride())
    kind = type(value)
    if value is None or kind is int or kind is str:
        return value
    if kind is float or kind is bool or kind is complex:
        return Typed(kind.__name__, cast(float, value))
    if isinstance(value, (list, tuple)):
        return tuple(map(describe, value))
    if isinstance(value, torch.Generator):
        return Typed("generator", None)
    return value


class Maker:
    """Makes arguments again from their descriptions.

    Floating tensors hold small positive random numbers, integers zeros (a valid index
    anywhere), booleans ones.

    Args:
        device: ``cpu``, or ``meta`` for tensors without data.

    Attributes:
        nbytes: bytes of the tensors made so far.
    """

    def __init__(self, device: str) -> None:
        self.device = torch.device(device)
        self.nbytes = 0
        self._pool: torch.Tensor | None = None

    def make(self, described: Described) -> object:
        """Make one argument.

        Args:
            described: what `describe` returned.

        Returns:
            The argument; lists come back as lists.
        """
        if isinstance(described, TensorLike):
            return self._tensor(described)
        if isinstance(described, Typed):
            return described.value
        if isinstance(described, tuple):
            return [self.make(part) for part in described]
        return self.device if isinstance(described, torch.device) else described

    def _tensor(self, like: TensorLike) -> torch.Tensor:
        steps = zip(like.size, like.stride, strict=True)
        span = 1 + sum((n - 1) * step for n, step in steps) if all(like.size) else 0
        flat = torch.empty(span, dtype=like.dtype, device=self.device)
        self.nbytes += flat.nbytes
        if self.device.type != "meta":
            self._fill(flat)
        return flat.as_strided(like.size, like.stride)

    def _fill(self, flat: torch.Tensor) -> None:
        if not (flat.is_floating_point() or flat.is_complex()):
            flat.fill_(flat.dtype is torch.bool)
            return
        if self._pool is None:
            generator = torch.Generator().manual_seed(0)
            self._pool = torch.rand(1 << 16, generator=generator) * 0.1 + 0.01
        whole = flat.numel() // self._pool.numel() * self._pool.numel()
        flat[:whole].view(-1, self._pool.numel()).copy_(self._pool)
        flat[whole:].copy_(self._pool[: flat.numel() - whole])


def storages(value: object) -> dict[int, int]:
    """Return the storages of all tensors in a value.

    Args:
        value: a tensor, or lists, tuples and dictionaries of them.

    Returns:
        Address of the data -> bytes, in order of first appearance. Storages without data have
        no address; each tensor of them counts for itself, under a negative number.
    """
    found: dict[int, int] = {}
    for tensor in tensors(value):
        storage = tensor.untyped_storage()
        address = storage.data_ptr() or -1 - len(found)
        found.setdefault(address, storage.nbytes())
    return found


def tensors(value: object) -> list[torch.Tensor]:
    """Return the tensors in a value, in order.

    Args:
        value: a tensor, or lists, tuples and dictionaries of them.
    """
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return [tensor for part in value for tensor in tensors(part)]
    return []
