"""Traced steps as graphs: what is one operation, and what must not run again."""

from __future__ import annotations

import dataclasses

import pytest

from shoestring.activations.remat.eager.step_graph import StepGraph, step_graph
from shoestring.core.trace import ALWAYS, Kind, Op, Phase, Storage, Trace
from tests.activations.remat.eager.traces import MACHINE, kept, op


def built(ops: list[Op], storages: list[Storage]) -> StepGraph:
    border = next(i for i, o in enumerate(ops) if o.phase is not Phase.FORWARD)
    return step_graph(Trace(tuple(ops), tuple(storages), calls=((0, border),)), MACHINE)


def repeatable(step: StepGraph) -> dict[tuple[int, ...], bool]:
    nodes = zip(step.ops, step.graph.nodes, strict=False)
    return {ops: node.repeatable for ops, node in nodes}


BACK = op([1], phase=Phase.BACKWARD)
WEIGHT = Storage(4096, Kind.PARAMETER, ALWAYS, None)


def test_a_change_of_what_nothing_has_read_is_one_with_its_making() -> None:
    ops = [op([0]), op([1], [1]), op([1, 0], [1]), op([1]), BACK]
    step = built(ops, [WEIGHT, kept(0, 4, released=3), kept(3, 4, released=3)])
    assert repeatable(step) == {(0, 1, 2): True, (3,): True}
    assert step.graph.nodes[0].seconds == pytest.approx(3.0)
    assert step.storages == (1, 2)
    assert [node.reads for node in step.graph.nodes] == [(), (0,), (0, 1), (0, 1)]


def test_a_change_of_what_was_read_is_fixed() -> None:
    ops = [op([0]), op([1]), op([1], [1]), BACK]
    step = built(ops, [WEIGHT, kept(0, 3, released=2), kept(1, 3, released=2)])
    assert repeatable(step) == {(0,): False, (1,): False, (2,): False}


@pytest.mark.parametrize(
    ("first", "storage", "expected"),
    [
        (op([0]), kept(0, 1, 1024, 0), True),
        (op([0]), kept(0, 1, 1023, 0), False),
        (op([0], random=True), kept(0, 1, 16 * 1024 - 1, 0), False),
        (op([0], random=True), kept(0, 1, 16 * 1024, 0), True),
        (op([0], name="own.exp.default"), kept(0, 1, 4096, 0), False),
        (op([0], name="aten._local_scalar_dense.default"), kept(0, 1, 4096, 0), False),
        (op([0], name="aten._to_copy.default"), kept(0, 1, 4096, 0), False),
        (op([0]), kept(0, None, 4096, 0), False),
        (op([0]), kept(0, 1, 4096, 1), False),
    ],
    ids=[
        *("large enough", "small", "little noise", "much noise", "operator of others", "scalar"),
        *("cast of a weight", "outlives the step", "held until backward"),
    ],
)
def test_what_may_run_again(first: Op, storage: Storage, expected: bool) -> None:
    step = built([first, BACK], [WEIGHT, storage])
    assert repeatable(step) == {(0,): expected}


def test_what_python_holds_is_told_from_what_autograd_does() -> None:
    ops = [op([0]), op([1]), op([1, 2], phase=Phase.BACKWARD)]
    seen = [WEIGHT, kept(0, 2, released=1), kept(1, 2)]
    assert repeatable(built(ops, seen)) == {(0,): True, (1,): False}
    unseen = [dataclasses.replace(s, released=None) for s in seen]
    assert repeatable(built(ops, unseen)) == {(0,): True, (1,): True}


def test_what_is_outside_of_the_model_does_not_run_again() -> None:
    ops = (op([0]), op([1]), op([1, 2], phase=Phase.BACKWARD))
    storages = (WEIGHT, kept(0, 2, released=1), kept(1, 2, released=1))
    step = step_graph(Trace(ops, storages, calls=((0, 1),)), MACHINE)
    assert repeatable(step) == {(0,): True, (1,): False}


def test_a_reader_of_what_changes_later_does_not_run_again() -> None:
    ops = [op([0]), op([0], [0]), BACK]
    step = built(ops, [WEIGHT, kept(0, 2, released=1)])
    assert repeatable(step) == {(0,): False, (1,): False}
    of_this_step = [op(), op([1]), op([1], [1]), op([2], phase=Phase.BACKWARD)]
    storages = [WEIGHT, kept(0, 2), kept(1, 3, released=2)]
    assert repeatable(built(of_this_step, storages))[1,] is False


def test_what_is_kept_without_being_read_counts_until_it_goes() -> None:
    ops = [op([0]), op([0]), op([2], phase=Phase.BACKWARD), op(phase=Phase.BACKWARD)]
    step = built(ops, [WEIGHT, kept(0, 3, released=1), kept(1, 2, released=1)])
    assert [node.reads for node in step.graph.nodes[3:]] == [(1,), (0,)]
