"""Several workers: the same bits on all, and those of one that asks for all shards."""

from __future__ import annotations

import math

import pytest
import torch

from shoestring.core.errors import InputError
from shoestring.zeroth import ZOSGD
from shoestring.zeroth.workers import AllGather, digest, mark
from tests.zeroth.workers_program import CASES, DIFFERING, SHARDS, STEPS, alone

Found = list[dict[str, dict[str, object]]]
pytestmark = pytest.mark.timeout(200)


def same(left: list[torch.Tensor], right: list[torch.Tensor]) -> bool:
    return digest(left) == digest(right)


@pytest.mark.parametrize("name", CASES)
def test_all_workers_have_the_bits_of_one_that_asks_for_all_shards(name: str, found: Found) -> None:
    expected = alone(name, SHARDS[len(found)])
    for worker in found:
        theirs = worker[f"train {name}"]
        assert same(theirs["weights"], expected["weights"])
        assert repr(theirs["deltas"]) == repr(expected["deltas"])  # where nan is nan
    assert len(expected["deltas"]) == STEPS


def test_a_loss_that_is_no_number_on_one_worker_leaves_the_step_out_on_all(found: Found) -> None:
    for worker in found:
        deltas = worker["train not a number"]["deltas"]
        assert [math.isnan(*step) for step in deltas] == [False, False, True, False, False]


@pytest.mark.parametrize(("name", "directions"), [("plain", 1), ("three", 3)])
def test_a_step_sends_one_number_for_a_direction_and_two_beside(
    name: str, directions: int, found: Found
) -> None:
    numbers = STEPS * (directions + 2)
    for worker in found:
        assert worker[f"train {name}"]["floats"] == numbers
        assert worker[f"train {name}"]["bytes"] == 8 * numbers + 8  # and one comparison


@pytest.mark.parametrize("name", DIFFERING)
def test_workers_that_differ_are_one_error_on_all(name: str, found: Found) -> None:
    said = {worker[f"differing {name}"] for worker in found}
    expected = f"worker 1 differs from worker 0 in {DIFFERING[name]}."
    assert said == {"worker 1 gives its batch the weight -1.0." if name == "weight" else expected}


def test_a_group_of_some_processes(found: Found) -> None:
    if len(found) < 4:
        pytest.skip("there are too few")
    expected = alone("plain", [9, 2, 4])
    assert all(same(worker["group"]["weights"], expected["weights"]) for worker in found[1:])
    assert found[0]["outside"] == "this process is outside the group."


def test_bytes_of_one_worker_reach_all_and_too_many_are_an_error_on_all(found: Found) -> None:
    assert {worker["sent"] for worker in found} == {"abc"}
    said = {worker["too long"] for worker in found}
    assert said == {"worker 1 would send 3 bytes, and 2 are taken."}


def test_without_processes() -> None:
    with pytest.raises(InputError, match="has not been started"):
        AllGather(ZOSGD([torch.nn.Parameter(torch.zeros(1))]))


def test_digests_tell_bits_dtypes_and_shapes_apart() -> None:
    x = torch.zeros(2, 3)
    others = [-x, x.view(3, 2), x.view(6), x.to(torch.bfloat16), x + 1e-45, torch.zeros(0), x[:1]]
    assert len({digest([tensor]) for tensor in (x, *others)}) == len(others) + 1
    columns = torch.arange(6.0).view(2, 3).t()
    assert digest([columns]) == digest([columns.contiguous()])
    assert digest([x, x[:1]]) != digest([x[:1], x])
    assert digest([torch.tensor(1.0)]) == digest([torch.ones(())])


def test_marks_tell_numbers_apart() -> None:
    values = [0.1, 0.1 + 2**-56, [0.1], "0.1", None, 0]
    assert len({mark(value) for value in values}) == len(values)
    assert mark((1, 2)) == mark([1, 2])
