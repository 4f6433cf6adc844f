"""A module that is run and put back as it was."""

from __future__ import annotations

import contextlib
import copy
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import torch
from torch import nn

_CONTAINERS: Final = (dict, OrderedDict, list, set)


@contextlib.contextmanager
def unchanged(module: nn.Module) -> Iterator[Callable[[], dict[str, torch.Tensor]]]:
    """Put a module back at the end: attributes, hooks, flags, buffers, gradients.

    Gradients are taken away meanwhile. Attributes that are lists, dicts or sets get their
    members back; what a member itself became is not looked at.

    Args:
        module: parameters keep what a forward writes to them: they are not copied.

    Returns:
        A context whose function returns what buffers have changed so far, by name.
    """
    kept = [_Kept(path, part) for path, part in module.named_modules()]
    gradients = [(p, p.grad) for p in module.parameters()]

    def changes() -> dict[str, torch.Tensor]:
        return {name: t for one in kept for name, t in one.changes().items()}

    for parameter, _ in gradients:
        parameter.grad = None
    try:
        yield changes
    finally:
        for one in kept:
            one.restore()
        for parameter, gradient in gradients:
            parameter.grad = gradient


class _Kept:
    """One module's own attributes as they were."""

    def __init__(self, path: str, module: nn.Module) -> None:
        self._module = module
        self._path = path
        self._attributes = dict(vars(module))
        self._members = [
            (value, copy.copy(value))
            for value in self._attributes.values()
            if type(value) in _CONTAINERS
        ]
        # A forward writes to buffers in place, and normalisation does so without a new version.
        self._contents = [(tensor, tensor.detach().clone()) for tensor in self._tensors().values()]

    def _tensors(self) -> dict[str, torch.Tensor]:
        """Return the buffers and the tensors that are plain attributes, as they are now."""
        own: dict[str, object] = {**vars(self._module), **self._module._buffers}
        return {name: t for name, t in own.items() if isinstance(t, torch.Tensor)}

    def changes(self) -> dict[str, torch.Tensor]:
        """Return the buffers that are no longer what they were, copied."""
        before = {id(tensor): content for tensor, content in self._contents}
        names = {id(t): name for name, t in self._attribute_buffers().items() if t is not None}
        first = {names[key]: content for key, content in before.items() if key in names}
        found = {}
        for name, tensor in self._module._buffers.items():
            if tensor is not None and not _same(tensor, first.get(name)):
                full = f"{self._path}.{name}" if self._path else name
                found[full] = tensor.detach().clone()
        return found

    def _attribute_buffers(self) -> Mapping[str, torch.Tensor | None]:
        """Return the buffers that the module had first."""
        table = self._attributes["_buffers"]
        return next(members for value, members in self._members if value is table)

    def restore(self) -> None:
        """Put them back."""
        vars(self._module).clear()
        vars(self._module).update(self._attributes)
        for value, members in self._members:
            value.clear()
            if isinstance(value, list):
                value.extend(members)
            else:
                value.update(members)
        with torch.no_grad():
            for tensor, content in self._contents:
                if not _same(tensor, content):
                    tensor.detach().copy_(content)


def _same(a: torch.Tensor, b: torch.Tensor | None) -> bool:
    if b is None or a.shape != b.shape or a.dtype != b.dtype or a.device != b.device:
        return False
    return torch.equal(a, b)
