"""A traced step as the graph that solvers choose from."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final

from shoestring.activations.remat.graph import Graph, Node, Value
from shoestring.core.machine import Machine
from shoestring.core.trace import ALWAYS, Kind, Op, Phase, Trace, uses_of

SMALL: Final = 1024
"""Bytes below which it is not worth to make a value again."""

STATE: Final = 16 * 1024
"""Bytes from which on random numbers are worth the state of a generator (5 kB) to draw again."""

_ONCE: Final = frozenset({"aten._local_scalar_dense.default", "aten.lift_fresh.default"})
_CAST: Final = "aten._to_copy.default"


@dataclasses.dataclass(frozen=True)
class StepGraph:
    """A traced step, as operations that may run again and what they make.

    An operation that changes in place what another one made, before anything else reads that, is
    one with it.

    Attributes:
        graph: what is kept and made again is chosen in it. Its backward makes nothing.
        ops: by node of the forward, the operations of the trace.
        storages: by value, the storage of the trace.
    """

    graph: Graph
    ops: tuple[tuple[int, ...], ...]
    storages: tuple[int, ...]


def border_of(trace: Trace) -> int:
    """Return the first operation that is not of the forward.

    Args:
        trace: a step.
    """
    found = (i for i, op in enumerate(trace.ops) if op.phase is not Phase.FORWARD)
    return next(found, len(trace.ops))


def step_graph(trace: Trace, machine: Machine) -> StepGraph:
    """Return the graph of a traced step.

    Args:
        trace: a plain step, of which the first forward counts.
        machine: tells seconds.
    """
    return _Builder(trace, machine).build()


class _Builder:
    def __init__(self, trace: Trace, machine: Machine) -> None:
        self._trace = trace
        self._machine = machine
        self._border = border_of(trace)
        self._uses = uses_of(trace)
        self._made: dict[int, list[int]] = {}
        for s, storage in enumerate(trace.storages):
            if 0 <= storage.birth < self._border:
                self._made.setdefault(storage.birth, []).append(s)
        self._seen = any(s.released is not None for s in trace.storages)
        forward = trace.ops[: self._border]
        written = {s for op in forward for s in op.writes}
        self._changed = {s for s in written if trace.storages[s].birth == ALWAYS}
        self._writes = {
            s: [i for i in self._uses[s] if i < self._border and s in trace.ops[i].writes]
            for s in written
        }
        self._fixed: set[int] = set()

    def build(self) -> StepGraph:
        groups = sorted(self._groups(), key=lambda group: group[-1])
        number = {s: n for n, s in enumerate(s for g in groups for s in self._made_by(g))}
        nodes = [self._node(group, number) for group in groups]
        nodes.append(Node("loss", 0.0, tuple(number.values()), ()))
        nodes += self._backward(number)
        sizes = tuple(Value(str(s), self._trace.storages[s].nbytes) for s in number)
        graph = Graph(tuple(nodes), sizes, len(groups), frozenset(), frozenset())
        return StepGraph(graph, tuple(map(tuple, groups)), tuple(number))

    def _made_by(self, group: Sequence[int]) -> list[int]:
        return [s for i in group for s in self._made.get(i, ())]

    def _groups(self) -> list[list[int]]:
        """Return the operations of the forward, each with those that change its results."""
        groups: list[list[int]] = []
        group_of: dict[int, list[int]] = {}
        for index in range(self._border):
            op = self._trace.ops[index]
            mine = {id(group_of[s]): group_of[s] for s in op.writes if s in group_of}
            group = next(iter(mine.values()), None)
            if group is not None and self._joins(index, group, len(mine)):
                group.append(index)
            else:
                for other in mine.values():
                    self._fixed.update(other)
                    self._fixed.add(index)
                group = [index]
                groups.append(group)
            for s in self._made.get(index, ()):
                group_of[s] = group
        return groups

    def _joins(self, index: int, group: Sequence[int], owners: int) -> bool:
        """Return whether a change in place is the first thing that happens to a result."""
        made = self._made_by(group)
        others = [i for s in made for i in self._uses[s] if i < index and i not in group]
        return owners == 1 and not others and not self._made.get(index)

    def _node(self, group: Sequence[int], number: dict[int, int]) -> Node:
        ops = [self._trace.ops[i] for i in group]
        made = self._made_by(group)
        reads = dict.fromkeys(s for op in ops for s in op.reads if s not in made and s in number)
        return Node(
            name=ops[0].name,
            seconds=sum(self._machine.seconds(op) for op in ops),
            reads=tuple(number[s] for s in reads),
            makes=tuple(number[s] for s in made),
            workspace=max(op.workspace for op in ops),
            repeatable=self._repeatable(group, ops, made),
        )

    def _repeatable(self, group: Sequence[int], ops: Sequence[Op], made: Sequence[int]) -> bool:
        storages = self._trace.storages
        size = sum(storages[s].nbytes for s in made)
        if size < (STATE if any(op.random for op in ops) else SMALL):
            return False
        if not self._fixed.isdisjoint(group) or any(self._held(s) for s in made):
            return False
        if any(self._changes_later(s, i, group) for i in group for s in self._trace.ops[i].reads):
            return False
        return all(map(self._inside, group)) and all(map(self._is_pure, ops))

    def _changes_later(self, s: int, index: int, group: Sequence[int]) -> bool:
        """Return whether something else changes a storage in place after an operation read it."""
        return any(i > index and i not in group for i in self._writes.get(s, ()))

    def _inside(self, index: int) -> bool:
        return any(start <= index < stop for start, stop in self._trace.calls)

    def _is_pure(self, op: Op) -> bool:
        if not op.name.startswith("aten.") or op.name in _ONCE:
            return False
        touched = [*op.reads, *op.writes]
        if op.name == _CAST and any(
            self._trace.storages[s].kind is Kind.PARAMETER for s in op.reads
        ):
            return False  # mixed precision keeps the weights it has cast for the whole forward
        return self._changed.isdisjoint(touched)

    def _held(self, s: int) -> bool:
        """Return whether something beside autograd keeps a storage until backward."""
        storage = self._trace.storages[s]
        if storage.death is None or storage.nbytes < SMALL:
            return storage.death is None
        if storage.death < self._border or not self._seen:
            return False
        return storage.released is None or storage.released >= self._border

    def _backward(self, number: dict[int, int]) -> list[Node]:
        read: dict[int, list[int]] = {}
        for s, value in number.items():
            later = [i for i in self._uses[s] if i >= self._border]
            death = self._trace.storages[s].death
            if not later and death is not None and death >= self._border:
                later = [death]  # kept without being read, for its shape
            for i in later:
                read.setdefault(i, []).append(value)
        return [Node(self._trace.ops[i].name, 0.0, tuple(read[i]), ()) for i in sorted(read)]
