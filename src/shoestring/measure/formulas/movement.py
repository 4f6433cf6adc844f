"""Operators that compute nothing: what they cost is bytes.

Factories, copies, casts, views, gathers, padding, random draws (a generator's work is on
integers), look-ups of metadata, checks, and messages between processes. Views, and copies that
stand for views, need not be named: torch marks them.
"""

from __future__ import annotations

from typing import Final

_FACTORIES: Final = """
arange bartlett_window blackman_window empty empty_like empty_permuted empty_quantized
empty_strided eye fft_fftfreq fft_rfftfreq from_file full full_like hamming_window hann_window
kaiser_window linspace logspace new_empty new_empty_strided new_full new_ones new_zeros ones
ones_like range scalar_tensor tril_indices triu_indices zeros zeros_like _efficientzerotensor
_empty_affine_quantized _empty_per_channel_affine_quantized _new_zeros_with_same_feature_meta
_sparse_compressed_tensor_with_dims _sparse_coo_tensor_with_dims
_sparse_coo_tensor_with_dims_and_tensors _spdiags sparse_compressed_tensor sparse_coo_tensor
_sparse_coo_tensor_unsafe _sparse_csr_tensor_unsafe _sparse_compressed_tensor_unsafe
_sparse_csc_tensor_unsafe _sparse_bsr_tensor_unsafe _sparse_bsc_tensor_unsafe
_make_dep_token _cudnn_init_dropout_state
"""

_RANDOM: Final = """
bernoulli binomial cauchy exponential geometric log_normal multinomial normal normal_functional
poisson rand rand_like randint randint_like randn randn_like random randperm uniform
_philox_key_fold_in _philox_key_split _philox_normal _philox_uniform _sample_dirichlet
_fill_mem_eff_dropout_mask
"""

_COPIES: Final = """
clone copy contiguous _to_copy _copy_from _copy_from_and_resize _lazy_clone _chunk_cat _stack cat
stack block_diag fill zero flip roll rot90 repeat repeat_interleave constant_pad_nd
reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d
replication_pad3d im2col channel_shuffle pixel_shuffle pixel_unshuffle tril triu diag_embed
complex lift lift_fresh lift_fresh_copy resize resize_as resize_as_sparse set pin_memory
_pin_memory _to_dense _to_sparse _to_sparse_csr _to_sparse_csc _to_sparse_bsr _to_sparse_bsc
_to_sparse_semi_structured to_dense to_sparse to_mkldnn to_padded_tensor
mkldnn_reorder_conv2d_weight mkldnn_reorder_conv3d_weight _mkldnn_reshape _mkldnn_transpose
_reshape_copy int_repr
copy_sparse_to_sparse sparse_resize sparse_resize_and_clear _coalesce _coalesced
_sparse_mask_projection _convert_indices_from_coo_to_csr _convert_indices_from_csr_to_coo
_pack_padded_sequence _cudnn_rnn_flatten_weight _cslt_compress _convert_weight_to_int4pack
_convert_weight_to_int4pack_for_cpu _dyn_quant_pack_4bit_weight _jagged_to_padded_dense_forward
_padded_dense_to_jagged_forward _nested_tensor_from_mask _nested_from_padded
_nested_from_padded_and_nested_example _nested_from_padded_tensor _nested_tensor_from_tensor_list
_make_per_channel_quantized_tensor _make_per_tensor_quantized_tensor unsafe_split
unsafe_split_with_sizes split_copy unbind_copy split_with_sizes_copy _unsafe_view _resize_output
lu_unpack dense_dim sparse_dim
"""

_GATHERS: Final = """
embedding gather index index_select index_copy index_fill masked_scatter masked_select nonzero
nonzero_static select_backward slice_backward diagonal_backward select_scatter slice_scatter
diagonal_scatter as_strided_scatter take masked_scatter_backward max_unpool2d max_unpool3d isin
unique_consecutive unique_dim unique_dim_consecutive _unsafe_index _unsafe_masked_index
_nested_select_backward
"""

_PADDING_GRADIENTS: Final = """
reflection_pad1d_backward reflection_pad2d_backward reflection_pad3d_backward
replication_pad1d_backward replication_pad2d_backward replication_pad3d_backward
"""

_QUESTIONS: Final = """
is_coalesced is_pinned is_same_size is_set_to _local_scalar_dense item _nnz _dimI _dimV
_fused_sdp_choice _linalg_check_errors _assert_async _assert_scalar _assert_tensor_metadata
_functional_assert_async _functional_assert_scalar _functional_sym_constrain_range
_functional_sym_constrain_range_for_size sym_constrain_range sym_constrain_range_for_size
_has_same_storage_numel _has_compatible_shallow_copy_type _validate_compressed_sparse_indices
_validate_sparse_coo_tensor_args _validate_sparse_compressed_tensor_args
_validate_sparse_csr_tensor_args _validate_sparse_csc_tensor_args _validate_sparse_bsr_tensor_args
_validate_sparse_bsc_tensor_args _debug_has_internal_overlap
_use_cudnn_ctc_loss _use_miopen_ctc_loss record_stream _print q_scale q_zero_point qscheme
q_per_channel_axis q_per_channel_scales q_per_channel_zero_points size stride numel dim
storage_offset sym_size sym_stride sym_numel sym_storage_offset is_contiguous
sym_is_contiguous is_strides_like_format is_non_overlapping_and_dense
_nested_tensor_size _nested_tensor_strides _nested_tensor_storage_offsets
_nested_compute_contiguous_strides_offsets _nested_get_jagged_dummy _nested_get_lengths
_nested_get_max_seqlen _nested_get_min_seqlen _nested_get_offsets _nested_get_ragged_idx
_nested_tensor_from_mask_left_aligned _amp_update_scale
"""

_OTHERS: Final = """
prim::device prim::layout prim::is_meta
profiler::_record_function_enter profiler::_record_function_enter_new
profiler::_record_function_exit
"""

MOVEMENT: Final = frozenset(
    [
        f"aten::{name}"
        for text in (_FACTORIES, _RANDOM, _COPIES, _GATHERS, _QUESTIONS)
        for name in text.split()
    ]
    + _OTHERS.split()
)
"""Operators without a computation, by their name without overload or ``_`` for in place."""

ADDED: Final = tuple(f"aten::{name}" for name in _PADDING_GRADIENTS.split())
"""Gradients of padding by repetition: every element of the gradient is added to its place."""

MESSAGES: Final = frozenset(("c10d", "_c10d_functional", "_c10d_functional_autograd", "symm_mem"))
"""Namespaces whose operators send tensors; the sums of an all-reduce are made on the way."""
