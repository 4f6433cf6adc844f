"""JAGUAR: each coordinate is remembered until it is drawn again, and all weights move."""

from __future__ import annotations

import collections
import functools
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from shoestring.core.errors import InputError
from shoestring.zeroth.jaguar import JaguarMuon, JaguarSign
from tests.oracles import zo_library
from tests.oracles.jaguar import Entry, jaguar

Make = Callable[[list[nn.Parameter]], JaguarSign | JaguarMuon]
SPEC = [(20, 30), (20,)]
"""Shapes of the quadratic that all optimizers are tried on: 620 weights, 310 at its start."""


def zeros(shapes: list[tuple[int, ...]]) -> list[nn.Parameter]:
    """Return parameters."""
    return [nn.Parameter(torch.zeros(shape)) for shape in shapes]


def quadratic(params: list[nn.Parameter]) -> torch.Tensor:
    """Return half the squared distance to ones."""
    return sum(((p - 1).square().sum() / 2 for p in params), torch.zeros(()))


def drawn(opt: JaguarSign | JaguarMuon, draw: int, index: int = 0) -> list[Entry]:
    """Return the entries of a direction."""
    params = [parameter for parameter, _ in opt._moved()]
    found = []
    for k, z in enumerate(opt._draw(params, draw, index)):
        pairs = zip(z.places.tolist(), z.values.tolist(), strict=True)
        found += [(k, place, value) for place, value in pairs]
    return found


def coupled(theta: list[torch.Tensor]) -> torch.Tensor:
    """Return a smooth loss in which all weights meet."""
    flat = torch.cat([tensor.reshape(-1) for tensor in theta])
    slopes = torch.linspace(-2.0, 3.1, len(flat), dtype=torch.float64)
    return (flat * slopes).sum() + (flat - 0.3).square().sum() + flat.sin().sum().square() / 7


def evaluations_to_one_percent(
    make: Make, shapes: list[tuple[int, ...]] = SPEC, most: int = 20_000
) -> float:
    """Return how many a quadratic takes, or infinity."""
    params = zeros(shapes)
    goals = [torch.ones_like(p) for p in params]
    opt = make(params)

    def loss() -> float:
        return (
            sum(torch.dist(p.detach(), g).item() ** 2 for p, g in zip(params, goals, strict=True))
            / 2
        )

    goal = loss() / 100
    for draw in range(1, most // 2 + 1):
        opt.step(loss)
        if draw % 50 == 0 and loss() < goal:
            return 2 * draw
    return math.inf


# --- the algorithms ------------------------------------------------------------------------------

SHAPES = st.lists(
    st.lists(st.integers(1, 4), max_size=4).map(tuple), min_size=1, max_size=4
)  # () is a number


@settings(max_examples=20, deadline=None)
@given(
    shapes=SHAPES,
    draws=st.one_of(
        st.just({"block": "reference"}), st.integers(1, 9).map(lambda k: {"coords": k})
    ),
    muon=st.booleans(),
    beta=st.sampled_from([0.0, 0.4, 0.9]),
    q=st.integers(1, 3),
    two_sided=st.booleans(),
    seed=st.integers(0, 99),
)
def test_the_trajectory_is_that_of_the_algorithm(
    shapes: list[tuple[int, ...]],
    draws: dict[str, int | str],
    muon: bool,
    beta: float,
    q: int,
    two_sided: bool,
    seed: int,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    start = [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]
    params = [nn.Parameter(tensor.clone()) for tensor in start]
    kind = functools.partial(JaguarMuon, method="svd") if muon else JaguarSign
    options = {"q": q, "two_sided": two_sided, "weight_decay": 0.5, "seed": seed, **draws}
    opt = kind(params, lr=0.01, eps=0.02, beta=beta, **options)
    for _ in range(6):
        opt.step(lambda: coupled([p.detach() for p in params]))
    visits = [[drawn(opt, draw, index) for index in range(q)] for draw in range(6)]
    theta, m = jaguar(
        start,
        coupled,
        visits,
        lr=0.01,
        tau=0.02,
        beta=beta,
        weight_decay=0.5,
        two_sided=two_sided,
        muon=muon,
    )
    for parameter, expected, mean in zip(params, theta, m, strict=True):
        assert torch.allclose(opt.state[parameter]["momentum_buffer"], mean, rtol=1e-5, atol=1e-5)
        assert torch.allclose(parameter, expected, rtol=1e-5, atol=1e-5)


def test_one_coordinate_keeps_the_derivative_that_was_last_seen() -> None:
    curvature = torch.tensor([0.5, 1.0, 2.0, 4.0], dtype=torch.float64)
    x = nn.Parameter(torch.zeros(4, dtype=torch.float64))
    opt = JaguarSign([x], lr=0.005, eps=0.1, beta=0.0, coords=1)
    seen = torch.zeros(4, dtype=torch.float64)
    for draw in range(400):
        before = x.detach().clone()
        opt.step(lambda: (curvature * (x - 1).square()).sum() / 2)
        ((_, place, _),) = drawn(opt, draw)
        seen[place] = curvature[place] * (before[place] - 1)
        assert torch.allclose(opt.state[x]["momentum_buffer"], seen, rtol=1e-6)
        assert torch.allclose(x - before, -0.005 * seen.sign(), atol=1e-12)
    assert (seen != 0).all()
    assert ((x - 1).abs() < 0.2).all()


def test_the_gradients_stay_below_the_bound() -> None:
    d, lr, tau, steps = 20, 2e-3, 0.01, 2000
    x = nn.Parameter(torch.zeros(d, dtype=torch.float64))
    opt = JaguarSign([x], lr=lr, eps=tau, beta=0.0, coords=1)
    total = 0.0
    for _ in range(steps):
        total += float((x.detach() - 1).abs().sum())
        opt.step(lambda: quadratic([x]))
    # Smoothness 1, no noise, beta = 0; the start is d / 2 above the least, its gradient sqrt(d).
    bound = d / 2 / (lr * steps) + lr * d / 2 + 2 * math.sqrt(6) * d**2 * lr + 2 * d * tau
    bound += 8 * d**1.5 * math.sqrt(d) / steps
    assert total / steps < bound < d / 2


@pytest.mark.parametrize("make", [JaguarSign, JaguarMuon])
def test_the_quadratic_falls_below_one_percent(make: Make) -> None:
    assert evaluations_to_one_percent(make) <= 20_000


def test_one_entry_at_a_time_takes_as_many_for_each_weight() -> None:
    shapes = [(6, 10), (2,)]  # a tenth of the weights, so a tenth of the evaluations
    taken = evaluations_to_one_percent(
        lambda p: JaguarSign(p, lr=0.075 / 62, beta=0.0, coords=1), shapes, most=2000
    )
    assert taken <= 2000


# --- what is drawn -------------------------------------------------------------------------------


def test_entries_are_drawn_of_all_weights_alike() -> None:
    opt = JaguarSign(zeros([(3, 2), (4,), ()]), coords=3)
    counts: collections.Counter[tuple[int, int]] = collections.Counter()
    signs = 0.0
    for draw in range(1100):
        entries = drawn(opt, draw)
        places = [(tensor, place) for tensor, place, _ in entries]
        assert len(set(places)) == 3
        assert {abs(z) for _, _, z in entries} == {1.0}
        counts.update(places)
        signs += sum(z for _, _, z in entries)
    assert len(counts) == 11
    assert all(abs(n - 300) < 5 * math.sqrt(300) for n in counts.values())
    assert abs(signs) < 5 * math.sqrt(3300)


@pytest.mark.parametrize(
    ("shape", "count"),
    [((), 1), ((7,), 1), ((25,), 2), ((20, 30), 6), ((9, 31), 3), ((20, 4, 3, 3), 6)],
)
def test_the_block_is_that_of_the_published_code(shape: tuple[int, ...], count: int) -> None:
    (x,) = zeros([shape])
    opt = JaguarSign([x], block="reference")
    seen = set()
    for draw in range(4):
        entries = drawn(opt, draw)
        assert len(entries) == len({place for _, place, _ in entries}) == count
        assert {z for _, _, z in entries} == {1.0}
        if x.dim() > 1:  # rows crossed with columns
            cols = x.numel() // len(x)
            rows = {place // cols for _, place, _ in entries}
            across = {place % cols for _, place, _ in entries}
            assert len(rows) * len(across) == count
            assert (len(rows), len(across)) == zo_library.block_sizes((len(x), cols))
        seen.add(tuple(sorted(place for _, place, _ in entries)))
    assert len(seen) > 1 or x.dim() == 0


def test_the_first_step_on_a_block_is_that_of_the_published_code() -> None:
    start = [torch.randn(s, dtype=torch.float64) for s in [(20, 30), (25,)]]
    params = [nn.Parameter(tensor.clone()) for tensor in start]
    opt = JaguarSign(params, lr=0.03, eps=0.05, beta=0.01, block="reference")
    opt.step(lambda: coupled([p.detach() for p in params]))
    expected = zo_library.jaguar_step(start, coupled, drawn(opt, 0), lr=0.03, tau=0.05)
    for parameter, values in zip(params, expected, strict=True):
        assert torch.allclose(parameter, values, atol=1e-9)
    before = [p.detach().clone() for p in params]
    opt.step(lambda: coupled([p.detach() for p in params]))
    moved = sum(int((a != b).sum()) for a, b in zip(before, params, strict=True))
    assert moved == len({(t, e) for draw in (0, 1) for t, e, _ in drawn(opt, draw)})


def test_what_is_seen_of_an_entry_is_its_derivative_on_average() -> None:
    slopes = torch.linspace(-1, 2, 12, dtype=torch.float64)
    x = nn.Parameter(torch.zeros(12, dtype=torch.float64))
    opt = JaguarSign([x], lr=0.0, beta=0.0, coords=4)
    seen: dict[int, list[float]] = collections.defaultdict(list)
    for draw in range(1200):
        opt.step(lambda: slopes @ x)
        for _, place, _ in drawn(opt, draw):
            seen[place].append(float(opt.state[x]["momentum_buffer"][place]))
    for place, values in seen.items():
        found = torch.tensor(values)
        assert abs(found.mean() - slopes[place]) < 5 * found.std() / math.sqrt(len(values))


def test_what_is_seen_of_a_block_is_the_sum_of_its_derivatives() -> None:
    slopes = torch.linspace(-1, 2, 40, dtype=torch.float64)
    x = nn.Parameter(torch.zeros(40, dtype=torch.float64))
    opt = JaguarSign([x], lr=0.0, beta=0.0, block="reference")
    opt.step(lambda: slopes @ x)
    places = [place for _, place, _ in drawn(opt, 0)]
    seen = opt.state[x]["momentum_buffer"][places]
    assert torch.allclose(seen, slopes[places].sum().expand(4), rtol=1e-5)


@pytest.mark.parametrize("options", [{"coords": 5}, {"coords": 1, "q": 2}, {"block": "reference"}])
def test_only_what_is_drawn_moves_for_the_question(options: dict[str, int | str]) -> None:
    params = [nn.Parameter(torch.randn(s)) for s in [(20, 30), (20,), (4, 3, 2)]]
    opt = JaguarMuon(params, lr=1e-3, eps=0.01, **options)
    opt.step(lambda: quadratic(params))
    clean = [p.detach().clone() for p in params]
    places = [[], []]

    def closure() -> torch.Tensor:
        moved = [(p != c).nonzero().tolist() for p, c in zip(params, clean, strict=True)]
        places[0].append(sum(map(len, moved)))
        places[1] += [float((p - c).abs().max()) for p, c in zip(params, clean, strict=True)]
        return quadratic(params)

    opt.step(closure)
    first = len(drawn(opt, 1))
    assert places[0] == [first] * (2 * opt.param_groups[0]["q"])
    assert max(places[1]) == pytest.approx(0.01, rel=1e-4)


# --- the house -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("options", [{"coords": 7}, {"block": "reference"}])
def test_without_a_learning_rate_the_weights_come_back(
    dtype: torch.dtype, options: dict[str, int | str]
) -> None:
    params = [nn.Parameter(torch.randn(s).to(dtype)) for s in SPEC]
    opt = JaguarSign(params, lr=0.0, **options)
    opt.step(lambda: quadratic(params))
    settled = [p.detach().clone() for p in params]
    for _ in range(200):
        opt.step(lambda: quadratic(params))
    assert all(torch.equal(p, s) for p, s in zip(params, settled, strict=True))


def test_weights_of_few_bits_are_trained() -> None:
    params = [nn.Parameter(torch.zeros(s, dtype=torch.bfloat16)) for s in [(6, 5), (6,)]]
    for kind in (JaguarSign, JaguarMuon):
        opt = kind(params, lr=5e-3, eps=0.1, coords=9)
        losses = [opt.step(lambda: quadratic([p.float() for p in params])) for _ in range(600)]
        assert losses[-1] < 0.05 * 18
        assert all(opt.state[p]["momentum_buffer"].dtype is torch.float32 for p in params)


@pytest.mark.parametrize("kind", [JaguarSign, JaguarMuon])
@pytest.mark.parametrize("options", [{"coords": 5, "q": 2}, {"block": "reference"}])
def test_pending_gives_the_same_bits(
    kind: type[JaguarSign | JaguarMuon], options: dict[str, int | str]
) -> None:
    torch.manual_seed(0)
    clean = [nn.Parameter(torch.randn(s)) for s in [(12, 11), (30,)]]
    waiting = [nn.Parameter(p.detach().clone()) for p in clean]
    one, other = kind(clean, **options), kind(waiting, pending=True, **options)
    for _ in range(260):  # radii are fitted anew on the way
        one.step(lambda: quadratic(clean))
        other.step(lambda: quadratic(waiting))
    assert sum(int((a != b).sum()) for a, b in zip(clean, waiting, strict=True)) == len(
        drawn(one, 260)
    )
    with other.unperturbed():
        assert all(torch.equal(a, b) for a, b in zip(clean, waiting, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (JaguarSign, {"coords": 5, "q": 2, "seed": 3}),
        (JaguarSign, {"block": "reference", "weight_decay": 0.1}),
        (JaguarMuon, {"coords": 9, "method": "polar-express", "two_sided": False}),
    ],
)
def test_the_log_makes_the_steps_again(
    kind: type[JaguarSign | JaguarMuon], options: dict[str, object], dtype: torch.dtype
) -> None:
    start = [torch.randn(s).to(dtype) for s in [(12, 11), (30,)]]
    ran, again = ([nn.Parameter(tensor.clone()) for tensor in start] for _ in range(2))
    opt = kind([{"params": ran[:1], "lr": 0.02}, {"params": ran[1:]}], eps=0.05, **options)
    for step in range(8):
        opt.param_groups[0]["momentum"] = 0.1 * step  # as a scheduler may
        opt.step(lambda: coupled([p.detach().double() for p in ran]))
    made = kind([{"params": again[:1]}, {"params": again[1:]}], **opt.log.options)
    for deltas, rates in zip(opt.log.deltas, opt.log.settings, strict=True):
        made.repeat(deltas, rates)
    assert all(torch.equal(a, b) for a, b in zip(ran, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(ran, start, strict=True))
    buffers = [[o.state[p]["momentum_buffer"] for p in ps] for o, ps in ((opt, ran), (made, again))]
    assert all(torch.equal(a, b) for a, b in zip(*buffers, strict=True))


def test_frozen_tied_and_empty_parameters() -> None:
    x, frozen, empty = zeros([(3, 2), (4,), (0, 3)])
    frozen.requires_grad_(False)
    tied = nn.Parameter(x.detach())
    opt = JaguarSign([x, frozen, tied, empty], lr=0.01, coords=6)
    assert len(drawn(opt, 0)) == 6
    opt.step(lambda: x.detach().view(-1) @ torch.logspace(0, 1, 6))
    assert x.detach().view(-1).abs().tolist() == pytest.approx([0.01] * 6)
    assert (frozen == 0).all()


def test_other_layouts_are_drawn_alike() -> None:
    torch.manual_seed(0)
    plain = [nn.Parameter(torch.randn(6, 4, 3, 2))]
    other = [nn.Parameter(plain[0].detach().clone(memory_format=torch.channels_last))]
    for kind in (JaguarSign, JaguarMuon):
        one, two = kind(plain, coords=9), kind(other, coords=9)
        for _ in range(5):
            one.step(lambda: plain[0].double().square().sum())
            two.step(lambda: other[0].double().square().sum())
        assert torch.equal(plain[0], other[0])


def test_a_matrix_with_few_drawn_entries_moves_in_their_rows_and_columns_alone() -> None:
    for method in ("svd", "newton-schulz", "polar-express"):
        (x,) = zeros([(5, 4)])
        opt = JaguarMuon([x], lr=0.01, coords=1, method=method)
        opt.step(lambda x=x: quadratic([x]))
        ((_, place, _),) = drawn(opt, 0)
        assert x.detach().view(-1).nonzero().tolist() == [[place]]
        assert float(x.detach().sum()) == pytest.approx(0.01, rel=0.4)


def test_no_slope_is_no_step() -> None:
    (x,) = zeros([(3, 3)])
    for kind in (JaguarSign, JaguarMuon):
        for method in ({}, {"method": "svd"}) if kind is JaguarMuon else ({},):
            kind([x], lr=1.0, **method).step(lambda: 2.0)
            assert (x == 0).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": 1.0}, "beta=1.0 is no share"),
        ({"coords": 0}, "coords=0 draws nothing"),
        ({"block": "rows"}, "no block called 'rows'"),
        ({"block": "reference", "coords": 4}, "has no effect beside a block"),
        ({"q": 0}, "q=0"),
        ({"pending": True, "two_sided": False}, "one-sided"),
    ],
)
def test_options_outside_their_range_are_refused(options: dict[str, object], message: str) -> None:
    for kind in (JaguarSign, JaguarMuon):
        with pytest.raises(InputError, match=message):
            kind(zeros([(2,)]), **options)


def test_another_polar_factor_is_refused() -> None:
    with pytest.raises(InputError, match="no polar factor by 'qr'"):
        JaguarMuon(zeros([(2,)]), method="qr")
