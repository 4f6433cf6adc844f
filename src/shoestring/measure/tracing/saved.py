"""What autograd keeps of tensors without data: a shape, so that it is seen who else holds them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import torch

from shoestring.core.trace import ALWAYS
from shoestring.measure._torch import FakeTensor
from shoestring.measure.tracing.storages import Storages


class Saved(torch.autograd.graph.saved_tensors_hooks):
    """A context in which autograd keeps shapes in place of tensors without data.

    In backward it is given other tensors without data, which count as the same storages.

    Args:
        storages: of the step.
        unnoted: returns a context in which operations are not recorded.
    """

    def __init__(
        self,
        storages: Storages,
        unnoted: Callable[[], contextlib.AbstractContextManager[None]],
    ) -> None:
        super().__init__(self._keep, self._give_back)
        self._storages = storages
        self._unnoted = unnoted

    def _keep(self, tensor: torch.Tensor) -> object:
        if type(tensor) is not FakeTensor or tensor.layout is not torch.strided:
            return tensor
        index = self._storages.number(tensor)
        if self._storages[index].birth == ALWAYS:
            return tensor
        return _Kept(self._storages, index, tensor)

    def _give_back(self, kept: object) -> torch.Tensor:
        if not isinstance(kept, _Kept):
            assert isinstance(kept, torch.Tensor)
            return kept
        with self._unnoted(), torch.no_grad():
            tensor = kept.tensor()
        self._storages.recur(kept.index, tensor)
        return tensor


class _Kept:
    """A tensor without data that autograd keeps, as its shape alone."""

    __slots__ = ("_layout", "_nbytes", "_storages", "_type", "index")

    def __init__(self, storages: Storages, index: int, tensor: torch.Tensor) -> None:
        storages.hold(index)
        self.index = index
        self._storages = storages
        self._nbytes = tensor.untyped_storage().nbytes()
        self._type = (tensor.dtype, tensor.device)
        self._layout = (tensor.size(), tensor.stride(), tensor.storage_offset())

    def __del__(self) -> None:
        self._storages.let_go(self.index)

    def tensor(self) -> torch.Tensor:
        """Return a tensor like it."""
        dtype, device = self._type
        count = -(-self._nbytes // dtype.itemsize)
        return torch.empty(count, dtype=dtype, device=device).as_strided(*self._layout)
