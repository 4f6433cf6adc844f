"""Pooling, interpolation and sampling of grids: scalar operations.

A window of k inputs is k operations (comparisons, or sums and the quotient). Interpolation from c
corners is a product for each and c - 1 sums; its gradient a product and a sum for each. What
depends on a position alone (weights of corners) is left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from shoestring.measure.formulas.cost import (
    FREE,
    Arguments,
    Cost,
    Formula,
    Options,
    elements,
)


def _window(sizes: Sequence[int], rank: int) -> int:
    """Return the inputs of a window; one size serves all dimensions."""
    return int(sizes[0]) ** rank if len(sizes) == 1 else math.prod(sizes)


def _pooled(rank: int) -> Formula:
    """Return the formula of ``(self, kernel_size, ...)``."""

    def formula(args: Arguments, kwargs: Options, out: Any) -> Cost:
        result = out[0] if isinstance(out, (tuple, list)) else out
        sizes = args[1] if isinstance(args[1], (tuple, list)) else [args[1]]
        return Cost(0, 0, elements(result) * _window(sizes, rank))

    return formula


def _mean_backward(rank: int) -> Formula:
    """Return the formula of ``(grad_output, self, kernel_size, ...)``: a quotient, then sums."""

    def formula(args: Arguments, kwargs: Options, out: Any) -> Cost:
        return Cost(0, 0, elements(args[0]) * (1 + _window(args[2], rank)))

    return formula


def _largest_backward(args: Arguments, kwargs: Options, out: Any) -> Cost:
    """``(grad_output, ...)``: each gradient is added to one place."""
    return Cost(0, 0, elements(args[0]))


def _windows(inputs: Sequence[int], outputs: Sequence[int]) -> int:
    """Return the inputs of all windows of an adaptive pooling.

    Window i of o reaches from floor(i n / o) to ceil((i + 1) n / o): neighbours overlap by one
    except where i n / o is whole, so their lengths sum to n + o - gcd(n, o).
    """
    return math.prod(n + o - math.gcd(n, o) for n, o in zip(inputs, outputs, strict=True))


def _adaptive(rank: int) -> Formula:
    """Return the formula of ``(self, output_size)``."""

    def formula(args: Arguments, kwargs: Options, out: Any) -> Cost:
        inputs, result = args[0], out[0] if isinstance(out, (tuple, list)) else out
        if not elements(inputs):
            return FREE
        planes = math.prod(inputs.shape[:-rank])
        return Cost(0, 0, planes * _windows(inputs.shape[-rank:], result.shape[-rank:]))

    return formula


def _adaptive_mean_backward(rank: int) -> Formula:
    """Return the formula of ``(grad_output, self)``: a quotient, then a sum for each input."""

    def formula(args: Arguments, kwargs: Options, out: Any) -> Cost:
        grad, inputs = args[0], args[1]
        planes = math.prod(grad.shape[:-rank])
        windows = _windows(inputs.shape[-rank:], grad.shape[-rank:])
        return Cost(0, 0, planes * windows + grad.numel() if elements(grad) else 0)

    return formula


def _interpolated(corners: int) -> Formula:
    """Return the formula of an interpolation from so many corners."""

    def formula(args: Arguments, kwargs: Options, out: Any) -> Cost:
        return Cost(0, 0, (2 * corners - 1) * elements(out))

    return formula


def _interpolated_backward(corners: int) -> Formula:
    """Return the formula of ``(grad_output, ...)``; nearest neighbours are only summed."""

    def formula(args: Arguments, kwargs: Options, out: Any) -> Cost:
        return Cost(0, 0, (2 * corners if corners > 1 else 1) * elements(args[0]))

    return formula


def _corners(mode: int, rank: int) -> int:
    """Return the corners of ``interpolation_mode``: linear, nearest, cubic."""
    return (int(2**rank), 1, int(4**rank))[mode]


def _grid(rank: int) -> Formula:
    """Return the formula of ``(input, grid, interpolation_mode, ...)``."""

    def formula(args: Arguments, kwargs: Options, out: Any) -> Cost:
        corners = _corners(args[2], rank)
        return Cost(0, 0, (2 * corners - 1) * elements(out) if corners > 1 else 0)

    return formula


def _grid_backward(rank: int) -> Formula:
    """Return the formula of ``(grad_output, input, grid, mode, ..., output_mask)``.

    A product and a sum for each corner, for the input and for each coordinate of the grid.
    """

    def formula(args: Arguments, kwargs: Options, out: Any) -> Cost:
        corners = _corners(args[3], rank)
        wanted = args[6] if len(args) > 6 else (True, True)
        each = int(wanted[0]) + (rank if wanted[1] and corners > 1 else 0)
        return Cost(0, 0, 2 * corners * each * elements(args[0]))

    return formula


def _affine(rank: int) -> Formula:
    """Return the formula of a grid of ``theta [N, d, d + 1]``: 2 (d + 1) for each coordinate."""

    def formula(args: Arguments, kwargs: Options, out: Any) -> Cost:
        return Cost(0, 0, 2 * (out.shape[-1] + 1) * elements(out))

    return formula


def _smoothed(reach: int, *, backward: bool) -> Formula:
    """Return the formula of a resize with antialiasing, first along lines, then across them.

    A window reaches ``reach`` pixels, of the result where that is the smaller image; each of its
    inputs is a product and a sum.
    """

    def formula(args: Arguments, kwargs: Options, out: Any) -> Cost:
        source, result = (out, args[0]) if backward else (args[0], out)
        if not elements(args[0]):
            return FREE
        windows = [
            min(n, math.ceil(reach * max(1.0, n / o)))
            for n, o in zip(source.shape[-2:], result.shape[-2:], strict=True)
        ]
        lines = math.prod(source.shape[:-1]) * result.shape[-1]
        return Cost(0, 0, 2 * (lines * windows[1] + result.numel() * windows[0]))

    return formula


_SMOOTHED: Final = {"bilinear": 2, "bicubic": 4, "lanczos": 6}

_LINEAR: Final = {
    "upsample_linear1d": 2,
    "upsample_bilinear2d": 4,
    "upsample_trilinear3d": 8,
    "upsample_bicubic2d": 16,
}

_NEAREST: Final = tuple(
    f"{prefix}upsample_nearest{exact}{rank}d"
    for prefix, exact in (("", ""), ("_", "_exact"))
    for rank in (1, 2, 3)
)

POOLING: Final[dict[str, Formula]] = {
    **{
        f"aten::{name}": _pooled(rank)
        for rank in (1, 2, 3)
        for name in (
            f"avg_pool{rank}d",
            f"max_pool{rank}d_with_indices",
            f"quantized_max_pool{rank}d",
        )
    },
    **{
        f"aten::{name}_max_pool{rank}d": _pooled(rank)
        for rank in (2, 3)
        for name in ("mkldnn", "fractional")
    },
    **{f"aten::avg_pool{rank}d_backward": _mean_backward(rank) for rank in (2, 3)},
    "aten::max_pool2d_backward": _largest_backward,
    **{
        f"aten::{name}_backward": _largest_backward
        for rank in (2, 3)
        for name in (
            f"max_pool{rank}d_with_indices",
            f"mkldnn_max_pool{rank}d",
            f"fractional_max_pool{rank}d",
            f"adaptive_max_pool{rank}d",
        )
    },
    "aten::adaptive_avg_pool1d": _adaptive(1),
    "aten::adaptive_max_pool1d": _adaptive(1),
    **{
        f"aten::{name}{rank}d": _adaptive(rank)
        for rank in (2, 3)
        for name in ("adaptive_avg_pool", "_adaptive_avg_pool", "adaptive_max_pool")
    },
    "aten::mkldnn_adaptive_avg_pool2d": _adaptive(2),
    "aten::mkldnn_adaptive_avg_pool2d_backward": _adaptive_mean_backward(2),
    "aten::_adaptive_avg_pool2d_backward": _adaptive_mean_backward(2),
    "aten::_adaptive_avg_pool3d_backward": _adaptive_mean_backward(3),
    "aten::adaptive_avg_pool3d_backward": _adaptive_mean_backward(3),
    **{f"aten::{name}": _interpolated(corners) for name, corners in _LINEAR.items()},
    **{
        f"aten::{name}_backward": _interpolated_backward(corners)
        for name, corners in _LINEAR.items()
    },
    **{f"aten::{name}_backward": _interpolated_backward(1) for name in _NEAREST},
    **{
        f"aten::_upsample_{name}2d_aa{suffix}": _smoothed(reach, backward=bool(suffix))
        for name, reach in _SMOOTHED.items()
        for suffix in ("", "_backward")
    },
    **{f"aten::{name}": lambda args, kwargs, out: FREE for name in _NEAREST},
    **{
        f"aten::{name}": _grid(rank)
        for name, rank in (
            ("grid_sampler_2d", 2),
            ("grid_sampler_3d", 3),
            ("_grid_sampler_2d_cpu_fallback", 2),
        )
    },
    **{
        f"aten::{name}_backward": _grid_backward(rank)
        for name, rank in (
            ("grid_sampler_2d", 2),
            ("grid_sampler_3d", 3),
            ("_grid_sampler_2d_cpu_fallback", 2),
        )
    },
    "aten::affine_grid_generator": _affine(2),
    "aten::cudnn_affine_grid_generator": _affine(2),
}
"""Formulas of pooling, interpolation and grids, by the operator's name."""
