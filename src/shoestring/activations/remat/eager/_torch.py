"""What the eager path uses of torch's private interface, in one place."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def as_recorded() -> Iterator[None]:
    """In this context operators run as a dispatch mode saw them run in forward.

    Below autograd, so that nothing is recorded; past mixed precision, whose casts were recorded
    as operations; and with gradients enabled, since some kernels then make more.
    """
    # The guards work from when they are made until they are freed, so each is made in its place.
    with torch.enable_grad(), torch._C._DisableAutocast(), torch._C._AutoDispatchBelowAutograd():
        yield


def negated(tensor: torch.Tensor) -> torch.Tensor:
    """Return a view that is the negative of a tensor.

    Args:
        tensor: real.
    """
    return torch._neg_view(tensor)
