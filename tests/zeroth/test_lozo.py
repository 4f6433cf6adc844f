"""LOZO: low-rank directions of one subspace for a while, and a momentum within it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from shoestring.core.errors import InputError
from shoestring.zeroth.engine import ZerothOrder
from shoestring.zeroth.lozo import LOZO, Lasting
from tests.oracles import zo_variants as oracle
from tests.zeroth import variants

Factors = tuple[torch.Tensor, torch.Tensor | None]

WAYS: dict[str, Callable[[list[nn.Parameter]], ZerothOrder]] = {
    "plain": lambda ps: LOZO(ps, lr=1e-3, interval=5),
    "signs": lambda ps: LOZO(ps, lr=1e-3, interval=5, directions="rademacher", rank=1),
    "momentum": lambda ps: LOZO(ps, lr=1e-3, interval=5, momentum=0.8, weight_decay=0.1),
    "q": lambda ps: LOZO(ps, lr=1e-3, interval=3, momentum=0.5, q=3, two_sided=False),
}


def drawn(opt: LOZO, draw: int) -> list[list[Factors]]:
    """Return the factors of a step's directions."""
    found = []
    for index in range(opt.param_groups[0]["q"]):
        factors: list[Factors] = []
        pairs = zip(opt._moved(), opt._directions(draw, index), strict=True)
        for (parameter, _), z in pairs:
            if isinstance(z, Lasting):
                shape = oracle.matrix(parameter.detach())
                factors.append((z.left(shape), z.right(shape)))
            else:
                vector = torch.zeros_like(parameter)
                z.add_to(vector, 1.0)
                factors.append((vector.detach(), None))
        found.append(factors)
    return found


@settings(max_examples=10, deadline=None)
@given(
    st.tuples(st.integers(1, 5), st.integers(1, 5)),
    st.integers(1, 4),
    st.integers(1, 3),
    st.sampled_from([0.0, 0.7]),
    st.sampled_from(["gaussian", "rademacher"]),
)
def test_the_course_is_that_of_the_formula(
    shape: tuple[int, int], rank: int, q: int, momentum: float, directions: str
) -> None:
    generator = torch.Generator().manual_seed(1)
    starts = [torch.randn(s, generator=generator, dtype=torch.float64) for s in (shape, (3,))]
    made = [nn.Parameter(start.clone()) for start in starts]
    opt = LOZO(
        made,
        lr=1e-2,
        rank=rank,
        interval=3,
        q=q,
        momentum=momentum,
        weight_decay=0.1,
        directions=directions,
    )
    draws = []
    for step in range(8):
        draws.append(drawn(opt, step))
        opt.step(lambda: variants.loss([*made]))
    options = {"lr": 1e-2, "eps": 1e-3, "momentum": momentum, "weight_decay": 0.1}
    expected = oracle.lozo(starts, variants.loss, draws, **options)
    for ours, theirs in zip(made, expected, strict=True):
        torch.testing.assert_close(ours.detach(), theirs, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("directions", ["gaussian", "rademacher"])
@pytest.mark.parametrize("rank", [1, 2])
def test_over_both_factors_the_directions_have_the_identity(directions: str, rank: int) -> None:
    count, flat = 4000, []
    for key in range(count):
        z = torch.zeros(2, 3)
        Lasting(directions, key, count + key, rank, (0, 0)).add_to(z, 1.0)
        flat.append(z.reshape(-1))
    z = torch.stack(flat).double()
    assert (z.T @ z / count - torch.eye(6)).abs().max() < 0.15
    slope = torch.arange(6).double()
    estimate = ((z @ slope).unsqueeze(1) * z).mean(0)
    assert torch.cosine_similarity(estimate, slope, dim=0) > 0.99


def test_one_factor_lasts_and_the_other_does_not() -> None:
    made = variants.parameters()[1:2]
    opt = LOZO(made, interval=4, q=2)
    shape = made[0].detach()
    steps = [opt._draw(made, draw, index)[0] for draw in range(8) for index in range(2)]
    assert all(isinstance(z, Lasting) for z in steps)
    lefts = {tuple(z.left(shape).flatten().tolist()) for z in steps}
    rights = [tuple(z.right(shape).flatten().tolist()) for z in steps]
    assert len(lefts) == 16
    assert len(set(rights[:8])) == len(set(rights[8:])) == 1
    assert rights[0] != rights[8]


def test_the_momentum_is_small_and_is_carried_over() -> None:
    x = nn.Parameter(torch.zeros(40, 30, dtype=torch.float64))
    slope = torch.randn(40, 30, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    opt = LOZO([x], lr=0.0, rank=20, interval=6, momentum=0.9)
    for _ in range(6):
        opt.step(lambda: float((x.detach() * slope).sum()))
    buffer = opt.state[x]["momentum_buffer"]
    assert buffer.shape == (40, 20)
    old = opt._directions(5, 0)[0].right(x.detach())
    before = buffer @ old.T
    opt.step(lambda: 0.0)  # nothing but the basis is new
    new = opt._directions(6, 0)[0].right(x.detach())
    after = opt.state[x]["momentum_buffer"] @ new.T / 0.9
    assert not torch.equal(old, new)
    assert torch.cosine_similarity(before.flatten(), after.flatten(), dim=0) > 0.5


def test_a_matrix_that_is_frozen_changes_no_other_ones_momentum() -> None:
    first, second = (nn.Parameter(torch.ones(8, 8, dtype=torch.float64)) for _ in range(2))
    opt = LOZO([first, second], lr=0.0, rank=8, momentum=0.9, interval=100)
    for _ in range(5):
        opt.step(lambda: float(second.detach().square().sum()))
    before = opt.state[second]["momentum_buffer"] @ opt._directions(4, 0)[1].right(second).T
    first.requires_grad_(False)
    opt.step(lambda: 0.0)
    after = opt.state[second]["momentum_buffer"] @ opt._directions(5, 0)[0].right(second).T
    assert torch.cosine_similarity(before.flatten(), after.flatten(), dim=0) > 0.4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("way", WAYS)
def test_resumed_within_an_interval_and_made_again(
    way: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    assert variants.is_resumed_within(WAYS[way], dtype)
    assert variants.is_made_again(WAYS[way], dtype, tmp_path)
    assert variants.is_the_same_in_two_phases(WAYS[way], dtype)


@pytest.mark.parametrize("way", WAYS)
def test_strides_make_no_difference(way: str) -> None:
    assert variants.is_the_same_by_columns(WAYS[way])


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_staying_perturbed_changes_no_bits(momentum: float) -> None:
    ours, theirs = variants.parameters(torch.float32), variants.parameters(torch.float32)
    one = LOZO(ours, momentum=momentum, interval=3)
    other = LOZO(theirs, momentum=momentum, interval=3, pending=True)
    variants.train(ours, one, 7)
    variants.train(theirs, other, 7)
    with other.unperturbed():
        assert variants.same(ours, theirs)


def test_updates_of_few_bits_are_right_in_the_mean() -> None:
    x = nn.Parameter(torch.ones(64, 64, dtype=torch.bfloat16))
    opt = LOZO([x], lr=1e-5, interval=1)
    before = x.detach().clone()
    for _ in range(20):
        opt.step(lambda: 10 * float(x.detach().double().mean()))
    assert not torch.equal(before, x)  # though no step is as large as the spacing of numbers


def test_a_scheduler_may_turn_momentum_on() -> None:
    made = variants.parameters()
    opt = LOZO(made)
    variants.train(made, opt, 1)
    opt.param_groups[0]["momentum"] = 0.9
    variants.train(made, opt, 2)
    assert opt.state[made[1]]["momentum_buffer"].shape == (7, 2)


def test_the_quadratic_falls_at_the_defaults() -> None:
    assert variants.evaluations_to_one_percent(LOZO) < 20_000


def test_a_valley_is_descended() -> None:
    assert variants.left_of_a_valley(lambda ps: LOZO(ps, lr=0.03, interval=10), 300) < 0.2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, "rank=0"),
        ({"interval": 0}, "interval=0"),
        ({"momentum": 1.0}, "momentum"),
        ({"directions": "rank1"}, "independent entries"),
    ],
)
def test_options_outside_their_range_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        LOZO([nn.Parameter(torch.zeros(2, 2))], **options)
