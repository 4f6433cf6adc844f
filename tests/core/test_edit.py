"""An edited trace is renumbered throughout."""

from __future__ import annotations

from shoestring.core.edit import Editor, again, living, remap
from shoestring.core.trace import ALWAYS, Block, Kind, Op, Phase, Storage, Trace


def _trace() -> Trace:
    ops = (
        Op("a", Phase.FORWARD, "", reads=(0,)),
        Op("b", Phase.FORWARD, "", reads=(1,), writes=(1,)),
        Op("c", Phase.FORWARD, "", reads=(1, 2)),
        Op("d", Phase.BACKWARD, "", reads=(2, 3), source=1),
        Op("e", Phase.BACKWARD, "", reads=(4,), source=0),
    )
    storages = (
        Storage(8, Kind.PARAMETER, ALWAYS, None),
        Storage(8, Kind.ACTIVATION, 0, 3),
        Storage(8, Kind.ACTIVATION, 1, 3),
        Storage(8, Kind.TEMPORARY, 2, 3),
        Storage(8, Kind.GRADIENT, 3, 4),
    )
    return Trace(ops, storages, (Block("x", (0, 2), (3, 5)),), 2, {4: 4})


def test_nothing_changed_is_the_same_trace() -> None:
    assert Editor(_trace()).trace() == _trace()


def test_an_insertion_moves_what_comes_after() -> None:
    editor = Editor(_trace())
    first = editor.insert(1, Op("new", Phase.FORWARD, "", reads=(0,)))
    second = editor.insert(1, Op("newer", Phase.FORWARD, ""))
    editor.insert(5, Op("last", Phase.BACKWARD, ""))
    made = editor.add(Storage(4, Kind.TEMPORARY, first, second))
    editor.replace(2, remap(editor.op(2), {2: made}))
    trace = editor.trace()
    assert [op.name for op in trace.ops] == ["a", "new", "newer", "b", "c", "d", "e", "last"]
    assert [(s.birth, s.death) for s in trace.storages] == [
        (ALWAYS, None),
        (0, 5),
        (3, 5),
        (4, 5),
        (5, 6),
        (1, 2),
    ]
    assert trace.ops[4].reads == (1, 5)
    assert [op.source for op in trace.ops] == [-1, -1, -1, -1, -1, 3, 0, -1]
    assert trace.blocks == (Block("x", (0, 4), (5, 7)),)
    assert trace.accumulated == {4: 6}


def test_what_a_dropped_operation_made_and_freed_goes_to_its_neighbours() -> None:
    editor = Editor(_trace())
    editor.drop(1)
    editor.drop(3)
    editor.drop_storage(3)
    trace = editor.trace()
    assert [op.name for op in trace.ops] == ["a", "c", "e"]
    assert [(s.birth, s.death) for s in trace.storages] == [(ALWAYS, None), (0, 1), (1, 1), (2, 2)]
    assert trace.ops[1].reads == (1, 2)
    assert trace.ops[2].reads == (3,)
    assert trace.blocks == (Block("x", (0, 1), (2, 3)),)
    assert trace.accumulated == {3: 2}


def test_a_recomputed_operation_differentiates_nothing() -> None:
    op = again(Op("a", Phase.FORWARD, "m", reads=(0, 1), writes=(1,), flops=3, random=True), {1: 7})
    assert op == Op("a", Phase.RECOMPUTE, "m", (0, 7), (7,), flops=3, random=True)


def test_another_life_keeps_the_rest() -> None:
    old = Storage(8, Kind.ACTIVATION, 0, 3, "m", 2.0, (4,), 2)
    assert living(old, birth=1, death=None, kind=Kind.TEMPORARY) == Storage(
        8, Kind.TEMPORARY, 1, None, "m", 2.0, (4,), 2
    )
