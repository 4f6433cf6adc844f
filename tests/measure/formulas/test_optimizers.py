"""Fused optimizers and those on lists against loops, and loops against the textbook."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn

from tests.measure.formulas.counting import Counting
from tests.oracles import scalars
from tests.oracles.scalars import Scalar, operations

SHAPES = ((3, 4), (5,), (2, 2, 2))
NUMBERS = 12 + 5 + 8


def step(make, *, steps: int = 2) -> Counting:
    """The last of some steps."""
    parameters = [nn.Parameter(torch.ones(*shape)) for shape in SHAPES]
    optimizer = make(parameters)
    for _ in range(steps):
        for parameter in parameters:
            parameter.grad = torch.ones_like(parameter)
        with Counting() as counter:
            optimizer.step()
    assert not counter.unknown
    return counter


def work(counter: Counting) -> int:
    """Scalar operations on numbers of parameters; counters of steps are a few more."""
    return counter.elementwise // NUMBERS


ADAMS = [
    functools.partial(torch.optim.Adam, weight_decay=0.0),
    functools.partial(torch.optim.Adam, weight_decay=0.1),
    functools.partial(torch.optim.AdamW, weight_decay=0.0),
    functools.partial(torch.optim.AdamW, weight_decay=0.1),
]


@pytest.mark.parametrize("make", ADAMS)
def test_adam(make):
    decay, decoupled = make.keywords["weight_decay"], make.func is torch.optim.AdamW
    numbers = [Scalar(1.0) for _ in range(4)]
    formula = functools.partial(scalars.adam, decay=decay, decoupled=decoupled)
    expected = operations(formula, *numbers)
    fused = step(functools.partial(make, fused=True))
    name = "_fused_adamw_" if decoupled else "_fused_adam_"
    assert fused.of(name).elementwise == expected * NUMBERS
    for foreach in (False, True):
        assert work(step(functools.partial(make, foreach=foreach))) == expected
    more = step(functools.partial(make, fused=True, amsgrad=True, maximize=True))
    assert work(more) == expected + 2


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_adagrad(decay):
    formula = functools.partial(scalars.adagrad, decay=decay)
    expected = operations(formula, *[Scalar(1.0) for _ in range(3)])
    make = functools.partial(torch.optim.Adagrad, weight_decay=decay)
    fused = step(functools.partial(make, fused=True))
    assert fused.of("_fused_adagrad_").elementwise == expected * NUMBERS
    for foreach in (False, True):
        assert work(step(functools.partial(make, foreach=foreach))) == expected


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize(
    ("momentum", "damping", "nesterov"),
    [(0.0, 0.0, False), (0.9, 0.0, False), (0.9, 0.5, False), (0.9, 0.0, True)],
)
def test_sgd(decay, momentum, damping, nesterov):
    formula = functools.partial(scalars.sgd, decay=decay, damping=damping, nesterov=nesterov)
    expected = operations(formula, Scalar(1.0), Scalar(1.0), Scalar(1.0) if momentum else None)
    make = functools.partial(
        torch.optim.SGD,
        lr=0.1,
        weight_decay=decay,
        momentum=momentum,
        dampening=damping,
        nesterov=nesterov,
    )
    fused = step(functools.partial(make, fused=True))
    assert fused.of("_fused_sgd_").elementwise == expected * NUMBERS
    for foreach in (False, True):
        assert work(step(functools.partial(make, foreach=foreach))) == expected
    first = step(functools.partial(make, fused=True), steps=1)
    assert work(first) == work(step(functools.partial(make, foreach=False), steps=1))


@pytest.mark.parametrize("name", ["Adadelta", "Adafactor", "Adamax", "NAdam", "RMSprop"])
def test_lists_cost_what_loops_do(name):
    make = getattr(torch.optim, name)
    loop, lists = (step(functools.partial(make, foreach=f)) for f in (False, True))
    assert loop.of() == lists.of()
    assert loop.elementwise > 5 * NUMBERS


@pytest.mark.parametrize("name", ["ASGD", "RAdam", "Rprop"])
def test_lists_that_do_other_work_are_known(name):
    for foreach in (False, True):
        assert step(functools.partial(getattr(torch.optim, name), foreach=foreach)).elementwise > 0


def test_matrices_of_muon_are_products():
    parameters = [nn.Parameter(torch.ones(4, 6))]
    optimizer = torch.optim.Muon(parameters)
    parameters[0].grad = torch.ones(4, 6)
    with Counting() as counter:
        optimizer.step()
    # Five steps, each X X' (4 x 6 x 4), its square, and its product with X.
    assert counter.flops == 5 * 2 * (4 * 6 * 4 + 4 * 4 * 4 + 4 * 4 * 6)


def test_types_are_looked_at_one_by_one():
    mixed = [torch.ones(3), torch.ones(4, dtype=torch.int64), torch.ones(5, dtype=torch.bfloat16)]
    with Counting() as counter:
        torch._foreach_mul_(mixed, 2)
        torch._foreach_zero_(mixed)
    assert counter.elementwise == 3 + 5
