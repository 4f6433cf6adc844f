"""What autograd keeps between forward and backward, counted by storages."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch


def saved_bytes(forward: Callable[[], object], *, parameters: Iterable[torch.Tensor] = ()) -> int:
    """Return the bytes of the storages that autograd keeps after a forward, each counted once.

    A storage counts whole, also where a view of it is kept: it is held whole.

    Args:
        forward: what is run; its result is held until the bytes are counted.
        parameters: tensors that are there anyway; what shares their storage is not counted.
    """
    kept: list[torch.Tensor] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        # Without its history: an output kept by its own node would hold itself.
        kept.append(tensor.detach())
        return tensor.detach()

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = forward()
    anyway = {_address(tensor) for tensor in parameters}
    found = {_address(tensor): tensor.untyped_storage().nbytes() for tensor in kept}
    del result
    return sum(nbytes for address, nbytes in found.items() if address not in anyway)


def _address(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
