"""Streams of random signs: what they are, how they look, and that every form gives the same."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from shoestring.core.errors import InputError
from shoestring.kernels import streams_eager, streams_native
from shoestring.kernels.stages import Stages, snapped
from shoestring.kernels.streams import add_signs_, add_signs_to_all_, mix, signs, stream_key
from tests.oracles.streams import sign, splitmix

KEYS = st.integers(0, 2**64 - 1)
FLOATS = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def test_words_are_splitmix64() -> None:
    # The published first outputs from the state 1234567.
    first = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    golden = 0x9E3779B97F4A7C15
    assert [splitmix(1234567 + k * golden) for k in (1, 2, 3)] == first
    found = streams_eager.words(1234567, 3, 0, torch.device("cpu")).tolist()
    assert [word % 2**64 for word in found] == first


@given(number=KEYS)
def test_mix_is_the_finaliser(number: int) -> None:
    assert mix(number) == splitmix(number)


@given(key=KEYS, start=st.integers(0, 5), count=st.integers(0, 200))
def test_signs_are_the_bits_of_the_words(key: int, start: int, count: int) -> None:
    expected = [sign(key, 64 * start + e) for e in range(count)]
    assert signs(key, count, start=64 * start).tolist() == expected


@pytest.mark.parametrize("dtype", FLOATS)
def test_signs_have_the_dtype_that_is_asked_for(dtype: torch.dtype) -> None:
    found = signs(3, 100, dtype=dtype)
    assert found.dtype == dtype
    assert torch.equal(found.double(), signs(3, 100, dtype=torch.float64))


def test_keys_depend_on_each_number_and_on_their_order() -> None:
    named = itertools.product(range(12), repeat=3)
    keys = [stream_key(*numbers) for numbers in named]
    keys += [stream_key(*numbers) for numbers in itertools.product(range(12), repeat=2)]
    assert len(set(keys)) == len(keys)
    assert all(0 <= key < 2**64 for key in keys)


# --- how they look ---------------------------------------------------------------------------

STEPS, TENSORS, LENGTH = 40, 10, 4096


@pytest.fixture(scope="module")
def drawn() -> torch.Tensor:
    """Return signs of steps and tensors of one seed, ``[steps, tensors, elements]``."""
    return torch.stack(
        [
            torch.stack([signs(stream_key(11, step, k), LENGTH) for k in range(TENSORS)])
            for step in range(STEPS)
        ]
    ).double()


def within(value: torch.Tensor, count: int, sigmas: float = 5.0) -> bool:
    """Return whether means of so many signs lie within some standard deviations of zero."""
    return bool((value.abs() <= sigmas / math.sqrt(count)).all())


def test_each_bit_is_balanced(drawn: torch.Tensor) -> None:
    bits = drawn.view(STEPS * TENSORS * LENGTH // 64, 64)
    assert within(bits.mean(0), len(bits))
    assert within(drawn.mean((1, 2)), TENSORS * LENGTH)
    assert within(drawn.mean((0, 2)), STEPS * LENGTH)
    assert within(drawn.mean((0, 1)), STEPS * TENSORS)


@pytest.mark.parametrize("lag", [1, 2, 32, 63, 64, 65, 128, 640])
def test_elements_that_lie_apart_are_not_correlated(drawn: torch.Tensor, lag: int) -> None:
    product = drawn[..., lag:] * drawn[..., :-lag]
    assert within(product.mean((0, 1)).mean(), product.numel())
    by_bit = product[..., : product.shape[-1] // 64 * 64].reshape(-1, 64)
    assert within(by_bit.mean(0), len(by_bit))


def test_steps_and_tensors_are_not_correlated(drawn: torch.Tensor) -> None:
    flat = drawn.view(STEPS * TENSORS, LENGTH)
    correlation = flat @ flat.T / LENGTH - torch.eye(len(flat), dtype=torch.float64)
    assert within(correlation, LENGTH, 5.5)
    assert abs(float(correlation.square().mean() * LENGTH) - 1) < 0.02


def test_seeds_that_follow_each_other_are_not_correlated() -> None:
    drawn = torch.stack([signs(stream_key(seed, 0, 0), LENGTH) for seed in range(200)]).double()
    correlation = drawn @ drawn.T / LENGTH - torch.eye(200, dtype=torch.float64)
    assert within(correlation, LENGTH, 5.5)


# --- adding them -----------------------------------------------------------------------------


def added(x: torch.Tensor, keys: list[int], scales: list[float], stages: Stages) -> torch.Tensor:
    """Do one thing after the other, in the tensor's own dtype."""
    for index in range(len(keys) + 1):
        if index == stages.before:
            x = x * stages.decay
        if index == len(keys) - stages.after and stages.radius:
            x = ((x.abs() + stages.radius) - stages.radius) * torch.where(x < 0, -1.0, 1.0).to(x)
        if index < len(keys):
            z = torch.tensor([sign(keys[index], e) for e in range(x.numel())], dtype=x.dtype)
            x = x + z * scales[index]
    return x


TERMS = st.lists(st.tuples(KEYS, st.floats(-2, 2, width=32)), max_size=3)
FORMS = [streams_native, streams_eager]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@given(terms=TERMS, count=st.integers(1, 200), data=st.data())
def test_both_forms_do_what_the_oracle_does(
    dtype: torch.dtype, terms: list[tuple[int, float]], count: int, data: st.DataObject
) -> None:
    x = torch.randn(count, dtype=dtype, generator=torch.Generator().manual_seed(count))
    keys, scales = [key for key, _ in terms], [scale for _, scale in terms]
    before = data.draw(st.integers(0, len(terms)))
    stages = Stages(
        decay=data.draw(st.sampled_from([1.0, 0.875])),
        before=before,
        radius=data.draw(st.sampled_from([0.0, 0.125, 3.0])),
        after=data.draw(st.integers(0, len(terms) - before)),
    )
    expected = added(x, keys, scales, stages)
    for form in FORMS:
        ours = x.clone()
        form.add_signs(ours, keys, scales, stages, None)
        assert torch.equal(ours, expected)


@pytest.mark.parametrize("rounding", [None, 5])
@pytest.mark.parametrize("scale", [1e-3, 1e30, 3e38, 1e-39, math.inf, math.nan])
def test_both_forms_round_bfloat16_to_the_same_bits(scale: float, rounding: int | None) -> None:
    x = torch.randn(3000, generator=torch.Generator().manual_seed(1)).mul_(scale or 1)
    x = x.to(torch.bfloat16)
    found = []
    for form in FORMS:
        ours = x.clone()
        form.add_signs(ours, [1, 2], [scale, scale / 3], Stages(0.9, 1, 0.125, 1), rounding)
        found.append(ours)
    assert torch.equal(found[0].nan_to_num(7.0), found[1].nan_to_num(7.0))
    assert torch.equal(found[0].isnan(), found[1].isnan())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [1.25, 1e-5, 6e-8, 200.0])
def test_rounding_at_random_has_the_right_mean(dtype: torch.dtype, size: float) -> None:
    start = torch.full((1 << 16,), size).to(dtype)
    step = 0.3 * float(
        torch.nextafter(start[0].float().to(dtype), torch.tensor(1e9, dtype=dtype)) - start[0]
    )
    x = start.clone()
    z = signs(9, len(x))
    add_signs_(x, [9], [step], rounding=4)
    moved = (x.double() - start.double()) * z
    assert x.dtype == dtype
    deviation = float(moved.std()) / math.sqrt(len(x))
    assert deviation > 0
    assert abs(float(moved.mean()) - step) < 5 * deviation
    nearest = start.clone()
    add_signs_(nearest, [9], [step])
    assert torch.equal(nearest, start)  # which is why it is rounded at random


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_tensor_of_any_strides_is_numbered_row_by_row(dtype: torch.dtype) -> None:
    x = torch.randn(7, 30, generator=torch.Generator().manual_seed(0)).to(dtype)
    rows, columns = x.clone(), x.t().contiguous().t()
    add_signs_(
        rows, [1, 2], [0.5, 0.25], stages=Stages(0.5), rounding=3 if x.itemsize == 2 else None
    )
    add_signs_(
        columns, [1, 2], [0.5, 0.25], stages=Stages(0.5), rounding=3 if x.itemsize == 2 else None
    )
    assert torch.equal(rows, columns)
    every_other = torch.zeros(100, dtype=dtype)
    add_signs_(every_other[::2], [1], [1.0])
    assert torch.equal(every_other[::2], signs(1, 50, dtype=dtype))
    assert not every_other[1::2].any()


def test_how_the_work_is_shared_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(64 * 37 + 5, generator=torch.Generator().manual_seed(0))
    stages = Stages(0.9, 1, 0.125, 1)
    alone = x.clone()
    add_signs_(alone, [1, 2], [0.5, 0.25], stages=stages)
    monkeypatch.setattr(streams_native, "PARALLEL", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    shared = x.clone()
    add_signs_(shared, [1, 2], [0.5, 0.25], stages=stages)
    assert torch.equal(alone, shared)
    monkeypatch.setattr(streams_eager, "CHUNK", 128)
    cut = x.clone()
    streams_eager.add_signs(cut, [1, 2], [0.5, 0.25], stages, None)
    assert torch.equal(alone, cut)


def test_one_call_gives_the_bits_of_several() -> None:
    x = torch.randn(200, generator=torch.Generator().manual_seed(0))
    once, several = x.clone(), x.clone()
    add_signs_(once, [1, 1, 2], [1e-3, -3e-3, 0.1], stages=Stages(0.99, before=2))
    for key, scale in ((1, 1e-3), (1, -3e-3)):
        add_signs_(several, [key], [scale])
    add_signs_(several, [2], [0.1], stages=Stages(0.99))
    assert torch.equal(once, several)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@given(radius=st.floats(1e-6, 10), seed=st.integers(0, 1000), size=st.floats(1e-8, 1e4))
def test_what_is_settled_comes_back_to_the_last_bit(
    dtype: torch.dtype, radius: float, seed: int, size: float
) -> None:
    x = torch.randn(128, dtype=dtype, generator=torch.Generator().manual_seed(seed)) * size
    assume(float(x.abs().max()) < 2**16 * radius)
    radius = snapped(radius, x)
    settled = x.clone()
    add_signs_(settled, [], [], stages=Stages(radius=radius))
    outward = x.abs() + radius
    spacing = torch.nextafter(outward, torch.full_like(outward, math.inf)) - outward
    assert ((settled - x).abs() <= spacing).all()
    back = settled.clone()
    for key in range(3):
        for scale in (radius, -2 * radius, radius):
            add_signs_(back, [key], [scale])
        assert torch.equal(back, settled)


def test_autograd_notices_and_no_generator_does() -> None:
    weight = torch.nn.Parameter(torch.ones(5))
    loss = weight.square().sum()
    state = torch.get_rng_state()
    add_signs_(weight, [1], [0.5])
    assert torch.equal(torch.get_rng_state(), state)
    assert weight._version == 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (1,), (64,), (65,)])
def test_small_and_empty_tensors(shape: tuple[int, ...]) -> None:
    x = torch.zeros(shape)
    add_signs_(x, [1], [1.0])
    assert torch.equal(x.flatten(), signs(1, x.numel()))


def test_a_tensor_of_whole_numbers_is_refused() -> None:
    with pytest.raises(InputError, match="signs cannot be added"):
        add_signs_(torch.zeros(3, dtype=torch.int8), [1], [1.0])


# --- many tensors at once --------------------------------------------------------------------


@given(
    shapes=st.lists(st.lists(st.integers(0, 70), max_size=2), max_size=5),
    terms=st.integers(0, 3),
    data=st.data(),
)
def test_all_at_once_get_the_bits_of_one_by_one(
    shapes: list[list[int]], terms: int, data: st.DataObject
) -> None:
    generator = torch.Generator().manual_seed(terms)
    dtypes = [data.draw(st.sampled_from([torch.float32, *FLOATS])) for _ in shapes]
    found = [torch.randn(s, generator=generator).to(d) for s, d in zip(shapes, dtypes, strict=True)]
    found = [x.t().contiguous().t() if data.draw(st.booleans()) else x for x in found]
    expected = [x.clone() for x in found]
    before = data.draw(st.integers(0, terms))
    after = data.draw(st.integers(0, terms - before))
    stages = [Stages(1 - 0.1 * k, before, 0.25 * k, after) for k in range(len(found))]
    keys = [[2**63 + 10 * k + j for j in range(terms)] for k in range(len(found))]
    scales = [[0.5 * k - 0.1 * j for j in range(terms)] for k in range(len(found))]
    versions = [x._version for x in found]
    add_signs_to_all_(found, keys, scales, stages=stages)
    for k, x in enumerate(expected):
        add_signs_(x, keys[k], scales[k], stages=stages[k])
        assert torch.equal(x, found[k])
        assert found[k]._version - versions[k] == x._version


def test_large_tensors_are_shared_among_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = [torch.randn(100, generator=torch.Generator().manual_seed(k)) for k in range(3)]
    shared = [x.clone() for x in alone]
    terms = [[1], [2], [3]], [[0.5], [0.25], [0.125]]
    add_signs_to_all_(alone, *terms, stages=[Stages()] * 3)
    monkeypatch.setattr(streams_native, "PARALLEL", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert not streams_native.takes_together(shared[0])
    add_signs_to_all_(shared, *terms, stages=[Stages()] * 3)
    assert all(map(torch.equal, alone, shared))
