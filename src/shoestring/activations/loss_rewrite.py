"""The trace of a step whose loss runs in chunks, made from the trace of the plain step."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Final

from shoestring.activations.chunked_cross_entropy import rows_per_chunk
from shoestring.activations.loss_sites import LossSite, find_loss_sites
from shoestring.core.edit import Editor, remap
from shoestring.core.trace import ALWAYS, Kind, Op, Phase, Storage, Trace, uses_of

_CAST: Final = "aten._to_copy.default"
_ADD: Final = "aten.add.Tensor"
_CLONE: Final = "aten.clone.default"
_SLICED: Final = ("aten.slice_backward.", "aten.select_backward.")
_NARROWEST: Final = 4  # bytes of a logit in the loss, at least


def chunk_loss(trace: Trace, head: str, round_up: Callable[[int], int]) -> Trace:
    """Return the step with every cross-entropy of a head in chunks.

    One operation stands for all chunks of it: its FLOPs are those of all, its memory that of
    one, and each chunk reads the weight again. Logits of a chunk die with the loss in the
    forward; before the backward of the loss the chunk's forward appears as recomputation. The
    gradients of head and hidden states are whole from then on.

    Args:
        trace: the plain step.
        head: path of the head.
        round_up: how the allocator rounds sizes.
    """
    editor = Editor(trace)
    for site in find_loss_sites(trace)[0]:
        if site.head == head:
            _Rewrite(trace, editor, site, round_up).run()
    return editor.trace()


class _Rewrite:
    """The rewriting of one loss."""

    def __init__(
        self, trace: Trace, editor: Editor, site: LossSite, round_up: Callable[[int], int]
    ) -> None:
        self._trace, self._editor, self._site = trace, editor, site
        self._round_up = round_up
        wide = max(site.itemsize, _NARROWEST)
        self._rows = rows_per_chunk(site.loss_rows, site.num_classes, wide)
        self._chunks = -(-site.loss_rows // self._rows)
        self._input: dict[int, dict[int, int]] = {}  # operation -> what it reads in place of what
        # Slices that plain logits are copied for are taken of the hidden states instead.
        self._copied = frozenset(
            i for i in site.chain if trace.ops[i].name == _CLONE and self._is_sliced(i)
        )

    def run(self) -> None:
        """Edit forward, recomputation and backward."""
        first, copies = self._recompute()
        self._shrink_forward(first)
        self._shrink_backward(copies)
        self._grow_gradients(first)

    def _is_sliced(self, index: int) -> bool:
        made = self._logits([index])
        read = [self._trace.storages[i].nbytes for i in self._trace.ops[index].reads]
        return bool(made) and self._trace.storages[made[0]].nbytes not in read

    def _logits(self, births: Iterable[int]) -> list[int]:
        """Return the storages of logits, or of gradients of logits, born at operations."""
        wanted = set(births) - set(self._site.gradients)
        return [
            i
            for i, s in enumerate(self._trace.storages)
            if s.birth in wanted and self._site.rows_of(s.nbytes)
        ]

    def _small(self, storage: Storage) -> Storage:
        """Return a storage of logits as large as that of a chunk."""
        rows = self._site.rows_of(storage.nbytes)
        nbytes = self._round_up(storage.nbytes // rows * self._rows)
        grows = self._rows == -(-self._site.loss_rows // 16)
        share = self._rows / rows if grows else 0.0
        per_row = None if storage.per_row is None else storage.per_row * share
        return dataclasses.replace(storage, nbytes=nbytes, per_row=per_row, kind=Kind.TEMPORARY)

    def _hidden(self, storage: Storage) -> Storage:
        """Return a storage of logits narrowed to the width of the hidden states."""
        site = self._site
        rows = site.rows_of(storage.nbytes)
        nbytes = self._round_up(rows * site.width * site.itemsize)
        per_row = storage.per_row
        if per_row is not None:
            per_row = per_row * site.width / site.num_classes
        return dataclasses.replace(storage, nbytes=nbytes, per_row=per_row)

    def _again(self, op: Op, times: int) -> Op:
        """Return a product that passes over the weight once more for every other chunk."""
        weight = self._trace.storages[self._site.weight].nbytes
        return dataclasses.replace(
            op,
            flops=op.flops * self._site.loss_rows // self._site.num_rows,
            macs=op.macs * self._site.loss_rows // self._site.num_rows,
            bytes_read=op.bytes_read + times * (self._chunks - 1) * weight,
        )

    def _one(self, op: Op) -> Op:
        """Return an operation whose kernel holds memory for the rows of one chunk only."""
        space = op.workspace * self._rows // max(self._site.loss_rows, 1)
        return dataclasses.replace(op, workspace=space)

    def _recompute(self) -> tuple[int, dict[int, int]]:
        """Insert a chunk's forward before the backward of the loss.

        Returns:
            The first operation inserted, and forward logits -> a chunk of them.
        """
        site, trace, editor = self._site, self._trace, self._editor
        start, _ = site.backward
        forward = [i for i in (site.product, *site.chain) if i not in self._copied]
        numbers: dict[int, int] = {}
        for index in forward:
            op = trace.ops[index]
            op = self._one(self._again(op, 1) if index == site.product else op)
            numbers[index] = editor.insert(
                start, dataclasses.replace(op, phase=Phase.RECOMPUTE, source=-1)
            )
        copies: dict[int, int] = {}
        for index in self._logits(forward):
            storage = trace.storages[index]
            kept = storage.death is not None and storage.death >= start
            readers = [i for i in forward if index in trace.ops[i].reads]
            if storage.birth == site.product:
                # The product of the chunk is held until its gradient is there.
                death = max(min(site.gradients) - 1, storage.death or 0)
            elif kept:
                death = storage.death or 0
            else:
                death = numbers[readers[-1] if readers else storage.birth]
            small = dataclasses.replace(
                self._small(storage), birth=numbers[storage.birth], death=death
            )
            copies[index] = editor.add(small)
        for index in forward:
            editor.replace(numbers[index], remap(editor.op(numbers[index]), copies))
        return numbers[site.product], copies

    def _shrink_forward(self, first: int) -> None:
        site, trace, editor = self._site, self._trace, self._editor
        editor.replace(site.product, self._one(self._again(trace.ops[site.product], 1)))
        for index in site.chain:
            editor.replace(index, self._one(trace.ops[index]))
        for index in self._logits(range(site.product, site.end + 1)):
            storage = trace.storages[index]
            if storage.birth in self._copied:
                kept = dataclasses.replace(
                    self._hidden(storage), kind=Kind.ACTIVATION, death=site.backward[1]
                )
                editor.storages[index] = kept
                self._replace_input(index, first)
                continue
            death = site.end if storage.death is None else min(storage.death, site.end)
            editor.storages[index] = dataclasses.replace(self._small(storage), death=death)

    def _replace_input(self, copy: int, first: int) -> None:
        """Let the loss be differentiated with a copy of the hidden states, which go themselves.

        Args:
            copy: the storage of the copy.
            first: the product that is computed again.
        """
        site, trace, editor = self._site, self._trace, self._editor
        uses = uses_of(trace)
        for s in trace.ops[site.product].reads:
            storage = trace.storages[s]
            later = [i for i in uses[s] if i >= site.backward[0]]
            if s == site.weight or storage.birth == ALWAYS or not set(later) <= set(site.gradients):
                continue
            forward = [i for i in uses[s] if i < site.backward[0]]
            editor.storages[s] = dataclasses.replace(
                storage, death=max(storage.released or 0, *forward), kind=Kind.TEMPORARY
            )
            self._input |= {i: {s: copy} for i in later}
            editor.replace(first, remap(editor.op(first), {s: copy}))

    def _shrink_backward(self, copies: dict[int, int]) -> None:
        site, trace, editor = self._site, self._trace, self._editor
        start, last = site.backward
        for index in range(start, last + 1):
            op = remap(trace.ops[index], {**copies, **self._input.get(index, {})})
            if index not in site.gradients:
                op = self._one(op)
            elif site.weight in op.reads:
                op = self._one(self._again(op, 1))  # hidden states: each chunk reads the weight
            else:
                op = self._again(op, 2)  # weight: each chunk reads and writes its gradient
            editor.replace(index, op)
        for index in self._logits(range(start, last + 1)):
            storage = trace.storages[index]
            sliced = trace.ops[storage.birth].name.startswith(_SLICED)
            editor.storages[index] = self._hidden(storage) if sliced else self._small(storage)

    def _grow_gradients(self, first: int) -> None:
        """Let the gradients of hidden states, weight and bias live from the first chunk on."""
        trace, editor = self._trace, self._editor
        gradients = set(self._site.gradients)
        for index, storage in enumerate(trace.storages):
            if storage.birth in gradients:
                whole = self._cast_of_weight(index)
                death = self._added_to(whole)
                editor.storages[whole] = dataclasses.replace(
                    editor.storages[whole], birth=first, death=death
                )

    def _added_to(self, index: int) -> int | None:
        """Return when a gradient dies.

        A plain linear layer hands out its weight's gradient as a transposed view, to which
        autograd cannot add the gradient of a tied weight in place; to ours it can.
        """
        death = self._trace.storages[index].death
        if death is None:
            return None
        op = self._trace.ops[death]
        sizes = {self._trace.storages[i].nbytes for i in op.reads}
        tied = op.name == _ADD and op.phase is Phase.BACKWARD and op.reads[:1] == (index,)
        weight = self._trace.storages[self._site.weight].nbytes
        return death - 1 if tied and sizes == {weight} else death

    def _cast_of_weight(self, index: int) -> int:
        """Return what a gradient is cast to where it is that of a weight under autocast.

        The weight's gradient is summed over chunks in the weight's own dtype.
        """
        trace = self._trace
        for number in range(self._site.backward[0], len(trace.ops)):
            op = trace.ops[number]
            if op.name == _CAST and op.reads == (index,) and op.source >= 0:
                kinds = [trace.storages[i].kind for i in trace.ops[op.source].reads]
                made = [i for i, s in enumerate(trace.storages) if s.birth == number]
                if made and Kind.PARAMETER in kinds:
                    return made[0]
        return index
