"""The arguments of one call of each distinct block, taken while the model runs forward."""

from __future__ import annotations

import copy
import dataclasses
import functools
import re
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from shoestring.activations.remat.check_state import unchanged
from shoestring.measure.rng import rng_untouched
from shoestring.measure.tracing.blocks import Named
from shoestring.measure.tracing.fake import Batch, map_tensors, tensors_in
from shoestring.measure.tracing.step import call_model

_DEPTH: Final = 6
_PLAIN: Final = (bool, int, float, complex, str, bytes, types.NoneType, torch.dtype, torch.device)
_OPAQUE: Final = (nn.Module, type, types.FunctionType, types.MethodType, types.BuiltinFunctionType)
_NUMBERED: Final = re.compile(r"idx|index|number|(^|_)id$|layer_id")


@dataclasses.dataclass(frozen=True, slots=True)
class Given:
    """Arguments for one run of a block.

    Attributes:
        args: by position.
        kwargs: by keyword.
        leaves: what gradients are taken of, by what messages call the gradient.
        passed: each tensor of the arguments by name, with the one it is a copy of.
    """

    args: tuple[object, ...]
    kwargs: dict[str, object]
    leaves: dict[str, torch.Tensor]
    passed: tuple[tuple[str, torch.Tensor, torch.Tensor], ...]

    def changed(self) -> dict[str, torch.Tensor]:
        """Return the arguments that were written to, by name."""
        return {
            name: mine.detach() for name, mine, first in self.passed if not torch.equal(mine, first)
        }


@dataclasses.dataclass(frozen=True, slots=True)
class Call:
    """The arguments of one call, copied.

    Attributes:
        arguments: positional and keyword ones; their tensors are those of `tensors`.
        tensors: name, copy, and whether gradients went through it.
    """

    arguments: tuple[tuple[object, ...], dict[str, object]]
    tensors: tuple[tuple[str, torch.Tensor, bool], ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the copies."""
        return sum(tensor.untyped_storage().nbytes() for _, tensor, _ in self.tensors)

    def fresh(self) -> Given:
        """Return the arguments for one run: what it writes to them harms no other."""
        leaves: dict[str, torch.Tensor] = {}
        passed = []
        for name, tensor, differentiated in self.tensors:
            if differentiated:
                leaf = leaves[f"gradient of {name}"] = tensor.detach().requires_grad_()
                # No leaf goes in: a block may write to what it is passed.
                passed.append((name, leaf.clone(), tensor))
            else:
                passed.append((name, tensor.clone(), tensor))
        args, kwargs = self.filled([mine for _, mine, _ in passed])
        return Given(args, kwargs, leaves, tuple(passed))

    def filled(
        self, tensors: Sequence[torch.Tensor]
    ) -> tuple[tuple[object, ...], dict[str, object]]:
        """Return the arguments with other tensors in them.

        Args:
            tensors: one for each of `tensors`.
        """
        pairs = zip(self.tensors, tensors, strict=True)
        return _copied(self.arguments, {id(old): new for (_, old, _), new in pairs})


@dataclasses.dataclass(frozen=True, slots=True)
class Calls:
    """What was taken.

    Attributes:
        calls: of the first of the blocks that are alike, by its path.
        reasons: why a distinct block has none, by its path.
    """

    calls: dict[str, Call]
    reasons: dict[str, str]


def first_rows(batch: Batch, rows: int) -> Batch:
    """Return the first rows of a batch; what has no rows stays as it is.

    Args:
        batch: a tensor, tuple or dict.
        rows: most rows.
    """
    sizes = [t.shape[0] for t in tensors_in(batch) if t.dim()]
    whole = max(set(sizes), key=sizes.count) if sizes else 0
    return map_tensors(batch, lambda t: t[:rows] if t.dim() and t.shape[0] == whole else t)


def calls_of_blocks(model: nn.Module, batch: Batch, blocks: Sequence[Named]) -> Calls:
    """Run a model forward once and take one call of each distinct block.

    The forward is that of training: what gradients go through is known, but nothing is kept for
    a backward.

    Args:
        model: left as it was.
        batch: a few rows.
        blocks: whose arguments are wanted; the model itself is not run, it gets the batch.
    """
    taken = _Taken()
    if [path for path, _ in blocks] == [""]:
        kwargs = dict(batch) if isinstance(batch, Mapping) else {}
        args = tuple(batch) if isinstance(batch, (tuple, list)) else (batch,)
        taken.take("", model, () if kwargs else args, kwargs)
        return taken.result
    with rng_untouched(), unchanged(model), torch.enable_grad():
        for path, block in blocks:
            block.register_forward_pre_hook(
                functools.partial(taken.hook, path), prepend=True, with_kwargs=True
            )
        with saved_tensors_hooks(_dropped, _missing):
            call_model(model, batch)
    return taken.result


def _dropped(tensor: torch.Tensor) -> None:
    return None


def _missing(packed: object) -> torch.Tensor:
    raise RuntimeError("this forward keeps nothing for a backward")


class _Taken:
    """What the hooks have seen so far."""

    def __init__(self) -> None:
        self.result = Calls({}, {})
        self._seen: set[object] = set()

    def hook(
        self, path: str, block: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> None:
        """Look at a call; change nothing of it."""
        with torch.no_grad():
            self.take(path, block, args, kwargs)

    def take(
        self, path: str, block: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> None:
        """Copy the arguments, if no block that is alike was called with arguments alike."""
        sort = (_sort_of_block(path, block), _sort_of_value((args, kwargs)))
        if sort in self._seen or path in self.result.calls:
            return
        self._seen.add(sort)
        found: dict[int, tuple[str, torch.Tensor]] = {}
        for name, tensor in _named_tensors(args, kwargs):
            found.setdefault(id(tensor), (name, tensor))
        copies = {key: tensor.detach().clone() for key, (_, tensor) in found.items()}
        try:
            arguments = _copied((args, dict(kwargs)), copies)
        except (TypeError, AttributeError, RuntimeError, ValueError) as error:
            self.result.reasons[path] = f"its arguments cannot be copied ({error})"
            return
        self.result.calls[path] = Call(
            arguments,
            tuple((name, copies[key], t.requires_grad) for key, (name, t) in found.items()),
        )


def _copied(
    arguments: tuple[tuple[object, ...], dict[str, object]], tensors: Mapping[int, torch.Tensor]
) -> tuple[tuple[object, ...], dict[str, object]]:
    memo: dict[int, object] = dict(tensors)
    memo |= {id(module): module for module in _modules_in(arguments, _DEPTH)}
    # Inside of caches and the like deepcopy finds tensors that no walk over containers does.
    return copy.deepcopy(arguments, memo)


def _named_tensors(
    args: tuple[object, ...], kwargs: Mapping[str, object]
) -> Iterator[tuple[str, torch.Tensor]]:
    for key, value in [*enumerate(args), *kwargs.items()]:
        found = list(_inside(value, torch.Tensor, _DEPTH))
        for number, tensor in enumerate(found):
            assert isinstance(tensor, torch.Tensor)
            yield f"argument {key}" + (f"[{number}]" if len(found) > 1 else ""), tensor


def _modules_in(value: object, depth: int) -> list[object]:
    return list(_inside(value, nn.Module, depth))


def _inside(value: object, kind: type, depth: int) -> Iterator[object]:
    """Yield what is of a kind in containers and in objects' attributes."""
    if isinstance(value, kind):
        yield value
    elif depth and not isinstance(value, (*_PLAIN, *_OPAQUE, torch.Tensor)):
        if isinstance(value, Mapping):
            parts = list(value.values())
        elif isinstance(value, (list, tuple, set, frozenset)):
            parts = list(value)
        else:
            parts = list(getattr(value, "__dict__", {}).values())
        for part in parts:
            yield from _inside(part, kind, depth - 1)


# --- which blocks are alike --------------------------------------------------------------


def _sort_of_block(path: str, block: nn.Module) -> object:
    """Return what blocks have in common that one check stands for."""
    number = next((int(part) for part in reversed(path.split(".")) if part.isdigit()), None)
    return tuple(
        (name, type(module), module.training, _settings(module, number), _tensors_of(module))
        for name, module in block.named_modules()
    )


def _tensors_of(module: nn.Module) -> object:
    tables = (module._parameters, module._buffers)
    return tuple((name, _sort_of_value(t)) for table in tables for name, t in table.items())


def _settings(module: nn.Module, number: int | None) -> object:
    return tuple(
        (name, _sort_of_value(value))
        for name, value in sorted(vars(module).items())
        if not name.startswith("_")
        and not (type(value) is int and value == number and _NUMBERED.search(name))
    )


def _sort_of_value(value: object, depth: int = _DEPTH) -> object:
    if isinstance(value, torch.Tensor):
        return (tuple(value.shape), value.dtype, value.device, value.requires_grad)
    if isinstance(value, float) and 0 < value < 1:
        return float  # a rate of dropout, say: it takes the same way through the code
    if isinstance(value, _PLAIN):
        return (type(value), value)
    if isinstance(value, (list, tuple)) and depth:
        return (type(value), *(_sort_of_value(part, depth - 1) for part in value))
    if isinstance(value, Mapping) and depth:
        return (type(value), *((k, _sort_of_value(v, depth - 1)) for k, v in value.items()))
    if isinstance(value, types.MethodType):
        return id(value.__func__)
    if isinstance(value, _OPAQUE):
        return id(value)
    return type(value)
