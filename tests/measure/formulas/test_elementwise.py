"""Scalar operations against textbook formulas run on numbers that count."""

from __future__ import annotations

import importlib
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from shoestring.measure.formulas import Cost, op_cost
from tests.measure.formulas.counting import Counting, aten, cost_of
from tests.oracles import scalars
from tests.oracles.scalars import (
    Scalar,
    erf,
    exp,
    expm1,
    larger,
    log,
    log1p,
    operations,
    row,
    sigmoid,
    smaller,
    sqrt,
    tanh,
)

small = st.integers(1, 5)
floating = st.sampled_from([torch.float32, torch.float64, torch.bfloat16])

# What torch calls -> the formula for one element, as it stands in a book.
ONE = {
    F.relu: lambda x: larger(x, 0),
    torch.sigmoid: sigmoid,
    torch.tanh: tanh,
    torch.rsqrt: scalars.function(lambda v: v**-0.5),
    F.gelu: lambda x: x * 0.5 * (1 + erf(x * 0.7)),
    F.silu: lambda x: x * sigmoid(x),
    F.mish: lambda x: x * tanh(log1p(exp(x))),
    F.softplus: lambda x: log1p(exp(x * 2.0)) / 2.0,
    F.hardswish: lambda x: x * smaller(larger(x + 3, 0), 6) / 6,
    F.hardsigmoid: lambda x: smaller(larger(x + 3, 0), 6) / 6,
    F.elu: lambda x: x if x > 5 else expm1(x) * 1.0,
    F.leaky_relu: lambda x: x if x > 5 else x * 0.1,
    F.hardtanh: lambda x: smaller(larger(x, -1), 1),
    F.logsigmoid: lambda x: smaller(x, 0) - log1p(exp(-abs(x))),
}

TWO = {
    torch.add: lambda a, b: a + b,
    torch.sub: lambda a, b: a - b,
    torch.mul: lambda a, b: a * b,
    torch.div: lambda a, b: a / b,
    torch.maximum: larger,
    torch.gt: lambda a, b: a > b,
    torch.atan2: lambda a, b: scalars.function(math.atan)(a),  # a function of both at once
    torch.hypot: lambda a, b: sqrt(a * a + b * b),
}


@pytest.mark.parametrize("call", ONE, ids=lambda f: f.__name__)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_functions_of_one_number(call, dtype):
    x = torch.rand(3, 4, dtype=dtype)
    with Counting() as counter:
        call(x)
    assert counter.of() == Cost(0, 0, 12 * operations(ONE[call], Scalar(0.3)))


@pytest.mark.parametrize("call", TWO, ids=lambda f: f.__name__)
def test_functions_of_two_numbers(call):
    x, y = torch.rand(3, 1), torch.rand(4)  # broadcast
    with Counting() as counter:
        call(x, y)
    assert counter.elementwise == 12 * operations(TWO[call], Scalar(0.3), Scalar(0.4))


def test_the_gelu_by_tanh():
    def formula(x):
        return x * 0.5 * (1 + tanh((x + x * x * x * 0.04) * 0.8))

    cost = cost_of(aten.gelu.default, torch.rand(7), approximate="tanh")
    assert cost.elementwise == 7 * operations(formula, Scalar(0.3))


BACKWARD = {
    torch.sigmoid: lambda x, y, g: g * y * (1 - y),
    torch.tanh: lambda x, y, g: g * (1 - y * y),
    F.relu: lambda x, y, g: g if y > 0 else 0,
    F.gelu: lambda x, y, g: g * ((1 + erf(x * 0.7)) * 0.5 + x * (exp(x * x * -0.5) * 0.4)),
    F.silu: lambda x, y, g: g * sigmoid(x) * (1 + x * (1 - Scalar(0.6))),
    F.leaky_relu: lambda x, y, g: g if x > 5 else g * 0.1,
}


@pytest.mark.parametrize("call", BACKWARD, ids=lambda f: f.__name__)
def test_gradients_of_functions(call):
    x = torch.rand(3, 4, requires_grad=True)
    y = call(x)
    with Counting() as counter:
        y.backward(torch.ones_like(y))
    assert counter.elementwise == 12 * operations(BACKWARD[call], *row(3))


def test_factors_of_one_are_no_products():
    x = torch.ones(6)
    for func, args, plain in (
        (aten.add.Tensor, (x, x), 1),
        (aten.sub.Tensor, (x, x), 1),
        (aten.rsub.Scalar, (x, 2.0), 1),
    ):
        assert cost_of(func, *args).elementwise == 6 * plain
        assert cost_of(func, *args, alpha=2).elementwise == 6 * (plain + 1)
    for func in (aten.addcmul.default, aten.addcdiv.default):
        assert cost_of(func, x, x, x).elementwise == 6 * 2
        assert cost_of(func, x, x, x, value=0.5).elementwise == 6 * 3
    assert cost_of(aten.lerp.Scalar, x, x, 0.5).elementwise == 6 * 3
    assert cost_of(aten.clamp.default, x, 0).elementwise == 6
    assert cost_of(aten.clamp.default, x, 0, 1).elementwise == 6 * 2
    assert cost_of(aten.div.Tensor_mode, x, x, rounding_mode="floor").elementwise == 6 * 2
    assert cost_of(aten.addr.default, torch.ones(2, 3), x[:2], x[:3]).elementwise == 6 * 2


def test_only_floating_and_complex_numbers_count():
    i, x = torch.arange(6), torch.ones(6)
    for func, args in (
        (aten.add.Tensor, (i, i)),
        (aten.eq.Tensor, (i, i)),
        (aten.sum.default, (i,)),
    ):
        assert cost_of(func, *args) == Cost(0, 0, 0)
    assert cost_of(aten.logical_not.default, i > 2).elementwise == 0
    assert cost_of(aten.add.Tensor, i, x).elementwise == 6
    assert cost_of(aten.eq.Scalar, x, 1.0).elementwise == 6
    assert cost_of(aten.where.self, i > 2, x, x).elementwise == 6
    assert cost_of(aten.where.self, i > 2, i, i).elementwise == 0
    assert cost_of(aten.div.Tensor, i, i).elementwise == 6  # a floating quotient
    assert cost_of(aten.mean.default, i, dtype=torch.float32).elementwise == 6
    assert cost_of(aten.mul.Tensor, x.to(torch.complex64), x).elementwise == 6
    assert cost_of(aten.argmax.default, x).elementwise == 6


@given(rows=small, n=small, dtype=floating)
def test_softmax_and_its_like(rows, n, dtype):
    x = torch.rand(rows, n, dtype=dtype, requires_grad=True)
    with Counting() as counter:
        torch.softmax(x, -1).sum().backward()
        torch.log_softmax(x, -1).sum().backward()
        torch.logsumexp(x, -1)
    numbers = row(n)
    for name, formula, arguments in (
        ("_softmax", scalars.softmax, (numbers,)),
        ("_log_softmax", scalars.log_softmax, (numbers,)),
        ("_softmax_backward_data", scalars.softmax_backward, (numbers, numbers)),
        ("_log_softmax_backward_data", scalars.log_softmax_backward, (numbers, numbers)),
        ("logsumexp", scalars.logsumexp, (numbers,)),
    ):
        assert counter.of(name) == Cost(0, 0, rows * operations(formula, *arguments)), name


masks = st.tuples(st.booleans(), st.booleans(), st.booleans())


@given(rows=small, n=small, affine=st.tuples(st.booleans(), st.booleans()), wanted=masks)
def test_layer_norm(rows, n, affine, wanted):
    x, numbers = torch.rand(rows, n), row(n)
    weight, bias = (torch.ones(n) if given else None for given in affine)
    textbook = [numbers if given else None for given in affine]
    cost = cost_of(aten.native_layer_norm.default, x, [n], weight, bias, 1e-5)
    assert cost == Cost(0, 0, rows * operations(scalars.normalise, numbers, *textbook))
    wanted = (wanted[0], wanted[1] and affine[0], wanted[2] and affine[1])
    _, mean, scale = aten.native_layer_norm.default(x, [n], weight, bias, 1e-5)
    args = (x, x, [n], mean, scale, weight, bias, list(wanted))
    cost = cost_of(aten.native_layer_norm_backward.default, *args)
    expected = operations(scalars.normalise_backward, numbers, numbers, textbook[0], wanted)
    assert cost.elementwise == rows * expected


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_group_norm(groups):
    x = torch.rand(3, 4, 5, requires_grad=True)
    weight, bias = (torch.ones(4, requires_grad=True) for _ in range(2))
    with Counting() as counter:
        F.group_norm(x, groups, weight, bias).sum().backward()
    numbers = row(20 // groups)
    rows = 3 * groups
    forward = rows * operations(scalars.normalise, numbers, numbers, numbers)
    assert counter.of("native_group_norm").elementwise == forward
    backward = (scalars.normalise_backward, numbers, numbers, numbers, (True, True, True))
    assert counter.of("native_group_norm_backward").elementwise == rows * operations(*backward)


@given(batch=st.integers(2, 4), channels=small, wanted=masks)
def test_batch_norm(batch, channels, wanted):
    x, weight = torch.rand(batch, channels), torch.ones(channels)
    moments, numbers = (torch.zeros(channels), torch.ones(channels)), row(batch)
    forward = aten.native_batch_norm.default
    train = cost_of(forward, x, weight, weight, *moments, True, 0.1, 1e-5)
    textbook = operations(scalars.normalise, numbers, numbers, numbers)
    assert train == Cost(0, 0, channels * textbook)
    fixed = cost_of(forward, x, weight, weight, *moments, False, 0.1, 1e-5)
    assert fixed.elementwise == channels * batch * 4  # (x - mean) / std, weight, bias
    back = aten.native_batch_norm_backward.default
    args = (x, x, weight, *moments, torch.ones(channels), torch.ones(channels))
    cost = cost_of(back, *args, True, 1e-5, list(wanted))
    expected = operations(scalars.batch_norm_backward, numbers, numbers, wanted)
    assert cost.elementwise == channels * expected
    cost = cost_of(back, *args, False, 1e-5, [True, False, False])
    assert cost.elementwise == channels * batch


def test_rms_norm_by_its_fused_name():
    x, numbers = torch.rand(3, 7), row(7)
    for weight, textbook in ((None, None), (torch.ones(7), numbers)):
        cost = op_cost(aten._fused_rms_norm.default, (x, [7], weight, 1e-5), {}, (x, x))
        assert cost.elementwise == 3 * operations(scalars.rms_norm, numbers, textbook)


@given(rows=small, n=st.integers(2, 5))
def test_reductions(rows, n):
    x = torch.rand(rows, n)
    for call, formula in (
        (torch.sum, scalars.total),
        (torch.amax, scalars.largest),
        (torch.var, scalars.moments),
        (torch.linalg.vector_norm, lambda xs: scalars.total([v * v for v in xs])),
    ):
        with Counting() as counter:
            call(x, dim=-1)
        assert counter.elementwise == rows * operations(formula, row(n)), call
    assert cost_of(aten.cumsum.default, x, 1).elementwise == rows * n
    assert cost_of(aten.max.dim, x, 1).elementwise == rows * n
    assert cost_of(aten.max.other, x, x).elementwise == rows * n


def test_sorting_and_searching():
    x = torch.rand(3, 8)
    assert cost_of(aten.sort.default, x).elementwise == 3 * 8 * 3
    assert cost_of(aten.sort.default, x, 0).elementwise == 24 * 2
    assert cost_of(aten.sort.default, (x * 9).long()).elementwise == 0
    assert cost_of(aten.topk.default, x, 2).elementwise == 24
    borders = torch.arange(7.0)
    assert cost_of(aten.bucketize.Tensor, x, borders).elementwise == 24 * 3
    assert cost_of(aten._unique2.default, x).elementwise == 24 * 5


def smooth(d: Scalar) -> Scalar:
    return d - 0.5 if d > 1 else d * d / 2.0


LOSSES = {
    F.mse_loss: lambda x, y: (x - y) * (x - y),
    F.l1_loss: lambda x, y: abs(x - y),
    F.binary_cross_entropy: lambda x, y: -(y * log(x) + (1 - y) * log(1 - x)),
    F.binary_cross_entropy_with_logits: lambda x, y: (1 - y) * x - ONE[F.logsigmoid](x),
    F.smooth_l1_loss: lambda x, y: smooth(abs(x - y)),
    F.soft_margin_loss: lambda x, y: log1p(exp(-x * y)),
}


@pytest.mark.parametrize("loss", LOSSES, ids=lambda f: f.__name__)
def test_losses(loss):
    x, y = torch.rand(3, 4, requires_grad=True), torch.rand(3, 4)
    each = operations(LOSSES[loss], Scalar(0.3), Scalar(0.4))
    if loss is F.mse_loss:
        each -= 1  # the difference is taken once
    for reduction, more in (("none", 0), ("mean", 1), ("sum", 1)):
        with Counting() as counter:
            loss(x, y, reduction=reduction)
        assert counter.elementwise == 12 * (each + more)
    with Counting() as counter:
        loss(x, y).backward()
    assert counter.elementwise > 12 * (each + 1)


def test_cross_entropy():
    x, y = torch.rand(3, 5, requires_grad=True), torch.tensor([0, 1, 2])
    with Counting() as counter:
        F.cross_entropy(x, y).backward()
    assert counter.of("nll_loss_forward").elementwise == 3 * 2  # the sign, the sum
    assert counter.of("_log_softmax").elementwise == 3 * operations(scalars.log_softmax, row(5))
    importlib.import_module("torch.nn.modules.linear_cross_entropy")  # defines it
    chunked = torch.ops.torch_nn._linear_cross_entropy_batch_chunked.default
    args = (torch.ones(6, 4), torch.ones(5, 4), y, None, None, "mean", -100, 0.0, 2, "", None)
    for flags, products in (((False, False, False), 1), ((True, True, False), 3)):
        cost = op_cost(chunked, (*args, False, *flags), {}, None)
        assert cost.flops == products * 2 * 6 * 4 * 5 == 2 * cost.macs


@given(batch=small, channels=small, kernel=st.integers(1, 3), stride=st.integers(1, 2))
def test_pooling(batch, channels, kernel, stride):
    x = torch.rand(batch, channels, 6, 6, requires_grad=True)
    for call, name in (
        (F.avg_pool2d, "avg_pool2d"),
        (F.max_pool2d, "max_pool2d_with_indices"),
    ):
        with Counting() as counter:
            y = call(x, kernel, stride)
            y.sum().backward()
        # Every window is gone through once: a comparison each, or sums and the quotient.
        windows = sum(len(scalars.row(kernel * kernel)) for _ in range(y.numel()))
        assert counter.of(name) == Cost(0, 0, windows)
        back = windows + y.numel() if call is F.avg_pool2d else y.numel()
        assert counter.of(f"{name}_backward").elementwise == back


@given(n=st.integers(1, 9), o=st.integers(1, 9), m=st.integers(1, 5))
def test_adaptive_pooling(n, o, m):
    def lengths(size, outputs):
        return sum(
            math.ceil((i + 1) * size / outputs) - math.floor(i * size / outputs)
            for i in range(outputs)
        )

    x = torch.rand(2, 3, n, m)
    with Counting() as counter:
        F.adaptive_max_pool2d(x, (o, 2))
    assert counter.elementwise == 6 * lengths(n, o) * lengths(m, 2)
    assert cost_of(aten._adaptive_avg_pool2d.default, x, [o, 2]).elementwise == counter.elementwise


def test_interpolation_and_grids():
    x = torch.rand(2, 3, 4, 4, requires_grad=True)
    for mode, name, corners in (
        ("bilinear", "upsample_bilinear2d", 4),
        ("bicubic", "upsample_bicubic2d", 16),
        ("nearest", "upsample_nearest2d", 1),
    ):
        with Counting() as counter:
            y = F.interpolate(x, scale_factor=2, mode=mode)
            y.sum().backward()
        each = corners + corners - 1 if corners > 1 else 0
        assert counter.of(name).elementwise == each * y.numel()
        back = 2 * corners if corners > 1 else 1
        assert counter.of(f"{name}_backward").elementwise == back * y.numel()
    grid = torch.rand(2, 5, 5, 2, requires_grad=True)
    with Counting() as counter:
        F.grid_sample(x, grid, align_corners=False).sum().backward()
    assert counter.of("grid_sampler_2d").elementwise == 7 * 2 * 3 * 25
    assert counter.of("grid_sampler_2d_backward").elementwise == 2 * 4 * 3 * 2 * 3 * 25
    with Counting() as counter:
        F.interpolate(x, size=(2, 2), mode="bilinear", antialias=True).sum().backward()
    # Windows of 4 inputs (all there are), first along 4 lines of 2, then across them.
    assert counter.of("_upsample_bilinear2d_aa").elementwise == 6 * 2 * 4 * (4 * 2 + 2 * 2)


@given(
    bags=st.lists(st.integers(0, 4), min_size=1, max_size=4).filter(any),
    width=small,
    mode=st.sampled_from(["sum", "mean", "max"]),
    weighted=st.booleans(),
)
def test_embedding_bags(bags, width, mode, weighted):
    weighted = weighted and mode == "sum"
    table = torch.rand(10, width, requires_grad=True)
    indices = torch.arange(sum(bags)) % 10
    offsets = torch.tensor([sum(bags[:i]) for i in range(len(bags))])
    weights = torch.ones(sum(bags)) if weighted else None
    with Counting() as counter:
        y = F.embedding_bag(indices, table, offsets, mode=mode, per_sample_weights=weights)
        y.sum().backward()
    added = 0
    for size in bags:
        for _ in range(size * width):
            added += 2 if weighted else 1
    quotients = len(bags) * width if mode == "mean" else 0
    assert counter.flops == 0
    assert counter.of("_embedding_bag") == Cost(0, 0, added + quotients)
    back = counter.of("_embedding_bag_backward").elementwise
    expected = {"sum": added, "mean": 2 * added, "max": len(bags) * width}
    assert back == expected[mode]


def test_embeddings_and_sums_into_places():
    table = torch.rand(10, 3, requires_grad=True)
    with Counting() as counter:
        F.embedding(torch.tensor([[1, 2], [1, 1]]), table).sum().backward()
    assert counter.of("embedding") == Cost(0, 0, 0)
    assert counter.of("embedding_dense_backward").elementwise == 4 * 3
    x, index = torch.zeros(5, 3), torch.tensor([0, 0, 1])
    source = torch.ones(3, 3)
    assert cost_of(aten.index_add.default, x, 0, index, source).elementwise == 9
    assert cost_of(aten.index_put.default, x, [index], source, True).elementwise == 9
    assert cost_of(aten.index_put.default, x, [index], source).elementwise == 0
    assert cost_of(aten.scatter_add.default, x, 0, index[:, None], source[:, :1]).elementwise == 3
    assert cost_of(aten.scatter.src, x, 0, index[:, None], source[:, :1]).elementwise == 0
    scattered = cost_of(aten.scatter_reduce.two, x, 0, index[:, None], source[:, :1], "amax")
    assert scattered.elementwise == 3


def test_dropout():
    x = torch.rand(4, 5, requires_grad=True)
    with Counting() as counter:
        F.dropout(x, 0.5).sum().backward()
    # The draw is free; the mask is divided by 1 - p, and multiplied, there and back; one sum.
    assert counter.elementwise == 20 * (1 + 1 + 1 + 1)
    assert op_cost(aten.native_dropout.default, (x, 0.5, True), {}, (x, x)).elementwise == 40
