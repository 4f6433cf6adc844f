"""Offload: saved activations wait for backward in host memory."""

from __future__ import annotations

import contextlib
import dataclasses
import weakref
from collections.abc import Iterator
from typing import ClassVar, Final

import torch

from shoestring.activations._torch import base_of
from shoestring.core.edit import Editor, living, remap
from shoestring.core.errors import InputError
from shoestring.core.fidelity import Fidelity
from shoestring.core.machine import Machine
from shoestring.core.profile import Profile
from shoestring.core.technique import Slot, Technique
from shoestring.core.trace import ALWAYS, Kind, Op, Phase, Storage, Trace

_MIN_BYTES: Final = 64 * 1024


@dataclasses.dataclass(frozen=True)
class Offload(Technique):
    """Copy what forward keeps for backward to host memory, and back when it is needed.

    Args:
        min_bytes: smaller tensors stay where they are.

    Example:
        >>> with Offload().context():
        ...     loss = torch.ones(2, requires_grad=True).exp().sum()
        >>> loss.backward()
    """

    min_bytes: int = _MIN_BYTES

    name: ClassVar[str] = "offload"
    slot: ClassVar[Slot] = Slot.ACTIVATIONS

    def validate(self) -> None:
        """Raise InputError where an option is out of range.

        Raises:
            InputError: a negative size.
        """
        if self.min_bytes < 0:
            raise InputError("min_bytes is negative.", hint="use a number of bytes from 0 up.")

    def fidelity(self, profile: Profile) -> Fidelity:
        """Return EXACT.

        Args:
            profile: the step it would change.
        """
        return Fidelity.EXACT

    def refuse(self, profile: Profile) -> str:
        """Return why activations cannot be offloaded, as a sentence; empty where they can.

        Args:
            profile: the step it would change.
        """
        if profile.machine.device == "cpu":
            return "the cpu has no memory of its own: what is moved would stay where it is."
        if profile.machine.link is None:
            return "how fast the device and the host exchange data is not known."
        return ""

    def predict(self, profile: Profile) -> Profile:
        """Return the profile of the step with activations offloaded.

        Args:
            profile: the step before the change.
        """
        traces = tuple(_offloaded(t, self.min_bytes, profile.machine) for t in profile.traces)
        step = dataclasses.replace(profile.step, offloads=True)
        return dataclasses.replace(profile, traces=traces, step=step)

    def describe(self) -> str:
        """Return the change in a few words."""
        return "activations wait in host memory"

    def context(self) -> contextlib.AbstractContextManager[None]:
        """Return the context in which forward and backward run."""
        return offloading(min_bytes=self.min_bytes)


def _offloaded(trace: Trace, min_bytes: int, machine: Machine) -> Trace:
    start = next((i for i, op in enumerate(trace.ops) if op.phase is not Phase.FORWARD), None)
    if start is None:
        return trace
    forward, readers = _touched(trace, start)
    editor = Editor(trace)
    copies: dict[int, dict[int, int]] = {}
    for s, storage in enumerate(trace.storages):
        kept = ALWAYS < storage.birth < start and (storage.death is None or storage.death >= start)
        if not kept or storage.kind is not Kind.ACTIVATION or storage.nbytes < min_bytes:
            continue
        last = forward.get(s, storage.birth)
        editor.storages[s] = living(storage, birth=storage.birth, death=last, kind=Kind.TEMPORARY)
        editor.insert(last + 1, _transfer(storage, Phase.FORWARD, (s,), machine))
        if readers.get(s):
            born = editor.insert(readers[s][0], _transfer(storage, Phase.BACKWARD, (), machine))
            death = readers[s][-1] if storage.death is None else storage.death
            copy = editor.add(living(storage, birth=born, death=death, kind=Kind.TEMPORARY))
            for i in readers[s]:
                copies.setdefault(i, {})[s] = copy
    for i, changed in copies.items():
        editor.replace(i, remap(trace.ops[i], changed))
    return editor.trace()


def _touched(trace: Trace, start: int) -> tuple[dict[int, int], dict[int, list[int]]]:
    """Return each storage's last use in forward, and its uses from ``start`` on."""
    forward: dict[int, int] = {}
    later: dict[int, list[int]] = {}
    for i, op in enumerate(trace.ops):
        for s in {*op.reads, *op.writes}:
            if i < start:
                forward[s] = i
            else:
                later.setdefault(s, []).append(i)
    return forward, later


def _transfer(storage: Storage, phase: Phase, reads: tuple[int, ...], machine: Machine) -> Op:
    return Op(
        name="aten._to_copy.default",
        phase=phase,
        module=storage.module,
        reads=reads,
        bytes_read=storage.nbytes if phase is Phase.FORWARD else 0,
        bytes_written=storage.nbytes if phase is not Phase.FORWARD else 0,
        seconds=storage.nbytes / (machine.link or machine.bandwidth) + machine.op_cost(phase),
    )


# --- the step itself ---------------------------------------------------------------------


def offloading(*, min_bytes: int = _MIN_BYTES) -> contextlib.AbstractContextManager[None]:
    """Return a context in which what autograd saves waits in host memory.

    Tensors come back with their strides, so kernels compute the same bits. Parameters,
    small tensors and expanded views stay on the device; those
    are still checked for changes in place. On a CPU the copies show that nothing depends on
    where tensors wait; no memory is saved there.

    Args:
        min_bytes: smaller tensors stay where they are.

    Returns:
        A context manager around the forward; backward may run inside or after it.

    Raises:
        InputError: a negative size.

    Example:
        >>> with offloading(min_bytes=0):
        ...     loss = torch.ones(2, requires_grad=True).exp().sum()
        >>> loss.backward()
    """
    if min_bytes < 0:
        raise InputError("min_bytes is negative.", hint="use a number of bytes from 0 up.")
    return _offloading(_Host(min_bytes))


@contextlib.contextmanager
def _offloading(host: _Host) -> Iterator[None]:
    with torch.autograd.graph.saved_tensors_hooks(host.pack, host.unpack):
        yield


class _Host:
    """Takes what autograd saves, and gives it back."""

    def __init__(self, min_bytes: int) -> None:
        self._min_bytes = min_bytes
        self._known: weakref.WeakValueDictionary[tuple[object, ...], _Moved] = (
            weakref.WeakValueDictionary()
        )

    def pack(self, tensor: torch.Tensor) -> _Stayed | _Moved:
        """Take a tensor.

        Args:
            tensor: what an operation saves.
        """
        if tensor.nbytes < self._min_bytes or _is_parameter(tensor) or not _can_move(tensor):
            return _Stayed(tensor, tensor._version)
        storage = tensor.untyped_storage()
        place = (tensor.storage_offset(), tensor.size(), tensor.stride(), tensor.dtype)
        key = (id(storage), tensor._version, *place)
        moved = self._known.get(key)
        # Several operations save one tensor. An address may be used again, so the storage
        # itself must still be the one that was copied.
        if moved is None or moved.origin() is not storage:
            moved = _Moved(tensor)
            self._known[key] = moved
        return moved

    @staticmethod
    def unpack(kept: _Stayed | _Moved) -> torch.Tensor:
        """Give a tensor back.

        Args:
            kept: what `pack` returned.
        """
        return kept.back()


class _Stayed:
    """A tensor that was left where it is."""

    def __init__(self, tensor: torch.Tensor, version: int) -> None:
        self._tensor = tensor
        self._version = version

    def back(self) -> torch.Tensor:
        """Return it, checked as autograd checks what it saves itself.

        Raises:
            RuntimeError: it was changed in place since.
        """
        if self._tensor._version != self._version:
            raise RuntimeError(
                "one of the variables needed for gradient computation has been modified by an "
                f"inplace operation: {tuple(self._tensor.shape)} is at version "
                f"{self._tensor._version}; expected version {self._version}"
            )
        return self._tensor


class _Moved:
    """A tensor in host memory."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.origin = weakref.ref(tensor.untyped_storage())
        self._device = tensor.device
        self._pinned = tensor.is_cuda
        with torch.no_grad():
            self._copy = torch.empty_like(tensor, device="cpu", pin_memory=self._pinned)
            self._copy.copy_(tensor, non_blocking=self._pinned)

    def back(self) -> torch.Tensor:
        """Return a copy on the device."""
        if self._device.type == "cpu":
            return self._copy.clone()
        return self._copy.to(self._device, non_blocking=self._pinned)


def _is_parameter(tensor: torch.Tensor) -> bool:
    """Whether a tensor is a parameter or a view of one: it is there anyway."""
    base = base_of(tensor)
    return isinstance(base, torch.nn.Parameter) or (base.is_leaf and base.requires_grad)


def _can_move(tensor: torch.Tensor) -> bool:
    if tensor.layout is not torch.strided or type(tensor) is not torch.Tensor:
        return False
    # An expanded tensor would be copied many times larger than it is.
    return tensor.untyped_storage().nbytes() >= tensor.nbytes
