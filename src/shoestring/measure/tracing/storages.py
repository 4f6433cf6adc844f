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
        grave: tells of its death.
        node: number of the autograd node that made it, or -1.
    """

    nbytes: int
    kind: Kind | None
    birth: int
    module: str
    shape: tuple[int, ...]
    itemsize: int
    death: int | None = None
    grave: _Grave | None = None
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
        storage = tensor.untyped_storage()
        index = len(self.live)
        shape = tuple(tensor.shape)
        live = Live(storage.nbytes(), kind, birth, module, shape, tensor.element_size())
        live.grave = _Grave(storage, self._bury)
        live.grave.address, live.grave.index = address, index
        self.live.append(live)
        self.sizes.append(live.nbytes)
        self._by_address[address] = index
        return index

    def find(self, tensor: torch.Tensor) -> Live | None:
        """Return a tensor's storage, if it was met.

        Args:
            tensor: dense.
        """
        index = self._by_address.get(storage_address(tensor))
        return None if index is None else self.live[index]

    def close(self) -> None:
        """Stop to follow them: what is alive now outlives the step."""
        for live in self.live:
            live.grave = None
        self._by_address.clear()

    def _bury(self, grave: weakref.ref[torch.UntypedStorage]) -> None:
        assert isinstance(grave, _Grave)
        self.live[grave.index].death = self._now()
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
                )
            )
        return tuple(found)


def _activation(birth: int, death: int | None, backward: int) -> Kind:
    if birth == ALWAYS:
        return Kind.BUFFER
    kept = birth < backward and (death is None or death >= backward)
    return Kind.ACTIVATION if kept else Kind.TEMPORARY
