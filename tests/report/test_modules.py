"""The parts of a model are disjoint and sum up to it, whatever the tree."""

from __future__ import annotations

import pytest

from shoestring.report.modules import _short, format_flops, modules_figure, parts
from tests.report import runs


def rows(tree: dict[str, int]) -> list[dict[str, object]]:
    return [{"path": path, "parameters": size, "flops": 2 * size} for path, size in tree.items()]


@pytest.mark.parametrize("most", [1, 2, 3, 5, 8, 12, 100])
def test_the_parts_of_a_real_model_sum_up_to_it(source: runs.Made, most: int) -> None:
    costs = source.timeline.modules
    (whole,) = (row for row in costs if row["path"] == "")
    found = parts(costs, most=most)
    assert 1 <= len(found) <= most
    assert [p.bytes for p in found] == sorted((p.bytes for p in found), reverse=True)
    for name in ("parameters", "gradients", "optimizer", "saved", "flops", "traffic"):
        assert sum(part.numbers[name] for part in found) == whole[name]


def test_like_modules_are_one_part(source: runs.Made) -> None:
    labels = {part.label: part.count for part in parts(source.timeline.modules)}
    assert labels["layers.*.up"] == 6
    assert labels["head"] == 1


def test_blocks_of_which_one_has_more_are_alike_still() -> None:
    tree = {"": 90, "0": 40, "0.a": 10, "0.b": 20, "0.c": 10}
    tree |= {f"{n}{part}": size for n in (1, 2) for part, size in (("", 25), (".a", 5), (".b", 20))}
    found = parts(rows(tree))
    assert {(part.label, part.count, part.bytes) for part in found} == {
        ("*.b", 3, 60),
        ("*.a", 3, 20),
        ("rest of *", 3, 10),
    }


def test_unlike_numbered_modules_stay_apart() -> None:
    found = parts(rows({"": 60, "0": 10, "1": 20, "2": 30}))
    assert [(part.label, part.bytes) for part in found] == [("2", 30), ("1", 20), ("0", 10)]


def test_what_no_child_holds_is_a_part() -> None:
    found = parts(rows({"": 60, "a": 10, "b": 20}))
    assert {part.label: part.bytes for part in found} == {
        "rest of the model": 30,
        "b": 20,
        "a": 10,
    }


@pytest.mark.parametrize(
    "given",
    [[], [{"path": "a", "parameters": 3}], [{"path": ""}], [{"path": "", "parameters": "many"}]],
)
def test_rows_that_say_nothing_give_no_figure(given: list[dict[str, object]]) -> None:
    assert modules_figure(given, prefix="run") is None


def test_flops_for_people() -> None:
    assert [format_flops(n) for n in (0, 999, 2.5e6, 3e9, 1.25e12, 4e15)] == [
        "0 FLOP",
        "999 FLOP",
        "2.5 MFLOP",
        "3 GFLOP",
        "1.25 TFLOP",
        "4 PFLOP",
    ]


def test_a_long_label_keeps_its_end_and_says_what_it_is() -> None:
    path = "model.decoder.layers.*.attention.projection"
    assert _short("head") == "head"
    assert _short(path) == "…" + path[-39:]
    assert _short(f"rest of {path}") == "rest of …" + path[-31:]
