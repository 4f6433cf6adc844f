"""Algorithms that are no plain contraction: FFT, factorisations, distances.

Textbook formulas on real numbers, of leading terms; complex ones cost 4 times as much. m x n is
the matrix, k = min(m, n), r the columns of a right-hand side; every count is times the batch.

| what | FLOPs |
|---|---|
| FFT of n, complex; real in or out | 5 n log2 n; half of it |
| Cholesky; LDL; from it an inverse; solve | n^3/3; n^3/3; 2n^3/3; 2n^2 r |
| LU | 2mnk - (m+n)k^2 + 2k^3/3, which is 2n^3/3 when square |
| determinant; inverse; solve | LU; 2n^3; LU and 2n^2 r |
| triangular solve | n^2 r |
| QR, R alone | 4mnk - 2(m+n)k^2 + 4k^3/3 |
| Q with c columns from k reflectors | 4mck - 2(m+c)k^2 + 4k^3/3 |
| Q times m x r | 4mrk - 2rk^2 |
| singular values, m >= n | 4mn^2 - 4n^3/3 |
| with thin vectors; with all | 14mn^2 + 8n^3; 4m^2n + 8mn^2 + 9n^3 |
| symmetric eigenvalues; with vectors | 4n^3/3; 9n^3 |
| eigenvalues; with vectors | 10n^3; 25n^3 |
| least squares | QR, Q times the right-hand side, a triangular solve |
| matrix exponential | 5 products for the polynomial: 10n^3; its squarings depend on data |

Source: G. H. Golub and C. F. Van Loan, Matrix Computations, 4th ed., Johns Hopkins, 2013,
chapters 1, 3, 4, 5, 7, 8; LAPACK Working Note 41, appendix C; for the FFT the operation count of
the radix-2 algorithm with a complex sum of 2 and a product of 6 operations.
"""

from __future__ import annotations

import math
from typing import Any, Final

from shoestring.measure.formulas.cost import (
    Arguments,
    Cost,
    Formula,
    Options,
    algorithm,
    contraction,
    elements,
    optional,
)

# --- Fourier transforms ----------------------------------------------------------------------


def _fft(args: Arguments, kwargs: Options, out: Any) -> Cost:
    """``_fft_c2c(self, dim, ...)``: over several dimensions, 5 N log2 of the transform's size."""
    shape = args[0].shape
    size = math.prod(shape[d] for d in args[1])
    return Cost(round(5 * args[0].numel() * math.log2(size)) if size else 0, 0, 0)


def _fft_from_real(args: Arguments, kwargs: Options, out: Any) -> Cost:
    """``_fft_r2c(self, dim, ...)``: half of the transform of as many complex numbers."""
    cost = _fft(args, kwargs, out)
    return Cost(cost.flops // 2, 0, 0)


def _fft_to_real(args: Arguments, kwargs: Options, out: Any) -> Cost:
    """``_fft_c2r(self, dim, normalization, last_dim_size)``: half, of the real sizes."""
    cost = _fft((out, args[1]), kwargs, out)
    return Cost(cost.flops // 2, 0, 0)


# --- factorisations --------------------------------------------------------------------------


def _sizes(matrix: Any) -> tuple[int, int, int]:
    """Return the batch, rows and columns of [..., m, n]."""
    return math.prod(matrix.shape[:-2]), matrix.shape[-2], matrix.shape[-1]


def _lu(m: int, n: int) -> float:
    k = min(m, n)
    return 2 * m * n * k - (m + n) * k * k + 2 * k**3 / 3


def _q(m: int, columns: int, k: int) -> float:
    return 4 * m * columns * k - 2 * (m + columns) * k * k + 4 * k**3 / 3


def _svd(m: int, n: int, *, vectors: bool, full: bool) -> float:
    m, n = max(m, n), min(m, n)
    if not vectors:
        return 4 * m * n * n - 4 * n**3 / 3
    return 4 * m * m * n + 8 * m * n * n + 9 * n**3 if full else 14 * m * n * n + 8 * n**3


def _cube(factor: float) -> Formula:
    """Return the formula of ``factor`` n^3 for a square matrix."""

    def formula(args: Arguments, kwargs: Options, out: Any) -> Cost:
        batch, n, _ = _sizes(args[0])
        return algorithm(factor * batch * n**3, args[0])

    return formula


def _lu_factor(args: Arguments, kwargs: Options, out: Any) -> Cost:
    """LU of [..., m, n]."""
    batch, m, n = _sizes(args[0])
    return algorithm(batch * _lu(m, n), args[0])


def _solved(matrix: int, right: int, factor: float) -> Formula:
    """Return the formula of ``factor`` n numbers for each number of the right-hand side."""

    def formula(args: Arguments, kwargs: Options, out: Any) -> Cost:
        result = out[0] if isinstance(out, (tuple, list)) else out
        numbers = args[right].numel() if result is None else result.numel()
        return algorithm(factor * args[matrix].shape[-1] * numbers, args[matrix])

    return formula


def _solve(args: Arguments, kwargs: Options, out: Any) -> Cost:
    """``_linalg_solve_ex(A, B)``: LU, then two triangular solves for each column."""
    batch, n, _ = _sizes(args[0])
    return algorithm(batch * _lu(n, n) + 2 * n * out[0].numel(), args[0])


def _qr(args: Arguments, kwargs: Options, out: Any) -> Cost:
    """``linalg_qr(A, mode)``: "r" makes no Q, "reduced" k columns of it, "complete" all m."""
    batch, m, n = _sizes(args[0])
    k, mode = min(m, n), optional(args, 1, "reduced")
    flops = _q(m, n, k)
    if mode != "r":
        flops += _q(m, m if mode == "complete" else k, k)
    return algorithm(batch * flops, args[0])


def _reflectors(args: Arguments, kwargs: Options, out: Any) -> Cost:
    """``geqrf(self)``."""
    batch, m, n = _sizes(args[0])
    return algorithm(batch * _q(m, n, min(m, n)), args[0])


def _householder(args: Arguments, kwargs: Options, out: Any) -> Cost:
    """``linalg_householder_product(input [m, n], tau [k])``."""
    batch, m, n = _sizes(args[0])
    return algorithm(batch * _q(m, n, args[1].shape[-1]), args[0])


def _apply_q(args: Arguments, kwargs: Options, out: Any) -> Cost:
    """``ormqr(self, tau, other, left, transpose)``: Q times other, or other times Q."""
    batch, m, n = _sizes(args[2])
    k = args[1].shape[-1]
    if not optional(args, 3, default=True):
        m, n = n, m
    return algorithm(batch * (4 * m * n * k - 2 * n * k * k), args[0])


def _svd_call(args: Arguments, kwargs: Options, out: Any) -> Cost:
    """``_linalg_svd(A, full_matrices, compute_uv)``."""
    batch, m, n = _sizes(args[0])
    full, vectors = bool(optional(args, 1, False)), bool(optional(args, 2, True))
    return algorithm(batch * _svd(m, n, vectors=vectors, full=full), args[0])


def _eigh(args: Arguments, kwargs: Options, out: Any) -> Cost:
    """``_linalg_eigh(A, UPLO, compute_v)``."""
    batch, n, _ = _sizes(args[0])
    return algorithm((9.0 if optional(args, 2, True) else 4 / 3) * batch * n**3, args[0])


def _pseudo_inverse(args: Arguments, kwargs: Options, out: Any) -> Cost:
    """Thin SVD, and the product of its parts."""
    batch, m, n = _sizes(args[0])
    product = 2 * m * n * min(m, n)
    return algorithm(batch * (_svd(m, n, vectors=True, full=False) + product), args[0])


def _least_squares(args: Arguments, kwargs: Options, out: Any) -> Cost:
    """``linalg_lstsq(self [m, n], b [m, r])``."""
    batch, m, n = _sizes(args[0])
    right = args[1].shape[-1] if args[1].dim() == args[0].dim() else 1
    m, n = max(m, n), min(m, n)
    flops = _q(m, n, n) + 4 * m * right * n - 2 * right * n * n + n * n * right
    return algorithm(batch * flops, args[0])


# --- distances -------------------------------------------------------------------------------


def _apart(p: float, *, backward: bool) -> int:
    """Return the scalar operations for each coordinate of a pair: see `_distances`."""
    common = p in (0.0, 1.0, 2.0, math.inf)
    if backward:
        return 4 if common else 6
    return 3 if common else 4


def _roots(p: float) -> int:
    return int(p not in (0.0, 1.0, math.inf))


def _distances(args: Arguments, kwargs: Options, out: Any) -> Cost:
    """``_cdist_forward(x1 [.., P, M], x2 [.., R, M], p)``, without a product.

    A difference, its absolute value or square (for other p also its power) and a sum for each
    coordinate; a root for each pair.
    """
    pairs, width, p = out.numel(), args[0].shape[-1], args[2]
    return algorithm(pairs * (_apart(p, backward=False) * width + _roots(p)), args[0])


def _distances_backward(args: Arguments, kwargs: Options, out: Any) -> Cost:
    """``(grad [.., P, R], x1, x2, p, cdist)``: the gradient of x1.

    A difference, a product, a quotient (or a sign) and a sum for each coordinate; for other p
    the absolute value and its power too.
    """
    each = _apart(args[3], backward=True)
    return algorithm(each * args[0].numel() * args[1].shape[-1], args[0])


def _euclidean(args: Arguments, kwargs: Options, out: Any) -> Cost:
    """``_euclidean_dist(x1 [.., P, M], x2 [.., R, M])`` by one product of M + 2 columns.

    [-2 x1, |x1|^2, 1] [x2, 1, |x2|^2]'; then no less than zero, and the root. Elementwise: the
    scale, squares and their sums.
    """
    left, right = args[0], args[1]
    macs = out.numel() * (left.shape[-1] + 2)
    return contraction(macs, left, 3 * elements(left) + 2 * elements(right) + 2 * elements(out))


def _pairs_within(args: Arguments, kwargs: Options, out: Any) -> Cost:
    """``_pdist_forward(self [N, M], p)``: as `_distances`, for N (N - 1) / 2 pairs."""
    n, width = args[0].shape
    p = args[1] if len(args) > 1 else 2.0
    pairs = n * (n - 1) // 2
    return algorithm(pairs * (_apart(p, backward=False) * width + _roots(p)), args[0])


def _pairs_within_backward(args: Arguments, kwargs: Options, out: Any) -> Cost:
    """``_pdist_backward(grad, self, p, pdist)``: both rows of a pair get a gradient."""
    n, width = args[1].shape
    return algorithm(n * (n - 1) * width * _apart(args[2], backward=True), args[1])


ALGORITHMS: Final[dict[str, Formula]] = {
    "aten::_fft_c2c": _fft,
    "aten::_fft_r2c": _fft_from_real,
    "aten::_fft_c2r": _fft_to_real,
    **dict.fromkeys(("aten::linalg_cholesky_ex", "aten::cholesky"), _cube(1 / 3)),
    "aten::linalg_ldl_factor_ex": _cube(1 / 3),
    "aten::cholesky_inverse": _cube(2 / 3),
    **dict.fromkeys(("aten::cholesky_solve", "aten::_cholesky_solve_helper"), _solved(1, 0, 2)),
    "aten::linalg_ldl_solve": _solved(0, 2, 2),
    **dict.fromkeys(("aten::linalg_lu", "aten::linalg_lu_factor_ex"), _lu_factor),
    **dict.fromkeys(("aten::_linalg_det", "aten::_linalg_slogdet"), _lu_factor),
    "aten::linalg_lu_solve": _solved(0, 2, 2),
    "aten::_linalg_solve_ex": _solve,
    "aten::linalg_inv_ex": _cube(2),
    "aten::linalg_solve_triangular": _solved(0, 1, 1),
    "aten::triangular_solve": _solved(1, 0, 1),
    "aten::linalg_qr": _qr,
    "aten::geqrf": _reflectors,
    "aten::linalg_householder_product": _householder,
    "aten::ormqr": _apply_q,
    "aten::_linalg_svd": _svd_call,
    "aten::_linalg_eigh": _eigh,
    "aten::linalg_eig": _cube(25),
    **dict.fromkeys(("aten::linalg_eigvals", "aten::_linalg_eigvals"), _cube(10)),
    "aten::linalg_pinv": _pseudo_inverse,
    "aten::linalg_lstsq": _least_squares,
    "aten::linalg_matrix_exp": _cube(10),
    "aten::_cdist_forward": _distances,
    "aten::_cdist_backward": _distances_backward,
    "aten::_euclidean_dist": _euclidean,
    "aten::_pdist_forward": _pairs_within,
    "aten::_pdist_backward": _pairs_within_backward,
}
"""Formulas of algorithms, by the operator's name without its overload."""
