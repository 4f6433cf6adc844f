"""Softmax with dropout: torch's numbers, values and gradients, from one copy and bits."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.nn import functional as F

from shoestring.activations.fewbit.softmax import attention_values, softmax_dropout
from tests.activations.fewbit.saved_bytes import saved_bytes
from tests.activations.same import assert_same

DTYPES = {torch.float32: 1e-6, torch.float64: 1e-14, torch.bfloat16: 1e-2, torch.float16: 1e-3}


def plain_values(scores: torch.Tensor, value: torch.Tensor, p: float) -> torch.Tensor:
    return F.dropout(F.softmax(scores, -1), p) @ value


def drawn(function: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(3)
    return function(), torch.rand(1)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("dim", [-1, 1])
def test_softmax_with_dropout_is_torchs(dtype: torch.dtype, p: float, dim: int) -> None:
    x = torch.randn(2, 5, 7).to(dtype).requires_grad_()
    (y, after), (expected, state) = (
        drawn(lambda: softmax_dropout(x, dim, p)),
        drawn(lambda: F.dropout(F.softmax(x, dim), p)),
    )
    assert torch.equal(y, expected)
    assert torch.equal(after, state)
    g = torch.randn(y.shape).to(dtype)
    assert torch.equal(torch.autograd.grad(y, x, g)[0], torch.autograd.grad(expected, x, g)[0])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("lead", [((2, 3), (2, 3)), ((2, 3), (2, 1)), ((), ()), ((3,), (2, 3))])
def test_the_values_it_weighs_are_torchs(
    dtype: torch.dtype, p: float, lead: tuple[tuple[int, ...], tuple[int, ...]]
) -> None:
    scores = torch.randn(*lead[0], 6, 9)
    scores = scores.masked_fill(scores > 1, -torch.inf).to(dtype).requires_grad_()
    value = torch.randn(*lead[1], 9, 4).to(dtype).requires_grad_()
    y, after = drawn(lambda: attention_values(scores, value, p))
    expected, state = drawn(lambda: plain_values(scores, value, p))
    assert torch.equal(y, expected)
    assert torch.equal(after, state)
    g = torch.randn(y.shape).to(dtype)
    got, of_torch = (torch.autograd.grad(each, (scores, value), g) for each in (y, expected))
    for one, other in zip(got, of_torch, strict=True):
        assert_same(one, other, DTYPES[dtype])


def test_what_is_kept() -> None:
    scores = torch.randn(2, 4, 64, 64, requires_grad=True)
    value = torch.randn(2, 4, 64, 8, requires_grad=True)
    n = scores.numel()
    assert saved_bytes(lambda: softmax_dropout(scores, -1, 0.1)) == 4 * n + n // 8
    kept = saved_bytes(lambda: attention_values(scores, value, 0.1))
    assert kept == 4 * n + n // 8 + value.nbytes
    assert saved_bytes(lambda: plain_values(scores, value, 0.1)) == 3 * 4 * n + value.nbytes
    assert saved_bytes(lambda: attention_values(scores, value, 0.0)) == 4 * n + value.nbytes


def test_a_gradient_that_nobody_needs_is_not_made() -> None:
    scores, value = torch.randn(6, 9), torch.randn(9, 4)
    for leaf in (scores, value):
        leaf.requires_grad_()
        y, _ = drawn(lambda: attention_values(scores, value, 0.3))
        expected, _ = drawn(lambda: plain_values(scores, value, 0.3))
        got, of_torch = (torch.autograd.grad(each.sum(), leaf)[0] for each in (y, expected))
        assert_same(got, of_torch, 1e-6)
        leaf.requires_grad_(False)


def test_a_value_that_was_changed_is_refused() -> None:
    scores, value = torch.randn(6, 9, requires_grad=True), torch.randn(9, 4)
    y = attention_values(scores, value, 0.3)
    value.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()
