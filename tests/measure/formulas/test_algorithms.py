"""Algorithms by textbook formulas: exactly where loops are, in the leading term where not."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from shoestring.measure.formulas import Cost
from tests.measure.formulas.counting import Counting, aten, cost_of, flops_of
from tests.oracles import flops as oracle

powers = st.sampled_from([2, 4, 8, 16])
sizes = st.integers(1, 5)


def near(found: float, loops: int, size: int) -> bool:
    """Whether two counts share their leading term: they differ by some multiple of size^2."""
    return abs(found - loops) <= 5 * size * size


@given(n=powers, batch=sizes)
def test_transforms_of_powers_of_two(n, batch):
    x = torch.ones(batch, n, dtype=torch.complex64)
    expected = batch * oracle.fft(n)
    assert expected == batch * 5 * n * int(math.log2(n))
    assert cost_of(aten._fft_c2c.default, x, [1], 0, True) == Cost(expected, 0, 0)
    assert flops_of(aten._fft_r2c.default, x.real, [1], 0, True) == expected // 2
    half = x[:, : n // 2 + 1]
    assert flops_of(aten._fft_c2r.default, half, [1], 2, n) == expected // 2


@given(m=powers, n=powers)
def test_transforms_in_two_dimensions(m, n):
    x = torch.ones(3, m, n, dtype=torch.complex128, requires_grad=True)
    expected = 3 * (m * oracle.fft(n) + n * oracle.fft(m))
    with Counting() as forward:
        y = torch.fft.fft2(x)
    with Counting() as backward:
        y.abs().sum().backward()
    assert forward.of("_fft_c2c") == backward.of("_fft_c2c") == Cost(expected, 0, 0)


def test_transforms_of_other_sizes_and_empty_ones():
    x = torch.ones(6, dtype=torch.complex64)
    assert flops_of(aten._fft_c2c.default, x, [0], 0, True) == round(30 * math.log2(6))
    assert flops_of(aten._fft_c2c.default, x[:1], [0], 0, True) == 0


N = 24


def spd(n: int = N, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    a = torch.randn(n, n, dtype=dtype, generator=torch.Generator().manual_seed(0))
    return a @ a.mH + n * torch.eye(n, dtype=dtype)


def test_square_factorisations():
    a = spd()
    cholesky = flops_of(aten.linalg_cholesky_ex.default, a)
    assert cholesky == round(N**3 / 3)
    assert near(cholesky, oracle.cholesky(N), N)
    lu = flops_of(aten.linalg_lu_factor_ex.default, a)
    assert lu == round(2 * N**3 / 3)
    assert near(lu, oracle.lu(N, N), N)
    assert flops_of(aten._linalg_det.default, a) == flops_of(aten._linalg_slogdet.default, a) == lu
    inverse = flops_of(aten.linalg_inv_ex.default, a)
    # The factors, then L^-1 by substitution on half a matrix, then U^-1 L^-1.
    loops = oracle.lu(N, N) + sum(oracle.triangular_solve(n, 1) for n in range(1, N + 1))
    assert near(inverse, loops + oracle.triangular_solve(N, N), N)


@given(n=sizes, columns=sizes, batch=sizes)
def test_triangular_solves_exactly(n, columns, batch):
    a, b = torch.eye(n).expand(batch, n, n), torch.ones(batch, n, columns)
    expected = batch * oracle.triangular_solve(n, columns)
    assert expected == batch * n * n * columns
    assert cost_of(aten.linalg_solve_triangular.default, a, b, upper=False) == Cost(expected, 0, 0)
    assert flops_of(aten.cholesky_solve.default, b, a) == 2 * expected
    factors, pivots = torch.linalg.lu_factor(a)
    assert flops_of(aten.linalg_lu_solve.default, factors, pivots, b) == 2 * expected


@pytest.mark.parametrize("columns", [1, 7])
def test_solves_and_their_gradients(columns):
    a, b = spd().requires_grad_(), torch.ones(N, columns, dtype=torch.float64)
    substitutions = 2 * oracle.triangular_solve(N, columns)
    with Counting() as forward:
        x = torch.linalg.solve(a, b)
    solve = forward.of("_linalg_solve_ex")
    assert solve == Cost(round(2 * N**3 / 3) + substitutions, 0, 0)
    assert near(solve.flops, oracle.lu(N, N) + substitutions, N)
    with Counting() as backward:
        x.sum().backward()
    assert backward.of("linalg_lu_solve").flops == substitutions


@pytest.mark.parametrize(("m", "n"), [(24, 24), (40, 24), (24, 40)])
def test_orthogonal_factorisations(m, n):
    a, k, size = torch.randn(m, n), min(m, n), max(m, n)
    r = oracle.qr(m, n)
    assert near(flops_of(aten.linalg_qr.default, a, "r"), r, size)
    assert near(flops_of(aten.geqrf.default, a), r, size)
    thin = flops_of(aten.linalg_qr.default, a)
    assert near(thin, r + oracle.build_q(m, k, k), size)
    whole = flops_of(aten.linalg_qr.default, a, "complete")
    assert near(whole, r + oracle.build_q(m, m, k), size)
    assert whole == thin or m > n
    reflectors, tau = torch.geqrf(a)
    if m >= n:
        product = flops_of(aten.linalg_householder_product.default, reflectors, tau)
        assert near(product, oracle.build_q(m, n, k), size)
    other = torch.randn(m, 9)
    applied = flops_of(aten.ormqr.default, reflectors, tau, other)
    assert near(applied, oracle.apply_q(m, 9, k), size)
    assert flops_of(aten.ormqr.default, reflectors, tau, other.mT.contiguous(), False) == applied


@pytest.mark.parametrize(("m", "n"), [(24, 24), (40, 24), (24, 40)])
def test_lu_of_any_shape(m, n):
    a = torch.randn(m, n)
    assert near(flops_of(aten.linalg_lu_factor_ex.default, a), oracle.lu(m, n), max(m, n))


def test_iterative_factorisations_by_the_book():
    # Golub and Van Loan, figure 8.6.1 and sections 7.5.6, 8.3.5: m = 30, n = 20.
    tall = torch.randn(30, 20)
    svd = aten._linalg_svd.default
    assert flops_of(svd, tall, False, False) == round(4 * 30 * 400 - 4 * 8000 / 3)
    assert flops_of(svd, tall) == flops_of(svd, tall.mT) == 14 * 30 * 400 + 8 * 8000
    assert flops_of(svd, tall, True) == 4 * 900 * 20 + 8 * 30 * 400 + 9 * 8000
    square = spd(20)
    assert flops_of(aten._linalg_eigh.default, square) == 9 * 8000
    assert flops_of(aten._linalg_eigh.default, square, "L", False) == round(4 * 8000 / 3)
    assert flops_of(aten.linalg_eig.default, square) == 25 * 8000
    assert flops_of(aten.linalg_eigvals.default, square) == 10 * 8000
    assert flops_of(aten.linalg_matrix_exp.default, square) == 10 * 8000
    pseudo = 14 * 30 * 400 + 8 * 8000 + oracle.matmul(20, 20, 30)
    assert flops_of(aten.linalg_pinv.atol_rtol_tensor, tall) == pseudo


def test_least_squares():
    a, b = torch.randn(40, 24), torch.randn(40, 5)
    loops = oracle.qr(40, 24) + oracle.apply_q(40, 5, 24) + oracle.triangular_solve(24, 5)
    assert near(flops_of(aten.linalg_lstsq.default, a, b), loops, 40)


def solve_for_itself(a: torch.Tensor) -> torch.Tensor:
    return torch.linalg.solve(a, a)


@pytest.mark.parametrize(
    "call",
    [
        torch.linalg.svd,
        torch.linalg.eigh,
        torch.linalg.qr,
        torch.linalg.cholesky,
        torch.linalg.inv,
        torch.linalg.slogdet,
        solve_for_itself,
    ],
)
def test_complex_ones_cost_four_times_as_much(call):
    costs = []
    for dtype in (torch.float64, torch.complex128):
        matrix = spd(12, dtype)
        with Counting() as counter:
            call(matrix)
        assert counter.of().macs == 0
        costs.append(counter.flops)
    assert abs(costs[1] - 4 * costs[0]) <= 2  # each is rounded by itself
    assert costs[0] > 0


@given(
    left=sizes,
    right=sizes,
    width=sizes,
    p=st.sampled_from([0.0, 1.0, 1.5, 2.0, 3.0, math.inf]),
)
def test_distances(left, right, width, p):
    x = torch.randn(left, width, requires_grad=True)
    y = torch.randn(right, width, requires_grad=True)
    with Counting() as forward:
        out = torch.cdist(x, y, p, "donot_use_mm_for_euclid_dist")
    expected = oracle.distances(left, right, width, p)
    assert forward.of("_cdist_forward") == Cost(expected, 0, 0)
    with Counting() as backward:
        out.sum().backward()
    each = 4 if p in (0.0, 1.0, 2.0, math.inf) else 6
    assert backward.of("_cdist_backward") == Cost(2 * each * left * right * width, 0, 0)


@given(left=sizes, right=sizes, width=sizes)
def test_distances_by_a_product(left, right, width):
    x, y = torch.randn(left, width, requires_grad=True), torch.randn(right, width)
    with Counting() as counter:
        torch.cdist(x, y, 2.0, "use_mm_for_euclid_dist").sum().backward()
    cost = counter.of("_euclidean_dist")
    assert cost.flops == oracle.matmul(left, width + 2, right) == 2 * cost.macs
    assert cost.elementwise == 3 * left * width + 2 * right * width + 2 * left * right
    assert not counter.unknown


@given(n=st.integers(2, 6), width=sizes, p=st.sampled_from([1.0, 2.0, 3.0]))
def test_distances_within(n, width, p):
    x = torch.randn(n, width, requires_grad=True)
    with Counting() as counter:
        torch.pdist(x, p).sum().backward()
    pairs = n * (n - 1) // 2
    assert counter.of("_pdist_forward").flops == oracle.distances(pairs, 1, width, p)
    each = 6 if p == 3.0 else 4
    assert counter.of("_pdist_backward").flops == 2 * each * pairs * width
