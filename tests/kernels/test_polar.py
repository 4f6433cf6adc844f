"""Polar factors against the decomposition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from shoestring.core.errors import InputError
from shoestring.kernels.polar import MARGIN, MUON, express, nearest_to_one, polar

SHAPES = [(1, 1), (4, 4), (3, 7), (9, 2), (2, 5, 3), (2, 3, 4, 6)]


def spread(shape: tuple[int, ...], least: float) -> torch.Tensor:
    """Return matrices whose singular values go from `least` to 1, the largest twice over."""
    generator = torch.Generator().manual_seed(1)
    u, _, v = torch.linalg.svd(
        torch.randn(shape, generator=generator, dtype=torch.float64), full_matrices=False
    )
    values = torch.logspace(np.log10(least), 0, u.shape[-1], dtype=torch.float64)
    return u * values @ v


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_decomposition_is_exact(shape: tuple[int, ...]) -> None:
    matrix = spread(shape, 0.01)
    found = polar(matrix)
    assert found.shape == shape
    gram = found.mT @ found if shape[-2] >= shape[-1] else found @ found.mT
    assert torch.allclose(gram, torch.eye(min(shape[-2:]), dtype=torch.float64), atol=1e-12)
    symmetric = found.mT @ matrix  # the nearest: this product has no negative eigenvalue
    assert torch.allclose(symmetric, symmetric.mT, atol=1e-12)
    assert (torch.linalg.eigvalsh(symmetric) > -1e-12).all()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_polar_express_is_the_polar_factor(shape: tuple[int, ...]) -> None:
    matrix = spread(shape, 0.01)
    found = polar(matrix, method="polar-express")
    assert torch.allclose(found, polar(matrix), atol=1e-6)


def test_newton_schulz_is_muons() -> None:
    matrix = torch.randn(20, 30, generator=torch.Generator().manual_seed(2))
    values = torch.linalg.svdvals(polar(matrix, method="newton-schulz"))
    assert values.min() > 0.65
    assert values.max() < 1.25
    theirs = torch.optim._muon._zeropower_via_newtonschulz(matrix, tuple(MUON), 5, 1e-7)
    ours = polar(matrix.bfloat16(), method="newton-schulz")
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("method", ["svd", "newton-schulz", "polar-express"])
def test_a_batch_is_each_of_its_matrices_and_zero_stays(method: str) -> None:
    batch = torch.randn(3, 6, 4, generator=torch.Generator().manual_seed(0))
    batch[1] = 0
    found = polar(batch, method=method)
    for one, whole in zip(batch, found, strict=True):
        assert torch.allclose(polar(one, method=method), whole, atol=1e-5)
    assert not found[1].any()


def test_the_first_polynomials_are_those_of_the_paper() -> None:
    published = [  # of its reference implementation, to four places
        (8.2872, -23.5959, 17.3004),
        (4.1071, -2.9478, 0.5448),
        (3.9487, -2.9089, 0.5518),
        (3.3184, -2.4885, 0.5100),
        (2.3007, -1.6689, 0.4188),
    ]
    for (a, b, c), theirs in zip(express(8), published, strict=False):
        assert (a * MARGIN, b * MARGIN**3, c * MARGIN**5) == pytest.approx(theirs, abs=1e-4)


@pytest.mark.parametrize(("low", "high"), [(1e-3, 1.0), (0.1, 1.9), (0.5, 1.5), (0.99, 1.01)])
def test_no_polynomial_of_the_degree_is_nearer_to_one(low: float, high: float) -> None:
    x = np.linspace(low, high, 2001)
    powers = np.stack([x, x**3, x**5], axis=1)
    bound = -np.ones((len(x), 1))  # |1 - p(x)| <= t at each x; the least t by a linear program
    limits = np.block([[powers, bound], [-powers, bound]])
    sides = np.concatenate([np.ones(len(x)), -np.ones(len(x))])
    best = linprog([0, 0, 0, 1], limits, sides, bounds=[(None, None)] * 4)
    found = np.abs(1 - powers @ np.array(nearest_to_one(low, high))).max()
    assert best.success
    assert found == pytest.approx(best.fun, rel=1e-3, abs=1e-7)


def test_what_cannot_be_asked_is_refused() -> None:
    with pytest.raises(InputError, match="no polar factor by 'qr'"):
        polar(torch.eye(2), method="qr")
    with pytest.raises(InputError, match="takes no steps"):
        polar(torch.eye(2), steps=3)
