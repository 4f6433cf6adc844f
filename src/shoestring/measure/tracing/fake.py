"""Copies of models, optimizers and batches that have shapes and no data.

A fake copy shares nothing with the original: tracing a step on it can not change the user's
model, and an 8B model costs no memory. Every storage keeps its size and its sharing.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeAlias, TypeVar, cast

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from shoestring.core.errors import InputError, RefusedError
from shoestring.measure._torch import FakeTensor, FakeTensorMode, storage_address
from shoestring.measure.tracing.values import has_values

Tree = TypeVar("Tree")
Batch: TypeAlias = torch.Tensor | tuple[object, ...] | Mapping[str, object]

_PLAIN = (torch.Tensor, nn.Parameter, FakeTensor)
_BUFFER = getattr(nn, "Buffer", nn.Parameter)


def fake_mode() -> FakeTensorMode:
    """Return a mode in which tensors have shapes and no data."""
    return FakeTensorMode(allow_non_fake_inputs=True)


class Faker:
    """Makes the fake twin of every tensor it is shown, once.

    Args:
        mode: the mode the twins live in.
        real: makes real copies in place of fakes, for steps that depend on data.
    """

    def __init__(self, mode: FakeTensorMode, *, real: bool = False) -> None:
        self._mode = mode
        self._real = real
        self._bases: dict[tuple[int, torch.dtype], torch.Tensor] = {}
        self._twins: dict[int, torch.Tensor] = {}
        self._keep: list[torch.Tensor] = []

    def tensor(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the twin of a tensor.

        Args:
            tensor: real, meta or fake; parameters stay parameters.

        Raises:
            RefusedError: the tensor is sparse, quantised or of a class of its own.
        """
        if id(tensor) not in self._twins:
            self._keep.append(tensor)  # an id must not be used again while the twin is known
            self._twins[id(tensor)] = self._twin(tensor)
        return self._twins[id(tensor)]

    def _twin(self, tensor: torch.Tensor) -> torch.Tensor:
        strange = type(tensor) not in _PLAIN and type(tensor) is not _BUFFER
        if strange and not isinstance(tensor, (nn.Parameter, FakeTensor)):
            raise RefusedError(
                f"the model holds a tensor of class {type(tensor).__name__}.",
                hint="profile it before it is quantised or sharded.",
            )
        if tensor.layout is not torch.strided or tensor.is_quantized:
            raise RefusedError(
                "the model holds a sparse or quantised tensor.", hint="make it dense first."
            )
        twin = self._copy(tensor.detach()) if self._real else self._shape(tensor)
        if isinstance(tensor, nn.Parameter):
            twin = nn.Parameter(twin, requires_grad=tensor.requires_grad)
            twin.__dict__.update(tensor.__dict__)
        elif tensor.is_leaf and tensor.requires_grad:
            twin.requires_grad_()
        return twin

    def _copy(self, tensor: torch.Tensor) -> torch.Tensor:
        if tensor.is_meta or isinstance(tensor, FakeTensor):
            raise InputError(
                "the step depends on data, and the model has none.",
                hint="pass a model with weights and a real batch.",
            )
        key = (storage_address(tensor), tensor.dtype)
        if key not in self._bases:
            count = tensor.untyped_storage().nbytes() // tensor.element_size()
            whole = tensor.as_strided((count,), (1,), 0)
            self._bases[key] = whole.clone()
        return self._bases[key].as_strided(tensor.size(), tensor.stride(), tensor.storage_offset())

    def _shape(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        key = (storage_address(tensor), tensor.dtype)
        with self._mode:
            if key not in self._bases:
                self._bases[key] = torch.empty(
                    storage.nbytes() // tensor.element_size(), dtype=tensor.dtype, device="cpu"
                )
            return (
                self._bases[key]
                .as_strided(tensor.size(), tensor.stride(), tensor.storage_offset())
                .detach()
            )

    def deepcopy(
        self,
        thing: object,
        tensors: Iterable[torch.Tensor],
        without: Iterable[nn.Module] = (),
    ) -> object:
        """Return a deep copy in which tensors are replaced by their twins.

        Args:
            thing: a model or an optimizer.
            tensors: every tensor it holds.
            without: modules that are not needed in the copy and replaced by empty ones.

        Raises:
            RefusedError: the thing holds something that cannot be copied.
        """
        memo: dict[int, object] = {id(module): nn.Module() for module in without}
        memo |= {id(t): self.tensor(t) for t in tensors}
        try:
            return copy.deepcopy(thing, memo)
        except (TypeError, AttributeError, RuntimeError) as error:
            raise RefusedError(
                f"{type(thing).__name__} cannot be copied for tracing: {error}",
                hint="remove locks, files, generators and computed tensors from its attributes.",
            ) from error

    def batch(self, batch: Batch) -> Batch:
        """Return the twin of a batch: tensors, tuples, lists and dicts of them.

        Small integers keep their values, as models look at masks and positions.

        Args:
            batch: one batch.
        """
        return map_tensors(batch, self._valued)

    def _valued(self, tensor: torch.Tensor) -> torch.Tensor:
        return self._copy(tensor) if has_values(tensor) else self.tensor(tensor)


def map_tensors(tree: Tree, change: Callable[[torch.Tensor], torch.Tensor]) -> Tree:
    """Return a tree of tuples, lists and dicts with every tensor changed.

    Args:
        tree: nested containers; other leaves are kept.
        change: called for every tensor.
    """
    return cast("Tree", _mapped(tree, change))


def _mapped(tree: object, change: Callable[[torch.Tensor], torch.Tensor]) -> object:
    if isinstance(tree, torch.Tensor):
        return change(tree)
    if isinstance(tree, Mapping):
        return {key: _mapped(value, change) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_mapped(value, change) for value in tree]
    if isinstance(tree, tuple):
        parts = tuple(_mapped(value, change) for value in tree)
        make = getattr(type(tree), "_make", None)  # a named tuple
        return parts if make is None else make(parts)
    return tree


def tensors_in(tree: object, depth: int = 6) -> Iterator[torch.Tensor]:
    """Yield the tensors in nested containers.

    Args:
        tree: tuples, lists and dicts.
        depth: how deep to look.
    """
    if isinstance(tree, torch.Tensor):
        yield tree
    elif depth and isinstance(tree, Mapping):
        for value in tree.values():
            yield from tensors_in(value, depth - 1)
    elif depth and isinstance(tree, (list, tuple, set, frozenset)):
        for value in tree:
            yield from tensors_in(value, depth - 1)


def output_tensors(output: object) -> Iterator[torch.Tensor]:
    """Yield the tensors of what a module returned: in containers, or an object's attributes.

    Args:
        output: of a module; an object such as of a data class counts by its attributes.
    """
    containers = (torch.Tensor, Mapping, list, tuple, set, frozenset)
    yield from tensors_in(output if isinstance(output, containers) else _attributes(output))


def _attributes(output: object) -> object:
    if dataclasses.is_dataclass(output):
        return [getattr(output, field.name) for field in dataclasses.fields(output)]
    return getattr(output, "__dict__", {})


def model_tensors(model: nn.Module, without: Iterable[nn.Module] = ()) -> Iterator[torch.Tensor]:
    """Yield every tensor a model holds: parameters, buffers, and plain attributes.

    Args:
        model: the model.
        without: modules that are passed over.
    """
    left_out = {id(part) for module in without for part in module.modules()}
    for module in model.modules():
        if id(module) in left_out:
            continue
        for name, value in vars(module).items():
            if name != "_modules":
                yield from tensors_in(value)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> Iterator[torch.Tensor]:
    """Yield every tensor an optimizer holds: parameters, state, tensor options.

    Args:
        optimizer: the optimizer.
    """
    yield from tensors_in(list(optimizer.state.keys()))
    yield from tensors_in(list(optimizer.state.values()))
    yield from tensors_in(optimizer.param_groups)


class OnCpu(TorchFunctionMode):
    """Keeps a fake step on the CPU, whatever device the user's code names.

    Fake CUDA tensors abort the process on a build without CUDA, so devices are rewritten; and
    attention takes the kernel that the target machine would take.

    Args:
        fused_attention: attention with dropout keeps no score matrix on the target machine.
        attention_dropped: called when an attention's dropout was left out for that reason.
    """

    def __init__(self, *, fused_attention: bool, attention_dropped: Callable[[], None]) -> None:
        super().__init__()
        self._fused = fused_attention
        self._dropped = attention_dropped

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Iterable[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Rewrite one call."""
        options = dict(kwargs or {})
        if "device" in options and options["device"] is not None:
            options["device"] = "cpu"
        if func is torch.Tensor.cuda:
            return args[0]
        if func is torch.Tensor.to and len(args) > 1 and _is_device(args[1]):
            args = (args[0], "cpu", *args[2:])
        if func is torch.nn.functional.scaled_dot_product_attention and self._fused:
            args, options = self._without_dropout(args, options)
        return func(*args, **options)

    def _without_dropout(
        self, args: tuple[object, ...], options: dict[str, object]
    ) -> tuple[tuple[object, ...], dict[str, object]]:
        position = 4  # query, key, value, attn_mask, dropout_p
        if len(args) > position and args[position]:
            self._dropped()
            args = (*args[:position], 0.0, *args[position + 1 :])
        elif options.get("dropout_p"):
            self._dropped()
            options["dropout_p"] = 0.0
        return args, options


def _is_device(value: object) -> bool:
    if isinstance(value, torch.device):
        return True
    return isinstance(value, str) and value.split(":")[0] in ("cuda", "cpu", "mps", "xpu")
