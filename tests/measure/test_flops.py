"""FLOPs of single operators against counts made in loops."""

from __future__ import annotations

import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from shoestring.measure.flops import contracts, op_flops
from tests.oracles import flops as oracle

aten = torch.ops.aten
small = st.integers(1, 4)


class Counter(TorchDispatchMode):
    """Adds up the FLOPs of what runs, by operator."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, int] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        flops = op_flops(func, args, kwargs or {}, out)
        name = func.overloadpacket.__name__
        self.found[name] = self.found.get(name, 0) + flops
        return out

    @property
    def total(self) -> int:
        return sum(self.found.values())


def flops_of(func, *args, **kwargs) -> int:
    return op_flops(func, args, kwargs, func(*args, **kwargs))


@given(m=small, k=small, n=small, b=small)
def test_products(m, k, n, b):
    left, right = torch.ones(m, k), torch.ones(k, n)
    one = oracle.matmul(m, k, n)
    assert flops_of(aten.mm.default, left, right) == one
    assert flops_of(aten.mm.out, left, right, out=torch.empty(m, n)) == one
    assert flops_of(aten.addmm.default, torch.ones(n), left, right) == one
    assert flops_of(aten.addmm_.default, torch.ones(m, n), left, right) == one
    lefts, rights = torch.ones(b, m, k), torch.ones(b, k, n)
    assert flops_of(aten.bmm.default, lefts, rights) == b * one
    assert flops_of(aten.baddbmm.default, torch.ones(b, m, n), lefts, rights) == b * one
    assert flops_of(aten.addbmm.default, torch.ones(m, n), lefts, rights) == b * one
    vector = oracle.matmul(m, k, 1)
    assert flops_of(aten.mv.default, left, torch.ones(k)) == vector
    assert flops_of(aten.addmv.default, torch.ones(m), left, torch.ones(k)) == vector
    assert flops_of(aten.dot.default, torch.ones(k), torch.ones(k)) == oracle.matmul(1, k, 1)
    assert flops_of(aten.linear.default, lefts, torch.ones(n, k)) == b * one


def test_keyword_arguments_are_found():
    left, right = torch.ones(2, 3), torch.ones(3, 5)
    assert op_flops(aten.mm.default, (), {"self": left, "mat2": right}, None) == 60


def test_scaled_and_grouped_products():
    left, right = torch.ones(16, 32), torch.ones(32, 48)
    one = oracle.matmul(16, 32, 48)
    scale = torch.ones(())
    assert op_flops(aten._scaled_mm.default, (left, right, scale, scale), {}, None) == one
    experts = torch.ones(4, 32, 48)
    assert op_flops(aten._grouped_mm.default, (left, experts), {}, None) == one
    stacked = torch.ones(4, 16, 32)
    assert op_flops(aten._grouped_mm.default, (stacked, experts), {}, None) == 4 * one


@st.composite
def convolutions(draw):
    rank = draw(st.integers(1, 3))
    groups = draw(st.integers(1, 3))
    channels = (groups * draw(st.integers(1, 2)), groups * draw(st.integers(1, 2)))
    kernel = [draw(st.integers(1, 3)) for _ in range(rank)]
    options = [
        (draw(st.integers(1, 2)), draw(st.integers(0, 1)), draw(st.integers(1, 2)))
        for _ in range(rank)
    ]
    image = [draw(st.integers(5, 6)) for _ in range(rank)]
    return draw(st.integers(1, 2)), channels, groups, image, kernel, options, draw(st.booleans())


@given(case=convolutions(), mask=st.tuples(st.booleans(), st.booleans(), st.booleans()))
@settings(deadline=None)
def test_convolution_and_its_gradients(case, mask):
    batch, channels, groups, image, kernel, options, transposed = case
    expected = oracle.convolution(
        batch, channels, groups, image, kernel, options, transposed=transposed
    )
    inputs, outputs = channels
    sizes = (inputs, outputs // groups) if transposed else (outputs, inputs // groups)
    x, weight = torch.ones(batch, inputs, *image), torch.ones(*sizes, *kernel)
    strides, paddings, dilations = (list(o) for o in zip(*options, strict=True))
    rest = (strides, paddings, dilations, transposed, [0] * len(image), groups)
    y = aten.convolution.default(x, weight, None, *rest)
    assert op_flops(aten.convolution.default, (x, weight, None, *rest), {}, y) == expected
    wanted = flops_of(aten.convolution_backward.default, y, x, weight, [outputs], *rest, list(mask))
    assert wanted == expected * (mask[0] + mask[1])


@given(b=small, h=small, groups=small, tq=small, tk=small, dk=small, dv=small)
@settings(deadline=None)
def test_attention(b, h, groups, tq, tk, dk, dv):
    query = torch.ones(b, h * groups, tq, dk)
    key, value = torch.ones(b, h, tk, dk), torch.ones(b, h, tk, dv)  # grouped-query
    sizes = (b, h * groups, tq, tk, dk, dv)
    forward = oracle.attention(*sizes, backward=False)
    backward = oracle.attention(*sizes, backward=True)
    names = ("flash_attention_for_cpu", "flash_attention", "efficient_attention", "cudnn_attention")
    for name in names:
        func = getattr(aten, f"_scaled_dot_product_{name}").default
        back = getattr(aten, f"_scaled_dot_product_{name}_backward").default
        assert op_flops(func, (query, key, value), {}, None) == forward
        assert op_flops(func, (), {"query": query, "key": key, "value": value}, None) == forward
        assert op_flops(back, (query, query, key, value), {}, None) == backward
    if dk == dv:
        assert 2 * backward == 5 * forward
    time_first = [t.transpose(1, 2) for t in (query, key, value)]
    args = (*time_first, None, None, tq, tk, 0.0, False, False)
    assert op_flops(aten._flash_attention_forward.default, args, {}, None) == forward


def test_packed_attention_counts_the_longest():
    packed = torch.ones(10, 2, 4)  # three sequences, ten positions, two heads
    bounds = torch.tensor([0, 2, 5, 10])
    args = (packed, packed, packed, bounds, bounds, 5, 5, 0.0, False, False)
    expected = oracle.attention(3, 2, 5, 5, 4, 4, backward=False)
    assert op_flops(aten._flash_attention_forward.default, args, {}, None) == expected


@pytest.mark.parametrize(("layer", "gates"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
def test_recurrent_layers(layer, gates):
    time_steps, batch, inputs, hidden = 5, 3, 4, 6
    model, x = layer(inputs, hidden), torch.randn(time_steps, batch, inputs, requires_grad=True)
    expected = oracle.recurrent(time_steps, batch, inputs, hidden, gates)
    with Counter() as forward:
        loss = model(x)[0].sum()
    assert forward.total == expected
    with Counter() as backward:
        loss.backward()
    if layer is nn.LSTM:
        assert "mkldnn_rnn_layer" in forward.found
        assert backward.total == 2 * expected
    else:  # the first hidden state needs no gradient
        skipped = oracle.matmul(batch, gates * hidden, hidden)
        assert backward.total == 2 * expected - skipped


def test_bilinear():
    model = nn.Bilinear(3, 4, 5)
    x, z = torch.randn(2, 3), torch.randn(2, 4)
    with Counter() as counter:
        model(x, z)
    assert counter.total == oracle.trilinear(2, 5, 3, 4)
    assert op_flops(aten.bilinear.default, (x, z, model.weight), {}, None) == counter.total


@given(sizes=st.tuples(*[st.integers(2, 4)] * 3))  # a size of 1 becomes a mul
def test_einsum_arrives_as_products(sizes):
    b, i, j = sizes
    with Counter() as counter:
        torch.einsum("bi,ij->bj", torch.ones(b, i), torch.ones(i, j))
    assert counter.total == oracle.matmul(b, i, j)


def test_everything_else_is_free():
    x = torch.ones(4, 4)
    with Counter() as counter:
        y = torch.softmax(x + 1, -1).relu().sum() * 2
        nn.functional.embedding(torch.zeros(3, dtype=torch.long), x)
        nn.functional.layer_norm(x, (4,))
    assert y.numel() == 1
    assert counter.total == 0
    assert len(counter.found) >= 5
    assert not contracts(aten.embedding.default)
    assert contracts(aten.mm.default)


def test_fake_and_real_tensors_count_the_same():
    def step() -> int:
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 5))
        with Counter() as counter:
            model(torch.ones(2, 3, 4, 4)).sum().backward()
        return counter.total

    real = step()
    with FakeTensorMode():
        assert step() == real > 0


def test_equals_torch_on_a_transformer_layer():
    from torch.utils.flop_counter import FlopCounterMode

    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
    x = torch.randn(2, 5, 16, requires_grad=True)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as theirs:
        layer(x).sum().backward()
    with sdpa_kernel(SDPBackend.MATH), Counter() as math:
        layer(x).sum().backward()
    assert math.total == theirs.get_total_flops() > 0
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION), Counter() as flash:
        layer(x).sum().backward()
    # The fused kernel computes the scores once more in its backward.
    assert flash.total == math.total + 4 * oracle.matmul(5, 8, 5)
    assert "_scaled_dot_product_flash_attention_for_cpu_backward" in flash.found


def test_costs_about_a_microsecond():
    x = torch.ones(4, 4)
    for func, args, limit in ((aten.add.Tensor, (x, x), 3e-6), (aten.mm.default, (x, x), 10e-6)):
        best = 1.0
        for _ in range(20):
            start = time.perf_counter()
            for _ in range(500):
                op_flops(func, args, {}, x)
            best = min(best, (time.perf_counter() - start) / 500)
        assert best < limit
