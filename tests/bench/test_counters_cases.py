"""The cases of the counters' bench: counts by hand against loops, and ours against both."""

import pytest
import torch

from bench.counters import correctness, hand
from bench.counters.case import BACKWARD, FORWARD, ROWS, Case
from bench.counters.cases import CASES
from bench.counters.every import EVERY
from bench.counters.models import Call
from bench.counters.steps import STEPS
from tests.oracles import flops as oracle


def test_products_are_those_of_the_loops() -> None:
    assert 2 * hand.linear(3, 4, 5) == oracle.matmul(3, 4, 5)
    assert 2 * hand.bilinear(2, 3, 4, 5) == oracle.trilinear(2, 5, 3, 4)
    assert 2 * hand.recurrent(3, 2, 4, 5, 4) == oracle.recurrent(3, 2, 4, 5, 4)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_convolutions_are_those_of_the_loops(groups: int) -> None:
    options = [(1, 1, 1), (1, 1, 1)]
    loops = oracle.convolution(2, (4, 8), groups, (5, 6), (3, 3), options, transposed=False)
    assert 2 * hand.convolution(2, 4, 8, (5, 6), (3, 3), groups) == loops
    spread = oracle.convolution(2, (4, 8), 1, (5, 6), (2, 2), options, transposed=True)
    assert 2 * hand.transposed(2, 4, 8, (5, 6), (2, 2)) == spread


def test_attention_is_that_of_the_loops() -> None:
    sizes = (2, 3, 4, 5, 6)
    forward = oracle.attention(*sizes, 6, backward=False)
    assert 2 * hand.attention(*sizes) == forward
    assert 2 * hand.attention_backward(*sizes) == oracle.attention(*sizes, 6, backward=True)


def test_algorithms_are_those_of_the_loops() -> None:
    pairs = oracle.count(4, 5, 3)
    assert hand.distances(4, 5, 3) == 3 * pairs + oracle.count(4, 5)
    # Radix 2: n / 2 butterflies of a complex product and two sums in each of log2 n rounds.
    assert hand.fourier(1, 16) == 4 * 8 * (6 + 2 * 2)
    # A reflection of the trailing m - k x n - k block: a product and a rank-one change, 4 a number.
    m, n = 30, 30
    exact = sum(4 * (m - k) * (n - k) for k in range(n))
    assert hand.reflections(m, n) / 2 == pytest.approx(exact, rel=0.06)


@pytest.mark.parametrize(
    ("name", "total"),
    [
        # Counts that others have published or that a closed form gives.
        ("gpt-fused", 2 * (16 * (12 * 2 * 64**2 + 100 * 64) + 2 * 2 * 16**2 * 64)),
        ("lstm", 1_146_880),
        ("attention", 73_728),
        ("conv-transpose", 262_144),
        ("conv3d", 373_248),
        ("conv-groups", 147_456),
        ("depthwise", 18_432),
        ("conv1d", 15_360),
        ("linear", 30_720),
        ("einsum", 40_960),
        ("shared", 6_144),
        ("functional", 61_440),
        ("encoder-train", 278_528),
        ("encoder-fused", 278_528),
        ("checkpoint", 16_384 + 8_192 + 32_768),
        ("checkpoint-whole", 16_384 + 16_384 + 32_768),
        ("gru", 2 * 4_608),
    ],
)
def test_known_counts(name: str, total: int) -> None:
    assert EVERY[name].total() == total


def test_one_row_of_fused_attention() -> None:
    assert EVERY["attention-backward"].hand(1)[FORWARD] == 12_582_912


def test_there_are_seventeen_models_and_every_case_has_its_own_name() -> None:
    assert len(CASES) == 17
    assert len(EVERY) == len(CASES) + len(STEPS)
    assert all(case.unit == "MACs" and not case.backward for case in CASES)


@pytest.mark.parametrize("case", EVERY.values(), ids=lambda case: case.name)
def test_a_case_runs_and_grows_with_its_rows(case: Case) -> None:
    model, x = case.build(ROWS)
    assert x.shape[0] == ROWS
    case.run(model, x)
    assert case.backward == (case.hand(ROWS).get(BACKWARD, 0) > 0)
    assert case.total(2 * ROWS) == 2 * case.total(ROWS)


@pytest.mark.parametrize("groups", [1, 4, 16])
def test_backward_of_a_convolution_is_twice_its_forward(groups: int) -> None:
    counts = EVERY[f"conv-backward-{groups}"].hand(ROWS)
    assert counts[BACKWARD] == 2 * counts[FORWARD]


@pytest.mark.parametrize(
    "name", ["shared", "conv-groups", "bilinear", "checkpoint", "encoder-fused"]
)
def test_ours_is_right(name: str) -> None:
    case = EVERY[name]
    found = correctness.ours(case)
    assert found["error"] == ""
    assert found["unknown"] == {}
    assert {k: v for k, v in found["ours"].items() if v} == case.hand(ROWS)  # type: ignore[attr-defined]


def test_a_count_that_fails_is_told() -> None:
    def broken(x: torch.Tensor) -> torch.Tensor:
        raise ArithmeticError("no\nmore")

    case = Case(
        name="broken",
        title="broken",
        formula="none",
        build=lambda rows: (Call(broken), torch.ones(rows, 3)),
        hand=lambda rows: {FORWARD: 0},
    )
    assert correctness.ours(case) == {"ours": {}, "unknown": {}, "error": "ArithmeticError: no"}
