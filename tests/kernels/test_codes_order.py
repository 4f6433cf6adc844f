"""A function's values and codes, in whatever order the memory lies, and from whatever thread."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from shoestring.kernels import codes, streams_native
from shoestring.kernels.codes import (
    Encoder,
    activate,
    encode,
    multiply,
    order_of,
    pack,
    packed_size,
    unpack,
)

GELU = Encoder([-2.415516, -0.710125, -0.325949, 0, 0.325949, 0.710125, 2.415516], range(8), bits=3)
LEVELS = [-0.000194, -0.088314, 0.125616, 0.372231, 0.627769, 0.874384, 1.088314, 1.000194]
gelu = torch.ops.aten.gelu.out
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
LAYOUTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "row by row": lambda x: x,
    "channels last": lambda x: x.to(memory_format=torch.channels_last),
    "transposed": lambda x: x.transpose(1, 3),
    "one row": lambda x: x[:1].permute(3, 0, 1, 2),
    "every other": lambda x: x[:, :, ::2],
    "expanded": lambda x: x[:, :1].expand(-1, 5, -1, -1),
    "one element": lambda x: x[0, 0, 0, 0],
}


def drawn(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_values_and_gradients_in_every_layout(layout: str, dtype: torch.dtype) -> None:
    x = LAYOUTS[layout](drawn(2, 3, 8, 7, dtype=dtype))
    grad = torch.empty_like(x).copy_(drawn(*x.shape, dtype=dtype, seed=1))
    y, packed = activate(x, gelu, GELU, order=order_of(x))
    by_memory = order_of(x) or tuple(range(x.dim()))
    rows = x.permute(by_memory).contiguous()  # of other strides torch itself rounds otherwise
    assert torch.equal(y.permute(by_memory), torch.nn.functional.gelu(rows))
    torch.testing.assert_close(y, torch.nn.functional.gelu(x))
    assert torch.equal(packed, encode(x, GELU, order=order_of(x)))
    by_rows = encode(x, GELU)
    names = unpack(by_rows, 3, x.numel()).view(x.shape).int()
    wide = torch.float64 if dtype is torch.float64 else torch.float32
    expected = (torch.tensor(LEVELS, dtype=wide)[names] * grad).to(dtype)
    assert torch.equal(multiply(grad, by_rows, LEVELS), expected)
    found = multiply(grad, packed, LEVELS, order=order_of(x))
    assert torch.equal(found, expected)
    assert torch.equal(multiply(grad.contiguous(), packed, LEVELS, order=order_of(x)), expected)
    if order_of(x):
        assert found.stride() == y.stride() == x.stride()


@given(
    sizes=st.lists(st.integers(1, 3), max_size=4),
    order=st.permutations(range(4)),
    step=st.integers(1, 2),
)
def test_an_order_makes_a_dense_tensor_contiguous(
    sizes: list[int], order: list[int], step: int
) -> None:
    kept = [d for d in order if d < len(sizes)]
    x = torch.zeros([step * size for size in sizes]).permute(kept)
    x = x[tuple(slice(None, None, step) for _ in sizes)]
    found = order_of(x)
    dense = torch.empty_like(x).stride() == x.stride()
    assert x.is_contiguous() or (found is not None) == dense
    if found is not None:
        assert x.permute(found).is_contiguous()


def test_nothing_dense_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    x = drawn(2, 3, 8, 7).to(memory_format=torch.channels_last)
    seen: list[int] = []

    def kept(part: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        seen.append(part.data_ptr())
        return gelu(part, out=out)

    monkeypatch.setattr(codes, "CHUNK", 2**20)
    activate(x, kept, GELU, order=order_of(x))
    assert seen == [x.data_ptr()]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("count", [0, 1, 128, 1000, 1025])
def test_chunks_change_nothing(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, count: int
) -> None:
    x = drawn(count, dtype=dtype)
    expected, calls = encode(x, GELU), []
    monkeypatch.setattr(codes, "CHUNK", 128)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)

    def selu(part: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        calls.append((len(part), len(out), torch.is_grad_enabled()))
        return torch.selu(part)

    y, packed = activate(x.requires_grad_(), selu, GELU)
    assert torch.equal(y, torch.selu(x.detach()))
    assert torch.equal(packed, expected)
    full, rest = max(count // 128, 1), count % 128 if count > 128 else count - 128
    sizes = [128] * (full - 1) + [128 + rest] if count else []
    assert calls == [(size, size, False) for size in sizes]
    assert not y.requires_grad


def test_results_go_where_they_are_wanted() -> None:
    x, grad = drawn(5, 77), drawn(5, 77, seed=1)
    y, packed = activate(x, gelu, GELU)
    expected = multiply(grad, packed, LEVELS)
    place, codes_place = torch.empty(5, 77), torch.empty_like(packed)
    versions = place._version, codes_place._version
    assert activate(x, gelu, GELU, out=(place, codes_place)) == (place, codes_place)
    assert torch.equal(place, y)
    assert torch.equal(codes_place, packed)
    assert place._version > versions[0]
    assert codes_place._version > versions[1]
    assert multiply(grad, packed, LEVELS, out=place) is place
    assert torch.equal(place, expected)
    before = codes_place._version
    assert torch.equal(encode(x, GELU, out=codes_place.zero_()), packed)
    assert codes_place._version > before + 1


def test_in_place_is_the_same() -> None:
    x, grad = drawn(700), drawn(700, seed=1)
    y, packed = activate(x, gelu, GELU)
    expected = multiply(grad, packed, LEVELS)
    own, found = activate(x, gelu, GELU, out=(x, torch.empty_like(packed)))
    assert own is x
    assert torch.equal(x, y)
    assert torch.equal(found, packed)
    assert torch.equal(multiply(grad, packed, LEVELS, out=grad), expected)


def everything(seed: int) -> list[torch.Tensor]:
    x = drawn(3000, seed=seed)
    y, packed = activate(x, gelu, GELU)
    names = unpack(packed, 3, 3000)
    return [y, packed, multiply(x, packed, LEVELS), names, pack(names, 3)]


def test_how_the_work_is_shared_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = everything(0)
    monkeypatch.setattr(streams_native, "PARALLEL", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert all(map(torch.equal, everything(0), alone))


def test_several_threads_may_call_at_once() -> None:
    alone = [everything(seed) for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        for found, expected in zip(pool.map(everything, range(8)), alone, strict=True):
            assert all(map(torch.equal, found, expected))


def _child(pipe: Connection, seed: int) -> None:
    torch.set_num_threads(1)
    pipe.send([tensor.numpy().tobytes() for tensor in everything(seed)])


@pytest.mark.skipif(sys.platform != "linux", reason="forks are for Linux")
def test_a_forked_child_may_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams_native, "PARALLEL", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    expected = [tensor.numpy().tobytes() for tensor in everything(0)]
    near, far = multiprocessing.Pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads beside a fork, since 3.12
        child = multiprocessing.get_context("fork").Process(target=_child, args=(far, 0))
        child.start()
    assert near.poll(60)
    assert near.recv() == expected
    child.join(60)
    assert child.exitcode == 0


class _Coded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: torch.Tensor) -> torch.Tensor:
        y, packed = activate(x, gelu, GELU)
        ctx.save_for_backward(packed)
        return y

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: torch.Tensor) -> torch.Tensor:
        (packed,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return multiply(grad, packed, LEVELS)


def test_autograd_may_call() -> None:
    x = drawn(500).requires_grad_()
    (found,) = torch.autograd.grad(_Coded.apply(x).sum(), x)
    names = unpack(encode(x, GELU), 3, 500).int()
    assert torch.equal(found, torch.tensor(LEVELS)[names])


def test_fake_tensors_have_the_sizes_and_leave_nothing_behind() -> None:
    encoder = Encoder([0.123], [0, 1], bits=1)
    with FakeTensorMode():
        packed = encode(torch.empty(100, 7), encoder)
        assert packed.shape == (packed_size(700, 1),)
        assert multiply(torch.empty(100, 7), packed, [0.125, 0.25]).shape == (100, 7)
    real = encode(torch.ones(7).t(), encoder)
    assert real.tolist() == [127] + [0] * 7


def test_importing_compiles_nothing() -> None:
    program = "import sys, shoestring.kernels.codes; print({'numba', 'triton'} & set(sys.modules))"
    said = subprocess.check_output([sys.executable, "-c", program], text=True)
    assert said == "set()\n"
