"""What the tests of several optimizers ask: small problems, resumed runs, runs made again."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from shoestring.zeroth import Log
from shoestring.zeroth.engine import ZerothOrder

Make = Callable[[list[nn.Parameter]], ZerothOrder]


def parameters(dtype: torch.dtype = torch.float64) -> list[nn.Parameter]:
    """Return tensors of four, two, one and no dimensions, and an empty one; always the same."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(4, 2, 3, 1), (7, 5), (6,), (), (0, 3)]
    drawn = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    return [nn.Parameter(values.to(dtype)) for values in drawn]


def loss(values: list[torch.Tensor]) -> float:
    """Return a loss of such tensors, neither separable nor a quadratic."""
    total = torch.zeros((), dtype=torch.float64)
    for k, value in enumerate(values):
        if value.numel():
            wide = value.detach().double().reshape(-1)
            total += (wide - 0.5).square().sum() * (k + 1) + (wide.sum() * 0.3).cos()
    return float(total)


def train(made: list[nn.Parameter], opt: ZerothOrder, steps: int) -> None:
    """Make some steps."""
    for _ in range(steps):
        opt.step(lambda: loss([*made]))


def same(left: list[nn.Parameter], right: list[nn.Parameter]) -> bool:
    """Return whether two lists have the same bits."""
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def is_resumed_within(make: Make, dtype: torch.dtype, before: int = 8, after: int = 7) -> bool:
    """Return whether a run goes on as if it had not been interrupted."""
    ours = parameters(dtype)
    opt = make(ours)
    train(ours, opt, before)
    file = io.BytesIO()
    torch.save(opt.state_dict(), file)
    file.seek(0)
    theirs = [nn.Parameter(value.detach().clone()) for value in ours]
    resumed = make(theirs)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    train(ours, opt, after)
    train(theirs, resumed, after)
    return same(ours, theirs) and not same(ours, parameters(dtype))


def is_made_again(make: Make, dtype: torch.dtype, folder: Path, steps: int = 15) -> bool:
    """Return whether the log of a run makes it again, after a trip through a file."""
    ours, theirs = parameters(dtype), parameters(dtype)
    opt = make(ours)
    train(ours, opt, steps)
    opt.log.save(folder / "run.zolog")
    log = Log.load(folder / "run.zolog")
    again = type(opt)([p for p in theirs if p.numel()], **log.options)
    for deltas, settings in zip(log.deltas, log.settings, strict=True):
        again.repeat(deltas, settings)
    return same(ours, theirs) and not same(ours, parameters(dtype))


def is_the_same_in_two_phases(make: Make, dtype: torch.dtype) -> bool:
    """Return whether `estimate` and `step` do as `step` does."""
    ours, theirs = parameters(dtype), parameters(dtype)
    opt, other = make(ours), make(theirs)
    train(ours, opt, 6)
    for _ in range(6):
        other.estimate(lambda: loss([*theirs]))
        other.step()
    return same(ours, theirs)


def is_the_same_by_columns(make: Make) -> bool:
    """Return whether it makes no difference that a matrix lies in memory column by column."""
    ours = parameters()
    theirs = [nn.Parameter(p.detach().clone()) for p in ours]
    theirs[1] = nn.Parameter(ours[1].detach().mT.contiguous().mT)
    assert not theirs[1].is_contiguous()
    for made in (ours, theirs):
        train(made, make(made), 6)
    return all(torch.allclose(a, b, rtol=1e-9) for a, b in zip(ours, theirs, strict=True))


def evaluations_to_one_percent(make: Make, most: int = 20_000) -> float:
    """Return how often ½ |p - 1|² is asked for until it has fallen from 310 to 3.1."""
    made = [nn.Parameter(torch.zeros(20, 30)), nn.Parameter(torch.zeros(20))]
    goals, calls = [torch.ones_like(p) for p in made], [0]

    def value() -> float:
        pairs = zip(made, goals, strict=True)
        return sum(0.5 * float(torch.dist(p.detach(), goal)) ** 2 for p, goal in pairs)

    def closure() -> float:
        calls[0] += 1
        return value()

    assert round(value(), 3) == 310
    opt = make(made)
    while calls[0] < most:
        if opt.step(closure) < 3.5 and value() < 3.1:
            return calls[0]
    return math.inf


def left_of_a_valley(make: Make, steps: int) -> float:
    """Return the share that is left of a quadratic of condition 100 after some steps."""
    made = [nn.Parameter(torch.zeros(4, 3)), nn.Parameter(torch.zeros(4))]
    bends = torch.logspace(-2, 0, 16, dtype=torch.float64)
    turned, _ = torch.linalg.qr(
        torch.randn(16, 16, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    )

    def value() -> float:
        x = torch.cat([p.detach().double().reshape(-1) for p in made])
        return float((bends * (turned @ (x - 1)).square()).sum() / 2)

    before, opt = value(), make(made)
    for _ in range(steps):
        opt.step(value)
    return value() / before
