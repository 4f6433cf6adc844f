"""Which operators are known, which are not, and how long it takes to say."""

from __future__ import annotations

import time

import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from shoestring.measure import formulas
from shoestring.measure.formulas import (
    Cost,
    algorithms,
    attention,
    convolutions,
    losses,
    movement,
    op_cost,
    optimizers,
    pointwise,
    pooling,
    primitives,
    products,
    recurrent,
    reductions,
    trilinear,
)
from shoestring.measure.tracing.step import StepOptions, forward_loss
from tests.measure.formulas.counting import Counting, aten, cost_of
from tests.zoo import ZOO, Case

FREE = Cost(0, 0, 0)


def test_what_has_no_formula_is_unknown_and_not_free():
    x = torch.ones(4, 4)
    assert op_cost(aten.einsum.default, ("ij,jk->ik", [x, x]), {}, x) is None
    assert op_cost(aten.layer_norm.default, (x, [4]), {}, x) is None  # made of others
    assert op_cost(aten._test_string_default.default, (x,), {}, x) is None

    @torch.library.custom_op("shoestring_tests::twice", mutates_args=())
    def twice(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    with Counting() as counter:
        twice(x)
    assert counter.unknown == {"shoestring_tests.twice.default": 1}
    assert counter.of() == FREE


def test_a_custom_operator_that_says_it_is_pointwise_is():
    library = torch.library.Library("shoestring_tests_tagged", "DEF")
    library.define("thrice(Tensor x) -> Tensor", tags=(torch.Tag.pointwise,))
    library.impl("thrice", lambda x: x * 3, "CompositeExplicitAutograd")
    func = torch.ops.shoestring_tests_tagged.thrice.default
    assert cost_of(func, torch.ones(2, 3)).elementwise == 6


def test_movement_is_free():
    x = torch.rand(4, 6)
    with Counting() as counter:
        y = torch.cat([x.t().contiguous(), torch.zeros(6, 2)], 1).to(torch.float64)[1:, ::2]
        y = nn.functional.pad(y, (1, 1)).repeat(2, 1).roll(1).flip(0).clone()
        y.copy_(torch.randn_like(y)).fill_(1.0).zero_()
        y.unsqueeze_(0).squeeze_(0).transpose_(0, 1)
        torch.gather(x, 1, torch.zeros(4, 2, dtype=torch.int64))
        x[torch.tensor([0, 1])], torch.embedding(x, torch.tensor([1])), x.tril(), x.unfold(1, 2, 1)
        torch.bernoulli(x), torch.stack([x, x]), torch.ops.aten.view_copy(x, [24]), x[0, 0].item()
        torch.real(torch.complex(x, x))
    assert counter.of() == FREE
    assert not counter.unknown
    assert len(counter.found) > 25


def test_each_operator_has_one_formula():
    tables = (
        pointwise.bitsandbytes(),
        products.PRODUCTS,
        convolutions.CONVOLUTIONS,
        attention.LAYERS,
        recurrent.RECURRENT,
        trilinear.TRILINEAR,
        algorithms.ALGORITHMS,
        reductions.SUMS,
        losses.LOSSES,
        losses.CONTRACTING_LOSSES,
        pooling.POOLING,
        optimizers.OPTIMIZERS,
        primitives.PRIMITIVES,
        {f"aten::{name}": 0 for name in pointwise.POINTWISE},
        {f"aten::{name}": 0 for name in reductions.REDUCTIONS},
        dict.fromkeys(movement.ADDED),
        dict.fromkeys(movement.MOVEMENT),
        dict.fromkeys(primitives.MOVED),
    )
    names = [name for table in tables for name in table]
    assert sorted(names) == sorted(set(names))
    assert len(names) > 700


def test_every_name_is_of_an_operator_of_torch():
    known = {name.partition(".")[0] for name in torch._C._dispatch_get_all_op_names()}
    full = set(torch._C._dispatch_get_all_op_names())
    names = [*formulas._FORMULAS, *movement.MOVEMENT]
    missing = [
        name
        for name in names
        if name.startswith("aten::")
        and name not in full
        and not {name, f"{name}_"} & known
        and not _exists(name)
    ]
    assert missing == []


def _exists(name: str) -> bool:
    packet, _, overload = name.removeprefix("aten::").partition(".")
    found = getattr(aten, packet, None)
    return found is not None and (not overload or overload in found.overloads())


@pytest.fixture(params=ZOO, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


OPTIMIZERS = {
    "loop": lambda p: torch.optim.AdamW(p, foreach=False),
    "lists": lambda p: torch.optim.AdamW(p, foreach=True, amsgrad=True),
    "fused": lambda p: torch.optim.AdamW(p, fused=True),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, foreach=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, foreach=True),
    "adafactor": lambda p: torch.optim.Adafactor(p, foreach=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, momentum=0.9, centered=True),
    "nadam": lambda p: torch.optim.NAdam(p, foreach=True),
}


def test_a_step_of_the_zoo_has_no_unknown_operator(case: Case):
    pytest.importorskip("transformers")
    model, batch = case.build(), case.batch(2)
    with Counting() as counter:
        loss, _ = forward_loss(model, batch, StepOptions(loss=case.loss))
        loss.backward()
    assert not counter.unknown
    assert counter.flops > 0
    for make in OPTIMIZERS.values():
        optimizer = make(list(model.parameters()))
        with Counting() as counter:
            optimizer.step()
        assert not counter.unknown
        assert counter.elementwise > 0
    model.eval()
    with torch.no_grad(), Counting() as counter:
        forward_loss(model, batch, StepOptions(loss=case.loss))
    assert not counter.unknown


def test_primitives_of_compiled_graphs():
    prims, x = torch.ops.prims, torch.rand(4, 6)
    assert cost_of(prims.add.default, x, x).elementwise == 24
    assert cost_of(prims.sum.default, x, [1]).elementwise == 24
    assert (
        cost_of(
            prims.iota.default,
            5,
            start=0,
            step=1,
            dtype=torch.int64,
            device=torch.device("cpu"),
            requires_grad=False,
        )
        == FREE
    )
    assert cost_of(prims.convert_element_type.default, x, torch.float64) == FREE
    assert cost_of(prims.broadcast_in_dim.default, x, [2, 4, 6], [1, 2]) == FREE
    z = x.to(torch.complex64)
    same = cost_of(aten._fft_c2c.default, z, [1], 0, True)
    assert cost_of(prims.fft_c2c.default, z, dim=[1], forward=True) == same
    names = [n for n in torch._C._dispatch_get_all_op_names() if n.startswith("prims::")]
    assert len(names) > 100
    unknown = []
    for name in names:
        packet, _, overload = name.removeprefix("prims::").partition(".")
        func = getattr(getattr(prims, packet), overload or "default")
        if formulas._find(func)[0] is formulas._unknown:
            unknown.append(name)
    assert unknown == []


def test_fake_meta_and_real_tensors_count_the_same():
    def step(device: str) -> Counting:
        with torch.device(device):
            model = nn.Sequential(
                nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.GELU(), nn.Flatten(), nn.Linear(16, 5)
            )
        optimizer = torch.optim.AdamW(model.parameters(), foreach=False)
        with Counting() as counter:
            torch.fft.rfft(model(torch.ones(2, 3, 4, 4, device=device))).abs().sum().backward()
            optimizer.step()
        assert not counter.unknown
        return counter

    real = step("cpu").of()
    assert step("meta").of() == real
    with FakeTensorMode():
        assert step("cpu").of() == real
    assert min(real) > 0


def test_a_call_is_priced_in_a_few_microseconds():
    calls = []

    class Recording(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            calls.append((func, args, kwargs or {}, out))
            return out

    model = nn.TransformerEncoderLayer(16, 2, 24, batch_first=True)
    optimizer = torch.optim.AdamW(model.parameters(), foreach=False)
    with Recording():
        model(torch.randn(2, 4, 16)).sum().backward()
        optimizer.step()
    best = 1.0
    for _ in range(30):
        start = time.perf_counter()
        for call in calls:
            op_cost(*call)
        best = min(best, time.perf_counter() - start)
    assert best / len(calls) < 2.5e-6
