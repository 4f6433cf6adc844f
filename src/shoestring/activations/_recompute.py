"""Predict what a step costs when blocks are computed again in backward."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence

from shoestring.core.edit import Editor, again, living, remap
from shoestring.core.trace import ALWAYS, Block, Kind, Storage, Trace


def recomputed(trace: Trace, paths: Collection[str]) -> Trace:
    """Return the step with some blocks' insides freed in forward and computed again in backward.

    What is made in a block's forward and read by its own backward only dies in the forward; a
    copy of the block's operations, up to the last one that makes something its backward needs,
    stands before the first backward operation that reads something of the forward. What goes
    into a block lives until its backward has read the last of what the forward kept.

    Args:
        trace: the plain step.
        paths: the blocks' dotted paths.

    Returns:
        The changed step.
    """
    regions = [_Region(trace, b) for b in _outermost(trace.blocks, paths)]
    if not regions:
        return trace
    uses = _uses(trace)
    trace = _with_constants(trace, uses)
    born = _born(trace)
    editor = Editor(trace)
    holds: dict[int, int] = {}
    for region in regions:
        for s in region.inputs(trace):
            holds[s] = max(holds.get(s, 0), region.last)
    for region in regions:
        inside = [s for i in range(*region.forward) for s in born.get(i, ())]
        needed = {s for s in inside if region.needs(trace.storages[s], uses[s])}
        for s in inside:
            storage = trace.storages[s]
            death = region.death(storage, uses[s], s in needed)
            if s in holds and death is not None:
                death = max(death, holds[s])
            kept = death is None or (death >= region.forward[1] and s in holds)
            kind = Kind.ACTIVATION if kept and storage.kind is Kind.TEMPORARY else storage.kind
            if storage.kind is Kind.ACTIVATION and death is not None and death < region.forward[1]:
                kind = Kind.TEMPORARY
            editor.storages[s] = living(storage, birth=storage.birth, death=death, kind=kind)
        _insert(editor, trace, region, inside, needed, uses)
    _hold(editor, trace, holds, regions)
    return editor.trace()


class _Region:
    """The forward and the backward of one call of a block."""

    def __init__(self, trace: Trace, block: Block) -> None:
        self.forward = block.forward
        self.backward = block.backward
        a, b = block.forward
        # An interval of backward may hold operations of other branches. Those that
        # differentiate no operation, as views leave none, are taken for the block's own.
        sources = [op.source for op in trace.ops[slice(*block.backward)]]
        start = block.backward[0]
        self._own = {start + i for i, k in enumerate(sources) if a <= k < b or k < 0}
        self.first, self.last = self._unpacking(trace)

    def _unpacking(self, trace: Trace) -> tuple[int, int]:
        """Return the first and the last backward operation that read what the forward kept.

        The first one sets off the recomputation; after the last one nothing holds the inputs.
        """
        found = [
            i
            for i in range(*self.backward)
            if i in self._own
            and any(
                trace.storages[s].birth < self.forward[1]
                and trace.storages[s].kind is not Kind.GRADIENT
                for s in trace.ops[i].reads
            )
        ]
        return (found[0], found[-1]) if found else (self.backward[0], self.backward[0])

    def own(self, index: int) -> bool:
        """Whether an operation belongs to the block's backward."""
        return index in self._own

    def inputs(self, trace: Trace) -> set[int]:
        """Return what the forward reads and did not make."""
        read = {s for i in range(*self.forward) for s in trace.ops[i].reads}
        return {s for s in read if ALWAYS < trace.storages[s].birth < self.forward[0]}

    def needs(self, storage: Storage, uses: Sequence[int]) -> bool:
        """Whether the backward needs something that the forward made."""
        return any(self.own(i) for i in uses) or self.frees(storage, uses)

    def frees(self, storage: Storage, uses: Sequence[int]) -> bool:
        """Whether something made in the forward dies because its own backward lets it go.

        It may have been kept without being read: autograd keeps tensors for their shapes too.
        """
        c, d = self.backward
        if storage.death is None or not c <= storage.death < d:
            return False
        outside = self.outside(uses)
        return not outside or outside[-1] < c

    def outside(self, uses: Sequence[int]) -> list[int]:
        """Return the uses that are neither in the forward nor in its backward."""
        a, b = self.forward
        return [i for i in uses if not (a <= i < b or self.own(i))]

    def death(self, storage: Storage, uses: Sequence[int], needed: bool) -> int | None:
        """Return when something made in the forward dies now."""
        (a, b), (c, d) = self.forward, self.backward
        old = storage.death
        if old is None or old < b or old >= d:
            return old  # freed in the forward anyway, or held by something outside
        inside = max((i for i in uses if a <= i < b), default=storage.birth)
        outside = self.outside(uses)
        if not outside:
            return max(inside, storage.birth)
        return max(outside[-1], inside) if needed and c <= old else old


def _insert(
    editor: Editor,
    trace: Trace,
    region: _Region,
    inside: Sequence[int],
    needed: set[int],
    uses: Sequence[list[int]],
) -> None:
    """Insert the second run of a block's forward, and let its backward read the copies."""
    if not needed:
        return
    a, b = region.forward
    stop = a + 1
    for i in range(a, b):
        op = trace.ops[i]
        if not needed.isdisjoint(op.writes):
            stop = max(stop, i + 1)
    stop = max(stop, 1 + max(trace.storages[s].birth for s in needed))
    made = [s for s in inside if trace.storages[s].birth < stop]
    copies = {s: len(editor.storages) + k for k, s in enumerate(made)}
    before = region.first
    numbers = {i: editor.insert(before, again(trace.ops[i], copies)) for i in range(a, stop)}
    for s in made:
        storage = trace.storages[s]
        if s in needed:
            mine = [i for i in uses[s] if region.own(i)]
            freed = storage.death if region.frees(storage, uses[s]) else None
            last = max(mine, default=before) if freed is None else freed
        elif storage.death is not None and storage.death < stop:
            last = numbers[storage.death]
        else:
            last = numbers[stop - 1]
        editor.add(living(storage, birth=numbers[storage.birth], death=last, kind=Kind.TEMPORARY))
    for i in {i for s in made for i in uses[s] if region.own(i)}:
        editor.replace(i, remap(editor.op(i), copies))


def _hold(
    editor: Editor, trace: Trace, holds: Mapping[int, int], regions: Sequence[_Region]
) -> None:
    """Let what goes into blocks, and was not made in one, live until they are differentiated."""
    made = {i for region in regions for i in range(*region.forward)}
    for s, until in holds.items():
        storage = trace.storages[s]
        if storage.birth in made or storage.death is None or storage.death >= until:
            continue
        kind = Kind.ACTIVATION if storage.kind is Kind.TEMPORARY else storage.kind
        editor.storages[s] = living(storage, birth=storage.birth, death=until, kind=kind)


def _outermost(blocks: Sequence[Block], paths: Collection[str]) -> list[Block]:
    chosen: list[Block] = []
    wanted = set(paths)
    for block in sorted(blocks, key=lambda b: (b.forward[0], -b.forward[1])):
        nested = bool(chosen) and block.forward[0] < chosen[-1].forward[1]
        if block.path in wanted and not nested and block.forward[0] < block.forward[1]:
            chosen.append(block)
    return chosen


def _uses(trace: Trace) -> list[list[int]]:
    uses: list[list[int]] = [[] for _ in trace.storages]
    for i, op in enumerate(trace.ops):
        for s in op.reads:
            uses[s].append(i)
        for s in op.writes:
            if s not in op.reads:
                uses[s].append(i)
    return uses


def _with_constants(trace: Trace, uses: Sequence[list[int]]) -> Trace:
    """Let tensors that a model makes of Python numbers on the way begin with their first use.

    No operation makes them, so a trace has them from the start; they are made again, too.
    """
    storages = list(trace.storages)
    for s, storage in enumerate(trace.storages):
        if storage.birth == ALWAYS and storage.death is not None and uses[s]:
            storages[s] = living(storage, birth=uses[s][0], death=storage.death, kind=storage.kind)
    return dataclasses.replace(trace, storages=tuple(storages))


def _born(trace: Trace) -> dict[int, list[int]]:
    born: dict[int, list[int]] = {}
    for s, storage in enumerate(trace.storages):
        born.setdefault(storage.birth, []).append(s)
    return born
