"""Predict what a step costs when some operations of its forward run again in backward."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shoestring.activations.remat.eager.sites import Site, sites_of
from shoestring.core.edit import Editor, again, living, remap
from shoestring.core.trace import ALWAYS, Kind, Phase, Storage, Trace, uses_of

Ints = NDArray[np.int64]
_NEVER = -2
"""The death of what outlives the step."""

_LATE: Final = frozenset({Phase.BACKWARD, Phase.RECOMPUTE})


def recomputed(trace: Trace, sites: Collection[Site]) -> Trace:
    """Return the step whose forward lets go of what some operations make.

    Before a backward operation reads such a value it is made again, and whatever it is made from
    that is not there either, each once. A value that was made again is freed when nothing else
    needs it; what another is made again from stays until then.

    Args:
        trace: the plain step.
        sites: of the operations that run again; those that the step does not have say nothing.

    Returns:
        The changed step.
    """
    wanted = frozenset(sites)
    chosen = {index for index, site in sites_of(trace).items() if site in wanted}
    if not chosen:
        return trace
    step = PlainStep(trace)
    return step.changed(step.run_again(chosen))


class Inserted(NamedTuple):
    """An operation of the forward that runs again.

    Attributes:
        before: operation of the plain step before which it runs.
        maker: the operation that it repeats.
    """

    before: int
    maker: int


@dataclasses.dataclass(slots=True)
class Copy:
    """A value that was made again.

    Attributes:
        birth: number of the operation that makes it.
        death: number of the operation after which it is freed.
        place: where that stands.
    """

    birth: int
    death: int
    place: float


@dataclasses.dataclass(frozen=True)
class Change:
    """What is different in a step that computes again.

    Operations have numbers: those of the plain step their index, and after them the inserted ones
    in the order in which they were inserted.

    Attributes:
        inserted: operations that run again.
        deaths: storage -> number of the operation after which it is freed now.
        copies: storage -> its copy.
        readers: operations of backward that read copies.
    """

    inserted: list[Inserted]
    deaths: dict[int, int]
    copies: dict[int, Copy]
    readers: list[int]


class PlainStep:
    """A plain step, looked through once for many changes of it.

    Args:
        trace: the step.
    """

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.uses = uses_of(trace)
        self.phases = [op.phase for op in trace.ops]
        self.made: dict[int, list[int]] = {}
        for s, storage in enumerate(trace.storages):
            if storage.birth != ALWAYS:
                self.made.setdefault(storage.birth, []).append(s)
        self.starts = self._starts()
        storages = trace.storages
        self._births = np.array([s.birth for s in storages], dtype=np.int64)
        self._deaths = np.array(
            [_NEVER if s.death is None else s.death for s in storages], dtype=np.int64
        )
        self._bytes = np.array([s.nbytes for s in storages], dtype=np.int64)
        self._spaces = np.array([op.workspace for op in trace.ops], dtype=np.int64)

    def _starts(self) -> list[int]:
        """Return the first operation of the autograd node that each one belongs to.

        What a node kept is unpacked before any of it runs.
        """
        starts = list(range(len(self.trace.ops)))
        for index, op in enumerate(self.trace.ops[1:], 1):
            before = self.trace.ops[index - 1]
            if op.phase is before.phase is Phase.BACKWARD and op.source == before.source >= 0:
                starts[index] = starts[index - 1]
        return starts

    def late_uses(self, s: int) -> list[int]:
        """Return the operations of backward that touch a storage.

        Another technique may have put a part of the forward there, and that reads as well.

        Args:
            s: index of the storage.
        """
        return [i for i in self.uses[s] if self.phases[i] in _LATE]

    def run_again(self, chosen: Iterable[int]) -> Change:
        """Return what is different when some operations run again.

        Args:
            chosen: operations of the forward.
        """
        return _Making(self, frozenset(chosen)).change

    def changed(self, change: Change) -> Trace:
        """Return the changed step.

        Args:
            change: of this step.
        """
        editor, trace = Editor(self.trace), self.trace
        numbers: dict[int, int] = {}
        for s in change.copies:  # so that operations can name them
            numbers[s] = editor.add(trace.storages[s])
        for before, maker in change.inserted:
            editor.insert(before, again(trace.ops[maker], numbers))
        for s, copy in change.copies.items():
            editor.storages[numbers[s]] = living(
                trace.storages[s], birth=copy.birth, death=copy.death, kind=Kind.TEMPORARY
            )
        for index in change.readers:
            editor.replace(index, remap(trace.ops[index], numbers))
        for s, death in change.deaths.items():
            storage = trace.storages[s]
            kind = self._kind(storage, death)
            editor.storages[s] = living(storage, birth=storage.birth, death=death, kind=kind)
        return editor.trace()

    def _kind(self, storage: Storage, death: int) -> Kind:
        if storage.kind not in (Kind.TEMPORARY, Kind.ACTIVATION):
            return storage.kind
        freed = death < len(self.phases) and self.phases[death] is Phase.FORWARD
        return Kind.TEMPORARY if freed else Kind.ACTIVATION

    def timeline(self, change: Change, counts: Ints) -> Ints:
        """Return bytes alive while each operation of the changed step runs, workspaces included.

        They are those of `changed(change)`, which is not made for it.

        Args:
            change: of this step.
            counts: 1 for each storage that counts, 0 for others.
        """
        places = self.places(change)
        births, deaths = self._births, self._deaths.copy()
        for s, death in change.deaths.items():
            deaths[s] = death
        copied = list(change.copies)
        copies = change.copies.values()
        births = np.append(births, np.array([copy.birth for copy in copies], dtype=np.int64))
        deaths = np.append(deaths, np.array([copy.death for copy in copies], dtype=np.int64))
        sizes = self._bytes * counts
        sizes = np.append(sizes, sizes[copied]) if copied else sizes
        delta = np.zeros(len(places) + 1, dtype=np.int64)
        np.add.at(delta, np.where(births == ALWAYS, 0, places[births]), sizes)
        ends = np.where(deaths == _NEVER, len(places), places[deaths] + 1)
        np.subtract.at(delta, ends, sizes)
        spaces = np.zeros(len(places), dtype=np.int64)
        makers = np.array([maker for _, maker in change.inserted], dtype=np.int64)
        spaces[places] = np.append(self._spaces, self._spaces[makers])
        alive: Ints = np.cumsum(delta[:-1]) + spaces
        return alive

    def places(self, change: Change) -> Ints:
        """Return where each operation stands in the changed step, by its number.

        Args:
            change: of this step.
        """
        count = len(self.phases)
        befores = np.array([before for before, _ in change.inserted], dtype=np.int64)
        order = np.argsort(befores, kind="stable")
        places = np.empty(count + len(befores), dtype=np.int64)
        old = np.arange(count)
        places[:count] = old + np.searchsorted(befores[order], old, side="right")
        places[count + order] = befores[order] + np.arange(len(befores))
        return places


class _Making:
    """The making of a change.

    A place is where an operation stands among those of the plain step: its index, and for one
    that is inserted before it, the index less a half.
    """

    def __init__(self, step: PlainStep, chosen: frozenset[int]) -> None:
        self._step = step
        self._trace = step.trace
        self._dropped = {s for index in chosen for s in step.made.get(index, ())}
        self._makers = {s: self._makers_of(s) for s in self._dropped}
        self._ran: set[int] = set()
        self.change = Change([], {}, {}, [])
        for s in self._dropped:
            self._let_go(s)
        reads: dict[int, list[int]] = {}
        for s in self._dropped:
            for index in self._reads(s):
                reads.setdefault(index, []).append(s)
        for index in sorted(reads):
            self._run_again(reads[index], step.starts[index])
            self.change.readers.append(index)
            for s in reads[index]:
                self._touch(s, index, index)
        for s, copy in self.change.copies.items():
            kept_until = self._trace.storages[s].death
            if kept_until is not None and kept_until > copy.place:
                copy.death = kept_until

    def _makers_of(self, s: int) -> list[int]:
        """Return what makes a storage: what gave it birth, and what changed it in place."""
        ops, phases = self._trace.ops, self._step.phases
        changes = {i for i in self._step.uses[s] if s in ops[i].writes}
        forward = {i for i in changes if phases[i] is Phase.FORWARD}
        return sorted({self._trace.storages[s].birth, *forward})

    def _reads(self, s: int) -> list[int]:
        """Return the operations of backward that read a storage, or only let go of it."""
        found = self._step.late_uses(s)
        death = self._trace.storages[s].death
        if not found and death is not None and self._step.phases[death] in _LATE:
            found.append(death)
        return found

    def _let_go(self, s: int) -> None:
        """Let a storage that backward would hold die in the forward."""
        storage, phases = self._trace.storages[s], self._step.phases
        if storage.death is None or phases[storage.death] is Phase.FORWARD:
            return
        uses = [i for i in self._step.uses[s] if phases[i] is Phase.FORWARD]
        death = max(storage.birth, storage.released or 0, *uses[-1:])
        if death < storage.death:
            self.change.deaths[s] = death

    def _run_again(self, needed: Collection[int], before: int) -> None:
        """Insert what makes some storages again, and what those need."""
        called: set[int] = set()
        open_storages = list(needed)
        while open_storages:
            for maker in self._makers[open_storages.pop()]:
                if maker not in called and maker not in self._ran:
                    called.add(maker)
                    reads = self._trace.ops[maker].reads
                    open_storages += [s for s in reads if s in self._dropped]
        for maker in sorted(called):
            self._insert(maker, before)
        self._ran |= called

    def _insert(self, maker: int, before: int) -> None:
        op, change = self._trace.ops[maker], self.change
        number = len(self._trace.ops) + len(change.inserted)
        change.inserted.append(Inserted(before, maker))
        made = self._step.made.get(maker, ())
        for s in made:
            change.copies[s] = Copy(number, number, before - 0.5)
        for s in (*op.reads, *op.writes):
            if s in self._dropped:
                self._touch(s, before - 0.5, number)
            else:
                self._hold(s, number, before)

    def _touch(self, s: int, place: float, number: int) -> None:
        copy = self.change.copies[s]
        if place >= copy.place:
            copy.place, copy.death = place, number

    def _hold(self, s: int, number: int, before: int) -> None:
        """Let what a value is made from again live until then."""
        death = self.change.deaths.get(s, self._trace.storages[s].death)
        if death is not None and (death >= len(self._trace.ops) or death < before):
            self.change.deaths[s] = number
