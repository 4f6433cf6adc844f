"""Matrix products of every kind against counts made in loops."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from shoestring.measure.formulas import Cost, contracts, op_cost
from tests.measure.formulas.counting import Counting, aten, cost_of, flops_of
from tests.oracles import flops as oracle

small = st.integers(1, 4)
dtypes = st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.int64])
any_dtype = st.one_of(dtypes, st.just(torch.complex64))


@given(m=small, k=small, n=small, b=small, dtype=any_dtype)
def test_products(m, k, n, b, dtype):
    def ones(*sizes):
        return torch.ones(*sizes, dtype=dtype)

    times = 4 if dtype.is_complex else 1
    left, right = ones(m, k), ones(k, n)
    one = times * oracle.matmul(m, k, n)
    assert cost_of(aten.mm.default, left, right) == Cost(one, one // 2, 0)
    assert flops_of(aten.mm.out, left, right, out=ones(m, n)) == one
    assert flops_of(aten.addmm.default, ones(n), left, right) == one
    assert flops_of(aten.addmm_.default, ones(m, n), left, right) == one
    assert flops_of(aten.matmul.default, left, right) == one
    lefts, rights = ones(b, m, k), ones(b, k, n)
    assert flops_of(aten.bmm.default, lefts, rights) == b * one
    assert flops_of(aten.matmul.default, lefts, right) == b * one
    assert flops_of(aten.baddbmm.default, ones(b, m, n), lefts, rights) == b * one
    assert flops_of(aten.addbmm.default, ones(m, n), lefts, rights) == b * one
    vector = times * oracle.matmul(m, k, 1)
    assert flops_of(aten.mv.default, left, ones(k)) == vector
    assert flops_of(aten.addmv.default, ones(m), left, ones(k)) == vector
    assert flops_of(aten.dot.default, ones(k), ones(k)) == times * oracle.matmul(1, k, 1)
    assert flops_of(aten.linear.default, lefts, ones(n, k)) == b * one


@given(m=small, k=small, n=small, beta=st.sampled_from([0, 1, 2]), alpha=st.sampled_from([1, 3]))
def test_what_is_added_to_a_product_is_elementwise(m, k, n, beta, alpha):
    cost = cost_of(
        aten.addmm.default, torch.ones(m, n), torch.ones(m, k), torch.ones(k, n),
        beta=beta, alpha=alpha,
    )  # fmt: skip
    each = {0: 0, 1: 1, 2: 2}[beta] + (alpha != 1)
    assert cost == Cost(oracle.matmul(m, k, n), oracle.matmul(m, k, n) // 2, each * m * n)
    integers = [torch.ones(*sizes, dtype=torch.int64) for sizes in ((m, n), (m, k), (k, n))]
    assert cost_of(aten.addmm.default, *integers, beta=beta, alpha=alpha).elementwise == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.complex64])
def test_a_linear_layer_costs_twice_as_much_backward(dtype):
    layer = nn.Linear(5, 7, dtype=dtype)
    x = torch.ones(3, 4, 5, dtype=dtype, requires_grad=True)
    expected = oracle.matmul(12, 5, 7) * (4 if dtype.is_complex else 1)
    with Counting() as forward:
        y = layer(x)
    with Counting() as backward:
        y.backward(torch.ones_like(y))
    assert (forward.flops, backward.flops) == (expected, 2 * expected)
    assert forward.elementwise == 12 * 7  # the bias
    assert backward.elementwise == 12 * 7  # its gradient


@given(sizes=st.tuples(*[st.integers(2, 4)] * 3))  # a size of 1 becomes a mul
def test_einsum_arrives_as_products(sizes):
    b, i, j = sizes
    left, right = torch.ones(b, i, requires_grad=True), torch.ones(i, j, requires_grad=True)
    with Counting() as forward:
        y = torch.einsum("bi,ij->bj", left, right)
    with Counting() as backward:
        y.backward(torch.ones_like(y))
    assert forward.flops == oracle.matmul(b, i, j)
    assert backward.flops == 2 * forward.flops


def test_keyword_arguments_are_found():
    left, right = torch.ones(2, 3), torch.ones(3, 5)
    assert op_cost(aten.mm.default, (), {"self": left, "mat2": right}, None) == Cost(60, 30, 0)
    assert op_cost(aten.mm.default, (left,), {"mat2": right}, None) == Cost(60, 30, 0)
    kwargs = {"weight": torch.ones(5, 3), "bias": torch.ones(5), "input": left}
    out = torch.ones(2, 5)
    assert op_cost(aten.linear.default, (), kwargs, out) == Cost(60, 30, 10)
    del kwargs["bias"]
    assert op_cost(aten.linear.default, (), kwargs, out) == Cost(60, 30, 0)


def test_scaled_grouped_and_few_bit_products():
    left, right = torch.ones(16, 32), torch.ones(32, 48)
    one, out, scale = oracle.matmul(16, 32, 48), torch.ones(16, 48), torch.ones(())
    assert op_cost(aten._scaled_mm.default, (left, right, scale, scale), {}, out).flops == one
    experts = torch.ones(4, 32, 48)
    assert op_cost(aten._grouped_mm.default, (left, experts), {}, out).flops == one
    scaled = (left, experts, scale, scale)
    assert op_cost(aten._scaled_grouped_mm.default, scaled, {}, out).flops == one
    stacked = torch.ones(4, 16, 32)
    assert op_cost(aten._grouped_mm.default, (stacked, experts), {}, out).flops == 4 * one
    bytes_left, bytes_right = left.to(torch.int8), right.to(torch.int8)
    assert cost_of(aten._int_mm.default, bytes_left, bytes_right) == Cost(one, one // 2, 0)
    weight = bytes_right.t().contiguous()
    args = (left.bfloat16(), weight, torch.ones(48, dtype=torch.bfloat16))
    assert flops_of(aten._weight_int8pack_mm.default, *args) == one


def test_products_of_bitsandbytes():
    pytest.importorskip("bitsandbytes")
    ops = torch.ops.bitsandbytes
    left, right = torch.ones(6, 8, dtype=torch.int8), torch.ones(5, 8, dtype=torch.int8)
    one = oracle.matmul(6, 8, 5)
    assert flops_of(ops.int8_linear_matmul.default, left, right) == one
    args = (torch.ones(1, 8), torch.ones(20, 1, dtype=torch.uint8), [5, 8])
    cost = op_cost(ops.gemv_4bit.default, args, {}, torch.ones(1, 5))
    assert cost == Cost(oracle.matmul(1, 8, 5), oracle.matmul(1, 8, 5) // 2, 40)


@given(
    stored=st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=1, max_size=5),
    n=small,
    complex_numbers=st.booleans(),
    layout=st.sampled_from([torch.sparse_coo, torch.sparse_csr, torch.sparse_csc]),
)
@pytest.mark.filterwarnings("ignore:Sparse")
def test_sparse_products(stored, n, complex_numbers, layout):
    dtype = torch.complex64 if complex_numbers else torch.float32
    dense = torch.tensor(stored).to(dtype)
    sparse, right = dense.to_sparse(layout=layout), torch.ones(4, n, dtype=dtype)
    expected = oracle.sparse_matmul(stored, n) * (4 if complex_numbers else 1)
    with Counting() as plain:
        sparse @ right
    assert plain.of("mm").flops == expected
    with Counting() as added:
        torch.addmm(torch.zeros(len(stored), n, dtype=dtype), sparse, right)
    assert added.of("addmm") == Cost(expected, expected // 2, len(stored) * n)


@pytest.mark.filterwarnings("ignore:Sparse")
def test_sparse_gradients_blocks_and_sparse_by_sparse():
    stored = [[True, False, True], [False, True, False]]
    sparse = torch.tensor(stored).float().to_sparse().requires_grad_()
    right = torch.ones(3, 5, requires_grad=True)
    with Counting() as counter:
        torch.sparse.mm(sparse, right).sum().backward()
    # Forward, the gradient of the dense factor, and a dense product that is masked.
    once, dense = oracle.sparse_matmul(stored, 5), oracle.matmul(2, 5, 3)
    assert counter.of("_sparse_addmm").flops == once
    assert counter.of("mm").flops == once + dense
    blocks = torch.ones(4, 6).to_sparse_bsr((2, 2))
    assert flops_of(aten.mm.default, blocks, torch.ones(6, 2)) == oracle.matmul(4, 6, 2)
    evenly = [[i == j or i == (j + 1) % 4 for j in range(4)] for i in range(4)]
    matrix = torch.tensor(evenly).float().to_sparse()
    expected = oracle.sparse_by_sparse(evenly, evenly)
    assert flops_of(aten._sparse_sparse_matmul.default, matrix, matrix) == expected


@given(rows=small, outputs=small, first=small, second=small)
def test_bilinear(rows, outputs, first, second):
    model = nn.Bilinear(first, second, outputs)
    x, z = torch.randn(rows, first), torch.randn(rows, second)
    with Counting() as counter:
        model(x, z)
    assert counter.flops == oracle.trilinear(rows, outputs, first, second)
    assert counter.elementwise == rows * outputs
    assert cost_of(aten.bilinear.default, x, z, model.weight).flops == counter.flops


def test_what_contracts():
    yes = (aten.mm.default, aten.baddbmm_.default, aten.convolution.default, aten._fft_c2c.out)
    assert all(map(contracts, yes))
    assert contracts(aten._scaled_dot_product_flash_attention_for_cpu_backward.default)
    no = (aten.embedding.default, aten.add.Tensor, aten.view.default, aten.einsum.default)
    assert not any(map(contracts, no))
