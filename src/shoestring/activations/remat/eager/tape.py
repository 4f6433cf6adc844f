"""A forward whose operations are recorded, so that what they made can be made again."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, NamedTuple

import torch

from shoestring.activations.remat.capture.randomness import random_state, replay
from shoestring.activations.remat.eager._torch import as_recorded, negated
from shoestring.activations.remat.eager.sites import Counting, Site
from shoestring.measure._torch import (
    DispatchMode,
    FakeTensor,
    HigherOrder,
    Overload,
    current_node,
    recomputing,
    storage_address,
)
from shoestring.measure.tracing.operators import Facts, collect, facts

_STATISTICS: Final = {
    "aten.native_batch_norm.default": (3, 4, 5),
    "aten.cudnn_batch_norm.default": (3, 4, 5),
    "aten.miopen_batch_norm.default": (3, 4, 5),
}
"""Positions of the running mean, the running variance and the training flag.

Only these change statistics without saying so; what says that it changes a buffer is kept."""

_NOISY: Final = ("aten.rrelu_with_noise.default", "aten.rrelu_with_noise_.default")
"""They change their second argument after autograd has taken it for backward."""


class Spec(NamedTuple):
    """How a tensor lies in its storage, and whether it is the conjugate or negative of that."""

    dtype: torch.dtype
    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    conjugate: bool
    negative: bool

    def of(self, base: torch.Tensor) -> torch.Tensor:
        """Return the tensor.

        Args:
            base: any tensor in the storage.
        """
        base = _turned(base, base.is_conj(), base.is_neg())
        if base.dtype is not self.dtype:
            base = _whole(base).view(self.dtype)
        tensor = base.as_strided(self.size, self.stride, self.offset)
        return _turned(tensor, self.conjugate, self.negative)


def _spec(tensor: torch.Tensor) -> Spec:
    offset = int(tensor.storage_offset())
    layout = tensor.size(), tensor.stride(), offset
    return Spec(tensor.dtype, *layout, tensor.is_conj(), tensor.is_neg())


def _turned(tensor: torch.Tensor, conjugate: bool, negative: bool) -> torch.Tensor:
    """Return a view that is the conjugate, or the negative, of a tensor."""
    if conjugate:
        tensor = torch.conj(tensor)
    return negated(tensor) if negative else tensor


def _whole(base: torch.Tensor) -> torch.Tensor:
    """Return all of a tensor's storage, as one row."""
    count = base.untyped_storage().nbytes() // base.element_size()
    return base.as_strided((count,), (1,), 0)


def _version(tensor: torch.Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


class Value:
    """A storage that is not kept: it is there again once its maker has run again.

    Whoever needs it holds it, so that it goes when nothing does: what autograd keeps in its
    place, and the operations that read it and have not run again.

    Attributes:
        base: a tensor in its memory, while that is there.
        lock: of its tape: several threads may go back through one forward.
        maker: what makes it, until it has run again.
        readers: operations that read it, and tensors kept by autograd that lie in it.
    """

    __slots__ = ("__weakref__", "base", "lock", "maker", "readers")

    def __init__(self, maker: Made) -> None:
        self.base: torch.Tensor | None = None
        self.lock = maker.lock
        self.maker: Made | None = maker
        self.readers = 0


class Saved(NamedTuple):
    """What autograd keeps in place of a tensor."""

    value: Value
    spec: Spec


class Kept(NamedTuple):
    """A tensor that stays, with its version."""

    tensor: torch.Tensor
    version: int

    def unchanged(self) -> torch.Tensor:
        """Return the tensor.

        Raises:
            RuntimeError: it was changed in place since.
        """
        version = _version(self.tensor)
        if version != self.version:
            raise RuntimeError(
                "a tensor that is needed to compute the gradients was modified in place: it is "
                f"of shape {tuple(self.tensor.shape)}, at version {version} where "
                f"version {self.version} was expected."
            )
        return self.tensor


class Made:
    """One operation of a forward, with all that it takes to run it again.

    Args:
        number: of the operations of the forward that ran before it.
        func: the operator.
        args: its arguments, with `Saved` and `Kept` in place of tensors.
        kwargs: likewise.
        state: of the generator, and its device, where it draws random numbers.
        lock: held while it runs again.
    """

    __slots__ = ("_args", "_kwargs", "_state", "func", "lock", "number", "results")

    def __init__(
        self,
        number: int,
        func: Overload,
        args: tuple[object, ...],
        kwargs: Mapping[str, object],
        state: tuple[torch.Tensor, torch.device] | None,
        lock: threading.RLock,
    ) -> None:
        self.number = number
        self.lock = lock
        self.func = func
        self.results: list[weakref.ref[Value]] = []
        self._args = tuple([_taken(value) for value in args])
        self._kwargs = {name: _taken(value) for name, value in kwargs.items()}
        self._state = state

    def makes(self) -> Value:
        """Return a new value that this operation makes."""
        value = Value(self)
        self.results.append(weakref.ref(value))
        return value

    def needs(self) -> list[Value]:
        """Return the values that must be there before it can run."""
        found: list[Value] = []
        _values((*self._args, *self._kwargs.values()), found)
        return found

    def run(self) -> None:
        """Run again, hand the results to those of its values that are needed, and forget all."""
        args = tuple([self._given(value) for value in self._args])
        kwargs = {name: self._given(value) for name, value in self._kwargs.items()}
        changed = facts(self.func).changed(args, kwargs)
        if self._state is None:
            result = self.func(*args, **kwargs)
        else:
            result = replay(*self._state, self.func, args, kwargs)
        made: list[torch.Tensor] = []
        collect(changed or (result,), made)
        self._args, self._kwargs, self._state = (), {}, None
        for reference, base in zip(self.results, _bases(made), strict=True):
            value = reference()
            if value is not None:
                value.base, value.maker = base, None

    def _given(self, taken: object) -> object:
        if isinstance(taken, Kept):
            tensor = taken.unchanged()
            is_dense = tensor.layout is torch.strided and tensor.numel() > 0
            if is_dense and not tensor.untyped_storage().nbytes():
                raise RuntimeError(
                    "a weight that something is computed again from is not there now. FSDP frees "
                    "weights of other blocks: make the plan for blocks that are sharded together."
                )
            return tensor
        if isinstance(taken, Saved):
            base = taken.value.base
            assert base is not None, "what an operation reads was made again before it"
            if self._changes_it(taken.value):
                base = _whole(base).clone()
            return taken.spec.of(base)
        if isinstance(taken, (list, tuple)):
            return [self._given(part) for part in taken]
        return taken

    def _changes_it(self, value: Value) -> bool:
        """Return whether it changes a value in place that something else needs as it was."""
        return bool(facts(self.func).changes) and value.readers > 1


def _taken(value: object) -> object:
    """Return an argument with what stands for its tensors; those of a tape are told by it."""
    if isinstance(value, torch.Tensor):
        return Kept(value, _version(value))
    if isinstance(value, Saved):
        value.value.readers += 1
        return value
    if isinstance(value, (list, tuple)):
        return [_taken(part) for part in value]
    return value


def _values(taken: Sequence[object], found: list[Value]) -> None:
    for part in taken:
        if isinstance(part, Saved):
            found.append(part.value)
        elif isinstance(part, (list, tuple)) and not isinstance(part, Kept):
            _values(part, found)


def _bases(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Return one tensor of each storage among those of some tensors."""
    return list({storage_address(tensor): tensor for tensor in tensors}.values())


class _Place(weakref.ref[torch.UntypedStorage]):
    """A storage of the forward while it lives there, and the value that it is."""

    __slots__ = ("address", "value")

    address: int
    value: Value


class Tape(DispatchMode):
    """Records the operations of one forward that are to run again in backward.

    It stands below autograd, so what it runs again is what torch ran: the same operators with
    the same inputs, random numbers included. Use `pack` and `unpack` as hooks of saved tensors
    in the same context.

    Args:
        sites: of the operations whose results are not kept.
        path: tells in which module the code is.
    """

    def __init__(self, sites: Collection[Site], path: Callable[[], str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's has no annotations
        self.found = 0
        self._sites = sites
        self._path = path
        self._counting = Counting()
        self._places: dict[int, _Place] = {}
        self._number = 0
        self._lock = threading.RLock()

    def __torch_dispatch__(
        self,
        func: Overload,
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Run one operation, and record it where its results will be let go of."""
        options = kwargs or {}
        if isinstance(func, HigherOrder) or func.namespace == "prim":
            return func(*args, **options)
        known = facts(func)
        if known.parts is not None:
            with self:
                return known.parts(*args, **options)
        if known.view and not known.changes:
            return func(*args, **options)
        chosen = False
        if current_node() is None:  # a forward may differentiate a part of itself
            chosen = self._counting.next(self._path(), known.name) in self._sites
        self.found += chosen
        if known.changes:
            return self._change(known, func, args, options)
        if not (chosen and _can_repeat(func, args, options)):
            return func(*args, **options)
        return self._make(known, func, args, options)

    def close(self) -> None:
        """Forget the forward: what backward needs is held by what autograd kept."""
        self._places.clear()

    # --- what autograd asks for ------------------------------------------------------------

    def pack(self, tensor: torch.Tensor) -> object:
        """Return what autograd keeps in place of a tensor.

        Args:
            tensor: that it wants to keep.
        """
        value = self._value(tensor)
        if value is None:
            # Without its place in the graph: else a graph that is retained is never freed.
            return Kept(tensor.detach(), _version(tensor))
        value.readers += 1
        return Saved(value, _spec(tensor))

    @staticmethod
    def unpack(kept: object) -> torch.Tensor:
        """Return the tensor that `pack` was given, made again where it was not kept.

        Args:
            kept: what `pack` returned.

        Raises:
            RuntimeError: something that it is made from was changed in place since.
        """
        if isinstance(kept, Kept):
            return kept.unchanged()
        assert isinstance(kept, Saved)
        if kept.value.base is None:
            with kept.value.lock, as_recorded(), recomputing():
                _make_again(kept.value)
        assert kept.value.base is not None, "its maker has run"
        return kept.spec.of(kept.value.base)

    # --- what is recorded ------------------------------------------------------------------

    def _value(self, tensor: torch.Tensor) -> Value | None:
        """Return the value that a tensor lies in; None where its storage is kept."""
        if tensor.layout is not torch.strided or not self._places:
            return None
        place = self._places.get(storage_address(tensor))
        return None if place is None else place.value

    def _given(self, value: object) -> object:
        """Return an argument with the values that its tensors lie in."""
        if isinstance(value, torch.Tensor):
            found = self._value(value)
            return value if found is None else Saved(found, _spec(value))
        if isinstance(value, (list, tuple)):
            return [self._given(part) for part in value]
        return value

    def _record(
        self, known: Facts, func: Overload, args: tuple[object, ...], kwargs: Mapping[str, object]
    ) -> Made:
        state = None
        if known.is_random(args, kwargs):
            device = _device_of(args, kwargs)
            state = (random_state(device), device)
        args = tuple([self._given(value) for value in _without_statistics(known.name, args)])
        kwargs = {name: self._given(value) for name, value in kwargs.items()}
        self._number += 1
        return Made(self._number, func, args, kwargs, state, self._lock)

    def _make(
        self, known: Facts, func: Overload, args: tuple[object, ...], kwargs: Mapping[str, object]
    ) -> object:
        made = self._record(known, func, args, kwargs)
        result = func(*args, **kwargs)
        tensors: list[torch.Tensor] = []
        collect((result,), tensors)
        given: list[torch.Tensor] = []
        collect((*args, *kwargs.values()), given)
        before = {storage_address(tensor) for tensor in given}
        bases = _bases(tensors)
        if before.isdisjoint(map(storage_address, bases)) and all(map(_is_plain, bases)):
            for base in bases:
                self._settle(base, made.makes())
        return result

    def _change(
        self, known: Facts, func: Overload, args: tuple[object, ...], kwargs: Mapping[str, object]
    ) -> object:
        """Run an operation that changes tensors in place; those not kept have a new value then."""
        changed = known.changed(args, kwargs)
        values = [self._value(tensor) for tensor in changed]
        if all(value is None for value in values):
            return func(*args, **kwargs)
        if None in values or known.name in _NOISY or not _can_repeat(func, args, kwargs):
            for base, value in zip(changed, values, strict=True):  # as it is now, it must stay
                self._places.pop(storage_address(base), None)
                if value is not None and known.name in _NOISY:
                    value.base, value.maker = base, None
            return func(*args, **kwargs)
        made = self._record(known, func, args, kwargs)
        result = func(*args, **kwargs)
        for base in _bases(changed):
            self._settle(base, made.makes())
        return result

    def _settle(self, base: torch.Tensor, value: Value) -> None:
        """Note what a tensor's storage is, for as long as it lives."""
        place = _Place(base.untyped_storage(), self._leave)
        place.address, place.value = storage_address(base), value
        self._places[place.address] = place

    def _leave(self, place: weakref.ref[torch.UntypedStorage]) -> None:
        assert isinstance(place, _Place)
        if self._places.get(place.address) is place:
            del self._places[place.address]


def _make_again(value: Value) -> None:
    """Run what makes a value, after whatever makes what that reads."""
    waiting: dict[int, Made] = {}
    open_values = [value]
    while open_values:
        maker = open_values.pop().maker
        if maker is not None and maker.number not in waiting:
            waiting[maker.number] = maker
            open_values += maker.needs()
    for number in sorted(waiting):
        waiting.pop(number).run()


def _can_repeat(func: Overload, args: tuple[object, ...], kwargs: Mapping[str, object]) -> bool:
    """Return whether an operator gives the same when it runs again.

    Operators of others may do anything, and a generator of one's own is not set back.
    """
    if func.namespace != "aten":
        return False
    return not any(isinstance(value, torch.Generator) for value in (*args, *kwargs.values()))


def _is_plain(tensor: torch.Tensor) -> bool:
    """Return whether a tensor is no more than a layout of its storage."""
    if tensor.is_quantized:
        return False
    own = type(tensor).__torch_dispatch__ is not torch.Tensor.__torch_dispatch__
    return isinstance(tensor, FakeTensor) or not own


def _without_statistics(name: str, args: tuple[object, ...]) -> tuple[object, ...]:
    """Return the arguments of a batch normalisation as they are when it runs again.

    In training it reads the statistics of the batch, and moves the running ones: those are left
    out, so that they move once.
    """
    places = _STATISTICS.get(name)
    if places is None:
        return args
    mean, variance, training = places
    if not args[training]:
        return args
    return tuple([None if i in (mean, variance) else value for i, value in enumerate(args)])


def _device_of(args: tuple[object, ...], kwargs: Mapping[str, object]) -> torch.device:
    found: list[torch.Tensor] = []
    collect((*args, *kwargs.values()), found)
    device = kwargs.get("device")
    if found:
        return found[0].device
    return device if isinstance(device, torch.device) else torch.device("cpu")
