"""Semi-orthogonal matrices: exact, isotropic, and added as they are."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from shoestring.core.errors import InputError
from shoestring.kernels.semiorthogonal import KINDS, semiorthogonal
from shoestring.kernels.streams import stream_key

SHAPES = [
    (1, 1),
    (1, 5),
    (2, 2),
    (3, 3),
    (8, 8),
    (10, 10),
    (50, 50),
    (12, 5),
    (50, 7),
    (7, 50),
    (64, 192),
    (100, 49),
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_rows_or_columns_are_orthonormal(kind: str, shape: tuple[int, int]) -> None:
    for key in range(5):
        e = semiorthogonal(kind, *shape, key).dense().double()
        gram = e.T @ e if shape[0] >= shape[1] else e @ e.T
        assert e.shape == shape
        assert torch.allclose(gram, torch.eye(min(shape), dtype=torch.float64), atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_added_as_it_is(kind: str, dtype: torch.dtype) -> None:
    e = semiorthogonal(kind, 20, 11, key=4)
    matrix = torch.zeros(20, 11, dtype=dtype)
    e.add_to(matrix, -0.5)
    tolerance = 4 * torch.finfo(dtype).eps
    assert torch.allclose(matrix.double(), -0.5 * e.dense(torch.float64), atol=tolerance)
    turned = torch.zeros(11, 20, dtype=dtype).T
    e.add_to(turned, -0.5)
    assert torch.allclose(turned, matrix, atol=tolerance)


@pytest.mark.parametrize("kind", KINDS)
def test_the_key_decides(kind: str) -> None:
    state = torch.get_rng_state()
    one, same, other = (semiorthogonal(kind, 24, 12, key).dense() for key in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("shape", [(6, 3), (3, 6), (5, 5), (4, 4), (9, 5)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_entries_are_uncorrelated_and_of_equal_size(kind: str, shape: tuple[int, int]) -> None:
    draws = 6000
    drawn = torch.stack(
        [semiorthogonal(kind, *shape, stream_key(3, k)).dense().flatten() for k in range(draws)]
    ).double()
    size = max(shape)
    covariance = drawn.T @ drawn / draws
    fourth = (drawn**4).mean(0).max()
    error = 5.5 * math.sqrt(float(fourth) / draws)
    assert (drawn.mean(0).abs() < 5.5 / math.sqrt(size * draws)).all()
    assert (
        covariance - torch.eye(shape[0] * shape[1], dtype=torch.float64) / size
    ).abs().max() < error


def test_haar_is_distributed_as_the_polar_factor_of_gaussians() -> None:
    generator = torch.Generator().manual_seed(0)
    gaussian = torch.randn(4000, 5, 3, generator=generator)
    u, _, v = torch.linalg.svd(gaussian, full_matrices=False)
    theirs = (u @ v)[:, 0, 0]
    ours = torch.stack([semiorthogonal("haar", 5, 3, k).dense()[0, 0] for k in range(4000)])
    assert stats.ks_2samp(ours.numpy(), theirs.numpy()).pvalue > 0.01


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(InputError, match="no semi-orthogonal matrix of kind 'givens'"):
        semiorthogonal("givens", 3, 3, 0)
