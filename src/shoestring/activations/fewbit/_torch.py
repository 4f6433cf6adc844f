"""Everything of torch's private interface that this package uses, in one place.

A test calls each name, so that a new release that moves one fails here and nowhere else.
"""

from __future__ import annotations

import torch


def softmax_backward(grad: torch.Tensor, output: torch.Tensor, dim: int) -> torch.Tensor:
    """Return the gradient of a softmax's input.

    Args:
        grad: of its output.
        output: of the softmax.
        dim: along which it adds up to one.
    """
    found: torch.Tensor = torch._softmax_backward_data(grad, output, dim, output.dtype)
    return found
