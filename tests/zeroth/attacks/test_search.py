"""Each method asks for what an obvious form of it asks for, image by image."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import torch

from shoestring.zeroth.attacks import NES, SPSA, ZOO, Jaguar, SignHunter, Square
from shoestring.zeroth.attacks.ball import Ball
from shoestring.zeroth.attacks.draws import Draws
from shoestring.zeroth.attacks.method import Method, Problem
from tests.oracles import attacks as oracle

SHAPE = (2, 6, 5)
SEED = 11
CELLS = 4
TURNS = 90


def image() -> torch.Tensor:
    """Return an image with pixels at both bounds."""
    generator = torch.Generator().manual_seed(3)
    x = torch.rand(SHAPE, generator=generator, dtype=torch.float64)
    x[0, 0], x[1, 2] = 0, 1
    return x


def margin(x: torch.Tensor) -> float:
    """Return what is neither linear nor the same in two places."""
    generator = torch.Generator().manual_seed(4)
    weights = torch.randn(8, x.numel(), generator=generator, dtype=torch.float64)
    return 3 + float((weights @ x.flatten()).tanh().sum())


def asked(method: Method, norm: str, eps: float, turns: int = TURNS) -> list[torch.Tensor]:
    """Return the images that a search asks for, beside another image in its batch."""
    both = torch.stack([image().flip(2), image()])
    ball = Ball(both, norm, eps, (0.0, 1.0))
    margins = torch.tensor([margin(x) for x in both], dtype=torch.float64)
    search = method.start(Problem(ball, Draws(SEED, [5, 9], both.device), margins, turns + 1))
    found = []
    for turn in range(turns):
        if turn == 33:  # the other image is done
            search.keep(torch.tensor([False, True]))
        proposed = search.propose()
        found.append(proposed[-1])
        search.told(torch.tensor([margin(x) for x in proposed], dtype=torch.float64))
    return found


def same(found: list[torch.Tensor], right: list[torch.Tensor]) -> None:
    """Compare what was asked for."""
    assert len(found) == len(right)
    for turn, (mine, other) in enumerate(zip(found, right, strict=True)):
        torch.testing.assert_close(
            mine, other, rtol=0, atol=1e-9, msg=lambda m, t=turn: f"{t}: {m}"
        )


def pairs(norm: str, eps: float) -> oracle.Pairs:
    """Return where the obvious forms start."""
    return oracle.Pairs(image(), norm, eps, oracle.cell_of(SHAPE, CELLS))


def driven(search: Iterator[torch.Tensor], start: oracle.Pairs) -> list[torch.Tensor]:
    """Return what an obvious form asks for."""
    found = []
    for x in itertools.islice(search, TURNS):
        found.append(x)
        start.margins.append(margin(x))
    return found


def numbers() -> Draws:
    """Return the second image's stream."""
    return Draws(SEED, [9], torch.device("cpu"))


BALLS = [("linf", 0.1), ("l2", 0.7)]


@pytest.mark.parametrize(("norm", "eps"), BALLS)
@pytest.mark.parametrize("plateau", [1, 2])
def test_nes(norm: str, eps: float, plateau: int) -> None:
    options = {"pairs": 3, "sigma": 0.4, "lr": 0.3, "momentum": 0.6, "plateau": plateau}
    draws, start = numbers(), pairs(norm, eps)
    normals = (draws.normal(32, torch.float64)[0] for _ in itertools.count())
    right = driven(oracle.nes(start, normals, **options), start)
    same(asked(NES(**options, cells=CELLS), norm, eps), right)


@pytest.mark.parametrize(("norm", "eps"), BALLS)
def test_spsa(norm: str, eps: float) -> None:
    options = {"pairs": 2, "delta": 0.4, "lr": 0.3, "betas": (0.8, 0.95)}
    draws, start = numbers(), pairs(norm, eps)
    signs = (draws.signs(32, torch.float64)[0] for _ in itertools.count())
    right = driven(oracle.spsa(start, signs, **options), start)
    same(asked(SPSA(**options, cells=CELLS), norm, eps), right)


@pytest.mark.parametrize(("norm", "eps"), BALLS)
def test_jaguar(norm: str, eps: float) -> None:
    options = {"tau": 0.5, "lr": 0.2, "beta": 0.7}
    draws, start = numbers(), pairs(norm, eps)

    def directions() -> Iterator[torch.Tensor]:
        while True:
            words = draws.words(32)[0].tolist()
            chosen = sorted(range(32), key=lambda i: -words[i])[:6]
            z = torch.zeros(32, dtype=torch.float64)
            z[chosen] = draws.signs(6, torch.float64)[0]
            yield z

    right = driven(oracle.jaguar(start, directions(), **options), start)
    same(asked(Jaguar(**options, coords=6, cells=CELLS), norm, eps), right)


@pytest.mark.parametrize(("norm", "eps"), BALLS)
def test_zoo(norm: str, eps: float) -> None:
    options = {"h": 0.5, "lr": 0.6, "betas": (0.5, 0.9)}
    draws, start = numbers(), pairs(norm, eps)

    def places() -> Iterator[int]:
        while True:
            change = (start.x - start.centre).abs()
            mean = [float(change[start.cells == i].mean()) for i in range(32)]
            chances = [m + max(mean) / 10 if max(mean) else 1.0 for m in mean]
            times = (-draws.uniform(32).log()[0] / torch.tensor(chances)).tolist()
            yield from sorted(range(32), key=lambda i: times[i])[:19]

    right = driven(oracle.zoo(start, places(), **options), start)
    same(asked(ZOO(**options, round=0.6, cells=CELLS), norm, eps), right)


@pytest.mark.parametrize(("norm", "eps"), BALLS)
def test_signhunter(norm: str, eps: float) -> None:
    right, _ = oracle.signhunter(margin, image(), norm, eps, TURNS)
    same(asked(SignHunter(order="rows"), norm, eps, len(right)), right)


@pytest.mark.parametrize(("norm", "eps"), BALLS)
@pytest.mark.parametrize("p_init", [0.1, 0.8])
def test_square(norm: str, eps: float, p_init: float) -> None:
    draws = numbers()

    def draw(kind: str, count: int) -> list[int]:
        found = draws.below(1, count) if kind == "below" else draws.signs(count)
        return [int(number) for number in found[0]]

    obvious = oracle.square_linf if norm == "linf" else oracle.square_l2
    right = obvious(margin, image(), eps, TURNS, p_init, draw)
    found = asked(Square(p_init=p_init), norm, eps)
    same(found, right)
    assert len({tuple(x.flatten().tolist()) for x in found}) > 0.9 * TURNS


def test_signhunter_finds_the_best_signs_of_a_linear_margin() -> None:
    gradient = torch.randn(9, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    x = torch.full((1, 1, 3, 3), 0.5, dtype=torch.float64)
    _, best = oracle.best_signs(gradient)
    for order in ("rows", "blocks"):
        problem = Problem(
            Ball(x, "linf", 0.1, (0.0, 1.0)),
            Draws(0, [0], x.device),
            torch.ones(1, dtype=torch.float64),
            1000,
        )
        search = SignHunter(order=order).start(problem)
        lowest = torch.inf
        for _ in range(1 + 2**5):  # 2^(ceil(log2 9) + 1) turns, by theorem 1
            proposed = search.propose()
            found = (proposed.flatten(1) * gradient).sum(1)
            search.told(found)
            if found < lowest:
                lowest, at = float(found), proposed
        assert (at - x).sign().flatten().tolist() == best
