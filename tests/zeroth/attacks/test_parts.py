"""The parts of attacks: streams, balls, cells, bumps and the schedule of squares."""

from __future__ import annotations

import math

import hypothesis
import pytest
import torch
from hypothesis import strategies as st

from shoestring.kernels.streams import signs, stream_key
from shoestring.zeroth.attacks.ball import Ball, lengths
from shoestring.zeroth.attacks.bumps import bump, hill
from shoestring.zeroth.attacks.cells import Cells
from shoestring.zeroth.attacks.draws import Draws
from shoestring.zeroth.attacks.signhunter import ranks
from shoestring.zeroth.attacks.square import share_of_pixels
from tests.oracles import attacks as oracle

CPU = torch.device("cpu")


def test_words_are_those_of_splitmix() -> None:
    draws = Draws(7, [3, 100], CPU)
    found = torch.cat([draws.words(5), draws.words(4)], dim=1).tolist()
    for row, image in zip(found, [3, 100], strict=True):
        right = [oracle.word(stream_key(7, image), place) for place in range(9)]
        assert [number % 2**64 for number in row] == right


def test_signs_are_those_of_the_package() -> None:
    found = Draws(7, [3], CPU).signs(150)
    assert found[0].tolist() == signs(stream_key(7, 3), 150).tolist()


def test_an_image_has_its_numbers_in_any_company() -> None:
    many, one = Draws(1, range(5), CPU), Draws(1, [3], CPU)
    for _ in range(3):
        assert torch.equal(many.normal(7)[3], one.normal(7)[0])
        assert torch.equal(many.below(7, 10)[3], one.below(7, 10)[0])
    many.keep(torch.tensor([False, True, False, True, False]))
    assert torch.equal(many.uniform(7)[1], one.uniform(7)[0])


def test_numbers_are_spread_as_they_say() -> None:
    draws = Draws(0, range(50), CPU)
    normal = draws.normal(10_001).double()
    assert abs(float(normal.mean())) < 0.01
    assert abs(float(normal.square().mean()) - 1) < 0.01
    assert abs(float(normal.pow(4).mean()) - 3) < 0.05
    uniform = draws.uniform(10_000)
    assert 0 < float(uniform.min()) < 1e-4
    assert 1 - 1e-4 < float(uniform.max()) < 1
    counts = torch.bincount(draws.below(10_000, 7).flatten(), minlength=7) / 500_000
    assert (counts - 1 / 7).abs().max() < 0.003
    assert abs(float(draws.signs(10_000).mean())) < 0.01


@hypothesis.given(
    st.sampled_from(["linf", "l2"]), st.floats(0.01, 2), st.floats(0, 3), st.integers(0, 99)
)
@hypothesis.settings(max_examples=40)
def test_projection(norm: str, eps: float, far: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    centre = torch.rand(2, 1, 3, 4, generator=generator, dtype=torch.float64)
    x = centre + far * torch.randn(2, 1, 3, 4, generator=generator, dtype=torch.float64)
    ball = Ball(centre, norm, eps, (0.0, 1.0))
    found = ball.project(x)
    right = [oracle.project(a, b, norm, eps) for a, b in zip(x, centre, strict=True)]
    torch.testing.assert_close(found, torch.stack(right), rtol=0, atol=1e-12)
    ends = [oracle.edge(a - b, b, norm, eps) for a, b in zip(x, centre, strict=True)]
    if far > 1e-3:
        torch.testing.assert_close(ball.edge(x - centre), torch.stack(ends), rtol=0, atol=1e-12)


def test_a_direction_of_zero_stays_so() -> None:
    ball = Ball(torch.rand(1, 1, 2, 2), "l2", 1.0, (0.0, 1.0))
    assert torch.equal(ball.edge(torch.zeros(1, 1, 2, 2)), ball.images)


@hypothesis.given(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), st.integers(1, 12))
@hypothesis.settings(max_examples=40)
def test_cells(channels: int, height: int, width: int, side: int) -> None:
    shape = torch.Size((channels, height, width))
    cells = Cells(shape, side, CPU)
    right = oracle.cell_of((channels, height, width), side)
    assert cells.count == int(right.max()) + 1
    values = torch.arange(cells.count, dtype=torch.float64).unsqueeze(0)
    assert torch.equal(cells.spread(values)[0], right.double())
    x = torch.rand(1, *shape, dtype=torch.float64)
    means = [float(x[0][right == i].mean()) for i in range(cells.count)]
    torch.testing.assert_close(cells.means(x)[0], torch.tensor(means, dtype=torch.float64))


@hypothesis.given(st.integers(0, 12), st.integers(1, 12))
@hypothesis.settings(max_examples=40)
def test_hills(height: int, width: int) -> None:
    torch.testing.assert_close(hill(height, width), oracle.hill(height, width))


@pytest.mark.parametrize("side", range(1, 12))
def test_bumps_have_two_signs_and_one_length(side: int) -> None:
    found = bump(side)
    assert float(found.norm()) == pytest.approx(1)
    half = side // 2
    assert (found[:half] > 0).all()
    assert (found[half:] < 0).all()


@pytest.mark.parametrize("queries", [37, 1000, 10_000])
def test_the_share_of_squares_is_the_published_one(queries: int) -> None:
    for step in range(queries):
        right = oracle.share_of_pixels(step, queries, 0.8)
        assert share_of_pixels(step, queries, 0.8) == right


@pytest.mark.parametrize("order", ["rows", "blocks"])
def test_orders_name_each_pixel_once(order: str) -> None:
    found = ranks(torch.Size((2, 5, 7)), order, CPU)
    assert sorted(found.tolist()) == list(range(70))
    assert found[:35].max() < 35  # one channel after the other


def test_blocks_are_square() -> None:
    found = ranks(torch.Size((1, 8, 8)), "blocks", CPU).view(8, 8)
    for part in range(4):
        rows, columns = ((found >= 16 * part) & (found < 16 * part + 16)).nonzero(as_tuple=True)
        assert math.isclose(int(rows.max() - rows.min()), int(columns.max() - columns.min()))


def test_lengths() -> None:
    deltas = torch.tensor([3.0, -4.0]).view(1, 1, 1, 2)
    assert float(lengths(deltas, "linf")) == 4
    assert float(lengths(deltas, "l2")) == 5
