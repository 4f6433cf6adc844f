"""Attention kernels of every device against counts made pair by pair."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from shoestring.measure.formulas import Cost, op_cost
from shoestring.measure.formulas.attention import visible
from tests.measure.formulas.counting import Counting, aten
from tests.oracles import flops as oracle

small = st.integers(1, 4)
NAMES = (
    "flash_attention_for_cpu",
    "flash_attention",
    "efficient_attention",
    "cudnn_attention",
    "fused_attention_overrideable",
)


def priced(func, args, kwargs=None, causal="full") -> int:
    return op_cost(func, args, kwargs or {}, None, causal=causal).flops


@given(b=small, h=small, groups=small, tq=small, tk=small, dk=small, dv=small)
def test_every_kernel(b, h, groups, tq, tk, dk, dv):
    query = torch.ones(b, h * groups, tq, dk)
    key, value = torch.ones(b, h, tk, dk), torch.ones(b, h, tk, dv)  # grouped-query
    sizes = (b, h * groups, tq, tk, dk, dv)
    forward = oracle.attention(*sizes, backward=False)
    backward = oracle.attention(*sizes, backward=True)
    for name in NAMES:
        func = getattr(aten, f"_scaled_dot_product_{name}").default
        back = getattr(aten, f"_scaled_dot_product_{name}_backward").default
        assert priced(func, (query, key, value)) == forward
        assert priced(func, (), {"query": query, "key": key, "value": value}) == forward
        assert priced(back, (query, query, key, value)) == backward
    if dk == dv:
        assert 2 * backward == 5 * forward
    time_first = [t.transpose(1, 2) for t in (query, key, value)]
    args = (*time_first, None, None, tq, tk, 0.0, False, False)
    assert priced(aten._flash_attention_forward.default, args) == forward
    args = (*time_first, None, None, None, tq, tk, 0.0, 0, False)
    assert priced(aten._efficient_attention_forward.default, args) == forward


@given(tq=st.integers(1, 6), tk=st.integers(1, 6), backward=st.booleans())
def test_the_half_of_a_causal_kernel(tq, tk, backward):
    query, key = torch.ones(2, 3, tq, 4), torch.ones(2, 3, tk, 4)
    sizes = (2, 3, tq, tk, 4, 4)
    whole = oracle.attention(*sizes, backward=backward)
    first = oracle.attention(*sizes, backward=backward, causal="first")
    if backward:
        func = aten._scaled_dot_product_flash_attention_for_cpu_backward.default
        args = (query, query, key, key, query, query, 0.0)
    else:
        func = aten._scaled_dot_product_flash_attention_for_cpu.default
        args = (query, key, key, 0.0)
    assert priced(func, (*args, True)) == whole
    assert priced(func, (*args, True), causal="half") == first
    assert priced(func, (*args, False), causal="half") == whole
    last = oracle.attention(*sizes, backward=False, causal="last")
    assert oracle.matmul(6, 4, visible(tq, tk, bottom_right=True)) * 2 == last
    turned = [t.transpose(1, 2) for t in (query, key, key)]
    func = aten._efficient_attention_forward.default
    for mask_type, expected in ((1, "first"), (2, "last"), (0, None)):
        args = (*turned, None, None, None, tq, tk, 0.0, mask_type)
        half = oracle.attention(*sizes, backward=False, causal=expected)
        assert priced(func, args, causal="half") == half
    args = (*turned, None, None, tq, tk, 0.0, True, False)
    assert priced(aten._flash_attention_forward.default, args, causal="half") == last


def run(causal="full", *, heads=(4, 4), lengths=(5, 5), backward=True, **kwargs) -> Counting:
    """Attention on the CPU, as it arrives from the function of torch."""
    query = torch.randn(2, heads[0], lengths[0], 8, requires_grad=True)
    key, value = (torch.randn(2, heads[1], lengths[1], 8, requires_grad=True) for _ in range(2))
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION), Counting(causal) as counter:
        out = scaled_dot_product_attention(query, key, value, **kwargs)
        if backward:
            out.sum().backward()
    assert not counter.unknown
    return counter


def test_forward_and_backward_on_the_cpu():
    forward = oracle.attention(2, 4, 5, 5, 8, 8, backward=False)
    backward = oracle.attention(2, 4, 5, 5, 8, 8, backward=True)
    name = "_scaled_dot_product_flash_attention_for_cpu"
    counter = run()
    assert counter.found[name].flops == forward
    assert counter.found[f"{name}_backward"].flops == backward
    assert run(is_causal=True).flops == forward + backward
    halves = [oracle.attention(2, 4, 5, 5, 8, 8, backward=b, causal="first") for b in (False, True)]
    assert run("half", is_causal=True).flops == sum(halves)
    masked = run("half", attn_mask=torch.ones(5, 5).tril().bool())
    assert masked.flops == forward + backward  # what a mask hides is data
    assert masked.found[name].elementwise == counter.found[name].elementwise + 2 * 4 * 5 * 5


def test_unequal_lengths_and_grouped_heads_on_the_cpu():
    sizes = (2, 4, 3, 7, 8, 8)
    expected = sum(oracle.attention(*sizes, backward=b) for b in (False, True))
    assert run(lengths=(3, 7)).flops == expected
    grouped = run(heads=(4, 2), lengths=(3, 7), enable_gqa=True, backward=False)
    assert grouped.flops == oracle.attention(*sizes, backward=False)


def test_the_case_that_torch_counts_as_nothing():
    x = torch.zeros(1, 12, 64, 64)
    with Counting() as counter:
        scaled_dot_product_attention(x, x, x)
    assert counter.flops == 12_582_912 == oracle.attention(1, 12, 64, 64, 64, 64, backward=False)


def test_packed_attention_counts_the_longest():
    packed = torch.ones(10, 2, 4)  # three sequences, ten positions, two heads
    bounds = torch.tensor([0, 2, 5, 10])
    args = (packed, packed, packed, bounds, bounds, 5, 5, 0.0, False, False)
    expected = oracle.attention(3, 2, 5, 5, 4, 4, backward=False)
    assert priced(aten._flash_attention_forward.default, args) == expected


def test_scalar_operations_of_a_kernel():
    x = torch.ones(2, 3, 4, 5)
    scores, func = 2 * 3 * 4 * 4, aten._scaled_dot_product_flash_attention_for_cpu.default
    plain = op_cost(func, (x, x, x), {}, None)
    assert plain.elementwise == 6 * scores  # the scale and the softmax
    dropped = op_cost(func, (x, x, x, 0.1), {"attn_mask": torch.ones(4, 4)}, None)
    assert dropped.elementwise == 9 * scores
    assert dropped.flops == plain.flops == 2 * plain.macs


def hand_count(batch, time, width, hidden) -> int:
    rows = batch * time
    return (
        4 * oracle.matmul(rows, width, width)
        + oracle.attention(batch, 1, time, time, width, width, backward=False)
        + oracle.matmul(rows, width, hidden)
        + oracle.matmul(rows, hidden, width)
    )


@pytest.mark.parametrize("mode", ["train", "eval", "no_grad", "inference"])
def test_an_encoder_layer_in_every_mode(mode):
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True).train(mode == "train")
    x = torch.randn(2, 8, 32)
    grad = {"no_grad": torch.no_grad, "inference": torch.inference_mode}.get(
        mode, torch.enable_grad
    )
    with grad(), Counting() as counter:
        layer(x)
    assert counter.flops == 278_528 == hand_count(2, 8, 32, 64)
    fused = "_transformer_encoder_layer_fwd" in counter.found
    assert fused == (mode in ("no_grad", "inference"))


def test_the_fused_layer_does_what_the_parts_do():
    layer = nn.TransformerEncoderLayer(16, 2, 24, batch_first=True, activation="gelu").eval()
    x = torch.randn(3, 5, 16)
    with Counting() as parts:
        layer(x)
    with torch.no_grad(), Counting() as fused:
        layer(x)
    assert fused.of() == parts.of()


def test_fused_self_attention_and_nested_rows():
    layer = nn.MultiheadAttention(16, 2, batch_first=True).eval()
    x = torch.randn(3, 5, 16)
    with Counting() as parts:
        layer(x, x, x, need_weights=False)
    with torch.no_grad(), Counting() as fused:
        layer(x, x, x, need_weights=False)
    assert list(fused.found) == ["_native_multi_head_attention"]
    assert fused.flops == parts.flops


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_nested_rows_count_their_own_lengths():
    layer = nn.TransformerEncoderLayer(16, 2, 24, batch_first=True).eval()
    lengths = (5, 2, 3)
    x = torch.nested.nested_tensor([torch.randn(n, 16) for n in lengths])
    with torch.no_grad(), Counting() as counter:
        layer(x)
    assert counter.flops == sum(hand_count(1, n, 16, 24) for n in lengths)


def test_equals_torch_on_a_transformer_layer():
    from torch.utils.flop_counter import FlopCounterMode

    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
    x = torch.randn(2, 5, 16, requires_grad=True)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as theirs:
        layer(x).sum().backward()
    with sdpa_kernel(SDPBackend.MATH), Counting() as math:
        layer(x).sum().backward()
    assert math.flops == theirs.get_total_flops() > 0
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION), Counting() as flash:
        layer(x).sum().backward()
    # The fused kernel computes the scores once more in its backward.
    assert flash.flops == math.flops + 4 * oracle.matmul(5, 8, 5)
    assert "_scaled_dot_product_flash_attention_for_cpu_backward" in flash.found


def test_flexible_attention_by_its_name():
    x = torch.ones(2, 3, 4, 5)
    flex = torch.ops.higher_order.flex_attention
    expected = oracle.attention(2, 3, 4, 4, 5, 5, backward=False)
    assert op_cost(flex, (x, x, x), {}, None) == Cost(expected, expected // 2, 6 * 2 * 3 * 4 * 4)
    back = oracle.attention(2, 3, 4, 4, 5, 5, backward=True)
    assert priced(torch.ops.higher_order.flex_attention_backward, (x, x, x)) == back
    assert op_cost(torch.ops.higher_order.cond, (), {}, None) is None
