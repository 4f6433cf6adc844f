"""Polar factors: the nearest matrix with orthonormal rows or columns.

``polar(M) = U V^T`` for ``M = U S V^T``. By its decomposition it is exact. By polynomials it takes
nothing but products of matrices: ``X <- a X + b (X X^T) X + c (X X^T)^2 X``, from ``M / |M|_F``,
moves every singular value x to ``a x + b x^3 + c x^5``, and these go to about 1.
"""

from __future__ import annotations

import functools
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from shoestring.core.errors import InputError

METHODS: Final = ("svd", "newton-schulz", "polar-express")

MUON_STEPS: Final = 5
EXPRESS_STEPS: Final = 8
LEAST: Final = 1e-3
"""Singular values from here on, of a matrix of norm 1, are brought to 1 by ``polar-express``."""

MARGIN: Final = 1.01
"""By how much rounding may lift a singular value over where the polynomial is good."""

_CUSHION: Final = 0.02407327424182761
"""Least lower end, as a share of the upper one: below it a polynomial would amplify rounding. As in
the paper's reference implementation, so that the polynomials are the same."""


class Quintic(NamedTuple):
    """The polynomial ``a x + b x^3 + c x^5``."""

    a: float
    b: float
    c: float

    def at(self, x: float) -> float:
        """Return its value.

        Args:
            x: a singular value.
        """
        return x * (self.a + x * x * (self.b + x * x * self.c))


MUON: Final = Quintic(3.4445, -4.7750, 2.0315)
"""Of Jordan et al., Muon (2024): steep at zero; it ends between about 0.7 and 1.2, not at 1."""


def polar(
    matrix: torch.Tensor,
    *,
    method: str = "svd",
    steps: int | None = None,
    dtype: torch.dtype | None = None,
    eps: float = 1e-7,
) -> torch.Tensor:
    """Return the polar factor of a matrix, or of each of a batch.

    Args:
        matrix: ``[..., n, m]``.
        method: ``svd``, exact; ``newton-schulz`` with Muon's fixed polynomial, whose result has
            singular values of about 0.7 to 1.2; ``polar-express`` with the best polynomial of each
            step, whose result is orthogonal up to rounding for singular values from 0.001 of the
            norm.
        steps: of a polynomial method; by default 5 and 8.
        dtype: to compute in, by default the matrix's own.
        eps: norms count at least this, so that zero stays zero.

    Returns:
        ``[..., n, m]``, of the matrix's dtype. What the matrix maps to zero, the factor does, too:
        that of zero is zero.

    Raises:
        InputError: the method is unknown, or takes no steps.

    Source: Amsel et al., The Polar Express (2025), arXiv 2505.16932, for ``polar-express``.

    Example:
        >>> polar(torch.tensor([[2.0, 0.0], [0.0, -3.0]])).tolist()
        [[1.0, 0.0], [0.0, -1.0]]
    """
    if method not in METHODS:
        raise InputError(
            f"there is no polar factor by {method!r}.", hint=f"take one of {', '.join(METHODS)}."
        )
    if method == "svd":
        if steps is not None:
            raise InputError("a decomposition takes no steps.", hint="leave steps= out.")
        return _decomposed(matrix.to(dtype or matrix.dtype)).to(matrix.dtype)
    if method == "newton-schulz":
        polynomials = (MUON,) * (MUON_STEPS if steps is None else steps)
    else:
        polynomials = express(EXPRESS_STEPS if steps is None else steps)
    return _composed(matrix.to(dtype or matrix.dtype), polynomials, eps).to(matrix.dtype)


def _decomposed(matrix: torch.Tensor) -> torch.Tensor:
    if not matrix.numel():
        return torch.zeros_like(matrix)
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    # Vectors of no singular value are whatever the decomposition makes of rounding.
    least = s[..., :1] * max(matrix.shape[-2:]) * torch.finfo(matrix.dtype).eps
    factor: torch.Tensor = (u * (s > least).unsqueeze(-2)) @ v
    return factor


def _composed(matrix: torch.Tensor, polynomials: tuple[Quintic, ...], eps: float) -> torch.Tensor:
    tall = matrix.size(-2) > matrix.size(-1)
    x = matrix.mT if tall else matrix
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=eps)
    shape = x.shape
    x = x.reshape(-1, *shape[-2:]) if x.dim() != 2 else x
    add = torch.addmm if x.dim() == 2 else torch.baddbmm
    for a, b, c in polynomials:
        gram = x @ x.mT
        x = add(x, add(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    x = x.view(shape)
    return x.mT if tall else x


@functools.cache
def express(steps: int, least: float = LEAST) -> tuple[Quintic, ...]:
    """Return the polynomials that bring ``[least, 1]`` nearest to 1 in some steps.

    Each is the best for the interval that those before it leave, so their composition is the best
    there is.

    Args:
        steps: how many.
        least: lower end of what is brought to 1.
    """
    low, high, found = least, 1.0, []
    for step in range(steps):
        best = nearest_to_one(max(low, _CUSHION * high), high)
        if low < _CUSHION * high:  # what lies below the interval counts too
            scale = 2 / (best.at(low) + best.at(high))
            best = Quintic(best.a * scale, best.b * scale, best.c * scale)
        low, high = best.at(low), 2 - best.at(low)
        if step < steps - 1:
            best = Quintic(best.a / MARGIN, best.b / MARGIN**3, best.c / MARGIN**5)
        found.append(best)
    return tuple(found)


def nearest_to_one(low: float, high: float) -> Quintic:
    """Return the odd polynomial of degree 5 that is nearest to 1 between two numbers.

    Remez' exchange: it differs from 1 by as much, with changing sign, at both ends and between.

    Args:
        low: the one, above 0.
        high: the other.
    """
    if 1 - low / high < 1e-5:  # the limit, at one point
        return Quintic(15 / 8 / high, -10 / 8 / high**3, 3 / 8 / high**5)
    inner = (low + np.array([1, 3]) / 4 * (high - low)).astype(np.float64)
    for _ in range(50):
        at: npt.NDArray[np.float64] = np.array([low, *inner, high])
        columns = [at, at**3, at**5, np.array([1.0, -1.0, 1.0, -1.0])]
        a, b, c, _ = np.linalg.solve(np.stack(columns, axis=1), np.ones(4)).tolist()
        extrema = np.sqrt(np.sort(np.roots([5 * c, 3 * b, a]).real))
        if np.allclose(extrema, inner, rtol=1e-14, atol=0):
            break
        inner = extrema
    return Quintic(a, b, c)
