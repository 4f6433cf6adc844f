"""Torch's primitive operators, which graphs of compiled models are made of in part."""

from __future__ import annotations

from typing import Any, Final

from shoestring.measure.formulas.algorithms import ALGORITHMS
from shoestring.measure.formulas.cost import Arguments, Cost, Formula, Options
from shoestring.measure.formulas.pointwise import per_input, per_output
from shoestring.measure.formulas.pooling import POOLING
from shoestring.measure.formulas.reductions import SUMS

_POINTWISE: Final = """
abs acos acosh add asin asinh atan atan2 atanh bessel_i0 bessel_i0e bessel_i1 bessel_i1e bessel_j0
bessel_j1 bitwise_and bitwise_not bitwise_or bitwise_xor cbrt ceil conj_physical cos cosh digamma
div eq erf erf_inv erfc erfcx exp exp2 expm1 floor fmod frexp gcd ge gt hypot igamma igammac
inductor_cvt_e8m0_rceil isfinite le lgamma log log10 log1p log2 lt maximum minimum mul ndtri ne
neg nextafter pow reciprocal remainder round rsqrt shift_left shift_right_arithmetic sign signbit
sin sinh spherical_bessel_j0 sqrt sub tan tanh trunc where zeta
"""

_MOVEMENT: Final = """
_make_token _sink_tokens as_strided as_strided_scatter broadcast_in_dim cat clone collapse
collapse_view conj convert_element_type copy_strided copy_to device_put empty empty_permuted
empty_strided fill full full_like inductor_force_stride_order inductor_lookup_seed
inductor_rand_eager_offset inductor_rand_eager_offsets inductor_randint inductor_random
inductor_seed inductor_seeds iota item maximum_value minimum_value normal reshape resize rev
scalar_tensor slice split_dim squeeze transpose uniform view_of view_of_dtype
_low_memory_max_pool_offsets_to_indices
"""


def _transform(name: str) -> Formula:
    """Return the formula of a transform whose dimensions are given by name."""
    inner = ALGORITHMS[name]

    def formula(args: Arguments, kwargs: Options, out: Any) -> Cost | None:
        return inner((args[0], kwargs["dim"]), {}, out)

    return formula


def _svd(args: Arguments, kwargs: Options, out: Any) -> Cost | None:
    """``svd(A, *, full_matrices)``."""
    return ALGORITHMS["aten::_linalg_svd"]((args[0], kwargs["full_matrices"]), {}, out)


def _pooled(args: Arguments, kwargs: Options, out: Any) -> Cost | None:
    """``_low_memory_max_pool_with_offsets(self, kernel_size, ...)``."""
    return POOLING[f"aten::max_pool{len(args[1])}d_with_indices"](args, kwargs, out)


PRIMITIVES: Final[dict[str, Formula]] = {
    **{f"prims::{name}": per_output(1) for name in _POINTWISE.split()},
    **{f"prims::{name}": per_input(1) for name in ("amax", "amin", "prod", "sum", "xor_sum")},
    "prims::prepare_softmax_online": per_input(4),  # the largest, the difference, exp, the sum
    "prims::fft_c2c": _transform("aten::_fft_c2c"),
    "prims::fft_r2c": _transform("aten::_fft_r2c"),
    "prims::fft_c2r": _transform("aten::_fft_c2r"),
    "prims::svd": _svd,
    "prims::_low_memory_max_pool_with_offsets": _pooled,
    "prims::_unsafe_index_put": SUMS["aten::index_put"],
}
"""Formulas of primitives, by their name."""

MOVED: Final = frozenset(f"prims::{name}" for name in _MOVEMENT.split()) | {
    "rngprims::philox_rand",
    "inductor_prims::inductor_reserve_rng_state",
    "debugprims::load_tensor",
}
"""Primitives that compute nothing."""
