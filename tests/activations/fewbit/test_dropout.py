"""Dropout with a mask of bits: torch's numbers, values and gradients, and an eighth of a byte."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from shoestring.activations.fewbit.dropout import Dropout, dropout, noise_of
from shoestring.kernels.codes import pack
from tests.activations.fewbit.saved_bytes import saved_bytes

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


@given(
    st.lists(st.integers(0, 7), min_size=0, max_size=4),
    st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.9, 1.0]),
    st.sampled_from(DTYPES),
    st.booleans(),
)
def test_all_is_torchs_bit_by_bit(
    sizes: list[int],
    p: float,
    dtype: torch.dtype,
    turned: bool,
) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(sizes, generator=generator).to(dtype)
    x = (x.movedim(0, -1) if turned and sizes else x).requires_grad_()
    found = []
    for call in (dropout, F.dropout):
        torch.manual_seed(7)
        y = call(x, p, True)
        (grad,) = torch.autograd.grad(y, x, torch.linspace(1, 2, y.numel()).view(y.shape).to(dtype))
        found.append((y, grad, torch.rand(1)))
    assert all(map(torch.equal, *found))


def test_values_that_are_not_finite_are_torchs() -> None:
    x = torch.tensor([torch.inf, -torch.inf, torch.nan, 1.0, -0.0] * 20, requires_grad=True)
    found = []
    for call in (dropout, F.dropout):
        torch.manual_seed(0)
        y = call(x, 0.5)
        y.backward(x.detach(), inputs=x)
        assert x.grad is not None
        found.append((y, x.grad))
        x.grad = None
    for got, expected in zip(*found, strict=True):
        assert torch.equal(got.nan_to_num(9), expected.nan_to_num(9))
        assert torch.equal(got.signbit(), expected.signbit())


@pytest.mark.parametrize("count", [1, 64, 65, 100_000])
def test_a_bit_an_element_is_kept(count: int) -> None:
    x = torch.randn(count, requires_grad=True)
    assert saved_bytes(lambda: dropout(x, 0.1)) == 8 * -(-count // 64)
    assert saved_bytes(lambda: F.dropout(x, 0.1)) == 4 * count  # torch's, on a CPU


def test_nothing_is_kept_or_drawn_without_training() -> None:
    layer, x = Dropout(0.5).eval(), torch.randn(9, requires_grad=True)
    before = torch.get_rng_state()
    assert layer(x) is x
    assert torch.equal(before, torch.get_rng_state())
    assert isinstance(layer, nn.Dropout)
    assert repr(layer) == repr(nn.Dropout(0.5))


def test_a_channels_last_gradient_meets_its_mask() -> None:
    x = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last).requires_grad_()
    torch.manual_seed(0)
    y = dropout(x, 0.5)
    (grad,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(grad != 0, y != 0)


def test_the_mask_elsewhere_is_a_product() -> None:
    packed = pack(torch.tensor([True, False, True]), 1)
    found = noise_of(packed, torch.empty(3), 0.3)
    assert torch.equal(found, torch.tensor([1.0, 0.0, 1.0]) / torch.tensor(0.7))


@pytest.mark.parametrize("p", [-0.1, 1.1])
def test_a_probability_out_of_range_is_refused(p: float) -> None:
    with pytest.raises(ValueError, match="probability"):
        Dropout(p)
    with pytest.raises(ValueError, match="probability"):
        dropout(torch.ones(2, requires_grad=True), p)
