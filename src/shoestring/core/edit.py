"""Edit a trace: insert, replace and drop operations and storages, and renumber once at the end."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Mapping, Sequence
from typing import Final

from shoestring.core.trace import ALWAYS, Block, Kind, Op, Phase, Storage, Trace

# A planner edits traces of ten thousand operations hundreds of times, and dataclasses.replace
# takes several times as long as reading all fields at once does.
_OP_FIELDS: Final = tuple(f.name for f in dataclasses.fields(Op))
_OP_VALUES: Final = operator.attrgetter(*_OP_FIELDS)
_READS, _WRITES = _OP_FIELDS.index("reads"), _OP_FIELDS.index("writes")
_PHASE, _SOURCE = _OP_FIELDS.index("phase"), _OP_FIELDS.index("source")
_STORAGE_FIELDS: Final = tuple(f.name for f in dataclasses.fields(Storage))
_STORAGE_VALUES: Final = operator.attrgetter(*_STORAGE_FIELDS)
_BIRTH, _DEATH = _STORAGE_FIELDS.index("birth"), _STORAGE_FIELDS.index("death")
_KIND: Final = _STORAGE_FIELDS.index("kind")
_RELEASED: Final = _STORAGE_FIELDS.index("released")


class Editor:
    """A trace while it is being changed.

    Everything is named by its number in the trace that was given: an operation or storage
    keeps its number until `trace` renumbers all of them. What is inserted gets numbers of its
    own, above the others, so births, deaths, reads and writes can name it at once.

    Args:
        trace: the trace to change; it stays as it is.

    Attributes:
        storages: the storages, to be replaced in place by number.

    Example:
        >>> from shoestring.core.trace import Kind, Phase
        >>> step = Trace((Op("a", Phase.FORWARD, ""), Op("b", Phase.BACKWARD, "")), ())
        >>> editor = Editor(step)
        >>> copied = editor.insert(1, Op("a", Phase.RECOMPUTE, ""))
        >>> _ = editor.add(Storage(8, Kind.TEMPORARY, copied, 1))
        >>> [(s.birth, s.death) for s in editor.trace().storages]
        [(1, 2)]
    """

    def __init__(self, trace: Trace) -> None:
        self._old = trace
        self._ops: list[Op | None] = list(trace.ops)
        self.storages: list[Storage] = list(trace.storages)
        self._before: dict[int, list[int]] = {}
        self._dropped_storages: set[int] = set()

    def op(self, number: int) -> Op:
        """Return an operation as it stands now.

        Args:
            number: of an operation that was not dropped.
        """
        op = self._ops[number]
        assert op is not None, "the operation was dropped"
        return op

    def insert(self, before: int, op: Op) -> int:
        """Insert an operation, after those inserted at the same place before it.

        Args:
            before: number of an operation of the given trace, or their count for the end.
            op: the operation.

        Returns:
            Its number.
        """
        self._ops.append(op)
        self._before.setdefault(before, []).append(len(self._ops) - 1)
        return len(self._ops) - 1

    def replace(self, number: int, op: Op) -> None:
        """Put another operation in the place of one.

        Args:
            number: of the operation.
            op: the other one.
        """
        self._ops[number] = op

    def drop(self, number: int) -> None:
        """Drop an operation: what it made is born, and what it freed dies, at its neighbour.

        Args:
            number: of the operation.
        """
        self._ops[number] = None

    def add(self, storage: Storage) -> int:
        """Add a storage.

        Args:
            storage: its birth and death name operations by number.

        Returns:
            Its number.
        """
        self.storages.append(storage)
        return len(self.storages) - 1

    def drop_storage(self, number: int) -> None:
        """Drop a storage; operations no longer read or write it.

        Args:
            number: of the storage.
        """
        self._dropped_storages.add(number)

    def trace(self) -> Trace:
        """Return the changed trace, everything renumbered."""
        order, place = self._order()
        kept = [i for i in range(len(self.storages)) if i not in self._dropped_storages]
        moved = {old: new for new, old in enumerate(kept)} if self._dropped_storages else None
        last = len(order) - 1
        ops = tuple(self._renumbered(self.op(number), place, moved) for number in order)
        storages = tuple(_moved(self.storages[i], place, last) for i in kept)
        accumulated = {
            (index if moved is None else moved[index]): max(0, place[op][1])
            for index, op in self._old.accumulated.items()
            if index not in self._dropped_storages
        }
        blocks = tuple(
            Block(b.path, _interval(b.forward, place), _interval(b.backward, place))
            for b in self._old.blocks
            if b.forward[0] < b.forward[1] and b.backward[0] < b.backward[1]
        )
        calls = tuple(_interval(span, place) for span in self._old.calls if span[0] < span[1])
        return dataclasses.replace(
            self._old,
            ops=ops,
            storages=storages,
            blocks=blocks,
            accumulated=accumulated,
            calls=calls,
        )

    def _order(self) -> tuple[list[int], list[tuple[int, int]]]:
        """Return the numbers in their new order, and each one's new place.

        The place is (as a birth, as a death): the same for an operation that is kept, the
        next and the previous one for an operation that was dropped.
        """
        order: list[int] = []
        place = [(0, 0)] * len(self._ops)
        count = len(self._old.ops)
        for number in range(count + 1):
            for each in (*self._before.get(number, ()), *((number,) if number < count else ())):
                kept = self._ops[each] is not None
                place[each] = (len(order), len(order) - (not kept))
                if kept:
                    order.append(each)
        return order, place

    def _renumbered(
        self, op: Op, place: Sequence[tuple[int, int]], moved: Mapping[int, int] | None
    ) -> Op:
        reads, writes, source = op.reads, op.writes, op.source
        if moved is not None:
            reads = tuple(moved[i] for i in reads if i in moved)
            writes = tuple(moved[i] for i in writes if i in moved)
        if source >= 0:
            source = place[source][0] if self._ops[source] is not None else -1
        if source == op.source and moved is None:
            return op
        values = list(_OP_VALUES(op))
        values[_READS], values[_WRITES], values[_SOURCE] = reads, writes, source
        return Op(*values)


def _moved(storage: Storage, place: Sequence[tuple[int, int]], last: int) -> Storage:
    birth, death, released = storage.birth, storage.death, storage.released
    if birth != ALWAYS:
        birth = min(place[birth][0], max(last, 0))
    if death is not None:
        death = max(place[death][1], birth, 0)
    if released is not None:
        released = max(place[released][1], birth, 0)
    if (birth, death, released) == (storage.birth, storage.death, storage.released):
        return storage
    values = list(_STORAGE_VALUES(storage))
    values[_BIRTH], values[_DEATH], values[_RELEASED] = birth, death, released
    return Storage(*values)


def _interval(old: tuple[int, int], place: Sequence[tuple[int, int]]) -> tuple[int, int]:
    start, stop = old
    return place[start][0], place[stop - 1][1] + 1


def living(storage: Storage, *, birth: int, death: int | None, kind: Kind) -> Storage:
    """Return a storage with another life.

    Args:
        storage: the storage.
        birth: the operation that makes it now.
        death: the operation after which it is freed now, or None.
        kind: what it counts as now.

    Returns:
        The changed storage.
    """
    values = list(_STORAGE_VALUES(storage))
    values[_BIRTH], values[_DEATH], values[_KIND] = birth, death, kind
    if birth != storage.birth:  # another one
        values[_RELEASED] = None
    return Storage(*values)


def remap(op: Op, storages: Mapping[int, int]) -> Op:
    """Return an operation that reads and writes other storages.

    Args:
        op: the operation.
        storages: old number -> new number; those that are missing stay.

    Returns:
        The changed operation.
    """
    values = list(_OP_VALUES(op))
    values[_READS] = tuple([storages.get(i, i) for i in op.reads])
    values[_WRITES] = tuple([storages.get(i, i) for i in op.writes])
    return Op(*values)


def again(op: Op, storages: Mapping[int, int]) -> Op:
    """Return a forward operation as it is when it is computed again in backward.

    Args:
        op: the operation.
        storages: old number -> number of the copy; those that are missing stay.

    Returns:
        The operation of the recomputation.
    """
    values = list(_OP_VALUES(op))
    values[_READS] = tuple([storages.get(i, i) for i in op.reads])
    values[_WRITES] = tuple([storages.get(i, i) for i in op.writes])
    values[_PHASE], values[_SOURCE] = Phase.RECOMPUTE, -1
    return Op(*values)
