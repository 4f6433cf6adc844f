"""Products of signs are added and settled at once, with the bits of one thing after the other."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from shoestring.kernels import outer, streams_native
from shoestring.kernels.outer import add_outer_
from shoestring.kernels.streams import signs


def added(x: torch.Tensor, u: torch.Tensor, v: torch.Tensor, scale: float, radius: float) -> None:
    """Do it entry by entry, in the matrix's own dtype."""
    for i in range(x.size(0)):
        for j in range(x.size(1)):
            x[i, j] += scale * u[i] * v[j]
            outward = radius if x[i, j] >= 0 else -radius
            x[i, j] = (x[i, j] + outward) - outward


def drawn(rows: int, cols: int, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(rows)
    x = torch.randn(rows, cols, generator=generator, dtype=dtype)
    return x, signs(1, rows, dtype=dtype), signs(2, cols, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@given(
    rows=st.integers(0, 7),
    cols=st.integers(0, 9),
    scale=st.sampled_from([0.5, -1e-3, 3.0]),
    radius=st.sampled_from([0.0, 0.125, 3.0]),
)
def test_both_forms_do_what_the_oracle_does(
    dtype: torch.dtype, rows: int, cols: int, scale: float, radius: float
) -> None:
    x, u, v = drawn(rows, cols, dtype)
    expected, native, eager = x.clone(), x.clone(), x.t().contiguous().t()
    added(expected, u, v, torch.tensor(scale, dtype=dtype).item(), radius)
    add_outer_(native, u, v, scale, radius=radius)
    assert torch.equal(native, expected)
    add_outer_(eager, u, v, scale, radius=radius)
    assert torch.equal(eager, expected)


def test_without_numba_the_bits_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    x, u, v = drawn(70, 90, torch.float32)
    native, eager = x.clone(), x.clone()
    add_outer_(native, u, v, 1e-3, radius=0.125)
    monkeypatch.setattr(outer, "_loops", lambda: None)
    add_outer_(eager, u, v, 1e-3, radius=0.125)
    assert torch.equal(native, eager)


def test_how_the_work_is_shared_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x, u, v = drawn(7, 90, torch.float32)
    alone, shared = x.clone(), x.clone()
    add_outer_(alone, u, v, 0.5, radius=0.125)
    monkeypatch.setattr(streams_native, "PARALLEL", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    add_outer_(shared, u, v, 0.5, radius=0.125)
    assert torch.equal(alone, shared)


def test_autograd_notices() -> None:
    x, u, v = drawn(3, 4, torch.float32)
    before = x._version
    add_outer_(x, u, v, 0.5, radius=0.125)
    assert x._version > before
