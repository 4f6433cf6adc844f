"""Which operators go equally fast: kinds of kernels, told by the operator's name."""

from __future__ import annotations

import enum
import functools
from collections.abc import Mapping
from typing import Final


class Kernel(enum.StrEnum):
    """A kind of kernel whose speed is measured by itself, or falls back to a plain one's."""

    PRODUCT = "products"
    CONVOLUTION = "convolutions"
    CONVOLUTION_BACKWARD = "backward of convolutions"
    ATTENTION = "fused attention"
    TRANSFORM = "Fourier transforms"
    POINTWISE = "pointwise"
    IN_PLACE = "pointwise in place"
    FUNCTION = "exponentials and the like"
    RANDOM = "random numbers"
    NORM = "normalisation"
    SOFTMAX = "softmax"
    MASKED_SOFTMAX = "softmax that minds rows without values"
    POOLING = "pooling"
    SCATTER = "scattered additions"


_NAMES: Final[Mapping[Kernel, str]] = {
    Kernel.PRODUCT: "mm addmm bmm baddbmm addbmm mv addmv dot vdot linear",
    Kernel.CONVOLUTION: "convolution convolution_overrideable _convolution mkldnn_convolution",
    Kernel.CONVOLUTION_BACKWARD: "convolution_backward convolution_backward_overrideable",
    Kernel.ATTENTION: (
        "_scaled_dot_product_flash_attention_for_cpu "
        "_scaled_dot_product_flash_attention_for_cpu_backward"
    ),
    Kernel.TRANSFORM: "_fft_r2c _fft_c2r _fft_c2c",
    Kernel.FUNCTION: (
        "gelu gelu_backward sigmoid silu silu_backward tanh exp expm1 exp2 log log1p log2 log10 "
        "erf erfc erfinv softplus softplus_backward mish mish_backward log_sigmoid_forward "
        "log_sigmoid_backward elu elu_backward sin cos tan asin acos atan atan2 sinh cosh logit "
        "logaddexp"
    ),
    Kernel.RANDOM: (
        "bernoulli bernoulli_ native_dropout normal normal_ uniform uniform_ rand rand_like "
        "randn randn_like exponential_ multinomial randint random_ poisson"
    ),
    Kernel.NORM: (
        "native_batch_norm native_layer_norm native_group_norm _fused_rms_norm "
        "_native_batch_norm_legit _batch_norm_with_update native_batch_norm_backward "
        "native_layer_norm_backward native_group_norm_backward batch_norm_backward "
        "_fused_rms_norm_backward"
    ),
    Kernel.SOFTMAX: ("_softmax _log_softmax _softmax_backward_data _log_softmax_backward_data"),
    Kernel.MASKED_SOFTMAX: "_safe_softmax",
    Kernel.POOLING: (
        "max_pool2d_with_indices max_pool2d_with_indices_backward max_pool3d_with_indices "
        "max_pool3d_with_indices_backward avg_pool1d avg_pool2d avg_pool2d_backward avg_pool3d "
        "avg_pool3d_backward _adaptive_avg_pool2d _adaptive_avg_pool2d_backward "
        "_adaptive_avg_pool3d _adaptive_avg_pool3d_backward adaptive_max_pool2d "
        "adaptive_max_pool2d_backward"
    ),
    Kernel.SCATTER: (
        "index_put index_put_ _index_put_impl_ index_add index_add_ scatter scatter_ scatter_add "
        "scatter_add_ scatter_reduce scatter_reduce_ embedding_dense_backward index_copy "
        "index_copy_ _embedding_bag_dense_backward"
    ),
}
_KERNELS: Final = {name: kernel for kernel, names in _NAMES.items() for name in names.split()}


@functools.cache
def kernel_of(name: str, *, contracts: bool) -> Kernel:
    """Return the kind of kernel that an operator runs.

    Args:
        name: of the operator, as in ``aten.mm.default`` or ``aten.mm``.
        contracts: whether it has FLOPs; one that is not known then goes like a product.

    Example:
        >>> kernel_of("aten.gelu.default", contracts=False)
        <Kernel.FUNCTION: 'exponentials and the like'>
    """
    parts = name.split(".")
    short = parts[1] if len(parts) > 1 else name
    bare = short.removesuffix("_")
    found = _KERNELS.get(short) or _KERNELS.get(bare)
    if found is not None:
        return found
    if contracts:
        return Kernel.PRODUCT
    return Kernel.IN_PLACE if short != bare else Kernel.POINTWISE
