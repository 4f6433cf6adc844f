"""Convolutions and their gradients against counts made in loops."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from shoestring.measure.formulas import Cost, op_cost
from tests.measure.formulas.counting import Counting, aten, cost_of
from tests.oracles import flops as oracle

floating = st.sampled_from([torch.float32, torch.float64, torch.bfloat16])


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


@given(case=convolutions(), mask=st.tuples(*[st.booleans()] * 3), dtype=floating)
def test_convolution_and_its_gradients(case, mask, dtype):
    batch, channels, groups, image, kernel, options, transposed = case
    expected = oracle.convolution(
        batch, channels, groups, image, kernel, options, transposed=transposed
    )
    inputs, outputs = channels
    sizes = (inputs, outputs // groups) if transposed else (outputs, inputs // groups)
    x = torch.ones(batch, inputs, *image, dtype=dtype)
    weight = torch.ones(*sizes, *kernel, dtype=dtype)
    strides, paddings, dilations = (list(o) for o in zip(*options, strict=True))
    rest = (strides, paddings, dilations, transposed, [0] * len(image), groups)
    y = aten.convolution.default(x, weight, None, *rest)
    assert cost_of(aten.convolution.default, x, weight, None, *rest) == Cost(
        expected, expected // 2, 0
    )
    bias = torch.ones(outputs, dtype=dtype)
    assert cost_of(aten.convolution.default, x, weight, bias, *rest).elementwise == y.numel()
    cost = cost_of(aten.convolution_backward.default, y, x, weight, [outputs], *rest, list(mask))
    assert cost.flops == expected * (mask[0] + mask[1])
    assert cost.elementwise == mask[2] * y.numel()


LAYERS = {
    1: (nn.Conv1d, nn.ConvTranspose1d),
    2: (nn.Conv2d, nn.ConvTranspose2d),
    3: (nn.Conv3d, nn.ConvTranspose3d),
}


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("groups", [1, 4, 16])
def test_backward_is_twice_forward_for_any_groups(rank, transposed, groups):
    layer = LAYERS[rank][transposed](16, 16, 3, padding=1, groups=groups)
    x = torch.randn(2, 16, *[4] * rank, requires_grad=True)
    expected = oracle.convolution(
        2, (16, 16), groups, [4] * rank, [3] * rank, [(1, 1, 1)] * rank, transposed=transposed
    )
    with Counting() as forward:
        y = layer(x)
    with Counting() as backward:
        y.sum().backward()
    assert forward.flops == expected
    assert backward.flops == 2 * expected


def test_the_rows_of_a_convolution_without_gradients_of_its_input():
    layer, x = nn.Conv2d(3, 4, 3), torch.randn(2, 3, 8, 8)
    with Counting() as forward:
        y = layer(x)
    with Counting() as backward:
        y.sum().backward()
    assert backward.flops == forward.flops > 0


NAMED = {
    "mkldnn_convolution": (2, False),
    "cudnn_convolution": (None, False),
    "miopen_convolution": (2, False),
    "miopen_depthwise_convolution": (2, False),
    "_slow_conv2d_forward": (3, False),
    "slow_conv_dilated2d": (3, False),
    "_conv_depthwise2d": (3, False),
    "cudnn_convolution_transpose": (None, True),
    "miopen_convolution_transpose": (2, True),
    "slow_conv_transpose2d": (3, True),
}


@pytest.mark.parametrize("name", NAMED)
def test_the_kernels_of_every_device(name):
    bias_at, transposed = NAMED[name]
    layer = (nn.ConvTranspose2d if transposed else nn.Conv2d)(4, 6, 3)
    x = torch.randn(2, 4, 5, 5)
    expected = oracle.convolution(
        2, (4, 6), 1, [5, 5], [3, 3], [(1, 0, 1)] * 2, transposed=transposed
    )
    y = layer(x)
    args = [x, layer.weight, [3, 3], None][: (bias_at or 2) + 1]
    if bias_at is not None:
        args[bias_at] = layer.bias
    cost = op_cost(getattr(aten, name).default, args, {}, y)
    assert cost == Cost(expected, expected // 2, 0 if bias_at is None else y.numel())


def test_time_first():
    x, weight, bias = torch.randn(7, 2, 3), torch.randn(3, 3, 5), torch.randn(5)
    expected = oracle.convolution(2, (3, 5), 1, [7], [3], [(1, 1, 1)], transposed=False)
    cost = cost_of(aten.conv_tbc.default, x, weight, bias, 1)
    assert cost == Cost(expected, expected // 2, 7 * 2 * 5)
    y = torch.conv_tbc(x, weight, bias, 1)
    assert cost_of(aten.conv_tbc_backward.default, y, x, weight, bias, 1).flops == 2 * expected


def test_complex_convolutions_are_three_real_ones():
    # Torch makes them so, by Gauss's trick; the formula sees the real ones.
    x, weight = (torch.randn(2, 3, 5, dtype=torch.complex64) for _ in range(2))
    with Counting() as counter:
        torch.nn.functional.conv1d(x, weight, padding=2)
    one = oracle.convolution(2, (3, 2), 1, [5], [5], [(1, 2, 1)], transposed=False)
    assert counter.flops == 3 * one
