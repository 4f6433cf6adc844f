"""SparseZO: the smallest weights are moved, and no others."""

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
from shoestring.zeroth.sparse import Masked, SparseZO, below, pattern_of
from tests.oracles import zo_variants as oracle
from tests.zeroth import variants

WAYS: dict[str, Callable[[list[nn.Parameter]], ZerothOrder]] = {
    "plain": lambda ps: SparseZO(ps, lr=1e-3, sparsity=0.5),
    "lasting": lambda ps: SparseZO(ps, lr=1e-2, sparsity=0.5, interval=5, q=2, momentum=0.8),
    "normal": lambda ps: SparseZO(
        ps, lr=1e-2, interval=3, directions="gaussian", two_sided=False, q=2
    ),
}


def bits_of(mask: torch.Tensor, count: int) -> torch.Tensor:
    """Return a mask as true and false."""
    spread = [bool(byte >> bit & 1) for byte in mask.tolist() for bit in range(8)]
    assert not any(spread[count:])
    return torch.tensor(spread[:count])


@settings(max_examples=10, deadline=None)
@given(
    st.tuples(st.integers(1, 5), st.integers(1, 5)),
    st.integers(1, 3),
    st.integers(1, 4),
    st.sampled_from([0.0, 0.4, 0.9]),
    st.sampled_from([("gaussian", 0.0), ("rademacher", 0.7)]),
)
def test_the_course_is_that_of_the_formula(
    shape: tuple[int, int], q: int, interval: int, sparsity: float, kind: tuple[str, float]
) -> None:
    generator = torch.Generator().manual_seed(1)
    starts = [torch.randn(s, generator=generator, dtype=torch.float64) for s in (shape, (9,))]
    made = [nn.Parameter(start.clone()) for start in starts]
    options = {
        "lr": 2e-2,
        "eps": 1e-3,
        "sparsity": sparsity,
        "interval": interval,
        "momentum": kind[1],
        "weight_decay": 0.1,
    }
    opt = SparseZO(made, q=q, directions=kind[0], **options)
    draws = []
    for step in range(8):
        drawn = []
        for index in range(q):
            drawn.append([torch.zeros(start.shape, dtype=torch.float64) for start in starts])
            for z, into in zip(opt._directions(step, index), drawn[-1], strict=True):
                z.add_to(into, 1.0)
        draws.append(drawn)
        opt.step(lambda: variants.loss([*made]))
    expected = oracle.sparse(starts, variants.loss, draws, **options)
    for ours, theirs in zip(made, expected, strict=True):
        torch.testing.assert_close(ours.detach(), theirs, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("count", [1, 7, 1000, 70_000])
def test_the_mask_is_that_of_a_sorted_list(dtype: torch.dtype, count: int) -> None:
    x = torch.randn(count, generator=torch.Generator().manual_seed(count)).to(dtype)
    for share in (0.1, 0.25, 1.0):
        taken = max(1, round(share * count))
        edge = x.abs().sort().values[taken - 1]
        mask = bits_of(below(x, pattern_of(x, taken)), count)
        assert torch.equal(mask, x.abs() <= edge)


def test_a_tenth_is_a_tenth() -> None:
    x = nn.Parameter(torch.randn(200, 500, generator=torch.Generator().manual_seed(1)))
    before = x.detach().clone()
    opt = SparseZO([x], sparsity=0.9, lr=1e-6, interval=2)
    opt.step(lambda: float(x.detach().double().square().sum()))
    settled, moved = x.detach().clone(), []

    def closure() -> float:
        moved.append((x.detach() != settled).flatten())
        return float(x.detach().double().square().sum())

    opt.step(closure)
    mask = bits_of(opt.state[x]["mask"], x.numel())
    assert int(mask.sum()) == 10_000
    assert float(before.abs().flatten()[mask].max()) <= float(before.abs().flatten()[~mask].min())
    assert all(torch.equal(where, mask) for where in moved)
    assert torch.equal((x.detach() != settled).flatten(), mask)
    assert opt.state[x]["mask"].nbytes == x.numel() // 8


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("directions", ["gaussian", "rademacher"])
def test_what_is_not_masked_keeps_its_bits(dtype: torch.dtype, directions: str) -> None:
    x = nn.Parameter(torch.randn(300, generator=torch.Generator().manual_seed(1)).to(dtype))
    opt = SparseZO([x], sparsity=0.8, lr=0.02, interval=50, weight_decay=0.1, directions=directions)
    opt.step(lambda: float(x.detach().double().square().sum()))
    settled = x.detach().clone()
    mask, moved = bits_of(opt.state[x]["mask"], 300), []

    def closure() -> float:
        moved.append(x.detach() != settled)
        return float((x.detach().double() - 1).square().sum())

    for _ in range(20):
        opt.step(closure)
    assert not torch.stack(moved)[:, ~mask].any()
    assert torch.equal(x.detach()[~mask], settled[~mask])
    assert (x.detach()[mask] != settled[mask]).all()


def test_the_mask_is_of_the_weights_and_not_of_perturbed_ones() -> None:
    x = nn.Parameter(torch.randn(64, generator=torch.Generator().manual_seed(1)))
    before = x.detach().clone()
    opt = SparseZO([x], sparsity=0.5, eps=0.5, q=4, interval=1, lr=0.0)
    masks = []

    def closure() -> float:
        masks.append(opt.state[x]["mask"].clone())
        return float(x.detach().square().sum())

    for _ in range(3):
        opt.step(closure)
    expected = oracle.smallest(before, 0.5).bool()
    assert all(torch.equal(bits_of(mask, 64), expected) for mask in masks)


def test_a_mask_lasts_and_is_renewed() -> None:
    x = nn.Parameter(torch.linspace(0.1, 1, 40))
    opt = SparseZO([x], sparsity=0.75, lr=0.05, interval=4)
    masks = []
    for _ in range(12):
        opt.step(lambda: float((x.detach().double() - 3).square().sum()))
        masks.append(bytes(opt.state[x]["mask"].tolist()))
    assert [len(set(masks[k : k + 4])) for k in (0, 4, 8)] == [1, 1, 1]
    assert len(set(masks)) > 1


@pytest.mark.parametrize("directions", ["gaussian", "rademacher"])
def test_within_the_mask_the_directions_have_the_identity(directions: str) -> None:
    mask = torch.tensor([0b10110], dtype=torch.uint8)
    flat = torch.zeros(4000, 6)
    for key, z in enumerate(flat):
        Masked(directions, key, mask).add_to(z, 1.0)
    wanted = torch.diag(torch.tensor([0.0, 1, 1, 0, 1, 0]))
    assert (flat.T @ flat / len(flat) - wanted).abs().max() < 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("way", WAYS)
def test_resumed_within_an_interval_and_made_again(
    way: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    assert variants.is_resumed_within(WAYS[way], dtype)
    assert variants.is_made_again(WAYS[way], dtype, tmp_path)
    assert variants.is_the_same_in_two_phases(WAYS[way], dtype)


def test_strides_make_no_difference() -> None:
    assert variants.is_the_same_by_columns(WAYS["lasting"])


def test_the_quadratic_falls_at_the_defaults() -> None:
    assert variants.evaluations_to_one_percent(SparseZO) < 20_000


def test_a_valley_is_descended() -> None:
    assert variants.left_of_a_valley(lambda ps: SparseZO(ps, lr=0.1), 300) < 0.2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sparsity": 1.0}, "sparsity=1.0"),
        ({"sparsity": -0.1}, "sparsity=-0.1"),
        ({"interval": 0}, "interval=0"),
        ({"momentum": 1.0}, "momentum"),
        ({"directions": "coord:3"}, "independent entries"),
    ],
)
def test_options_outside_their_range_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SparseZO([nn.Parameter(torch.zeros(2, 2))], **options)
