"""What the tracer knows of an operator from its name, schema and tags, looked up once."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import torch

from shoestring.measure._torch import (
    HigherOrder,
    Overload,
    components,
    decomposition,
    schema,
)

Arguments = tuple[object, ...]
Options = Mapping[str, object]
Place = tuple[int, str]


class Access(enum.Enum):
    """How an operation touches the memory of its tensors."""

    WHOLE = enum.auto()
    GATHERS = enum.auto()  # reads of its first tensor as much as it writes
    BAGS = enum.auto()  # reads of its first tensor a row for each index
    SCATTERS = enum.auto()  # changes of its first tensor as much as is put into it
    OVERWRITES = enum.auto()  # does not read what it writes
    MAKES = enum.auto()  # reads nothing: a tensor it is given is only an example
    ALLOCATES = enum.auto()  # touches nothing


_ACCESS: Final[dict[str, Access]] = {
    **dict.fromkeys(
        ("embedding", "index", "index_select", "gather", "take", "_unsafe_index"), Access.GATHERS
    ),
    **dict.fromkeys(("_embedding_bag", "_embedding_bag_forward_only"), Access.BAGS),
    **dict.fromkeys(
        (
            *("index_put_", "_index_put_impl_", "scatter_", "scatter_add_", "scatter_reduce_"),
            *("index_add_", "index_copy_", "index_reduce_", "masked_scatter_"),
        ),
        Access.SCATTERS,
    ),
    **dict.fromkeys(
        (
            *("copy_", "fill_", "zero_", "normal_", "uniform_", "bernoulli_", "random_"),
            *("exponential_", "_foreach_zero_", "_foreach_copy_"),
        ),
        Access.OVERWRITES,
    ),
    **dict.fromkeys(
        ("empty", "empty_like", "empty_strided", "empty_permuted", "new_empty"),
        Access.ALLOCATES,
    ),
    **dict.fromkeys(("new_empty_strided", "set_"), Access.ALLOCATES),
    **dict.fromkeys(
        (
            *("zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full"),
            *("rand_like", "randn_like", "randint_like"),
        ),
        Access.MAKES,
    ),
}


@dataclasses.dataclass(frozen=True, slots=True)
class Facts:
    """What does not change from call to call.

    Attributes:
        name: with its overload, as in ``aten.mm.default``.
        changes: position and name of the arguments that it changes in place.
        view: whether what it returns shares memory with what it was given.
        draws: whether it draws random numbers, at least where the dropout below is not 0.
        dropout: position and name of the probability on which that depends, or None.
        access: how it touches memory.
        parts: runs it by the operators that it is made of; None where it is made of none.
    """

    name: str
    changes: tuple[Place, ...]
    view: bool
    draws: bool
    dropout: Place | None
    access: Access
    parts: Callable[..., object] | None = None

    def changed(self, args: Arguments, kwargs: Options) -> list[torch.Tensor]:
        """Return the tensors that a call changes in place.

        Args:
            args: of the call.
            kwargs: of the call.
        """
        found: list[torch.Tensor] = []
        for position, name in self.changes:
            value = args[position] if position < len(args) else kwargs.get(name)
            collect((value,), found)
        return found

    def is_random(self, args: Arguments, kwargs: Options) -> bool:
        """Return whether a call draws random numbers.

        Args:
            args: of the call.
            kwargs: of the call.
        """
        if not self.draws or self.dropout is None:
            return self.draws
        position, name = self.dropout
        return bool(args[position] if position < len(args) else kwargs.get(name, 0.0))


_KNOWN: dict[int, Facts] = {}
"""By the operator's id, as its hash is computed in Python; operators live as long as torch."""


def facts(func: Overload) -> Facts:
    """Return what is known of an operator.

    Args:
        func: as a dispatch mode receives it; it may be a higher-order operator, which has no
            schema.
    """
    found = _KNOWN.get(id(func))
    if found is None:
        found = _KNOWN[id(func)] = _facts(func)
    return found


def _facts(func: Overload) -> Facts:
    name = str(func)
    if isinstance(func, HigherOrder):
        return Facts(name, (), False, False, None, Access.WHOLE)
    signature = schema(func)
    arguments = list(enumerate(signature.arguments))
    changed = [(i, a) for i, a in arguments if a.alias_info is not None and a.alias_info.is_write]
    # Attention is tagged as random whether or not it drops anything.
    rates = [(i, a.name) for i, a in arguments if a.name == "dropout_p" and "attention" in name]
    access = _ACCESS.get(func.name().partition("::")[2].partition(".")[0], Access.WHOLE)
    if changed and all(a.kwarg_only for _, a in changed):  # out=
        access = Access.OVERWRITES
    return Facts(
        name=name,
        changes=tuple((i, a.name) for i, a in changed),
        view=any(r.alias_info is not None for r in signature.returns),
        draws=torch.Tag.nondeterministic_seeded in func.tags
        and (bool(rates) or "attention" not in name),
        dropout=rates[0] if rates else None,
        access=access,
        parts=decomposition(func),
    )


def collect(values: Iterable[object], found: list[torch.Tensor]) -> None:
    """Add the tensors among some values, lists of them included; of sparse ones what they hold.

    Args:
        values: arguments or results.
        found: is added to.
    """
    for value in values:
        if isinstance(value, torch.Tensor):
            if value.layout is torch.strided:
                found.append(value)
            else:
                found.extend(components(value))
        elif isinstance(value, (list, tuple)):
            collect(value, found)
