"""``diff``: what changed between two counts."""

from __future__ import annotations

import json
import math

from hypothesis import given

import shoestring
from shoestring.core.trace import Phase
from shoestring.measure.counting.counts import Count, Counted, Totals
from shoestring.measure.counting.diff import Change, diff
from tests.measure.counted_models import COUNTED, count_of, counted_step, row


def test_by_hand() -> None:
    before = count_of(
        row("a", flops=10, macs=5, bytes_read=100), row("b", "aten.add", elementwise=4), params=7
    )
    after = count_of(
        row("a", flops=5, macs=2, bytes_read=100),
        row("c", "aten.tanh", elementwise=6, phase=Phase.BACKWARD),
        params=7,
        activation_bytes=16,
    )
    found = diff(before, after)
    assert found.total == Change(before.total, after.total)
    assert found.total.change == Totals(0, -5, -3, 2, 0, 0)
    assert found.total.ratio() == 0.5
    assert found.total.ratio("bytes") == 1.0
    assert found.modules["a"].ratio("macs") == 0.4
    assert found.modules["c"].ratio("elementwise_flops") == math.inf
    assert found.modules["c"].ratio("flops") == 1.0
    assert found.phases["backward"].change.elementwise_flops == 6
    assert found.appeared == {"modules": ("c",), "ops": ("aten.tanh",)}
    assert found.vanished == {"modules": ("b",), "ops": ("aten.add",)}
    assert found.figures["params"] == (7, 7)
    assert found.figures["activation_bytes"] == (0, 16)


def test_the_table_tells_what_changed_and_counts_the_rest() -> None:
    found = diff(counted_step(8, 8, 8), counted_step(8, 8, 8, rows=6))
    text = str(found)
    assert text == found.table()
    (total,) = [line for line in text.splitlines() if line.startswith("total")]
    assert ", x2" in total
    assert "body.layers.0 … 2" in text  # like layers of both are one line
    assert max(map(len, text.splitlines())) <= 100
    assert "optimizer" not in text  # it is as before
    assert "aten.add_" not in text
    assert "are as before" in text
    assert "parameters: 170" not in text
    assert f"parameters: {counted_step(8, 8, 8).params}" in text


def test_layers_that_are_one_line_on_one_side_alone_are_told_one_by_one() -> None:
    text = diff(counted_step(8, 8, 8), counted_step(8, 8, 16)).table()
    assert "body.layers.2" in text
    assert "…  " not in text


def test_what_appeared_and_vanished_is_in_the_table() -> None:
    text = diff(count_of(row(op="aten.mm", flops=2)), count_of(row(op="aten.bmm", flops=2))).table()
    assert "2, gone" in text
    assert "new: 2" in text


def test_what_is_not_counted_is_told() -> None:
    text = diff(count_of(), count_of(row(op="my.op", known=False, calls=3))).table()
    assert "NOT COUNTED" in text
    assert "my.op (0 -> 3)" in text


@given(COUNTED, COUNTED)
def test_any_two_counts(first: Counted, second: Counted) -> None:
    before, after = Count(lambda: first), Count(lambda: second)
    found = diff(before, after)
    back = diff(after, before)
    assert all(line.isprintable() for line in found.table().split("\n"))
    data = json.loads(found.to_json())
    assert data["schema"] == "shoestring/difference/1"
    assert data["total"]["change"]["flops"] == after.flops - before.flops
    assert {k: set(v) for k, v in found.appeared.items()} == {
        k: set(v) for k, v in back.vanished.items()
    }
    assert set(found.modules) == {*before.by_module(), *after.by_module()}
    for name, part in found.ops.items():
        assert part.change.flops == -back.ops[name].change.flops
        assert part.change.bytes == -back.ops[name].change.bytes
    same = diff(before, before)
    assert same.total.change == Totals()
    assert same.appeared["ops"] == same.vanished["ops"] == ()


def test_it_is_public() -> None:
    assert shoestring.diff is diff
    assert isinstance(diff(count_of(), count_of()), shoestring.Difference)
