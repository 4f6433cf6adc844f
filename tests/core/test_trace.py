"""Peaks of traces against a slow count, storage by storage."""

from __future__ import annotations

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from shoestring.core.trace import ALWAYS, Kind, Op, Phase, Storage, Trace, last_use


@st.composite
def traces(draw: st.DrawFn) -> Trace:
    count = draw(st.integers(1, 12))
    split = draw(st.integers(0, count))
    ops = tuple(
        Op(
            f"op{i}",
            Phase.FORWARD if i < split else Phase.OPTIMIZER,
            "",
            workspace=draw(st.integers(0, 50)),
            flops=draw(st.integers(0, 9)),
        )
        for i in range(count)
    )
    storages = []
    for _ in range(draw(st.integers(0, 10))):
        birth = draw(st.integers(ALWAYS, count - 1))
        death = draw(st.one_of(st.none(), st.integers(max(birth, 0), count - 1)))
        slope = draw(st.one_of(st.none(), st.integers(0, 5)))
        storages.append(
            Storage(4 * (slope or 0) + draw(st.integers(0, 99)), Kind.TEMPORARY, birth, death,
                    per_row=slope)
        )  # fmt: skip
    return Trace(ops, tuple(storages), rows=4)


def slow_timeline(trace: Trace) -> list[int]:
    return [
        op.workspace + sum(trace.storages[s].nbytes for s in trace.alive(i))
        for i, op in enumerate(trace.ops)
    ]


@given(traces())
def test_the_timeline_is_the_sum_over_what_is_alive(trace: Trace) -> None:
    assert list(trace.timeline()) == slow_timeline(trace)
    assert trace.peak == max(slow_timeline(trace))
    assert slow_timeline(trace)[trace.peak_index] == trace.peak


@given(traces())
def test_kinds_add_up_to_the_timeline(trace: Trace) -> None:
    for index, total in enumerate(slow_timeline(trace)):
        assert sum(trace.by_kind(index).values()) == total


@given(traces(), st.integers(1, 30))
def test_the_peak_at_other_rows_is_the_scaled_trace_s(trace: Trace, rows: int) -> None:
    scaled = trace.scaled(rows)
    assert scaled.rows == rows
    # Workspaces are rounded one by one there.
    assert abs(trace.peak_at(rows) - scaled.peak) <= 1
    assert trace.peak_at(trace.rows) == trace.peak


def test_the_optimizer_does_not_grow_with_the_batch() -> None:
    step = Op("step", Phase.OPTIMIZER, "", workspace=8, flops=6)
    forward = dataclasses.replace(step, phase=Phase.FORWARD)
    scaled = Trace((forward, step), (), rows=2).scaled(4)
    assert [op.workspace for op in scaled.ops] == [16, 8]
    assert [op.flops for op in scaled.ops] == [12, 6]


def test_last_use_is_the_last_to_read_or_write() -> None:
    ops = [
        Op("a", Phase.FORWARD, "", reads=(0,)),
        Op("b", Phase.FORWARD, "", reads=(1,), writes=(0,)),
        Op("c", Phase.FORWARD, "", reads=(1,)),
    ]
    assert last_use(ops, 0, 2) == {0: 1, 1: 1}
