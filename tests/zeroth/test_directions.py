"""Families of directions: uncorrelated entries of size one, and what they cost in variance."""

from __future__ import annotations

import math

import pytest
import torch

from shoestring.core.errors import InputError
from shoestring.kernels.streams import stream_key
from shoestring.measure.tracing.allocator import measure_step
from shoestring.zeroth.directions import LowRank, Signs, choose, family

FAMILIES = [
    "rademacher",
    "gaussian",
    "sphere",
    "rank1",
    "lowrank:3",
    "coord:4",
    "semiortho:haar",
    "semiortho:householder",
    "semiortho:permutation",
    "semiortho:hadamard",
    "semiortho:butterfly",
]
SHAPES = [(4, 3), (5,), (), (2, 2, 1, 2)]


def drawn(name: str, key: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Return one direction of all tensors as a vector."""
    tensors = [torch.zeros(shape, dtype=dtype) for shape in SHAPES]
    for tensor, direction in zip(tensors, family(name)(tensors, key), strict=True):
        direction.add_to(tensor, 1.0)
    return torch.cat([tensor.flatten() for tensor in tensors])


@pytest.mark.parametrize("name", FAMILIES)
def test_entries_are_uncorrelated_and_of_size_one(name: str) -> None:
    draws = 5000
    z = torch.stack([drawn(name, stream_key(k)) for k in range(draws)])
    covariance = z.T @ z / draws
    worst = float((z[:, :, None] * z[:, None, :]).var(0).max())
    error = 5.5 * math.sqrt(worst / draws)
    assert (z.mean(0).abs() < 5.5 / math.sqrt(draws) * z.std(0)).all()
    assert (covariance - torch.eye(len(covariance), dtype=torch.float64)).abs().max() < error


@pytest.mark.parametrize(
    ("name", "expected"), [("rademacher", 0), ("gaussian", 2), ("sphere", 0), ("rank1", 0)]
)
def test_the_variance_of_the_estimate(name: str, expected: int) -> None:
    draws = 20000
    slope = torch.linspace(-1, 2, 26, dtype=torch.float64)
    z = torch.stack([drawn(name, stream_key(k)) for k in range(draws)])
    ratios = (z @ slope).square() * z.square().sum(1) / slope.square().sum()
    error = 5 * float(ratios.std()) / math.sqrt(draws)
    assert abs(float(ratios.mean()) - (26 + expected)) < error
    mean = ((z @ slope).unsqueeze(1) * z).mean(0)
    assert float(torch.nn.functional.cosine_similarity(mean, slope, dim=0)) > 0.99


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", FAMILIES)
def test_the_same_key_gives_the_same_direction_whatever_the_layout(
    name: str, dtype: torch.dtype
) -> None:
    tensors = [torch.zeros(6, 4, dtype=dtype), torch.zeros(4, 6, dtype=dtype).T]
    state = torch.get_rng_state()
    for tensor in tensors:
        (direction,) = family(name)([tensor], 5)
        direction.add_to(tensor, 0.5)
    assert torch.equal(*tensors)
    assert torch.equal(torch.get_rng_state(), state)
    assert tensors[0]._version > 0


def test_the_sphere_has_one_length() -> None:
    assert float(drawn("sphere", 3).square().sum()) == pytest.approx(26)


def test_low_rank_is_the_product_of_its_factors() -> None:
    matrix = torch.zeros(5, 7)
    z = LowRank(9, 2)
    z.add_to(matrix, 1.0)
    u, v = z.factors(matrix)
    assert torch.allclose(matrix, u @ v.T / math.sqrt(2))
    assert torch.linalg.matrix_rank(matrix) == 2


def test_a_convolution_is_a_matrix() -> None:
    weight, matrix = torch.zeros(4, 3, 2, 2), torch.zeros(4, 12)
    for tensor in (weight, matrix):
        family("semiortho:hadamard")([tensor], 1)[0].add_to(tensor, 1.0)
    assert torch.equal(weight.view(4, 12), matrix)


@pytest.mark.parametrize(("total", "count"), [(10, 3), (10, 10), (5, 9), (1, 1), (100000, 300)])
def test_choices_are_distinct_and_even(total: int, count: int) -> None:
    found = choose(total, min(count, total), key=3)
    assert len(found) == len(found.unique()) == min(count, total)
    assert ((found >= 0) & (found < total)).all()
    if total == 10 and count == 3:
        hits = torch.cat([choose(10, 3, stream_key(k)) for k in range(4000)]).bincount(minlength=10)
        assert (hits - 1200).abs().max() < 5 * math.sqrt(4000 * 0.3 * 0.7)


def test_unit_directions_say_so() -> None:
    for name in FAMILIES:
        tensors = [torch.zeros(8, 4)]
        (direction,) = family(name)(tensors, 2)
        direction.add_to(tensors[0], 1.0)
        assert not direction.unit or bool((tensors[0].abs() == 1).all())
    assert Signs(1).unit


@pytest.mark.parametrize(
    "name", ["", "normal", "lowrank", "lowrank:0", "coord:x", "semiortho:x", "rank1:2"]
)
def test_what_is_no_family_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="directions"):
        family(name)


@pytest.mark.parametrize("name", ["rank1", "lowrank:4", "gaussian", "rademacher"])
def test_a_large_matrix_is_displaced_some_rows_at_a_time(name: str) -> None:
    x = torch.zeros(3000, 300)
    (direction,) = family(name)([x], 7)
    found = measure_step(lambda: direction.displace(x, 0.5, 2.0**-20), roots=lambda: [x])
    assert found.peak - found.static < x.nbytes / 3
    whole = torch.zeros(3000, 300)
    direction.add_to(whole, 0.5)
    assert (x - whole).abs().max() <= 2.0**-21
