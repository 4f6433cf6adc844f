"""Gated units: torch's bits in forward and backward, from the two inputs alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.nn import functional as F

from shoestring.activations.fewbit.glu import GEGLU, ReGLU, SwiGLU, glu
from shoestring.core.errors import InputError
from tests.activations.fewbit.saved_bytes import saved_bytes

Act = Callable[[torch.Tensor], torch.Tensor]
ACTS: dict[str, Act] = {
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda a: F.gelu(a, approximate="tanh"),
    "relu": torch.relu,
}
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def pair(dtype: torch.dtype, count: int = 1000) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    a, b = (3 * torch.randn(2, count, generator=generator, dtype=torch.float64)).to(dtype)
    a[:5] = torch.tensor([0.0, -0.0, 200.0, -200.0, torch.inf])
    return a.requires_grad_(), b.requires_grad_()


@pytest.mark.parametrize("name", ACTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_values_and_gradients_are_torchs_bits(name: str, dtype: torch.dtype) -> None:
    a, b = pair(dtype)
    g = torch.linspace(-1, 2, len(a)).to(dtype)
    y, expected = glu(a, b, name), ACTS[name](a) * b
    got, of_torch = ([each, *torch.autograd.grad(each, (a, b), g)] for each in (y, expected))
    for one, other in zip(got, of_torch, strict=True):
        assert torch.equal(one.nan_to_num(7), other.nan_to_num(7))


@pytest.mark.parametrize("name", ACTS)
def test_second_derivatives(name: str) -> None:
    a, b = (t.detach()[5:25].requires_grad_() for t in pair(torch.float64))
    assert torch.autograd.gradcheck(lambda a, b: glu(a, b, name), (a, b))
    assert torch.autograd.gradgradcheck(lambda a, b: glu(a, b, name), (a, b))


@pytest.mark.parametrize("name", ACTS)
def test_the_two_inputs_alone_are_kept(name: str) -> None:
    a, b = pair(torch.float32)
    assert saved_bytes(lambda: glu(a * 1, b * 1, name)) == 2 * 4 * len(a)
    both = torch.randn(30, 200, requires_grad=True)
    halves = saved_bytes(lambda: glu(*(both * 1).chunk(2, -1), name))
    assert halves == 4 * both.numel()

    def of_torch() -> torch.Tensor:
        a, b = (both * 1).chunk(2, -1)
        return ACTS[name](a) * b

    plain = saved_bytes(of_torch)
    assert plain == halves + 2 * both.numel()  # the activation's result, too


def test_a_gradient_that_nobody_needs_is_not_made() -> None:
    a, b = pair(torch.float32)
    for given in ((a, b.detach()), (a.detach(), b)):
        y = glu(*given, "silu")
        expected = F.silu(given[0]) * given[1]
        leaf = next(t for t in given if t.requires_grad)
        got, of_torch = (torch.autograd.grad(each.sum(), leaf)[0] for each in (y, expected))
        assert torch.equal(got.nan_to_num(7), of_torch.nan_to_num(7))


@pytest.mark.parametrize(("make", "name"), [(SwiGLU, "silu"), (GEGLU, "gelu"), (ReGLU, "relu")])
@pytest.mark.parametrize("dim", [-1, 1])
def test_modules_split_their_input(make: type[SwiGLU | GEGLU | ReGLU], name: str, dim: int) -> None:
    x = torch.randn(3, 4, 6)
    first, second = x.chunk(2, dim)
    assert torch.equal(make(dim)(x), first * ACTS[name](second))
    assert torch.equal(make(dim, gate_first=True)(x), ACTS[name](first) * second)


def test_bad_input_is_refused() -> None:
    a = torch.ones(4)
    with pytest.raises(InputError, match="no gate called 'tanh'"):
        glu(a, a, "tanh")
    with pytest.raises(InputError, match="differ"):
        glu(a, torch.ones(1), "relu")
    with pytest.raises(InputError, match="differ"):
        glu(a, a.double(), "relu")
    with pytest.raises(InputError, match="5 columns along dimension -1 have no halves"):
        SwiGLU()(torch.ones(5))
