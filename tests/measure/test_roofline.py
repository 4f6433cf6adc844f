"""Rooflines: sums by hand, bounds in order, and what binds a step."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from shoestring.core.kernels import Kernel, kernel_of
from shoestring.core.machine import Machine, Pace
from shoestring.core.trace import Op, Phase, Work
from shoestring.measure import count, load_machine
from shoestring.measure.counting.counts import Counted, Row
from shoestring.measure.timing.roofline import make_roofline

PLAIN = Machine(
    name="plain",
    title="a machine with round figures",
    device="cpu",
    memory=None,
    flops={"float32": 100.0, "bfloat16": 400.0},
    bandwidth=10.0,
    op_seconds=0.5,
)
PACED = Machine(
    name="paced",
    title="",
    device="cpu",
    memory=None,
    flops={"float32": 100.0},
    bandwidth=10.0,
    op_seconds=0.5,
    paces={
        Kernel.CONVOLUTION: Pace(share=0.25, bandwidth=5.0, start=2.0),
        Kernel.IN_PLACE: Pace(share=1.0, bandwidth=40.0, start=0.0),
    },
    op_costs={Phase.FORWARD: 1.0, Phase.OPTIMIZER: 0.125},
)


def row(op, *, phase=Phase.FORWARD, module="", dtype="float32", calls=1, **work):
    return Row(phase, module, op, dtype, True, Work(**work), calls)


# --- the price of one operation --------------------------------------------------------------


@pytest.mark.parametrize(
    ("op", "dtype", "work", "seconds"),
    [
        ("aten.mm", "float32", Work(flops=300, bytes_read=10), 3.0),  # compute
        ("aten.mm", "bfloat16", Work(flops=1600, bytes_read=10), 4.0),
        ("aten.mm", "float8", Work(flops=300), 3.0),  # like float32: it was not measured
        ("aten.mm", "float32", Work(flops=300, bytes_read=30, bytes_written=20), 5.0),  # memory
        ("aten.add", "float32", Work(elementwise=999, bytes_read=20, bytes_written=10), 3.0),
        ("aten.view", "float32", Work(), 0.0),
    ],
)
def test_a_plain_machine(op, dtype, work, seconds):
    price = PLAIN.price(op, Phase.FORWARD, dtype, work)
    assert price.kernel == pytest.approx(seconds)
    assert price.seconds == pytest.approx(seconds + 0.5)


@pytest.mark.parametrize(
    ("op", "phase", "work", "seconds"),
    [
        ("aten.convolution", Phase.FORWARD, Work(flops=100, bytes_read=10), 4.0 + 1.0 + 2.0),
        ("aten.convolution", Phase.RECOMPUTE, Work(flops=1, bytes_read=10), 2.0 + 1.0 + 2.0),
        ("aten.mm", Phase.BACKWARD, Work(flops=100), 1.0 + 0.5),  # no pace, no cost of its own
        ("aten.add_", Phase.OPTIMIZER, Work(bytes_read=40, bytes_written=40), 2.0 + 0.125),
        ("aten.add", Phase.OPTIMIZER, Work(bytes_read=40, bytes_written=40), 8.0 + 0.125),
    ],
)
def test_kinds_of_kernels_have_their_own_pace(op, phase, work, seconds):
    assert PACED.price(op, phase, "float32", work).seconds == pytest.approx(seconds)


def test_the_planner_s_price_is_the_same():
    work = Work(flops=100, macs=50, bytes_read=10, bytes_written=6)
    op = Op("aten.convolution.default", Phase.FORWARD, "", **work._asdict())
    assert PACED.seconds(op) == PACED.price(op.name, op.phase, op.dtype, work).seconds
    op.seconds = 7.0
    assert PACED.seconds(op) == 7.0


@pytest.mark.parametrize(
    ("name", "contracts", "kernel"),
    [
        ("aten.mm.default", True, Kernel.PRODUCT),
        ("aten.mm", True, Kernel.PRODUCT),
        ("aten.convolution_backward.default", True, Kernel.CONVOLUTION_BACKWARD),
        ("aten.gelu.default", False, Kernel.FUNCTION),
        ("aten.sigmoid_.default", False, Kernel.FUNCTION),
        ("aten.bernoulli_.float", False, Kernel.RANDOM),
        ("aten.add.Tensor", False, Kernel.POINTWISE),
        ("aten.add_.Tensor", False, Kernel.IN_PLACE),
        ("aten._safe_softmax.default", False, Kernel.MASKED_SOFTMAX),
        ("mylib.my_product.default", True, Kernel.PRODUCT),
        ("mylib.my_op.default", False, Kernel.POINTWISE),
        ("somebody", False, Kernel.POINTWISE),
    ],
)
def test_kernels_by_name(name, contracts, kernel):
    assert kernel_of(name, contracts=contracts) is kernel


# --- a step by hand --------------------------------------------------------------------------

ROWS = (
    row("aten.mm", module="a.b", calls=2, flops=300, bytes_read=10),  # 2 x (3 + 0.5)
    row("aten.add", module="a", bytes_read=20, bytes_written=10),  # 3 + 0.5
    row("aten.mm", phase=Phase.BACKWARD, module="a.b", flops=600),  # 6 + 0.5
    row("aten.add_", phase=Phase.OPTIMIZER, calls=4, bytes_read=1),  # 4 x (0.1 + 0.5)
)


def test_sums_by_hand():
    estimate = make_roofline(Counted("step", 0, ROWS, bytes_in=30, bytes_out=20), PLAIN)
    assert estimate.seconds == pytest.approx(7 + 3.5 + 6.5 + 2.4)
    assert estimate.unfused == pytest.approx(6 + 3 + 6 + 0.4)
    assert estimate.fused == pytest.approx(1200 / 100)
    assert estimate.by_phase() == pytest.approx(
        {"forward": 10.5, "recompute": 0.0, "backward": 6.5, "optimizer": 2.4}
    )
    assert estimate.by_op() == pytest.approx({"aten.mm": 13.5, "aten.add": 3.5, "aten.add_": 2.4})
    assert list(estimate.by_op()) == ["aten.mm", "aten.add", "aten.add_"]
    whole = {"": 19.4, "a": 17.0}
    assert estimate.by_module(1) == pytest.approx(whole)
    assert estimate.by_module() == pytest.approx({**whole, "a.b": 13.5})
    assert estimate.bound == pytest.approx((12 / 19.4, 3.4 / 19.4, 4 / 19.4))


def test_one_kernel_is_bound_by_what_comes_in_and_stays():
    rows = (row("aten.add", calls=3, bytes_read=50, bytes_written=50),)
    assert make_roofline(Counted("", 0, rows, bytes_in=50, bytes_out=20), PLAIN).fused == 7.0
    # Tensors of which only a part is touched do not make it more than all that moves.
    assert make_roofline(Counted("", 0, rows, bytes_in=999, bytes_out=1), PLAIN).fused == 30.0


def test_nothing_ran():
    estimate = make_roofline(Counted("nothing", 0, ()), PLAIN)
    assert (estimate.seconds, estimate.unfused, estimate.fused) == (0, 0, 0)
    assert estimate.bound == (0, 0, 0)
    assert estimate.by_module() == {"": 0.0}
    assert "nothing" in estimate.table()


def test_the_table_tells_phases_bounds_and_binding():
    text = str(make_roofline(Counted("step", 0, ROWS, bytes_in=30, bytes_out=20), PLAIN))
    assert "step on a machine with round figures: 19.4 s" in text
    assert "recompute" not in text
    assert "54%" in text  # forward's share
    assert "compute 62%" in text
    assert "15.4 s operation by operation" in text
    assert "12 s as one kernel" in text


amounts = st.integers(0, 10**12)
works = st.builds(
    Work, flops=amounts, elementwise=amounts, bytes_read=amounts, bytes_written=amounts
)
names = st.sampled_from(["aten.mm", "aten.convolution", "aten.add", "aten.add_", "x.y", "gelu"])
dtypes = st.sampled_from(["float32", "bfloat16", "float16"])
some_rows = st.lists(
    st.builds(
        Row, st.sampled_from(Phase), st.sampled_from(["", "a", "a.b"]), names, dtypes,
        st.booleans(), works, st.integers(1, 1000),
    ),
    max_size=8,
)  # fmt: skip
paces = st.dictionaries(
    st.sampled_from(Kernel),
    st.builds(Pace, st.floats(0.01, 1.0), st.floats(0.1, 1e12), st.floats(0, 1.0)),
)


@given(rows=some_rows, paces=paces, into=amounts, out=amounts)
def test_bounds_are_in_order_and_parts_sum_up(rows, paces, into, out):
    machine = Machine(
        name="", title="", device="cpu", memory=None, flops={"float32": 1e9, "bfloat16": 3e9},
        bandwidth=1e8, op_seconds=1e-6, paces=paces,
    )  # fmt: skip
    counted = Counted("", 0, tuple(rows), bytes_in=into, bytes_out=out)
    estimate = make_roofline(counted, machine)
    slack = 1 + 1e-9
    assert 0 <= estimate.fused <= estimate.unfused * slack
    assert estimate.unfused <= estimate.seconds * slack
    for parts in (estimate.by_phase(), estimate.by_op()):
        assert math.isclose(sum(parts.values()), estimate.seconds, rel_tol=1e-9)
    assert math.isclose(estimate.by_module()[""], estimate.seconds, rel_tol=1e-9)
    assert math.isclose(sum(estimate.bound), float(bool(rows)), rel_tol=1e-9)


# --- steps that are bound by one thing -------------------------------------------------------


@pytest.fixture
def machine(tmp_path, monkeypatch):
    monkeypatch.setenv("SHOESTRING_CACHE", str(tmp_path))
    return load_machine()


def test_a_large_product_is_bound_by_compute(machine):
    # Without data, so that its size costs nothing here.
    left = torch.empty(4096, 4096, device="meta")
    with count() as c:
        left @ left
    bound = c.roofline(machine).bound
    assert bound.compute > 0.95


def test_copies_are_bound_by_memory(machine):
    large = torch.empty(2**24, device="meta")
    with count() as c:
        for _ in range(3):
            large.clone()
    assert c.roofline(machine).bound.memory > 0.95


def test_many_tiny_operations_are_bound_by_their_cost(machine):
    x = torch.ones(4)
    with count() as c:
        for _ in range(200):
            x = x * 0.5
    estimate = c.roofline(machine)
    assert estimate.bound.cost > 0.95
    assert estimate.seconds > 50 * estimate.unfused


def test_a_name_is_enough():
    layer = nn.Linear(256, 256)
    with count(layer) as c:
        layer(torch.ones(64, 256)).sum().backward()
    slow, fast = c.roofline("rtx-4090"), c.roofline("h200")
    assert (slow.machine.name, fast.machine.name) == ("rtx-4090", "h200")
    assert slow.unfused > fast.unfused
    assert slow.by_phase()["optimizer"] == 0
    assert slow.by_phase()["backward"] > 0
