"""Codes are what the oracle finds, bit for bit, in every form; products are rounded once."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from shoestring.core.errors import InputError
from shoestring.kernels import codes, codes_eager, codes_native
from shoestring.kernels.codes import Encoder, encode, multiply, pack, packed_size, unpack
from tests.oracles import codes as oracle

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
GELU = Encoder([-2.415516, -0.710125, -0.325949, 0, 0.325949, 0.710125, 2.415516], range(8), bits=3)
AS_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclasses.dataclass(frozen=True)
class Case:
    """Some elements and how they are encoded."""

    encoder: Encoder
    x: torch.Tensor

    @property
    def wide(self) -> torch.dtype:
        return codes_eager.wide_of(self.x.dtype)

    @property
    def codes(self) -> list[int]:
        borders = torch.tensor(self.encoder.borders, dtype=self.wide).double().tolist()
        return [self.encoder.codes[oracle.interval(x, borders)] for x in self.x.double().tolist()]


@st.composite
def cases(draw: st.DrawFn, dtype: torch.dtype, most_bits: int = 8) -> Case:
    """Draw borders, and elements that lie on them, beside them and far off."""
    bits = draw(st.integers(1, most_bits)) if dtype is torch.float32 else 3
    number = st.floats(-70000, 70000) | st.floats(-3, 3) | st.floats(-1e-7, 1e-7)
    in_order = draw(st.booleans()) and bits <= 4
    most = 2**bits - 1 if in_order else 60
    borders = sorted(draw(st.lists(number, min_size=most if in_order else 0, max_size=most)))
    names = st.integers(0, 2**bits - 1)
    some = st.lists(names, min_size=len(borders) + 1, max_size=len(borders) + 1)
    encoder = Encoder(borders, range(most + 1) if in_order else draw(some), bits)
    seed, count = draw(st.integers(0, 99)), draw(st.integers(0, 300))
    return Case(encoder, elements(borders, count, dtype, seed))


def elements(borders: list[float], count: int, dtype: torch.dtype, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    edges = torch.tensor(borders, dtype=torch.float64).to(dtype)
    beside = [torch.nextafter(edges, torch.tensor(to).to(dtype)) for to in (-1e9, 1e9)]
    special = [0.0, -0.0, torch.nan, torch.inf, -torch.inf, 1e-45, -1e-45, 5e-8, 1e-310]
    pool = torch.cat([edges, *beside, torch.tensor(special, dtype=torch.float64).to(dtype)])
    chosen = pool[torch.randint(len(pool), (count,), generator=generator)]
    normal = torch.randn(count, generator=generator, dtype=torch.float64).to(dtype)
    return torch.where(torch.rand(count, generator=generator) < 0.5, chosen, normal)


def by_torch(case: Case) -> torch.Tensor:
    """Encode by torch's operators."""
    packed = torch.empty(packed_size(case.x.numel(), case.encoder.bits), dtype=torch.uint8)
    blocks = -(-case.x.numel() // 64)
    codes_eager.encoding(case.x, case.encoder, packed)(0, blocks)
    return packed


def levels_of(bits: int) -> list[float]:
    generator = torch.Generator().manual_seed(bits)
    return torch.randn(2**bits, generator=generator, dtype=torch.float64).tolist()


def products(grad: torch.Tensor, names: list[int], levels: list[float]) -> torch.Tensor:
    """Multiply in the wide dtype: of two float32 the product is exact in float64."""
    wide = codes_eager.wide_of(grad.dtype)
    factors = torch.tensor([levels[name] for name in names], dtype=wide)
    return (factors.double() * grad.double()).to(wide).to(grad.dtype)


def assert_same(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Demand the same bits, apart from which NaN it is."""
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    assert torch.equal(found.isnan(), expected.isnan())
    kind = AS_INTEGERS[found.element_size()]
    assert torch.equal(found[~found.isnan()].view(kind), expected[~expected.isnan()].view(kind))


@pytest.mark.parametrize("dtype", DTYPES)
@given(data=st.data())
def test_all_forms_find_the_codes_of_the_oracle(dtype: torch.dtype, data: st.DataObject) -> None:
    case = data.draw(cases(dtype))
    expected = oracle.packed(case.codes, case.encoder.bits)
    assert codes_native.takes(case.x)
    assert bytes(encode(case.x, case.encoder).tolist()) == expected
    assert bytes(by_torch(case).tolist()) == expected


@pytest.mark.parametrize("dtype", DTYPES)
@given(data=st.data())
def test_all_forms_multiply_as_the_oracle_does(dtype: torch.dtype, data: st.DataObject) -> None:
    case = data.draw(cases(dtype, most_bits=5))
    levels, packed = levels_of(case.encoder.bits), encode(case.x, case.encoder)
    expected = products(case.x, case.codes, levels)
    assert_same(multiply(case.x, packed, levels), expected)
    eager = torch.empty_like(case.x)
    codes_eager.multiply(case.x, packed, tuple(levels), eager)
    assert_same(eager, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_every_half_is_compared_and_multiplied(dtype: torch.dtype) -> None:
    x = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(dtype)
    borders = [-3e-8, 0, 2e-8, 1e-7, 6.1e-5, 1.7, 65504]
    case = Case(Encoder(borders, [0, 1, 2, 3, 2, 5, 6, 7], bits=3), x)
    packed = encode(x, case.encoder)
    assert torch.equal(packed, by_torch(case))
    names = unpack(packed, 3, 2**16).tolist()
    levels = [1.0, 1 / 3, 2.0**-9, 1e-4, 60000.0, 1.001, -1e-8, 1 - 2.0**-12]
    assert_same(multiply(x, packed, levels), products(x, names, levels))


@given(bits=st.integers(1, 8), count=st.integers(0, 300), seed=st.integers(0, 99))
def test_all_forms_pack_and_unpack_as_the_oracle_does(bits: int, count: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    given = torch.randint(2**bits, (count,), dtype=torch.uint8, generator=generator)
    packed, eager = pack(given, bits), torch.empty(packed_size(count, bits), dtype=torch.uint8)
    codes_eager.pack(given, bits, eager)
    assert bytes(packed.tolist()) == bytes(eager.tolist()) == oracle.packed(given.tolist(), bits)
    codes_eager.unpack(packed, bits, again := torch.empty_like(given))
    assert oracle.unpacked(bytes(packed.tolist()), bits, count) == given.tolist()
    assert torch.equal(unpack(packed, bits, count), given)
    assert torch.equal(again, given)


@given(count=st.integers(0, 1000), bits=st.integers(1, 8))
def test_packed_codes_take_the_bytes_that_are_promised(count: int, bits: int) -> None:
    packed = encode(torch.zeros(count), Encoder([], [1], bits))
    assert packed.numel() == packed.untyped_storage().nbytes() == 8 * bits * -(-count // 64)


def test_three_bits_take_a_tenth_of_float32() -> None:
    assert encode(torch.zeros(10**5), GELU).nbytes == 24 * -(-(10**5) // 64)


def test_three_bits_are_filled_up_with_zeros() -> None:
    assert encode(torch.full((1,), 9.0), GELU).tolist() == [1, *[0] * 7] * 3


def test_without_numba_the_bits_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    x, levels = torch.randn(1000), levels_of(3)
    packed = encode(x, GELU)
    found = multiply(x, packed, levels)
    monkeypatch.setattr(codes_native, "_loops", lambda: None)
    assert torch.equal(encode(x, GELU), packed)
    assert_same(multiply(x, packed, levels), found)
    assert torch.equal(pack(unpack(packed, 3, 1000), 3), packed)


def test_bools_are_codes_of_one_bit() -> None:
    mask = torch.rand(7, 30, generator=torch.Generator().manual_seed(0)) < 0.5
    assert torch.equal(unpack(pack(mask, 1), 1, 210).view(7, 30).bool(), mask)


REFUSED = {
    "do not ascend": lambda: Encoder([1.0, 0.0], [0, 1, 1], 1),
    "leave out infinities": lambda: Encoder([torch.inf], [0, 1], 1),
    "not one for each interval": lambda: Encoder([1.0], [0], 1),
    "no place in 1 bits": lambda: Encoder([1.0], [0, 2], 1),
    "bits=9": lambda: Encoder([], [0], 9),
    "bits=0": lambda: pack(torch.zeros(1, dtype=torch.bool), 0),
    "elements of torch.int64": lambda: encode(torch.zeros(1, dtype=torch.int64), GELU),
    "codes of torch.int64": lambda: pack(torch.zeros(1, dtype=torch.int64), 1),
    "does not name each": lambda: encode(torch.zeros(2, 2), GELU, order=(0, 0)),
    "not 24 bytes": lambda: multiply(torch.zeros(9), encode(torch.zeros(70), GELU), [0.0] * 8),
    "5 levels": lambda: multiply(torch.zeros(9), encode(torch.zeros(9), GELU), [0.0] * 5),
    "not 8 bytes": lambda: unpack(torch.zeros(8), 1, 9),
    "not like the input": lambda: multiply(
        torch.zeros(9), encode(torch.zeros(9), GELU), [0.0] * 8, out=torch.zeros(8)
    ),
    "not dense in its order": lambda: codes.activate(
        torch.zeros(2, 3),
        torch.ops.aten.gelu.out,
        GELU,
        out=(torch.zeros(3, 2).t(), torch.zeros(24, dtype=torch.uint8)),
    ),
}


@pytest.mark.parametrize("said", REFUSED)
def test_what_does_not_fit_is_refused(said: str) -> None:
    with pytest.raises(InputError, match=said):
        REFUSED[said]()
