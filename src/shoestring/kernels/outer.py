"""The product of two vectors of signs, added to a matrix and settled in one pass over it."""

from __future__ import annotations

import functools
import types

import numpy as np
import torch
from torch.autograd.graph import increment_version

from shoestring.kernels.stages import Stages
from shoestring.kernels.streams import add_signs_
from shoestring.kernels.streams_native import share

_WIDE = {torch.float32: np.float32, torch.float64: np.float64}


def add_outer_(
    matrix: torch.Tensor, u: torch.Tensor, v: torch.Tensor, scale: float, *, radius: float = 0.0
) -> None:
    """Add a multiple of the product of two vectors of signs: ``x_ij <- x_ij + scale u_i v_j``.

    Each entry is rounded once, so that all forms give the same bits. Then it is settled, if that is
    asked for: rounded so that the radius can be added and taken away; see `stages.Stages`.

    Args:
        matrix: ``[n, m]``, of any strides. Its version is raised, so that autograd notices.
        u: n signs, in the matrix's dtype.
        v: m signs.
        scale: the factor.
        radius: what the matrix is settled for; 0 for nothing.

    Example:
        >>> x, signs = torch.zeros(2, 2), torch.tensor([1.0, -1.0])
        >>> add_outer_(x, signs, signs, 0.5)
        >>> x.tolist()
        [[0.5, -0.5], [-0.5, 0.5]]
    """
    loops = _loops() if _is_plain(matrix) and matrix.numel() else None
    if loops is None:
        matrix.addcmul_(u.unsqueeze(1), v.unsqueeze(0), value=scale)
        if radius > 0:
            add_signs_(matrix, [], [], stages=Stages(radius=radius))
        return
    wide = _WIDE[matrix.dtype]
    arrays = [tensor.detach().contiguous().numpy() for tensor in (matrix, u, v)]
    terms = (*arrays, wide(scale), wide(radius))
    share(lambda first, last: loops.add_outer(*terms, first, last), len(matrix), matrix.numel())
    increment_version(matrix)


def _is_plain(matrix: torch.Tensor) -> bool:
    on_cpu = matrix.device.type == "cpu" and matrix.dtype in _WIDE
    return on_cpu and matrix.is_contiguous() and type(matrix) in (torch.Tensor, torch.nn.Parameter)


@functools.cache
def _loops() -> types.ModuleType | None:
    """Import what numba compiles; None where numba cannot be imported."""
    try:
        from shoestring.kernels import outer_numba
    except ImportError:
        return None
    return outer_numba
