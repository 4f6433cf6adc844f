"""HiZOO: directions and steps scaled by a curvature that is learnt."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from shoestring.core.errors import InputError
from shoestring.kernels.streams import stream_key
from shoestring.zeroth import ZOSGD
from shoestring.zeroth.engine import ZerothOrder
from shoestring.zeroth.hizoo import LEAST, HiZOO
from tests.oracles import zo_variants as oracle
from tests.zeroth import variants

WAYS: dict[str, Callable[[list[nn.Parameter]], ZerothOrder]] = {
    "plain": lambda ps: HiZOO(ps, lr=1e-3, alpha=0.1),
    "q": lambda ps: HiZOO(ps, lr=1e-3, alpha=0.01, q=3, weight_decay=0.1, momentum=0.8),
    "signs": lambda ps: HiZOO(ps, lr=1e-3, alpha=0.1, directions="rademacher"),
}


def drawn(tensors: list[torch.Tensor], seed: int, draw: int, q: int) -> list[list[torch.Tensor]]:
    """Return the normal numbers of a step's directions, before they are scaled."""
    found = []
    for index in range(q):
        keys = [stream_key(stream_key(seed, 0, draw, index), k) for k in range(len(tensors))]
        generators = [torch.Generator().manual_seed(key) for key in keys]
        pairs = zip(tensors, generators, strict=True)
        found.append([torch.randn(t.shape, generator=g, dtype=torch.float64) for t, g in pairs])
    return found


@settings(max_examples=10, deadline=None)
@given(
    st.tuples(st.integers(1, 5), st.integers(1, 5)),
    st.integers(1, 3),
    st.sampled_from([0.0, 1e-3, 0.2]),
    st.sampled_from([0.0, 0.7]),
)
def test_the_course_is_that_of_the_formula(
    shape: tuple[int, int], q: int, alpha: float, momentum: float
) -> None:
    generator = torch.Generator().manual_seed(1)
    starts = [torch.randn(s, generator=generator, dtype=torch.float64) for s in (shape, (3,))]
    made = [nn.Parameter(start.clone()) for start in starts]
    options = {"lr": 1e-2, "eps": 1e-3, "alpha": alpha, "weight_decay": 0.1}
    options["momentum"] = momentum
    opt = HiZOO(made, q=q, seed=5, **options)
    for _ in range(8):
        opt.step(lambda: variants.loss([*made]))
    draws = [drawn(starts, 5, step, q) for step in range(8)]
    expected, curvatures = oracle.hizoo(starts, variants.loss, draws, **options)
    for ours, theirs, h in zip(made, expected, curvatures, strict=True):
        torch.testing.assert_close(ours.detach(), theirs, rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(opt.state[ours]["curvature"], h, rtol=1e-5, atol=0)


@pytest.mark.parametrize("q", [1, 2])
@pytest.mark.parametrize("directions", ["gaussian", "rademacher"])
def test_without_a_curvature_it_is_plain_descent(directions: str, q: int) -> None:
    ours, theirs = variants.parameters(), variants.parameters()
    options = {"lr": 1e-3, "q": q, "weight_decay": 0.1, "directions": directions, "seed": 3}
    variants.train(ours, HiZOO(ours, alpha=0.0, **options), 20)
    variants.train(theirs, ZOSGD(theirs, **options), 20)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-8)


def test_the_loss_is_asked_for_once_more() -> None:
    x, calls = nn.Parameter(torch.zeros(3)), [0]

    def closure() -> float:
        calls[0] += 1
        return float(x.detach().square().sum())

    opt = HiZOO([x], q=2)
    opt.step(closure)
    assert calls == [5]
    assert len(opt.log.deltas[0]) == 4  # two slopes, and two curvatures
    calls[0] = 0
    HiZOO([x]).step(closure)
    assert calls == [3]


def test_the_mean_of_what_is_learnt_is_as_the_page_says() -> None:
    bends = torch.tensor([1.0, 2.0, 4.0, 8.0], dtype=torch.float64)
    x = nn.Parameter(torch.zeros(4, dtype=torch.float64))
    opt = HiZOO([x], lr=0.0, alpha=0.5, q=2000)
    opt.step(lambda: float((bends * x.detach().square()).sum() / 2))
    found = opt.state[x]["curvature"] / 0.5 - 1
    torch.testing.assert_close(found, bends + bends.sum() / 2, rtol=0.15, atol=0)


def test_what_bends_downwards_counts_as_much() -> None:
    up, down = (nn.Parameter(torch.ones(5, dtype=torch.float64)) for _ in range(2))
    one, other = HiZOO([up], lr=0.0, alpha=0.1), HiZOO([down], lr=0.0, alpha=0.1)
    for _ in range(5):
        one.step(lambda: float(up.detach().square().sum()))
        other.step(lambda: -float(down.detach().square().sum()))
    assert torch.equal(one.state[up]["curvature"], other.state[down]["curvature"])
    assert float(one.state[up]["curvature"].mean()) > 1


def test_signs_tell_no_weight_from_another() -> None:
    bends = torch.tensor([1.0, 100.0], dtype=torch.float64)
    x = nn.Parameter(torch.zeros(2, dtype=torch.float64))
    opt = HiZOO([x], lr=0.0, alpha=0.1, directions="rademacher")
    for _ in range(5):
        opt.step(lambda: float((bends * x.detach().square()).sum()))
    first, second = opt.state[x]["curvature"].tolist()
    assert first == second > 1


def test_the_curvature_of_several_parts_is_that_of_all() -> None:
    bends = torch.tensor([3.0, -1.0, 5.0], dtype=torch.float64)  # two parts that bend against
    parts, whole = (nn.Parameter(torch.ones(3, dtype=torch.float64)) for _ in range(2))
    one, other = HiZOO([parts], alpha=0.3), HiZOO([whole], alpha=0.3)
    one.estimate(lambda: float((4 * bends * parts.detach().square()).sum()))
    one.estimate(lambda: float((-2 * bends * parts.detach().square()).sum()))
    one.step()
    other.step(lambda: float((bends * whole.detach().square()).sum()))
    expected = other.state[whole]["curvature"]
    torch.testing.assert_close(one.state[parts]["curvature"], expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(parts, whole, rtol=1e-6, atol=0)


def test_a_flat_loss_moves_weights_ever_farther_and_they_come_back() -> None:
    ours, theirs = (nn.Parameter(torch.linspace(-1, 1, 50)) for _ in range(2))
    opt = HiZOO([ours], lr=1e-10, alpha=0.5)
    for _ in range(40):
        opt.step(lambda: float(ours.detach().double().sum()))
    torch.testing.assert_close(opt.state[ours]["curvature"], torch.full((50,), LEAST))
    again = HiZOO([theirs], lr=1e-10, alpha=0.5)
    for deltas, settings_ in zip(opt.log.deltas, opt.log.settings, strict=True):
        again.repeat(deltas, settings_)
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("way", WAYS)
def test_resumed_and_made_again(way: str, dtype: torch.dtype, tmp_path: Path) -> None:
    assert variants.is_resumed_within(WAYS[way], dtype)
    assert variants.is_made_again(WAYS[way], dtype, tmp_path)
    assert variants.is_the_same_in_two_phases(WAYS[way], dtype)


def test_strides_make_no_difference() -> None:
    assert variants.is_the_same_by_columns(WAYS["q"])


def test_large_tensors_are_taken_in_parts() -> None:
    x = nn.Parameter(torch.linspace(-1, 1, 70_000))
    before = x.detach().clone()
    opt = HiZOO([x], lr=1e-6, alpha=1e-3, seed=2)
    opt.step(lambda: float(x.detach().double().square().sum()))
    z = torch.zeros(70_000)
    (direction,) = opt._draw([x], 0, 0)
    first = opt.state[x]["curvature"].clone()
    direction.add_to(z, 1.0)
    z *= first.sqrt()  # as it was drawn
    slope, bend = opt.log.deltas[0]
    expected = 1 - 1e-3 + 1e-3 * abs(bend) / 2e-6 * z.square()
    torch.testing.assert_close(first, expected, rtol=1e-4, atol=0)
    step = before - 1e-6 * slope / 1e-3 * z / first.sqrt()
    torch.testing.assert_close(x.detach(), step, rtol=0, atol=1e-6)


def test_the_quadratic_falls_at_the_defaults() -> None:
    assert variants.evaluations_to_one_percent(HiZOO) < 20_000


def test_a_valley_is_descended() -> None:
    def make(ps: list[nn.Parameter]) -> HiZOO:
        return HiZOO(ps, lr=0.1, alpha=1e-4)

    assert variants.left_of_a_valley(make, 300) < 0.2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 1.0}, "alpha=1.0"),
        ({"momentum": -1.0}, "momentum"),
        ({"alpha": -0.1}, "alpha=-0.1"),
        ({"directions": "sphere"}, "independent entries"),
        ({"q": 0}, "q=0"),
    ],
)
def test_options_outside_their_range_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        HiZOO([nn.Parameter(torch.zeros(2, 2))], **options)
