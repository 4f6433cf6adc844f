"""How fast kernels go here, and what an operation costs: plausible, ordered, without traces."""

from __future__ import annotations

import contextlib
import math
import time

import pytest
import torch

from shoestring.core.kernels import Kernel
from shoestring.core.machine import Pace
from shoestring.core.trace import Phase
from shoestring.measure import count
from shoestring.measure._torch import FakeTensorMode
from shoestring.measure.timing import paces as paces_module
from shoestring.measure.timing.microbench import Rates, measure_rates
from shoestring.measure.timing.op_costs import measure_op_costs
from shoestring.measure.timing.paces import Sample, Timed, measure_paces


@pytest.fixture(scope="module")
def paces():
    return measure_paces(1e10)


def test_every_kind_has_a_pace(paces):
    assert set(paces) == set(Kernel)
    for pace in paces.values():
        assert 0 < pace.share <= 1
        assert 1e6 < pace.bandwidth < 1e14
        assert 0 <= pace.start < 1e-2


def test_paces_order_kernels_as_they_are(paces):
    # Drawing a number takes longer than any other thing that is done to it.
    slowest = min(paces, key=lambda kernel: paces[kernel].bandwidth)
    assert slowest is Kernel.RANDOM
    assert paces[Kernel.POINTWISE].bandwidth > 3 * paces[Kernel.RANDOM].bandwidth
    assert paces[Kernel.CONVOLUTION].start > paces[Kernel.POINTWISE].start


def test_an_operation_costs_something_in_every_phase(paces):
    costs = measure_op_costs(paces, "cpu")
    assert set(costs) == {Phase.FORWARD, Phase.BACKWARD, Phase.OPTIMIZER}
    assert all(1e-7 < cost < 1e-3 for cost in costs.values())
    # What kernels take to start is not counted twice.
    slow = {kernel: Pace(1.0, 1e10, 1.0) for kernel in Kernel}
    assert sum(measure_op_costs(slow, "cpu").values()) < sum(costs.values())


def test_measuring_takes_few_seconds_and_disturbs_nothing():
    state, threads, mode = torch.get_rng_state(), torch.get_num_threads(), torch.is_grad_enabled()
    own = time.process_time()
    rates = measure_rates()
    assert time.process_time() - own < 3 * torch.get_num_threads() + 2
    assert torch.equal(torch.get_rng_state(), state)
    assert (torch.get_num_threads(), torch.is_grad_enabled()) == (threads, mode)
    assert all(math.isfinite(rate) for rate in rates.flops.values())
    assert set(rates.paces) == set(Kernel)
    assert set(rates.op_costs) == {Phase.FORWARD, Phase.BACKWARD, Phase.OPTIMIZER}


@pytest.mark.parametrize("around", ["counting", "inference", "fake", "meta", "half"])
def test_what_surrounds_it_does_not_matter(around):
    before = torch.get_default_dtype()
    with contextlib.ExitStack() as stack:
        if around == "counting":
            counted = stack.enter_context(count())
        elif around == "inference":
            stack.enter_context(torch.inference_mode())
        elif around == "fake":
            stack.enter_context(FakeTensorMode())
        elif around == "meta":
            stack.enter_context(torch.device("meta"))
        else:
            torch.set_default_dtype(torch.bfloat16)
            stack.callback(torch.set_default_dtype, before)
        rates = measure_rates("cpu")
    assert 1e8 < rates.paces[Kernel.POINTWISE].bandwidth < 1e13
    assert all(1e-7 < cost < 1e-3 for cost in rates.op_costs.values())
    if around == "counting":
        assert not counted.rows


def test_the_better_of_two_measurements():
    one = Rates(
        {"float32": 2.0}, 3.0, 4.0, quiet=False,
        paces={Kernel.NORM: Pace(1.0, 5.0, 0.5), Kernel.RANDOM: Pace(1.0, 1.0, 0.0)},
        op_costs={Phase.FORWARD: 2.0},
    )  # fmt: skip
    other = Rates(
        {"float32": 1.0, "float64": 1.0}, 9.0, 5.0,
        paces={Kernel.NORM: Pace(0.5, 7.0, 0.25)},
        op_costs={Phase.FORWARD: 1.0, Phase.BACKWARD: 3.0},
    )  # fmt: skip
    best = one.best(other)
    assert best == other.best(one)
    assert best.flops == {"float32": 2.0, "float64": 1.0}
    assert (best.bandwidth, best.op_seconds, best.quiet) == (9.0, 4.0, True)
    assert best.paces == {
        Kernel.NORM: Pace(0.75, 6.0, 0.375),
        Kernel.RANDOM: Pace(1.0, 1.0, 0.0),
    }
    assert best.op_costs == {Phase.FORWARD: 1.5, Phase.BACKWARD: 3.0}


def test_a_pace_by_hand():
    product = paces_module._PRODUCT.flops
    samples = [
        Sample(torch.mm, ((4, 4),) * 2, 0, ((4, 4),) * 2, flops=product),
        Sample(torch.add, ((4, 4),) * 2, 300, ((4, 4),) * 2, calls=2),
    ]
    times = [
        # Others slowed the second round of both; the third was a slip of the clock.
        [Timed(2.5, 0.5, 1.0), Timed(4.5, 0.5, 2.0), Timed(9.0, 0.5, 0.1)],
        [Timed(3.5, 0.5, 0.0), Timed(3.5, 0.5, 0.0), Timed(70.0, 0.5, 0.0)],
    ]
    pace = paces_module._pace(samples, times, plain=0.125, bandwidth=1.0)
    # Twice the time of a product of as many FLOPs; 300 bytes in 3.5 - 0.5; starts 0.5 and 0.25.
    assert pace == pytest.approx((0.5, 100.0, 0.375 - 0.125))


def test_a_kind_without_traffic_has_the_machine_s_bandwidth():
    samples = [Sample(torch.mm, ((4, 4),) * 2, 0, ((4, 4),) * 2, flops=8)]
    pace = paces_module._pace(samples, [[Timed(1.0, 0.1, 1.0)] * 3], plain=1.0, bandwidth=7.0)
    assert (pace.bandwidth, pace.start) == (7.0, 0.0)
