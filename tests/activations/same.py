"""Comparison of tensors that should differ by rounding only."""

from __future__ import annotations

import torch

EXACT = 1e-12
"""Times the largest entry: what float64 gradients may differ by."""


def assert_same(got: torch.Tensor | None, expected: torch.Tensor | None, bound: float) -> None:
    """Compare to ``bound`` times the largest expected entry; nan equals nan."""
    assert (got is None) == (expected is None)
    if got is None or expected is None or not expected.numel():
        return
    most = float(expected.detach().abs().nan_to_num().max())
    torch.testing.assert_close(got, expected, rtol=0, atol=bound * most, equal_nan=True)
