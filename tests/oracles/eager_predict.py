"""A step whose forward lets go of values, played through event by event."""

from __future__ import annotations

from shoestring.core.trace import ALWAYS, Op, Phase, Storage, Trace

Events = list[tuple[int, bool]]
"""Operations, and whether they run again."""

LATE = (Phase.BACKWARD, Phase.RECOMPUTE)


def timeline(trace: Trace, chosen: set[int]) -> list[int]:
    """Return the bytes alive in each event: what a node reads is made again before it begins."""
    dropped = {s for s, storage in enumerate(trace.storages) if storage.birth in chosen}
    events = played(trace, dropped)
    alive = [trace.ops[i].workspace for i, _ in events]
    for s, storage in enumerate(trace.storages):
        for start, stop in lives(trace, events, s, storage, s in dropped):
            for k in range(start, min(stop + 1, len(events))):
                alive[k] += storage.nbytes
    return alive


def played(trace: Trace, dropped: set[int]) -> Events:
    """Return the events of a step."""
    events: Events = []
    ran: set[int] = set()
    first = 0
    while first < len(trace.ops):
        node = node_of(trace.ops, first)
        for i in node if trace.ops[first].phase in LATE else ():
            again: set[int] = set()
            for s in dropped:
                if unpacks(trace, s, i):
                    add_makers(trace, s, dropped, ran, again)
            events += [(maker, True) for maker in sorted(again)]
            ran |= again
        events += [(i, False) for i in node]
        first += len(node)
    return events


def node_of(ops: tuple[Op, ...], first: int) -> list[int]:
    """Return the operations of the autograd node that begins with one."""
    last = first + 1
    while last < len(ops) and ops[first].source == ops[last].source >= 0:
        if not ops[last].phase is ops[first].phase is Phase.BACKWARD:
            break
        last += 1
    return list(range(first, last))


def uses(trace: Trace, s: int, phases: tuple[Phase, ...]) -> list[int]:
    """Return the operations of some phases that read or write a storage."""
    ops = enumerate(trace.ops)
    return [i for i, op in ops if op.phase in phases and s in (*op.reads, *op.writes)]


def unpacks(trace: Trace, s: int, i: int) -> bool:
    """Return whether an operation of backward asks for a storage, or lets go of it unread."""
    read = uses(trace, s, LATE)
    return i in read or (not read and trace.storages[s].death == i)


def add_makers(trace: Trace, s: int, dropped: set[int], ran: set[int], found: set[int]) -> None:
    """Add what makes and changes a storage, and what that needs."""
    for i, op in enumerate(trace.ops):
        makes = i == trace.storages[s].birth or s in op.writes
        if op.phase is Phase.FORWARD and makes and i not in found | ran:
            found.add(i)
            for other in dropped.intersection(op.reads):
                add_makers(trace, other, dropped, ran, found)


def lives(
    trace: Trace, events: Events, s: int, storage: Storage, dropped: bool
) -> list[tuple[int, int]]:
    """Return the first and last events of a storage, and of what is made again of it."""
    place = {i: k for k, (i, again) in enumerate(events) if not again}
    touched = [{*op.reads, *op.writes} for op in trace.ops]
    repeats = [k for k, (i, again) in enumerate(events) if again and s in touched[i]]
    death = len(events) if storage.death is None else place[storage.death]
    birth = 0 if storage.birth == ALWAYS else place[storage.birth]
    if not dropped:
        return [(birth, max([death, *repeats]))]
    made = [k for k, (i, again) in enumerate(events) if again and storage.birth == i]
    later = [k for k in (place[i] for i in uses(trace, s, LATE)) if [k] > made[:1]]
    copies = [(k, max([k, *repeats, *later, -1 if storage.death is None else death])) for k in made]
    if storage.death is not None and trace.ops[storage.death].phase is not Phase.FORWARD:
        held = [place[i] for i in uses(trace, s, (Phase.FORWARD,))]
        death = min(death, max([birth, place[storage.released or 0], *held]))
    return [(birth, death), *copies]
