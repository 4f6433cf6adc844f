"""The trace of a deep model from that of a shallow one with a few of its like layers.

The layers of a Transformer run the same operations one after the other, and their backwards in
reverse. Away from both ends every layer stands between two of its like, so a step of eighty
layers is known from a step of five, in the time that five take.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Final

from shoestring.core.trace import ALWAYS, Block, Kind, Op, Phase, Storage, Trace

TEMPLATES: Final = 5
"""Layers of the shallow model: two at each end, and one that stands between its like."""
_REPEATED: Final = 2
_GLOBAL: Final = -1


def deepen(trace: Trace, count: int) -> Trace | None:
    """Return the trace of a model with more layers, or None where the layers differ.

    Args:
        trace: a step up to the end of forward or of backward, of a model with five repeated
            blocks whose paths end in 0 to 4.
        count: layers of the deep model, at least 5.

    Returns:
        The trace, operations and storages in the order in which the deep model has them.
    """
    paths = [block.path.rpartition(".") for block in trace.blocks]
    numbered = [number for _, _, number in paths] == [str(t) for t in range(TEMPLATES)]
    if not numbered or any(op.phase is Phase.OPTIMIZER for op in trace.ops):
        return None
    try:
        return _Deepened(trace, count).trace()
    except _DifferError:
        return None


class _DifferError(Exception):
    """The layers in the middle are not alike."""


class _Deepened:
    """The building of one deep trace.

    A template is a layer of the shallow trace; what belongs to none has the template
    ``_GLOBAL``. A thing of the deep trace is named by (its number in the shallow trace, layer).
    """

    def __init__(self, trace: Trace, count: int) -> None:
        self._old = trace
        self._count = count
        self._names: dict[tuple[str, int, int], str] = {}
        self._spans = (_forward(trace.blocks), _backward(trace.blocks))
        self._place = self._places()
        self._owner = self._owners()
        self._rank = self._ranks()
        self._check()
        self._ops = list(self._expanded(self._place, range(len(trace.ops))))
        births = [storage.birth for storage in trace.storages]
        self._storages = list(self._expanded(self._owner, births))
        self._op_at = {key: new for new, key in enumerate(self._ops)}
        self._storage_at = {key: new for new, key in enumerate(self._storages)}

    def trace(self) -> Trace:
        """Return the deep trace."""
        old = self._old
        accumulated = {
            self._storage_at[s, layer]: self._time(old.accumulated[s], self._owner[s], layer)
            for s, layer in self._storages
            if s in old.accumulated
        }
        return dataclasses.replace(
            old,
            ops=tuple([self._op(number, layer) for number, layer in self._ops]),
            storages=tuple([self._storage(number, layer) for number, layer in self._storages]),
            blocks=tuple([self._block(layer) for layer in range(self._count)]),
            accumulated=accumulated,
            calls=tuple(self._call(span) for span in old.calls),
        )

    # --- what belongs to which layer -----------------------------------------------------

    def _places(self) -> list[int]:
        """Return the template of each operation."""
        place = [_GLOBAL] * len(self._old.ops)
        for spans in self._spans:
            for template, (start, stop) in enumerate(spans):
                if start >= stop and start < len(place):
                    raise _DifferError
                place[start:stop] = [template] * (stop - start)
        return place

    def _owners(self) -> list[int]:
        """Return the template of each storage."""
        old = self._old
        paths = [block.path + "." for block in old.blocks]
        users: dict[int, set[int]] = {}
        for op, place in zip(old.ops, self._place, strict=True):
            for s in (*op.reads, *op.writes):
                users.setdefault(s, set()).add(place)
        owners = []
        for number, storage in enumerate(old.storages):
            if storage.birth != ALWAYS:
                owners.append(self._place[storage.birth])
                continue
            named = [t for t, path in enumerate(paths) if storage.module.startswith(path)]
            # What a layer makes of Python numbers has no name, but one user.
            nameless = not storage.module and storage.kind is not Kind.BATCH
            used = users.get(number, set())
            alone = [*used] if nameless and len(used) == 1 else []
            owners.append((*named, *alone, _GLOBAL)[0])
        return owners

    def _ranks(self) -> tuple[list[list[int]], dict[int, int]]:
        """Return each template's storages, and the place of each among those."""
        mine: list[list[int]] = [[] for _ in range(TEMPLATES)]
        rank = {}
        for number, owner in enumerate(self._owner):
            if owner != _GLOBAL:
                rank[number] = len(mine[owner])
                mine[owner].append(number)
        return mine, rank

    def _check(self) -> None:
        """Raise where the layer in the middle and its neighbours differ."""
        for spans in self._spans:
            names = [[op.name for op in self._old.ops[slice(*span)]] for span in spans]
            if not names[_REPEATED - 1] == names[_REPEATED] == names[_REPEATED + 1]:
                raise _DifferError
        mine, _ = self._rank
        sizes = [[self._old.storages[s].nbytes for s in each] for each in mine]
        if not sizes[_REPEATED - 1] == sizes[_REPEATED] == sizes[_REPEATED + 1]:
            raise _DifferError

    def _layers(self, template: int) -> Sequence[int]:
        """Return the layers that a template stands for."""
        after = self._count - TEMPLATES
        if template == _REPEATED:
            return range(_REPEATED, _REPEATED + after + 1)
        return (template if template < _REPEATED else template + after,)

    def _template(self, layer: int) -> int:
        """Return the template that stands for a layer."""
        after = self._count - TEMPLATES
        return min(layer, _REPEATED) if layer <= _REPEATED + after else layer - after

    def _expanded(self, owners: Sequence[int], when: Sequence[int]) -> Iterator[tuple[int, int]]:
        """Yield (number, layer) in the order of the deep trace."""
        backward = self._spans[1][-1][0]
        for owner, run in itertools.groupby(range(len(owners)), owners.__getitem__):
            numbers = list(run)
            layers = (_GLOBAL,) if owner == _GLOBAL else self._layers(owner)
            for layer in reversed(layers) if when[numbers[0]] >= backward else layers:
                yield from ((number, layer) for number in numbers)

    # --- what refers to what -------------------------------------------------------------

    def _layer(self, target: int, owner: int, layer: int) -> int:
        """Return the layer of something of template `target`, seen from a layer's copy."""
        if owner == _GLOBAL or abs(target - owner) > 1:
            if target == _REPEATED:  # some layer in the middle, and none knows which
                raise _DifferError
            return self._layers(target)[0]
        return layer + target - owner

    def _time(self, number: int, owner: int, layer: int) -> int:
        """Return the new number of an operation that something of a layer refers to."""
        target = self._place[number]
        if target == _GLOBAL:
            return self._op_at[number, _GLOBAL]
        there = self._layer(target, owner, layer)
        spans = self._spans[number >= self._spans[1][-1][0]]
        offset = number - spans[target][0]
        return self._op_at[spans[self._template(there)][0] + offset, there]

    def _seen(self, storages: Sequence[int], place: int, layer: int) -> tuple[int, ...]:
        """Return the storages that an operation reads or writes."""
        mine, rank = self._rank
        found: list[int] = []
        for s in storages:
            owner = self._owner[s]
            if owner == _GLOBAL:
                found.append(self._storage_at[s, _GLOBAL])
            elif place == _GLOBAL:
                found += [self._storage_at[s, each] for each in self._layers(owner)]
            else:
                there = self._layer(owner, place, layer)
                like = s
                if self._template(there) != owner:
                    like = mine[self._template(there)][rank[s]]
                found.append(self._storage_at[like, there])
        return tuple(found)

    # --- the parts -----------------------------------------------------------------------

    def _op(self, number: int, layer: int) -> Op:
        op, place = copy.copy(self._old.ops[number]), self._place[number]
        op.module = self._renamed(op.module, place, layer)
        op.reads = self._seen(op.reads, place, layer)
        op.writes = self._seen(op.writes, place, layer)
        op.source = -1 if op.source < 0 else self._time(op.source, place, layer)
        return op

    def _storage(self, number: int, layer: int) -> Storage:
        storage, owner = self._old.storages[number], self._owner[number]
        moved = copy.copy(storage)
        if storage.birth != ALWAYS:
            moved.birth = self._time(storage.birth, owner, layer)
        if storage.death is not None:
            moved.death = self._time(storage.death, owner, layer)
        if storage.released is not None:
            moved.released = self._time(storage.released, owner, layer)
        moved.module = self._renamed(storage.module, owner, layer)
        return moved

    def _block(self, layer: int) -> Block:
        template = self._template(layer)
        block = self._old.blocks[template]

        def moved(span: tuple[int, int]) -> tuple[int, int]:
            if span[0] == span[1]:  # there is no backward
                return len(self._ops), len(self._ops)
            first, last = (self._time(at, template, layer) for at in (span[0], span[1] - 1))
            return first, last + 1

        path = self._renamed(block.path, template, layer)
        return Block(path, moved(block.forward), moved(block.backward))

    def _call(self, span: tuple[int, int]) -> tuple[int, int]:
        first, last = (self._time(at, _GLOBAL, _GLOBAL) for at in (span[0], span[1] - 1))
        return first, last + 1

    def _renamed(self, path: str, owner: int, layer: int) -> str:
        """Return the path of a module or parameter in the deep model."""
        known = self._names.get((path, owner, layer))
        if known is None:
            known = self._names[path, owner, layer] = self._rename(path, owner, layer)
        return known

    def _rename(self, path: str, owner: int, layer: int) -> str:
        for template, block in enumerate(self._old.blocks):
            if path == block.path or path.startswith(block.path + "."):
                container, dot, _ = block.path.rpartition(".")
                there = self._layer(template, owner, layer)
                return f"{container}{dot}{there}{path[len(block.path) :]}"
        return path


def _forward(blocks: Sequence[Block]) -> tuple[tuple[int, int], ...]:
    """Return where the layers' forwards lie, with what the model does between two."""
    ends = [block.forward[0] for block in blocks[1:]] + [blocks[-1].forward[1]]
    return tuple((block.forward[0], end) for block, end in zip(blocks, ends, strict=True))


def _backward(blocks: Sequence[Block]) -> tuple[tuple[int, int], ...]:
    """Return where the layers' backwards lie: each begins where that of the next layer ends."""
    starts = [block.backward[1] for block in blocks[1:]] + [blocks[-1].backward[0]]
    return tuple((start, block.backward[1]) for start, block in zip(starts, blocks, strict=True))
