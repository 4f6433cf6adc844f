"""Random matrices whose rows or columns are orthonormal, whichever are fewer.

Of ``n x m`` entries, with ``N = max(n, m)`` and ``k = min(n, m)``, each kind has
``E^T E = I`` (or ``E E^T = I``) exactly, entries of mean zero and of variance ``1 / N``:

- ``haar``: the Q factor of Gaussians, each column times the sign of R's diagonal; it is distributed
  as the polar factor of Gaussians. O(N k^2).
- ``householder``: two reflections, rolled, with random signs; two products of vectors. O(n m).
- ``permutation``: k entries, of 1 or -1, in rows and columns that are chosen at random. O(k).
- ``hadamard``: ``a_i b_j H_ij / sqrt(N)`` with random signs a, b. O(n m), and the fastest of those
  that fill the matrix. Where no Hadamard matrix has the order N, the largest below fills rows and
  columns that are chosen at random; if columns are left over, they are ``haar`` in the rows left.
- ``butterfly``: block-diagonal, permuted, block-diagonal, of blocks of about sqrt(N) that are
  ``haar``. O(N^1.5 k), of any order.

Source: Stewart, The efficient generation of random orthogonal matrices (1980), for ``haar``.
"""

from __future__ import annotations

import abc
import itertools
import math
from collections.abc import Callable, Mapping
from typing import Final

import torch

from shoestring.core.errors import InputError
from shoestring.kernels.hadamard import largest_order
from shoestring.kernels.hadamard_signs import HadamardSigns
from shoestring.kernels.streams import signs, stream_key


class SemiOrthogonal(abc.ABC):
    """A random matrix with orthonormal rows or columns.

    Attributes:
        rows: n.
        cols: m.
    """

    def __init__(self, rows: int, cols: int) -> None:
        self.rows, self.cols = rows, cols

    @abc.abstractmethod
    def add_to(self, matrix: torch.Tensor, scale: float) -> None:
        """Add a multiple of this matrix to another one, in place.

        Args:
            matrix: n rows, m columns; of any strides.
            scale: the factor.
        """

    def dense(
        self, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
    ) -> torch.Tensor:
        """Return the matrix.

        Args:
            dtype: of the result.
            device: of the result.
        """
        matrix = torch.zeros(self.rows, self.cols, dtype=dtype, device=device)
        self.add_to(matrix, 1.0)
        return matrix


def semiorthogonal(kind: str, rows: int, cols: int, key: int) -> SemiOrthogonal:
    """Draw a matrix; the same key gives the same one.

    Args:
        kind: ``haar``, ``householder``, ``permutation``, ``hadamard`` or ``butterfly``.
        rows: n.
        cols: m.
        key: of `stream_key`.

    Raises:
        InputError: the kind is unknown.

    Example:
        >>> e = semiorthogonal("hadamard", 4, 2, key=1).dense()
        >>> (e.T @ e).tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    if kind not in KINDS:
        raise InputError(
            f"there is no semi-orthogonal matrix of kind {kind!r}.",
            hint=f"take one of {', '.join(KINDS)}.",
        )
    return KINDS[kind](rows, cols, key)


class _Dense(SemiOrthogonal):
    """A matrix that is held as a whole."""

    def __init__(self, rows: int, cols: int, tall: torch.Tensor) -> None:
        super().__init__(rows, cols)
        self._matrix = tall if rows >= cols else tall.T

    def add_to(self, matrix: torch.Tensor, scale: float) -> None:
        """Add a multiple of it; see `SemiOrthogonal.add_to`."""
        matrix.add_(self._matrix.to(matrix), alpha=scale)


def _haar(rows: int, cols: int, key: int) -> SemiOrthogonal:
    size, few = max(rows, cols), min(rows, cols)
    return _Dense(rows, cols, _orthonormal(_generator(key), 1, size, few)[0])


def _orthonormal(generator: torch.Generator, count: int, size: int, few: int) -> torch.Tensor:
    gaussian = torch.randn(count, size, few, generator=generator)
    q, r = torch.linalg.qr(gaussian)
    columns: torch.Tensor = q * r.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)
    return columns


def _butterfly(rows: int, cols: int, key: int) -> SemiOrthogonal:
    size, few = max(rows, cols), min(rows, cols)
    generator = _generator(key)
    edges = [size * b // math.isqrt(size) for b in range(math.isqrt(size) + 1)]
    order = torch.randperm(size, generator=generator)
    right = torch.zeros(size, few)
    for begin, end in itertools.pairwise(edges):
        block = _orthonormal(generator, 1, end - begin, end - begin)[0]
        right[begin:end, begin:end] = block[:, : max(0, few - begin)]
    shuffled = right[order]
    for begin, end in itertools.pairwise(edges):
        block = _orthonormal(generator, 1, end - begin, end - begin)[0]
        shuffled[begin:end] = block @ shuffled[begin:end]
    return _Dense(rows, cols, shuffled)


class _Householder(SemiOrthogonal):
    """``D_a R (I - 2 u u^T) J (I - 2 v v^T) D_b``: signs, a roll, two reflections."""

    def __init__(self, rows: int, cols: int, key: int) -> None:
        super().__init__(rows, cols)
        size, few = max(rows, cols), min(rows, cols)
        generator = _generator(key)
        u, v = (
            torch.nn.functional.normalize(torch.randn(c, generator=generator), dim=0)
            for c in (size, few)
        )
        padded = torch.nn.functional.pad(v, (0, size - few))
        shift = int(torch.randint(size, (), generator=generator))
        down, across = signs(stream_key(key, 0), size), signs(stream_key(key, 1), few)
        # J - 2 u (J^T u - 2 (u.Jv) v)^T - 2 (J v) v^T
        second = u[:few] - 2 * (u @ padded) * v
        self._left = torch.stack([u, padded]).roll(shift, 1) * down * -2
        self._right = torch.stack([second, v]) * across
        self._at = (torch.arange(few) + shift) % size
        self._ones = down[self._at] * across

    def add_to(self, matrix: torch.Tensor, scale: float) -> None:
        """Add a multiple of it; see `SemiOrthogonal.add_to`."""
        tall = matrix if self.rows >= self.cols else matrix.T
        for left, right in zip(self._left.to(tall), self._right.to(tall), strict=True):
            tall.addr_(left, right, alpha=scale)
        at = self._at.to(tall.device)
        across = torch.arange(len(at), device=tall.device)
        tall.index_put_((at, across), self._ones.to(tall) * scale, accumulate=True)


class _Permutation(SemiOrthogonal):
    """Ones and minus ones, no two of them in one row or one column."""

    def __init__(self, rows: int, cols: int, key: int) -> None:
        super().__init__(rows, cols)
        few = min(rows, cols)
        self._at = torch.randperm(max(rows, cols), generator=_generator(key))[:few]
        self._ones = signs(stream_key(key, 0), few)

    def add_to(self, matrix: torch.Tensor, scale: float) -> None:
        """Add a multiple of it; see `SemiOrthogonal.add_to`."""
        tall = matrix if self.rows >= self.cols else matrix.T
        at = self._at.to(tall.device)
        across = torch.arange(len(at), device=tall.device)
        tall.index_put_((at, across), self._ones.to(tall) * scale, accumulate=True)


class _Hadamard(SemiOrthogonal):
    """``a_i b_j H_ij / sqrt(N)``, and what it leaves over."""

    def __init__(self, rows: int, cols: int, key: int) -> None:
        super().__init__(rows, cols)
        size, few = max(rows, cols), min(rows, cols)
        self._order = largest_order(size)
        long, short = _places(size, self._order, key, 0), _places(few, self._order, key, 1)
        down, across = (long, short) if rows >= cols else (short, long)
        self._signs = HadamardSigns(down, across, self._order, stream_key(key, 2))
        self._rest = (down < 0).nonzero().view(-1), (across < 0).nonzero().view(-1)
        self._corner = _haar(len(self._rest[0]), len(self._rest[1]), stream_key(key, 3))

    def add_to(self, matrix: torch.Tensor, scale: float) -> None:
        """Add a multiple of it; see `SemiOrthogonal.add_to`."""
        self._signs.add_to(matrix, scale / math.sqrt(self._order))
        down, across = (places.to(matrix.device) for places in self._rest)
        if len(down) and len(across):
            corner = self._corner.dense(matrix.dtype, matrix.device) * scale
            matrix.index_put_((down.unsqueeze(1), across), corner, accumulate=True)


def _places(count: int, order: int, key: int, side: int) -> torch.Tensor:
    """Return for each row or column its place in a smaller matrix, or -1; all by chance."""
    places = torch.arange(count)
    if count > order:
        left_out = torch.randperm(count, generator=_generator(stream_key(key, 4, side)))[order:]
        places = torch.ones(count, dtype=torch.int64).index_fill_(0, left_out, 0)
        places = torch.where(places > 0, places.cumsum(0) - 1, -1)
    return places


KINDS: Final[Mapping[str, Callable[[int, int, int], SemiOrthogonal]]] = {
    "haar": _haar,
    "householder": _Householder,
    "permutation": _Permutation,
    "hadamard": _Hadamard,
    "butterfly": _butterfly,
}
"""How each kind is drawn, from rows, columns and a key."""


def _generator(key: int) -> torch.Generator:
    return torch.Generator().manual_seed(key)
