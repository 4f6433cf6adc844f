"""The storages that a traced step meets: numbered, followed until they die."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable, Sequence

import torch

from shoestring.core.trace import ALWAYS, Kind, Storage
from shoestring.measure._torch import storage_address


class _Grave(weakref.ref[torch.UntypedStorage]):
    """A reference that knows which storage it was; a function for each would be three objects."""

    __slots__ = ("address", "index")

    address: int
    index: int


@dataclasses.dataclass(slots=True)
class Live:
    """A storage while the step runs.

    Attributes:
        nbytes: its size.
        kind: what it holds, where that was declared.
        birth: operation that made it, or ``ALWAYS``.
        module: path of its parameter, or of the module that made it.
        shape: of the tensor through which it was first seen.
        itemsize: bytes of one element of that tensor.
        death: operation after which it was freed.
        released: operation after which autograd alone held it.
        holders: what keeps it: its memory, and what autograd keeps in place of it.
        graves: tell of the deaths of its memory.
        node: number of the autograd node that made it, or -1.
    """

    nbytes: int
    kind: Kind | None
    birth: int
    module: str
    shape: tuple[int, ...]
    itemsize: int
    death: int | None = None
    released: int | None = None
    holders: int = 0
    graves: list[_Grave] = dataclasses.field(default_factory=list)
    node: int = -1


class Storages:
    """Numbers storages as they are met.

    They are held by weak references, so that they die here when they die in torch.

    Args:
        now: returns the number of the last operation.
    """

    def __init__(self, now: Callable[[], int]) -> None:
        self._now = now
        self._by_address: dict[int, int] = {}
        self._closed = False
        self.live: list[Live] = []
        self.sizes: list[int] = []

    def __len__(self) -> int:
        return len(self.live)

    def __getitem__(self, index: int) -> Live:
        return self.live[index]

    def number(
        self,
        tensor: torch.Tensor,
        birth: int = ALWAYS,
        kind: Kind | None = None,
        module: str = "",
    ) -> int:
        """Return the number of a tensor's storage.

        Args:
            tensor: dense.
            birth: operation that made it, should it be new.
            kind: what it then holds.
            module: path of its parameter, or of the module that made it.
        """
        address = storage_address(tensor)
        index = self._by_address.get(address)
        if index is not None:
            return index
        nbytes = tensor.untyped_storage().nbytes()
        index = len(self.live)
        shape = tuple(tensor.shape)
        self.live.append(Live(nbytes, kind, birth, module, shape, tensor.element_size()))
        self.sizes.append(nbytes)
        self.recur(index, tensor)
        return index

    def recur(self, index: int, tensor: torch.Tensor) -> None:
        """Let a tensor's memory stand for a storage, beside what does already.

        Args:
            index: of the storage.
            tensor: dense, and its memory not met before.
        """
        address, live = storage_address(tensor), self.live[index]
        grave = _Grave(tensor.untyped_storage(), self._bury)
        grave.address, grave.index = address, index
        live.graves.append(grave)
        live.holders += 1
        self._by_address[address] = index

    def hold(self, index: int) -> None:
        """Let something else keep a storage.

        Args:
            index: of the storage.
        """
        self.live[index].holders += 1

    def let_go(self, index: int) -> None:
        """Let go of what `hold` kept.

        Args:
            index: of the storage.
        """
        live = self.live[index]
        live.holders -= 1
        if live.holders == 0 and not self._closed:
            live.death = self._now()

    def find(self, tensor: torch.Tensor) -> Live | None:
        """Return a tensor's storage, if it was met.

        Args:
            tensor: dense.
        """
        index = self._by_address.get(storage_address(tensor))
        return None if index is None else self.live[index]

    def close(self) -> None:
        """Stop to follow them: what is alive now outlives the step."""
        self._closed = True
        for live in self.live:
            live.graves.clear()
        self._by_address.clear()

    def _bury(self, grave: weakref.ref[torch.UntypedStorage]) -> None:
        assert isinstance(grave, _Grave)
        live = self.live[grave.index]
        live.holders -= 1
        if live.holders == 0:
            live.death = self._now()
        elif live.released is None:
            live.released = self._now()
        if self._by_address.get(grave.address) == grave.index:
            del self._by_address[grave.address]

    def finished(
        self,
        deaths: Sequence[int | None],
        *,
        backward: int,
        last: int,
        steady: bool,
        round_up: Callable[[int], int],
    ) -> tuple[Storage, ...]:
        """Return them as a trace has them.

        Args:
            deaths: of each.
            backward: the first operation after forward.
            last: the last operation.
            steady: whether what outlives the step is replaced by its like in the next one.
            round_up: how the allocator rounds sizes.
        """
        found = []
        for live, died in zip(self.live, deaths, strict=True):
            birth, death = live.birth, died
            kind = live.kind or _activation(birth, death, backward)
            if steady and death is None and birth != ALWAYS:
                # A gradient dies as the next step begins; anything else that outlives its
                # step is replaced by its like in the next, so it is always there.
                birth, death = (birth, last) if kind is Kind.GRADIENT else (ALWAYS, None)
            found.append(
                Storage(
                    nbytes=round_up(live.nbytes),
                    kind=kind,
                    birth=birth,
                    death=death,
                    module=live.module,
                    shape=live.shape,
                    itemsize=live.itemsize,
                    released=None if birth == ALWAYS else live.released,
                )
            )
        return tuple(found)


def _activation(birth: int, death: int | None, backward: int) -> Kind:
    if birth == ALWAYS:
        return Kind.BUFFER
    kept = birth < backward and (death is None or death >= backward)
    return Kind.ACTIVATION if kept else Kind.TEMPORARY
